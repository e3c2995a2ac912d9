//! What is said of the client, whatever it is: no panic, nobody is believed who is not trusted, and what is believed of the host
//! is a host.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use message::{
    field::Fields,
    forwarded::{Peer, Tongue, client},
};

const NAMES: [&[u8]; 5] = [
    b"X-Forwarded-For",
    b"X-Forwarded-Proto",
    b"X-Forwarded-Host",
    b"X-Forwarded-Port",
    b"Forwarded",
];

fuzz_target!(|lines: Vec<(u8, Vec<u8>)>| {
    let pairs = lines.iter().map(|(name, value)| {
        let name = NAMES[usize::from(*name) % NAMES.len()];
        (name, value.as_slice())
    });
    let fields = Fields::from_pairs(pairs);
    let peer = |address: [u8; 4]| Peer {
        address: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), 5)),
        https: false,
    };
    let trusted = |address: IpAddr| matches!(address, IpAddr::V4(address) if address.octets()[0] == 10);
    let tongues = [
        Tongue::Forwarded,
        Tongue::XForwarded { host: true },
        Tongue::XForwarded { host: false },
    ];
    for tongue in tongues {
        let stranger = client(peer([192, 0, 2, 1]), &fields, tongue, trusted, false);
        assert_eq!(stranger.address, Some(IpAddr::from([192, 0, 2, 1])));
        assert!(!stranger.https && stranger.host.is_none() && stranger.host_port.is_none());
        let believed = client(peer([10, 0, 0, 1]), &fields, tongue, trusted, false);
        if let Some(host) = believed.host {
            assert!(tongue != Tongue::XForwarded { host: false });
            assert!(!host.is_empty() && host.iter().all(u8::is_ascii_graphic));
            assert!(!host.contains(&b'/') && !host.contains(&b'@'));
        }
        let unix = Peer {
            address: None,
            https: true,
        };
        let nobody = client(unix, &fields, tongue, trusted, false);
        assert!(nobody.address.is_none() && nobody.https && nobody.host.is_none());
    }
});
