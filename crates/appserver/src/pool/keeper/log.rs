//! What is said of a pool.

use std::time::Duration;

use telemetry::text::{Elapsed, Size};
use tracing::{error, info, warn};

use super::super::{News, Wear};
use super::{Keeper, orderly};

impl Keeper {
    pub(super) fn log(&self, news: &News, cause: &str) {
        match news {
            News::Ready { number, after } => {
                info!("{} is ready after {}", self.who(*number), Elapsed(*after));
            }
            News::CannotStart {
                number,
                why,
                traceback,
                again,
            } => self.log_failure(*number, why, traceback.as_deref(), *again),
            News::Died {
                number,
                lived,
                again,
                ..
            } => {
                let next = if again.is_zero() {
                    "another starts already".to_owned()
                } else {
                    format!("another starts in {}", Elapsed(*again))
                };
                error!(
                    "{} died: {cause}, after {}; {next}{}",
                    self.who(*number),
                    Elapsed(*lived),
                    self.running(*number),
                );
            }
            News::Replacing { number, why } => self.log_replacing(*number, *why),
            News::Left {
                number,
                parting,
                exit,
            } => match orderly(*parting, *exit) {
                Some(_) => info!("{} has left: {exit}", self.who(*number)),
                None => error!(
                    "{} died while it left: {cause}{}",
                    self.who(*number),
                    self.running(*number)
                ),
            },
            News::Overdue { number } => warn!(
                "{} has not finished in time and is killed{}",
                self.who(*number),
                self.running(*number)
            ),
            News::Resized { workers } => {
                let app = &self.template.app.name;
                info!("app {app}: {workers} workers from now on");
            }
            News::RenewFailed { left, why } => {
                let app = &self.template.app.name;
                error!(
                    "app {app}: the replacement of its workers halts: {why}; {left} of the old ones serve on"
                );
            }
            // The line of the worker, or of the master, says it.
            News::AppFailed { .. }
            | News::Decided
            | News::Staged
            | News::StageFailed { .. }
            | News::Renewed => {}
        }
    }

    fn log_failure(
        &self,
        number: u32,
        why: &str,
        traceback: Option<&str>,
        again: Option<Duration>,
    ) {
        let again = again.map_or_else(String::new, |wait| {
            format!("; next try in {}", Elapsed(wait))
        });
        match traceback {
            Some(traceback) => {
                let root = self.template.app.root.display();
                let who = self.who(number);
                error!("{who} in {root} cannot start: {why}{again}\n{traceback}");
            }
            None => error!("{} cannot start: {why}{again}", self.template.name(number)),
        }
    }

    fn log_replacing(&self, number: u32, why: Wear) {
        let who = self.who(number);
        match why {
            Wear::Superseded => info!("{who} is replaced: there is a newer generation"),
            Wear::Asked => info!("{who} is replaced, as a person wants it"),
            Wear::Age => info!("{who} is replaced: it has reached max_age"),
            Wear::Requests => info!("{who} is replaced: it has served max_requests"),
            Wear::Memory { rss } => {
                info!("{who} is replaced: it has {}, above max_rss", Size(rss));
            }
            Wear::Stuck => warn!("{who} is replaced: a request is stuck in it"),
        }
    }
}
