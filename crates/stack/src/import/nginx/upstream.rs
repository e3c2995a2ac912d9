//! Who answers behind the proxy: upstreams, and apps that were behind gunicorn.

use super::{
    super::draft::{AppDraft, Keys},
    Translator,
    scope::Scope,
    syntax::Directive,
    values::time,
};
use crate::serve::text;

/// Where a route passes requests on to.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// `app` or `upstream`.
    pub(super) key: &'static str,
    /// Its value, in TOML.
    pub(super) value: String,
    /// Whether it sees the path without the route's own.
    pub(super) strip: bool,
}

/// An `upstream` block.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// As a `proxy_pass` would name them.
    members: Vec<String>,
    keys: Keys,
}

impl Translator<'_> {
    /// An `upstream` block.
    pub(super) fn group(&mut self, directive: &Directive) {
        let mut group = Group::default();
        for inner in directive.block.as_deref().unwrap_or_default() {
            match inner.name.as_str() {
                "server" => self.member(inner, &mut group),
                "keepalive" if inner.word(0).parse::<u16>().is_ok() => {
                    group.keys.set("idle_connections", inner.word(0))
                }
                "keepalive_timeout" | "keepalive_requests" | "keepalive_time" => {
                    self.itself(
                        inner,
                        "connections are let go of before the other side does (`idle_timeout`)",
                    );
                }
                "least_conn" | "zone" | "random" | "queue" => {
                    self.itself(inner, "the member with the fewest requests gets the next");
                }
                _ => self.unknown(inner),
            }
        }
        self.groups.insert(directive.word(0).to_owned(), group);
    }

    fn member(&mut self, directive: &Directive, group: &mut Group) {
        let (address, options) = match directive.words.split_first() {
            Some((address, options)) => (address.as_str(), options),
            None => return self.left(directive, "there is no address in it"),
        };
        for option in options {
            match option.split_once('=') {
                Some(("fail_timeout", value)) => {
                    match time(value).filter(|time| time != "\"0s\"") {
                        Some(time) => group.keys.set("retry_after", time),
                        None => {
                            self.itself(directive, "a member that fails is passed over for a while")
                        }
                    }
                }
                Some(("max_fails" | "max_conns" | "slow_start", _)) => self.itself(
                    directive,
                    "a member that fails is passed over for a while (`retry_after`)",
                ),
                _ if option == "down" => {
                    return self.itself(directive, "a member that is down is left out");
                }
                _ => self.left(
                    directive,
                    "members are alike: the one with the fewest requests gets the next",
                ),
            }
        }
        group.members.push(address.to_owned());
    }

    /// What a `proxy_pass`, `uwsgi_pass` or `grpc_pass` leads to.
    pub(super) fn pass(
        &mut self,
        directive: &Directive,
        scope: &Scope,
        pattern: &str,
    ) -> Option<Pass> {
        let way = match Way::of(directive, pattern) {
            Ok(way) => way,
            Err(why) => {
                self.left(directive, why);
                return None;
            }
        };
        let group = match self.groups.get(&way.target) {
            Some(group) => group.clone(),
            None => Group {
                members: vec![way.target.clone()],
                keys: Keys::default(),
            },
        };
        if group.members.is_empty() {
            self.left(directive, "its upstream has no member that is not down");
            return None;
        }
        let (key, value) = match self.app_behind(directive, &group.members) {
            Some(app) => {
                self.app_timeout(&app, scope);
                ("app", text(&app))
            }
            None => ("upstream", self.upstream(directive, scope, &way, &group)?),
        };
        Some(Pass {
            key,
            value,
            strip: way.strip,
        })
    }

    /// The app that is one of these: one that was read, or, by a protocol that only apps are spoken to in, one to be named.
    fn app_behind(&mut self, directive: &Directive, members: &[String]) -> Option<String> {
        match self.app_at(members) {
            None if is_uwsgi(directive) => Some(self.unknown_app(directive)),
            found => found,
        }
    }

    /// The upstream of these members, as a route names it: by its address where there is no more to say of it.
    fn upstream(
        &mut self,
        directive: &Directive,
        scope: &Scope,
        way: &Way,
        group: &Group,
    ) -> Option<String> {
        let named = &group.members;
        if named.iter().any(|member| looks_like_gunicorn(member)) {
            self.left(
                directive,
                "if gunicorn is there, stack runs the app itself: import its gunicorn.conf.py or systemd unit along, or write `app = \"web\"` and `[app.web]`",
            );
        }
        let members = named
            .iter()
            .filter_map(|member| address(way.scheme, member));
        let members: Vec<String> = members.collect();
        let is_unix = |member: &String| member.starts_with("unix:");
        if members.is_empty() || way.scheme != "http" && members.iter().any(is_unix) {
            self.left(directive, "this is no address of a server");
            return None;
        }
        let keys = upstream_keys(&members, scope, group);
        let told = [
            "connect_timeout",
            "timeout",
            "idle_connections",
            "retry_after",
        ];
        Some(match members.as_slice() {
            [one] if !told.iter().any(|key| keys.has(key)) => text(one),
            _ => text(&self.named(&way.target, keys)),
        })
    }

    /// The name of an upstream with these keys.
    fn named(&mut self, target: &str, keys: Keys) -> String {
        if let Some((name, _)) = self
            .draft
            .upstreams
            .iter()
            .find(|(_, known)| *known == keys)
        {
            return name.clone();
        }
        let base = name_of(target);
        let taken = |name: &str| self.draft.upstreams.iter().any(|(known, _)| known == name);
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut names = std::iter::once(base.clone()).chain(numbered);
        let name = names.find(|name| !taken(name)).unwrap_or(base);
        self.draft.upstreams.push((name.clone(), keys));
        name
    }

    /// The app that was listening where one of these is.
    fn app_at(&self, members: &[String]) -> Option<String> {
        let apps = self.draft.apps.iter();
        let mut found = apps.filter(|(_, app)| {
            app.binds
                .iter()
                .any(|bind| members.iter().any(|member| same_place(bind, member)))
        });
        found.next().map(|(name, _)| name.clone())
    }

    /// The place of an app of which nothing is known.
    fn unknown_app(&mut self, directive: &Directive) -> String {
        const NAME: &str = "web";
        self.left(directive, "the uwsgi protocol is not spoken: stack runs the app itself. Write its `wsgi` and `root` into [app.web]");
        if !self.draft.apps.iter().any(|(name, _)| name == NAME) {
            let app = AppDraft {
                lines: "wsgi = \"app:app\"              # module:attribute\n".to_owned(),
                binds: Vec::new(),
            };
            self.draft.apps.push((NAME.to_owned(), app));
        }
        NAME.to_owned()
    }

    fn app_timeout(&mut self, name: &str, scope: &Scope) {
        let app = self.draft.apps.iter_mut().find(|(known, _)| known == name);
        if let (Some((_, app)), Some(time)) = (app, &scope.read_timeout)
            && !app.lines.lines().any(|line| line.starts_with("timeout ="))
        {
            app.lines.push_str(&format!("timeout = {time}\n"));
        }
    }
}

/// Where a `proxy_pass` and such say that requests go.
#[derive(Debug)]
struct Way {
    /// As our addresses have it.
    scheme: &'static str,
    /// The name of a group, or an address.
    target: String,
    /// Whether the path of the location is taken off.
    strip: bool,
}

impl Way {
    /// Of a directive in a location of this pattern, or why there is nothing like it here.
    fn of(directive: &Directive, pattern: &str) -> Result<Self, &'static str> {
        let url = directive.word(0);
        let (scheme, rest) = scheme_of(directive)
            .ok_or("an upstream is `http://host:port`, `https://…`, `h2c://…` or `unix:/path`")?;
        if url.contains('$') {
            return Err("an upstream is written, not put together from a request");
        }
        let (target, uri) = match rest
            .strip_prefix("unix:")
            .or_else(|| url.strip_prefix("unix:"))
        {
            Some(path) => {
                let path = path.trim_start_matches("//");
                // `unix:/run/x.sock:/uri`.
                let (path, uri) = path.split_once(':').unwrap_or((path, ""));
                (format!("unix:/{}", path.trim_start_matches('/')), uri)
            }
            None => {
                let (host, uri) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (host.to_owned(), uri)
            }
        };
        let strip = match uri {
            "" => false,
            uri if uri == pattern => false,
            "/" => pattern != "/",
            _ => {
                return Err(
                    "a path can be taken off (`strip`), not be replaced by another: let the app or upstream answer at this one",
                );
            }
        };
        Ok(Self {
            scheme,
            target,
            strip,
        })
    }
}

/// The scheme of ours that members are spoken to in, and what stands behind nginx's.
fn scheme_of(directive: &Directive) -> Option<(&'static str, &str)> {
    let url = directive.word(0);
    Some(match url.split_once("://") {
        Some(("http" | "uwsgi", rest)) => ("http", rest),
        Some(("https", rest)) => ("https", rest),
        Some(("grpc", rest)) => ("h2c", rest),
        Some(("grpcs", rest)) => ("h2", rest),
        _ if is_uwsgi(directive) && url.starts_with("unix:") => ("http", url),
        None if is_uwsgi(directive) => ("http", url),
        None if directive.name == "grpc_pass" => ("h2c", url),
        _ => return None,
    })
}

fn is_uwsgi(directive: &Directive) -> bool {
    directive.name == "uwsgi_pass"
}

/// The table of an upstream.
fn upstream_keys(members: &[String], scope: &Scope, group: &Group) -> Keys {
    let mut keys = Keys::default();
    keys.set_list("members", members);
    if let Some(time) = &scope.connect_timeout {
        keys.set("connect_timeout", time.clone());
    }
    if let Some(time) = &scope.read_timeout {
        keys.set("timeout", time.clone());
        keys.set("read_timeout", time.clone());
    }
    for key in ["idle_connections", "retry_after"] {
        if let Some(value) = group.keys.get(key) {
            keys.set(key, value);
        }
    }
    keys
}

/// As `members` has it.
fn address(scheme: &str, member: &str) -> Option<String> {
    if let Some(path) = member.strip_prefix("unix:") {
        return path.starts_with('/').then(|| member.to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if member.is_empty() || !member.chars().all(plain) {
        return None;
    }
    let host = member.rsplit_once(']').map_or(member, |(_, rest)| rest);
    let port = match scheme {
        "https" | "h2" => 443,
        _ => 80,
    };
    Some(match host.contains(':') {
        true => format!("{scheme}://{member}"),
        false => format!("{scheme}://{member}:{port}"),
    })
}

/// Whether an address that a server binds is one that a client names.
fn same_place(bind: &str, member: &str) -> bool {
    if bind == member {
        return true;
    }
    let (Some((host, port)), Some((other, same))) =
        (bind.rsplit_once(':'), member.rsplit_once(':'))
    else {
        return false;
    };
    let is_here = |host: &str| {
        matches!(
            host,
            "" | "0.0.0.0" | "127.0.0.1" | "localhost" | "[::]" | "[::1]"
        )
    };
    !bind.starts_with("unix:") && port == same && is_here(host) && is_here(other)
}

fn looks_like_gunicorn(member: &str) -> bool {
    let local = ["127.0.0.1:8000", "localhost:8000", "0.0.0.0:8000"];
    member.starts_with("unix:") || local.contains(&member)
}

/// A name for a table.
fn name_of(target: &str) -> String {
    let base = target.rsplit('/').next().unwrap_or(target);
    let base = base.trim_end_matches(".sock").to_ascii_lowercase();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '-'
        }
    };
    let name: String = base.chars().map(plain).collect();
    match name.trim_matches('-') {
        "" => "upstream".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_binds_is_who_is_asked() {
        for (bind, member, same) in [
            ("unix:/run/g.sock", "unix:/run/g.sock", true),
            ("unix:/run/g.sock", "unix:/run/h.sock", false),
            ("127.0.0.1:8000", "localhost:8000", true),
            ("0.0.0.0:8000", "127.0.0.1:8000", true),
            (":8000", "127.0.0.1:8000", true),
            ("127.0.0.1:8000", "127.0.0.1:8001", false),
            ("127.0.0.1:8000", "app:8000", false),
        ] {
            assert_eq!(same_place(bind, member), same, "{bind} {member}");
        }
        assert_eq!(address("http", "app"), Some("http://app:80".to_owned()));
        assert_eq!(
            address("https", "[::1]"),
            Some("https://[::1]:443".to_owned())
        );
        assert_eq!(
            address("http", "[::1]:9"),
            Some("http://[::1]:9".to_owned())
        );
        assert_eq!(address("http", "a b"), None);
        assert_eq!(name_of("unix:/run/My.App.sock"), "my-app");
        assert_eq!(name_of("10.0.0.5:3000"), "10-0-0-5-3000");
    }
}
