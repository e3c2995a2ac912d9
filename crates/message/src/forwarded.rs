//! Who the client is (RFC 7239 and the `X-Forwarded-*` fields that came before it).
//!
//! Only what a trusted peer says is believed, and it is read from the right: each proxy appends whom it got the request
//! from, so the last address that is not a trusted proxy's is the client, and everything left of it is the client's own word.
//! Scheme and host are those that belong to the same step: the proxy that saw the client has written them.
//!
//! Of the two ways to say it only one is read, the one that the trusted proxies write: a proxy that appends to
//! `X-Forwarded-For` passes on a client's `Forwarded` as it came, and the other way round.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::{
    field::{Fields, list},
    target,
};

/// In which fields trusted proxies speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tongue {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`; and `X-Forwarded-Host` and `X-Forwarded-Port`, which many proxies pass on as
    /// a client sent them, only where that is asked for.
    XForwarded {
        /// Whether host and port are believed.
        host: bool,
    },
    /// `Forwarded` (RFC 7239), with all that its elements say.
    Forwarded,
}

/// Who asks, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address; `None` for a Unix peer that told none.
    pub address: Option<IpAddr>,
    /// The port; 0 when unknown.
    pub port: u16,
    /// Whether the client speaks TLS.
    pub https: bool,
    /// The `host[:port]` it asked for, where a trusted proxy says so and it is one.
    pub host: Option<Bytes>,
    /// The port it asked, where a trusted proxy says so and the host does not.
    pub host_port: Option<u16>,
}

/// A connection's other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whether it speaks TLS.
    pub https: bool,
}

/// Decides. `trusted` says whether an address is a trusted proxy's, `trust_unix` whether the peer of a Unix socket is.
pub fn client(
    peer: Peer,
    fields: &Fields,
    tongue: Tongue,
    trusted: impl Fn(IpAddr) -> bool,
    trust_unix: bool,
) -> Client {
    let address = peer.address.map(|peer| peer.ip().to_canonical());
    let mut client = Client {
        address,
        port: peer.address.map_or(0, |peer| peer.port()),
        https: peer.https,
        host: None,
        host_port: None,
    };
    if !address.map_or(trust_unix, &trusted) {
        return client;
    }
    let hops = hops(fields, tongue);
    let mut distance = 0;
    for (place, hop) in hops.iter().rev().enumerate() {
        distance = place;
        // A hop that is no address (`unknown`, `_hidden`) ends what can be known.
        let Some(address) = hop.address else { break };
        client.address = Some(address);
        client.port = hop.port;
        if !trusted(address) {
            break;
        }
    }
    let said = |name| member(fields, name, distance);
    let (proto, host, port) = match tongue {
        Tongue::Forwarded => {
            let hop = hops.into_iter().rev().nth(distance).unwrap_or_default();
            (hop.proto, hop.host, None)
        }
        Tongue::XForwarded { host: true } => (
            said("x-forwarded-proto"),
            said("x-forwarded-host"),
            said("x-forwarded-port"),
        ),
        Tongue::XForwarded { host: false } => (said("x-forwarded-proto"), None, None),
    };
    client.https = match proto {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => true,
        Some(proto) if proto.eq_ignore_ascii_case(b"http") => false,
        _ => peer.https,
    };
    client.host = host.filter(|host| target::host_and_port(host).is_ok());
    client.host_port = port.and_then(|port| target::port_number(&port).ok());
    client
}

/// The member of a list that stands so far from its right end. Some proxies append to it and some pass it on or replace it, so
/// it may have fewer members than there were hops; then its leftmost is meant.
fn member(fields: &Fields, name: &str, distance: usize) -> Option<Bytes> {
    let members: Vec<&[u8]> = fields.all(name).flat_map(list).collect();
    let place = members.len().checked_sub(1)?.saturating_sub(distance);
    Some(Bytes::copy_from_slice(members[place]))
}

/// One step of the way.
#[derive(Debug, Default)]
struct Hop {
    address: Option<IpAddr>,
    port: u16,
    proto: Option<Bytes>,
    host: Option<Bytes>,
}

/// The way as the fields tell it. Commas divide even inside quotes: no proxy quotes one, but a client that opens a quote would
/// otherwise make what honest proxies append part of its own element.
fn hops(fields: &Fields, tongue: Tongue) -> Vec<Hop> {
    match tongue {
        Tongue::Forwarded => fields
            .all("forwarded")
            .flat_map(list)
            .map(element)
            .collect(),
        Tongue::XForwarded { .. } => fields
            .all("x-forwarded-for")
            .flat_map(list)
            .map(|node| with_address(Hop::default(), node))
            .collect(),
    }
}

/// `for=…;proto=…;host=…` (RFC 7239 §4).
fn element(text: &[u8]) -> Hop {
    let mut hop = Hop::default();
    for pair in text.split(|&byte| byte == b';') {
        let Some(equals) = memchr::memchr(b'=', pair) else {
            continue;
        };
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        let value = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""))
            .unwrap_or(value);
        match name.to_ascii_lowercase().as_slice() {
            b"for" => hop = with_address(hop, value),
            b"proto" => hop.proto = Some(Bytes::copy_from_slice(value)),
            b"host" => hop.host = Some(Bytes::copy_from_slice(value)),
            _ => {}
        }
    }
    hop
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`, and bare IPv6 as many write it.
fn with_address(hop: Hop, node: &[u8]) -> Hop {
    let Ok(text) = str::from_utf8(node) else {
        return hop;
    };
    let bare = match text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        Some(inside) => inside.parse().map(IpAddr::V6),
        None => text.parse(),
    };
    let found = match bare {
        Ok(address) => Some((address, 0)),
        Err(_) => text
            .parse::<SocketAddr>()
            .ok()
            .map(|socket| (socket.ip(), socket.port())),
    };
    match found {
        Some((address, port)) => Hop {
            address: Some(address.to_canonical()),
            port,
            ..hop
        },
        None => hop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1:5";
    const FOR: &str = "X-Forwarded-For";
    const PROTO: &str = "X-Forwarded-Proto";

    /// What comes of it in the tongue of the first of these fields.
    fn seen(peer: Option<&str>, pairs: &[(&str, &str)]) -> Client {
        let tongue = match pairs.first() {
            Some((name, _)) if name.eq_ignore_ascii_case("forwarded") => Tongue::Forwarded,
            _ => Tongue::XForwarded { host: true },
        };
        seen_in(tongue, peer, pairs, true)
    }

    fn seen_in(
        tongue: Tongue,
        peer: Option<&str>,
        pairs: &[(&str, &str)],
        trust_unix: bool,
    ) -> Client {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let peer = Peer {
            address: peer.map(|peer| peer.parse().expect("an address")),
            https: false,
        };
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        client(
            peer,
            &Fields::from_pairs(pairs),
            tongue,
            trusted,
            trust_unix,
        )
    }

    /// A proxy that writes one of the two kinds passes the other on as the client wrote it.
    #[test]
    fn the_other_tongue_is_not_heard() {
        let both = [
            (FOR, "192.0.2.1"),
            ("Forwarded", "for=6.6.6.6;proto=https;host=evil.example"),
        ];
        let client = seen_in(Tongue::XForwarded { host: true }, Some(PROXY), &both, false);
        assert_eq!(client.address, "192.0.2.1".parse().ok());
        assert_eq!((client.https, client.host), (false, None));
        let client = seen_in(Tongue::Forwarded, Some(PROXY), &both, false);
        assert_eq!(client.address, "6.6.6.6".parse().ok());
        let client = seen_in(Tongue::Forwarded, Some(PROXY), &both[..1], false);
        assert_eq!(client.address, "10.0.0.1".parse().ok());
    }

    #[test]
    fn host_and_port_are_heard_where_that_is_asked_for() {
        let pairs = [
            ("X-Forwarded-Host", "a.example"),
            ("X-Forwarded-Port", "8443"),
        ];
        for (host, expected) in [
            (true, (Some("a.example"), Some(8443))),
            (false, (None, None)),
        ] {
            let client = seen_in(Tongue::XForwarded { host }, Some(PROXY), &pairs, false);
            let host = client
                .host
                .as_deref()
                .map(|host| str::from_utf8(host).expect("text"));
            assert_eq!((host, client.host_port), expected);
        }
        for port in ["", "0x50", "99999", "-1", "80 ", "http"] {
            let client = seen(Some(PROXY), &[("X-Forwarded-Port", port)]);
            assert_eq!(client.host_port, port.trim().parse().ok(), "{port:?}");
        }
    }

    #[test]
    fn addresses() {
        for (peer, pairs, address, port) in [
            ("203.0.113.9:5", &[(FOR, "192.0.2.1")][..], "203.0.113.9", 5),
            (
                "203.0.113.9:5",
                &[("Forwarded", "for=10.0.0.2")],
                "203.0.113.9",
                5,
            ),
            ("[::ffff:203.0.113.9]:5", &[], "203.0.113.9", 5),
            ("[::ffff:10.0.0.1]:5", &[(FOR, "192.0.2.1")], "192.0.2.1", 0),
            (PROXY, &[], "10.0.0.1", 5),
            (PROXY, &[(FOR, "192.0.2.1")], "192.0.2.1", 0),
            (PROXY, &[(FOR, "6.6.6.6, 192.0.2.1")], "192.0.2.1", 0),
            (PROXY, &[(FOR, "6.6.6.6,192.0.2.1 ,")], "192.0.2.1", 0),
            (
                PROXY,
                &[(FOR, "6.6.6.6"), (FOR, "192.0.2.1, 10.0.0.2")],
                "192.0.2.1",
                0,
            ),
            (
                PROXY,
                &[(FOR, "10.0.0.9, 192.0.2.1, 10.0.0.2")],
                "192.0.2.1",
                0,
            ),
            (PROXY, &[(FOR, "10.0.0.3, 10.0.0.2")], "10.0.0.3", 0),
            (PROXY, &[(FOR, "192.0.2.1:77")], "192.0.2.1", 77),
            (PROXY, &[(FOR, "2001:db8::1")], "2001:db8::1", 0),
            (PROXY, &[(FOR, "[2001:db8::1]")], "2001:db8::1", 0),
            (PROXY, &[(FOR, "[2001:db8::1]:77")], "2001:db8::1", 77),
            (PROXY, &[(FOR, "::ffff:192.0.2.1")], "192.0.2.1", 0),
            (
                PROXY,
                &[(FOR, "::ffff:10.0.0.2"), (FOR, "10.0.0.3")],
                "10.0.0.2",
                0,
            ),
            (PROXY, &[(FOR, "")], "10.0.0.1", 5),
            (PROXY, &[(FOR, "6.6.6.6, nonsense")], "10.0.0.1", 5),
            (PROXY, &[(FOR, "6.6.6.6, [192.0.2.1]")], "10.0.0.1", 5),
            (PROXY, &[(FOR, "6.6.6.6, [[::1]]")], "10.0.0.1", 5),
            (PROXY, &[(FOR, "6.6.6.6, unknown, 10.0.0.2")], "10.0.0.2", 0),
            (PROXY, &[("Forwarded", "for=192.0.2.1")], "192.0.2.1", 0),
            (PROXY, &[("Forwarded", "For=\"192.0.2.1\"")], "192.0.2.1", 0),
            (
                PROXY,
                &[("forwarded", "proto=http; for=192.0.2.1 ;by=10.0.0.1")],
                "192.0.2.1",
                0,
            ),
            (
                PROXY,
                &[("Forwarded", "for=\"[2001:db8::1]:9\"")],
                "2001:db8::1",
                9,
            ),
            (
                PROXY,
                &[("Forwarded", "for=6.6.6.6, for=192.0.2.1, for=10.0.0.2")],
                "192.0.2.1",
                0,
            ),
            (
                PROXY,
                &[("Forwarded", "for=6.6.6.6"), ("Forwarded", "for=192.0.2.1")],
                "192.0.2.1",
                0,
            ),
            (
                PROXY,
                &[("Forwarded", "for=192.0.2.1"), (FOR, "6.6.6.6")],
                "192.0.2.1",
                0,
            ),
            (PROXY, &[("Forwarded", "for=unknown")], "10.0.0.1", 5),
            (PROXY, &[("Forwarded", "for=_hidden")], "10.0.0.1", 5),
            (PROXY, &[("Forwarded", "by=192.0.2.1")], "10.0.0.1", 5),
            (PROXY, &[("Forwarded", "for")], "10.0.0.1", 5),
            // A client that opens a quote does not swallow what is appended to its element.
            (
                PROXY,
                &[("Forwarded", "for=\"6.6.6.6, for=192.0.2.1")],
                "192.0.2.1",
                0,
            ),
            (
                PROXY,
                &[("Forwarded", "for=\"6.6.6.6;, for=192.0.2.1;x=\"")],
                "192.0.2.1",
                0,
            ),
        ] {
            let client = seen(Some(peer), pairs);
            let expected = address.parse().expect("an address");
            assert_eq!(
                (client.address, client.port),
                (Some(expected), port),
                "{peer} {pairs:?}"
            );
        }
    }

    #[test]
    fn schemes() {
        for (pairs, https) in [
            (&[][..], false),
            (&[(PROTO, "https")], true),
            (&[(PROTO, "HTTPS")], true),
            (&[(PROTO, "http")], false),
            (&[(PROTO, "ftp")], false),
            (&[(PROTO, "")], false),
            // The client's own word stands left of the proxy's.
            (&[(PROTO, "https, http")], false),
            (&[(FOR, "192.0.2.1"), (PROTO, "https, http")], false),
            (
                &[(FOR, "192.0.2.1"), (PROTO, "https"), (PROTO, "http")],
                false,
            ),
            // Two proxies: the outer one has seen the client.
            (
                &[(FOR, "192.0.2.1, 10.0.0.2"), (PROTO, "https, http")],
                true,
            ),
            (&[(FOR, "192.0.2.1, 10.0.0.2"), (PROTO, "https")], true),
            (
                &[(FOR, "192.0.2.1, 10.0.0.2"), (PROTO, "https, http, http")],
                false,
            ),
            (
                &[(
                    "Forwarded",
                    "for=192.0.2.1;proto=https, for=10.0.0.2;proto=http",
                )],
                true,
            ),
            (
                &[(
                    "Forwarded",
                    "for=6.6.6.6;proto=https, for=192.0.2.1;proto=http",
                )],
                false,
            ),
            (
                &[("Forwarded", "for=6.6.6.6;proto=https, for=192.0.2.1")],
                false,
            ),
            (&[("Forwarded", "for=unknown;proto=https")], true),
            (&[("Forwarded", "for=192.0.2.1"), (PROTO, "https")], false),
        ] {
            assert_eq!(seen(Some(PROXY), pairs).https, https, "{pairs:?}");
            assert!(
                !seen(Some("203.0.113.9:5"), pairs).https,
                "not trusted: {pairs:?}"
            );
        }
    }

    #[test]
    fn hosts() {
        for (pairs, host) in [
            (&[][..], None),
            (
                &[("X-Forwarded-Host", "a.example:8443")],
                Some("a.example:8443"),
            ),
            (
                &[("X-Forwarded-Host", "evil, a.example")],
                Some("a.example"),
            ),
            (&[("X-Forwarded-Host", "a/b")], None),
            (&[("X-Forwarded-Host", "")], None),
            (
                &[("Forwarded", "for=192.0.2.1;host=\"a.example:1\"")],
                Some("a.example:1"),
            ),
            (&[("Forwarded", "for=192.0.2.1;host=a@b")], None),
        ] {
            let found = seen(Some(PROXY), pairs).host;
            assert_eq!(found.as_deref(), host.map(str::as_bytes), "{pairs:?}");
        }
    }

    #[test]
    fn a_unix_peer() {
        let pairs = [(FOR, "192.0.2.1"), (PROTO, "https")];
        let believed = seen(None, &pairs);
        assert_eq!(
            (believed.address, believed.https),
            ("192.0.2.1".parse().ok(), true)
        );
        assert_eq!(seen(None, &[]).address, None);
        let stranger = seen_in(Tongue::XForwarded { host: true }, None, &pairs, false);
        assert_eq!((stranger.address, stranger.https), (None, false));
    }
}
