//! What directives say that may stand in `http`, a `server` or a `location`, and its way into a site or a route.

use super::{
    super::draft::Keys,
    Translator,
    syntax::Directive,
    values::{rate, show_size, size, time},
    words,
};
use crate::serve::text;

/// What is in force at a place.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    pub(super) root: Option<String>,
    pub(super) index: Option<Vec<String>>,
    pub(super) read_timeout: Option<String>,
    pub(super) connect_timeout: Option<String>,
    pub(super) unbuffered: bool,
    pub(super) compress: Option<bool>,
    pub(super) user_file: Option<String>,
    /// What is said at this place itself: it is inherited by our own rules.
    pub(super) own: Own,
}

/// What is said at one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    pub(super) headers: Vec<(String, Option<String>)>,
    pub(super) hsts: Option<String>,
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    pub(super) deny_all: bool,
    realm: Option<String>,
    auth_off: bool,
    any: bool,
    /// Whether something guards it that there is not here: then it is shut.
    pub(super) shut: bool,
    limits: Vec<String>,
    pub(super) body: Option<u64>,
    pub(super) cache: Option<String>,
    pub(super) listing: bool,
    pub(super) internal: bool,
    pub(super) errors: Vec<(String, String)>,
}

impl Own {
    /// What `expires` and an `add_header Cache-Control` say together: there they are two lines of one field, here a header of this
    /// name takes the place of `cache`. Whether only the header is left.
    pub(super) fn join_cache(&mut self) -> bool {
        let is_it =
            |(name, _): &(String, Option<String>)| name.eq_ignore_ascii_case("cache-control");
        let at = self.headers.iter().position(is_it);
        let (Some(_), Some(at)) = (&self.cache, at) else {
            return false;
        };
        let said = self.headers[at].1.as_deref().unwrap_or_default();
        // What has an age may be kept by everybody (RFC 9111 §3).
        let words = said.split(',').map(str::trim);
        let words: Vec<&str> = words
            .filter(|word| !word.is_empty() && *word != "public")
            .collect();
        match words.as_slice() {
            [] => {}
            ["immutable"] => self.cache = Some("\"immutable\"".to_owned()),
            _ => {
                self.cache = None;
                return true;
            }
        }
        self.headers.remove(at);
        false
    }

    /// Whether it keeps anybody out.
    pub(super) fn guards(&self) -> bool {
        self.shut
            || self.deny_all
            || self.internal
            || self.realm.is_some()
            || !self.allow.is_empty()
            || !self.deny.is_empty()
    }
}

impl Scope {
    /// The same for a place inside.
    pub(super) fn inside(&self) -> Self {
        Self {
            own: Own::default(),
            ..self.clone()
        }
    }

    /// What a site or a route says of who may come in, and of responses.
    pub(super) fn write(&self, keys: &mut Keys) {
        let Own {
            headers,
            allow,
            deny,
            realm,
            auth_off,
            any,
            shut,
            limits,
            ..
        } = &self.own;
        if !headers.is_empty() {
            let value =
                |value: &Option<String>| value.as_deref().map_or_else(|| "false".to_owned(), text);
            let pairs: Vec<String> = headers
                .iter()
                .map(|(name, said)| format!("{} = {}", text(name), value(said)))
                .collect();
            keys.set("headers", format!("{{ {} }}", pairs.join(", ")));
        }
        if !allow.is_empty() {
            keys.set_list("allow", allow);
        }
        let nobody = *shut || self.own.deny_all && allow.is_empty();
        if nobody {
            keys.set("deny", EVERYBODY);
        } else if !deny.is_empty() {
            keys.set_list("deny", deny);
        }
        let has_auth = match (&self.user_file, realm, auth_off) {
            (_, _, true) => {
                keys.set_text("auth", "off");
                false
            }
            (Some(file), Some(realm), false) => {
                let plain = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
                let realm: String = realm.chars().filter(plain).collect();
                keys.set(
                    "auth",
                    format!("{{ basic = {}, realm = {} }}", text(file), text(&realm)),
                );
                true
            }
            _ => false,
        };
        if *any && has_auth && (nobody || !(allow.is_empty() && deny.is_empty())) {
            keys.set_text("satisfy", "any");
        }
        match limits.as_slice() {
            [] => {}
            [one] => keys.set_text("limit", one),
            several => keys.set_list("limit", several),
        }
    }
}

/// What `deny` says of everybody.
pub(super) const EVERYBODY: &str = "[\"0.0.0.0/0\", \"::/0\"]";

/// Directives that keep people out by what there is not here.
const GUARDS: [&str; 7] = [
    "auth_request",
    "auth_jwt",
    "auth_pam",
    "auth_ldap",
    "auth_digest",
    "access_by_lua",
    "secure_link",
];

impl Translator<'_> {
    /// Takes what may stand anywhere; whether it was that.
    pub(super) fn common(&mut self, directive: &Directive, scope: &mut Scope) -> bool {
        let first = directive.word(0);
        let own = &mut scope.own;
        match directive.name.as_str() {
            "root" => {
                if first.contains('$') {
                    self.left(directive, "a folder has no variables in its path");
                } else {
                    scope.root = Some(self.absolute(first));
                }
            }
            "index" => {
                let plain = |name: &&String| !name.contains(['/', '$']) && !name.ends_with(".php") && !name.starts_with('.') && !name.is_empty();
                scope.index = Some(directive.words.iter().filter(plain).cloned().collect());
            }
            "client_max_body_size" => match size(first) {
                Some(0) => self.left(directive, "no limit has no twin: write how much an upload may have, such as `body = \"1GiB\"` (it is 16MiB else)"),
                Some(bytes) => own.body = Some(bytes),
                None => self.left(directive, "this is no size"),
            },
            "proxy_read_timeout" | "uwsgi_read_timeout" | "grpc_read_timeout" => {
                self.time(directive, &mut scope.read_timeout);
            }
            "proxy_connect_timeout" | "uwsgi_connect_timeout" => self.time(directive, &mut scope.connect_timeout),
            "proxy_request_buffering" => scope.unbuffered = first == "off",
            "gzip" => scope.compress = Some(first != "off"),
            "add_header" => self.add_header(directive, own),
            "proxy_hide_header" | "uwsgi_hide_header" => set_header(own, first, None),
            "expires" => self.expires(directive, own),
            "autoindex" => own.listing = first == "on",
            "internal" => own.internal = true,
            "allow" if first == "all" => {}
            "allow" => {
                let before = own.allow.len();
                self.network(directive, &mut own.allow);
                // Whom it would let in nobody knows, so nobody comes in.
                own.deny_all |= own.allow.len() == before;
            }
            "deny" if first == "all" => own.deny_all = true,
            "deny" => {
                let before = own.deny.len();
                self.network(directive, &mut own.deny);
                own.shut |= own.deny.len() == before;
            }
            "satisfy" => own.any = first == "any",
            "auth_basic" if first == "off" => own.auth_off = true,
            "auth_basic" => own.realm = Some(first.to_owned()),
            "auth_basic_user_file" => {
                scope.user_file = Some(self.absolute(first));
                // Whoever names the file here alone has the realm from outside.
            }
            "limit_req" => self.limit_req(directive, own),
            "limit_conn" => self.limit_conn(directive),
            "error_page" => self.error_page(directive, scope),
            "access_log" => self.access_log(directive),
            "error_log" => self.error_log(directive),
            "proxy_set_header" | "uwsgi_param" | "grpc_set_header" if is_usual_header(first, directive.word(1)) => {
                self.itself(directive, "apps know their clients without it, and upgrades pass by themselves");
            }
            "proxy_ssl_trusted_certificate" => self.left(directive, "`[upstream.NAME] ca = …` for a member over TLS"),
            name if GUARDS.iter().any(|guard| name.starts_with(guard)) && first != "off" => {
                own.shut = true;
                self.left(directive, &format!("{}: shut by `deny` until you write it", words::instead(name)));
            }
            name => match words::by_itself(name) {
                Some(why) => self.itself(directive, why),
                None => return false,
            },
        }
        true
    }

    fn time(&mut self, directive: &Directive, into: &mut Option<String>) {
        match time(&directive.words.join(" ")) {
            Some(value) if value != "\"0s\"" => *into = Some(value),
            _ => self.left(directive, "this is no time"),
        }
    }

    fn network(&mut self, directive: &Directive, into: &mut Vec<String>) {
        let first = directive.word(0);
        let is_network = first.parse::<std::net::IpAddr>().is_ok()
            || first.split_once('/').is_some_and(|(address, length)| {
                address.parse::<std::net::IpAddr>().is_ok() && length.parse::<u8>().is_ok()
            });
        match is_network {
            true => into.push(first.to_owned()),
            false => self.left(
                directive,
                "only addresses and networks can be let in or kept out",
            ),
        }
    }

    fn add_header(&mut self, directive: &Directive, own: &mut Own) {
        let (name, value) = (directive.word(0), directive.word(1));
        if value.contains('$') {
            return self.left(directive, "a header has no variables: let the app set it");
        }
        if name.eq_ignore_ascii_case("strict-transport-security") {
            match hsts(value) {
                Some(hsts) => own.hsts = Some(hsts),
                None => self.left(directive, "`hsts = \"1y\"` says it"),
            }
            return;
        }
        if value.is_empty() {
            return self.left(directive, "a header without a value is not sent");
        }
        set_header(own, name, Some(value));
    }

    fn expires(&mut self, directive: &Directive, own: &mut Own) {
        let value = directive
            .words
            .iter()
            .map(String::as_str)
            .filter(|word| *word != "modified")
            .collect::<Vec<_>>()
            .join(" ");
        own.cache = match value.as_str() {
            "off" => None,
            "max" => Some("\"10y\"".to_owned()),
            "epoch" => Some("\"0s\"".to_owned()),
            value if value.starts_with('-') => Some("\"0s\"".to_owned()),
            value => {
                let time = time(value.trim_start_matches('+'));
                if time.is_none() {
                    self.left(directive, "`cache` of a route with `files` is one time");
                }
                time
            }
        };
    }

    fn limit_req(&mut self, directive: &Directive, own: &mut Own) {
        let value = |key: &str| {
            directive
                .words
                .iter()
                .find_map(|word| word.strip_prefix(key))
        };
        let zone = value("zone=").unwrap_or_default();
        let Some((key, rate)) = self.zones.get(zone).cloned() else {
            return self.left(
                directive,
                "its zone is in none of these files: `limit = \"10/s burst 20\"`",
            );
        };
        let by = match key.as_str() {
            "$binary_remote_addr" | "$remote_addr" => None,
            "$uri" | "$request_uri" => Some("path".to_owned()),
            key => match key.strip_prefix("$http_") {
                Some(name) if !name.is_empty() => Some(format!("header:{}", name.replace('_', "-"))),
                _ => return self.left(directive, "limits count by address, by path or by a field, such as `by = \"header:X-Api-Key\"`"),
            },
        };
        let burst = value("burst=")
            .and_then(|burst| burst.parse::<u32>().ok())
            .filter(|burst| *burst > 0);
        let rate = match burst {
            Some(burst) => format!("{rate} burst {burst}"),
            None => rate,
        };
        match by {
            None => own.limits.push(rate),
            Some(by) => self.left(
                directive,
                &format!("`limit = {{ rate = {rate:?}, by = {by:?} }}`"),
            ),
        }
    }

    fn limit_conn(&mut self, directive: &Directive) {
        let (zone, most) = (directive.word(0), directive.word(1));
        let key = self.zones.get(zone).map(|(key, _)| key.clone());
        match (key.as_deref(), most.parse::<u32>()) {
            (Some("$binary_remote_addr" | "$remote_addr"), Ok(most))
                if most > 0 && !self.draft.limits.has("connections_per_client") =>
            {
                self.draft
                    .limits
                    .set("connections_per_client", most.to_string());
            }
            _ => self.left(
                directive,
                "`[limits] connections_per_client` counts connections of a client, over all sites",
            ),
        }
    }

    fn error_page(&mut self, directive: &Directive, scope: &mut Scope) {
        let Some((page, statuses)) = directive.words.split_last() else {
            return self.left(directive, "there is no page in it");
        };
        let is_status = |status: &String| {
            status
                .parse()
                .is_ok_and(|status: u16| (400..=599).contains(&status))
        };
        if !page.starts_with('/') || page.contains('$') || !statuses.iter().all(is_status) {
            return self.left(
                directive,
                "`errors = { 404 = \"404.html\" }` names files for statuses of 400 and more",
            );
        }
        for status in statuses {
            scope.own.errors.push((status.clone(), page.clone()));
        }
    }

    fn access_log(&mut self, directive: &Directive) {
        let file = directive.word(0);
        let said = match file {
            "off" if self.in_location => {
                return self.itself(
                    directive,
                    "every request is in the log: leave lines out where it is read",
                );
            }
            "off" => text("off"),
            file if file.starts_with("syslog:") || file.contains('$') => {
                return self.left(
                    directive,
                    "the access log goes to a file, or to standard output for the journal",
                );
            }
            "/dev/stdout" => text("stdout"),
            file => {
                let format = directive.word(1);
                let known = match format {
                    "" | "combined" => Some("combined".to_owned()),
                    name => self.formats.get(name).cloned(),
                };
                let Some(format) = known else {
                    return self.left(directive, "its format cannot be translated (docs/logs.md has the names that there are)");
                };
                format!(
                    "{{ file = {}, format = {} }}",
                    text(&self.absolute(file)),
                    text(&format)
                )
            }
        };
        // A location's `off` is for noise.
        match self.draft.server.get("access_log") {
            None if !self.in_location => self.draft.server.set("access_log", said),
            Some(before) if before == said => {}
            _ => self.left(
                directive,
                "there is one access log, with the host in each line of `format = \"json\"`",
            ),
        }
    }

    fn error_log(&mut self, directive: &Directive) {
        let file = directive.word(0);
        if self.draft.server.has("log") || !file.starts_with('/') || file.starts_with("/dev/") {
            return self.left(directive, "the log of errors goes to standard error and the journal; `[server] log` names one file for all");
        }
        let level = match directive.word(1) {
            "debug" => "debug",
            "" | "error" | "crit" | "alert" | "emerg" => "error",
            "info" | "notice" => "info",
            _ => "warn",
        };
        // What nginx calls errors are requests that fail; with us those are in the access log.
        let level = if level == "error" { "warn" } else { level };
        self.draft.server.set(
            "log",
            format!("{{ level = {}, file = {} }}", text(level), text(file)),
        );
    }

    /// What a site or a route says of the largest content.
    pub(super) fn body(&mut self, bytes: u64) -> String {
        self.largest = self.largest.max(bytes);
        format!("{{ body = {} }}", show_size(bytes))
    }
}

fn set_header(own: &mut Own, name: &str, value: Option<&str>) {
    own.headers
        .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    own.headers
        .push((name.to_owned(), value.map(str::to_owned)));
}

/// What every how-to sets, and what apps know here without it.
fn is_usual_header(name: &str, value: &str) -> bool {
    let usual = [
        "host",
        "x-real-ip",
        "upgrade",
        "connection",
        "x-request-id",
        "x-scheme",
        "accept-encoding",
        "forwarded",
    ];
    let name = name.to_ascii_lowercase();
    usual.contains(&name.as_str()) && (name != "host" || value.starts_with('$'))
        || name.starts_with("x-forwarded-")
        || name == "x-url-scheme"
}

/// `max-age=31536000; includeSubDomains; preload`.
fn hsts(value: &str) -> Option<String> {
    let parts: Vec<String> = value
        .split(';')
        .map(|part| part.trim().to_ascii_lowercase())
        .collect();
    let age = parts
        .iter()
        .find_map(|part| part.strip_prefix("max-age="))?;
    let seconds: u64 = age.trim_matches('"').parse().ok().filter(|age| *age > 0)?;
    let age = time(&seconds.to_string())?;
    let has = |name: &str| parts.iter().any(|part| part == name);
    let subdomains = has("includesubdomains");
    // Browsers preload only what holds for a year and for subdomains.
    let preload = has("preload") && subdomains && seconds >= 31_536_000;
    Some(match (subdomains, preload) {
        (false, _) => age,
        (true, false) => format!("{{ age = {age}, subdomains = true }}"),
        (true, true) => format!("{{ age = {age}, subdomains = true, preload = true }}"),
    })
}

/// `rate` and what is counted, of a `limit_req_zone` or `limit_conn_zone`.
pub(super) fn zone(directive: &Directive) -> Option<(String, (String, String))> {
    let value = |key: &str| {
        directive
            .words
            .iter()
            .find_map(|word| word.strip_prefix(key))
    };
    let name = value("zone=")?.split(':').next()?.to_owned();
    let rate = match value("rate=") {
        Some(text) => rate(text)?,
        None => String::new(),
    };
    Some((name, (directive.word(0).to_owned(), rate)))
}
