//! `stack log`: what a running stack logs.

use std::io::Write;

use crate::{
    admin::{AskLog, Client, Logged},
    args,
    failure::Failure,
};

/// Asks for another level, or for that of the configuration.
pub(crate) fn run(asked: &args::Log) -> Result<(), Failure> {
    let question = AskLog {
        level: asked.level.clone(),
    };
    let logged: Logged = Client::find(&asked.file)?.post("/log", &question)?;
    writeln!(anstream::stdout(), "what is logged: {}", logged.level)?;
    Ok(())
}
