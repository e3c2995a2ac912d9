//! What the agent does for a site.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use instant_acme::{Account, Error};
use telemetry::text::Elapsed;
use tracing::{debug, error, info, warn};

use crate::{
    account,
    client::Client,
    link::Link,
    message::{Challenge, Keep, Progress, Report, Scene, Setup, seconds},
    order::{Cause, Failure, Issued, Wish, obtain},
    schedule::{Kind, Window, ask_window_at},
    site::{Act, Site},
};

/// With what it is done.
pub(crate) struct Work {
    setup: Setup,
    client: Client,
    pub(crate) link: Arc<Link>,
}

/// When to ask again for a window that could not be had.
const NO_WINDOW: Duration = Duration::from_secs(6 * 3600);

/// When to try again to keep what could not be kept.
const KEEP_AGAIN: Duration = Duration::from_secs(10);

impl Work {
    pub(crate) fn new(setup: Setup, client: Client, link: Arc<Link>) -> Self {
        Self {
            setup,
            client,
            link,
        }
    }

    /// Does it; what comes of it stands in the site.
    pub(crate) async fn act(&mut self, act: Act, site: &mut Site) {
        match act {
            Act::Order | Act::Renew => self.order(act, site).await,
            Act::AskWindow => self.ask_window(site).await,
            Act::Keep => self.keep_again(site).await,
        }
    }

    async fn order(&mut self, act: Act, site: &mut Site) {
        let names = site.names.join(", ");
        let before = site.progress.clone();
        let trying = site.trying(SystemTime::now());
        // What cannot be kept is not ordered: it would be lost at the next start, and count against limits.
        let ended = match self.link.keep(trying).await {
            Ok(()) => {
                info!(
                    "certificate for {names}: {} at {}",
                    act.name(),
                    self.setup.directory
                );
                self.issue(site, before.challenge).await
            }
            Err(failure) => Err(failure),
        };
        let now = SystemTime::now();
        let done = ended.is_ok();
        match ended {
            Ok((issued, challenge)) => self.take(site, issued, challenge).await,
            Err(failure) => {
                // The attempt was counted when it began.
                site.progress = before;
                let kept = site.failed(&failure, now);
                let (at, _) = site.next(now);
                let wait = Elapsed(at.duration_since(now).unwrap_or_default());
                error!("no certificate for {names}: {failure}; next try in {wait}");
                if let Err(failure) = self.link.keep(kept).await {
                    debug!("what has been tried cannot be kept: {failure}");
                }
            }
        }
        let id = site.id.clone();
        self.link.tell(Report::Ordered { id, done }).await;
    }

    /// Has a certificate issued. Where the authority does not find us in one way it is asked to come by the other.
    async fn issue(
        &mut self,
        site: &Site,
        before: Option<Challenge>,
    ) -> Result<(Issued, Challenge), Failure> {
        let account = self.account().await?;
        let mut ways = self.setup.challenges.clone();
        // What was successful last is first.
        ways.sort_by_key(|way| Some(*way) != before);
        let replaces = site
            .facts
            .as_ref()
            .and_then(|facts| facts.identifier.as_ref());
        let mut wish = Wish {
            names: &site.names,
            profile: self.setup.profile.as_deref(),
            replaces,
            challenge: Challenge::Http01,
        };
        let mut reasons = Vec::new();
        for way in &ways {
            wish.challenge = *way;
            match obtain(&account, &self.client, &self.link, &wish).await {
                Ok(issued) => return Ok((issued, *way)),
                Err(failure) if failure.cause == Cause::Unfound => {
                    warn!("{way} has failed: {failure}");
                    reasons.push((*way, failure));
                }
                Err(failure) => {
                    if failure.cause == Cause::NoAccount {
                        // Another one is made at the next attempt, which is soon.
                        warn!("the authority does not know our account: {failure}");
                        self.setup.account = None;
                        return Err(Failure::new(Kind::Unreachable, failure.text));
                    }
                    return Err(failure);
                }
            }
        }
        Err(unfound(reasons))
    }

    /// Opened for each errand: an authority may move its places within the life of a certificate.
    async fn account(&mut self) -> Result<Account, Failure> {
        account::open(&mut self.setup, &self.client, &self.link).await
    }

    /// It is used from here on, whether it can be kept or not.
    async fn take(&self, site: &mut Site, issued: Issued, challenge: Challenge) {
        let validity = issued.facts.validity;
        let left = validity.not_after.duration_since(SystemTime::now());
        info!(
            "certificate for {}: got by {challenge}, valid for {}",
            site.names.join(", "),
            Elapsed(left.unwrap_or_default())
        );
        site.progress = Progress {
            challenge: Some(challenge),
            got: Some(seconds(SystemTime::now())),
            ..Progress::default()
        };
        site.facts = Some(issued.facts);
        site.window = None;
        site.ask_window_at =
            SystemTime::now() + Duration::from_secs(60).min(validity.lifetime() / 4);
        let Issued { chain, key, .. } = issued;
        let id = site.id.clone();
        let keep = Keep::Certificate { id, chain, key };
        site.unkept = Some((keep, SystemTime::UNIX_EPOCH));
        self.keep_again(site).await;
    }

    async fn keep_again(&self, site: &mut Site) {
        let Some((keep, _)) = site.unkept.take() else {
            return;
        };
        let kept = self.link.keep(keep.clone()).await;
        let kept = match kept {
            Ok(()) => self.link.keep(site.keep_progress()).await,
            failed => failed,
        };
        if let Err(failure) = kept {
            error!(
                "the certificate for {} is used, but cannot be kept: {failure}; tried again until it can",
                site.names.join(", ")
            );
            site.unkept = Some((keep, SystemTime::now() + KEEP_AGAIN));
        }
    }

    async fn ask_window(&mut self, site: &mut Site) {
        let now = SystemTime::now();
        site.ask_window_at = now + NO_WINDOW;
        let Some(identifier) = site.whole().and_then(|facts| facts.identifier.clone()) else {
            return;
        };
        let account = match self.account().await {
            Ok(account) => account,
            Err(failure) => {
                debug!("cannot ask when to renew: {failure}");
                return;
            }
        };
        match account.renewal_info(&identifier).await {
            Ok((info, after)) => {
                site.ask_window_at = ask_window_at(now, after);
                let window = Window {
                    start: info.suggested_window.start.into(),
                    end: info.suggested_window.end.into(),
                };
                if window.start <= now && site.window != Some(window) {
                    let why = info.explanation_url.map(|url| format!(" ({url})"));
                    info!(
                        "the authority would like the certificate for {} to be renewed now{}",
                        site.names.join(", "),
                        why.unwrap_or_default()
                    );
                }
                site.window = Some(window);
            }
            Err(Error::Unsupported(_)) => {}
            Err(error) => debug!(
                "cannot ask when to renew: {}",
                Failure::of(&error, &self.client)
            ),
        }
    }

    /// Orders for each site at the place for rehearsals, with an account for this time.
    pub(crate) async fn rehearse(&mut self, sites: &[Site]) {
        info!("rehearsal at {}", self.setup.rehearsal);
        let account = account::made(&self.setup, &self.setup.rehearsal, &self.client).await;
        let mut scenes = Vec::new();
        for site in sites {
            let played = match &account {
                Ok((account, _)) => self.play(account, site).await,
                Err(failure) => Err(failure.clone()),
            };
            let names = site.names.clone();
            scenes.push(match played {
                Ok(challenge) => Scene {
                    names,
                    challenge: Some(challenge),
                    error: None,
                },
                Err(failure) => Scene {
                    names,
                    challenge: None,
                    error: Some(failure.text),
                },
            });
        }
        if let Ok((account, _)) = account
            && let Err(error) = account.deactivate().await
        {
            debug!("the account of the rehearsal stays: {error}");
        }
        self.link.tell(Report::Rehearsed { scenes }).await;
    }

    async fn play(&self, account: &Account, site: &Site) -> Result<Challenge, Failure> {
        let mut reasons = Vec::new();
        for way in &self.setup.challenges {
            let wish = Wish {
                names: &site.names,
                profile: self.setup.profile.as_deref(),
                replaces: None,
                challenge: *way,
            };
            match obtain(account, &self.client, &self.link, &wish).await {
                Ok(_) => return Ok(*way),
                Err(failure) if failure.cause == Cause::Unfound => reasons.push((*way, failure)),
                Err(failure) => return Err(failure),
            }
        }
        Err(unfound(reasons))
    }
}

/// By none of the ways.
fn unfound(reasons: Vec<(Challenge, Failure)>) -> Failure {
    let words: Vec<String> = reasons
        .iter()
        .map(|(way, failure)| format!("{way}: {failure}"))
        .collect();
    let text = match words.is_empty() {
        true => {
            "the authority can reach us neither by HTTP nor by TLS: there is no listener".to_owned()
        }
        false => words.join("; "),
    };
    let mut all = Failure::new(Kind::Refused, text);
    for (_, failure) in reasons {
        if failure.kind == Kind::Limited {
            all.kind = Kind::Limited;
        }
        all.not_before = all.not_before.max(failure.not_before);
    }
    all
}
