//! `[server]`.

use std::path::PathBuf;

use super::{Context, account, keys, logs, metrics, traces, trust};
use crate::{
    defaults,
    error::{Mistake, Problem, Span},
    listen::LONGEST_SOCKET_PATH,
    site::{Endpoint, Listen, Located, Server, TrustedProxies, UnknownNames, Upstream},
    walk::{Notes, Table, Value},
};

/// The table, and where `https` stands if it has anything.
pub(super) fn read(
    context: &Context,
    value: Option<Value<'_>>,
    upstreams: &mut Vec<Upstream>,
    notes: &Notes,
) -> (Server, Option<Span>) {
    let table = value.and_then(|value| value.table(&keys::SERVER, "a table `[server]`"));
    let get = |key| table.as_ref().and_then(|table: &Table<'_>| table.get(key));
    let mut taken = Vec::new();
    let http = get("http").map(|value| listeners(context, &value, &mut taken));
    let https = get("https").map(|value| (value.span, listeners(context, &value, &mut taken)));
    let metrics = get("metrics").and_then(|value| metrics::read(context, &value, &mut taken));
    let says_https = https
        .as_ref()
        .filter(|(_, list)| list.as_ref().is_none_or(|list| !list.is_empty()));
    let says_https = says_https.map(|(span, _)| *span);
    let flag = |key, default| {
        let said = get(key).and_then(|value: Value<'_>| value.boolean());
        said.unwrap_or(default)
    };
    let server = Server {
        http: match &http {
            None => vec![usual(context)],
            Some(list) => list.clone().unwrap_or_default(),
        },
        https: https.and_then(|(_, list)| list).unwrap_or_default(),
        trusted_proxies: get("trusted_proxies")
            .map_or_else(TrustedProxies::default, |value| trust::proxies(&value)),
        forwarded: get("forwarded")
            .and_then(|value| trust::forwarded(&value))
            .unwrap_or(defaults::FORWARDED),
        forwarded_host: flag("forwarded_host", defaults::FORWARDED_HOST),
        access_log: get("access_log")
            .map_or(logs::ACCESS_LOG, |value| logs::access(context, &value)),
        log: get("log").map_or_else(logs::error_log, |value| logs::error(context, &value)),
        redact: get("redact").map_or_else(logs::redact, |value| logs::names(&value)),
        server_header: flag("server_header", defaults::SERVER_HEADER),
        h2c: flag("h2c", defaults::H2C),
        unknown_names: get("unknown_names")
            .map_or(defaults::UNKNOWN_NAMES, |value| unknown_names(&value)),
        spool: get("spool")
            .and_then(|value| value.parsed("a path in quotes", |text| context.folder.parse(text))),
        metrics,
        traces: get("traces").and_then(|value| traces::read(context, &value, upstreams)),
        admin: get("admin").and_then(|value| admin(context, &value)),
        account: table.as_ref().and_then(account::read),
        landlock: flag("landlock", defaults::LANDLOCK),
        seccomp: flag("seccomp", defaults::SECCOMP),
    };
    if server.http.is_empty() && says_https.is_none() && http.is_some_and(|list| list.is_some()) {
        notes.missing(no_listener(context, get("http").map(|value| value.span)));
    }
    (server, says_https)
}

/// Where plain HTTP is spoken unless the file says otherwise.
fn usual(context: &Context) -> Endpoint {
    Endpoint {
        listen: Located {
            value: defaults::http(context.privileged),
            span: None,
        },
        proxy_protocol: false,
    }
}

fn no_listener(context: &Context, span: Option<Span>) -> Problem {
    let usual = defaults::http(context.privileged);
    Problem::new(span, "there is nothing to listen on")
        .hint(format!("write `http = [\"{usual}\"]`"))
}

/// `None` where nothing can be said about the list, because something in it is wrong.
fn listeners(
    context: &Context,
    value: &Value<'_>,
    taken: &mut Vec<Listen>,
) -> Option<Vec<Endpoint>> {
    let example = "a list of addresses such as `[\":8080\"]`";
    let elements = match value.is_integer() {
        true => return listen_integer(value, example),
        false => value.list(example)?,
    };
    endpoints(context, &elements, taken, true)
}

/// Several addresses; `tables` where each may say more.
pub(super) fn endpoints(
    context: &Context,
    elements: &[Value<'_>],
    taken: &mut Vec<Listen>,
    tables: bool,
) -> Option<Vec<Endpoint>> {
    let mut list = Vec::new();
    let count = elements.len();
    for &element in elements {
        let table =
            (tables && element.is_table()).then(|| element.table(&keys::LISTENER, "a table"));
        let place = match table.flatten() {
            None => Some(element),
            Some(table) => table.required("listen", "listen = \":8080\""),
        };
        let Some(place) = place else { continue };
        let proxy_protocol = table
            .flatten()
            .and_then(|table| table.get("proxy_protocol"))
            .and_then(|value| value.boolean());
        let listen = place.parsed("an address such as `\":8080\"`", |text| {
            let listen: Listen = text.parse()?;
            let listen = listen.resolved(|path| context.folder.resolve(path));
            check_socket_path(&listen)?;
            Ok(listen)
        });
        let Some(listen) = listen else { continue };
        check_taken(&place, &listen, taken);
        list.push(Endpoint {
            listen,
            proxy_protocol: proxy_protocol.unwrap_or(false),
        });
    }
    (list.len() == count).then_some(list)
}

/// Whoever opens it may reload and look into everything, so it is never a port.
fn admin(context: &Context, value: &Value<'_>) -> Option<Located<PathBuf>> {
    value.parsed("a Unix socket such as `\"unix:/run/stack/admin.sock\"`", |text| {
        let listen: Listen = text.parse()?;
        let listen = listen.resolved(|path| context.folder.resolve(path));
        check_socket_path(&listen)?;
        match listen {
            Listen::Unix(path) => Ok(path),
            _ => Err(Mistake::new("the admin socket is a Unix socket, not a port")
                .hint("write `\"unix:/run/stack/admin.sock\"`, or nothing for one in the run directory")),
        }
    })
}

fn listen_integer(value: &Value<'_>, example: &str) -> Option<Vec<Endpoint>> {
    let mistake = value.type_mistake(example);
    let port = value.whole_number(example)?;
    value.wrong(mistake.hint(format!("write `[\":{port}\"]`")));
    None
}

fn check_socket_path(listen: &Listen) -> Result<(), Mistake> {
    match listen {
        Listen::Unix(path) if path.as_os_str().len() > LONGEST_SOCKET_PATH => {
            let length = path.as_os_str().len();
            let mistake = Mistake::new(format!("the socket's path has {length} bytes"));
            Err(mistake.hint(format!(
                "a socket's path has at most {LONGEST_SOCKET_PATH} bytes"
            )))
        }
        _ => Ok(()),
    }
}

fn check_taken(element: &Value<'_>, listen: &Listen, taken: &mut Vec<Listen>) {
    match taken.iter().find(|other| other.overlaps(listen)) {
        Some(other) if other == listen => {
            element.wrong(
                Mistake::new(format!("`{listen}` is listened on twice"))
                    .hint("keep one of the two"),
            );
        }
        Some(other) => {
            let mistake = Mistake::new(format!(
                "`{listen}` and `{other}` cannot both be listened on"
            ));
            element.wrong(mistake.hint(
                "one of them takes the connections of the other: keep the one that you mean",
            ));
        }
        None => taken.push(listen.clone()),
    }
}

fn unknown_names(value: &Value<'_>) -> UnknownNames {
    let wanted = "`\"default\"` or `\"refuse\"`";
    let parsed = value.parsed(wanted, |text| match text {
        "default" => Ok(UnknownNames::Default),
        "refuse" => Ok(UnknownNames::Refuse),
        _ => {
            let mistake = Mistake::new(format!("expected {wanted}, found {text:?}"));
            Err(match keys::nearest(&["default", "refuse"], text) {
                Some(near) => mistake.hint(format!("did you mean `\"{near}\"`?")),
                None => mistake,
            })
        }
    });
    parsed.map_or(defaults::UNKNOWN_NAMES, |parsed| parsed.value)
}
