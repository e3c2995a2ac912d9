//! One entry of `routes`.

use super::{Context, Names, access, files, headers, keys, limits, location, upstream};
use crate::{
    defaults,
    error::{Mistake, Problem},
    site::{Access, Action, Headers, Limits, LocationPart, Queue, Route, RoutePath},
    walk::{Table, Value},
};

/// What the site says, for routes that do not say otherwise.
pub(super) struct Outer<'l> {
    /// In force outside.
    pub(super) limits: &'l Limits,
    /// The same, if they are the site's own.
    pub(super) part: Option<&'l Limits>,
    pub(super) headers: Headers,
    pub(super) security_headers: bool,
    pub(super) access: Access,
}

/// `before` are its routes that were read before.
pub(super) fn read(
    context: &Context,
    value: &Value<'_>,
    names: &mut Names<'_>,
    outer: &Outer<'_>,
    before: &[Route],
) -> Option<Route> {
    let table = value.table(
        &keys::ROUTE,
        "a table such as `{ path = \"/\", app = \"web\" }`",
    )?;
    let path = path(&table, before);
    let action = action(context, &table, names, path.as_ref());
    let compress = table.get("compress").and_then(|value| value.boolean());
    let request_buffering = table.get("request_buffering");
    let request_buffering = request_buffering.and_then(|value| value.boolean());
    let request_buffering = request_buffering.unwrap_or(defaults::REQUEST_BUFFERING);
    let (strip, headers) = (
        strip(&table, path.as_ref()),
        headers::read(&table, &outer.headers),
    );
    Some(Route {
        path: path?,
        strip,
        headers,
        compress: compress.unwrap_or(defaults::COMPRESS),
        request_buffering,
        limits: limits::read_part(&table, outer.limits, request_buffering)
            .or_else(|| outer.part.cloned().map(Box::new)),
        security_headers: headers::security(&table, outer.security_headers),
        access: access::read(context, &table, names.upstreams, &outer.access),
        action: action?,
    })
}

fn path(table: &Table<'_>, before: &[Route]) -> Option<RoutePath> {
    let value = table.required("path", "path = \"/\"")?;
    let path = value
        .parsed("a path such as `\"/static/\"`", parse_path)?
        .value;
    if before.iter().any(|route| route.path == path) {
        let text = path.as_str();
        value.wrong(
            Mistake::new(format!("`{text}` has a route in this site already"))
                .hint("keep one of the two"),
        );
    }
    Some(path)
}

pub(super) fn parse_path(text: &str) -> Result<RoutePath, Mistake> {
    let wrong = |hint: String| Err(Mistake::new(format!("{text:?} is not a path")).hint(hint));
    if !text.starts_with('/') {
        let rest = text
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('/'))
            .map_or(text, |(_, path)| path);
        return wrong(format!(
            "a path starts with `/`: did you mean `\"/{}\"`?",
            rest.trim_start_matches('*')
        ));
    }
    if let Some(subtree) = text.strip_suffix('*') {
        return wrong(format!(
            "a path that ends in `/` is everything below it: did you mean `\"{subtree}\"`?"
        ));
    }
    if text.contains(['?', '#']) {
        return wrong("a route goes by the path alone, without `?` and `#`".to_owned());
    }
    if text.contains(char::is_control) {
        return wrong("a path has no control characters".to_owned());
    }
    if has_escape(text) {
        return wrong("it is compared with the decoded path: write the characters themselves in place of `%…`".to_owned());
    }
    // Requests are compared after these have been resolved (RFC 3986 §6.2.2.3), so such a route would never match.
    if text.contains("//") || text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return wrong("a path has no `//`, `/./` or `/../`".to_owned());
    }
    Ok(match text.ends_with('/') {
        true => RoutePath::Subtree(text.to_owned()),
        false => RoutePath::Exact(text.to_owned()),
    })
}

fn has_escape(text: &str) -> bool {
    text.as_bytes()
        .windows(3)
        .any(|three| three[0] == b'%' && three[1..].iter().all(u8::is_ascii_hexdigit))
}

/// What goes with an app or an upstream, also behind files.
const APP_OPTIONS: &[&str] = &["compress", "strip", "queue", "request_buffering", "limits"];
const UPSTREAM_OPTIONS: &[&str] = &["compress", "strip", "request_buffering", "limits"];

/// The keys that say what answers, and what goes with each. Files may stand before an app or an upstream, and then come first.
const ACTIONS: [(&str, &[&str]); 5] = [
    ("files", files::OPTIONS),
    ("app", APP_OPTIONS),
    ("upstream", UPSTREAM_OPTIONS),
    ("redirect", &["status"]),
    ("respond", &["status", "type"]),
];

fn action(
    context: &Context,
    table: &Table<'_>,
    names: &mut Names<'_>,
    path: Option<&RoutePath>,
) -> Option<Action> {
    let (name, value) = the_action(table)?;
    match name {
        "app" => app(table, &value, names.apps),
        "upstream" => upstream::of_route(context, &value, names.upstreams),
        "files" => {
            let files = files::read(context, table, &value, path);
            let otherwise = behind_files(table).map(|(name, value)| match name {
                "app" => app(table, &value, names.apps),
                _ => upstream::of_route(context, &value, names.upstreams),
            });
            Some(Action::Files {
                files: Box::new(files?),
                otherwise: match otherwise {
                    None => None,
                    Some(other) => Some(Box::new(other?)),
                },
            })
        }
        "redirect" => redirect(table, &value, path),
        _ => respond(table, &value),
    }
}

/// Exactly one, and nothing beside it that it does not use.
fn the_action<'a>(table: &Table<'a>) -> Option<(&'static str, Value<'a>)> {
    let mut found = ACTIONS
        .iter()
        .filter_map(|(name, options)| Some((*name, *options, table.get(name)?)));
    let Some((name, options, value)) = found.next() else {
        let problem = Problem::new(table.span, "the route does not say what answers");
        table.notes.missing(
            problem.hint("add one of `app`, `files`, `upstream`, `redirect` and `respond`"),
        );
        return None;
    };
    let mut alone = true;
    let beside = behind_files(table).filter(|_| name == "files");
    let follows = |other: &str| beside.as_ref().is_some_and(|(known, _)| *known == other);
    for (other, _, second) in found.filter(|(other, ..)| !follows(other)) {
        alone = false;
        table.notes.wrong(Problem::new(
            second.key,
            format!("a route has one of `{name}` and `{other}`, not both"),
        ));
    }
    let has = |option: &str| {
        let of = |name| {
            ACTIONS
                .iter()
                .any(|(known, used)| *known == name && used.contains(&option))
        };
        options.contains(&option) || beside.as_ref().is_some_and(|(name, _)| of(*name))
    };
    let others = [
        "strip",
        "queue",
        "request_buffering",
        "limits",
        "status",
        "type",
    ];
    for option in files::OPTIONS.iter().copied().chain(others) {
        if let Some(value) = table.get(option).filter(|_| alone && !has(option)) {
            let users: Vec<&str> = ACTIONS
                .iter()
                .filter(|(_, used)| used.contains(&option))
                .map(|(user, _)| *user)
                .collect();
            let problem =
                Problem::new(value.key, format!("`{option}` has no meaning for `{name}`"));
            table
                .notes
                .wrong(problem.hint(format!("it goes with {}", keys::list(&users))));
        }
    }
    Some((name, value))
}

/// What answers where there is no file.
fn behind_files<'a>(table: &Table<'a>) -> Option<(&'static str, Value<'a>)> {
    ["app", "upstream"]
        .into_iter()
        .find_map(|name| Some((name, table.get(name)?)))
}

/// `strip = true`, where there is something to strip.
fn strip(table: &Table<'_>, path: Option<&RoutePath>) -> bool {
    let Some(value) = table.get("strip") else {
        return false;
    };
    if value.boolean() != Some(true) {
        return false;
    }
    match path {
        Some(RoutePath::Exact(exact)) => {
            let problem = Problem::new(value.key, "`strip` needs a path that ends in `/`");
            let hint = format!("did you mean `path = \"{exact}/\"`?");
            table.notes.wrong(problem.hint(hint));
        }
        Some(RoutePath::Subtree(root)) if root == "/" => {
            let problem = Problem::new(value.key, "there is nothing to strip from `/`");
            table.notes.wrong(problem.hint("remove `strip`"));
        }
        _ => return true,
    }
    false
}

fn app(table: &Table<'_>, value: &Value<'_>, apps: Option<&[&str]>) -> Option<Action> {
    let queue = table.get("queue").and_then(|value| queue(&value));
    let name = value.text("the name of an app")?;
    if let Some(apps) = apps.filter(|apps| !apps.contains(&name)) {
        let mistake = Mistake::new(format!("there is no app {name:?}"));
        let mistake = match (keys::nearest(apps, name), apps) {
            (Some(near), _) => mistake.hint(format!("did you mean `\"{near}\"`?")),
            (None, []) => mistake.hint(format!(
                "add `[app.{name}]` and below it `wsgi = \"app:app\"`"
            )),
            (None, apps) => mistake.hint(format!("the apps are {}", keys::list(apps))),
        };
        value.notes.missing(mistake.at(value.span));
    }
    Some(Action::App {
        app: name.to_owned(),
        queue: queue.unwrap_or(defaults::QUEUE),
    })
}

fn queue(value: &Value<'_>) -> Option<Queue> {
    let wanted = "`\"first\"` or `\"last\"`";
    let parsed = value.parsed(wanted, |text| match text {
        "first" => Ok(Queue::First),
        "last" => Ok(Queue::Last),
        _ => Err(
            Mistake::new(format!("expected {wanted}, found {text:?}")).hint(
                "`\"first\"` is for health checks, which are answered while everybody else waits",
            ),
        ),
    });
    parsed.map(|queue| queue.value)
}

fn redirect(table: &Table<'_>, value: &Value<'_>, path: Option<&RoutePath>) -> Option<Action> {
    let to = value.parsed("a path such as `\"/new\"`, or a URL", location::parse);
    let status = status(
        table,
        defaults::REDIRECT_STATUS,
        "301, 302, 303, 307 or 308",
        |status| matches!(status, 301 | 302 | 303 | 307 | 308),
    );
    let to = to?.value;
    let itself = match to.0.as_slice() {
        [LocationPart::Text(to)] => path.is_some_and(|path| path.as_str() == to),
        [LocationPart::Path] | [LocationPart::Path, LocationPart::Query] => true,
        _ => false,
    };
    if itself {
        value.wrong(Mistake::new("the route redirects to itself"));
    }
    Some(Action::Redirect {
        to,
        status: status?,
    })
}

fn status(
    table: &Table<'_>,
    default: u16,
    wanted: &str,
    fits: impl Fn(u16) -> bool,
) -> Option<u16> {
    let Some(value) = table.get("status") else {
        return Some(default);
    };
    let number = value.whole_number(&format!("a status such as `{default}`"))?;
    let status = u16::try_from(number).ok().filter(|status| fits(*status));
    if status.is_none() {
        value.wrong(
            Mistake::new(format!("{number} is not a status for this route"))
                .hint(format!("write {wanted}")),
        );
    }
    status
}

fn respond(table: &Table<'_>, value: &Value<'_>) -> Option<Action> {
    if value.is_integer() {
        value.wrong(
            value
                .type_mistake("text in quotes")
                .hint("the status has a key of its own, `status`"),
        );
        return None;
    }
    let body = value.text("text in quotes");
    let status = status(table, defaults::RESPOND_STATUS, "200 to 599", |status| {
        (200..=599).contains(&status)
    });
    let content_type = match table.get("type") {
        Some(value) => value
            .parsed("a type such as `\"text/html\"`", parse_type)
            .map(|parsed| parsed.value),
        None => Some(defaults::RESPOND_TYPE.to_owned()),
    };
    let (body, status) = (body?, status?);
    // RFC 9110 §15.3.5, §15.3.6, §15.4.5: such a response has no content.
    if matches!(status, 204 | 205 | 304) && !body.is_empty() {
        value.wrong(
            Mistake::new(format!("a response with status {status} has no content"))
                .hint("write `respond = \"\"`"),
        );
    }
    Some(Action::Respond {
        status,
        body: body.to_owned(),
        content_type: content_type?,
    })
}

/// RFC 9110 §8.3.1, as far as a mistake would break the field.
pub(super) fn parse_type(text: &str) -> Result<String, Mistake> {
    let wrong = || {
        Err(Mistake::new(format!("{text:?} is not a media type"))
            .hint("write one such as `\"text/html; charset=utf-8\"`"))
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let Some((kind, subtype)) = essence.split_once('/') else {
        return wrong();
    };
    if !token(kind) || !token(subtype) || !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return wrong();
    }
    Ok(text.to_owned())
}
