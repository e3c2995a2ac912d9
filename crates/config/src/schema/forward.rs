//! `auth = { forward = … }`: a server that is asked for each request.

use super::{Context, upstream};
use crate::{
    defaults,
    error::{Mistake, Problem},
    site::{Forward, Member, Upstream},
    walk::{Table, Value},
};

const EXAMPLE: &str = "an address such as `\"http://127.0.0.1:9091/verify\"`";

/// `asked` is the value of `forward`: an address with a path, or a path alone beside `upstream`.
pub(super) fn read(
    context: &Context,
    table: &Table<'_>,
    asked: &Value<'_>,
    upstreams: &mut Vec<Upstream>,
) -> Option<Box<Forward>> {
    for key in ["basic", "realm"] {
        if let Some(other) = table.get(key) {
            let problem = Problem::new(other.key, format!("`{key}` does not go with `forward`"));
            let hint = "it is either a file of users or a server that is asked";
            table.notes.wrong(problem.hint(hint));
        }
    }
    let text = asked.text(EXAMPLE)?;
    let found = match table.get("upstream") {
        Some(named) => of_upstream(asked, text, &named, upstreams),
        None => of_address(context, asked, text, &HINTS, upstreams),
    };
    let copy = table
        .get("copy")
        .map_or_else(Vec::new, |value| fields(&value));
    let user = match table.get("user") {
        Some(value) => {
            value
                .parsed("the name of a header in quotes", parse_field)?
                .value
        }
        None => defaults::AUTH_USER.to_owned(),
    };
    let timeout = table.duration(&defaults::AUTH_TIMEOUT);
    let (upstream, host, target) = found?;
    Some(Box::new(Forward {
        upstream,
        host,
        target,
        timeout,
        copy,
        user,
    }))
}

/// Without `forward` its options say nothing.
pub(super) fn check_alone(table: &Table<'_>) {
    for key in ["upstream", "timeout", "copy", "user"] {
        if let Some(value) = table.get(key) {
            let problem = Problem::new(value.key, format!("`{key}` goes with `forward`"));
            let hint = "add `forward = \"http://127.0.0.1:9091/verify\"`";
            table.notes.wrong(problem.hint(hint));
        }
    }
}

/// The upstream's name, `Host`, and the target.
pub(super) type Found = (String, String, String);

fn of_upstream(
    asked: &Value<'_>,
    path: &str,
    named: &Value<'_>,
    upstreams: &[Upstream],
) -> Option<Found> {
    let target = match parse_target(path) {
        Ok(target) => Some(target),
        Err(mistake) => {
            asked.wrong(mistake.hint("beside `upstream` write the path alone: `\"/verify\"`"));
            None
        }
    };
    let name = upstream::named(named, named.text("the name of an upstream")?, upstreams);
    let known = upstreams.iter().find(|upstream| upstream.name == name);
    if known.is_some_and(Upstream::is_http2) {
        let mistake = Mistake::new(format!("the members of {name:?} speak HTTP/2"));
        named.wrong(mistake.hint("`forward` asks over HTTP/1.1: write `http://` or `https://`"));
    }
    let first = known.and_then(|upstream| upstream.members.first());
    let host = first.map_or_else(String::new, |member| host(&member.value));
    Some((name, host, target?))
}

/// What is said of an address that is none: of a path alone, and of anything else.
pub(super) struct Hints {
    pub(super) path: &'static str,
    pub(super) other: &'static str,
}

const HINTS: Hints = Hints {
    path: "write the whole address, `\"http://127.0.0.1:9091/verify\"`, or name an `upstream` beside it",
    other: "write one such as `\"http://127.0.0.1:9091/verify\"`; what listens on a socket is an `[upstream.NAME]`",
};

/// An address of a server, with a path: its upstream, `Host`, and the target.
pub(super) fn of_address(
    context: &Context,
    asked: &Value<'_>,
    text: &str,
    hints: &Hints,
    upstreams: &mut Vec<Upstream>,
) -> Option<Found> {
    let wrong = |hint: &str| {
        let mistake = Mistake::new(format!("{text:?} is not the address of a server to ask"));
        asked.wrong(mistake.hint(hint));
        None
    };
    let Some(rest) = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
    else {
        return wrong(match text.starts_with('/') {
            true => hints.path,
            false => hints.other,
        });
    };
    let (authority, target) = match rest.find(['/', '?']) {
        Some(end) => rest.split_at(end),
        None => (rest, "/"),
    };
    let target = match target.starts_with('?') {
        true => format!("/{target}"),
        false => target.to_owned(),
    };
    let target = match parse_target(&target) {
        Ok(target) => Some(target),
        Err(mistake) => {
            asked.wrong(mistake);
            None
        }
    };
    let address = &text[..text.len() - rest.len() + authority.len()];
    let name = upstream::of_address(context, asked, address, upstreams)?;
    Some((name, authority.to_owned(), target?))
}

/// What may stand in a request line (RFC 9112 §3.2.1).
fn parse_target(text: &str) -> Result<String, Mistake> {
    let fine = text.starts_with('/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    match fine {
        true => Ok(text.to_owned()),
        false => Err(Mistake::new(format!("{text:?} is not a path"))),
    }
}

fn host(member: &Member) -> String {
    match member {
        Member::Unix(_) => "localhost".to_owned(),
        Member::Tcp { .. } => {
            let address = member.to_string();
            let authority = address.split_once("://").map(|(_, authority)| authority);
            authority.unwrap_or_default().to_owned()
        }
    }
}

fn fields(value: &Value<'_>) -> Vec<String> {
    let wanted = "a list of headers such as `[\"Remote-User\", \"Remote-Groups\"]`";
    let elements = value.list(wanted).unwrap_or_default();
    let field = |element: &Value<'_>| {
        let field = element.parsed("the name of a header in quotes", parse_field)?;
        Some(field.value)
    };
    elements.iter().filter_map(field).collect()
}

/// One that an app can tell from every other, and that is nobody else's to say.
fn parse_field(text: &str) -> Result<String, Mistake> {
    let name = text.to_ascii_lowercase();
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.is_empty() || !name.bytes().all(fine) {
        return Err(
            Mistake::new(format!("{text:?} is not the name of a header"))
                .hint("write letters, digits and hyphens; an app could not tell others apart"),
        );
    }
    let ours = OURS.contains(&name.as_str()) || name.starts_with("x-forwarded-");
    match ours {
        true => Err(
            Mistake::new(format!("`{text}` is not for that server to say"))
                .hint("it is the connection's, the client's or stack's own"),
        ),
        false => Ok(name),
    }
}

/// What makes a message a message, or is written by us.
const OURS: [&str; 18] = [
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-connection",
    "server",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
    "x-request-id",
];
