//! Certificates by ACME: who gets them is told what to do, and the proxy what has come of it.

use ::proxy::control::Order;
use telemetry::metrics;
use tokio::sync::oneshot;
use tracing::warn;

use super::{Master, Phase};
use crate::{
    admin::{AcmeStatus, Rehearsal},
    up::{
        admin::Answer,
        certificates::{self, Office, Plan, Told},
    },
};

impl Master {
    /// Has certificates got, if the configuration wants that and we serve: challenges are for our proxy to answer. Where that is
    /// done already, what has failed is tried again.
    pub(in crate::up) fn open_office(&mut self) {
        let serves = matches!(self.phase, Phase::Starting { .. } | Phase::Serving);
        if !serves || self.setting.will.is_some() {
            return;
        }
        let credentials = &self.opened.credentials;
        let plan = Plan::new(
            &self.opened.loaded.site,
            &self.opened.listening,
            credentials.store(),
            credentials.authorities(),
            credentials.eab(),
            self.opened.identities.proxy(),
        );
        match (plan, &self.office) {
            (Some(plan), Some(office)) if office.is_for(&plan) => {}
            (Some(plan), _) => {
                // The lock is the earlier one's until it is gone.
                self.office = None;
                self.warn_of_missing(&plan);
                self.office = Some(Office::open(plan, self.office_reports.clone()));
                // What an earlier one has asked for is nobody's any more.
                self.hand_challenges();
            }
            (None, _) => self.office = None,
        }
    }

    /// Somebody has changed something, perhaps what was wrong.
    pub(in crate::up) fn try_certificates_again(&self) {
        if let Some(office) = &self.office {
            office.tell(certificates::Order::Now);
        }
    }

    /// The log has changed, which an agent has from its beginning.
    pub(in crate::up) fn renew_agent(&self) {
        if let Some(office) = &self.office {
            office.tell(certificates::Order::Anew);
        }
    }

    fn warn_of_missing(&self, plan: &Plan) {
        for names in plan.missing() {
            warn!(
                "there is no certificate for {} yet: until it is got, a self-signed one is shown, or an older one for some of the names",
                names.join(", ")
            );
        }
    }

    pub(super) fn office_told(&mut self, told: Told) {
        let Some(office) = &mut self.office else {
            return;
        };
        match told {
            Told::Challenges { number, challenges } => {
                office.challenges = (number, challenges);
                self.hand_challenges();
            }
            Told::Got { id, got } => {
                let site = &self.opened.loaded.site;
                if let Some(credentials) = self.opened.credentials.take(site, id, got) {
                    self.tell_front(Order::Renew { credentials });
                }
            }
            Told::Standing { id, standing } => {
                office.standings.insert(id, standing);
            }
            Told::Ordered { id, done } => {
                let site = office.hosts(&id);
                let result = if done { "done" } else { "failed" };
                self.figures
                    .add(&metrics::ACME_ORDERS, [site.as_str(), result]);
            }
            Told::Rehearsed(scenes) => {
                let answer = Answer::json(&Rehearsal { scenes });
                for asker in office.audience.drain(..) {
                    // Whoever asked may have gone.
                    let _ = asker.send(answer.clone());
                }
            }
            Told::Elsewhere(id, true) => {
                office.elsewhere.insert(id);
            }
            Told::Elsewhere(id, false) => {
                office.elsewhere.remove(&id);
            }
            Told::Died => {
                office.challenges = (0, Vec::new());
                let answer = Answer::conflict(
                    "the process that gets certificates has ended before: try again",
                );
                for asker in office.audience.drain(..) {
                    let _ = asker.send(answer.clone());
                }
                self.hand_challenges();
            }
        }
    }

    /// Tells the proxy, or the one that has just started, what to answer to the authority.
    pub(super) fn hand_challenges(&self) {
        if let Some(office) = &self.office {
            let (number, challenges) = office.challenges.clone();
            self.tell_front(Order::Challenges { number, challenges });
        }
    }

    /// Somebody wants to know whether certificates could be got.
    pub(in crate::up) fn rehearse(&mut self, asker: oneshot::Sender<Answer>) {
        let why = match &mut self.office {
            None => "no site has `tls = \"acme\"`, or it does not serve yet",
            Some(office) if office.wanted().all(|(id, _)| office.elsewhere.contains(id)) => {
                "another stack with the same state directory gets the certificates: ask that one"
            }
            Some(office) => {
                if office.audience.is_empty() {
                    office.tell(certificates::Order::Rehearse);
                }
                return office.audience.push(asker);
            }
        };
        // Whoever asked may have gone.
        let _ = asker.send(Answer::conflict(why));
    }

    /// How certificates by ACME are.
    pub(in crate::up) fn acme_status(&self) -> Vec<AcmeStatus> {
        let status = |office: &Office| {
            let wanted = office.wanted().map(|(id, names)| AcmeStatus {
                hosts: names.to_vec(),
                standing: office.standings.get(id).cloned(),
                elsewhere: office.elsewhere.contains(id),
            });
            wanted.collect()
        };
        self.office.as_ref().map_or_else(Vec::new, status)
    }

    /// They are answered.
    pub(super) fn challenges_answered(&self, number: u64) {
        if let Some(office) = &self.office {
            office.tell(certificates::Order::Answering { number });
        }
    }
}
