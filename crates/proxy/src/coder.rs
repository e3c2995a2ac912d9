//! Encoders: content in, coded content out, whole or as it comes.

use std::{
    fmt,
    io::{self, Write},
    sync::LazyLock,
};

use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::{Compression, GzBuilder, write::GzEncoder};
use message::coding::Coding;
use tokio::sync::{Semaphore, SemaphorePermit};

/// A turn to encode on a thread of its own. As many as there are cores at once: more would only take them from the connections.
pub(crate) async fn turn() -> SemaphorePermit<'static> {
    static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Semaphore::new(cores)
    });
    TURNS.acquire().await.expect("it is never closed")
}

/// How hard is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For content that is sent many times: as small as can be, in a fraction of a second for short content.
    Kept,
    /// For content that is sent once: about as fast as it is made.
    Once,
}

/// All of the content at once. Takes time.
pub(crate) fn encode(coding: Coding, effort: Effort, content: &[u8]) -> io::Result<Bytes> {
    let mut coder = Coder::new(coding, effort, Some(content.len()), 0)?;
    coder.push(content)?;
    coder.finish()
}

/// An encoder of one response.
pub(crate) struct Coder {
    encoder: Encoder,
    /// How many bytes that mean nothing are among those that come out.
    padding: usize,
}

enum Encoder {
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstandard(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl Coder {
    /// A new one. `length` is that of the content, where it is known. `padding` makes what comes out longer by so many bytes,
    /// which decoders pass over; Brotli takes none.
    pub(crate) fn new(
        coding: Coding,
        effort: Effort,
        length: Option<usize>,
        padding: usize,
    ) -> io::Result<Self> {
        let encoder = match coding {
            Coding::Brotli => Encoder::Brotli(Box::new(brotli(effort, length))),
            Coding::Zstandard => Encoder::Zstandard(Box::new(zstandard(effort, length)?)),
            Coding::Gzip => Encoder::Gzip(Box::new(gzip(effort, length, padding))),
        };
        Ok(Self { encoder, padding })
    }

    /// Takes content.
    pub(crate) fn push(&mut self, content: &[u8]) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::Brotli(writer) => writer.write_all(content),
            Encoder::Zstandard(writer) => writer.write_all(content),
            Encoder::Gzip(writer) => writer.write_all(content),
        }
    }

    /// Makes all that was pushed decodable by who has what comes out.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::Brotli(writer) => writer.flush(),
            Encoder::Zstandard(writer) => writer.flush(),
            Encoder::Gzip(writer) => writer.flush(),
        }
    }

    /// What has come out since the last time.
    pub(crate) fn take(&mut self) -> Bytes {
        let out = match &mut self.encoder {
            Encoder::Brotli(writer) => writer.get_mut(),
            Encoder::Zstandard(writer) => writer.get_mut(),
            Encoder::Gzip(writer) => writer.get_mut(),
        };
        std::mem::take(out).into()
    }

    /// The rest.
    pub(crate) fn finish(self) -> io::Result<Bytes> {
        let out = match self.encoder {
            Encoder::Brotli(writer) => writer.into_inner(),
            Encoder::Zstandard(writer) => {
                let mut out = writer.finish()?;
                skippable_frame(&mut out, self.padding);
                out
            }
            Encoder::Gzip(writer) => writer.finish()?,
        };
        Ok(out.into())
    }
}

impl fmt::Debug for Coder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coder")
    }
}

/// How far back what comes as it comes looks for repeats, as a power of two: 128 KiB. It is most of the memory that an encoder
/// takes, and pages seldom repeat what is farther back.
const WINDOW: u32 = 17;

/// The same for content that is at hand: 4 MiB. RFC 9659 allows no more than 8 on the web.
const WINDOW_AT_HAND: u32 = 22;

fn window(length: Option<usize>) -> u32 {
    let Some(length) = length else { return WINDOW };
    // As far as there is content.
    (usize::BITS - length.leading_zeros()).clamp(10, WINDOW_AT_HAND)
}

/// Which of these levels. The best are for short content: they would take minutes for long.
fn level<T>(effort: Effort, length: Option<usize>, [best, good, fair, fast]: [T; 4]) -> T {
    const SHORT: usize = 256 * 1024;
    const MEDIUM: usize = 2 * 1024 * 1024;
    match (effort, length) {
        (Effort::Once, _) => fast,
        (Effort::Kept, Some(length)) if length <= SHORT => best,
        (Effort::Kept, Some(length)) if length <= MEDIUM => good,
        (Effort::Kept, _) => fair,
    }
}

fn brotli(effort: Effort, length: Option<usize>) -> brotli::CompressorWriter<Vec<u8>> {
    let parameters = BrotliEncoderParams {
        quality: level(effort, length, [10, 7, 5, 4]),
        lgwin: i32::try_from(window(length)).expect("at most 22"),
        size_hint: length.unwrap_or(0),
        ..BrotliEncoderParams::default()
    };
    /// Of output, which is handed on whenever it is full.
    const BUFFER: usize = 8 * 1024;
    brotli::CompressorWriter::with_params(Vec::new(), BUFFER, &parameters)
}

fn zstandard(
    effort: Effort,
    length: Option<usize>,
) -> io::Result<zstd::stream::write::Encoder<'static, Vec<u8>>> {
    let level = level(effort, length, [19, 12, 6, 3]);
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
    encoder.window_log(window(length))?;
    encoder.set_pledged_src_size(length.map(|length| length as u64))?;
    Ok(encoder)
}

/// Bytes that a decoder passes over (RFC 8878 §3.1.2), behind the frame, where one that knows a single frame has stopped.
fn skippable_frame(out: &mut Vec<u8>, padding: usize) {
    if padding == 0 {
        return;
    }
    let length = u32::try_from(padding).unwrap_or(0);
    out.extend_from_slice(&0x184d_2a50_u32.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.resize(out.len() + length as usize, b'0');
}

/// The padding is the name of the file that this never was (RFC 1952 §2.3.1).
fn gzip(effort: Effort, length: Option<usize>, padding: usize) -> GzEncoder<Vec<u8>> {
    let mut head = GzBuilder::new();
    if padding > 0 {
        head = head.filename(vec![b'0'; padding]);
    }
    let level = level(effort, length, [9, 9, 6, 5]);
    head.write(Vec::new(), Compression::new(level))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Read;

    use super::*;

    /// What a client makes of it.
    pub(crate) fn decode(coding: Coding, content: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            Coding::Brotli => brotli::Decompressor::new(content, 4096).read_to_end(&mut plain),
            Coding::Zstandard => zstd::stream::read::Decoder::new(content)
                .expect("a decoder")
                .read_to_end(&mut plain),
            Coding::Gzip => flate2::read::GzDecoder::new(content).read_to_end(&mut plain),
        }
        .expect("valid");
        plain
    }

    pub(crate) fn text(length: usize) -> Vec<u8> {
        let words = ["alpha", "beta", "gamma", "delta"];
        let mut state = 7_u32;
        let mut text = Vec::new();
        while text.len() < length {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.extend_from_slice(words[state as usize >> 20 & 3].as_bytes());
            text.push(b' ');
        }
        text.truncate(length);
        text
    }

    #[test]
    fn what_is_encoded_is_decoded_and_smaller() {
        for coding in Coding::ALL {
            for effort in [Effort::Kept, Effort::Once] {
                for length in [0, 1, 1000, 300_000, 3_000_000] {
                    let text = text(length);
                    let encoded = encode(coding, effort, &text).expect("encoded");
                    assert_eq!(decode(coding, &encoded), text, "{coding:?} {length}");
                    assert!(length < 1000 || encoded.len() < length / 2);
                }
            }
        }
    }

    #[test]
    fn padding_makes_it_longer_and_nothing_else() {
        for coding in [Coding::Gzip, Coding::Zstandard] {
            let lengths = [0, 1, 2, 100].map(|padding| {
                let mut coder = Coder::new(coding, Effort::Once, None, padding).expect("made");
                coder.push(b"secret").expect("taken");
                let out = coder.finish().expect("finished");
                assert_eq!(decode(coding, &out), b"secret");
                out.len()
            });
            let [none, one, two, hundred] = lengths;
            assert!(
                none < one && one + 1 == two && one + 99 == hundred,
                "{lengths:?}"
            );
        }
    }

    #[test]
    fn what_was_pushed_can_be_read_after_a_flush() {
        for coding in Coding::ALL {
            let mut coder = Coder::new(coding, Effort::Once, None, 0).expect("made");
            let mut sent = Vec::new();
            for piece in ["first ", "second ", "third"] {
                coder.push(piece.as_bytes()).expect("taken");
                coder.flush().expect("flushed");
                let out = coder.take();
                assert!(!out.is_empty(), "{coding:?}: {piece} came out");
                sent.extend_from_slice(&out);
            }
            sent.extend_from_slice(&coder.finish().expect("finished"));
            assert_eq!(decode(coding, &sent), b"first second third", "{coding:?}");
        }
    }
}
