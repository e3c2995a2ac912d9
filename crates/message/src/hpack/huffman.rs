//! HPACK's Huffman code (RFC 7541, appendix B).
//!
//! It is canonical: codes of one length follow each other in the order of their symbols, and longer codes come after shorter
//! ones. So the lengths say everything, and the tables are made of them by the compiler.

use super::Broken;

/// The symbol that ends a string, and must not stand in one (RFC 7541 §5.2).
const END: usize = 256;
const LONGEST: usize = 30;

/// The length of each symbol's code, in bits.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// Symbols by length, then by value.
#[expect(
    clippy::cast_possible_truncation,
    reason = "computed by the compiler, of constants that a test reads back"
)]
const ORDER: [u16; 257] = {
    let mut order = [0; 257];
    let (mut length, mut at) = (1, 0);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol <= END {
            if LENGTHS[symbol] as usize == length {
                order[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    order
};

/// For each length: the first code that is longer, as the highest bits of a `u32`, and what must be added to a code of this
/// length to have its place in [`ORDER`].
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "computed by the compiler, of constants that a test reads back"
)]
const BOUNDS: [(u32, i32); LONGEST + 1] = {
    let mut bounds = [(0, 0); LONGEST + 1];
    let (mut length, mut at, mut code) = (1, 0usize, 0u64);
    while length <= LONGEST {
        code <<= 1;
        let first = (code, at);
        while at <= END && LENGTHS[ORDER[at] as usize] as usize == length {
            at += 1;
            code += 1;
        }
        let next = code << (32 - length);
        // The last code of all ends at 2³², which no window reaches.
        let next = if next > u32::MAX as u64 {
            u32::MAX
        } else {
            next as u32
        };
        bounds[length] = (next, first.1 as i32 - first.0 as i32);
        length += 1;
    }
    bounds
};

/// Symbol and length by the next eight bits; length 0 where the code is longer.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "computed by the compiler, of constants that a test reads back"
)]
const SHORT: [(u8, u8); 256] = {
    let mut short = [(0, 0); 256];
    let mut window = 0;
    while window < 256 {
        let mut length = 1;
        while length <= 8 {
            if ((window as u32) << 24) < BOUNDS[length].0 {
                let place = (window >> (8 - length)) as i32 + BOUNDS[length].1;
                short[window] = (ORDER[place as usize] as u8, length as u8);
                break;
            }
            length += 1;
        }
        window += 1;
    }
    short
};

/// Unpacks `input` behind what is in `out`.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    // The next bit is the highest; `count` of them are there.
    let (mut bits, mut count) = (0u64, 0);
    let mut rest = input.iter();
    out.reserve(input.len() * 8 / 5);
    loop {
        while count <= 56 {
            let Some(&byte) = rest.next() else { break };
            bits |= u64::from(byte) << (56 - count);
            count += 8;
        }
        let (symbol, length) = match SHORT[(bits >> 56) as usize] {
            (_, 0) => long((bits >> 32) as u32),
            short => short,
        };
        let length = u32::from(length);
        if length > count {
            // What is left is padding: fewer than eight bits, all ones.
            return if count < 8 && bits == !(u64::MAX >> count) {
                Ok(())
            } else {
                Err(Broken)
            };
        }
        out.push(symbol);
        bits <<= length;
        count -= length;
    }
}

fn long(window: u32) -> (u8, u8) {
    let bounds = (9..).zip(&BOUNDS[9..]);
    let mut bounds = bounds.skip_while(|(_, (next, _))| window >= *next);
    // Only what begins as the end does reaches no bound.
    let found = bounds.next().and_then(|(length, (_, offset))| {
        let code = window >> (32 - u32::from(length));
        let place = usize::try_from(i64::from(code) + i64::from(*offset)).ok()?;
        let symbol = u8::try_from(*ORDER.get(place)?).ok()?;
        Some((symbol, length))
    });
    // Padding looks like the beginning of [`END`]; longer than what is left it is judged as that.
    found.unwrap_or((0, u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of a symbol, found by trying: the decoder is the other way round.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the next eight of many bits"
    )]
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut codes = vec![(0u32, 0u8); 257];
        let (mut code, mut before) = (0u32, 0);
        for &symbol in &ORDER {
            let length = LENGTHS[usize::from(symbol)];
            code <<= length - before;
            before = length;
            codes[usize::from(symbol)] = (code, length);
            code += 1;
        }
        let (mut out, mut bits, mut count) = (Vec::new(), 0u64, 0);
        for &byte in text {
            let (code, length) = codes[usize::from(byte)];
            bits = bits << length | u64::from(code);
            count += u32::from(length);
            while count >= 8 {
                count -= 8;
                out.push((bits >> count) as u8);
            }
        }
        if count > 0 {
            out.push((bits << (8 - count)) as u8 | (0xff >> count));
        }
        out
    }

    #[test]
    fn every_symbol() {
        let all: Vec<u8> = (0..=255).collect();
        for text in [&all[..], b"", b"a", b"www.example.com", &[255; 40]] {
            let mut out = Vec::new();
            assert_eq!(decode(&encode(text), &mut out), Ok(()));
            assert_eq!(out, text);
        }
        assert_eq!(encode(b"www.example.com")[..4], [0xf1, 0xe3, 0xc2, 0xe5]);
    }

    /// Fuzzing found that eight bytes and more shifted by all 64 bits.
    #[test]
    fn the_end_of_string_is_no_symbol_and_no_padding() {
        for length in [1, 4, 7, 8, 9, 40] {
            let ones = vec![0xff; length];
            assert_eq!(decode(&ones, &mut Vec::new()), Err(Broken), "{length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text(text: Vec<u8>) {
            let mut out = Vec::new();
            proptest::prop_assert_eq!(decode(&encode(&text), &mut out), Ok(()));
            proptest::prop_assert_eq!(out, text);
        }
    }
}
