//! The two tables behind one index space (RFC 7541 §2.3.3): what every connection knows, then what this one has seen.

use std::collections::VecDeque;

use super::STATIC_LENGTH;

/// What an entry costs beside its text (RFC 7541 §4.1).
const OVERHEAD: usize = 32;

/// A dynamic table, and the static one before it.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    most: usize,
}

#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    name: usize,
}

impl Entry {
    fn pair(&self) -> (&[u8], &[u8]) {
        self.text.split_at(self.name)
    }

    fn size(&self) -> usize {
        self.text.len() + OVERHEAD
    }
}

impl Table {
    pub(super) fn new(most: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            most,
        }
    }

    /// The field at an index; the first is 1.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((name.as_bytes(), value.as_bytes())),
            None => self.entries.get(index - STATIC_LENGTH).map(Entry::pair),
        }
    }

    /// Where this field is, and where one of its name. Values are compared only where that may come to something.
    pub(super) fn find(
        &self,
        name: &[u8],
        value: &[u8],
        exact: bool,
    ) -> (Option<usize>, Option<usize>) {
        let mut named = None;
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.name != name.len() || entry.text[..entry.name] != *name {
                continue;
            }
            let index = index + STATIC_LENGTH + 1;
            if exact && entry.text[entry.name..] == *value {
                return (Some(index), None);
            }
            named = named.or(Some(index));
        }
        (None, static_name(name).or(named))
    }

    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + OVERHEAD;
        self.evict(self.most.saturating_sub(size));
        // One that is larger than the table leaves it empty, and is no error (RFC 7541 §4.4).
        if size <= self.most {
            self.entries.push_front(Entry {
                text: [name, value].concat().into(),
                name: name.len(),
            });
            self.size += size;
        }
    }

    pub(super) fn resize(&mut self, most: usize) {
        self.most = most;
        self.evict(most);
    }

    /// Forgets the oldest until no more than `most` is left.
    fn evict(&mut self, most: usize) {
        while self.size > most {
            let Some(oldest) = self.entries.pop_back() else {
                return;
            };
            self.size -= oldest.size();
        }
    }
}

/// The index of a response field's name in the static table: those that we are likely to write.
fn static_name(name: &[u8]) -> Option<usize> {
    Some(match name {
        b"accept-ranges" => 18,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"cache-control" => 24,
        b"content-disposition" => 25,
        b"content-encoding" => 26,
        b"content-language" => 27,
        b"content-length" => 28,
        b"content-location" => 29,
        b"content-range" => 30,
        b"content-type" => 31,
        b"date" => 33,
        b"etag" => 34,
        b"expires" => 36,
        b"last-modified" => 44,
        b"link" => 45,
        b"location" => 46,
        b"retry-after" => 53,
        b"server" => 54,
        b"set-cookie" => 55,
        b"strict-transport-security" => 56,
        b"vary" => 59,
        b"via" => 60,
        b"www-authenticate" => 61,
        _ => return None,
    })
}

/// RFC 7541, appendix A.
#[rustfmt::skip]
pub(super) static STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_index_of_the_table() {
        for (index, (name, value)) in STATIC.iter().enumerate() {
            if let Some(found) = static_name(name.as_bytes()) {
                assert_eq!((found, *value), (index + 1, ""), "{name}");
            }
        }
    }
}
