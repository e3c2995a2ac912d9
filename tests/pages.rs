//! Help, completions and man pages come from one source and are there for each command.

use std::{fs, process::Command};

use crate::harness::stack_command;

fn printed(arguments: &[&str]) -> String {
    let output = stack_command()
        .args(arguments)
        .output()
        .expect("the binary was built");
    assert!(output.status.success(), "{arguments:?}");
    assert!(output.stderr.is_empty(), "{arguments:?}");
    String::from_utf8(output.stdout).expect("it is text")
}

/// As the help lists them.
fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let (list, _) = list.split_once("\n\n").expect("and something after it");
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names
        .map(str::to_owned)
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn every_command_has_a_page() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().display().to_string();
    assert_eq!(printed(&["man", "--dir", &path]), "");
    for name in commands() {
        let page =
            fs::read_to_string(folder.path().join(format!("stack-{name}.1"))).expect("its page");
        assert!(
            page.contains(".SH SYNOPSIS") && page.contains("stack"),
            "{page}"
        );
        assert_eq!(printed(&["man", &name]), page, "{name}");
        // What nobody may start by hand is nobody's to read of.
        assert!(!page.contains("Not for people"), "{page}");
    }
    assert!(
        fs::read_to_string(folder.path().join("stack.1"))
            .expect("the first page")
            .contains("STACK_LOG")
    );
    assert!(!folder.path().join("stack-proxy.1").exists());
}

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell]);
        for name in commands() {
            assert!(script.contains(&name), "{shell}: {name}");
        }
    }
    let script = printed(&["completions", "bash"]);
    let ask = format!(
        "{script}\nCOMP_WORDS=(stack ch) COMP_CWORD=1; _stack stack ch stack; echo \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash")
        .args(["-c", &ask])
        .output()
        .expect("bash is there");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "check");
}

#[test]
fn the_version_says_what_a_report_needs() {
    let short = printed(&["-V"]);
    assert_eq!(short.lines().count(), 1);
    let long = printed(&["--version"]);
    for part in ["build ", "target ", "compiler ", "rustc", "CPython 3.10"] {
        assert!(long.contains(part), "{long}");
    }
}
