//! The servers, ours first: each is started as its own documentation has it for production.

mod bare;
mod caddy;
mod cost;
mod echo;
mod floor;
mod forward;
mod haproxy;
mod nginx;
mod python;
mod stack;
mod tls;

use anyhow::Result;

use super::{
    case::MANY_SITES as MANY,
    peer::{Address, Peer, Scene, Started, Tree},
};

const BOTH: &[&str] = &["proxy", "worker"];
const PROXY: &[&str] = &["proxy"];
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
        needs: &[],
        cores: None,
        connections: None,
        start,
    }
}

const fn with_nginx(
    name: &'static str,
    parts: &'static [&'static str],
    start: fn(&Scene<'_>) -> Result<Started>,
) -> Peer {
    Peer {
        needs: &["nginx"],
        ..peer(name, parts, start)
    }
}

const fn with_haproxy(
    name: &'static str,
    parts: &'static [&'static str],
    start: fn(&Scene<'_>) -> Result<Started>,
) -> Peer {
    Peer {
        needs: &["haproxy"],
        ..peer(name, parts, start)
    }
}

const fn on_one_core(name: &'static str, peer: Peer) -> Peer {
    Peer {
        name,
        cores: Some(1),
        ..peer
    }
}

const fn to_a_crowd(name: &'static str, peer: Peer, connections: usize) -> Peer {
    Peer {
        name,
        connections: Some(connections),
        ..peer
    }
}

/// Whole sites that serve files too.
pub(crate) const SITES: &[Peer] = &[
    peer("stack", BOTH, stack::site),
    with_nginx("nginx + gunicorn gthread", BOTH, |scene| {
        nginx::before(scene, python::gunicorn_gthread)
    }),
];

/// Proxies before a server that is no part of what is measured.
pub(crate) const FORWARDS: &[Peer] = &[
    peer("stack", PROXY, forward::stack),
    with_nginx("nginx", PROXY, forward::nginx),
    with_haproxy("HAProxy", PROXY, forward::haproxy),
];

/// What a proxy before a server cannot get below.
pub(crate) const FORWARD_FLOOR: &[Peer] = &[peer("(system calls alone)", PROXY, floor::forward)];

/// What nobody who answers with a small file can get below.
pub(crate) const FILE_FLOOR: &[Peer] = &[peer("(system calls alone)", PROXY, floor::file)];

/// Files, in the clear and by TLS.
pub(crate) const FILES: &[Peer] = &[
    peer("stack", PROXY, tls::stack),
    with_nginx("nginx", PROXY, tls::nginx),
];

/// Whole sites that only serve an app.
pub(crate) const APPS: &[Peer] = &[
    with_nginx("nginx + gunicorn sync", BOTH, |scene| {
        nginx::before(scene, python::gunicorn_sync)
    }),
    with_nginx("nginx + granian", BOTH, |scene| {
        nginx::before(scene, python::granian)
    }),
    with_nginx("nginx + uwsgi", BOTH, nginx::before_uwsgi),
    with_nginx("nginx + waitress", BOTH, |scene| {
        nginx::before(scene, python::waitress)
    }),
    peer("granian", WORKER, |scene| {
        Ok(Started {
            trees: vec![python::granian_on_port(scene)?],
            address: Address::Port(scene.port),
        })
    }),
    with_haproxy("HAProxy + gunicorn gthread", BOTH, |scene| {
        haproxy::before(scene, python::gunicorn_gthread)
    }),
    Peer {
        needs: &["caddy"],
        ..peer("Caddy + gunicorn gthread", BOTH, |scene| {
            caddy::before(scene, python::gunicorn_gthread)
        })
    },
];

/// On all cores, and on one.
pub(crate) const CORES: &[Peer] = &[
    SITES[0],
    on_one_core("stack, one core", SITES[0]),
    SITES[1],
    on_one_core("nginx + gunicorn gthread, one core", SITES[1]),
];
pub(crate) const FILE_CORES: &[Peer] = &[
    FILES[0],
    on_one_core("stack, one core", FILES[0]),
    FILES[1],
    on_one_core("nginx, one core", FILES[1]),
];

/// For as many connections as the case says, and more.
pub(crate) const CROWDS: &[Peer] = &[
    FILES[0],
    to_a_crowd("stack, 100 connections", FILES[0], 100),
    to_a_crowd("stack, 1,000 connections", FILES[0], 1000),
    to_a_crowd("stack, 10,000 connections", FILES[0], 10_000),
    FILES[1],
    to_a_crowd("nginx, 100 connections", FILES[1], 100),
    to_a_crowd("nginx, 1,000 connections", FILES[1], 1000),
    to_a_crowd("nginx, 10,000 connections", FILES[1], 10_000),
];

/// One site, and many.
pub(crate) const MANY_SITES: &[Peer] = &[
    peer("stack", PROXY, |scene| cost::stack_sites(scene, 0)),
    peer("stack, 1,000 sites", PROXY, |scene| {
        cost::stack_sites(scene, MANY)
    }),
    with_nginx("nginx", PROXY, |scene| cost::nginx_sites(scene, 0)),
    with_nginx("nginx, 1,000 sites", PROXY, |scene| {
        cost::nginx_sites(scene, MANY)
    }),
];

/// One route, and many.
pub(crate) const MANY_ROUTES: &[Peer] = &[
    peer("stack", PROXY, |scene| cost::stack_routes(scene, 0)),
    peer("stack, 1,000 routes", PROXY, |scene| {
        cost::stack_routes(scene, MANY)
    }),
    with_nginx("nginx", PROXY, |scene| cost::nginx_routes(scene, 0)),
    with_nginx("nginx, 1,000 routes", PROXY, |scene| {
        cost::nginx_routes(scene, MANY)
    }),
];

/// What is deployed to; the order is known to [`super::deploy`].
pub(crate) const DEPLOY: &[Peer] = &[
    SITES[0],
    with_nginx("nginx + gunicorn HUP", BOTH, |scene| {
        nginx::before(scene, python::gunicorn_gthread)
    }),
    APPS[4],
];

/// The same, where each worker is replaced after 20 requests.
pub(crate) const DEPLOY_WORN: &[Peer] = &[
    peer("stack", BOTH, |scene| {
        stack::site_with(scene, "max_requests = 20\n")
    }),
    with_nginx("nginx + gunicorn", BOTH, |scene| {
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
    with_nginx("nginx + gunicorn gthread, unbuffered", BOTH, |scene| {
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
    peer("stack", PROXY, stack::relay),
    with_nginx("nginx", PROXY, nginx::relay),
    with_haproxy("HAProxy", PROXY, haproxy::relay),
];

/// Proxies before a server of WebSockets, which is no part of what is measured.
pub(crate) const WEBSOCKETS: &[Peer] = &[
    peer("stack", PROXY, stack::websocket),
    with_nginx("nginx", PROXY, nginx::websocket),
    with_haproxy("HAProxy", PROXY, haproxy::websocket),
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
    needs: &[bare::PROGRAM],
    ..peer("(a slot without Python)", WORKER, bare::slot)
}];

fn alone(scene: &Scene<'_>, start: fn(&Scene<'_>) -> Result<Tree>) -> Result<Started> {
    Ok(Started {
        trees: vec![start(scene)?],
        address: Address::Socket(scene.socket().into()),
    })
}
