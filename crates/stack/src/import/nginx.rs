//! nginx's files: read by their own syntax, understood as far as there is something like it here, and every other line named.

mod location;
mod scope;
mod server;
pub(super) mod syntax;
mod upstream;
mod values;
mod words;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use config::NGINX_VARIABLES;
use telemetry::access::Pattern;

use self::{
    scope::{Scope, zone},
    server::Server,
    syntax::{Directive, SyntaxError},
    upstream::Group,
    values::{show_size, size, time},
};
use super::draft::{Draft, Note};
use crate::serve::text;

/// Most files that includes may bring; a server with a thousand sites has fewer in one folder.
const MOST_FILES: usize = 2000;

/// How many folders a file of an `include` is looked for in, from that of the file that includes it upwards.
const ABOVE: usize = 3;

/// Deepest includes in includes.
const DEEPEST: usize = 8;

/// Where nginx's own paths begin, when nobody says otherwise.
const PREFIX: &str = "/etc/nginx";

/// Finds the files that a pattern of an `include` names, and reads them.
pub(super) type Reads<'a> = &'a dyn Fn(&Path) -> Vec<(PathBuf, io::Result<String>)>;

/// Translates.
pub(super) struct Translator<'a> {
    draft: &'a mut Draft,
    reads: Reads<'a>,
    /// The names of the files that were read, and their folders.
    files: Vec<(String, PathBuf)>,
    /// Those that were named, which are not taken twice.
    named: Vec<PathBuf>,
    depth: usize,
    groups: BTreeMap<String, Group>,
    zones: BTreeMap<String, (String, String)>,
    formats: BTreeMap<String, String>,
    servers: Vec<Server>,
    largest: u64,
    in_location: bool,
    /// Whether a server for all other hosts is being read.
    is_default: bool,
}

/// A file that is not written as nginx wants it.
#[derive(Debug)]
pub(super) struct FileError {
    pub(super) file: String,
    pub(super) error: SyntaxError,
}

impl<'a> Translator<'a> {
    pub(super) fn new(draft: &'a mut Draft, reads: Reads<'a>) -> Self {
        Self {
            draft,
            reads,
            files: Vec::new(),
            named: Vec::new(),
            depth: 0,
            groups: BTreeMap::new(),
            zones: BTreeMap::new(),
            formats: BTreeMap::new(),
            servers: Vec::new(),
            largest: 0,
            in_location: false,
            is_default: false,
        }
    }

    /// Translates files that were named: whole ones, or those of `sites-enabled`.
    pub(super) fn run(mut self, files: &[(PathBuf, String)]) -> Result<(), FileError> {
        let mut all = Vec::new();
        self.named = files.iter().map(|(path, _)| real(path)).collect();
        for (path, content) in files {
            all.extend(self.parse(path, content)?);
        }
        // What others name comes first, in whatever order the files are.
        let all = self.whole(all);
        let mut scope = Scope::default();
        self.names(&all);
        self.context(&all, &mut scope);
        for server in all
            .iter()
            .filter(|directive| directive.name == "server" && directive.block.is_some())
        {
            self.server(server, &scope);
        }
        self.assemble();
        Ok(())
    }

    fn parse(&mut self, path: &Path, content: &str) -> Result<Vec<Directive>, FileError> {
        let name = path.display().to_string();
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        self.files.push((name.clone(), folder));
        syntax::parse(content, self.files.len() - 1)
            .map_err(|error| FileError { file: name, error })
    }

    /// The directives of files and of their `http` blocks, with all that they include.
    fn whole(&mut self, directives: Vec<Directive>) -> Vec<Directive> {
        let mut all = Vec::new();
        for directive in directives {
            match (directive.name.as_str(), &directive.block) {
                ("http", Some(block)) => {
                    let inside = self.whole(block.clone());
                    all.extend(inside);
                }
                ("include", _) => {
                    let named = self.named.clone();
                    let included = self.include(&directive, &named);
                    let included = self.whole(included);
                    all.extend(included);
                }
                _ => all.push(directive),
            }
        }
        all
    }

    /// What servers refer to by name.
    fn names(&mut self, all: &[Directive]) {
        for directive in all {
            match directive.name.as_str() {
                "upstream" => self.group(directive),
                "limit_req_zone" | "limit_conn_zone" => match zone(directive) {
                    Some((name, what)) => {
                        self.zones.insert(name, what);
                    }
                    None => self.left(directive, "a rate is requests in a second or a minute"),
                },
                "log_format" => self.log_format(directive),
                _ => {}
            }
        }
    }

    /// What stands around servers.
    fn context(&mut self, all: &[Directive], scope: &mut Scope) {
        for directive in all {
            let first = directive.word(0);
            match directive.name.as_str() {
                "server" | "upstream" | "limit_req_zone" | "limit_conn_zone" | "log_format" => {}
                "user" if !first.is_empty() => {
                    self.draft.server.set_text("user", first);
                    if let Some(group) = directive.words.get(1) {
                        self.draft.server.set_text("group", group);
                    }
                }
                "events" => self.itself(directive, words::by_itself("events").unwrap_or_default()),
                "map" if directive.words.iter().any(|word| word == "$http_upgrade") => {
                    self.itself(directive, "WebSockets pass by themselves");
                }
                "client_max_body_size" => match size(first) {
                    Some(bytes) if bytes > 0 => {
                        self.largest = self.largest.max(bytes);
                        self.draft.limits.set("body", show_size(bytes));
                    }
                    _ => {
                        self.common(directive, scope);
                    }
                },
                "keepalive_timeout" => self.limit(directive, "keepalive_timeout"),
                "send_timeout" => self.limit(directive, "send_timeout"),
                "client_header_timeout" => self.limit(directive, "head_timeout"),
                "client_body_timeout" => self.limit(directive, "body_timeout"),
                "keepalive_requests" => match first.parse::<u32>() {
                    Ok(most) if most > 0 => self.draft.limits.set("keepalive_requests", most.to_string()),
                    _ => self.left(directive, "`[limits] keepalive_requests` is a number"),
                },
                "set_real_ip_from" => self.trust(directive),
                "real_ip_header" => match first.to_ascii_lowercase().as_str() {
                    "x-forwarded-for" => self.itself(directive, "it is what is read of `trusted_proxies`"),
                    "proxy_protocol" => self.itself(directive, "a listener with `proxy_protocol` is told by it"),
                    "cf-connecting-ip" => self.itself(directive, "`trusted_proxies = [\"cloudflare\"]` has its networks, and X-Forwarded-For says the same"),
                    _ => self.left(directive, "X-Forwarded-For is read, or Forwarded with `forwarded = \"forwarded\"`"),
                },
                _ => {
                    if !self.common(directive, scope) {
                        self.unknown(directive);
                    }
                }
            }
        }
    }

    fn limit(&mut self, directive: &Directive, key: &str) {
        match time(directive.word(0)).filter(|time| time != "\"0s\"") {
            Some(time) => self.draft.limits.set(key, time),
            None => self.left(
                directive,
                &format!("`[limits] {key}` is a time, and never none"),
            ),
        }
    }

    fn trust(&mut self, directive: &Directive) {
        let network = directive.word(0);
        let network = if network == "unix:" { "unix" } else { network };
        let is_address = network
            .split('/')
            .next()
            .is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok());
        if !is_address && network != "unix" {
            return self.left(directive, "`trusted_proxies` are addresses and networks");
        }
        let before = self.draft.server.get("trusted_proxies").unwrap_or("[]");
        let before = before.trim_matches(['[', ']']);
        let comma = if before.is_empty() { "" } else { ", " };
        let list = format!("[{before}{comma}{}]", text(network));
        self.draft.server.set("trusted_proxies", list);
    }

    /// A format, in our names where each of its variables has one.
    fn log_format(&mut self, directive: &Directive) {
        let skip = usize::from(directive.word(1).starts_with("escape=")) + 1;
        let theirs: String = directive
            .words
            .iter()
            .skip(skip)
            .map(String::as_str)
            .collect();
        let mut ours = String::new();
        let mut rest = theirs.as_str();
        while let Some(at) = rest.find('$') {
            ours.push_str(&rest[..at]);
            let after = rest[at + 1..].trim_start_matches('{');
            let length = after
                .bytes()
                .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
                .count();
            let name = &after[..length];
            let known = NGINX_VARIABLES.iter().find(|(known, _)| *known == name);
            ours.extend(["$", known.map_or(name, |(_, ours)| ours)]);
            rest = after[length..].trim_start_matches('}');
        }
        ours.push_str(rest);
        match Pattern::parse(&ours) {
            Ok(_) if ours.contains('$') => {
                self.formats.insert(directive.word(0).to_owned(), ours);
            }
            Ok(_) => self.left(directive, "there is no variable in it"),
            Err(error) => self.left(
                directive,
                &format!("{error}; the names that there are: docs/logs.md"),
            ),
        }
    }

    /// Reads what an `include` names, but for `taken`, whose servers are known already.
    fn include(&mut self, directive: &Directive, taken: &[PathBuf]) -> Vec<Directive> {
        let name = directive.word(0);
        if let Some(why) = words::known_file(name) {
            self.itself(directive, why);
            return Vec::new();
        }
        if self.depth >= DEEPEST || self.files.len() >= MOST_FILES {
            self.left(directive, "there are too many files in files");
            return Vec::new();
        }
        // nginx looks beside its nginx.conf. In a copy of its folder that is above the files in sites-enabled and such, which may have
        // been named alone; else it is where nginx is installed.
        let above = self.files[directive.file].1.ancestors().take(ABOVE);
        let found = above
            .chain([Path::new(PREFIX)])
            .map(|folder| (self.reads)(&folder.join(name)))
            .find(|found| !found.is_empty());
        let Some(found) = found else {
            match name.contains('*') {
                true => self.itself(directive, "there is no such file here"),
                false => self.left(
                    directive,
                    "this file is not here: name it in the command as well",
                ),
            }
            return Vec::new();
        };
        self.depth += 1;
        let mut all = Vec::new();
        for (path, content) in found {
            if taken.contains(&real(&path)) {
                continue;
            }
            let content = match content {
                Ok(content) => content,
                Err(error) => {
                    let why = config::plain(&error);
                    let what = format!("{} cannot be read: {why}", path.display());
                    self.left(directive, &what);
                    continue;
                }
            };
            match self.parse(&path, &content) {
                Ok(inside) => all.extend(self.included(&inside, taken)),
                Err(FileError { file, error }) => {
                    let what = format!("{file}:{}: {}", error.line, error.message);
                    self.left(directive, &what);
                }
            }
        }
        self.depth -= 1;
        all
    }

    /// As nginx takes paths: relative ones begin where it is installed.
    fn absolute(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{PREFIX}/{path}"),
        }
    }

    fn place(&self, directive: &Directive) -> String {
        format!("{}:{}", self.files[directive.file].0, directive.line)
    }

    /// This is not translated: do that.
    fn left(&mut self, directive: &Directive, what: &str) {
        let place = self.place(directive);
        self.note_left(&place, &directive.show(), what);
    }

    fn note_left(&mut self, place: &str, line: &str, what: &str) {
        push(&mut self.draft.left, place, line, what);
    }

    /// This needs no word.
    fn itself(&mut self, directive: &Directive, why: &str) {
        let place = self.place(directive);
        push(&mut self.draft.by_itself, &place, &directive.show(), why);
    }

    /// This is nothing that is known.
    fn unknown(&mut self, directive: &Directive) {
        if matches!(directive.words.as_slice(), [only] if only == "off") {
            return self.itself(directive, words::OFF);
        }
        self.left(directive, words::instead(&directive.name));
    }
}

/// Where links lead: `sites-enabled` is full of them.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// A location that makes two routes has one note.
fn push(notes: &mut Vec<Note>, place: &str, line: &str, what: &str) {
    let note = Note {
        place: place.to_owned(),
        line: line.to_owned(),
        what: what.to_owned(),
    };
    if !notes.contains(&note) {
        notes.push(note);
    }
}
