//! A site's certificate: what there is, what has been tried, and what comes next.

use std::time::SystemTime;

use crate::{
    certificate::{self, Facts},
    link::Link,
    message::{Keep, Progress, Report, Standing, Wanted, moment, seconds},
    order::Failure,
    schedule::{Kind, Window, order_at},
};

/// A site that wants a certificate.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) id: String,
    pub(crate) names: Vec<String>,
    /// Of the certificate that it has, be it for all of its names or not.
    pub(crate) facts: Option<Facts>,
    pub(crate) progress: Progress,
    /// When the authority would like it to be renewed.
    pub(crate) window: Option<Window>,
    /// When to ask for that.
    pub(crate) ask_window_at: SystemTime,
    /// What could not be kept so far, and when to try that again.
    pub(crate) unkept: Option<(Keep, SystemTime)>,
    told: Option<Standing>,
}

/// What can be done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// There is no certificate, or one that lacks names.
    Order,
    /// There is one, and it gets old.
    Renew,
    /// Ask when to renew.
    AskWindow,
    /// Try again to keep what was got.
    Keep,
}

impl Site {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            facts: wanted.chain.as_deref().and_then(Facts::of_chain),
            id: wanted.id,
            names: wanted.names,
            progress: wanted.progress,
            window: None,
            ask_window_at: SystemTime::UNIX_EPOCH,
            unkept: None,
            told: None,
        }
    }

    /// What there is, if it is for all of the names.
    pub(crate) fn whole(&self) -> Option<&Facts> {
        self.facts
            .as_ref()
            .filter(|facts| facts.covers(&self.names))
    }

    /// What comes next, and when.
    pub(crate) fn next(&self, now: SystemTime) -> (SystemTime, Act) {
        let (at, act) = self.order(now);
        let asks = self.whole().filter(|facts| facts.identifier.is_some());
        let ask = asks.map(|_| (self.ask_window_at, Act::AskWindow));
        let keep = self.unkept.as_ref().map(|(_, at)| (*at, Act::Keep));
        let all = [keep, ask, Some((at, act))].into_iter().flatten();
        all.min_by_key(|(at, _)| *at).unwrap_or((at, act))
    }

    fn order(&self, now: SystemTime) -> (SystemTime, Act) {
        let whole = self.whole();
        let share = match whole {
            Some(facts) => facts.share,
            // Each failure has another one, or the same two servers would meet again and again.
            None => {
                let text = format!(
                    "{}{}{}",
                    self.id, self.progress.failures, self.progress.last
                );
                certificate::share(text.as_bytes())
            }
        };
        let validity = whole.map(|facts| facts.validity);
        let failures = self.progress.failures();
        let got = self.progress.got.map(moment);
        let at = order_at(now, validity, got, self.window, failures, share);
        (
            at,
            if whole.is_some() {
                Act::Renew
            } else {
                Act::Order
            },
        )
    }

    /// Forgets failures, unless the authority itself has said when to come back. Says whether there were any.
    pub(crate) fn forgive(&mut self) -> Option<()> {
        self.progress.kind?;
        if self.progress.not_before.is_some() {
            return None;
        }
        self.progress.kind = None;
        Some(())
    }

    /// What is written down before an attempt: one that does not come to its end has failed, and most likely for want of a
    /// machine that goes on.
    pub(crate) fn trying(&mut self, now: SystemTime) -> Keep {
        let failed = Failure::new(Kind::Here, "the attempt did not come to its end");
        self.failed(&failed, now)
    }

    /// It has failed.
    pub(crate) fn failed(&mut self, failure: &Failure, now: SystemTime) -> Keep {
        self.progress.failures = self.progress.failures.saturating_add(1);
        self.progress.last = seconds(now);
        self.progress.kind = Some(failure.kind);
        self.progress.error = Some(failure.text.clone());
        self.progress.not_before = failure.not_before.map(seconds);
        self.keep_progress()
    }

    /// What has been tried.
    pub(crate) fn keep_progress(&self) -> Keep {
        Keep::Progress {
            id: self.id.clone(),
            progress: self.progress.clone(),
        }
    }

    /// Tells the master how things are, where that is new.
    pub(crate) async fn tell(&mut self, now: SystemTime, link: &Link) {
        let (at, act) = self.order(now);
        let standing = Standing {
            next: act.name().to_owned(),
            at: seconds(at),
            error: self.progress.error.clone(),
            failures: self.progress.failures,
            not_after: self
                .facts
                .as_ref()
                .map(|facts| seconds(facts.validity.not_after)),
            challenge: self.progress.challenge,
        };
        // What is due at once is due at another moment each time.
        if at <= now && self.told.is_some() {
            return;
        }
        if self.told.as_ref() != Some(&standing) {
            self.told = Some(standing.clone());
            let id = self.id.clone();
            link.tell(Report::Standing { id, standing }).await;
        }
    }
}
