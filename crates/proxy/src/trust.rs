//! Which peers are believed about their clients.
//!
//! Content networks have hundreds of ranges, and each request asks: the ranges are sorted and joined, and searched by halves.

use std::net::{IpAddr, SocketAddr};

use config::site::TrustedProxies;
use ipnet::IpNet;

/// The peers that are believed.
#[derive(Debug)]
pub(crate) struct Trust {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
    unix: bool,
}

impl Trust {
    pub(crate) fn new(proxies: &TrustedProxies) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in &proxies.networks {
            match network {
                IpNet::V4(network) => {
                    v4.push((network.network().to_bits(), network.broadcast().to_bits()));
                }
                IpNet::V6(network) => {
                    v6.push((network.network().to_bits(), network.broadcast().to_bits()));
                }
            }
        }
        Self {
            v4: joined(v4),
            v6: joined(v6),
            unix: proxies.unix,
        }
    }

    /// Whether nobody is.
    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty() && !self.unix
    }

    /// Whether this peer is; `None` is one of a Unix socket.
    pub(crate) fn believes(&self, peer: Option<SocketAddr>) -> bool {
        peer.map_or(self.unix, |address| self.covers(address.ip()))
    }

    /// Whether the peer with this address is.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => contains(&self.v4, address.to_bits()),
            IpAddr::V6(address) => contains(&self.v6, address.to_bits()),
        }
    }

    /// Whether the peers of Unix sockets are.
    pub(crate) fn covers_unix(&self) -> bool {
        self.unix
    }
}

/// First and last of each range, in order, none within or touching another's beginning.
fn joined<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

fn contains<T: Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after > 0 && ranges[after - 1].1 >= address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_may_lie_in_each_other() {
        let networks = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.0.2.7/32",
            "9.0.0.0/8",
            "2001:db8::/32",
            "::1/128",
        ];
        let trust = Trust::new(&TrustedProxies {
            networks: networks
                .map(|network| network.parse().expect("a network"))
                .to_vec(),
            unix: false,
        });
        for (address, trusted) in [
            ("10.0.0.0", true),
            ("10.1.2.3", true),
            ("10.2.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", true),
            ("8.255.255.255", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("192.0.2.8", false),
            ("::ffff:10.0.0.1", true),
            ("::ffff:11.0.0.1", false),
            ("2001:db8::", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", true),
            ("::", false),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(trust.covers(parsed), trusted, "{address}");
        }
        assert!(!trust.is_empty() && !trust.covers_unix());
        let nobody = Trust::new(&TrustedProxies::default());
        assert!(nobody.is_empty() && !nobody.covers("10.0.0.1".parse().expect("an address")));
    }
}
