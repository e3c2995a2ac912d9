//! What an origin answers with, whatever it is: no panic, and nothing that is accepted holds what the grammar forbids.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use message::{
    framing::{self, Body},
    head::{Finder, Limits, ResponseHead},
};

const LIMITS: Limits = Limits {
    line: 256,
    head: 1024,
    fields: 16,
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(length)) = Finder::default().find_response(bytes, &LIMITS) else {
        return;
    };
    assert!(bytes[..length].ends_with(b"\r\n\r\n"));
    let Ok(head) = ResponseHead::parse(Bytes::copy_from_slice(&bytes[..length]), &LIMITS) else {
        return;
    };
    assert!((100..=599).contains(&head.status));
    let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    assert!(!head.reason.iter().any(breaks));
    for (name, value) in head.fields.iter() {
        assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic));
        assert!(!value.iter().any(breaks));
    }
    let bodiless = matches!(head.status, 100..=199 | 204 | 304);
    for to_head in [false, true] {
        if let Ok(framing) = framing::of_response(&head, to_head) {
            assert!(framing == Body::None || !(bodiless || to_head), "{framing:?}");
        }
    }
});
