//! The servers, ours first: each is started as its own documentation has it for production.

mod bare;
mod floor;
mod forward;
mod nginx;
mod python;
mod stack;
mod tls;

use anyhow::Result;

use super::peer::{Address, Peer, Scene, Started, Tree};

const BOTH: &[&str] = &["proxy", "worker"];
const WORKER: &[&str] = &["worker"];

const fn peer(
    name: &'static str,
    parts: &'static [&'static str],
    start: fn(&Scene<'_>) -> Result<Started>,
) -> Peer {
    Peer {
        name,
        parts,
        fields: "",
        start,
    }
}

/// Whole sites that serve files too.
pub(crate) const SITES: &[Peer] = &[
    peer("stack", BOTH, stack::site),
    peer("nginx + gunicorn gthread", BOTH, |scene| {
        nginx::before(scene, python::gunicorn_gthread)
    }),
];

/// Proxies before a server that is no part of what is measured.
pub(crate) const FORWARDS: &[Peer] = &[
    peer("stack", &["proxy"], forward::stack),
    peer("nginx", &["proxy"], forward::nginx),
    peer("HAProxy", &["proxy"], forward::haproxy),
];

/// What a proxy before a server cannot get below.
pub(crate) const FORWARD_FLOOR: &[Peer] =
    &[peer("(system calls alone)", &["proxy"], floor::forward)];

/// What nobody who answers with a small file can get below.
pub(crate) const FILE_FLOOR: &[Peer] = &[peer("(system calls alone)", &["proxy"], floor::file)];

/// Files, in the clear and by TLS.
pub(crate) const FILES: &[Peer] = &[
    peer("stack", &["proxy"], tls::stack),
    peer("nginx", &["proxy"], tls::nginx),
];

/// Whole sites that only serve an app.
pub(crate) const APPS: &[Peer] = &[
    peer("nginx + gunicorn sync", BOTH, |scene| {
        nginx::before(scene, python::gunicorn_sync)
    }),
    peer("nginx + granian", BOTH, |scene| {
        nginx::before(scene, python::granian)
    }),
    peer("nginx + uwsgi", BOTH, nginx::before_uwsgi),
    peer("nginx + waitress", BOTH, |scene| {
        nginx::before(scene, python::waitress)
    }),
    peer("granian", WORKER, |scene| {
        Ok(Started {
            trees: vec![python::granian_on_port(scene)?],
            address: Address::Port(scene.port),
        })
    }),
];

/// What is deployed to; the order is known to [`super::deploy`].
pub(crate) const DEPLOY: &[Peer] = &[
    SITES[0],
    peer("nginx + gunicorn HUP", BOTH, |scene| {
        nginx::before(scene, python::gunicorn_gthread)
    }),
    APPS[4],
];

/// The same, where each worker is replaced after 20 requests.
pub(crate) const DEPLOY_WORN: &[Peer] = &[
    peer("stack", BOTH, |scene| {
        stack::site_with(scene, "max_requests = 20\n")
    }),
    peer("nginx + gunicorn", BOTH, |scene| {
        nginx::before(scene, python::gunicorn_worn)
    }),
];

/// What may stand before slow clients, or would have to.
pub(crate) const FRONTS: &[Peer] = &[SITES[0], APPS[0], SITES[1], APPS[4]];

/// What has a thread for each of a thousand streams.
pub(crate) const EVENTS: &[Peer] = &[SITES[0], SITES[1], APPS[4]];

/// With what they keep back for slow clients, and without.
pub(crate) const BUFFERING: &[Peer] = &[
    SITES[0],
    peer("stack, unbuffered", BOTH, stack::unbuffered),
    SITES[1],
    peer("nginx + gunicorn gthread, unbuffered", BOTH, |scene| {
        nginx::unbuffered(scene, python::gunicorn_gthread)
    }),
];

/// Ours, with all that a soak asks for.
pub(crate) const ROUGH: Peer = peer("stack", BOTH, stack::rough);

/// With an access log, and without.
pub(crate) const LOGGED: &[Peer] = &[
    SITES[0],
    peer("stack, without a log", BOTH, stack::unlogged),
];

/// With a limit of each client's rate, and without.
pub(crate) const LIMITED: &[Peer] = &[peer("stack, with a limit", BOTH, stack::limited), SITES[0]];

/// Proxies before a server that is not theirs; what they import is its address.
pub(crate) const RELAYS: &[Peer] = &[
    peer("stack", &["proxy"], stack::relay),
    peer("nginx", &["proxy"], nginx::relay),
];

/// Python servers alone, on a Unix socket.
pub(crate) const WORKERS: &[Peer] = &[
    Peer {
        fields: stack::FIELDS,
        ..peer("stack", WORKER, stack::worker)
    },
    peer("granian", WORKER, |scene| alone(scene, python::granian)),
    peer("gunicorn sync", WORKER, |scene| {
        alone(scene, python::gunicorn_sync)
    }),
    peer("gunicorn gthread", WORKER, |scene| {
        alone(scene, python::gunicorn_gthread)
    }),
    peer("uwsgi", WORKER, |scene| alone(scene, python::uwsgi_http)),
    peer("waitress", WORKER, |scene| alone(scene, python::waitress)),
];

/// A slot of ours without any Python, which answers with the hello app's bytes: what the loop and the kernel take.
pub(crate) const BARE: &[Peer] = &[Peer {
    fields: stack::FIELDS,
    ..peer("(a slot without Python)", WORKER, bare::slot)
}];

fn alone(scene: &Scene<'_>, start: fn(&Scene<'_>) -> Result<Tree>) -> Result<Started> {
    Ok(Started {
        trees: vec![start(scene)?],
        address: Address::Socket(scene.socket().into()),
    })
}
