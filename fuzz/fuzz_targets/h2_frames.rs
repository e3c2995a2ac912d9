//! Frames of HTTP/2, whatever they are: no panic, a head that is written is read as it was, and no padding reaches past its frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::frame::{self, Head, Setting, flag};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk::<{ frame::HEAD }>() {
        let head = Head::parse(head);
        let mut written = Vec::new();
        head.encode(&mut written);
        let written = written.first_chunk().expect("a head has its length");
        assert_eq!(Head::parse(written), head);
        let payload = &after[..after.len().min(head.length)];
        match head.unpadded(payload) {
            Some(content) if head.has(flag::PADDED) => assert!(content.len() < payload.len()),
            Some(content) => assert_eq!(content, payload),
            None => assert!(head.has(flag::PADDED)),
        }
        if let Some(settings) = frame::settings(payload) {
            let mut again = Vec::new();
            for (number, value) in settings {
                if let Some(setting) = Setting::of(number) {
                    setting.encode(value, &mut again);
                    let read = frame::settings(&again).and_then(Iterator::last);
                    assert_eq!(read, Some((number, value)));
                }
            }
        }
        assert!(frame::number(payload).is_none_or(|number| number <= frame::MOST));
        rest = &after[payload.len()..];
    }
});
