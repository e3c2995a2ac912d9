//! A TLS handshake: as many at once as there are places, one after the other where it is expensive, and all of it in its time.
//!
//! The first bytes are read here and not by rustls, so that who speaks plain HTTP to a TLS port is told so.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use message::refusal::Refusal;
use rustls::server::{Accepted, Acceptor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::{StartHandshake, server::TlsStream};

use super::{Stream, h1};
use crate::{
    challenges::Challenges,
    figures::Handshake,
    request::Peer,
    server::Server,
    tls::{Chosen, Facts, Presented, Tls, fingerprint},
};

/// What is read at once: any client's first message whole.
const READ: usize = 4096;

/// The content type of a handshake record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;

/// An alert that ends the connection: `unrecognized_name` (RFC 6066 §3).
const UNKNOWN_NAME: &[u8] = &[0x15, 3, 3, 0, 2, 2, 112];

/// What the log and apps are told.
const TLS12: &str = "TLSv1.2";

/// What came of it.
enum Begun<S> {
    /// A connection.
    Tls(Box<TlsStream<S>>, Arc<Chosen>),
    /// Plain HTTP.
    Plain(S),
    /// A certificate authority has seen what it came for.
    Shown,
}

/// Makes a TLS connection; `None` when none came of it, and the client has been told what there is to tell.
pub(super) async fn shake<S: Stream>(
    stream: S,
    peer: &mut Peer,
    server: &Arc<Server>,
) -> Option<Box<TlsStream<S>>> {
    let plan = server.plan();
    let tls = plan.tls.as_ref()?;
    let begun = timeout(
        plan.limits.handshake_timeout,
        begin(stream, tls, &plan.challenges, server),
    )
    .await;
    match begun {
        Ok(Ok(Begun::Tls(stream, chosen))) => {
            remember(peer, &stream, &chosen);
            server.figures.handshake(match peer.tls {
                Some(TLS12) => Handshake::Tls12,
                _ => Handshake::Tls13,
            });
            Some(stream)
        }
        Ok(Ok(Begun::Shown)) => {
            tracing::debug!("a challenge of {:?} was answered", peer.address);
            None
        }
        Ok(Ok(Begun::Plain(stream))) => {
            h1::reject(stream, peer, server, Refusal::PlainOnTlsPort).await;
            None
        }
        Ok(Err(error)) => {
            server.figures.handshake(Handshake::Failed);
            tracing::debug!("TLS handshake with {:?} failed: {error}", peer.address);
            None
        }
        Err(_) => {
            server.figures.handshake(Handshake::Late);
            tracing::debug!("TLS handshake with {:?} took too long", peer.address);
            None
        }
    }
}

async fn begin<S: Stream>(
    mut stream: S,
    tls: &Tls,
    challenges: &Challenges,
    server: &Server,
) -> io::Result<Begun<S>> {
    let _place = tls.places.acquire().await.map_err(io::Error::other)?;
    let Some(accepted) = hello(&mut stream).await? else {
        return Ok(Begun::Plain(stream));
    };
    if let Some(config) = challenges.choose(&accepted.client_hello()) {
        let start = StartHandshake::from_parts(accepted, stream);
        let mut stream = start.into_stream(config).await?;
        // Nothing is said over it (RFC 8737 §3).
        stream.shutdown().await?;
        return Ok(Begun::Shown);
    }
    let Some(chosen) = tls.choose(&accepted.client_hello()) else {
        stream.write_all(UNKNOWN_NAME).await?;
        return Err(io::Error::other("no site has the name that was asked for"));
    };
    let start = StartHandshake::from_parts(accepted, stream);
    let mut rest = start.into_stream(Arc::clone(&chosen.config));
    // Keys are agreed on and the certificate is signed in the first poll.
    let first = {
        let _turn = server.turns.acquire().await.map_err(io::Error::other)?;
        poll_fn(|cx| Poll::Ready(Pin::new(&mut rest).poll(cx))).await
    };
    let stream = match first {
        Poll::Ready(done) => done?,
        Poll::Pending => rest.await?,
    };
    Ok(Begun::Tls(Box::new(stream), chosen))
}

/// The client's first message; `None` when it speaks plain HTTP.
async fn hello<S: Stream>(stream: &mut S) -> io::Result<Option<Accepted>> {
    let mut acceptor = Acceptor::default();
    let mut buffer = vec![0; READ];
    let mut first = true;
    loop {
        let length = stream.read(&mut buffer).await?;
        let mut input = &buffer[..length];
        match input.first() {
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            // Methods are of letters; whatever else it is, rustls will say.
            Some(byte) if first && *byte != HANDSHAKE && byte.is_ascii_uppercase() => {
                return Ok(None);
            }
            Some(_) => first = false,
        }
        while !input.is_empty() {
            acceptor.read_tls(&mut input)?;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => return Ok(Some(accepted)),
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                alert.write_all(&mut bytes)?;
                stream.write_all(&bytes).await?;
                return Err(io::Error::other(error));
            }
        }
    }
}

/// What the requests of this connection are told of it.
fn remember<S>(peer: &mut Peer, stream: &TlsStream<S>, chosen: &Chosen) {
    let session = stream.get_ref().1;
    peer.tls = Some(match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => TLS12,
        _ => "TLSv1.3",
    });
    if !chosen.asks_clients {
        return;
    }
    let shown = session.peer_certificates().and_then(|chain| chain.first());
    let certificate = shown.and_then(|der| Some((Facts::of(der)?, fingerprint(der))));
    peer.presented = Some(Arc::new(Presented {
        site: chosen.site,
        certificate,
    }));
}
