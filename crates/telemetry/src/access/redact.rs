//! What must not get into a log although a client sent it: the values of query parameters and of fields, by name.
//!
//! A name on the list stands for itself and for every name that ends in it after `_` or `-`: `token` also hides
//! `reset_token`. The name stays, so that a reader sees that there was something.

use std::borrow::Cow;

/// What stands in the place of a value.
const HIDDEN: &[u8] = b"***";

/// Which values are hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    /// In lower case, `_` for `-`.
    names: Vec<Vec<u8>>,
    all: bool,
}

impl Redaction {
    /// Hides the values of these names; `*` is every name.
    pub fn new<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Self {
        let names: Vec<Vec<u8>> = names
            .into_iter()
            .map(|name| plain(name.as_ref().as_bytes()))
            .collect();
        Self {
            all: names.iter().any(|name| name == b"*"),
            names,
        }
    }

    /// A target, or a whole URL, with the values in its query hidden. Nearly always it comes back as it is.
    #[must_use]
    pub fn target<'a>(&self, target: &'a [u8]) -> Cow<'a, [u8]> {
        if self.names.is_empty() {
            return Cow::Borrowed(target);
        }
        let Some(question) = target.iter().position(|byte| *byte == b'?') else {
            return Cow::Borrowed(target);
        };
        let (path, query) = target.split_at(question + 1);
        if !query.split(is_separator).any(|pair| self.hides_pair(pair)) {
            return Cow::Borrowed(target);
        }
        let mut out = path.to_vec();
        let mut rest = query;
        loop {
            let end = rest.iter().position(is_separator);
            let pair = &rest[..end.unwrap_or(rest.len())];
            match pair.iter().position(|byte| *byte == b'=') {
                Some(equals) if self.hides_pair(pair) => {
                    out.extend_from_slice(&pair[..=equals]);
                    out.extend_from_slice(HIDDEN);
                }
                _ => out.extend_from_slice(pair),
            }
            let Some(end) = end else { break };
            out.push(rest[end]);
            rest = &rest[end + 1..];
        }
        Cow::Owned(out)
    }

    /// Whether the value of a field, or of a parameter, is hidden.
    #[must_use]
    pub fn hides(&self, name: &[u8]) -> bool {
        if self.all {
            return true;
        }
        let name = plain(name);
        self.names.iter().any(|hidden| {
            name.strip_suffix(hidden.as_slice())
                .is_some_and(|before| before.is_empty() || before.ends_with(b"_"))
        })
    }

    fn hides_pair(&self, pair: &[u8]) -> bool {
        let equals = pair.iter().position(|byte| *byte == b'=');
        equals.is_some_and(|equals| self.hides(&decoded(&pair[..equals])))
    }
}

/// `;` separated parameters once, and some frameworks still read it so. A fragment is no part of a query.
fn is_separator(byte: &u8) -> bool {
    matches!(byte, b'&' | b';' | b'#')
}

fn plain(name: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| match byte {
        b'-' => b'_',
        byte => byte.to_ascii_lowercase(),
    };
    name.iter().map(plain).collect()
}

/// `%74oken` is `token` to the app, so it must be that here.
fn decoded(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.contains(&b'%') {
        return Cow::Borrowed(name);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(name.len());
    let mut at = 0;
    while let Some(&byte) = name.get(at) {
        match (byte, digit(name.get(at + 1)), digit(name.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits are a byte.
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_hidden_by_name() {
        let redaction = Redaction::new(["token", "api_key"]);
        for (target, expected) in [
            ("/a", "/a"),
            ("/a?b=1&c=token", "/a?b=1&c=token"),
            ("/a?token=x", "/a?token=***"),
            ("/a?b=1&Token=x&c=2", "/a?b=1&Token=***&c=2"),
            (
                "/a?reset-token=x;api-key=y",
                "/a?reset-token=***;api-key=***",
            ),
            ("/a?mytoken=x", "/a?mytoken=x"),
            ("/a?%74oken=x", "/a?%74oken=***"),
            ("/a?token", "/a?token"),
            ("/a?token=x=y&token=", "/a?token=***&token=***"),
            ("https://h/p?token=x#f", "https://h/p?token=***#f"),
            ("?%", "?%"),
        ] {
            let shown = redaction.target(target.as_bytes());
            assert_eq!(String::from_utf8_lossy(&shown), expected);
        }
        assert!(redaction.hides(b"X-Access-Token") && !redaction.hides(b"cookie"));
    }

    #[test]
    fn a_star_hides_every_value_and_nothing_hides_none() {
        let all = Redaction::new(["*"]);
        assert_eq!(&*all.target(b"/a?b=1&c=2&d"), b"/a?b=***&c=***&d");
        let none = Redaction::default();
        assert_eq!(&*none.target(b"/a?token=1"), b"/a?token=1");
        assert!(!none.hides(b"cookie"));
    }
}
