//! `cargo xtask book`: the guides as a book, with chapters that are made of what the program says itself, so that they cannot
//! say anything else: every key of `stack reference`, every command of `stack help`.

mod commands;
mod reference;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::repository;

/// What `cargo xtask book` may be told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the chapters are put; mdBook puts its pages into `html` in it
    #[arg(long, value_name = "FOLDER", default_value = "target/book")]
    out: PathBuf,
    /// The program that is described; built from this checkout without
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let repository = repository()?;
    let out = repository.join(&options.out);
    let chapters = out.join("chapters");
    if chapters.exists() {
        fs::remove_dir_all(&chapters)?;
    }
    fs::create_dir_all(&chapters)?;
    let docs = repository.join("docs");
    for entry in fs::read_dir(&docs)? {
        let entry = entry?;
        // Chapters and their pictures.
        if entry.file_name() != "book.toml" {
            fs::copy(entry.path(), chapters.join(entry.file_name()))?;
        }
    }
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build(&repository)?,
    };
    let keys = reference::page(&commands::said(&binary, &["reference"])?);
    fs::write(chapters.join("reference.md"), keys)?;
    fs::write(chapters.join("commands.md"), commands::page(&binary)?)?;
    let book = fs::read_to_string(docs.join("book.toml"))?;
    fs::write(out.join("book.toml"), book)?;
    render(&out)
}

fn build(repository: &Path) -> Result<PathBuf> {
    let mut cargo = crate::cargo_in(repository);
    cargo.args(["build", "--locked", "--package", "stack", "--bin", "stack"]);
    crate::run_command(&mut cargo)?;
    Ok(repository.join("target/debug/stack"))
}

/// By mdBook, where there is one.
#[expect(clippy::print_stdout, reason = "the result of a tool for developers")]
fn render(out: &Path) -> Result<()> {
    let is_there = Command::new("mdbook").arg("--version").output().is_ok();
    if !is_there {
        println!(
            "chapters: {}; there is no mdbook here to make pages of them",
            out.join("chapters").display()
        );
        return Ok(());
    }
    crate::run_command(Command::new("mdbook").arg("build").arg(out)).context("mdbook")?;
    println!("{}", out.join("html/index.html").display());
    Ok(())
}
