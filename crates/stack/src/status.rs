//! `stack status`: how the whole that serves a configuration is, as its master tells it.

use std::{
    io::{self, Write},
    time::Duration,
};

use telemetry::text::Elapsed;

use crate::{
    admin::{AppStatus, Client, Status},
    args,
    check::plural,
    failure::Failure,
};

/// Asks and says.
pub(crate) fn run(asked: &args::Status) -> Result<(), Failure> {
    let status: Status = Client::connect(&asked.file.path()?)?.get("/status")?;
    let mut out = anstream::stdout();
    if asked.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
        return Ok(());
    }
    Ok(write(&status, &mut out)?)
}

fn write(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let up = Elapsed(Duration::from_secs(status.uptime));
    writeln!(
        out,
        "{} (pid {}) for {up}: {}",
        status.phase,
        status.pid,
        status.config.display()
    )?;
    let proxy = &status.proxy;
    let pid = proxy.pid.map(|pid| format!(" (pid {pid})"));
    writeln!(out, "proxy: {}{}", proxy.state, pid.unwrap_or_default())?;
    for listener in &status.listeners {
        let scheme = if listener.tls { "https" } else { "http" };
        writeln!(out, "{scheme}: {}", listener.name)?;
    }
    for app in &status.apps {
        writeln!(out, "app {}: {}", app.name, state(app))?;
    }
    Ok(())
}

fn state(app: &AppStatus) -> String {
    match (&app.failed, app.workers.len()) {
        (Some(why), 0) => format!("cannot start: {why}"),
        (_, ready) => {
            let slots: u32 = app
                .workers
                .iter()
                .map(|worker| u32::from(worker.threads))
                .sum();
            let slots = usize::try_from(slots).unwrap_or(usize::MAX);
            format!(
                "{} ready, {}",
                plural(ready, "worker"),
                plural(slots, "slot")
            )
        }
    }
}
