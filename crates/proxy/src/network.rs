//! Which clients count as one, where what one client may have is bounded.

use std::net::IpAddr;

/// One client as the internet lets us know it: an IPv4 address, or a /64 of IPv6. A single host picks any address of its /64
/// (RFC 4862, RFC 8981), so counting those one by one would bound nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    /// An address.
    V4(u32),
    /// The upper half of one.
    V6(u64),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_client_whatever_address_it_picks() {
        let of = |text: &str| Network::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(
            of("2001:db8:0:1::1"),
            of("2001:db8:0:1:ffff:ffff:ffff:ffff")
        );
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(of("192.0.2.1"), of("::1"));
    }
}
