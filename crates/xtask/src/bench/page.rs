//! What was measured, as a page of the guides: what was promised and what came of it, then every table.
//!
//! The whole takes hours, so the page is made of sections that were measured at different times, each of them in one run: only
//! what is within a section is compared. What they are made of is kept as JSON beside the page, with every round; a section
//! that is measured again takes the place of the one that is there, and all the rest of the page is made anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    Options, case, eprintln_line,
    place::{self, Place},
    process,
    report::{Judged, Table},
};

/// What one case or part has shown.
#[derive(Serialize, Deserialize)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) about: String,
    pub(super) taken: Taken,
    /// Who took no part, and why.
    pub(super) left_out: Vec<String>,
    /// What a trial said of its promises; those of a case are judged by its table.
    pub(super) said: Vec<Judged>,
    pub(super) table: Table,
}

/// When and how it was measured.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) day: String,
    pub(super) command: String,
    /// How many of what there were.
    pub(super) size: String,
    /// What it was measured on and with.
    pub(super) setup: Setup,
}

type Setup = BTreeMap<String, String>;

/// In [`Setup`]; each section names it.
const STACK: &str = "stack";

impl Taken {
    /// Now, by this command.
    pub(super) fn now(
        place: &Place,
        options: &Options,
        command: String,
        size: String,
    ) -> Result<Self> {
        let mut setup = Setup::from([
            ("machine".to_owned(), process::machine()),
            (STACK.to_owned(), build_of(&place.stack)?),
            ("Python".to_owned(), place::version(&options.python)?),
            ("from PyPI".to_owned(), place::PEERS.join(", ")),
        ]);
        for (name, program, option) in [
            ("nginx", "nginx", "-v"),
            ("HAProxy", "haproxy", "-v"),
            ("Caddy", "caddy", "version"),
        ] {
            setup.insert(name.to_owned(), said_by(program, option));
        }
        Ok(Self {
            day: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            command,
            size,
            setup,
        })
    }
}

impl Section {
    /// What came of each promise: by what is promised today.
    pub(super) fn judged(&self) -> Vec<Judged> {
        match case::all().into_iter().find(|case| case.name == self.name) {
            Some(case) => {
                let promises = case.promises.iter();
                promises
                    .filter_map(|promise| self.table.judge(promise))
                    .collect()
            }
            None => self.said.clone(),
        }
    }

    /// For people at a terminal.
    pub(super) fn text(&self) -> String {
        let Self {
            name, about, table, ..
        } = self;
        let left_out = self.left_out.iter().map(|peer| format!("LEFT OUT: {peer}"));
        let judged = self.judged();
        let lines = left_out.chain(judged.iter().map(Judged::line));
        let lines: Vec<String> = lines.collect();
        format!("{name}: {about}\n{}{}\n", table.text(), lines.join("\n"))
    }

    fn markdown(&self, usual: &Setup) -> String {
        let Self {
            name,
            about,
            taken,
            left_out,
            table,
            ..
        } = self;
        let mut text = format!("\n## {name}\n\nWhat it shows: {about}.\n\n");
        text.push_str(&table.markdown());
        let Taken {
            day,
            command,
            size,
            setup,
        } = taken;
        let stack = setup.get(STACK).map_or("?", String::as_str);
        write!(
            text,
            "\nTaken on {day} of stack {stack} by `{command}`: {size}."
        )
        .expect("a String takes every write");
        for (what, version) in setup {
            if what != STACK && usual.get(what) != Some(version) {
                write!(text, " Not as above: {what} {version}.")
                    .expect("a String takes every write");
            }
        }
        if !left_out.is_empty() {
            write!(text, " Left out: {}.", left_out.join("; "))
                .expect("a String takes every write");
        }
        text.push('\n');
        text
    }
}

/// The page, and what it is made of.
pub(super) struct Page {
    path: PathBuf,
    /// Of all sections that there may be.
    order: Vec<&'static str>,
}

impl Page {
    /// The page at this path, there already or not.
    pub(super) fn at(path: &Path, order: Vec<&'static str>) -> Self {
        Self {
            path: path.to_owned(),
            order,
        }
    }

    /// Puts a section into it, in the place of the one of its name, and leaves the others.
    pub(super) fn put(&self, section: Section) -> Result<()> {
        let mut sections = self.kept()?;
        sections.retain(|kept| kept.name != section.name);
        sections.push(section);
        self.write(sections)
    }

    /// Makes it anew of what is kept: with what is promised by now.
    pub(super) fn renew(&self) -> Result<()> {
        self.write(self.kept()?)
    }

    fn data(&self) -> PathBuf {
        self.path.with_extension("json")
    }

    fn kept(&self) -> Result<Vec<Section>> {
        let path = self.data();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not what this has written", path.display()))
    }

    fn write(&self, mut sections: Vec<Section>) -> Result<()> {
        let place = |section: &Section| self.order.iter().position(|name| *name == section.name);
        sections.retain(|section| {
            let is_known = place(section).is_some();
            if !is_known {
                eprintln_line(&format!("{}: there is no such case any more", section.name));
            }
            is_known
        });
        sections.sort_by_key(place);
        // A line for each, so that a change is seen to be one of some of them.
        let lines: Vec<String> = sections
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()?;
        for (path, text) in [
            (self.data(), format!("[\n{}\n]\n", lines.join(",\n"))),
            (self.path.clone(), page(&sections)),
        ] {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

fn page(sections: &[Section]) -> String {
    let usual = usual(sections);
    let mut text = "# Measured against its peers\n\n\
         Written by `cargo xtask bench`, not by hand. Each section is one run, and only what is within a section is compared: each \
         round starts every server in turn, and a cell is the median of the rounds with the least and the most. *×* is ours over \
         theirs. CPU is that of all processes of a server, for each request: a busy machine disturbs it least. Who stands in front \
         writes an access log to a file, nginx with `buffer=`. One machine runs the servers and the load, so what is per second says \
         little.\n\n| | |\n|---|---|\n"
        .to_owned();
    for (what, version) in usual.iter().filter(|(what, _)| *what != STACK) {
        text.push_str(&format!("| {what} | {version} |\n"));
    }
    text.push_str(&promised(sections));
    for section in sections {
        text.push_str(&section.markdown(&usual));
    }
    text
}

/// What most sections were measured on and with.
fn usual(sections: &[Section]) -> Setup {
    let setups: BTreeSet<&Setup> = sections
        .iter()
        .map(|section| &section.taken.setup)
        .collect();
    let count = |setup: &&&Setup| {
        let setups = sections.iter().map(|section| &section.taken.setup);
        setups.filter(|other| other == *setup).count()
    };
    let usual = setups.iter().max_by_key(count);
    usual.map_or_else(Setup::new, |setup| (*setup).clone())
}

fn promised(sections: &[Section]) -> String {
    let (mut all, mut kept, mut lines) = (0, 0, String::new());
    for section in sections {
        for judged in section.judged() {
            let name = &section.name;
            let verdict = match (judged.is_kept, judged.why.as_str()) {
                (true, _) => "kept".to_owned(),
                (false, "") => "**missed**".to_owned(),
                (false, why) => format!("**missed**: {why}"),
            };
            all += 1;
            kept += usize::from(judged.is_kept);
            lines.push_str(&format!(
                "| [{name}](#{name}) | {} | {verdict} |\n",
                judged.text
            ));
        }
    }
    format!(
        "\n## What was promised\n\nOf {all} promises {kept} are kept.\n\n| section | what was measured | |\n|---|---|---|\n{lines}"
    )
}

/// The build id of ours, which its binary and its Python module share.
fn build_of(stack: &Path) -> Result<String> {
    let said = crate::output(Command::new(stack).arg("--version"))?;
    let build = said.lines().find_map(|line| line.strip_prefix("build "));
    let build = build.and_then(|line| line.split_whitespace().next());
    Ok(build
        .with_context(|| format!("no build id in: {said}"))?
        .to_owned())
}

/// The first line that a program says of its version.
fn said_by(program: &str, option: &str) -> String {
    let Ok(output) = Command::new(program).arg(option).output() else {
        return "not installed".to_owned();
    };
    let all = [output.stdout, output.stderr].concat();
    let all = String::from_utf8_lossy(&all).into_owned();
    all.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::CPU;

    fn section(name: &str, stack: &str, ours: f64) -> Section {
        let mut table = Table::default();
        table.add("stack", vec![(CPU, ours)]);
        table.add("nginx", vec![(CPU, 10.0)]);
        Section {
            name: name.to_owned(),
            about: format!("all about {name}"),
            taken: Taken {
                day: "2026-11-30".to_owned(),
                command: format!("cargo xtask bench {name}"),
                size: "1 connection".to_owned(),
                setup: [
                    (STACK.to_owned(), stack.to_owned()),
                    ("nginx".to_owned(), "1.22".to_owned()),
                ]
                .into(),
            },
            left_out: Vec::new(),
            said: Vec::new(),
            table,
        }
    }

    fn trial() -> Section {
        Section {
            said: vec![Judged {
                text: "promised: none fails".to_owned(),
                is_kept: true,
                why: String::new(),
            }],
            ..section("deploy-reload", "0.1", 1.0)
        }
    }

    fn order() -> Vec<&'static str> {
        vec!["file-1k", "file-100k", "deploy-reload"]
    }

    #[test]
    fn a_section_takes_the_place_of_the_one_of_its_name() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("page.md");
        let page = Page::at(&path, order());
        page.put(trial())?;
        page.put(section("file-100k", "0.1", 11.0))?;
        page.put(section("file-1k", "0.1", 6.0))?;
        page.put(section("file-100k", "0.2", 9.0))?;
        let text = fs::read_to_string(&path)?;
        let headings: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("## "))
            .collect();
        // In the order of the cases, whenever they were measured.
        let expected = [
            "## What was promised",
            "## file-1k",
            "## file-100k",
            "## deploy-reload",
        ];
        assert_eq!(headings, expected);
        for line in [
            "Of 3 promises 3 are kept.",
            "| [file-100k](#file-100k) | CPU µs/request: 0.900 × nginx, promised at most 1.00 | kept |",
            "| [deploy-reload](#deploy-reload) | promised: none fails | kept |",
            "| stack | 9.00 |",
            "Taken on 2026-11-30 of stack 0.2 by `cargo xtask bench file-100k`: 1 connection.",
            "Taken on 2026-11-30 of stack 0.1 by `cargo xtask bench file-1k`: 1 connection.",
        ] {
            assert!(text.lines().any(|there| there == line), "no {line}: {text}");
        }
        // The others are as they were: what it is made of says all.
        page.renew()?;
        assert_eq!(fs::read_to_string(&path)?, text);
        Ok(())
    }

    #[test]
    fn what_is_missed_says_why_and_what_differs_is_named() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("page.md");
        let page = Page::at(&path, vec!["file-304", "file-1k", "file-100k"]);
        page.put(section("file-304", "0.1", 9.0))?;
        page.put(section("file-1k", "0.1", 9.0))?;
        let mut other = section("file-100k", "0.1", 9.0);
        other
            .taken
            .setup
            .insert("nginx".to_owned(), "1.26".to_owned());
        other
            .left_out
            .push("Caddy (there is no caddy here)".to_owned());
        page.put(other)?;
        let text = fs::read_to_string(&path)?;
        assert!(text.contains("Of 3 promises 1 are kept."), "{text}");
        assert!(
            text.contains("| **missed**: most of what nginx takes "),
            "{text}"
        );
        assert!(
            text.contains("promised at most 0.65 | **missed** |"),
            "{text}"
        );
        assert!(text.contains("\n| nginx | 1.22 |\n"), "{text}");
        let line =
            "1 connection. Not as above: nginx 1.26. Left out: Caddy (there is no caddy here).\n";
        assert!(text.contains(line), "{text}");
        Ok(())
    }

    #[test]
    fn what_it_is_made_of_is_never_guessed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("page.md");
        fs::write(folder.path().join("page.json"), "{")?;
        let page = Page::at(&path, order());
        assert!(page.put(section("file-1k", "0.1", 6.0)).is_err());
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(folder.path().join("page.json"))?, "{");
        // A case that there is no more leaves with its section.
        fs::remove_file(folder.path().join("page.json"))?;
        page.put(section("file-1k", "0.1", 6.0))?;
        Page::at(&path, vec!["file-100k"]).renew()?;
        assert!(!fs::read_to_string(&path)?.contains("file-1k"));
        Ok(())
    }
}
