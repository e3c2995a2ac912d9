//! A request head of HTTP/1.1 and its target, whatever it is: no panic, what is found does not depend on how the bytes came, and
//! nothing that is accepted holds what the grammar forbids or what two readers could read differently.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use message::{
    framing,
    head::{Finder, Limits, RequestHead},
    refusal::Refusal,
    target::{Form, Target},
};

const LIMITS: Limits = Limits {
    line: 256,
    head: 1024,
    fields: 16,
};

/// The length of the head, where the bytes come in pieces of this size.
fn find(bytes: &[u8], piece: usize) -> Result<Option<usize>, Refusal> {
    let mut finder = Finder::default();
    let mut there = 0;
    loop {
        there = bytes.len().min(there + piece);
        match finder.find(&bytes[..there], &LIMITS) {
            Ok(None) if there < bytes.len() => {}
            found => return found,
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = find(bytes, usize::MAX / 2);
    assert_eq!(find(bytes, 1), whole);
    let Ok(Some(length)) = whole else {
        return;
    };
    assert!(length <= bytes.len() && bytes[..length].ends_with(b"\r\n\r\n"));
    let Ok(head) = RequestHead::parse(&Bytes::copy_from_slice(&bytes[..length]), &LIMITS) else {
        return;
    };
    let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    assert!(!head.method.as_bytes().iter().any(|byte| !byte.is_ascii_graphic()));
    assert!(!head.target.iter().any(|byte| !byte.is_ascii_graphic()));
    for (name, value) in head.fields.iter() {
        assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic) && !name.contains(&b':'));
        assert!(!value.iter().any(breaks) && value.trim_ascii() == value);
    }
    if framing::of_request(&head).is_ok() {
        let lengths = head.fields.all("content-length").count();
        assert!(lengths == 0 || !head.fields.contains("transfer-encoding"));
    }
    let Ok(target) = Target::of(&head) else {
        return;
    };
    if matches!(target.form, Form::Origin | Form::Absolute) {
        check_path(&target);
    }
});

/// What is routed has no dot segment, and is what a reader of the encoded path would see.
fn check_path(target: &Target) {
    let path = target.path.as_bytes();
    assert!(path.starts_with(b"/") && !path.contains(&0));
    assert!(!path.windows(2).any(|two| two == b"//"));
    let mut segments = path.split(|&byte| byte == b'/');
    assert!(!segments.any(|segment| segment == b"." || segment == b".."));
    let mut encoded = Vec::new();
    target.write_path(0, &mut encoded);
    let again = message::target::Path::new(encoded.into()).expect("a path that we write is one");
    assert_eq!(again.as_bytes(), path);
    let mut location = Vec::new();
    target.write_location(0, &mut location);
    assert!(!location.starts_with(b"//") && !location.contains(&b'\\'));
}
