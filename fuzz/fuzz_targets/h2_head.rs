//! HTTP/2's field blocks, whatever they are: no panic, and no head comes of them that HTTP/1.1 could not have carried.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::{head::Limits, hpack::Decoder, pseudo::Collector};

const LIMITS: Limits = Limits {
    line: 256,
    head: 1024,
    fields: 16,
};

fuzz_target!(|blocks: Vec<Vec<u8>>| {
    let mut decoder = Decoder::default();
    for block in &blocks {
        let mut collector = Collector::new(LIMITS);
        if decoder
            .decode(block, |name, value| collector.field(name, value))
            .is_err()
        {
            return;
        }
        let Ok(head) = collector.finish() else {
            continue;
        };
        let ends_a_line = |bytes: &[u8]| bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        assert!(head.target.starts_with(b"/") || head.target == "*" || head.method.as_str() == "CONNECT");
        assert!(head.fields.len() <= LIMITS.fields + 1);
        for (name, value) in head.fields.iter() {
            assert!(!name.is_empty() && !ends_a_line(name) && !name.contains(&b':'));
            assert!(!ends_a_line(value));
        }
    }
});
