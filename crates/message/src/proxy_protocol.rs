//! The PROXY protocol, versions 1 and 2: how a load balancer says, before the first byte of a connection, whose it is.
//!
//! The header says what only a trusted peer may say; whoever reads it has asked who sent it. It is read without taking a byte
//! that follows it, which may be a TLS handshake. Written after the specification at haproxy.org, `doc/proxy-protocol.txt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The proxy's own, such as a health check.
    Proxy,
    /// A client's, at this address.
    Client {
        /// The address and port; `None` where the proxy does not know them, or they are not of TCP.
        address: Option<SocketAddr>,
        /// Whether the client speaks TLS with the proxy.
        https: bool,
    },
}

/// What comes of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes more are sure to belong to the header.
    Read(usize),
    /// The header is complete, and its last byte is the last of the bytes.
    Done(Source),
}

/// Why this is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The connection begins otherwise.
    #[error("it does not begin with a PROXY protocol header")]
    Absent,
    /// It begins so and then breaks the grammar.
    #[error("its PROXY protocol header is malformed")]
    Malformed,
    /// It is longer than any proxy makes it.
    #[error("its PROXY protocol header is too long")]
    TooLong,
    /// The checksum is another one (§2.2.5).
    #[error("its PROXY protocol header has a wrong checksum")]
    Checksum,
}

/// Looks at the bytes from the connection's first on. To be called with nothing at first, and then each time with exactly as
/// many more as it asked for.
///
/// # Errors
/// As soon as it is certain that no header will come of it.
pub fn step(bytes: &[u8]) -> Result<Step, Broken> {
    let start = bytes.len().min(SIGNATURE.len());
    if bytes.len() < V1.len() {
        let possible = bytes == &V1[..bytes.len()] || bytes == &SIGNATURE[..bytes.len()];
        return match possible {
            true => Ok(Step::Read(V1.len() - bytes.len())),
            false => Err(Broken::Absent),
        };
    }
    if bytes.starts_with(V1) {
        return version_1(bytes);
    }
    if bytes[..start] != SIGNATURE[..start] {
        return Err(Broken::Absent);
    }
    version_2(bytes)
}

const V1: &[u8] = b"PROXY ";

/// Longest line of version 1, its CRLF included (§2.1).
const V1_LONGEST: usize = 107;

/// The shortest lines of version 1 that there can be.
const V1_SHORTEST: [(&[u8], usize); 3] = [
    (b"PROXY TCP4 ", b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".len()),
    (b"PROXY TCP6 ", b"PROXY TCP6 :: :: 0 0\r\n".len()),
    (b"PROXY UNKNOWN", b"PROXY UNKNOWN\r\n".len()),
];

fn version_1(bytes: &[u8]) -> Result<Step, Broken> {
    match bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(end) if end + 2 > V1_LONGEST => Err(Broken::TooLong),
        Some(end) => match &bytes[end..] {
            b"\r" => Ok(Step::Read(1)),
            b"\r\n" => line(&bytes[..end]).map(Step::Done),
            _ => Err(Broken::Malformed),
        },
        None if bytes.len() + 2 > V1_LONGEST => Err(Broken::TooLong),
        None => {
            let shortest = V1_SHORTEST.iter().filter(|(start, _)| {
                let common = start.len().min(bytes.len());
                start[..common] == bytes[..common]
            });
            let least = shortest.map(|(_, length)| *length).min();
            let least = least.ok_or(Broken::Malformed)?;
            // The CRLF is still to come, whatever stands before it.
            Ok(Step::Read(least.saturating_sub(bytes.len()).max(2)))
        }
    }
}

/// `PROXY TCP4 source destination port port`, without its end.
fn line(line: &[u8]) -> Result<Source, Broken> {
    let text = str::from_utf8(line).map_err(|_| Broken::Malformed)?;
    let rest = text.strip_prefix("PROXY ").ok_or(Broken::Malformed)?;
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        // What follows is to be ignored (§2.1).
        return Ok(Source::Client {
            address: None,
            https: false,
        });
    }
    let parts: Vec<&str> = rest.split(' ').collect();
    let [family, source, destination, port, other] = parts[..] else {
        return Err(Broken::Malformed);
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (Some(source), Some(_), Some(port), Some(_)) = (
        address(source),
        address(destination),
        number(port),
        number(other),
    ) else {
        return Err(Broken::Malformed);
    };
    Ok(Source::Client {
        address: Some(SocketAddr::new(source, port)),
        https: false,
    })
}

/// A port without a sign or a zero in front (§2.1).
fn number(text: &str) -> Option<u16> {
    let good = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| good)
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family, length (§2.2).
const V2_HEAD: usize = 16;

/// Most that follows them. Proxies put in names, ids and certificates' subjects; none comes near.
const V2_LONGEST: usize = 4096;

fn version_2(bytes: &[u8]) -> Result<Step, Broken> {
    let Some((head, rest)) = bytes.split_at_checked(V2_HEAD) else {
        return Ok(Step::Read(V2_HEAD - bytes.len()));
    };
    let (command, family) = (head[12], head[13]);
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > V2_LONGEST {
        return Err(Broken::TooLong);
    }
    if !matches!(command, 0x20 | 0x21) {
        return Err(Broken::Malformed);
    }
    match length.checked_sub(rest.len()) {
        None => Err(Broken::Malformed),
        Some(0) => block(command, family, bytes).map(Step::Done),
        Some(missing) => Ok(Step::Read(missing)),
    }
}

fn block(command: u8, family: u8, bytes: &[u8]) -> Result<Source, Broken> {
    let rest = &bytes[V2_HEAD..];
    let (address, extensions) = match family {
        0x11 => {
            let [a, b, c, d, _, _, _, _, high, low, _, _, extensions @ ..] = rest else {
                return Err(Broken::Malformed);
            };
            let address = Ipv4Addr::new(*a, *b, *c, *d);
            let port = u16::from_be_bytes([*high, *low]);
            (Some(SocketAddr::new(address.into(), port)), extensions)
        }
        0x21 => {
            let (addresses, extensions) = rest.split_at_checked(36).ok_or(Broken::Malformed)?;
            let source: [u8; 16] = addresses[..16].try_into().expect("it is as long");
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            (
                Some(SocketAddr::new(Ipv6Addr::from(source).into(), port)),
                extensions,
            )
        }
        0x31 => (None, rest.get(216..).ok_or(Broken::Malformed)?),
        // Unspecified: nothing is known of what follows (§2.2).
        0x00 => return Ok(source(command, None, false)),
        // UDP, or nothing that there is: what follows are not requests.
        _ => return Err(Broken::Malformed),
    };
    let https = read_extensions(bytes, extensions)?;
    Ok(source(command, address, https))
}

fn source(command: u8, address: Option<SocketAddr>, https: bool) -> Source {
    match command {
        0x20 => Source::Proxy,
        _ => Source::Client { address, https },
    }
}

/// Type, length and value, again and again (§2.2.1 and later). Whether the client speaks TLS.
fn read_extensions(bytes: &[u8], mut rest: &[u8]) -> Result<bool, Broken> {
    let mut https = false;
    while !rest.is_empty() {
        let [kind, high, low, tail @ ..] = rest else {
            return Err(Broken::Malformed);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, tail) = tail.split_at_checked(length).ok_or(Broken::Malformed)?;
        match *kind {
            0x20 => https = value.first().ok_or(Broken::Malformed)? & 1 == 1,
            0x03 => check_sum(bytes, bytes.len() - tail.len() - length, value)?,
            _ => {}
        }
        rest = tail;
    }
    Ok(https)
}

/// The checksum is of the whole header with zeros in its own place (§2.2.5).
fn check_sum(bytes: &[u8], place: usize, value: &[u8]) -> Result<(), Broken> {
    let stated: [u8; 4] = value.try_into().map_err(|_| Broken::Malformed)?;
    let is_own = |index: usize| (place..place + 4).contains(&index);
    let zeroed = bytes
        .iter()
        .enumerate()
        .map(|(index, byte)| if is_own(index) { 0 } else { *byte });
    match crc32c(zeroed) == u32::from_be_bytes(stated) {
        true => Ok(()),
        false => Err(Broken::Checksum),
    }
}

/// CRC-32C (RFC 3720, appendix B.4), bit by bit: it is asked for once in a connection, by few.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            let carry = sum & 1 == 1;
            (sum >> 1) ^ if carry { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as it is told to, and says how much of the input that was.
    fn read(input: &[u8]) -> Result<(Source, usize), Option<Broken>> {
        let mut have = 0;
        loop {
            match step(&input[..have]).map_err(Some)? {
                Step::Done(source) => return Ok((source, have)),
                Step::Read(more) => {
                    assert!(more > 0);
                    have += more;
                    if have > input.len() {
                        return Err(None);
                    }
                }
            }
        }
    }

    fn client(address: &str, https: bool) -> Source {
        Source::Client {
            address: address.parse().ok(),
            https,
        }
    }

    #[test]
    fn version_1_lines() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(longest.len(), V1_LONGEST);
        for (line, source) in [
            (
                "PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n",
                client("192.0.2.1:5000", false),
            ),
            (
                "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n",
                client("0.0.0.0:0", false),
            ),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                client("255.255.255.255:65535", false),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 5000 443\r\n",
                client("[2001:db8::1]:5000", false),
            ),
            ("PROXY TCP6 :: :: 0 0\r\n", client("[::]:0", false)),
            (
                "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                client("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", false),
            ),
            ("PROXY UNKNOWN\r\n", client("", false)),
            (
                "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
                client("", false),
            ),
            (&longest, client("", false)),
        ] {
            // What follows is not touched.
            for after in ["", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01"] {
                let input = format!("{line}{after}");
                assert_eq!(
                    read(input.as_bytes()),
                    Ok((source, line.len())),
                    "{input:?}"
                );
            }
            for end in 0..line.len() {
                assert_eq!(
                    read(&line.as_bytes()[..end]),
                    Err(None),
                    "{line:?} up to {end}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_header() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        for (input, broken) in [
            (&b"GET / HTTP/1.1\r\n"[..], Broken::Absent),
            (b"\x16\x03\x01\x02\x00\x01", Broken::Absent),
            (b"PROXIES", Broken::Absent),
            (b"proxy TCP4 ", Broken::Absent),
            (b"\r\n\r\n\0\r\nQUIT\r    ", Broken::Absent),
            (b"\r\n\r\nGET / HTTP/1.1", Broken::Absent),
            (
                b"PROXY TCP5 192.0.2.1 10.0.0.1 5000 80\r\n",
                Broken::Malformed,
            ),
            (
                b"PROXY  TCP4 192.0.2.1 10.0.0.1 5000 80\r\n",
                Broken::Malformed,
            ),
            (
                b"PROXY TCP4 192.0.2.1  10.0.0.1 5000 80\r\n",
                Broken::Malformed,
            ),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80 \r\n",
                Broken::Malformed,
            ),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 05000 80\r\n",
                Broken::Malformed,
            ),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 +500 80\r\n",
                Broken::Malformed,
            ),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 65536 80\r\n",
                Broken::Malformed,
            ),
            (
                b"PROXY TCP4 192.0.2.01 10.0.0.1 5000 80\r\n",
                Broken::Malformed,
            ),
            (
                b"PROXY TCP4 2001:db8::1 ::1 50000 80000\r\n",
                Broken::Malformed,
            ),
            (
                b"PROXY TCP6 192.0.2.1 10.0.0.1 5000 80\r\n",
                Broken::Malformed,
            ),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\n\n",
                Broken::Malformed,
            ),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\rX",
                Broken::Malformed,
            ),
            (b"PROXY UNKNOWN\n\n", Broken::Malformed),
            (b"PROXY UNKNOWNX\r\n", Broken::Malformed),
            (long.as_bytes(), Broken::TooLong),
        ] {
            assert_eq!(
                read(input),
                Err(Some(broken)),
                "{}",
                String::from_utf8_lossy(input)
            );
        }
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    const TCP4: &[u8] = &[192, 0, 2, 1, 10, 0, 0, 1, 0x13, 0x88, 0, 80];

    #[test]
    fn version_2_blocks() {
        let tcp6 = [
            &[0x20, 1, 0xd, 0xb8][..],
            &[0; 11],
            &[1],
            &[0; 15],
            &[1],
            &[0x13, 0x88, 1, 0xbb],
        ]
        .concat();
        let with = |extensions: &[u8]| [TCP4, extensions].concat();
        for (input, source) in [
            (version_2(0x21, 0x11, TCP4), client("192.0.2.1:5000", false)),
            (
                version_2(0x21, 0x21, &tcp6),
                client("[2001:db8::1]:5000", false),
            ),
            (version_2(0x21, 0x31, &[b'x'; 216]), client("", false)),
            (version_2(0x21, 0x00, b""), client("", false)),
            (version_2(0x21, 0x00, b"anything"), client("", false)),
            (version_2(0x20, 0x00, b""), Source::Proxy),
            (version_2(0x20, 0x11, TCP4), Source::Proxy),
            // A name, nothing, TLS with the client and its details.
            (
                version_2(0x21, 0x11, &with(b"\x02\0\x01a\x04\0\0")),
                client("192.0.2.1:5000", false),
            ),
            (
                version_2(0x21, 0x11, &with(b"\x20\0\x05\x01\0\0\0\0")),
                client("192.0.2.1:5000", true),
            ),
            (
                version_2(0x21, 0x11, &with(b"\x20\0\x05\x00\0\0\0\0")),
                client("192.0.2.1:5000", false),
            ),
        ] {
            let length = input.len();
            assert_eq!(
                read(&[&input[..], b"GET"].concat()),
                Ok((source, length)),
                "{input:?}"
            );
            for end in 0..length {
                assert_eq!(read(&input[..end]), Err(None), "{input:?} up to {end}");
            }
        }
        for (input, broken) in [
            (version_2(0x11, 0x11, TCP4), Broken::Malformed),
            (version_2(0x22, 0x11, TCP4), Broken::Malformed),
            (version_2(0x21, 0x12, TCP4), Broken::Malformed),
            (version_2(0x21, 0x41, TCP4), Broken::Malformed),
            (version_2(0x21, 0x11, &TCP4[..11]), Broken::Malformed),
            (version_2(0x21, 0x21, &tcp6[..35]), Broken::Malformed),
            (version_2(0x21, 0x31, &[0; 215]), Broken::Malformed),
            (version_2(0x21, 0x11, &with(b"\x02")), Broken::Malformed),
            (
                version_2(0x21, 0x11, &with(b"\x02\0\x02a")),
                Broken::Malformed,
            ),
            (version_2(0x21, 0x11, &with(b"\x20\0\0")), Broken::Malformed),
            (
                version_2(0x21, 0x11, &with(b"\x03\0\x01a")),
                Broken::Malformed,
            ),
            (
                version_2(0x21, 0x11, &with(b"\x03\0\x04aaaa")),
                Broken::Checksum,
            ),
            (version_2(0x21, 0x00, &[0; 4097]), Broken::TooLong),
        ] {
            assert_eq!(read(&input), Err(Some(broken)), "{input:?}");
        }
    }

    #[test]
    fn a_checksum_is_checked() {
        // RFC 3720, appendix B.4: 32 bytes of zeros, and of ones.
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
        assert_eq!(crc32c([0xff; 32].into_iter()), 0x62a8_ab43);
        let mut input = version_2(
            0x21,
            0x11,
            &[TCP4, b"\x03\0\x04\0\0\0\0\x02\0\x01a"].concat(),
        );
        let sum = crc32c(input.iter().copied()).to_be_bytes();
        input[31..35].copy_from_slice(&sum);
        assert_eq!(
            read(&input),
            Ok((client("192.0.2.1:5000", false), input.len()))
        );
        input[20] ^= 1;
        assert_eq!(read(&input), Err(Some(Broken::Checksum)));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_read_for_ever(
            start in proptest::sample::select(vec![&b""[..], V1, b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN", SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x20"]),
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = read(&[start, &rest].concat());
        }
    }
}
