//! What a panic costs. It is a fault of ours, is said as an error of the log, and ends the task or thread that it happens in:
//! one connection of one client, say. It must not cost others anything, so a lock that it was under goes on ([`lock`]); and
//! what everybody depends on must not be missing without a sign, so that ends the process ([`Vital`]), which is started again.

use std::{
    panic,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use tracing::Level;

/// The lock, also after a panic of somebody who had it. What it protects may then lack that step of that one; were everybody
/// else to panic for that, one broken request would be the end of all that come.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a task or thread without which its process is of no use, and whose end nobody would notice: who accepts, say. A
/// panic in it aborts the process.
#[must_use]
#[derive(Debug)]
pub struct Vital {
    /// What does not go on.
    what: &'static str,
}

impl Vital {
    /// From here on, as long as this lives.
    pub fn new(what: &'static str) -> Self {
        Self { what }
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(
                "without {} there is nothing to go on with: this process ends",
                self.what
            );
            crate::log::flush();
            std::process::abort();
        }
    }
}

/// Has panics said in the log, in its format and without waiting for its reader.
pub(crate) fn say_in_log() {
    let otherwise = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        // Whoever wants to hear nothing hears of this as they would of any program.
        if !tracing::enabled!(Level::ERROR) {
            return otherwise(panic);
        }
        let place = panic
            .location()
            .map_or_else(String::new, ToString::to_string);
        let why = panic.payload_as_str().unwrap_or("no words");
        tracing::error!("a bug in stack, please report it: panicked at {place}: {why}");
    }));
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::process::ExitStatusExt, process::Command, sync::Arc};

    use super::*;
    use crate::log::{self, Format, Process, Settings};

    #[test]
    fn a_lock_goes_on_after_a_panic_under_it() {
        let shared = Arc::new(Mutex::new(1));
        let theirs = Arc::clone(&shared);
        let broken = thread::spawn(move || {
            *lock(&theirs) += 1;
            let _held = lock(&theirs);
            panic!("meant");
        });
        assert!(broken.join().is_err());
        assert!(shared.is_poisoned());
        assert_eq!(*lock(&shared), 2);
    }

    /// Where this is in the environment, the test is its own child, which is to be aborted.
    const CHILD: &str = "STACK_TEST_OF_PANICS";

    #[test]
    fn a_panic_is_a_line_of_the_log_and_in_what_is_vital_the_end() {
        if env::var_os(CHILD).is_some() {
            let settings = Settings {
                process: Process::Proxy,
                filter: "info".to_owned(),
                format: Format::Json,
            };
            log::init(settings).expect("the first one");
            log::never_wait().expect("a thread");
            let one = thread::spawn(|| panic!("costs one"));
            assert!(one.join().is_err());
            let all = thread::spawn(|| {
                let _vital = Vital::new("this thread");
                panic!("costs all");
            });
            assert!(all.join().is_ok(), "it is not here any more");
        }
        let name = thread::current();
        let name = name.name().expect("a test has its name");
        let output = Command::new(env::current_exe().expect("this program"))
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .env_remove(log::FILTER_VARIABLE)
            .output()
            .expect("it runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.signal(), Some(6), "SIGABRT: {said}");
        let lines: Vec<serde_json::Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let expected = ["costs one", "costs all", "without this thread"];
        assert_eq!(lines.len(), expected.len(), "{said}");
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(line["level"], "error", "{line}");
            let message = line["message"].as_str().expect("words");
            assert!(message.contains(expected), "{line}");
        }
    }
}
