//! A header of the PROXY protocol, whatever it is: no panic, no endless reading, and not a byte behind it is asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::proxy_protocol::{Source, Step, step};

/// The fixed part of version 2 and the longest that may follow it; version 1 is far shorter.
const LONGEST: usize = 16 + u16::MAX as usize;

fuzz_target!(|bytes: &[u8]| {
    let mut there = 0;
    loop {
        match step(&bytes[..there]) {
            Ok(Step::Read(more)) => {
                assert!(more > 0);
                there += more;
                assert!(there <= LONGEST);
                if there > bytes.len() {
                    return;
                }
            }
            Ok(Step::Done(source)) => {
                assert!(there > 0);
                if let Source::Client {
                    address: Some(address),
                    ..
                } = source
                {
                    // A version 1 line with the address it was read as is the same header.
                    let family = if address.is_ipv4() { "TCP4" } else { "TCP6" };
                    let (ip, port) = (address.ip(), address.port());
                    let line = format!("PROXY {family} {ip} {ip} {port} {port}\r\n");
                    let again = step(line.as_bytes());
                    assert!(
                        matches!(again, Ok(Step::Done(Source::Client { address: Some(same), .. })) if same == address),
                        "{line:?}: {again:?}"
                    );
                }
                return;
            }
            Err(_) => return,
        }
    }
});
