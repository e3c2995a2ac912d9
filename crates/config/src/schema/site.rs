//! `[[site]]`.

use super::{Context, Names, access, headers, keys, route};
use crate::{
    defaults,
    error::{Mistake, Problem},
    site::{Access, ErrorPage, Headers, HostPattern, Located, Route, Statuses, Tls, VirtualHost},
    walk::{Table, Value},
};

/// `taken` are the hosts of the sites before this one.
pub(super) fn read(
    context: &Context,
    value: &Value<'_>,
    names: &mut Names<'_>,
    https: bool,
    taken: &mut Vec<HostPattern>,
) -> Option<VirtualHost> {
    let table = value.table(&keys::SITE, "a table `[[site]]`")?;
    let outer = route::Outer {
        headers: headers::read(&table, &Headers::default()),
        security_headers: headers::security(&table, false),
        access: access::read(context, &table, &Access::default()),
    };
    Some(VirtualHost {
        names: hosts(&table, value, taken),
        tls: tls(context, &table, https),
        errors: errors(context, &table),
        routes: routes(context, &table, names, &outer),
        headers: outer.headers,
        security_headers: outer.security_headers,
        access: outer.access,
    })
}

fn errors(context: &Context, table: &Table<'_>) -> Vec<ErrorPage> {
    let wanted = "a table such as `{ 404 = \"404.html\", 5xx = \"sorry.html\" }`";
    let entries = table.get("errors").and_then(|value| value.named(wanted));
    let mut pages = Vec::new();
    for (key, value) in entries.unwrap_or_default() {
        let page = value.parsed("a path in quotes", |text| context.folder.parse(text));
        match (statuses(key), page) {
            (Some(statuses), Some(page)) => pages.push(ErrorPage { statuses, page }),
            (Some(_), None) => {}
            (None, _) => {
                let problem = Problem::new(value.key, format!("{key:?} is no status of an error"));
                let hint = "write 400 to 599, or `4xx` or `5xx`";
                value.notes.wrong(problem.hint(hint));
            }
        }
    }
    pages
}

fn statuses(key: &str) -> Option<Statuses> {
    match key {
        "4xx" => Some(Statuses::Hundred(4)),
        "5xx" => Some(Statuses::Hundred(5)),
        _ => key
            .parse()
            .ok()
            .filter(|status| (400..=599).contains(status))
            .map(Statuses::One),
    }
}

fn hosts(table: &Table<'_>, site: &Value<'_>, taken: &mut Vec<HostPattern>) -> Vec<HostPattern> {
    let Some(value) = table.get("hosts") else {
        // Who has one site need not say for whom it is.
        if taken.contains(&HostPattern::Any) {
            let mistake =
                Mistake::new("this site has no `hosts`, so it is for every host, as one before it");
            site.wrong(mistake.hint("add `hosts = [\"example.org\"]`"));
        }
        taken.push(HostPattern::Any);
        return vec![HostPattern::Any];
    };
    let elements = value.list("a list of hosts such as `[\"example.org\"]`");
    if elements.as_ref().is_some_and(Vec::is_empty) {
        value.wrong(Mistake::new("no host is named").hint("write `[\"*\"]` for every host"));
    }
    let mut names = Vec::new();
    for element in elements.unwrap_or_default() {
        let Some(name) = element.parsed(
            "a host such as `\"example.org\"`",
            str::parse::<HostPattern>,
        ) else {
            continue;
        };
        if taken.contains(&name) {
            element.wrong(
                Mistake::new(format!("`{}` is the host of a site already", name.value))
                    .hint("keep one of the two"),
            );
        }
        taken.push(name.value.clone());
        names.push(name.value);
    }
    names
}

fn tls(context: &Context, table: &Table<'_>, https: bool) -> Located<Tls> {
    let default = if https { Tls::SelfSigned } else { Tls::Off };
    let default = Located {
        value: default,
        span: None,
    };
    let Some(value) = table.get("tls") else {
        return default;
    };
    if let Some(on) = value.as_bool() {
        let meant = if on { "self-signed" } else { "off" };
        value.wrong(
            value
                .type_mistake(WANTED)
                .hint(format!("did you mean `\"{meant}\"`?")),
        );
        return default;
    }
    let tls = if value.is_table() {
        files(context, &value)
    } else {
        word(&value)
    };
    let Some(tls) = tls else {
        return default;
    };
    if tls != Tls::Off && !https {
        let listen = defaults::https(context.privileged);
        let mistake = Mistake::new("this site has `tls`, but `[server]` has no `https`");
        value.notes.missing(
            mistake
                .hint(format!("add `https = [\"{listen}\"]` to `[server]`"))
                .at(value.span),
        );
    }
    value.located(tls)
}

const WANTED: &str = "`\"self-signed\"`, `\"off\"` or a table such as `{ cert = \"fullchain.pem\", key = \"privkey.pem\" }`";

fn word(value: &Value<'_>) -> Option<Tls> {
    let tls = value.parsed(WANTED, |text| match text {
        "self-signed" => Ok(Tls::SelfSigned),
        "off" => Ok(Tls::Off),
        "acme" => Err(
            Mistake::new("`\"acme\"` is not available in this version").hint(
                "write `{ cert = \"fullchain.pem\", key = \"privkey.pem\" }`, or `\"self-signed\"`",
            ),
        ),
        _ => Err(not_tls(text)),
    });
    tls.map(|tls| tls.value)
}

fn not_tls(text: &str) -> Mistake {
    let mistake = Mistake::new(format!("expected {WANTED}, found {text:?}"));
    let lower = text.to_lowercase();
    let near = match lower.as_str() {
        "none" | "no" | "false" => Some("off"),
        "snakeoil" | "adhoc" | "on" | "true" => Some("self-signed"),
        _ => keys::nearest(&["self-signed", "off"], &lower),
    };
    match near {
        Some(near) => mistake.hint(format!("did you mean `\"{near}\"`?")),
        None => mistake,
    }
}

fn files(context: &Context, value: &Value<'_>) -> Option<Tls> {
    let table = value.table(&keys::TLS, WANTED)?;
    let path = |key: &str, example: &str| {
        let value = table.required(key, example)?;
        value.parsed("a path in quotes", |text| context.folder.parse(text))
    };
    let cert = path("cert", "cert = \"fullchain.pem\"");
    let key = path("key", "key = \"privkey.pem\"");
    Some(Tls::Files {
        cert: cert?,
        key: key?,
    })
}

fn routes(
    context: &Context,
    table: &Table<'_>,
    names: &mut Names<'_>,
    outer: &route::Outer,
) -> Vec<Route> {
    let example = "routes = [{ path = \"/\", app = \"web\" }]";
    let Some(value) = table.required("routes", example) else {
        return Vec::new();
    };
    let elements = value.list("a list of routes such as `[{ path = \"/\", app = \"web\" }]`");
    if elements.as_ref().is_some_and(Vec::is_empty) {
        value.wrong(
            Mistake::new("this site has no route, so it would serve nothing")
                .hint(format!("write `{example}`")),
        );
    }
    let mut routes: Vec<Route> = Vec::new();
    for element in elements.unwrap_or_default() {
        routes.extend(route::read(context, &element, names, outer, &routes));
    }
    routes
}
