//! Certificates by ACME, as the master sees them: what is wanted, who gets it, and where it is kept.
//!
//! The master starts the agent (`stack acme`) and hands it what it needs; what the agent gets is kept here and shown by the proxy.

mod keeper;
pub(crate) mod store;

use std::collections::{BTreeMap, BTreeSet};

use ::acme::message::{Challenge, Setup, Standing, Wanted};
use ::proxy::control;
use config::site::Site;
use supervisor::user::User;
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

pub(crate) use self::keeper::{Order, Told};
use self::{
    keeper::Keeper,
    store::{Store, names},
};
use super::{admin::Answer, listen::Listening};

/// What an agent is for. As long as it is the same, the same one goes on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Without what is in the store, which may change meanwhile.
    setup: Setup,
    store: Store,
    user: Option<User>,
}

impl Plan {
    /// `authorities` are those that the authority's server is verified by, as PEM; `None` where no site wants a certificate.
    pub(crate) fn new(
        site: &Site,
        listening: &[Listening],
        store: Option<&Store>,
        authorities: &str,
        eab: Option<(String, String)>,
        user: Option<&User>,
    ) -> Option<Self> {
        let (acme, store) = (site.acme.as_ref()?, store?);
        let names = site.hosts.iter().filter_map(names);
        let sites = names.map(|names| Wanted {
            id: store.id(&names),
            names,
            chain: None,
            progress: Default::default(),
        });
        Some(Self {
            setup: Setup {
                directory: acme.directory.clone(),
                rehearsal: acme.rehearsal().to_owned(),
                email: acme.email.clone(),
                profile: acme.profile.clone(),
                authorities: authorities.to_owned(),
                eab,
                account: None,
                challenges: ways(listening),
                landlock: site.server.landlock,
                sites: sites.collect(),
            },
            store: store.clone(),
            user: user.cloned(),
        })
    }
}

impl Plan {
    /// The names of each certificate that is wanted and not there.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &[String]> {
        let sites = self.setup.sites.iter();
        let missing = sites.filter(|site| !self.store.path(&site.id).exists());
        missing.map(|site| site.names.as_slice())
    }
}

/// How an authority may reach us: at the port that it asks at, if we listen there; else at whatever leads to us from there.
fn ways(listening: &[Listening]) -> Vec<Challenge> {
    let of_visitors = || {
        let all = listening.iter().map(|listening| &listening.what);
        all.filter(|what| !what.figures)
    };
    let there = |tls: bool| of_visitors().any(|what| what.tls == tls);
    let at =
        |tls: bool, port: u16| of_visitors().any(|what| what.tls == tls && what.port == Some(port));
    let mut ways = Vec::new();
    if there(false) {
        ways.push(Challenge::Http01);
    }
    if there(true) {
        ways.push(Challenge::TlsAlpn01);
    }
    if at(true, 443) && !at(false, 80) {
        ways.reverse();
    }
    ways
}

/// Those who get certificates, and what is known of them.
#[derive(Debug)]
pub(crate) struct Office {
    plan: Plan,
    orders: mpsc::UnboundedSender<Order>,
    task: AbortHandle,
    /// How each certificate is, by its id.
    pub(crate) standings: BTreeMap<String, Standing>,
    /// What is to be answered to the authority: the number of the order, and the answers.
    pub(crate) challenges: (u64, Vec<control::Challenge>),
    /// The certificates that another stack gets, by their ids.
    pub(crate) elsewhere: BTreeSet<String>,
    /// Who waits for the rehearsal.
    pub(crate) audience: Vec<oneshot::Sender<Answer>>,
}

impl Office {
    /// Opens one. Must be called on the main thread, in a runtime of one thread.
    pub(crate) fn open(plan: Plan, told: mpsc::UnboundedSender<Told>) -> Self {
        let (orders, obeyed) = mpsc::unbounded_channel();
        let keeper = Keeper::new(plan.clone(), told);
        Self {
            plan,
            orders,
            task: tokio::spawn(keeper.run(obeyed)).abort_handle(),
            standings: BTreeMap::new(),
            challenges: (0, Vec::new()),
            elsewhere: BTreeSet::new(),
            audience: Vec::new(),
        }
    }

    /// Whether it does this already.
    pub(crate) fn is_for(&self, plan: &Plan) -> bool {
        self.plan == *plan
    }

    /// What is wanted: each certificate's id and names.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&str, &[String])> {
        let sites = self.plan.setup.sites.iter();
        sites.map(|site| (site.id.as_str(), site.names.as_slice()))
    }

    /// The names of a certificate as labels have them; empty where nobody wants it.
    pub(crate) fn hosts(&self, id: &str) -> String {
        let mut sites = self.wanted();
        let found = sites.find(|(known, _)| *known == id);
        found.map_or_else(String::new, |(_, names)| names.join(","))
    }

    /// Tells it something; it hears as long as it lives.
    pub(crate) fn tell(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        // With it the agent ends, and the lock is another's to take.
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use ::proxy::control::Listener;

    use super::*;

    fn listening(tls: bool, port: Option<u16>) -> Listening {
        let what = Listener {
            tls,
            proxy_protocol: false,
            figures: false,
            name: String::new(),
            port,
        };
        Listening::of(File::open("/dev/null").unwrap().into(), what)
    }

    #[test]
    fn the_way_in_depends_on_what_is_open() {
        use Challenge::{Http01, TlsAlpn01};
        let (http, https) = (listening(false, Some(80)), listening(true, Some(443)));
        let (high, unix) = (listening(false, Some(8080)), listening(false, None));
        assert_eq!(ways(&[http, https.clone()]), [Http01, TlsAlpn01]);
        assert_eq!(ways(std::slice::from_ref(&https)), [TlsAlpn01]);
        assert_eq!(ways(&[high, https.clone()]), [TlsAlpn01, Http01]);
        assert_eq!(ways(&[unix, https]), [TlsAlpn01, Http01]);
        assert_eq!(
            ways(&[listening(false, None), listening(true, Some(8443))]),
            [Http01, TlsAlpn01]
        );
        assert_eq!(ways(&[]), []);
    }
}
