//! `access_log`, `log` and `redact` of `[server]`.

use telemetry::access::Pattern;

use super::{Context, keys};
use crate::{
    defaults,
    error::{Mistake, Problem},
    site::{AccessLog, ErrorLog, ErrorLogFormat, LogFormat, LogTarget, Rotation},
    walk::Value,
};

/// Where access records go when nothing is said.
pub(super) const ACCESS_LOG: AccessLog = AccessLog {
    to: LogTarget::Stdout,
    format: None,
    rotation: None,
};

/// `access_log`.
pub(super) fn access(context: &Context, value: &Value<'_>) -> AccessLog {
    let wanted = "`\"stdout\"`, `\"off\"` or a table such as `{ file = \"access.log\", format = \"combined\" }`";
    if value.as_str().is_some() {
        let to = value.parsed(wanted, |text| match text {
            "off" => Ok(LogTarget::Off),
            "stdout" => Ok(LogTarget::Stdout),
            _ => Err(not_a_target(text, wanted)),
        });
        return AccessLog {
            to: to.map_or(LogTarget::Stdout, |to| to.value),
            ..ACCESS_LOG
        };
    }
    let Some(table) = value.table(&keys::ACCESS_LOG, wanted) else {
        return ACCESS_LOG;
    };
    let file = table
        .get("file")
        .and_then(|value| value.parsed("a path", |text| context.folder.parse(text)));
    let rotation = table.get("rotate").and_then(|value| rotation(&value));
    if let (Some(rotate), None, None) = (table.get("rotate"), &file, table.get("file")) {
        let problem = Problem::new(rotate.key, "only a file can be rotated");
        rotate
            .notes
            .wrong(problem.hint("add `file = \"access.log\"`, or remove `rotate`"));
    }
    AccessLog {
        to: file.map_or(LogTarget::Stdout, LogTarget::File),
        format: table
            .get("format")
            .and_then(|value| value.parsed(FORMATS, parse_format))
            .map(|format| format.value),
        rotation,
    }
}

const FORMATS: &str = "`\"pretty\"`, `\"combined\"`, `\"json\"` or a format of your own such as `\"$client $request $status\"`";

fn not_a_target(text: &str, wanted: &str) -> Mistake {
    let mistake = Mistake::new(format!("expected {wanted}, found {text:?}"));
    if parse_format(text).is_ok() {
        return mistake.hint(format!("did you mean `{{ format = {text:?} }}`?"));
    }
    match keys::nearest(&["stdout", "off"], text) {
        Some(near) => mistake.hint(format!("did you mean `\"{near}\"`?")),
        None => mistake.hint(format!("write `{{ file = {text:?} }}` for a file")),
    }
}

fn parse_format(text: &str) -> Result<LogFormat, Mistake> {
    match text {
        "pretty" => Ok(LogFormat::Pretty),
        "combined" => Ok(LogFormat::Combined),
        "json" => Ok(LogFormat::Json),
        own if own.contains('$') => parse_own(own),
        _ => {
            let mistake = Mistake::new(format!("expected {FORMATS}, found {text:?}"));
            Err(
                match keys::nearest(&["pretty", "combined", "json"], &text.to_lowercase()) {
                    Some(near) => mistake.hint(format!("did you mean `\"{near}\"`?")),
                    None => mistake,
                },
            )
        }
    }
}

fn parse_own(text: &str) -> Result<LogFormat, Mistake> {
    let Err(error) = Pattern::parse(text) else {
        return Ok(LogFormat::Own(text.to_owned()));
    };
    let mistake = Mistake::new(error.to_string());
    let names: Vec<&str> = telemetry::access::NAMES
        .iter()
        .map(|(name, _)| *name)
        .collect();
    let nginx = NGINX.iter().find(|(theirs, _)| *theirs == error.name);
    let near = nginx
        .map(|(_, ours)| *ours)
        .or_else(|| keys::nearest(&names, &error.name.to_lowercase()));
    Err(match near {
        Some(near) => mistake.hint(format!("did you mean `${near}`?")),
        None => mistake.hint(format!(
            "the names are {}; `$http_NAME` is a request field",
            keys::list(&names)
        )),
    })
}

/// nginx's variables for what has another name here.
pub const NGINX: [(&str, &str); 17] = [
    ("remote_addr", "client"),
    ("remote_user", "user"),
    ("time_local", "time"),
    ("time_iso8601", "time_iso"),
    ("msec", "time_unix"),
    ("request_uri", "target"),
    ("uri", "path"),
    ("args", "query"),
    ("query_string", "query"),
    ("request_method", "method"),
    ("server_protocol", "protocol"),
    ("body_bytes_sent", "bytes_out"),
    ("bytes_sent", "bytes_out"),
    ("request_length", "bytes_in"),
    ("request_time", "total"),
    ("upstream_response_time", "app_time"),
    ("ssl_protocol", "tls"),
];

fn rotation(value: &Value<'_>) -> Option<Rotation> {
    let table = value.table(
        &keys::ROTATE,
        "a table such as `{ size = \"100MiB\", keep = 10 }`",
    )?;
    let says = |key| table.get(key).is_some();
    if !says("size") && !says("age") {
        let problem = Problem::new(table.span, "`rotate` says neither `size` nor `age`");
        table
            .notes
            .missing(problem.hint("add `size = \"100MiB\"`, or `age = \"1d\"`"));
    }
    Some(Rotation {
        size: says("size").then(|| table.size(&defaults::ROTATE_SIZE)),
        age: says("age").then(|| table.duration(&defaults::ROTATE_AGE)),
        keep: u32::try_from(table.count(&defaults::ROTATE_KEEP)).unwrap_or(u32::MAX),
    })
}

/// The log when nothing is said.
pub(super) fn error_log() -> ErrorLog {
    ErrorLog {
        level: telemetry::log::DEFAULT_FILTER.to_owned(),
        format: ErrorLogFormat::Text,
        file: None,
    }
}

/// `log`: a level, or a table.
pub(super) fn error(context: &Context, value: &Value<'_>) -> ErrorLog {
    let wanted =
        "a level such as `\"warn\"`, or a table such as `{ level = \"info\", format = \"json\" }`";
    if value.as_str().is_some() {
        return ErrorLog {
            level: level(value, wanted),
            ..error_log()
        };
    }
    let Some(table) = value.table(&keys::LOG, wanted) else {
        return error_log();
    };
    ErrorLog {
        level: table.get("level").map_or_else(
            || error_log().level,
            |value| level(&value, "a level in quotes"),
        ),
        format: table
            .get("format")
            .and_then(|value| {
                value.parsed("`\"text\"` or `\"json\"`", |text| match text {
                    "text" => Ok(ErrorLogFormat::Text),
                    "json" => Ok(ErrorLogFormat::Json),
                    _ => Err(Mistake::new(format!(
                        "expected `\"text\"` or `\"json\"`, found {text:?}"
                    ))),
                })
            })
            .map_or(ErrorLogFormat::Text, |format| format.value),
        file: table
            .get("file")
            .and_then(|value| value.parsed("a path", |text| context.folder.parse(text))),
    }
}

fn level(value: &Value<'_>, wanted: &str) -> String {
    let level = value.parsed(wanted, |text| match telemetry::log::check_filter(text) {
        Ok(()) if is_level(text) || text.contains('=') => Ok(text.to_owned()),
        _ => {
            let mistake = Mistake::new(format!("{text:?} is not a level"));
            let lower = text.to_lowercase();
            let theirs = OTHERS.iter().find(|(theirs, _)| *theirs == lower);
            let near = theirs
                .map(|(_, ours)| *ours)
                .or_else(|| keys::nearest(&LEVELS, &lower));
            Err(match near {
                Some(near) => mistake.hint(format!("did you mean `\"{near}\"`?")),
                None => mistake.hint(format!(
                    "the levels are {}; `\"warn,proxy=debug\"` names one for a part",
                    keys::list(&LEVELS)
                )),
            })
        }
    });
    level.map_or_else(|| error_log().level, |level| level.value)
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The levels of syslog, Python and nginx that have another name here.
const OTHERS: [(&str, &str); 8] = [
    ("warning", "warn"),
    ("notice", "info"),
    ("err", "error"),
    ("crit", "error"),
    ("critical", "error"),
    ("alert", "error"),
    ("emerg", "error"),
    ("none", "off"),
];

/// The filter itself takes any word for the name of a part.
fn is_level(text: &str) -> bool {
    LEVELS.contains(&text)
}

/// The names whose values are hidden when nothing is said.
pub(super) fn redact() -> Vec<String> {
    defaults::REDACT
        .iter()
        .map(|name| (*name).to_owned())
        .collect()
}

/// `redact`.
pub(super) fn names(value: &Value<'_>) -> Vec<String> {
    let elements = value.list("a list of names such as `[\"token\"]`");
    let name = |element: &Value<'_>| element.parsed("a name in quotes", parse_name);
    elements
        .unwrap_or_default()
        .iter()
        .filter_map(name)
        .map(|name| name.value)
        .collect()
}

fn parse_name(text: &str) -> Result<String, Mistake> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.[]".contains(c);
    if text == "*" || (!text.is_empty() && text.chars().all(is_name)) {
        return Ok(text.to_owned());
    }
    let hint = "write the name of a query parameter or of a header, such as `\"token\"`, or `\"*\"` for all";
    Err(Mistake::new(format!("{text:?} is not a name")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nginx_calls_them_leads_to_names_of_ours() {
        for (theirs, ours) in NGINX {
            assert!(
                telemetry::access::NAMES
                    .iter()
                    .any(|(name, _)| *name == ours),
                "{ours}"
            );
            assert!(parse_format(&format!("${theirs}")).is_err(), "{theirs}");
        }
    }
}
