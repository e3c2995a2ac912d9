//! `[[site]]`.

use super::{Context, Names, access, headers, keys, limits, route, service, tls};
use crate::{
    error::{Mistake, Problem},
    site::{Access, ErrorPage, Headers, HostPattern, Limits, Route, Statuses, VirtualHost},
    walk::{Table, Value},
};

/// `taken` are the hosts of the sites before this one.
pub(super) fn read(
    context: &Context,
    value: &Value<'_>,
    names: &mut Names<'_>,
    limits: &Limits,
    https: bool,
    taken: &mut Vec<HostPattern>,
) -> Option<VirtualHost> {
    let table = value.table(&keys::SITE, "a table `[[site]]`")?;
    let part = limits::read_part(&table, limits, true);
    let outer = route::Outer {
        limits: part.as_deref().unwrap_or(limits),
        part: part.as_deref(),
        headers: headers::read(&table, &Headers::default()),
        security_headers: headers::security(&table, false),
        access: access::read(context, &table, names.upstreams, &Access::default()),
    };
    let routes = routes(context, &table, names, &outer);
    Some(VirtualHost {
        names: hosts(&table, value, taken),
        tls: tls::read(context, &table, https),
        clients: tls::clients(context, &table, https),
        hsts: tls::hsts(&table, https),
        errors: errors(context, &table),
        maintenance: service::maintenance(context, &table),
        health: service::health(&table, &routes),
        routes,
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

fn routes(
    context: &Context,
    table: &Table<'_>,
    names: &mut Names<'_>,
    outer: &route::Outer<'_>,
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
