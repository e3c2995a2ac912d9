//! `maintenance` and `health` of a site.

use super::{Context, access, keys, route};
use crate::{
    defaults,
    error::{Mistake, Problem},
    site::{Maintenance, Route, RoutePath},
    walk::Table,
};

/// `true`, or a table.
pub(super) fn maintenance(context: &Context, site: &Table<'_>) -> Maintenance {
    let closed = Maintenance {
        on: false,
        page: None,
        allow: Vec::new(),
        retry_after: defaults::MAINTENANCE_RETRY_AFTER.default,
    };
    let Some(value) = site.get("maintenance") else {
        return closed;
    };
    if let Some(on) = value.as_bool() {
        return Maintenance { on, ..closed };
    }
    let wanted = "`true`, or a table such as `{ on = true, allow = [\"10.0.0.0/8\"] }`";
    let Some(table) = value.table(&keys::MAINTENANCE, wanted) else {
        return closed;
    };
    let on = table.get("on").and_then(|value| value.boolean());
    let page = table
        .get("page")
        .and_then(|value| value.parsed("a path in quotes", |text| context.folder.parse(text)));
    Maintenance {
        on: on.unwrap_or(false),
        page,
        allow: table
            .get("allow")
            .map_or_else(Vec::new, |value| access::networks(&value)),
        retry_after: table.duration(&defaults::MAINTENANCE_RETRY_AFTER),
    }
}

/// The path at which a site says that it is well; no route of it has the same.
pub(super) fn health(site: &Table<'_>, routes: &[Route]) -> Option<String> {
    let value = site.get("health")?;
    let wanted = "a path such as `\"/healthz\"`";
    let path = value.parsed(wanted, |text| match route::parse_path(text)? {
        RoutePath::Exact(path) => Ok(path),
        RoutePath::Subtree(_) => Err(Mistake::new(format!("{text:?} is everything below a path"))
            .hint("write one path alone, such as `\"/healthz\"`")),
    })?;
    let is_same = |route: &Route| route.path == RoutePath::Exact(path.value.clone());
    if routes.iter().any(is_same) {
        let text = format!("`{}` has a route in this site already", path.value);
        let problem = Problem::new(value.span, text);
        site.notes.wrong(problem.hint("keep one of the two"));
    }
    Some(path.value)
}
