//! `[upstream.NAME]`, and what routes write in its place.

use super::{Context, keys};
use crate::{
    defaults,
    error::{Mistake, Problem},
    listen::LONGEST_SOCKET_PATH,
    site::{Action, Located, Member, Scheme, Upstream},
    walk::{Table, Value},
};

const EXAMPLE: &str = "a table such as `[upstream.api]`";
const ADDRESS: &str = "an address such as `\"http://127.0.0.1:3000\"`";
const MIXED: &str = "what a request may need of HTTP/2 (gRPC), or of HTTP/1.1 (WebSockets), must not depend on which member gets it: make two upstreams of them";

/// All that have a name, in order of it.
pub(super) fn read_all(context: &Context, value: Option<Value<'_>>) -> Vec<Upstream> {
    let named = value.and_then(|value| value.named(EXAMPLE));
    let read = |(name, value): (&str, Value<'_>)| {
        check_name(name, &value);
        read(context, name, &value)
    };
    let mut all: Vec<Upstream> = named
        .unwrap_or_default()
        .into_iter()
        .filter_map(read)
        .collect();
    all.sort_by(|one, two| one.name.cmp(&two.name));
    all
}

fn check_name(name: &str, value: &Value<'_>) {
    let fits = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
    if name.is_empty() || !name.chars().all(fits) {
        let message =
            format!("{name:?} is not a name for an upstream: it has a-z, 0-9, `_` and `-`");
        value
            .notes
            .wrong(Problem::new(value.key, message).hint("write `[upstream.api]`"));
    }
}

fn read(context: &Context, name: &str, value: &Value<'_>) -> Option<Upstream> {
    let table = value.table(&keys::UPSTREAM, EXAMPLE)?;
    let value = table.required("members", "members = [\"http://127.0.0.1:3000\"]");
    let members = value.map_or_else(Vec::new, |value| members(context, &value));
    let mut upstream = with_figures(name, members, &table);
    if let Some(value) = table.get("ca") {
        if upstream.encrypted().is_none() {
            let mistake = Mistake::new("`ca` says nothing where no member speaks TLS");
            value.wrong(mistake.hint("write `https://` before the addresses, or remove `ca`"));
        }
        upstream.authorities = value.parsed("a path in quotes", |text| context.folder.parse(text));
    }
    Some(upstream)
}

fn with_figures(name: &str, members: Vec<Located<Member>>, table: &Table<'_>) -> Upstream {
    Upstream {
        name: name.to_owned(),
        members,
        authorities: None,
        connect_timeout: table.duration(&defaults::CONNECT_TIMEOUT),
        timeout: table.duration(&defaults::UPSTREAM_TIMEOUT),
        read_timeout: table.duration(&defaults::READ_TIMEOUT),
        connections: table.count(&defaults::UPSTREAM_CONNECTIONS),
        idle_connections: table.count(&defaults::IDLE_CONNECTIONS),
        idle_timeout: table.duration(&defaults::IDLE_TIMEOUT),
        retry_after: table.duration(&defaults::RETRY_AFTER),
    }
}

/// One that a route writes as addresses alone.
fn with_defaults(name: String, members: Vec<Located<Member>>) -> Upstream {
    Upstream {
        name,
        members,
        authorities: None,
        connect_timeout: defaults::CONNECT_TIMEOUT.default,
        timeout: defaults::UPSTREAM_TIMEOUT.default,
        read_timeout: defaults::READ_TIMEOUT.default,
        connections: defaults::UPSTREAM_CONNECTIONS.default,
        idle_connections: defaults::IDLE_CONNECTIONS.default,
        idle_timeout: defaults::IDLE_TIMEOUT.default,
        retry_after: defaults::RETRY_AFTER.default,
    }
}

fn members(context: &Context, value: &Value<'_>) -> Vec<Located<Member>> {
    let elements = value.list("a list of addresses such as `[\"http://127.0.0.1:3000\"]`");
    if elements.as_ref().is_some_and(Vec::is_empty) {
        value.wrong(Mistake::new("the upstream has no member").hint(format!("write {ADDRESS}")));
    }
    let mut members: Vec<Located<Member>> = Vec::new();
    for element in elements.unwrap_or_default() {
        let Some(member) = element.parsed(ADDRESS, |text| parse(context, text)) else {
            continue;
        };
        if members.iter().any(|known| known.value == member.value) {
            let mistake = Mistake::new(format!("`{}` is a member already", member.value));
            element.wrong(mistake.hint("keep one of the two"));
        }
        let is_http2 = |member: &Located<Member>| member.value.is_http2();
        if members
            .first()
            .is_some_and(|first| is_http2(first) != is_http2(&member))
        {
            let mistake = Mistake::new("the members speak different versions of HTTP");
            element.wrong(mistake.hint(MIXED));
        }
        members.push(member);
    }
    members
}

/// `upstream = …` of a route: a name, an address, or a list of addresses.
pub(super) fn of_route(
    context: &Context,
    value: &Value<'_>,
    upstreams: &mut Vec<Upstream>,
) -> Option<Action> {
    let name = match value.as_str() {
        Some(text) if is_address(text) => {
            let member = value.parsed(ADDRESS, |text| parse(context, text))?;
            unnamed(vec![member], upstreams)
        }
        Some(text) => named(value, text, upstreams),
        None => unnamed(members(context, value), upstreams),
    };
    Some(Action::Upstream { upstream: name })
}

/// The upstream of one address, such as that of a server that `auth` asks; its name.
pub(super) fn of_address(
    context: &Context,
    value: &Value<'_>,
    address: &str,
    upstreams: &mut Vec<Upstream>,
) -> Option<String> {
    match parse(context, address) {
        Ok(member) => Some(unnamed(vec![value.located(member)], upstreams)),
        Err(mistake) => {
            value.wrong(mistake);
            None
        }
    }
}

fn is_address(text: &str) -> bool {
    text.contains([':', '/', '.'])
}

/// Routes that write the same addresses share their connections.
fn unnamed(members: Vec<Located<Member>>, upstreams: &mut Vec<Upstream>) -> String {
    let addresses: Vec<String> = members
        .iter()
        .map(|member| member.value.to_string())
        .collect();
    let name = addresses.join(", ");
    if !upstreams.iter().any(|upstream| upstream.name == name) {
        upstreams.push(with_defaults(name.clone(), members));
    }
    name
}

/// A name of the file; says so where there is no such upstream.
pub(super) fn named(value: &Value<'_>, name: &str, upstreams: &[Upstream]) -> String {
    let is_named = |upstream: &&Upstream| !is_address(&upstream.name);
    let names: Vec<&str> = upstreams
        .iter()
        .filter(is_named)
        .map(|upstream| upstream.name.as_str())
        .collect();
    if !names.contains(&name) {
        let mistake = Mistake::new(format!("there is no upstream {name:?}"));
        let mistake = match (keys::nearest(&names, name), names.as_slice()) {
            (Some(near), _) => mistake.hint(format!("did you mean `\"{near}\"`?")),
            (None, []) => mistake.hint(format!("write {ADDRESS}")),
            (None, names) => mistake.hint(format!("the upstreams are {}", keys::list(names))),
        };
        value.notes.missing(mistake.at(value.span));
    }
    name.to_owned()
}

fn parse(context: &Context, text: &str) -> Result<Member, Mistake> {
    let wrong = |hint: String| {
        Err(Mistake::new(format!("{text:?} is not the address of an upstream")).hint(hint))
    };
    if let Some(path) = text.strip_prefix("unix:") {
        let path = context.folder.parse(path)?;
        return match path.as_os_str().len() {
            ..=LONGEST_SOCKET_PATH => Ok(Member::Unix(path)),
            _ => wrong(format!(
                "a socket's path has at most {LONGEST_SOCKET_PATH} bytes"
            )),
        };
    }
    let schemes = [Scheme::Http, Scheme::H2c, Scheme::Https, Scheme::H2];
    let known = schemes.into_iter().find_map(|scheme| {
        let authority = text.strip_prefix(scheme.as_str())?.strip_prefix("://")?;
        Some((scheme, authority))
    });
    let Some((scheme, authority)) = known else {
        return wrong(match text.split_once("://") {
            Some(("grpc" | "http2", rest)) => format!("write `\"h2c://{rest}\"`"),
            Some(("grpcs", rest)) => format!("write `\"h2://{rest}\"`"),
            Some((_, rest)) => format!("write `\"http://{rest}\"`"),
            None if text.starts_with('/') => format!("did you mean `\"unix:{text}\"`?"),
            None => format!("did you mean `\"http://{text}\"`?"),
        });
    };
    if let Some((authority, path)) = authority.split_once('/') {
        return wrong(match path {
            "" => format!(
                "did you mean `\"{}://{authority}\"`? The path is the request's own",
                scheme.as_str()
            ),
            _ => {
                "the path is the request's own; `strip = true` takes the route's from it".to_owned()
            }
        });
    }
    if authority.contains('@') {
        return wrong("an address has no name and password".to_owned());
    }
    let default = if scheme.is_encrypted() { 443 } else { 80 };
    host_and_port(authority, default).map_or_else(
        || wrong(format!("write {ADDRESS}")),
        |(host, port)| Ok(Member::Tcp { scheme, host, port }),
    )
}

fn host_and_port(authority: &str, default: u16) -> Option<(String, u16)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        return Some((address.to_owned(), port_of(port, default)?));
    }
    let (host, port) = match authority.find(':') {
        Some(colon) => authority.split_at(colon),
        None => (authority, ""),
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let good = !host.is_empty() && host.bytes().all(named);
    good.then_some((host.to_owned(), port_of(port, default)?))
}

fn port_of(text: &str, default: u16) -> Option<u16> {
    match text.strip_prefix(':') {
        None if text.is_empty() => Some(default),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0)
        }
        _ => None,
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { scheme, host, port } => {
                let scheme = scheme.as_str();
                match host.contains(':') {
                    true => write!(f, "{scheme}://[{host}]:{port}"),
                    false => write!(f, "{scheme}://{host}:{port}"),
                }
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
