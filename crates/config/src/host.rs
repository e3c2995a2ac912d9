//! Host patterns of a site: RFC 1123 §2.1 names in lower case, addresses, and `*`.
//!
//! No name is converted: an internationalised name is written in the form in which browsers send it (RFC 5891).

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use crate::{error::Mistake, site::HostPattern};

impl FromStr for HostPattern {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(address) = address(text) {
            return Ok(Self::Exact(address));
        }
        let lower = text.to_ascii_lowercase();
        match lower.strip_prefix("*.") {
            Some(rest) => name(text, rest).map(|()| Self::Wildcard(rest.to_owned())),
            None => name(text, &lower).map(|()| Self::Exact(lower.clone())),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(rest) => write!(f, "*.{rest}"),
        }
    }
}

/// An address as it stands in a Host field: IPv6 in brackets, in its one short form (RFC 5952).
fn address(text: &str) -> Option<String> {
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(inner) = inner {
        return inner
            .parse::<Ipv6Addr>()
            .ok()
            .map(|address| format!("[{address}]"));
    }
    match text.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => Some(address.to_string()),
        IpAddr::V6(address) => Some(format!("[{address}]")),
    }
}

fn name(text: &str, lower: &str) -> Result<(), Mistake> {
    let wrong = |hint: String| Err(Mistake::new(format!("{text:?} is not a host name")).hint(hint));
    if lower.is_empty() {
        return wrong(
            "write a name such as `\"example.org\"`, or `\"*\"` for every host".to_owned(),
        );
    }
    if !lower.is_ascii() {
        return wrong(
            "write an internationalised name in its ASCII form, which starts with `xn--`"
                .to_owned(),
        );
    }
    if let Some(meant) = stripped(lower) {
        return wrong(format!("did you mean `\"{meant}\"`?"));
    }
    if lower.contains('*') {
        return wrong(
            "`*` stands alone or for whole labels at the front, such as `\"*.example.org\"`"
                .to_owned(),
        );
    }
    if let Some(bad) = lower
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.'))
    {
        return wrong(format!("a host name has no {bad:?}"));
    }
    if lower.len() > LONGEST_NAME
        || lower
            .split('.')
            .any(|label| label.is_empty() || label.len() > LONGEST_LABEL)
    {
        return wrong(
            "a name has at most 253 characters; each label between the dots has 1 to 63".to_owned(),
        );
    }
    if lower
        .split('.')
        .any(|label| label.starts_with('-') || label.ends_with('-'))
    {
        return wrong("no label starts or ends with `-`".to_owned());
    }
    if lower
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return wrong(
            "a name that ends in a number would be an address, and this is not one".to_owned(),
        );
    }
    Ok(())
}

/// RFC 1035 §2.3.4, without the root's label.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// The name without what people paste with it: a scheme, a path, a port, the root's dot.
fn stripped(lower: &str) -> Option<String> {
    let rest = lower
        .strip_prefix("http://")
        .or_else(|| lower.strip_prefix("https://"))
        .unwrap_or(lower);
    let rest = rest.split('/').next().unwrap_or_default();
    let rest = match rest.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => rest,
    };
    let rest = rest.strip_suffix('.').unwrap_or(rest);
    let rest = rest
        .strip_prefix('.')
        .map_or_else(|| rest.to_owned(), |tail| format!("*.{tail}"));
    (rest != lower && rest.parse::<HostPattern>().is_ok()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, shown) in [
            ("*", "*"),
            ("example.org", "example.org"),
            ("Example.ORG", "example.org"),
            ("*.Example.org", "*.example.org"),
            ("localhost", "localhost"),
            ("my_app.internal", "my_app.internal"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
            ("[0:0::1]", "[::1]"),
        ] {
            let host: HostPattern = text
                .parse()
                .unwrap_or_else(|mistake| panic!("{text}: {mistake}"));
            assert_eq!(host.to_string(), shown);
        }
    }

    #[test]
    fn what_is_not_a_host_gets_a_hint() {
        for (text, hint) in [
            (
                "",
                "write a name such as `\"example.org\"`, or `\"*\"` for every host",
            ),
            (
                "bücher.example",
                "write an internationalised name in its ASCII form, which starts with `xn--`",
            ),
            ("example.org:8080", "did you mean `\"example.org\"`?"),
            ("https://Example.org/x", "did you mean `\"example.org\"`?"),
            ("example.org.", "did you mean `\"example.org\"`?"),
            (".example.org", "did you mean `\"*.example.org\"`?"),
            (
                "www.*.org",
                "`*` stands alone or for whole labels at the front, such as `\"*.example.org\"`",
            ),
            (
                "*example.org",
                "`*` stands alone or for whole labels at the front, such as `\"*.example.org\"`",
            ),
            ("a b", "a host name has no ' '"),
            (
                "a..b",
                "a name has at most 253 characters; each label between the dots has 1 to 63",
            ),
            ("-a.org", "no label starts or ends with `-`"),
            (
                "1.2.3",
                "a name that ends in a number would be an address, and this is not one",
            ),
            ("[::1", "a host name has no '['"),
        ] {
            let mistake = text.parse::<HostPattern>().expect_err(text);
            assert_eq!(mistake.hint.as_deref(), Some(hint), "{text}");
        }
    }
}
