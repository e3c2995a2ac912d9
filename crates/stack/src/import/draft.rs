//! A configuration that is being translated, and what is said of each line that it comes from.

use std::fmt::Write as _;

use crate::serve::text;

/// Keys and their values in TOML, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys(Vec<(String, String)>);

impl Keys {
    /// Sets a key; the last word counts.
    pub(super) fn set(&mut self, key: &str, toml: impl Into<String>) {
        let toml = toml.into();
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, value)) => *value = toml,
            None => self.0.push((key.to_owned(), toml)),
        }
    }

    pub(super) fn set_text(&mut self, key: &str, value: &str) {
        self.set(key, text(value));
    }

    pub(super) fn set_list(&mut self, key: &str, values: &[String]) {
        let values: Vec<String> = values.iter().map(|value| text(value)).collect();
        self.set(key, format!("[{}]", values.join(", ")));
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| known != key);
    }

    /// Takes those of others as well.
    pub(super) fn extend(&mut self, others: Self) {
        for (key, value) in others.0 {
            self.set(&key, value);
        }
    }

    /// As a table in one line; `None` where there is nothing.
    pub(super) fn as_inline(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.inline())
    }

    /// What lines of a table say.
    pub(super) fn of_lines(lines: &str) -> Self {
        let mut keys = Self::default();
        for (key, value) in lines.lines().filter_map(|line| line.split_once(" = ")) {
            keys.set(key, value);
        }
        keys
    }

    /// As lines.
    fn lines(&self) -> String {
        self.0
            .iter()
            .fold(String::new(), |mut lines, (key, value)| {
                writeln!(lines, "{key} = {value}").expect("a String takes everything");
                lines
            })
    }

    /// As a table in one line.
    fn inline(&self) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        format!("{{ {} }}", pairs.join(", "))
    }
}

/// `[app.NAME]`.
#[derive(Clone, Debug, Default)]
pub(super) struct AppDraft {
    /// The lines of its table.
    pub(super) lines: String,
    /// Where it was listening, as a `proxy_pass` names that.
    pub(super) binds: Vec<String>,
}

/// `[[site]]`.
#[derive(Clone, Debug, Default)]
pub(super) struct SiteDraft {
    /// Where it comes from.
    pub(super) place: String,
    pub(super) hosts: Vec<String>,
    pub(super) keys: Keys,
    /// Each with its `path` first.
    pub(super) routes: Vec<Keys>,
}

/// What was done with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// `nginx.conf:12`.
    pub(super) place: String,
    /// The line.
    pub(super) line: String,
    /// What to do, or why nothing need be done.
    pub(super) what: String,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) server: Keys,
    pub(super) limits: Keys,
    pub(super) apps: Vec<(String, AppDraft)>,
    pub(super) upstreams: Vec<(String, Keys)>,
    pub(super) sites: Vec<SiteDraft>,
    /// What is not translated.
    pub(super) left: Vec<Note>,
    /// What is so without a word.
    pub(super) by_itself: Vec<Note>,
}

impl Draft {
    /// The file.
    pub(super) fn compose(&self, sources: &[String]) -> String {
        let mut out = format!(
            "# Translated by `stack import` from {}.\n# What has no twin is at the end, with what to do. `stack reference` has every key.\n",
            one_line(&sources.join(", "))
        );
        let mut section = |name: &str, lines: &str| {
            if !lines.is_empty() {
                out.push_str(&format!("\n{name}\n{lines}"));
            }
        };
        section("[server]", &self.server.lines());
        section("[limits]", &self.limits.lines());
        for (name, app) in &self.apps {
            section(&format!("[app.{name}]"), &app.lines);
        }
        for (name, keys) in &self.upstreams {
            section(&format!("[upstream.{name}]"), &keys.lines());
        }
        for site in &self.sites {
            let place = format!("# {}\n[[site]]", one_line(&site.place));
            let mut lines = String::new();
            if !site.hosts.is_empty() {
                let mut hosts = Keys::default();
                hosts.set_list("hosts", &site.hosts);
                lines.push_str(&hosts.lines());
            }
            lines.push_str(&site.keys.lines());
            lines.push_str("routes = [\n");
            for route in &site.routes {
                lines.push_str(&format!("  {},\n", route.inline()));
            }
            lines.push_str("]\n");
            section(&place, &lines);
        }
        if !self.left.is_empty() {
            out.push_str("\n# Not translated, and what to do:\n");
        }
        for note in &self.left {
            out.push_str(&format!(
                "#   {}\n#     {}\n",
                note.show(),
                one_line(&note.what)
            ));
        }
        if !self.by_itself.is_empty() {
            out.push_str("\n# Needs no word here:\n");
        }
        let mut said: Vec<&str> = Vec::new();
        for note in &self.by_itself {
            if said.contains(&note.what.as_str()) {
                continue;
            }
            said.push(&note.what);
            out.push_str(&format!("#   {}:\n", one_line(&note.what)));
            for same in self.by_itself.iter().filter(|same| same.what == note.what) {
                out.push_str(&format!("#     {}\n", same.show()));
            }
        }
        out
    }
}

impl Note {
    /// The place and the line.
    fn show(&self) -> String {
        format!("{}  {}", one_line(&self.place), one_line(&self.line))
    }
}

/// What came from a file must not end a comment, nor act on a terminal. Long lines are cut.
pub(super) fn one_line(text: &str) -> String {
    const LONGEST: usize = 200;
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let short: String = text.chars().map(plain).take(LONGEST).collect();
    match short.chars().count() == LONGEST {
        true => short + "…",
        false => short,
    }
}
