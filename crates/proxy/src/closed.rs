//! Maintenance: what of a site is closed to visitors, by its configuration or by a command, and who comes in nevertheless.
//!
//! What a command has closed belongs to no configuration: it is shared by all plans, and the master tells it to every proxy.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use config::site;

use crate::{
    access::Addresses,
    control::{Closed, Extent},
    failure::Failure,
    pages::Page,
};

/// What commands have closed.
#[derive(Debug, Default)]
pub(crate) struct Closures(ArcSwap<Vec<Closure>>);

#[derive(Debug)]
struct Closure {
    extent: Extent,
    inside: Option<Addresses>,
}

impl Closures {
    /// These and no others, from now on.
    pub(crate) fn set(&self, closed: Vec<Closed>) {
        let closure = |closed: Closed| Closure {
            inside: Addresses::new(&closed.allow, &[]),
            extent: closed.extent,
        };
        self.0
            .store(Arc::new(closed.into_iter().map(closure).collect()));
    }

    /// Whether one of these keeps the client out.
    fn keep_out(&self, client: Option<IpAddr>, concerns: impl Fn(&Extent) -> bool) -> bool {
        let all = self.0.load();
        all.iter().any(|closure| {
            concerns(&closure.extent)
                && !closure
                    .inside
                    .as_ref()
                    .is_some_and(|inside| inside.admit(client))
        })
    }
}

/// `maintenance` of a site.
#[derive(Debug)]
pub(crate) struct Maintenance {
    closures: Arc<Closures>,
    names: Vec<String>,
    on: bool,
    page: Option<Page>,
    /// Who comes in, whoever has closed it.
    inside: Option<Addresses>,
    retry_after: Duration,
}

impl Maintenance {
    /// Of a site with these hosts.
    pub(crate) fn new(
        maintenance: &site::Maintenance,
        names: &[site::HostPattern],
        page: Option<Page>,
        closures: &Arc<Closures>,
    ) -> Self {
        Self {
            closures: Arc::clone(closures),
            names: names.iter().map(ToString::to_string).collect(),
            on: maintenance.on,
            page,
            inside: Addresses::new(&maintenance.allow, &[]),
            retry_after: maintenance.retry_after,
        }
    }

    /// Whether this client may enter the site.
    pub(crate) fn check(&self, client: Option<IpAddr>) -> Result<(), Failure> {
        let concerns = |extent: &Extent| match extent {
            Extent::Everything => true,
            Extent::Site(name) => self.names.contains(name),
            Extent::App(_) => false,
        };
        match self.on || self.closures.keep_out(client, concerns) {
            true => self.refuse_others(client),
            false => Ok(()),
        }
    }

    /// Whether this client may enter an app of the site.
    pub(crate) fn check_app(&self, client: Option<IpAddr>, app: &str) -> Result<(), Failure> {
        let concerns = |extent: &Extent| matches!(extent, Extent::App(name) if name == app);
        match self.closures.keep_out(client, concerns) {
            true => self.refuse_others(client),
            false => Ok(()),
        }
    }

    fn refuse_others(&self, client: Option<IpAddr>) -> Result<(), Failure> {
        if self
            .inside
            .as_ref()
            .is_some_and(|inside| inside.admit(client))
        {
            return Ok(());
        }
        Err(Failure::Maintenance {
            page: self.page.clone(),
            retry_after: self.retry_after,
        })
    }
}
