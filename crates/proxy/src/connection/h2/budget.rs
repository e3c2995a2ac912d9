//! What a client may do that brings it nothing: each such frame costs us work and the client nearly none, which is what all
//! denials of service by HTTP/2 have in common.
//!
//! Every kind has an allowance over [`SPAN`]; an honest client uses a fraction of it. One that uses it up is told so
//! (`ENHANCE_YOUR_CALM`), closed, counted and named in the log. The clock is read only when an allowance is used up, so
//! that the usual frame costs one addition. What some honest client may have a use for is a key of `[limits]`; the rest is
//! decided here, since whoever needed more of it would be broken.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use config::site::Limits;
use telemetry::panics;

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
    fn allowance(self, limits: &Limits) -> u64 {
        match self {
            Self::RapidReset => limits.h2_resets,
            // No honest client makes errors; a bug of one should not cost all that it loads.
            Self::MadeYouReset => 100,
            Self::PingFlood => limits.h2_pings,
            // Clients send one when they connect, and hardly ever another.
            Self::SettingsFlood => 50,
            Self::ContinuationFlood => CONTINUATIONS.into(),
            Self::EmptyData => limits.h2_empty_data,
            // Besides one for each KiB that was sent: clients that tell each frame they read have many times as many.
            Self::WindowFlood => limits.h2_window_updates,
            // Some browsers send a dozen priorities with each page.
            Self::UselessFrames => 1000,
        }
    }

    /// The key that sets the allowance.
    fn key(self) -> Option<&'static str> {
        match self {
            Self::RapidReset => Some("h2_resets"),
            Self::PingFlood => Some("h2_pings"),
            Self::EmptyData => Some("h2_empty_data"),
            Self::WindowFlood => Some("h2_window_updates"),
            Self::MadeYouReset
            | Self::SettingsFlood
            | Self::ContinuationFlood
            | Self::UselessFrames => None,
        }
    }
}

/// Frames of one field block: so many of 16 KiB hold more than any head that is accepted.
pub(super) const CONTINUATIONS: u32 = 16;

/// An attack, and what it went past, for the log.
struct Described<'l>(Attack, &'l Limits);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(attack, limits) = self;
        let (name, most) = (attack.name(), attack.allowance(limits));
        match attack {
            Attack::ContinuationFlood => {
                write!(f, "{name}: a field block of more than {most} frames")?;
            }
            _ => write!(f, "{name}: more than {most} in {} s", SPAN.as_secs())?,
        }
        match attack.key() {
            Some(key) => write!(f, " (limits.{key})"),
            None => Ok(()),
        }
    }
}

/// What one connection has used of its allowances.
#[derive(Debug)]
pub(super) struct Budget {
    allowed: [u32; KINDS],
    used: [u32; KINDS],
    since: Instant,
}

impl Budget {
    pub(super) fn new(limits: &Limits) -> Self {
        let allowed = |attack: Attack| attack.allowance(limits).try_into().unwrap_or(u32::MAX);
        Self {
            allowed: Attack::ALL.map(allowed),
            used: [0; KINDS],
            since: Instant::now(),
        }
    }

    /// One more of these.
    pub(super) fn spend(&mut self, on: Attack) -> Result<(), Attack> {
        let used = &mut self.used[on as usize];
        *used = used.saturating_add(1);
        if *used <= self.allowed[on as usize] {
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

    /// A frame of content was sent: the windows that it needs are not for nothing. One that was not made short by a window
    /// (`whole`) is worth one more, and a PING: clients of gRPC answer each message so, to learn how much may be under way.
    pub(super) fn sent(&mut self, bytes: usize, whole: bool) {
        let message = u32::from(whole);
        let mut pay = |attack: Attack, count: u32| {
            let used = &mut self.used[attack as usize];
            *used = used.saturating_sub(count);
        };
        let blocks = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
        pay(Attack::WindowFlood, blocks.saturating_add(message));
        pay(Attack::PingFlood, message);
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
pub(super) fn report(attack: Attack, limits: &Limits, peer: &dyn fmt::Display) {
    static LAST: Mutex<(Option<Instant>, u64)> = Mutex::new((None, 0));
    COUNTS[attack as usize].fetch_add(1, Ordering::Relaxed);
    let now = Instant::now();
    let silent = {
        let mut last = panics::lock(&LAST);
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
    let attack = Described(attack, limits);
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
        let limits = Limits {
            h2_resets: 3,
            h2_pings: 0,
            ..Limits::default()
        };
        for attack in Attack::ALL {
            let mut budget = Budget::new(&limits);
            for _ in 0..attack.allowance(&limits) {
                assert_eq!(budget.spend(attack), Ok(()));
            }
            assert_eq!(budget.spend(attack), Err(attack));
            budget.since -= SPAN;
            assert_eq!(budget.spend(attack), Ok(()));
        }
    }

    #[test]
    fn the_log_names_the_key() {
        let limits = Limits::default();
        let said = |attack| Described(attack, &limits).to_string();
        assert_eq!(
            said(Attack::PingFlood),
            "ping-flood: more than 100 in 10 s (limits.h2_pings)"
        );
        assert_eq!(
            said(Attack::SettingsFlood),
            "settings-flood: more than 50 in 10 s"
        );
    }

    #[test]
    fn what_is_sent_pays_for_windows() {
        let mut budget = Budget::new(&Limits::default());
        for _ in 0..100_000 {
            budget.sent(16 * 1024, false);
            assert_eq!(budget.spend(Attack::WindowFlood), Ok(()));
            budget.sent(5, true);
            assert_eq!(budget.spend(Attack::WindowFlood), Ok(()));
            assert_eq!(budget.spend(Attack::PingFlood), Ok(()));
        }
    }
}
