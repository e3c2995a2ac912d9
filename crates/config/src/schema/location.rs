//! Where a redirect leads.
//!
//! A part of the request may be taken over where it cannot lead to another host than the one that was written.

use crate::{
    error::Mistake,
    site::{Location, LocationPart},
};

/// What may stand in a Location field (RFC 9110 §10.2.2), with placeholders.
pub(super) fn parse(text: &str) -> Result<Location, Mistake> {
    let parts = parts(text)?;
    check_characters(text, &parts)?;
    if let Some(rest) = text.strip_prefix("//") {
        return wrong(
            text,
            format!("two slashes begin a host: write `\"https://{rest}\"` or `\"/{rest}\"`"),
        );
    }
    if text.starts_with('/') || text.starts_with("{path}") {
        return Ok(Location(parts));
    }
    let url = ["https://", "http://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let Some(rest) = url else {
        let path = format!("`\"/{text}\"`");
        let is_host = text.split('/').next().unwrap_or_default().contains('.');
        return wrong(
            text,
            match is_host {
                true => format!(
                    "write `\"https://{text}\"` for another host, or {path} for a path of this one"
                ),
                false => format!("did you mean {path}?"),
            },
        );
    };
    if rest.is_empty() || rest.starts_with(['/', '?', '#', ':', '{']) {
        return wrong(
            text,
            "a URL has a host, such as `\"https://example.org/\"`".to_owned(),
        );
    }
    Ok(Location(parts))
}

fn wrong<T>(text: &str, hint: String) -> Result<T, Mistake> {
    Err(Mistake::new(format!("{text:?} is not a place to redirect to")).hint(hint))
}

const PLACEHOLDERS: [(&str, LocationPart); 3] = [
    ("{path}", LocationPart::Path),
    ("{rest}", LocationPart::Rest),
    ("{query}", LocationPart::Query),
];

fn parts(text: &str) -> Result<Vec<LocationPart>, Mistake> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(brace) = rest.find('{') {
        let (before, from) = rest.split_at(brace);
        let known = PLACEHOLDERS
            .iter()
            .find_map(|(name, part)| Some((from.strip_prefix(name)?, part)));
        let Some((after, part)) = known else {
            return wrong(
                text,
                "what stands in braces is `{path}`, `{rest}` (below the route's own path) or `{query}` (with its `?`)"
                    .to_owned(),
            );
        };
        if !before.is_empty() {
            parts.push(LocationPart::Text(before.to_owned()));
        }
        check_place(text, &text[..text.len() - from.len()], part)?;
        parts.push(part.clone());
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(LocationPart::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// `https://example.org{rest}` could be made into `https://example.org.evil` by who asks for `.evil`; a path begins with a
/// slash, and may follow a host.
fn check_place(text: &str, before: &str, part: &LocationPart) -> Result<(), Mistake> {
    match part {
        LocationPart::Rest if !before.ends_with('/') => wrong(
            text,
            "`{rest}` begins without a slash: write `/{rest}`".to_owned(),
        ),
        LocationPart::Path if before.ends_with('/') => wrong(
            text,
            "`{path}` begins with a slash of its own: leave out the one before it".to_owned(),
        ),
        LocationPart::Query if before.contains('?') => {
            wrong(text, "`{query}` begins with a `?` of its own".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_characters(text: &str, parts: &[LocationPart]) -> Result<(), Mistake> {
    let written = parts.iter().filter_map(|part| match part {
        LocationPart::Text(text) => Some(text.as_str()),
        _ => None,
    });
    let bad = written.flat_map(str::chars).find(|c| {
        !c.is_ascii_graphic() || matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')
    });
    match bad {
        Some(bad) => wrong(text, format!("in a URL {bad:?} is percent-encoded")),
        None => Ok(()),
    }
}
