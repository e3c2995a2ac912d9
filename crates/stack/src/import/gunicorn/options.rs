//! gunicorn's options and settings, as far as `stack serve` has them.

use clap::CommandFactory;

use crate::args::{self, serve::instead_of};

/// How a setting of the file is an option of the command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// With one value.
    One,
    /// Without one.
    Flag,
    /// Once for each of a list.
    Each,
    /// There is no such option, and nothing is lost.
    Silent,
}

/// The settings of gunicorn's file whose options are not called as they are.
const SETTINGS: [(&str, &str, How); 26] = [
    ("bind", "--bind", How::Each),
    ("raw_env", "--env", How::Each),
    ("reload_extra_files", "--reload-extra-file", How::Each),
    ("keepalive", "--keep-alive", How::One),
    ("accesslog", "--access-logfile", How::One),
    ("access_log_format", "--access-logformat", How::One),
    ("errorlog", "--error-logfile", How::One),
    ("loglevel", "--log-level", How::One),
    ("logconfig", "--log-config", How::One),
    ("logconfig_dict", "--log-config-dict", How::One),
    ("logconfig_json", "--log-config-json", How::One),
    ("syslog", "--log-syslog", How::Flag),
    ("syslog_addr", "--log-syslog-to", How::One),
    ("syslog_prefix", "--log-syslog-prefix", How::One),
    ("syslog_facility", "--log-syslog-facility", How::One),
    ("pidfile", "--pid", How::One),
    ("preload_app", "--preload", How::Flag),
    ("proc_name", "--name", How::One),
    ("default_proc_name", "--name", How::One),
    ("proxy_allow_ips", "--proxy-allow-from", How::One),
    (
        "limit_request_field_size",
        "--limit-request-field_size",
        How::One,
    ),
    ("sendfile", "--no-sendfile", How::Silent),
    ("raw_paste_global_conf", "--paste-global", How::One),
    ("tmp_upload_dir", "--worker-tmp-dir", How::Silent),
    ("secure_scheme_headers", "--forwarder-headers", How::One),
    ("print_config", "--print-config", How::Silent),
];

/// The option of a setting.
pub(super) fn option_of(name: &str) -> (String, How) {
    match SETTINGS.iter().find(|(setting, ..)| *setting == name) {
        Some((_, option, how)) => ((*option).to_owned(), *how),
        None => (format!("--{}", name.replace('_', "-")), How::One),
    }
}

/// Whether gunicorn has such a setting.
pub(super) fn is_setting(name: &str) -> bool {
    let (option, _) = option_of(name);
    name == "wsgi_app"
        || SETTINGS.iter().any(|(setting, ..)| *setting == name)
        || is_option(&option)
        || instead_of(&option).is_some()
}

/// `--workers=4`, `-w4`, `-w 4`.
pub(super) fn split_option(word: &str) -> (String, Option<String>) {
    if word.starts_with("--") {
        return match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.to_owned(), None),
        };
    }
    let end = word.char_indices().nth(2).map_or(word.len(), |(at, _)| at);
    let (name, value) = word.split_at(end);
    let value = value.trim_start_matches('=');
    (
        name.to_owned(),
        (!value.is_empty()).then(|| value.to_owned()),
    )
}

/// The long name of an option, and whether a value follows it.
pub(super) fn described(name: &str) -> (String, bool) {
    let command = args::Arguments::command();
    let serve = command.find_subcommand("serve");
    let known = serve
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .find(|argument| {
            let short = argument.get_short().map(|short| format!("-{short}"));
            short.as_deref() == Some(name) || names(argument).any(|long| long == name)
        });
    if let Some(argument) = known {
        let long = argument
            .get_long()
            .map_or_else(|| name.to_owned(), |long| format!("--{long}"));
        return (long, argument.get_action().takes_values());
    }
    match name {
        "-c" => ("--config".to_owned(), true),
        "-D" => ("--daemon".to_owned(), false),
        flag @ ("--daemon"
        | "--spew"
        | "--log-syslog"
        | "--permit-obsolete-folding"
        | "--strip-header-spaces"
        | "--casefold-http-method") => (flag.to_owned(), false),
        other => (other.to_owned(), true),
    }
}

fn names(argument: &clap::Arg) -> impl Iterator<Item = String> {
    let aliases = argument.get_all_aliases().unwrap_or_default();
    argument
        .get_long()
        .into_iter()
        .chain(aliases)
        .map(|long| format!("--{long}"))
        .collect::<Vec<_>>()
        .into_iter()
}

/// Whether `stack serve` has an option of this name.
pub(super) fn is_option(name: &str) -> bool {
    let command = args::Arguments::command();
    let serve = command.find_subcommand("serve");
    serve
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .any(|argument| names(argument).any(|long| long == name))
}
