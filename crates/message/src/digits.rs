//! Numbers in hexadecimal digits: each request has an id, and most have a trace.

/// Sixteen lower-case digits, the most significant first.
#[must_use]
pub const fn hexadecimal(number: u64) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h] = eight((number >> 32) as u32);
    #[expect(clippy::cast_possible_truncation, reason = "one half at a time")]
    let [i, j, k, l, m, n, o, p] = eight(number as u32);
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// All at once, one digit in each byte of a word: digit by digit it is ten times as much work.
const fn eight(number: u32) -> [u8; 8] {
    const ONES: u64 = u64::MAX / 255;
    let mut word = number as u64;
    word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    word = (word | word << 4) & (ONES * 0xf);
    // From ten on a digit is a letter, which 6 more carry into the next four bits.
    let letters = (word + ONES * 6) >> 4 & ONES;
    let text = word + ONES * b'0' as u64 + letters * (b'a' - b'0' - 10) as u64;
    text.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_formatting_says() {
        let each_digit =
            (0..16).flat_map(|place| (0..16).map(move |digit: u64| digit << (4 * place)));
        for number in each_digit.chain([0x0123_4567_89ab_cdef, u64::MAX, 0xfedc_ba98_7654_3210]) {
            let text = format!("{number:016x}");
            assert_eq!(hexadecimal(number), *text.as_bytes(), "{text}");
        }
    }
}
