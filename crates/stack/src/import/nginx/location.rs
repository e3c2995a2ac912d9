//! A `location`: from what stands in it to a route.

use super::{
    super::draft::Keys, Translator, scope::Scope, server::Server, syntax::Directive,
    upstream::Pass, words,
};
use crate::serve::text;

/// What answers.
#[derive(Debug)]
enum Answer {
    Pass(Pass),
    Redirect {
        to: String,
        status: u16,
    },
    Respond {
        status: u16,
        body: String,
    },
    /// A folder, and what comes where it has no file.
    Files {
        folder: String,
        otherwise: Otherwise,
    },
}

#[derive(Debug)]
enum Otherwise {
    Nothing,
    Fallback(String),
    Pass(Pass),
}

/// The directives of a location that say what answers.
#[derive(Debug, Default)]
struct Handler<'d> {
    alias: Option<&'d Directive>,
    own_root: bool,
    pass: Option<&'d Directive>,
    returns: Option<&'d Directive>,
    try_files: Option<&'d Directive>,
}

const PASSES: [&str; 3] = ["proxy_pass", "uwsgi_pass", "grpc_pass"];

impl Translator<'_> {
    /// Makes routes of a location. `all` are the directives of its server, for named locations.
    pub(super) fn location(
        &mut self,
        server: &mut Server,
        directive: &Directive,
        outer: &Scope,
        all: &[Directive],
    ) {
        let (modifier, pattern) = match directive.words.as_slice() {
            [pattern] => ("", pattern.as_str()),
            [modifier, pattern] => (modifier.as_str(), pattern.as_str()),
            _ => return self.left(directive, "this is no location"),
        };
        let is_exact = match modifier {
            "" | "^~" if pattern.starts_with('@') => return,
            "" | "^~" => false,
            "=" => true,
            _ => return self.pattern(directive, pattern),
        };
        if !is_path(pattern) {
            return self.left(directive, "a route has a plain path");
        }
        let was = std::mem::replace(&mut self.in_location, true);
        let mut scope = outer.inside();
        let mut handler = Handler::default();
        let inside = self.block_of(directive);
        for inner in &inside {
            self.in_location(server, inner, &mut scope, &mut handler, all);
        }
        self.in_location = was;
        if scope.own.join_cache() {
            self.left(
                directive,
                "of `expires` and its `Cache-Control` the latter is kept, in `headers`, which errors have too; `cache` is for files alone",
            );
        }
        let Some(answer) = self.answer(directive, pattern, &handler, &scope, all) else {
            return;
        };
        self.add_routes(server, directive, pattern, is_exact, &scope, answer);
    }

    fn in_location<'d>(
        &mut self,
        server: &mut Server,
        inner: &'d Directive,
        scope: &mut Scope,
        handler: &mut Handler<'d>,
        all: &[Directive],
    ) {
        match inner.name.as_str() {
            "alias" => handler.alias = Some(inner),
            "try_files" => handler.try_files = Some(inner),
            "return" => handler.returns = Some(inner),
            name if PASSES.contains(&name) => handler.pass = Some(inner),
            "location" => self.location(server, inner, scope, all),
            "root" => {
                handler.own_root = true;
                self.common(inner, scope);
            }
            _ => {
                if !self.common(inner, scope) {
                    self.unknown(inner);
                }
            }
        }
    }

    /// Locations by patterns: those that how-tos have are of no use here, the others have no twin.
    fn pattern(&mut self, directive: &Directive, pattern: &str) {
        if pattern.contains("/\\.") || pattern.contains("/.ht") {
            return self.itself(directive, "names that begin with a dot are never served");
        }
        let what = if pattern.contains("php") {
            words::instead("fastcgi_pass")
        } else if pattern.contains("\\.") {
            "routes go by paths, not by endings: `cache` of the route with `files` holds for all; names with a hash are kept for ever by themselves"
        } else {
            "routes go by plain paths: the longest that fits wins, and one that ends in `/` is everything below"
        };
        let guards = ["allow", "deny", "auth_basic", "auth_request", "internal"];
        let inside = self.block_of(directive);
        match inside
            .iter()
            .any(|inner| guards.contains(&inner.name.as_str()))
        {
            true => self.left(
                directive,
                &format!(
                    "IT GUARDS SOMETHING, which is open until you write a route for it: {what}"
                ),
            ),
            false => self.left(directive, what),
        }
    }

    /// What answers at a path; `None` where nothing does, which is said.
    fn answer(
        &mut self,
        directive: &Directive,
        pattern: &str,
        handler: &Handler<'_>,
        scope: &Scope,
        all: &[Directive],
    ) -> Option<Answer> {
        if let Some(pass) = handler.pass {
            let pass = self.pass(pass, scope, pattern)?;
            return Some(match (handler.try_files, &scope.root) {
                // Files first, then the app, as `try_files $uri @app` has it.
                (Some(_), Some(root)) => Answer::Files {
                    folder: root.clone(),
                    otherwise: Otherwise::Pass(pass),
                },
                _ => Answer::Pass(pass),
            });
        }
        if let Some(returns) = handler.returns {
            return self.returned(returns);
        }
        if scope.own.deny_all && scope.own.allow.is_empty() {
            return Some(Answer::Respond {
                status: 403,
                body: "Forbidden\n".to_owned(),
            });
        }
        let folder = match handler.alias {
            Some(alias) if alias.word(0).contains('$') => {
                self.left(alias, "a folder has no variables in its path");
                return None;
            }
            Some(alias) => Some(self.absolute(alias.word(0))),
            None => scope.root.as_ref().map(|root| join(root, pattern)),
        };
        let Some(folder) = folder else {
            if let Some(try_files) = handler.try_files
                && let Some(pass) = self.tried_pass(try_files, scope, all)
            {
                return Some(Answer::Pass(pass));
            }
            if scope.own.guards() {
                // What is around it would answer, and to everybody.
                self.left(
                    directive,
                    "nothing in it says what answers, so it is shut until you write that",
                );
                return Some(Answer::Respond {
                    status: 403,
                    body: "Forbidden\n".to_owned(),
                });
            }
            self.nothing_answers(directive);
            return None;
        };
        if let Some(try_files) = handler.try_files {
            let otherwise = self.tried(try_files, scope, all)?;
            return Some(Answer::Files { folder, otherwise });
        }
        // A place for a tweak of what answers around it.
        if handler.alias.is_none() && !handler.own_root && pattern != "/" && all_is_quiet(directive)
        {
            self.itself(directive, "it goes with the route around it");
            return None;
        }
        Some(Answer::Files {
            folder,
            otherwise: Otherwise::Nothing,
        })
    }

    fn nothing_answers(&mut self, directive: &Directive) {
        match all_is_quiet(directive) {
            true => self.itself(directive, "it goes with the route around it"),
            false => self.left(
                directive,
                "nothing in it says what answers, so it goes with the route around it",
            ),
        }
    }

    /// The named location that a `try_files` ends with.
    fn tried_pass(
        &mut self,
        try_files: &Directive,
        scope: &Scope,
        all: &[Directive],
    ) -> Option<Pass> {
        let name = try_files
            .words
            .last()
            .filter(|name| name.starts_with('@'))?;
        let named = all
            .iter()
            .find(|other| other.name == "location" && other.word(0) == name.as_str());
        let Some(named) = named else {
            self.left(try_files, "there is no such location");
            return None;
        };
        let mut inside = scope.inside();
        let mut pass = None;
        let block = self.block_of(named);
        for inner in &block {
            if PASSES.contains(&inner.name.as_str()) {
                pass = Some(inner);
            } else if !self.common(inner, &mut inside) {
                self.unknown(inner);
            }
        }
        self.pass(pass?, &inside, "/")
    }

    fn tried(
        &mut self,
        try_files: &Directive,
        scope: &Scope,
        all: &[Directive],
    ) -> Option<Otherwise> {
        let last = try_files.words.last().map_or("", String::as_str);
        if last.starts_with('@') {
            return self.tried_pass(try_files, scope, all).map(Otherwise::Pass);
        }
        if last.starts_with('=') {
            return Some(Otherwise::Nothing);
        }
        let page = last
            .split(['?', '$'])
            .next()
            .unwrap_or_default()
            .trim_start_matches('/');
        if page.is_empty()
            || page.ends_with(".php")
            || last.starts_with('$')
            || page
                .split('/')
                .any(|part| part.is_empty() || part.starts_with('.'))
        {
            self.left(
                try_files,
                "a route with `files` ends with a `fallback` file, or with an `app` or `upstream`",
            );
            return (!page.ends_with(".php")).then_some(Otherwise::Nothing);
        }
        Some(Otherwise::Fallback(page.to_owned()))
    }

    /// `return`: a redirect or a text.
    fn returned(&mut self, returns: &Directive) -> Option<Answer> {
        let (status, text) = match returns.words.as_slice() {
            [url] if url.starts_with("http") || url.starts_with('$') => (302, url.as_str()),
            [status] => (status.parse().ok()?, ""),
            [status, text, ..] => (status.parse().ok()?, text.as_str()),
            [] => return None,
        };
        match status {
            301 | 302 | 303 | 307 | 308 => match target(text) {
                Some(to) => Some(Answer::Redirect { to, status }),
                None => {
                    self.left(returns, "a redirect leads to a place that is written, with `{path}` and `{query}` of the request");
                    None
                }
            },
            444 if self.is_default => {
                self.itself(returns, "other hosts are answered 421");
                None
            }
            444 => {
                self.left(
                    returns,
                    "nobody is hung up on: `respond` with a status, or `deny`",
                );
                None
            }
            200..=599 if !text.contains('$') => Some(Answer::Respond {
                status,
                body: text.to_owned(),
            }),
            _ => {
                self.left(
                    returns,
                    "`respond` has a fixed text, and a status of 200 to 599",
                );
                None
            }
        }
    }

    /// A server's own `return`.
    pub(super) fn server_return(&mut self, server: &mut Server, directive: &Directive) {
        if let Some(answer) = self.returned(directive) {
            let scope = Scope::default();
            self.add_routes(server, directive, "/", false, &scope, answer);
        }
    }

    /// A server's root, where no location is at `/`.
    pub(super) fn server_root(
        &mut self,
        server: &mut Server,
        directive: &Directive,
        scope: &Scope,
        all: &[Directive],
    ) {
        let Some(root) = scope.root.clone() else {
            return;
        };
        let try_files = all.iter().find(|other| other.name == "try_files");
        let otherwise = match try_files {
            Some(try_files) => self.tried(try_files, scope, all),
            None => Some(Otherwise::Nothing),
        };
        if let Some(otherwise) = otherwise {
            self.add_routes(
                server,
                directive,
                "/",
                false,
                &scope.inside(),
                Answer::Files {
                    folder: root,
                    otherwise,
                },
            );
        }
    }

    fn add_routes(
        &mut self,
        server: &mut Server,
        directive: &Directive,
        pattern: &str,
        is_exact: bool,
        scope: &Scope,
        answer: Answer,
    ) {
        let is_files = matches!(answer, Answer::Files { .. });
        let is_app = matches!(
            answer,
            Answer::Pass(_)
                | Answer::Files {
                    otherwise: Otherwise::Pass(_),
                    ..
                }
        );
        if is_exact && pattern.ends_with('/') {
            return self.left(directive, "a path that ends in `/` is everything below it");
        }
        if is_exact && is_files {
            // An icon, a robots.txt: its folder has it.
            return self.itself(
                directive,
                "a file in a folder that is served is found there",
            );
        }
        let paths = match (is_exact || pattern.ends_with('/'), is_app) {
            (true, _) => vec![pattern.to_owned()],
            // `/api` is `/api` and everything below, for who passes it on.
            (false, true) => vec![format!("{pattern}/"), pattern.to_owned()],
            (false, false) if is_files => vec![format!("{pattern}/")],
            (false, false) => vec![pattern.to_owned(), format!("{pattern}/")],
        };
        for path in paths {
            let mut keys = Keys::default();
            keys.set_text("path", &path);
            // Only what is below a path can lose it.
            let may_strip = path.ends_with('/') && path != "/";
            write_answer(&mut keys, &answer, scope, may_strip);
            if let Some(bytes) = scope.own.body {
                match is_app {
                    true => {
                        let body = self.body(bytes);
                        keys.set("limits", body);
                    }
                    false => self.left(directive, "only apps and upstreams take content"),
                }
            }
            if scope.unbuffered && is_app {
                keys.set("request_buffering", "false");
            }
            if scope.compress == Some(false) && (is_app || is_files) {
                keys.set("compress", "false");
            }
            scope.write(&mut keys);
            if !scope.own.errors.is_empty() {
                self.left(directive, "`errors` are of a site, not of a route");
            }
            if let Some(hsts) = &scope.own.hsts {
                self.left(
                    directive,
                    &format!("`hsts = {hsts}` is of a site, not of a route"),
                );
            }
            server.add_route(keys);
        }
    }
}

fn write_answer(keys: &mut Keys, answer: &Answer, scope: &Scope, may_strip: bool) {
    let pass = |keys: &mut Keys, pass: &Pass| {
        keys.set(pass.key, pass.value.clone());
        if pass.strip && may_strip {
            keys.set("strip", "true");
        }
    };
    match answer {
        Answer::Pass(to) => pass(keys, to),
        Answer::Redirect { to, status } => {
            keys.set_text("redirect", to);
            keys.set("status", status.to_string());
        }
        Answer::Respond { status, body } => {
            keys.set_text("respond", body);
            if *status != 200 {
                keys.set("status", status.to_string());
            }
        }
        Answer::Files { folder, otherwise } => {
            keys.set_text("files", folder);
            if let Otherwise::Pass(to) = otherwise {
                pass(keys, to);
            }
            if let Otherwise::Fallback(page) = otherwise {
                keys.set_text("fallback", page);
            }
            match scope.index.as_deref() {
                Some([one]) if one != "index.html" => keys.set_text("index", one),
                Some([_]) | None => {}
                Some(names) => keys.set_list("index", names),
            }
            if let Some(cache) = &scope.own.cache {
                keys.set("cache", cache.clone());
            }
            if scope.own.listing {
                keys.set("listing", "true");
            }
            if scope.own.internal && !matches!(otherwise, Otherwise::Pass(_)) {
                keys.set("internal", "true");
            }
        }
    }
}

/// Whether a location only says what is written to logs, or of nothing.
fn all_is_quiet(directive: &Directive) -> bool {
    directive.block.iter().flatten().all(|inner| {
        matches!(
            inner.name.as_str(),
            "access_log" | "log_not_found" | "expires" | "add_header"
        )
    })
}

/// Whether our routes can have it.
fn is_path(pattern: &str) -> bool {
    pattern.starts_with('/')
        && !pattern.contains("//")
        && !pattern.contains(['?', '#', '%', '*'])
        && !pattern.contains(char::is_control)
        && !pattern.split('/').any(|part| matches!(part, "." | ".."))
}

/// nginx puts the whole path behind a `root`.
fn join(root: &str, pattern: &str) -> String {
    let joined = format!(
        "{}/{}",
        root.trim_end_matches('/'),
        pattern.trim_matches('/')
    );
    match joined.trim_end_matches('/') {
        "" => "/".to_owned(),
        path => path.to_owned(),
    }
}

/// Where a redirect leads, in our words; `None` where it depends on what only nginx knows.
pub(super) fn target(url: &str) -> Option<String> {
    let ours = url
        .replace("$is_args$args", "{query}")
        .replace("$is_args$query_string", "{query}")
        .replace("?$args", "{query}")
        .replace("?$query_string", "{query}")
        .replace("$request_uri", "{path}{query}")
        .replace("${request_uri}", "{path}{query}")
        .replace("$uri", "{path}")
        .replace("$document_uri", "{path}")
        .replace("$scheme://", "https://");
    let is_place = ours.starts_with('/') && !ours.starts_with("//")
        || ours.starts_with("https://")
        || ours.starts_with("http://");
    (is_place
        && !ours.contains(['$', ' ', '"', '\\', '<', '>'])
        && ours.is_ascii()
        && !ours.contains(|c: char| c.is_control()))
    .then_some(ours)
}

/// The route that a rewrite of the whole site is, if it is one: `rewrite ^ https://example.org$request_uri? permanent`.
pub(super) fn rewritten(directive: &Directive) -> Option<(String, u16)> {
    let [pattern, to, flag] = directive.words.as_slice() else {
        return None;
    };
    let status = match flag.as_str() {
        "permanent" => 301,
        "redirect" => 302,
        _ => return None,
    };
    let to = to.trim_end_matches('?');
    let to = match pattern.as_str() {
        "^" | "^/" | ".*" | "^.*" | "^.*$" => target(to)?,
        "^/(.*)$" | "^/(.*)" | "^(.*)$" => {
            let whole = to.strip_suffix("/$1").or_else(|| to.strip_suffix("$1"))?;
            target(&format!("{whole}$request_uri"))?
        }
        _ => return None,
    };
    Some((to, status))
}

/// A route with nothing but a redirect.
pub(super) fn redirect_route(to: &str, status: u16) -> Keys {
    let mut keys = Keys::default();
    keys.set("path", text("/"));
    keys.set_text("redirect", to);
    keys.set("status", status.to_string());
    keys
}
