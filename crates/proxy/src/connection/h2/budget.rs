//! What a client may do that brings it nothing: each such frame costs us work and the client nearly none, which is what all
//! denials of service by HTTP/2 have in common.
//!
//! Every kind has an allowance over [`SPAN`]; an honest client uses a fraction of it. One that uses it up is told so
//! (`ENHANCE_YOUR_CALM`), closed, counted and named in the log. The clock is read only when an allowance is used up, so
//! that the usual frame costs one addition.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The time over which allowances hold.
const SPAN: Duration = Duration::from_secs(10);

/// A way to keep a server busy for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attack {
    /// Streams opened and reset at once (CVE-2023-44487).
    RapidReset,
    /// Errors that make us reset streams (CVE-2025-8671, MadeYouReset).
    MadeYouReset,
    /// PING after PING, each to be answered (CVE-2019-9512).
    PingFlood,
    /// SETTINGS after SETTINGS, each to be answered (CVE-2019-9515).
    SettingsFlood,
    /// A field block in ever more frames (CVE-2024-27316), or with no end in size.
    ContinuationFlood,
    /// Content that is none: empty or tiny DATA (CVE-2019-9518).
    EmptyData,
    /// Windows opened bit by bit, each of which makes us send as little (CVE-2019-9511).
    WindowFlood,
    /// Priorities, which we have no use for (CVE-2019-9513), and frames that nobody knows.
    UselessFrames,
}

/// How many kinds there are.
const KINDS: usize = 8;

impl Attack {
    const ALL: [Self; KINDS] = [
        Self::RapidReset,
        Self::MadeYouReset,
        Self::PingFlood,
        Self::SettingsFlood,
        Self::ContinuationFlood,
        Self::EmptyData,
        Self::WindowFlood,
        Self::UselessFrames,
    ];

    /// As the log and the metrics name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid-reset",
            Self::MadeYouReset => "made-you-reset",
            Self::PingFlood => "ping-flood",
            Self::SettingsFlood => "settings-flood",
            Self::ContinuationFlood => "continuation-flood",
            Self::EmptyData => "empty-data",
            Self::WindowFlood => "window-flood",
            Self::UselessFrames => "useless-frames",
        }
    }

    /// How many in [`SPAN`] are borne. Browsers stay below a tenth of each.
    pub(super) fn allowance(self) -> u32 {
        match self {
            // A page that is left cancels what it was loading, which is 100 streams at most; twice in ten seconds is much.
            Self::RapidReset => 200,
            // No honest client makes errors; a bug of one should not cost all that it loads.
            Self::MadeYouReset => 100,
            Self::PingFlood => 100,
            Self::SettingsFlood => 50,
            // Counted for each block: 16 frames of 16 KiB hold more than any head that is accepted.
            Self::ContinuationFlood => 16,
            Self::EmptyData => 200,
            // Besides one for each KiB that was sent: clients that tell each frame they read have many times as many.
            Self::WindowFlood => 2000,
            Self::UselessFrames => 1000,
        }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, most) = (self.name(), self.allowance());
        match self {
            Self::ContinuationFlood => {
                write!(f, "{name}: a field block of more than {most} frames")
            }
            _ => write!(f, "{name}: more than {most} in {} s", SPAN.as_secs()),
        }
    }
}

/// What one connection has used of its allowances.
#[derive(Debug)]
pub(super) struct Budget {
    used: [u32; KINDS],
    since: Instant,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            used: [0; KINDS],
            since: Instant::now(),
        }
    }

    /// One more of these.
    pub(super) fn spend(&mut self, on: Attack) -> Result<(), Attack> {
        let used = &mut self.used[on as usize];
        *used += 1;
        if *used <= on.allowance() {
            return Ok(());
        }
        let now = Instant::now();
        if now.duration_since(self.since) < SPAN {
            return Err(on);
        }
        self.used = [0; KINDS];
        self.used[on as usize] = 1;
        self.since = now;
        Ok(())
    }

    /// So much content was sent: the windows that it needs are not for nothing.
    pub(super) fn sent(&mut self, bytes: usize) {
        let used = &mut self.used[Attack::WindowFlood as usize];
        *used = used.saturating_sub((bytes / 1024) as u32);
    }
}

/// How often each attack has ended a connection since the proxy began.
static COUNTS: [AtomicU64; KINDS] = [const { AtomicU64::new(0) }; KINDS];

/// Each attack by HTTP/2 and how many connections it has ended in the life of this process.
pub(crate) fn attacks() -> impl Iterator<Item = (&'static str, u64)> {
    Attack::ALL.into_iter().map(|attack| {
        (
            attack.name(),
            COUNTS[attack as usize].load(Ordering::Relaxed),
        )
    })
}

/// Counts it and says so in the log; a flood of them is one line a second.
pub(super) fn report(attack: Attack, peer: &dyn fmt::Display) {
    static LAST: Mutex<(Option<Instant>, u64)> = Mutex::new((None, 0));
    COUNTS[attack as usize].fetch_add(1, Ordering::Relaxed);
    let now = Instant::now();
    let silent = {
        let mut last = LAST.lock().expect("no holder of this lock panics");
        match last.0 {
            Some(time) if now.duration_since(time) < Duration::from_secs(1) => {
                last.1 += 1;
                return;
            }
            _ => {
                last.0 = Some(now);
                std::mem::take(&mut last.1)
            }
        }
    };
    match silent {
        0 => tracing::warn!("HTTP/2 connection of {peer} closed, {attack}"),
        others => tracing::warn!(
            "HTTP/2 connection of {peer} closed, {attack}; {others} more were closed since the last such line"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_used_up_and_given_anew() {
        for attack in Attack::ALL {
            let mut budget = Budget::new();
            for _ in 0..attack.allowance() {
                assert_eq!(budget.spend(attack), Ok(()));
            }
            assert_eq!(budget.spend(attack), Err(attack));
            budget.since -= SPAN;
            assert_eq!(budget.spend(attack), Ok(()));
        }
    }

    #[test]
    fn what_is_sent_pays_for_windows() {
        let mut budget = Budget::new();
        for _ in 0..100_000 {
            budget.sent(16 * 1024);
            assert_eq!(budget.spend(Attack::WindowFlood), Ok(()));
        }
    }
}
