//! What is made from the command line itself: completions and man pages; and the reference.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{args::Arguments, failure::Failure};

/// `stack completions SHELL`.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    // Into memory first: the generator panics where its writer fails, as with `| head`.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "stack", &mut script);
    print(&script)
}

/// `stack reference`.
pub(crate) fn reference() -> Result<(), Failure> {
    print(include_bytes!("../../../config/reference.toml"))
}

/// `stack man`: one page on standard output, or all of them in a folder.
pub(crate) fn man(of: Option<&str>, folder: Option<&Path>) -> Result<(), Failure> {
    let command = whole();
    if let Some(folder) = folder {
        return write_all(&command, folder);
    }
    let Some(name) = of else {
        return print(&page(command)?);
    };
    let found = command
        .get_subcommands()
        .find(|command| command.get_name() == name && !command.is_hide_set());
    match found {
        Some(command) => print(&page(command.clone())?),
        None => Err(Failure::User(format!(
            "there is no command {name:?}; `stack --help` lists them"
        ))),
    }
}

/// With the names that pages need: `stack-serve`.
fn whole() -> Command {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    command
}

fn write_all(command: &Command, folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
    let shown = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    for command in std::iter::once(command).chain(shown) {
        let name = command.get_display_name().unwrap_or("stack").to_owned();
        let path = folder.join(format!("{name}.1"));
        fs::write(&path, page(command.clone())?).map_err(|error| cannot_write(&path, &error))?;
    }
    Ok(())
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::User(format!("cannot write {}: {error}", path.display()))
}

fn page(command: Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command)
        .render(&mut page)
        .context("cannot make the page")?;
    Ok(page)
}

/// A reader that has enough is no failure.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
