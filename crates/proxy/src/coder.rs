//! Encoders: content in, coded content out.

use std::io::{self, Write};

use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use message::coding::Coding;

/// All of the content at once, as small as can be. Takes time.
pub(crate) fn encode(coding: Coding, content: &[u8]) -> io::Result<Bytes> {
    let level = Level::of(content.len());
    let encoded = match coding {
        Coding::Brotli => brotli(level, content)?,
        Coding::Zstandard => zstandard(level, content)?,
        Coding::Gzip => {
            let level = Compression::new(level.pick([9, 9, 6]));
            let mut writer = GzEncoder::new(Vec::new(), level);
            writer.write_all(content)?;
            writer.finish()?
        }
    };
    Ok(encoded.into())
}

/// How hard is tried: the best takes a fraction of a second for short content and minutes for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Best,
    Good,
    Fair,
}

impl Level {
    fn of(length: usize) -> Self {
        const SHORT: usize = 256 * 1024;
        const MEDIUM: usize = 2 * 1024 * 1024;
        if length <= SHORT {
            Self::Best
        } else if length <= MEDIUM {
            Self::Good
        } else {
            Self::Fair
        }
    }

    fn pick<T>(self, [best, good, fair]: [T; 3]) -> T {
        match self {
            Self::Best => best,
            Self::Good => good,
            Self::Fair => fair,
        }
    }
}

/// How far back repeats are looked for, as a power of two: no farther than there is content, and 4 MiB at most.
fn window(content: &[u8]) -> u32 {
    let needed = usize::BITS - content.len().leading_zeros();
    needed.clamp(10, 22)
}

fn brotli(level: Level, content: &[u8]) -> io::Result<Vec<u8>> {
    let parameters = BrotliEncoderParams {
        quality: level.pick([10, 7, 5]),
        lgwin: i32::try_from(window(content)).expect("at most 22"),
        size_hint: content.len(),
        ..BrotliEncoderParams::default()
    };
    let mut encoded = Vec::new();
    let mut content = content;
    brotli::BrotliCompress(&mut content, &mut encoded, &parameters)?;
    Ok(encoded)
}

fn zstandard(level: Level, content: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::bulk::Compressor::new(level.pick([19, 12, 6]))?;
    // RFC 9659: no window of more than 8 MiB on the web.
    encoder.window_log(window(content))?;
    encoder.compress(content)
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
            Coding::Gzip => flate2::read::MultiGzDecoder::new(content).read_to_end(&mut plain),
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
            for length in [0, 1, 1000, 300_000, 3_000_000] {
                let text = text(length);
                let encoded = encode(coding, &text).expect("encoded");
                assert_eq!(decode(coding, &encoded), text, "{coding:?} {length}");
                assert!(length < 1000 || encoded.len() < length / 2);
            }
        }
    }
}
