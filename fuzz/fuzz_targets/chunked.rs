//! Chunked content, whatever it is: no panic, the same content however the bytes came, none that was not sent, and what we
//! write ourselves is read as it was meant.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use message::{
    framing::{Chunked, Piece, chunk_head},
    refusal::Refusal,
};

/// The content, whether it has ended, and what is left behind it.
type Read = (Vec<u8>, Result<bool, Refusal>, usize);

fn read(bytes: &[u8], piece: usize) -> Read {
    let (mut decoder, mut buffer, mut content) = (Chunked::new(), BytesMut::new(), Vec::new());
    let mut pieces = bytes.chunks(piece);
    loop {
        match decoder.decode(&mut buffer) {
            Ok(Piece::Data(data)) => {
                assert!(!data.is_empty());
                content.extend_from_slice(&data);
            }
            Ok(Piece::End) => {
                let left = buffer.len() + pieces.map(<[u8]>::len).sum::<usize>();
                return (content, Ok(true), left);
            }
            Ok(Piece::NeedMore) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return (content, Ok(false), buffer.len()),
            },
            Err(refusal) => {
                assert_eq!(decoder.decode(&mut buffer), Err(refusal), "it stays broken");
                return (content, Err(refusal), 0);
            }
        }
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let (content, ended, left) = read(bytes, usize::MAX);
    assert!(content.len() + left <= bytes.len());
    let in_pieces = read(bytes, usize::from(piece) + 1);
    // Where a line is both too long and malformed, it depends on what came first; that it is refused does not.
    assert_eq!(in_pieces.0, content);
    assert_eq!(in_pieces.1.is_err(), ended.is_err());
    if ended.is_ok() {
        assert_eq!((in_pieces.1, in_pieces.2), (ended, left));
    }
    let mut written = Vec::new();
    for chunk in bytes.chunks(usize::from(piece) + 1) {
        chunk_head(chunk.len(), &mut written);
        written.extend_from_slice(chunk);
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(read(&written, usize::MAX), (bytes.to_vec(), Ok(true), 0));
});
