//! Who may come in by address: `allow` and `deny`.

use std::net::IpAddr;

use ipnet::IpNet;

/// The two lists of a place. Empty ones say nothing.
#[derive(Debug)]
pub(crate) struct Addresses {
    allow: Ranges,
    deny: Ranges,
}

impl Addresses {
    /// `None` where neither list says anything.
    pub(crate) fn new(allow: &[IpNet], deny: &[IpNet]) -> Option<Self> {
        let says = !allow.is_empty() || !deny.is_empty();
        says.then(|| Self {
            allow: Ranges::new(allow),
            deny: Ranges::new(deny),
        })
    }

    /// Who is denied stays out, whatever else is said; where anybody is allowed, nobody else is. A client without an
    /// address (a Unix socket whose peer told none) is in no list.
    pub(crate) fn admit(&self, address: Option<IpAddr>) -> bool {
        let inside = |ranges: &Ranges| address.is_some_and(|address| ranges.contain(address));
        !inside(&self.deny) && (self.allow.is_empty() || inside(&self.allow))
    }
}

/// Ranges of addresses, in order and apart, so that a list of a thousand costs ten comparisons.
#[derive(Debug)]
struct Ranges {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            let list = match network {
                IpNet::V4(_) => &mut v4,
                IpNet::V6(_) => &mut v6,
            };
            list.push((number(network.network()), number(network.broadcast())));
        }
        Self {
            v4: merged(v4),
            v6: merged(v6),
        }
    }

    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let ranges = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let address = number(address);
        let after = ranges.partition_point(|(first, _)| *first <= address);
        after > 0 && address <= ranges[after - 1].1
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts
            .iter()
            .map(|text| text.parse().expect("a network"))
            .collect()
    }

    #[test]
    fn who_is_let_in() {
        let table: [(&[&str], &[&str], &str, bool); 10] = [
            (&["10.0.0.0/8"], &[], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "11.1.2.3", false),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "::1", false),
            (&["10.0.0.0/8", "::1/128"], &[], "::1", true),
            (&[], &["192.0.2.0/24"], "192.0.2.9", false),
            (&[], &["192.0.2.0/24"], "192.0.3.9", true),
            (&["10.0.0.0/8"], &["10.0.0.1/32"], "10.0.0.1", false),
            (&["10.0.0.0/8"], &["10.0.0.1/32"], "10.0.0.2", true),
            (&["10.0.0.1/32"], &["10.0.0.0/8"], "10.0.0.1", false),
        ];
        for (allow, deny, address, admitted) in table {
            let addresses = Addresses::new(&networks(allow), &networks(deny)).expect("lists");
            let client = address.parse().expect("an address");
            assert_eq!(
                addresses.admit(Some(client)),
                admitted,
                "{allow:?} {deny:?} {address}"
            );
        }
        assert!(Addresses::new(&[], &[]).is_none());
        let allowed = Addresses::new(&networks(&["0.0.0.0/0"]), &[]).expect("a list");
        assert!(!allowed.admit(None), "nobody knows who that is");
    }

    proptest! {
        #[test]
        fn ranges_say_what_the_networks_say(
            list in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..20),
            address in any::<u32>(),
        ) {
            let networks: Vec<IpNet> = list
                .iter()
                .map(|(address, length)| {
                    let address = IpAddr::V4((*address).into());
                    IpNet::new(address, *length).expect("a prefix").trunc()
                })
                .collect();
            let address = IpAddr::V4(address.into());
            let expected = networks.iter().any(|network| network.contains(&address));
            prop_assert_eq!(Ranges::new(&networks).contain(address), expected);
        }
    }
}
