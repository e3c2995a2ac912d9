//! What people and service managers ask of the master by signal.
//!
//! Deaths of children are not learnt here (`SIGCHLD`) but by pidfd: see [`crate::child`].

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What was asked; the names are those of nginx and gunicorn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `SIGTERM`: finish what runs, then leave.
    Terminate,
    /// `SIGINT`, Ctrl-C: the same; a second one means now.
    Interrupt,
    /// `SIGQUIT`: leave now.
    Quit,
    /// `SIGHUP`: take the new configuration.
    HangUp,
    /// `SIGUSR1`: open the log files anew.
    ReopenLogs,
    /// `SIGUSR2`: let another master take over, of the program that is there by now.
    Upgrade,
    /// `SIGTTIN`: one worker more.
    Grow,
    /// `SIGTTOU`: one worker less.
    Shrink,
}

/// The requests of this process, from the moment this is made. The default actions never come back.
#[derive(Debug)]
pub struct Requests {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
    user1: Signal,
    user2: Signal,
    tty_in: Signal,
    tty_out: Signal,
}

impl Requests {
    /// Starts listening; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When a handler cannot be set.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            tty_in: signal(SignalKind::from_raw(libc::SIGTTIN))?,
            tty_out: signal(SignalKind::from_raw(libc::SIGTTOU))?,
        })
    }

    /// The next request. Cancel-safe.
    pub async fn next(&mut self) -> Request {
        // `recv` is `None` only when the runtime's signal driver is gone, and then nobody awaits this any more.
        tokio::select! {
            _ = self.quit.recv() => Request::Quit,
            _ = self.terminate.recv() => Request::Terminate,
            _ = self.interrupt.recv() => Request::Interrupt,
            _ = self.hang_up.recv() => Request::HangUp,
            _ = self.user1.recv() => Request::ReopenLogs,
            _ = self.user2.recv() => Request::Upgrade,
            _ = self.tty_in.recv() => Request::Grow,
            _ = self.tty_out.recv() => Request::Shrink,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Number, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn each_signal_is_its_request() {
        let mut requests = Requests::new().unwrap();
        let cases = [
            (Number::TERM, Request::Terminate),
            (Number::INT, Request::Interrupt),
            (Number::QUIT, Request::Quit),
            (Number::HUP, Request::HangUp),
            (Number::USR1, Request::ReopenLogs),
            (Number::USR2, Request::Upgrade),
            (Number::TTIN, Request::Grow),
            (Number::TTOU, Request::Shrink),
        ];
        for (number, expected) in cases {
            kill_process(getpid(), number).unwrap();
            assert_eq!(requests.next().await, expected);
        }
    }
}
