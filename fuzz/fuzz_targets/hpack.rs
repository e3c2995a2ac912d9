//! HPACK, both ways: a block, whatever it is, makes no panic, and what our encoder writes is what a decoder reads, block after
//! block, whatever size of table the other side allows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::hpack::{Decoder, Encoder};

/// A response: its status, a new size of the table before it, its fields.
type Block = (u16, Option<u16>, Vec<(Vec<u8>, Vec<u8>)>);

fuzz_target!(|input: (Vec<Vec<u8>>, Vec<Block>)| {
    let (foreign, ours) = input;
    let mut decoder = Decoder::default();
    for block in &foreign {
        if decoder.decode(block, |_, _| {}).is_err() {
            break;
        }
    }
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    for (status, size, fields) in &ours {
        let status = 100 + status % 500;
        if let Some(size) = size {
            encoder.resize(usize::from(*size));
        }
        let mut block = Vec::new();
        encoder.status(status, &mut block);
        for (name, value) in fields {
            encoder.field(name, value, &mut block);
        }
        let mut expected = vec![(b":status".to_vec(), status.to_string().into_bytes())];
        expected.extend(
            fields
                .iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value.clone())),
        );
        let mut read = Vec::new();
        decoder
            .decode(&block, |name, value| {
                read.push((name.to_vec(), value.to_vec()));
            })
            .expect("a block of ours");
        assert_eq!(read, expected);
    }
});
