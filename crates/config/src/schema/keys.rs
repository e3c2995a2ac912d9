//! Every key that the file may have, and what is said about one that it may not have.

use crate::error::Mistake;

/// The keys of one kind of table.
#[derive(Debug)]
pub(crate) struct Keys {
    /// For people: "`[server]`", "a route".
    pub(crate) place: &'static str,
    /// In the order of the reference.
    pub(crate) names: &'static [&'static str],
    /// What others call our keys, and what ours is.
    foreign: &'static [(&'static str, &'static str)],
    /// Keys of the plan that this version does not have.
    later: &'static [&'static str],
}

pub(crate) static FILE: Keys = Keys {
    place: "the file",
    names: &["server", "limits", "acme", "app", "upstream", "site"],
    foreign: &[
        ("apps", "app"),
        ("sites", "site"),
        ("host", "site"),
        ("upstreams", "upstream"),
        ("letsencrypt", "acme"),
    ],
    later: &[],
};

pub(crate) static ACME: Keys = Keys {
    place: "`[acme]`",
    names: &["email", "directory", "profile", "ca", "eab", "state"],
    foreign: &[
        ("contact", "email"),
        ("mail", "email"),
        ("server", "directory"),
        ("url", "directory"),
        ("acme_ca", "directory"),
        ("ca_server", "directory"),
        ("acme_ca_root", "ca"),
        ("ca_root", "ca"),
        ("root", "ca"),
        ("preferred_profile", "profile"),
        ("external_account", "eab"),
        ("external_account_binding", "eab"),
        ("storage", "state"),
        ("dir", "state"),
    ],
    later: &[],
};

pub(crate) static SERVER: Keys = Keys {
    place: "`[server]`",
    names: &[
        "http",
        "https",
        "trusted_proxies",
        "forwarded",
        "forwarded_host",
        "access_log",
        "log",
        "redact",
        "server_header",
        "h2c",
        "unknown_names",
        "spool",
        "admin",
        "metrics",
        "traces",
        "user",
        "group",
        "landlock",
        "seccomp",
    ],
    foreign: &[
        ("listen", "http"),
        ("bind", "http"),
        ("forwarded_allow_ips", "trusted_proxies"),
        ("set_real_ip_from", "trusted_proxies"),
        ("real_ip_header", "forwarded"),
        ("accesslog", "access_log"),
        ("client_body_temp_path", "spool"),
        ("proxy_temp_path", "spool"),
        ("temp_dir", "spool"),
        ("error_log", "log"),
        ("errorlog", "log"),
        ("loglevel", "log"),
        ("server_tokens", "server_header"),
        ("ssl_reject_handshake", "unknown_names"),
    ],
    later: &[],
};

pub(crate) static LISTENER: Keys = Keys {
    place: "a listener",
    names: &["listen", "proxy_protocol"],
    foreign: &[
        ("address", "listen"),
        ("bind", "listen"),
        ("port", "listen"),
    ],
    later: &[],
};

pub(crate) static ACCESS_LOG: Keys = Keys {
    place: "`access_log`",
    names: &["file", "format", "rotate"],
    foreign: &[("path", "file")],
    later: &[],
};

pub(crate) static ROTATE: Keys = Keys {
    place: "`rotate`",
    names: &["size", "age", "keep"],
    foreign: &[("max_size", "size"), ("interval", "age"), ("count", "keep")],
    later: &[],
};

pub(crate) static LOG: Keys = Keys {
    place: "`log`",
    names: &["level", "format", "file"],
    foreign: &[("path", "file"), ("filter", "level")],
    later: &[],
};

pub(crate) static LIMITS: Keys = Keys {
    place: "`[limits]`",
    names: &[
        "request_line",
        "head",
        "fields",
        "proxy_protocol_timeout",
        "handshakes",
        "handshake_timeout",
        "head_timeout",
        "body_timeout",
        "body_rate",
        "body",
        "body_memory",
        "response_memory",
        "response_disk",
        "buffers_memory",
        "buffers_disk",
        "file_memory",
        "file_watches",
        "encoders",
        "send_timeout",
        "keepalive_timeout",
        "keepalive_requests",
        "keepalive_age",
        "queue_timeout",
        "queue_length",
        "queue_per_client",
        "queue_target",
        "h2_streams",
        "h2_resets",
        "h2_pings",
        "h2_empty_data",
        "h2_window_updates",
        "connections",
        "connections_per_client",
        "limit_clients",
        "tunnel_timeout",
        "drain_timeout",
    ],
    foreign: &[
        ("client_max_body_size", "body"),
        ("client_body_timeout", "body_timeout"),
        ("client_header_timeout", "head_timeout"),
        ("keepalive", "keepalive_timeout"),
        ("graceful_timeout", "drain_timeout"),
        ("worker_connections", "connections"),
        ("client_body_buffer_size", "body_memory"),
        ("proxy_max_temp_file_size", "response_disk"),
        ("limit_conn", "connections_per_client"),
        ("maxqueue", "queue_length"),
        ("limit_request_line", "request_line"),
        ("limit_request_fields", "fields"),
        ("headers", "fields"),
    ],
    later: &[],
};

pub(crate) static PART: Keys = Keys {
    place: "`limits` of a site or a route",
    names: &[
        "body_timeout",
        "body_rate",
        "body",
        "body_memory",
        "response_memory",
        "response_disk",
        "queue_timeout",
        "queue_length",
        "queue_per_client",
        "queue_target",
    ],
    foreign: &[("client_max_body_size", "body")],
    later: &[],
};

pub(crate) static APP: Keys = Keys {
    place: "`[app.NAME]`",
    names: &[
        "wsgi",
        "root",
        "venv",
        "python",
        "workers",
        "threads",
        "streams",
        "env",
        "env_file",
        "sendfile",
        "timeout",
        "boot_timeout",
        "on_start",
        "on_stop",
        "user",
        "group",
        "umask",
        "max_requests",
        "max_rss",
        "max_age",
        "memory_max",
        "nofile",
        "private_tmp",
        "reload",
        "before_reload",
        "before_reload_timeout",
    ],
    foreign: &[
        ("module", "wsgi"),
        ("callable", "wsgi"),
        ("wsgi_app", "wsgi"),
        ("chdir", "root"),
        ("directory", "root"),
        ("pythonpath", "root"),
        ("virtualenv", "venv"),
        ("processes", "workers"),
        ("environment", "env"),
        ("raw_env", "env"),
        ("harakiri", "timeout"),
        ("uid", "user"),
        ("gid", "group"),
        ("max_memory", "max_rss"),
        ("reload_on_rss", "max_rss"),
        ("workers_lifetime", "max_age"),
        ("max_worker_lifetime", "max_age"),
        ("workers_max_rss", "max_rss"),
    ],
    later: &["listen"],
};

pub(crate) static UPSTREAM: Keys = Keys {
    place: "`[upstream.NAME]`",
    names: &[
        "members",
        "ca",
        "connect_timeout",
        "timeout",
        "read_timeout",
        "connections",
        "idle_connections",
        "idle_timeout",
        "retry_after",
    ],
    foreign: &[
        ("servers", "members"),
        ("server", "members"),
        ("proxy_ssl_trusted_certificate", "ca"),
        ("proxy_connect_timeout", "connect_timeout"),
        ("proxy_read_timeout", "read_timeout"),
        ("keepalive", "idle_connections"),
        ("keepalive_timeout", "idle_timeout"),
        ("max_conns", "connections"),
        ("fail_timeout", "retry_after"),
    ],
    later: &[],
};

pub(crate) static SITE: Keys = Keys {
    place: "`[[site]]`",
    names: &[
        "hosts",
        "tls",
        "client_ca",
        "client_auth",
        "hsts",
        "headers",
        "security_headers",
        "allow",
        "deny",
        "auth",
        "satisfy",
        "limit",
        "cors",
        "errors",
        "maintenance",
        "health",
        "limits",
        "routes",
    ],
    foreign: &[
        ("client_max_body_size", "limits"),
        ("health_check", "health"),
        ("healthcheck", "health"),
        ("limit_req", "limit"),
        ("rate_limit", "limit"),
        ("auth_basic", "auth"),
        ("basic_auth", "auth"),
        ("error_page", "errors"),
        ("error_pages", "errors"),
        ("server_name", "hosts"),
        ("domains", "hosts"),
        ("names", "hosts"),
        ("ssl", "tls"),
        ("ssl_client_certificate", "client_ca"),
        ("ca_certs", "client_ca"),
        ("ssl_verify_client", "client_auth"),
        ("cert_reqs", "client_auth"),
        ("strict_transport_security", "hsts"),
        ("locations", "routes"),
    ],
    later: &[],
};

pub(crate) static TLS: Keys = Keys {
    place: "`tls`",
    names: &["cert", "key", "ocsp"],
    foreign: &[
        ("certificate", "cert"),
        ("certfile", "cert"),
        ("fullchain", "cert"),
        ("ssl_certificate", "cert"),
        ("keyfile", "key"),
        ("privkey", "key"),
        ("ssl_certificate_key", "key"),
        ("ssl_stapling_file", "ocsp"),
    ],
    later: &[],
};

pub(crate) static EAB: Keys = Keys {
    place: "`eab`",
    names: &["key_id", "mac_key"],
    foreign: &[
        ("kid", "key_id"),
        ("id", "key_id"),
        ("hmac", "mac_key"),
        ("hmac_key", "mac_key"),
        ("key", "mac_key"),
    ],
    later: &[],
};

pub(crate) static HSTS: Keys = Keys {
    place: "`hsts`",
    names: &["age", "subdomains", "preload"],
    foreign: &[
        ("max_age", "age"),
        ("include_subdomains", "subdomains"),
        ("includesubdomains", "subdomains"),
    ],
    later: &[],
};

pub(crate) static ROUTE: Keys = Keys {
    place: "a route",
    names: &[
        "path",
        "app",
        "files",
        "index",
        "fallback",
        "listing",
        "cache",
        "types",
        "symlinks",
        "compress",
        "upstream",
        "internal",
        "redirect",
        "respond",
        "strip",
        "headers",
        "status",
        "type",
        "queue",
        "request_buffering",
        "limits",
        "security_headers",
        "allow",
        "deny",
        "auth",
        "satisfy",
        "limit",
        "cors",
    ],
    foreign: &[
        ("limit_req", "limit"),
        ("rate_limit", "limit"),
        ("auth_basic", "auth"),
        ("basic_auth", "auth"),
        ("location", "path"),
        ("root", "files"),
        ("alias", "files"),
        ("static", "files"),
        ("to", "redirect"),
        ("proxy_request_buffering", "request_buffering"),
        ("proxy_pass", "upstream"),
        ("client_max_body_size", "limits"),
        ("proxy", "upstream"),
        ("return", "respond"),
        ("strip_prefix", "strip"),
        ("add_header", "headers"),
        ("header", "headers"),
        ("expires", "cache"),
        ("max_age", "cache"),
        ("gzip", "compress"),
        ("brotli", "compress"),
        ("encode", "compress"),
        ("autoindex", "listing"),
        ("browse", "listing"),
        ("try_files", "fallback"),
        ("spa", "fallback"),
        ("mime_types", "types"),
        ("follow_symlinks", "symlinks"),
        ("content_type", "type"),
    ],
    later: &[],
};

pub(crate) static AUTH: Keys = Keys {
    place: "`auth`",
    names: &[
        "basic", "realm", "forward", "upstream", "timeout", "copy", "user",
    ],
    foreign: &[
        ("auth_request", "forward"),
        ("address", "forward"),
        ("url", "forward"),
        ("copy_headers", "copy"),
        ("headers", "copy"),
        ("authresponseheaders", "copy"),
        ("users", "basic"),
        ("file", "basic"),
        ("htpasswd", "basic"),
        ("auth_basic_user_file", "basic"),
    ],
    later: &[],
};

pub(crate) static LIMIT: Keys = Keys {
    place: "`limit`",
    names: &["rate", "by", "ban", "ban_after"],
    foreign: &[
        ("zone", "by"),
        ("key", "by"),
        ("bantime", "ban"),
        ("maxretry", "ban_after"),
    ],
    later: &[],
};

pub(crate) static TRACES: Keys = Keys {
    place: "`traces`",
    names: &["to", "sample", "service", "headers"],
    foreign: &[
        ("endpoint", "to"),
        ("ratio", "sample"),
        ("service_name", "service"),
    ],
    later: &[],
};

pub(crate) static METRICS: Keys = Keys {
    place: "`metrics`",
    names: &["listen", "page", "allow"],
    foreign: &[
        ("address", "listen"),
        ("bind", "listen"),
        ("status", "page"),
    ],
    later: &[],
};

pub(crate) static MAINTENANCE: Keys = Keys {
    place: "`maintenance`",
    names: &["on", "page", "allow", "retry_after"],
    foreign: &[("enabled", "on"), ("file", "page"), ("allowed", "allow")],
    later: &[],
};

/// Every kind of table.
pub(crate) static ALL: &[&Keys] = &[
    &FILE,
    &SERVER,
    &LISTENER,
    &ACCESS_LOG,
    &ROTATE,
    &LOG,
    &LIMITS,
    &PART,
    &APP,
    &UPSTREAM,
    &SITE,
    &TLS,
    &HSTS,
    &ROUTE,
    &AUTH,
    &LIMIT,
    &MAINTENANCE,
    &METRICS,
    &TRACES,
];

/// What is said of a key that a table does not have.
pub(crate) fn unknown(keys: &Keys, name: &str) -> Mistake {
    let Keys { place, .. } = keys;
    if keys.later.contains(&name) {
        return Mistake::new(format!("`{name}` is not available in this version"))
            .hint("remove it");
    }
    let mistake = Mistake::new(format!("unknown key `{}` in {place}", name.escape_debug()));
    let lower = name.to_lowercase().replace('-', "_");
    if let Some((_, ours)) = keys.foreign.iter().find(|(foreign, _)| *foreign == lower) {
        return mistake.hint(format!("did you mean `{ours}`?"));
    }
    if let Some(elsewhere) = ALL[1..]
        .iter()
        .find(|other| other.names.contains(&lower.as_str()) && other.place != *place)
    {
        // A near name here is likelier than the same name elsewhere only where it is the same but for its case.
        if !keys.names.contains(&lower.as_str()) {
            return mistake.hint(format!("`{lower}` belongs in {}", elsewhere.place));
        }
    }
    match nearest(keys.names, &lower) {
        Some(near) => mistake.hint(format!("did you mean `{near}`?")),
        None => mistake.hint(format!("the keys here are {}", list(keys.names))),
    }
}

/// The name that was likely meant, if any is near.
pub(crate) fn nearest<'a>(names: &[&'a str], name: &str) -> Option<&'a str> {
    let near = |candidate: &&'a str| {
        let distance = strsim::damerau_levenshtein(candidate, name);
        // One slip in three letters; `host` for `hosts`, but not `on` for `off`.
        (distance <= (candidate.len().max(name.len()) / 3).max(1) && distance < candidate.len())
            .then_some((distance, *candidate))
    };
    names
        .iter()
        .filter_map(near)
        .min()
        .map(|(_, candidate)| candidate)
}

/// "`a`, `b` and `c`".
pub(crate) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_gets_a_hint() {
        for (keys, name, says) in [
            (
                &SITE,
                "host",
                "unknown key `host` in `[[site]]` | did you mean `hosts`?",
            ),
            (
                &SITE,
                "server_name",
                "unknown key `server_name` in `[[site]]` | did you mean `hosts`?",
            ),
            (
                &SITE,
                "wsgi",
                "unknown key `wsgi` in `[[site]]` | `wsgi` belongs in `[app.NAME]`",
            ),
            (
                &SITE,
                "colour",
                "unknown key `colour` in `[[site]]` | the keys here are `hosts`, `tls`, `client_ca`, `client_auth`, `hsts`, `headers`, `security_headers`, `allow`, `deny`, `auth`, `satisfy`, `limit`, `cors`, `errors`, `maintenance`, `health`, `limits` and `routes`",
            ),
            (
                &APP,
                "Workers",
                "unknown key `Workers` in `[app.NAME]` | did you mean `workers`?",
            ),
            (
                &APP,
                "boot-timeout",
                "unknown key `boot-timeout` in `[app.NAME]` | did you mean `boot_timeout`?",
            ),
            (
                &APP,
                "listen",
                "`listen` is not available in this version | remove it",
            ),
            (
                &LIMITS,
                "client_max_body_size",
                "unknown key `client_max_body_size` in `[limits]` | did you mean `body`?",
            ),
            (
                &ROTATE,
                "a\nb",
                "unknown key `a\\nb` in `rotate` | the keys here are `size`, `age` and `keep`",
            ),
        ] {
            let mistake = unknown(keys, name);
            assert_eq!(
                format!("{} | {}", mistake.message, mistake.hint.unwrap_or_default()),
                says
            );
        }
    }

    #[test]
    fn the_reference_has_every_key() {
        let reference = include_str!("../../../../config/reference.toml");
        let settings: Vec<&str> = reference
            .lines()
            .map(|line| line.trim_start_matches("# e.g. ").trim_start_matches('#'))
            .collect();
        let is_set = |name: &str| {
            let starts = [
                format!("{name} = "),
                format!("[{name}]"),
                format!("[{name}."),
                format!("[[{name}]]"),
            ];
            let inside = [format!("{{ {name} = "), format!(", {name} = ")];
            settings.iter().any(|line| {
                starts.iter().any(|start| line.starts_with(start))
                    || inside.iter().any(|part| line.contains(part))
            })
        };
        for keys in ALL.iter().copied() {
            for name in keys.names {
                assert!(
                    is_set(name),
                    "`{name}` in {} is missing in reference.toml",
                    keys.place
                );
            }
        }
    }

    #[test]
    fn what_others_say_leads_to_keys_of_ours() {
        for keys in ALL.iter().copied() {
            for (foreign, ours) in keys.foreign {
                assert!(
                    keys.names.contains(ours),
                    "{foreign} → {ours} in {}",
                    keys.place
                );
                assert!(
                    !keys.names.contains(foreign),
                    "{foreign} is a key of {}",
                    keys.place
                );
            }
            assert!(
                keys.later.iter().all(|name| !keys.names.contains(name)),
                "{}",
                keys.place
            );
        }
    }
}
