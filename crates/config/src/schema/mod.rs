//! The file as written, made into a [`Site`]: every key read, every mistake noted.
//!
//! Reading goes on after a mistake with the default in its place; the result is not served then, so no default can
//! hide a mistake. What only this machine can answer is asked by [`crate::machine`], apart from `env_file`, whose
//! content is part of the configuration.

mod access;
mod account;
mod acme;
mod app;
mod files;
mod forward;
mod headers;
pub(crate) mod keys;
mod limits;
mod location;
mod logs;
mod metrics;
mod route;
mod server;
mod service;
mod site;
mod tls;
mod traces;
mod trust;
mod upstream;

use std::path::Path;

use crate::{
    error::{Mistake, Problem, Report, Span},
    paths::Folder,
    site::{App, HostPattern, Limits, Site, Tls, Upstream, VirtualHost},
    syntax::Syntax,
    walk::{Certainty, Notes, Table, Value},
};

pub use logs::NGINX as NGINX_VARIABLES;

/// What reading depends on beside the text.
struct Context {
    folder: Folder,
    privileged: bool,
}

/// What routes may name.
struct Names<'a> {
    /// The apps; `None` where nothing can be said about their names.
    apps: Option<&'a [&'a str]>,
    /// The upstreams; those that routes write as addresses alone are added.
    upstreams: &'a mut Vec<Upstream>,
}

/// What became of a text.
pub(crate) enum Reading {
    /// Nothing is wrong with it.
    Whole(Site),
    /// It is TOML, but with mistakes: defaults stand in their places, so this is good only for finding more of them.
    Partly(Site),
    /// Not even TOML.
    No,
}

/// Reads a text as the file at `file`, which is absolute; problems go to the report.
pub(crate) fn read(file: &Path, text: &str, privileged: bool, report: &mut Report) -> Reading {
    let syntax = Syntax::check(text);
    let notes = Notes::default();
    let entries = syntax.table();
    let context = Context {
        folder: Folder::of(file),
        privileged,
    };
    let site = whole(
        file,
        &context,
        &Table::new(&keys::FILE, &entries, None, &notes),
    );
    for (certainty, problem) in notes.into_problems() {
        let hidden = certainty == Certainty::UnlessHidden && !syntax.problems.is_empty();
        if !hidden && problem.span.is_none_or(|span| syntax.is_sound(span)) {
            report.push(problem);
        }
    }
    if report.problems.is_empty() && syntax.problems.is_empty() {
        return Reading::Whole(site);
    }
    let reading = match syntax.problems.as_slice() {
        [] => Reading::Partly(site),
        _ => Reading::No,
    };
    for problem in syntax.problems {
        report.push(problem);
    }
    reading
}

fn whole(file: &Path, context: &Context, root: &Table<'_>) -> Site {
    let mut upstreams = upstream::read_all(context, root.get("upstream"));
    let (server, https) = server::read(context, root.get("server"), &mut upstreams, root.notes);
    let apps = root
        .get("app")
        .and_then(|value| value.named(APP_EXAMPLE))
        .unwrap_or_default();
    let nameless = apps.iter().any(is_nameless);
    let names: Vec<&str> = apps.iter().map(|(name, _)| *name).collect();
    // Without names nothing can be said about those that routes use.
    let names = (!nameless).then_some(names.as_slice());
    let mut names = Names {
        apps: names,
        upstreams: &mut upstreams,
    };
    let limits = limits::read(root.get("limits"), root.notes);
    let hosts = sites(context, root, &mut names, &limits, https.is_some());
    if let Some(span) = https {
        check_https(root.notes, span, &hosts);
    }
    let acme = acme::read(context, root, &hosts);
    Site {
        file: file.to_owned(),
        server,
        limits,
        acme,
        apps: read_apps(context, root, &apps),
        upstreams,
        hosts,
        dev: None,
    }
}

const APP_EXAMPLE: &str = "a table such as `[app.web]`";

fn read_apps(context: &Context, root: &Table<'_>, apps: &[(&str, Value<'_>)]) -> Vec<App> {
    if let Some((_, first)) = apps.iter().find(|app| is_nameless(app)) {
        let header = root.get("app").map_or(first.key, |value| value.span);
        root.notes.wrong(
            Problem::new(header, "the app has no name")
                .hint("write `[app.web]` in place of `[app]`"),
        );
    }
    let named = apps.iter().filter(|app| !is_nameless(app));
    let read = named.filter_map(|(name, value)| app::read(context, name, value));
    let mut apps: Vec<App> = read.collect();
    apps.sort_by(|one, two| one.name.cmp(&two.name));
    apps
}

/// `[app]` and then the keys of an app, where `[app.web]` was meant.
fn is_nameless((name, value): &(&str, Value<'_>)) -> bool {
    keys::APP.names.contains(name) && !value.is_table()
}

fn sites(
    context: &Context,
    root: &Table<'_>,
    names: &mut Names<'_>,
    limits: &Limits,
    https: bool,
) -> Vec<VirtualHost> {
    let Some(value) = root.get("site") else {
        let problem = Problem::new(None, "there is no `[[site]]`, so nothing would be served");
        let hint = "add `[[site]]` and below it `routes = [{ path = \"/\", app = \"web\" }]`";
        root.notes.missing(problem.hint(hint));
        return Vec::new();
    };
    let values = if value.is_table() {
        value.wrong(Mistake::new("a site has two brackets").hint("write `[[site]]`"));
        vec![value]
    } else {
        value.list("tables `[[site]]`").unwrap_or_default()
    };
    let mut taken: Vec<HostPattern> = Vec::new();
    let read = |value: &Value<'_>| site::read(context, value, names, limits, https, &mut taken);
    values.iter().filter_map(read).collect()
}

fn check_https(notes: &Notes, https: Span, hosts: &[VirtualHost]) {
    if !hosts.is_empty() && hosts.iter().all(|host| *host.tls == Tls::Off) {
        let problem = Problem::new(
            https,
            "every site has `tls = \"off\"`, so nothing can be served here",
        );
        notes.missing(problem.hint("remove `https`, or `tls = \"off\"` from a site"));
    }
}
