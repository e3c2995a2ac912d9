//! The chapter of all commands, made of what the program says of itself.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::output;

/// As wide as lines of code are in a book.
const COLUMNS: &str = "100";

/// What the program prints.
pub(super) fn said(binary: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(binary);
    command.args(arguments).env("COLUMNS", COLUMNS);
    output(&mut command)
}

/// Makes it.
pub(super) fn page(binary: &Path) -> Result<String> {
    let whole = said(binary, &["--help"])?;
    let mut page = format!("# Reference: every command\n\n{}", fenced(&whole));
    let names = names(&whole);
    ensure!(!names.is_empty(), "`stack --help` lists no commands");
    for name in names {
        let help = said(binary, &["help", name])
            .with_context(|| format!("`stack help {name}` says nothing"))?;
        page.push_str(&format!("\n## stack {name}\n\n{}", fenced(&help)));
    }
    Ok(page)
}

/// The commands that a help lists, in its order.
fn names(help: &str) -> Vec<&str> {
    let listed = help
        .split_once("Commands:\n")
        .map_or("", |(_, rest)| rest)
        .lines()
        .take_while(|line| !line.trim().is_empty());
    let first = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    first
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

fn fenced(help: &str) -> String {
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    format!("```text\n{}\n```\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_those_that_are_listed() {
        let help = "What it is\n\nCommands:\n  up     Serve,\n         until TERM\n  check  Look\n  help   This\n\nOptions:\n  -h\n";
        assert_eq!(names(help), ["up", "check"]);
        assert!(names("no list").is_empty());
    }
}
