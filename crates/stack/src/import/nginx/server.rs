//! A `server`: its addresses, names and certificates, and how plain and secure servers of one name become one site.

use std::{collections::BTreeSet, path::PathBuf};

use config::site::HostPattern;

use super::{
    super::draft::{Keys, SiteDraft},
    Translator,
    location::{redirect_route, rewritten, target},
    scope::Scope,
    syntax::Directive,
    values::{Listen, listen},
};
use crate::serve::text;

/// Where certificate authorities look for answers to their challenges.
const CHALLENGES: &str = "\"/.well-known/acme-challenge/";

/// A `server`, read.
#[derive(Debug)]
pub(super) struct Server {
    directive: Directive,
    listens: Vec<Listen>,
    names: Vec<String>,
    keys: Keys,
    hsts: Option<String>,
    certificates: Vec<String>,
    certificate_keys: Vec<String>,
    routes: Vec<Keys>,
    /// `if ($host = www.example.org) { return 301 …; }`: the host, where it is sent, and the line.
    sent_on: Vec<(String, String, u16, Directive)>,
    /// Whether all of it is the redirect to HTTPS, which is so without a word.
    to_https: Option<Directive>,
}

impl Server {
    /// Of which nothing is read yet.
    fn of(directive: &Directive) -> Self {
        Self {
            directive: directive.clone(),
            listens: Vec::new(),
            names: Vec::new(),
            keys: Keys::default(),
            hsts: None,
            certificates: Vec::new(),
            certificate_keys: Vec::new(),
            routes: Vec::new(),
            sent_on: Vec::new(),
            to_https: None,
        }
    }

    /// Where nothing is said of it, at nginx's own port; and `ssl on` is said of all listeners at once.
    fn listens_somewhere(&mut self, all: &[Directive]) {
        if self.listens.is_empty() {
            let words = ["80".to_owned()];
            self.listens.extend(listen(&words));
        }
        let mut ssl = all.iter().filter(|inner| inner.name == "ssl");
        let ssl_on = ssl.any(|inner| inner.word(0) == "on");
        for listen in &mut self.listens {
            listen.tls |= ssl_on;
        }
    }

    fn is_secure(&self) -> bool {
        self.listens.iter().any(|listen| listen.tls)
    }

    /// The first word on a path counts, as with nginx's longest match there is one.
    pub(super) fn add_route(&mut self, keys: Keys) {
        let path = keys.get("path").map(str::to_owned);
        if !self
            .routes
            .iter()
            .any(|route| route.get("path") == path.as_deref())
        {
            self.routes.push(keys);
        }
    }
}

impl Translator<'_> {
    /// Reads a `server` block; sites are made of all of them together.
    pub(super) fn server(&mut self, directive: &Directive, outer: &Scope) {
        let mut server = Server::of(directive);
        // What `http` says of who may come in, and of headers, is each site's.
        let mut scope = outer.clone();
        scope.own.body = None;
        let all = self.block_of(directive);
        for inner in &all {
            self.setting(inner, &mut server, &mut scope);
        }
        server.listens_somewhere(&all);
        self.is_default = server.listens.iter().any(|listen| listen.is_default)
            || server.names.iter().all(|name| name == "*");
        for inner in &all {
            self.answers(inner, &mut server, &scope, &all);
        }
        let has_root = server
            .routes
            .iter()
            .any(|route| route.get("path") == Some("\"/\""));
        if !has_root && server.to_https.is_none() {
            self.server_root(&mut server, directive, &scope, &all);
        }
        self.site_keys(&mut server, &scope);
        self.servers.push(server);
    }

    /// A directive of a `server` that says what holds for all of it.
    fn setting(&mut self, inner: &Directive, server: &mut Server, scope: &mut Scope) {
        match inner.name.as_str() {
            "listen" => self.listen(inner, server),
            "server_name" => self.server_name(inner, server),
            "ssl_certificate" => {
                let path = self.absolute(inner.word(0));
                if path.starts_with("/etc/letsencrypt/") {
                    self.itself(
                        inner,
                        "what certbot renews is taken anew; `tls = \"acme\"` gets certificates without it (docs/certificates.md)",
                    );
                }
                server.certificates.push(path);
            }
            "ssl_certificate_key" => server.certificate_keys.push(self.absolute(inner.word(0))),
            "ssl_client_certificate" => {
                let path = self.absolute(inner.word(0));
                server.keys.set_text("client_ca", &path);
            }
            "ssl_verify_client" => match inner.word(0) {
                "on" => server.keys.set_text("client_auth", "required"),
                "optional" => server.keys.set_text("client_auth", "optional"),
                "off" => {}
                _ => self.left(inner, "`client_auth` is \"required\" or \"optional\", of certificates that `client_ca` has signed"),
            },
            // Of all listeners, and answers: read when the rest is known.
            "ssl" | "location" | "return" | "if" | "try_files" | "rewrite" => {}
            "keepalive_timeout"
            | "send_timeout"
            | "client_header_timeout"
            | "client_body_timeout"
            | "keepalive_requests" => {
                self.left(inner, "it is one for all sites, in [limits]");
            }
            _ => {
                if !self.common(inner, scope) {
                    self.unknown(inner);
                }
            }
        }
    }

    /// A directive of a `server` that answers requests.
    fn answers(
        &mut self,
        inner: &Directive,
        server: &mut Server,
        scope: &Scope,
        all: &[Directive],
    ) {
        match inner.name.as_str() {
            "location" => self.location(server, inner, scope, all),
            "if" => self.condition(inner, server),
            "rewrite" => match rewritten(inner) {
                Some((to, status)) => self.send_all(inner, server, &to, status),
                None => self.left(inner, super::words::instead("rewrite")),
            },
            "return" => self.returns(inner, server),
            _ => {}
        }
    }

    /// A `return` of a `server`.
    fn returns(&mut self, inner: &Directive, server: &mut Server) {
        match target(inner.word(1)).filter(|_| inner.word(0).starts_with('3')) {
            Some(to) => {
                let status = inner.word(0).parse().unwrap_or(302);
                self.send_all(inner, server, &to, status);
            }
            None if is_same_host(inner.word(1)) => server.to_https = Some(inner.clone()),
            // Certbot's answer to who is not sent on.
            None if !server.sent_on.is_empty() && inner.word(0) == "404" => {
                self.itself(inner, "other hosts are answered 421");
            }
            None => self.server_return(server, inner),
        }
    }

    /// What is in a directive's block, with the files that it includes: a snippet may be in many, and named in the command as well.
    pub(super) fn block_of(&mut self, directive: &Directive) -> Vec<Directive> {
        self.included(directive.block.as_deref().unwrap_or_default(), &[])
    }

    /// The directives, with those of the files that they include, but for `taken`.
    pub(super) fn included(
        &mut self,
        directives: &[Directive],
        taken: &[PathBuf],
    ) -> Vec<Directive> {
        let mut all = Vec::new();
        for directive in directives {
            match directive.name.as_str() {
                "include" => {
                    let found = self.include(directive, taken);
                    all.extend(found);
                }
                _ => all.push(directive.clone()),
            }
        }
        all
    }

    fn listen(&mut self, directive: &Directive, server: &mut Server) {
        match listen(&directive.words) {
            Some(found) if found.quic => {
                self.left(directive, "HTTP/3 is not spoken; browsers use HTTP/2")
            }
            Some(found) => server.listens.push(found),
            None => self.left(
                directive,
                "a listener is an address and a port, such as `\":80\"` or `\"127.0.0.1:8080\"`",
            ),
        }
    }

    fn server_name(&mut self, directive: &Directive, server: &mut Server) {
        for name in &directive.words {
            let names = match name.strip_prefix('.') {
                Some(rest) => vec![rest.to_owned(), format!("*.{rest}")],
                None if matches!(name.as_str(), "_" | "") => vec!["*".to_owned()],
                None => vec![name.to_ascii_lowercase()],
            };
            for name in names {
                match name.parse::<HostPattern>() {
                    Ok(_) if server.names.contains(&name) => {}
                    Ok(_) => server.names.push(name),
                    Err(_) => self.left(
                        directive,
                        "hosts are names, `*.example.org` for all below, or `*`",
                    ),
                }
            }
        }
    }

    /// `if ($host = …)` as certbot writes it.
    fn condition(&mut self, directive: &Directive, server: &mut Server) {
        let words: Vec<&str> = directive
            .words
            .iter()
            .map(|word| word.trim_matches(['(', ')']))
            .filter(|word| !word.is_empty())
            .collect();
        let inside = directive.block.as_deref().unwrap_or_default();
        match (words.as_slice(), inside) {
            ([variable, "=", host], [only])
                if matches!(*variable, "$host" | "$http_host")
                    && matches!(only.name.as_str(), "return" | "rewrite") =>
            {
                let sent = match only.name.as_str() {
                    "rewrite" => rewritten(only),
                    _ => {
                        let to = only.word(1).replace("$host", host);
                        let status = only.word(0).parse().unwrap_or(301);
                        target(&to).map(|to| (to, status))
                    }
                };
                match sent {
                    Some((to, status)) => {
                        server
                            .sent_on
                            .push(((*host).to_owned(), to, status, directive.clone()))
                    }
                    None => self.left(directive, super::words::instead("if")),
                }
            }
            ([variable, "!=", "https"] | [variable, "=", "http"], [only])
                if *variable == "$scheme" && is_same_host(only.word(1)) =>
            {
                self.itself(directive, "plain HTTP of a site with TLS is redirected");
            }
            _ => self.left(directive, super::words::instead("if")),
        }
    }

    /// All requests are sent elsewhere.
    fn send_all(&mut self, directive: &Directive, server: &mut Server, to: &str, status: u16) {
        let only = match server.names.as_slice() {
            [only] => format!("https://{only}{{path}}{{query}}"),
            _ => String::new(),
        };
        if !server.is_secure() && to == only {
            server.to_https = Some(directive.clone());
            return;
        }
        if to.contains("{path}") || !to.starts_with('/') {
            server.add_route(redirect_route(to, status));
        } else {
            self.left(
                directive,
                "a redirect of everything to one path of the same site would have no end",
            );
        }
    }

    fn site_keys(&mut self, server: &mut Server, scope: &Scope) {
        if let Some(bytes) = scope.own.body {
            let body = self.body(bytes);
            server.keys.set("limits", body);
        }
        scope.write(&mut server.keys);
        server.hsts.clone_from(&scope.own.hsts);
        let mut errors = Keys::default();
        for (status, page) in &scope.own.errors {
            // A location of its own may say where the page is.
            let is_its = |location: &&Directive| {
                location.name == "location" && location.words.last() == Some(page)
            };
            let block = server.directive.block.as_deref().unwrap_or_default();
            let location = block.iter().find(is_its);
            let own_root = location.and_then(|location| {
                let inside = location.block.as_deref().unwrap_or_default();
                inside
                    .iter()
                    .find(|inner| inner.name == "root")
                    .map(|root| root.word(0).to_owned())
            });
            match own_root.or_else(|| scope.root.clone()) {
                Some(root) => {
                    let path = format!("{}{page}", self.absolute(&root).trim_end_matches('/'));
                    errors.set(status, text(&path));
                }
                None => {
                    let directive = server.directive.clone();
                    self.left(
                        &directive,
                        &format!(
                            "error_page {status} {page}: there is no `root` to find the page in"
                        ),
                    );
                }
            }
        }
        if let Some(inline) = errors.as_inline() {
            server.keys.set("errors", inline);
        }
    }

    /// Makes sites of all servers that were read.
    pub(super) fn assemble(&mut self) {
        let servers = std::mem::take(&mut self.servers);
        self.listeners(&servers);
        let (secure, plain): (Vec<Server>, Vec<Server>) =
            servers.into_iter().partition(Server::is_secure);
        let mut sites: Vec<SiteDraft> = Vec::new();
        for server in secure {
            self.secure_site(server, &mut sites);
        }
        for server in plain {
            self.plain_site(server, &mut sites);
        }
        let mut taken = BTreeSet::new();
        for mut site in sites {
            let all = site.hosts.len();
            site.hosts.retain(|host| taken.insert(host.clone()));
            if site.hosts.len() < all {
                self.note_left(
                    &site.place,
                    "server_name",
                    "a host is one site's: the first that names it has it",
                );
            }
            match (site.hosts.is_empty(), site.routes.is_empty()) {
                (false, false) => self.draft.sites.push(site),
                (_, true) => {
                    self.note_left(&site.place, "server { … }", "nothing in it can be served")
                }
                (true, false) => {}
            }
        }
        if self.largest > GIB {
            // A body that is larger than all of them together could never come.
            let room = self.largest.saturating_mul(2).min(1 << 50);
            self.draft.limits.set(
                "buffers_disk",
                super::values::show_size(room.max(self.largest)),
            );
        }
    }

    /// Where all servers listen.
    fn listeners(&mut self, servers: &[Server]) {
        for (key, tls) in [("http", false), ("https", true)] {
            let mut all: Vec<&Listen> = Vec::new();
            for listen in servers
                .iter()
                .flat_map(|server| &server.listens)
                .filter(|listen| listen.tls == tls)
            {
                if !all.iter().any(|known| known.at == listen.at) {
                    all.push(listen);
                }
            }
            // `:80` takes what comes to any address.
            let port = |at: &str| at.rsplit_once(':').map(|(_, port)| port.to_owned());
            let any: Vec<String> = all
                .iter()
                .filter(|listen| listen.at.starts_with(':'))
                .filter_map(|listen| port(&listen.at))
                .collect();
            let is_covered = |listen: &&&Listen| {
                !listen.at.starts_with(':')
                    && !listen.at.starts_with("unix:")
                    && port(&listen.at).is_some_and(|port| any.contains(&port))
            };
            for covered in all.iter().filter(is_covered) {
                self.draft.by_itself.push(super::super::draft::Note {
                    place: "listen".to_owned(),
                    line: covered.at.clone(),
                    what: "one socket takes what comes to any address of this port".to_owned(),
                });
            }
            let kept = all.iter().filter(|listen| !is_covered(listen));
            let entries: Vec<String> = kept
                .map(|listen| match listen.proxy_protocol {
                    true => format!("{{ listen = {}, proxy_protocol = true }}", text(&listen.at)),
                    false => text(&listen.at),
                })
                .collect();
            if !entries.is_empty() || key == "http" {
                self.draft
                    .server
                    .set(key, format!("[{}]", entries.join(", ")));
            }
        }
    }

    fn secure_site(&mut self, server: Server, sites: &mut Vec<SiteDraft>) {
        let place = self.place(&server.directive);
        let pairs: Vec<String> = server
            .certificates
            .iter()
            .zip(&server.certificate_keys)
            .map(|(cert, key)| format!("{{ cert = {}, key = {} }}", text(cert), text(key)))
            .collect();
        let tls = match pairs.as_slice() {
            [] => {
                self.left(&server.directive, "no certificate is named in it: `tls = { cert = …, key = … }`; a self-signed one is made until then");
                "\"self-signed\"".to_owned()
            }
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let mut hosts = server.names.clone();
        if hosts.is_empty()
            || server.listens.iter().any(|listen| listen.is_default)
                && !hosts.iter().any(|host| host == "*")
        {
            hosts.push("*".to_owned());
        }
        for (host, to, status, line) in server.sent_on {
            let itself = format!("https://{host}{{path}}{{query}}");
            if to == itself {
                self.itself(&line, "plain HTTP of a site with TLS is redirected");
                continue;
            }
            hosts.retain(|other| *other != host);
            let mut keys = Keys::default();
            keys.set("tls", tls.clone());
            sites.push(SiteDraft {
                place: self.place(&line),
                hosts: vec![host],
                keys,
                routes: vec![redirect_route(&to, status)],
            });
        }
        let mut keys = Keys::default();
        keys.set("tls", tls);
        if let Some(hsts) = server.hsts {
            keys.set("hsts", hsts);
        }
        keys.extend(server.keys);
        sites.push(SiteDraft {
            place,
            hosts,
            keys,
            routes: server.routes,
        });
    }

    /// What a server without TLS adds to the sites that have it, and what is left of it for itself.
    fn plain_site(&mut self, mut server: Server, sites: &mut Vec<SiteDraft>) {
        let mut hosts = server.names.clone();
        if hosts.is_empty() {
            hosts.push("*".to_owned());
        }
        let (both, alone): (Vec<String>, Vec<String>) =
            hosts.into_iter().partition(|host| is_secure(host, sites));
        self.say_redirects(&server, &both, sites);
        // The only thing that is asked for in the clear of a site with TLS.
        let (challenges, routes): (Vec<Keys>, Vec<Keys>) = std::mem::take(&mut server.routes)
            .into_iter()
            .partition(|route| {
                route
                    .get("path")
                    .is_some_and(|path| path.starts_with(CHALLENGES))
            });
        let of_both = |site: &&mut SiteDraft| site.hosts.iter().any(|host| both.contains(host));
        for site in sites.iter_mut().filter(of_both) {
            take_challenges(site, &challenges);
        }
        if !both.is_empty() && routes.iter().any(|route| !is_to_https(route)) {
            let place = self.place(&server.directive);
            self.note_left(
                &place,
                "server { … }",
                "plain HTTP of a site with TLS is redirected to it, whatever was served there",
            );
        }
        server.routes = challenges.into_iter().chain(routes).collect();
        let only_sends =
            server.routes.is_empty() && (server.to_https.is_some() || !server.sent_on.is_empty());
        if !alone.is_empty() && !only_sends {
            self.site_in_the_clear(server, alone, sites);
        }
    }

    /// Whether what it sends to HTTPS is there.
    fn say_redirects(&mut self, server: &Server, both: &[String], sites: &[SiteDraft]) {
        for (host, _, _, line) in &server.sent_on {
            match is_secure(host, sites) {
                true => self.itself(line, "plain HTTP of a site with TLS is redirected"),
                false => self.left(line, "there is no site with TLS for this host"),
            }
        }
        if let Some(line) = &server.to_https {
            match both.is_empty() {
                false => self.itself(line, "plain HTTP of a site with TLS is redirected"),
                true => self.left(
                    line,
                    "there is no site with TLS for these hosts in these files",
                ),
            }
        }
    }

    fn site_in_the_clear(
        &mut self,
        server: Server,
        mut hosts: Vec<String>,
        sites: &mut Vec<SiteDraft>,
    ) {
        let place = self.place(&server.directive);
        let mut keys = Keys::default();
        keys.set("tls", "\"off\"");
        if server.hsts.is_some() {
            self.note_left(
                &place,
                "add_header Strict-Transport-Security …",
                "browsers do not believe it over plain HTTP",
            );
        }
        keys.extend(server.keys);
        keys.remove("client_ca");
        keys.remove("client_auth");
        let is_default = server.listens.iter().any(|listen| listen.is_default);
        let mut all = sites.iter().flat_map(|site| &site.hosts).chain(&hosts);
        if is_default && !all.any(|host| host == "*") {
            hosts.push("*".to_owned());
        }
        sites.push(SiteDraft {
            place,
            hosts,
            keys,
            routes: server.routes,
        });
    }
}

/// Whether one of the sites has this host, and TLS.
fn is_secure(host: &str, sites: &[SiteDraft]) -> bool {
    sites.iter().any(|site| {
        site.keys.has("tls")
            && site.keys.get("tls") != Some("\"off\"")
            && site.hosts.iter().any(|other| other == host)
    })
}

/// Gives a site the routes for challenges that it has not.
fn take_challenges(site: &mut SiteDraft, challenges: &[Keys]) {
    for challenge in challenges {
        let path = challenge.get("path");
        if !site.routes.iter().any(|route| route.get("path") == path) {
            site.routes.insert(0, challenge.clone());
        }
    }
}

const GIB: u64 = 1 << 30;

/// `https://$host$request_uri`.
fn is_same_host(url: &str) -> bool {
    let names = ["$host", "$server_name", "$http_host", "${host}"];
    let rest = url.strip_prefix("https://").unwrap_or_default();
    names.iter().any(|name| {
        rest.strip_prefix(name).is_some_and(|rest| {
            matches!(
                rest,
                "$request_uri" | "$uri" | "${request_uri}" | "$uri$is_args$args" | "/" | ""
            )
        })
    })
}

fn is_to_https(route: &Keys) -> bool {
    route
        .get("redirect")
        .is_some_and(|to| to.starts_with("\"https://"))
}
