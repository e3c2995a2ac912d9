//! What gunicorn says in other words than we, or what is so here without a word.

use crate::{
    args::serve::{Serve, Silent},
    failure::Failure,
};

/// What cannot be had, and is no matter of the configuration's rules.
pub(super) fn refuse(serve: &Serve) -> Result<(), Failure> {
    if let Some(class) = serve.silent.worker_class.as_deref()
        && !matches!(class, "sync" | "gthread")
    {
        let instead = match class {
            // An ASGI app would answer every request with a TypeError.
            _ if is_asgi(class) => {
                "an ASGI app runs under uvicorn, behind a route with `upstream` (config/reference.toml)"
            }
            _ => {
                "a worker runs `--threads` requests at once, and slow clients never hold one: leave -k out"
            }
        };
        return Err(Failure::User(format!(
            "there is no worker class {class:?}: {instead}"
        )));
    }
    match serve.access_logformat.as_deref().map(log_format) {
        Some(Err(unknown)) => Err(Failure::User(format!(
            "--access-logformat: nothing here is what gunicorn calls {unknown}; the names that there are: docs/logs.md"
        ))),
        _ => Ok(()),
    }
}

/// Whether a worker class of gunicorn runs ASGI apps.
pub(crate) fn is_asgi(class: &str) -> bool {
    ["uvicorn", "asgi", "aiohttp", "tornado"]
        .iter()
        .any(|name| class.contains(name))
}

/// What has no effect here, so that nobody wonders.
pub(super) fn notes(silent: &Silent) -> Vec<&'static str> {
    let given = [
        (
            silent.preload,
            "--preload has no effect: each worker imports the app by itself",
        ),
        (
            silent.max_requests_jitter.is_some(),
            "--max-requests-jitter has no effect: workers differ by 10 % without it",
        ),
        (
            std::env::var_os("GUNICORN_CMD_ARGS").is_some(),
            "GUNICORN_CMD_ARGS is not read: write its options into the command",
        ),
    ];
    let said = given.into_iter().filter(|(given, _)| *given);
    said.map(|(_, note)| note).collect()
}

/// `critical` is more than we tell apart.
pub(super) fn level(level: &str) -> &str {
    match level.to_ascii_lowercase().as_str() {
        "debug" => "debug",
        "info" => "info",
        "warning" | "warn" => "warn",
        "error" | "critical" => "error",
        _ => level,
    }
}

/// gunicorn's atoms for what stands in a line, and ours.
const ATOMS: [(&str, &str); 16] = [
    ("h", "$client"),
    ("l", "-"),
    ("u", "$user"),
    ("t", "[$time]"),
    ("r", "$request"),
    ("m", "$method"),
    ("U", "$path"),
    ("q", "$query"),
    ("H", "$protocol"),
    ("s", "$status"),
    ("B", "$bytes_out"),
    ("b", "$bytes_out"),
    ("f", "$referer"),
    ("a", "$user_agent"),
    ("L", "$total"),
    ("p", "$pid"),
];

/// A format as gunicorn writes it (`%(h)s`), as we do (`$client`); what is ours already stays as it is.
///
/// # Errors
/// The atom that nothing here stands for.
pub(crate) fn log_format(format: &str) -> Result<String, String> {
    if !format.contains("%(") {
        return Ok(format.to_owned());
    }
    let mut ours = String::new();
    let mut rest = format;
    while let Some(at) = rest.find("%(") {
        ours.push_str(&rest[..at].replace('$', "$$"));
        let atom = &rest[at..];
        let Some(end) = atom.find(")s") else {
            return Err(atom.to_owned());
        };
        let name = &atom[2..end];
        let field = name
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix("}i"));
        match (field, ATOMS.iter().find(|(theirs, _)| *theirs == name)) {
            (Some(field), _) => {
                let field = field.to_ascii_lowercase().replace('-', "_");
                // Of those that have a name of their own, the one that is redacted.
                let own = match field.as_str() {
                    "referer" | "user_agent" | "host" => field.clone(),
                    _ => format!("http_{field}"),
                };
                ours.extend(["$", &own]);
            }
            (None, Some((_, name))) => ours.push_str(name),
            (None, None) => return Err(atom[..end + 2].to_owned()),
        }
        rest = &atom[end + 2..];
    }
    ours.push_str(&rest.replace('$', "$$"));
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_gunicorn_are_ours() {
        for (theirs, expected) in [
            (
                r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#,
                Ok(
                    r#"$client - $user [$time] "$request" $status $bytes_out "$referer" "$user_agent""#,
                ),
            ),
            (
                "%({X-Forwarded-For}i)s %({User-Agent}i)s",
                Ok("$http_x_forwarded_for $user_agent"),
            ),
            ("cost $ %(L)s", Ok("cost $$ $total")),
            ("$client $status", Ok("$client $status")),
            ("json", Ok("json")),
            ("%(D)s", Err("%(D)s")),
            ("%({x}o)s", Err("%({x}o)s")),
            ("%(h", Err("%(h")),
        ] {
            let found = log_format(theirs);
            assert_eq!(
                found.as_deref().map_err(String::as_str),
                expected,
                "{theirs}"
            );
        }
        for (_, ours) in ATOMS {
            let name = ours.trim_matches(['[', ']']).strip_prefix('$');
            let is_name = |name| {
                telemetry::access::NAMES
                    .iter()
                    .any(|(known, _)| *known == name)
            };
            assert!(name.is_none_or(is_name), "{ours}");
        }
    }
}
