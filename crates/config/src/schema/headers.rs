//! `headers` of a site and of a route: what is changed in responses on their way out.

use crate::{
    error::Mistake,
    site::Headers,
    walk::{Table, Value},
};

const WANTED: &str = "a table such as `{ X-Frame-Options = \"DENY\", X-Powered-By = false }`";

/// What the table says, on top of `outer`.
pub(super) fn read(table: &Table<'_>, outer: &Headers) -> Headers {
    let own = table.get("headers").map_or_else(Headers::default, own);
    let is_new = |(name, _): &&(String, _)| !own.0.iter().any(|(known, _)| same(known, name));
    let mut all: Vec<_> = outer.0.iter().filter(is_new).cloned().collect();
    all.extend(own.0);
    Headers(all)
}

/// `security_headers`, else what the site says.
pub(super) fn security(table: &Table<'_>, outer: bool) -> bool {
    let value = table
        .get("security_headers")
        .and_then(|value| value.boolean());
    value.unwrap_or(outer)
}

/// Fields that are sent with requests of ours.
pub(super) fn sent(value: &Value<'_>) -> Vec<(String, String)> {
    let all = own(*value).0.into_iter();
    all.filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn own(value: Value<'_>) -> Headers {
    let mut headers: Vec<(String, Option<String>)> = Vec::new();
    for (name, value) in value.named(WANTED).unwrap_or_default() {
        let problem = if headers.iter().any(|(known, _)| same(known, name)) {
            Some(Mistake::new(format!("`{name}` is written twice")).hint("keep one of the two"))
        } else {
            bad_name(name)
        };
        if let Some(mistake) = problem {
            value.notes.wrong(mistake.at(value.key));
            continue;
        }
        if let Some(set) = set_or_removed(&value) {
            headers.push((name.to_owned(), set));
        }
    }
    Headers(headers)
}

/// A token (RFC 9110 §5.1), and none that the connection makes.
fn bad_name(name: &str) -> Option<Mistake> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        let mistake = Mistake::new(format!("{name:?} is not the name of a header"));
        return Some(mistake.hint("a name is letters, digits and `-`"));
    }
    CONNECTIONS.iter().any(|ours| same(ours, name)).then(|| {
        Mistake::new(format!("`{name}` is not for a route to say"))
            .hint("it belongs to the connection, which makes it from what it really sends")
    })
}

/// A response that lied about its own framing would be read as another one (RFC 9112 §6.3).
const CONNECTIONS: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[expect(
    clippy::option_option,
    reason = "nothing usable was written; a value; or the removal"
)]
fn set_or_removed(value: &Value<'_>) -> Option<Option<String>> {
    if value.as_bool() == Some(false) {
        return Some(None);
    }
    let wanted = "a text in quotes, or `false` to remove it";
    let text = value.parsed(wanted, |text| match text.trim() {
        "" => Err(Mistake::new("a header without a value").hint("write `false` to remove it")),
        trimmed if trimmed.len() < text.len() => {
            Err(Mistake::new("a header's value has no space around it"))
        }
        _ if text.chars().any(|c| c.is_control() && c != '\t') => {
            Err(Mistake::new("a header's value has no control characters"))
        }
        _ => Ok(text.to_owned()),
    });
    text.map(|text| Some(text.value))
}
