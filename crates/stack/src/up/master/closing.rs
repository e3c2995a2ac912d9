//! Maintenance, as commands say it: what is closed outlives reloads and proxies, and goes to an heir.

use ::proxy::control::{Closed, Extent, Order};
use config::site::{Site, VirtualHost};
use tracing::info;

use super::Master;
use crate::{
    admin::{AskMaintenance, ClosedStatus, Maintenance},
    up::admin::Answer,
};

impl Master {
    /// Closes something, opens it, or only says what is closed.
    pub(in crate::up) fn maintain(&mut self, asked: AskMaintenance) -> Answer {
        let AskMaintenance {
            on,
            site,
            app,
            allow,
        } = asked;
        let extent = match (site, app) {
            (Some(_), Some(_)) => {
                return Answer::conflict("a site or an app, not both: ask for one after the other");
            }
            (Some(site), None) => Extent::Site(site),
            (None, Some(app)) => Extent::App(app),
            (None, None) => Extent::Everything,
        };
        match on {
            None => {}
            Some(true) => {
                if let Some(why) = missing(&self.opened.loaded.site, &extent) {
                    return Answer::conflict(why);
                }
                self.closed.retain(|closed| closed.extent != extent);
                info!("{extent} is closed for maintenance");
                self.closed.push(Closed { extent, allow });
            }
            Some(false) => {
                let before = self.closed.len();
                // Who opens everything means whatever was closed.
                let opens =
                    |closed: &Closed| extent == Extent::Everything || closed.extent == extent;
                self.closed.retain(|closed| !opens(closed));
                if self.closed.len() < before {
                    info!("{extent} is open again");
                }
            }
        }
        if on.is_some() {
            let closed = self.closed.clone();
            for front in self.front.front().into_iter().chain(self.leaving_fronts()) {
                front.tell(Order::Close {
                    closed: closed.clone(),
                });
            }
        }
        Answer::json(&Maintenance {
            closed: self.closed_status(),
        })
    }

    /// All that is closed, by whomever.
    pub(in crate::up) fn closed_status(&self) -> Vec<ClosedStatus> {
        let by_command = self.closed.iter().map(|closed| ClosedStatus {
            what: closed.extent.to_string(),
            by: "command".to_owned(),
            allow: closed.allow.clone(),
        });
        let hosts = self.opened.loaded.site.hosts.iter();
        let closed = hosts.filter(|host| host.maintenance.on);
        let by_file = closed.map(|host| ClosedStatus {
            what: Extent::Site(name(host)).to_string(),
            by: "configuration".to_owned(),
            allow: host.maintenance.allow.clone(),
        });
        by_command.chain(by_file).collect()
    }
}

fn name(host: &VirtualHost) -> String {
    host.names
        .first()
        .map_or_else(String::new, ToString::to_string)
}

/// Why there is no such thing to close.
fn missing(site: &Site, extent: &Extent) -> Option<String> {
    let known = |names: Vec<String>| names.join(", ");
    match extent {
        Extent::Everything => None,
        Extent::Site(name) => {
            let names = || site.hosts.iter().flat_map(|host| &host.names);
            let is_there = names().any(|known| known.to_string() == *name);
            let all = || known(names().map(ToString::to_string).collect());
            (!is_there).then(|| format!("there is no site {name:?}; the hosts are {}", all()))
        }
        Extent::App(name) => {
            let all = || known(site.apps.iter().map(|app| app.name.clone()).collect());
            let is_there = site.app(name).is_some();
            (!is_there).then(|| format!("there is no app {name:?}; the apps are {}", all()))
        }
    }
}
