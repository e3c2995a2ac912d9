//! `stack status`: how the whole that serves a configuration is, as its master tells it.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
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
    for certificate in &status.certificates {
        writeln!(
            out,
            "certificate for {}: {}",
            certificate.hosts.join(", "),
            validity(certificate.not_after)
        )?;
    }
    for app in &status.apps {
        writeln!(out, "app {}: {}", app.name, state(app))?;
    }
    Ok(())
}

fn validity(not_after: u64) -> String {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(not_after);
    match end.duration_since(SystemTime::now()) {
        Ok(left) => format!("valid for {}", Elapsed(left)),
        Err(_) => "expired".to_owned(),
    }
}

fn state(app: &AppStatus) -> String {
    let ready: Vec<_> = app
        .workers
        .iter()
        .filter(|worker| matches!(worker.state.as_str(), "ready" | "worn"))
        .collect();
    match (&app.failed, ready.len()) {
        (Some(why), 0) => format!("cannot start: {why}"),
        (_, count) => {
            let slots = ready.iter().map(|worker| worker.slots.len()).sum();
            format!(
                "{} ready, {}",
                plural(count, "worker"),
                plural(slots, "slot")
            )
        }
    }
}
