//! The header of the PROXY protocol, on listeners that want one: whose connection it is, said before its first byte.
//!
//! A connection without one, or from a peer that is not trusted, is closed without an answer, since nobody knows which protocol
//! it would have to be in.

use std::sync::atomic::{AtomicBool, Ordering};

use message::proxy_protocol::{self, Broken, Source, Step};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::Socket;
use crate::{door::Permit, listener, request::Peer, server::Server};

/// The connection is not served.
pub(super) struct Refused;

/// Reads the header and corrects what is known of the peer by it.
pub(super) async fn read(
    socket: &mut Socket,
    peer: &mut Peer,
    permit: &mut Permit,
    server: &Server,
) -> Result<(), Refused> {
    let plan = server.plan();
    if !plan.trust.believes(peer.address) {
        return refuse(peer, "it is not among `trusted_proxies`");
    }
    let source = match socket {
        Socket::Tcp(stream, _) => timeout(plan.limits.proxy_protocol_timeout, header(stream)).await,
        Socket::Unix(stream) => timeout(plan.limits.proxy_protocol_timeout, header(stream)).await,
    };
    match source {
        Ok(Ok(Source::Proxy)) => Ok(()),
        Ok(Ok(Source::Client { address, https })) => {
            peer.tls_before = https;
            if let Some(address) = address {
                peer.address = Some(address);
                if !listener::is_welcome(server, permit, address.ip()) {
                    return Err(Refused);
                }
            }
            Ok(())
        }
        Ok(Err(Unread::Broken(broken))) => refuse(peer, &broken.to_string()),
        // Load balancers try whether anybody listens.
        Ok(Err(Unread::Ended)) => Err(Refused),
        Err(_) => refuse(peer, "its PROXY protocol header did not arrive in time"),
    }
}

/// Says why, once aloud: whoever may connect could otherwise fill the log.
fn refuse(peer: &Peer, why: &str) -> Result<(), Refused> {
    static SAID: AtomicBool = AtomicBool::new(false);
    let whose = match peer.address {
        Some(address) => format!("of {}", address.ip()),
        None => "to a Unix socket".to_owned(),
    };
    if SAID.swap(true, Ordering::Relaxed) {
        tracing::debug!("a connection {whose} was closed: {why}");
    } else {
        tracing::warn!(
            "a connection {whose}, where `proxy_protocol` is spoken, was closed: {why}; further ones are not mentioned"
        );
    }
    Err(Refused)
}

/// Why there is no header.
enum Unread {
    Broken(Broken),
    Ended,
}

async fn header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Source, Unread> {
    let mut bytes = Vec::new();
    loop {
        match proxy_protocol::step(&bytes).map_err(Unread::Broken)? {
            Step::Done(source) => return Ok(source),
            Step::Read(more) => {
                let have = bytes.len();
                bytes.resize(have + more, 0);
                let read = stream.read_exact(&mut bytes[have..]).await;
                read.map_err(|_| Unread::Ended)?;
            }
        }
    }
}
