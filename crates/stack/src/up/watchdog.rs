//! The service manager's watchdog (`WatchdogSec=`): it hears of us only as long as the proxy answers.
//!
//! A keep-alive that the master sends by itself would say that the master lives, which is not what the service is for. So
//! the master asks the proxy, and passes the answer on. A proxy that is dead is no reason to be silent: it is being started
//! again. One that hangs is.

use std::time::{Duration, Instant};

/// Asks this often within the manager's patience: one answer may be late.
const TIMES: u32 = 3;

/// When to ask.
#[derive(Debug)]
pub(crate) struct Watchdog {
    beat: Option<(Duration, Instant)>,
}

impl Watchdog {
    /// For a manager that waits this long; one that does not wait needs none.
    pub(crate) fn new(patience: Option<Duration>) -> Self {
        let beat = patience.map(|patience| (patience / TIMES, Instant::now()));
        Self { beat }
    }

    /// Resolves when it is time to ask. Cancel-safe.
    pub(crate) async fn due(&mut self) {
        let Some((every, next)) = &mut self.beat else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until((*next).into()).await;
        // From now, not from then: after a suspended night there is nothing to catch up with.
        *next = Instant::now() + *every;
    }
}
