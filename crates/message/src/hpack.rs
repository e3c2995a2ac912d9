//! HPACK (RFC 7541): how HTTP/2 writes field sections.
//!
//! Both sides keep a table of what has been sent, so a block can only be read after all blocks before it: whoever refuses a
//! request must still [decode](Decoder::decode) it. A block of a few bytes can name megabytes of fields (CVE-2016-6581,
//! CVE-2026-49975); the decoder copies none of them, and leaves it to whoever listens how much is kept.

mod huffman;
mod table;

use table::{STATIC, Table};

/// What a block breaks; the connection cannot go on then, since the two tables are no longer the same (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the field block cannot be decompressed")]
pub struct Broken;

/// The size of a table unless something else is agreed (RFC 9113 §6.5.2), and the most that we keep.
pub const TABLE_SIZE: usize = 4096;

/// Reads field blocks of one connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// Where names and values that were compressed are unpacked; kept for their memory.
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            table: Table::new(TABLE_SIZE),
            name: Vec::new(),
            value: Vec::new(),
        }
    }
}

impl Decoder {
    /// Reads a whole block and tells each field of it, in order.
    ///
    /// # Errors
    /// When it is no such block.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Broken> {
        let mut rest = block;
        // A change of size stands at the start of a block alone (RFC 7541 §4.2); one after another may come twice.
        while let Some(&first) = rest.first().filter(|first| **first & 0xe0 == 0x20) {
            rest = &rest[1..];
            let size = integer(first, 5, &mut rest)?;
            if size > TABLE_SIZE {
                return Err(Broken);
            }
            self.table.resize(size);
        }
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            match first {
                0x80.. => {
                    let index = integer(first, 7, &mut rest)?;
                    let (name, value) = self.table.get(index).ok_or(Broken)?;
                    field(name, value);
                }
                0x40.. => {
                    self.literal(first, 6, &mut rest, &mut field)?;
                    self.table.insert(&self.name, &self.value);
                }
                0x20.. => return Err(Broken),
                // Without indexing, or never indexed, which is for whoever sends it on in HPACK; we never do.
                _ => self.literal(first, 4, &mut rest, &mut field)?,
            }
        }
        Ok(())
    }

    /// A field that is written out, its name perhaps by reference.
    fn literal(
        &mut self,
        first: u8,
        prefix: u32,
        rest: &mut &[u8],
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Broken> {
        match integer(first, prefix, rest)? {
            0 => string(rest, &mut self.name)?,
            index => {
                let (name, _) = self.table.get(index).ok_or(Broken)?;
                self.name.clear();
                self.name.extend_from_slice(name);
            }
        }
        string(rest, &mut self.value)?;
        field(&self.name, &self.value);
        Ok(())
    }
}

/// An integer whose first bits are in `first` (RFC 7541 §5.1). None that we accept is near 2³¹.
fn integer(first: u8, prefix: u32, rest: &mut &[u8]) -> Result<usize, Broken> {
    let most = (1u32 << prefix) - 1;
    let mut number = u32::from(first) & most;
    if number < most {
        return Ok(number as usize);
    }
    for shift in [0, 7, 14, 21] {
        let (&byte, after) = rest.split_first().ok_or(Broken)?;
        *rest = after;
        number += u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number as usize);
        }
    }
    Err(Broken)
}

/// A string, compressed or not (RFC 7541 §5.2).
fn string(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    let (&first, after) = rest.split_first().ok_or(Broken)?;
    *rest = after;
    let length = integer(first, 7, rest)?;
    let (text, after) = rest.split_at_checked(length).ok_or(Broken)?;
    *rest = after;
    out.clear();
    if first & 0x80 == 0 {
        out.extend_from_slice(text);
        return Ok(());
    }
    huffman::decode(text, out)
}

/// Writes field blocks of one connection.
///
/// What comes again in every response (its server, type, caching) is one byte from its second time on. What differs each
/// time would only push that out of the table, and what is secret must not be in one that an attacker's requests share
/// (RFC 7541 §7.1): neither is indexed.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// The table's new size, where the other side has not been told yet.
    resized: Option<usize>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            table: Table::new(TABLE_SIZE),
            resized: None,
        }
    }
}

impl Encoder {
    /// The other side allows a table of this size (`SETTINGS_HEADER_TABLE_SIZE`).
    pub fn resize(&mut self, size: usize) {
        let size = size.min(TABLE_SIZE);
        self.table.resize(size);
        self.resized = Some(size);
    }

    /// Begins a block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(size) = self.resized.take() {
            // One that shrank and grew again would have to be told twice; it is told as empty, which needs no memory.
            put_integer(0x20, 5, 0, out);
            self.table.resize(0);
            put_integer(0x20, 5, size, out);
            self.table.resize(size);
        }
    }

    /// Adds the pseudo-field of a response, which comes before all others.
    pub fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        let indexed = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                put_integer(0, 4, 8, out);
                let digits = [status / 100, status / 10 % 10, status % 10];
                out.push(3);
                out.extend(digits.map(|digit| b'0' + (digit % 10) as u8));
                return;
            }
        };
        out.push(0x80 | indexed);
    }

    /// Adds a field. The name may have upper-case letters, which HTTP/2 does not (RFC 9113 §8.2).
    pub fn field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let mut lower = [0; LONGEST_NAME];
        let mut long = Vec::new();
        let name = match lower.get_mut(..name.len()) {
            Some(lower) => {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                &*lower
            }
            None => {
                long.extend(name.iter().map(u8::to_ascii_lowercase));
                &long
            }
        };
        let repeats = repeats(name, value);
        let (exact, named) = self.table.find(name, value, repeats);
        if let Some(index) = exact {
            return put_integer(0x80, 7, index, out);
        }
        // A name that is new is worth its place once.
        let (mark, prefix) = match repeats || named.is_none() && !is_secret(name) {
            true => (0x40, 6),
            false => (0, 4),
        };
        match named {
            Some(index) => put_integer(mark, prefix, index, out),
            None => {
                out.push(mark);
                put_string(name, out);
            }
        }
        put_string(value, out);
        if mark == 0x40 {
            self.table.insert(name, value);
        }
    }
}

/// Names up to this length are made lower-case without a visit to the allocator.
const LONGEST_NAME: usize = 64;

/// Values past this are seldom the same twice.
const LONGEST_REPEATED: usize = 128;

fn is_secret(name: &[u8]) -> bool {
    matches!(name, b"set-cookie" | b"authorization" | b"www-authenticate")
}

/// Whether a field is likely to come again as it is.
fn repeats(name: &[u8], value: &[u8]) -> bool {
    value.len() <= LONGEST_REPEATED
        && !is_secret(name)
        && !matches!(
            name,
            b"x-request-id"
                | b"content-length"
                | b"content-range"
                | b"etag"
                | b"last-modified"
                | b"location"
                | b"age"
        )
}

fn put_integer(mark: u8, prefix: u32, number: usize, out: &mut Vec<u8>) {
    let most = (1_u8 << prefix) - 1;
    if let Ok(short) = u8::try_from(number)
        && short < most
    {
        out.push(mark | short);
        return;
    }
    out.push(mark | most);
    let mut rest = number - usize::from(most);
    loop {
        let [lowest, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            return out.push(lowest);
        }
        out.push(0x80 | lowest);
    }
}

/// Not compressed: what Huffman's code would save of the little that is not indexed is not worth its time.
fn put_string(text: &[u8], out: &mut Vec<u8>) {
    put_integer(0, 7, text.len(), out);
    out.extend_from_slice(text);
}

/// How many entries the static table has (RFC 7541, appendix A).
const STATIC_LENGTH: usize = STATIC.len();

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .bytes()
            .filter(u8::is_ascii_hexdigit)
            .map(|digit| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap())
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Broken> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(block, |name, value| fields.push((text(name), text(value))))?;
        Ok(fields)
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        text.lines()
            .map(|line| line.trim().split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    const FIRST: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com";
    const SECOND: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache";
    const THIRD: &str = ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value";

    /// RFC 7541, appendix C.3 (plain) and C.4 (Huffman): three requests of one connection.
    #[test]
    fn the_examples_of_the_rfc() {
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut decoder = Decoder::default();
            for (block, expected) in blocks.iter().zip([FIRST, SECOND, THIRD]) {
                assert_eq!(
                    decode(&mut decoder, &bytes(block)),
                    Ok(pairs(expected)),
                    "{block}"
                );
            }
        }
    }

    #[test]
    fn blocks_that_are_broken() {
        for (block, why) in [
            ("80", "index 0"),
            (
                "be",
                "an index past the static table of an empty dynamic one",
            ),
            ("ff ff ff ff ff 0f", "an integer past every bound"),
            ("ff", "an integer that does not end"),
            ("40 0a 61", "a name that does not end"),
            ("40 01 61 05 62", "a value that does not end"),
            ("82 20", "a size after a field"),
            ("3f e2 1f", "a size past what we allow"),
            ("00 81 ff 01 61", "padding of more than seven bits"),
            ("00 81 18 01 61", "padding that is not of ones"),
            ("00 84 ff ff ff ff 01 61", "the end of a string inside it"),
        ] {
            assert_eq!(
                decode(&mut Decoder::default(), &bytes(block)),
                Err(Broken),
                "{why}"
            );
        }
        let mut decoder = Decoder::default();
        assert_eq!(
            decode(&mut decoder, &bytes("3f e1 1f 20 82")),
            Ok(pairs(":method: GET"))
        );
    }

    #[test]
    fn the_table_forgets_the_oldest() {
        let mut decoder = Decoder::default();
        let value = "x".repeat(2000);
        for letter in ["a", "b", "c"] {
            let mut block = vec![0x40, 1, letter.as_bytes()[0]];
            put_string(value.as_bytes(), &mut block);
            decode(&mut decoder, &block).unwrap();
        }
        // Two of three fit into 4096 bytes.
        let name = |fields: Vec<(String, String)>| fields[0].0.clone();
        assert_eq!(decode(&mut decoder, &[0x80 | 62]).map(name), Ok("c".into()));
        assert_eq!(decode(&mut decoder, &[0x80 | 63]).map(name), Ok("b".into()));
        assert_eq!(decode(&mut decoder, &[0x80 | 64]), Err(Broken));
        // One that is larger than the table empties it (RFC 7541 §4.4).
        let mut block = vec![0x40, 1, b'd'];
        put_string("x".repeat(5000).as_bytes(), &mut block);
        decode(&mut decoder, &block).unwrap();
        assert_eq!(decode(&mut decoder, &[0x80 | 62]), Err(Broken));
    }

    #[test]
    fn what_is_written_is_read() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let long = "y".repeat(300);
        let response = |id: &str| {
            vec![
                ("content-type".to_owned(), "text/html".to_owned()),
                ("Server".to_owned(), "stack".to_owned()),
                ("X-Request-ID".to_owned(), id.to_owned()),
                ("set-cookie".to_owned(), format!("s={id}")),
                ("x-long".to_owned(), long.clone()),
                ("X-".repeat(40), "z".to_owned()),
            ]
        };
        let mut lengths = Vec::new();
        for (round, status) in [200, 404, 418, 599].into_iter().enumerate() {
            if round == 3 {
                encoder.resize(64);
            }
            let fields = response(&format!("id-{round}"));
            let mut block = Vec::new();
            encoder.begin(&mut block);
            encoder.status(status, &mut block);
            for (name, value) in &fields {
                encoder.field(name.as_bytes(), value.as_bytes(), &mut block);
            }
            lengths.push(block.len());
            let mut expected = vec![(":status".to_owned(), status.to_string())];
            expected.extend(
                fields
                    .into_iter()
                    .map(|(name, value)| (name.to_lowercase(), value)),
            );
            assert_eq!(decode(&mut decoder, &block), Ok(expected));
        }
        assert!(lengths[1] < lengths[0], "{lengths:?}");
    }

    proptest::proptest! {
        #[test]
        fn any_block_is_read_or_refused(block: Vec<u8>) {
            let mut decoder = Decoder::default();
            let _ = decoder.decode(&block, |_, _| {});
            // Whatever came before, a plain block is read after it.
            let mut seen = 0;
            proptest::prop_assert_eq!(decoder.decode(&[0x82], |_, _| seen += 1), Ok(()));
            proptest::prop_assert_eq!(seen, 1);
        }
    }
}
