//! What was measured, as a page of the guides: what was promised and what came of it, then every table.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{Options, place, process, report::Table};

/// What one case or part has shown.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) table: Table,
    /// What came of each promise, a line each.
    pub(super) judged: Vec<String>,
}

impl Section {
    /// For people at a terminal.
    pub(super) fn text(&self) -> String {
        let Self {
            name,
            about,
            table,
            judged,
        } = self;
        format!("{name}: {about}\n{}{}\n", table.text(), judged.join("\n"))
    }
}

/// Writes the page.
pub(super) fn write(path: &Path, sections: &[Section], options: &Options) -> Result<()> {
    let mut text = head(options)?;
    text.push_str("\n## What was promised\n\n| case | what came of it |\n|---|---|\n");
    for Section { name, judged, .. } in sections {
        for line in judged {
            let line = line.replace("MISSED", "**missed**");
            writeln!(text, "| [{name}](#{name}) | {line} |")?;
        }
    }
    for Section {
        name, about, table, ..
    } in sections
    {
        write!(
            text,
            "\n## {name}\n\nWhat it shows: {about}.\n\n{}",
            table.markdown()
        )?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// How the figures came to be.
fn head(options: &Options) -> Result<String> {
    let Options {
        cases,
        rounds,
        seconds,
        python,
        ..
    } = options;
    Ok(format!(
        "# Measured against its peers\n\n\
         Written by `cargo xtask bench {}`, not by hand. Figures are compared only within a run: each round starts every server \
         in turn, and a cell is the median of the rounds with the least and the most. *×* is ours over theirs. \
         CPU is that of all processes of a server, for each request; all write an access log.\n\n\
         | | |\n|---|---|\n\
         | day | {} |\n| machine | {} |\n| rounds, seconds of load in each | {rounds}, {seconds} |\n| stack | {} |\n\
         | nginx | {} |\n| HAProxy | {} |\n| Python | {} |\n| from PyPI | {} |\n",
        cases.join(" "),
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
        process::machine(),
        env!("CARGO_PKG_VERSION"),
        said_by("nginx", "-v"),
        said_by("haproxy", "-v"),
        place::version(python)?,
        place::PEERS.join(", "),
    ))
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
