//! `stack maintenance`: closes sites or apps to visitors for a while, and opens them again.

use std::io::Write;

use crate::{
    admin::{AskMaintenance, Client, ClosedStatus, Maintenance},
    args::{self, Turn},
    failure::Failure,
};

/// Asks, and says what is closed now.
pub(crate) fn run(asked: &args::Maintenance) -> Result<(), Failure> {
    let question = AskMaintenance {
        on: asked.turn.map(|turn| turn == Turn::On),
        site: asked.site.clone(),
        app: asked.app.clone(),
        allow: asked.allow.clone(),
    };
    let maintenance: Maintenance = Client::find(&asked.file)?.post("/maintenance", &question)?;
    let mut out = anstream::stdout();
    if maintenance.closed.is_empty() {
        writeln!(out, "everything is open")?;
    }
    for closed in &maintenance.closed {
        writeln!(out, "{}", line(closed))?;
    }
    Ok(())
}

/// What is closed, by whom, and for whom it is not.
pub(crate) fn line(closed: &ClosedStatus) -> String {
    let ClosedStatus { what, by, allow } = closed;
    let by = match by.as_str() {
        "configuration" => " by the configuration",
        _ => "",
    };
    let inside: Vec<String> = allow.iter().map(ToString::to_string).collect();
    match inside.is_empty() {
        true => format!("closed for maintenance{by}: {what}"),
        false => format!(
            "closed for maintenance{by}: {what}, but for {}",
            inside.join(", ")
        ),
    }
}
