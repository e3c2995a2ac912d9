//! `stack status`: how the whole that serves a configuration is, as its master tells it.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::acme::message::Standing;
use appserver::pool::keeper::WorkerStatus;
use telemetry::{
    metrics,
    text::{Elapsed, Size, visible_lines},
};

use crate::{
    admin::{AppStatus, Client, Status},
    args,
    check::plural,
    failure::Failure,
    maintenance,
    view::{self, Span, gauge, grouped, share},
};

/// Asks and says.
pub(crate) fn run(asked: &args::Status) -> Result<(), Failure> {
    let client = Client::find(&asked.file)?;
    if asked.ready {
        return client.ready();
    }
    let status: Status = client.get("/status")?;
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
    write_proxy(status, out)?;
    for listener in &status.listeners {
        let scheme = match (listener.figures, listener.tls) {
            (true, _) => "metrics",
            (false, true) => "https",
            (false, false) => "http",
        };
        writeln!(out, "{scheme}: {}", listener.name)?;
    }
    for closed in &status.closed {
        writeln!(out, "{}", maintenance::line(closed))?;
    }
    write_requests(status, out)?;
    write_certificates(status, out)?;
    write_acme(status, out)?;
    for app in &status.apps {
        writeln!(out, "app {}: {}", app.name, state(status, app))?;
    }
    let workers: Vec<&WorkerStatus> = status.apps.iter().flat_map(|app| &app.workers).collect();
    write_workers(&workers, out)?;
    write_running(&workers, out)
}

fn write_proxy(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let proxy = &status.proxy;
    let pid = proxy.pid.map(|pid| format!(" (pid {pid})"));
    let memory = gauge(status, &metrics::MEMORY, |labels| labels[0] == "proxy");
    let connections = gauge(status, &metrics::CONNECTIONS, |_| true);
    let buffered = gauge(status, &metrics::BUFFERED, |_| true);
    writeln!(
        out,
        "proxy: {}{}, {}, {}, {} buffered",
        proxy.state,
        pid.unwrap_or_default(),
        Size(memory),
        plural(
            usize::try_from(connections).unwrap_or(usize::MAX),
            "connection"
        ),
        Size(buffered),
    )
}

fn write_requests(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let span = Span::whole(status);
    let all = span.count(&metrics::REQUESTS, |_| true);
    let class = |class: char| {
        let count = span.count(&metrics::REQUESTS, move |labels| {
            labels[2].starts_with(class)
        });
        format!("{} {class}xx", grouped(count))
    };
    let times = span.times(&metrics::DURATION, |_| true);
    match all {
        0 => writeln!(out, "requests: none yet")?,
        _ => writeln!(
            out,
            "requests: {} ({}); half took up to {}, 99 % up to {}",
            grouped(all),
            ['2', '3', '4', '5'].map(class).join(", "),
            share(&times, 0.5),
            share(&times, 0.99),
        )?,
    }
    let failures: Vec<String> = span
        .failures()
        .into_iter()
        .map(|(cause, count)| format!("{} {cause}", grouped(count)))
        .collect();
    if failures.is_empty() {
        return Ok(());
    }
    writeln!(out, "failures: {}", failures.join(", "))
}

fn write_certificates(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    for (site, end) in view::certificates(status) {
        writeln!(out, "certificate of {site}: {}", view::until(end, now))?;
    }
    Ok(())
}

fn write_acme(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    for acme in &status.acme {
        write!(out, "acme {}: ", acme.hosts.join(", "))?;
        match &acme.standing {
            _ if acme.elsewhere => {
                writeln!(out, "another stack with this state directory gets it")?
            }
            None => writeln!(out, "not looked at yet")?,
            Some(standing) => writeln!(out, "{}", standing_of(standing, now))?,
        }
    }
    Ok(())
}

/// `valid for 30 days, renew in 10 days`, and what is wrong.
fn standing_of(standing: &Standing, now: Duration) -> String {
    let until = |at: u64| match Duration::from_secs(at).checked_sub(now) {
        Some(left) if !left.is_zero() => format!("in {}", Elapsed(left)),
        _ => "now".to_owned(),
    };
    let has = match standing
        .not_after
        .map(|end| Duration::from_secs(end).checked_sub(now))
    {
        None => "no certificate yet".to_owned(),
        Some(None) => "expired".to_owned(),
        Some(Some(left)) => format!("valid for {}", Elapsed(left)),
    };
    let mut text = format!("{has}, {} {}", standing.next, until(standing.at));
    if let (Some(error), 1..) = (&standing.error, standing.failures) {
        text.push_str(&format!(
            "; {}, the last: {error}",
            plural(
                usize::try_from(standing.failures).unwrap_or(usize::MAX),
                "failure"
            )
        ));
    }
    text
}

fn state(status: &Status, app: &AppStatus) -> String {
    let ready: Vec<_> = app
        .workers
        .iter()
        .filter(|worker| matches!(worker.state.as_str(), "ready" | "worn"))
        .collect();
    if let (Some(why), []) = (&app.failed, ready.as_slice()) {
        return format!("cannot start: {}", visible_lines(why));
    }
    let slots = ready.iter().map(|worker| worker.slots.len()).sum();
    let (busy, _) = view::slots(status, &app.name);
    let waiting = gauge(status, &metrics::QUEUE, |labels| labels[0] == app.name);
    let times = Span::whole(status).times(&metrics::APP_DURATION, |labels| labels[0] == app.name);
    format!(
        "{} ready, {}, {busy} busy, {waiting} waiting; {}; half answer within {}, 99 % within {}",
        plural(ready.len(), "worker"),
        plural(slots, "slot"),
        view::memory(app),
        share(&times, 0.5),
        share(&times, 0.99),
    )
}

fn write_workers(workers: &[&WorkerStatus], out: &mut impl Write) -> io::Result<()> {
    if workers.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<12} {:>7} {:<10} {:>12} {:>10} {:>9} {:>6}",
        "WORKER", "PID", "STATE", "AGE", "REQUESTS", "MEMORY", "BUSY"
    )?;
    for worker in workers {
        let busy = worker.slots.iter().filter(|slot| slot.request.is_some());
        writeln!(
            out,
            "{:<12} {:>7} {:<10} {:>12} {:>10} {:>9} {:>6}",
            worker.name,
            worker.pid,
            worker.state,
            view::age(worker.age),
            grouped(worker.requests),
            Size(worker.rss).to_string(),
            format!("{}/{}", busy.count(), worker.slots.len()),
        )?;
    }
    Ok(())
}

/// What runs, the longest first.
fn write_running(workers: &[&WorkerStatus], out: &mut impl Write) -> io::Result<()> {
    let mut running: Vec<_> = workers
        .iter()
        .flat_map(|worker| worker.slots.iter().map(move |slot| (worker, slot)))
        .filter_map(|(worker, slot)| {
            Some((
                format!("{}/{}", worker.name, slot.slot),
                slot.request.as_ref()?,
            ))
        })
        .collect();
    if running.is_empty() {
        return Ok(());
    }
    running.sort_by_key(|(_, request)| std::cmp::Reverse(request.since));
    writeln!(
        out,
        "\n{:<14} {:>12}  {:<17} REQUEST",
        "RUNNING IN", "SINCE", "ID"
    )?;
    for (slot, request) in running {
        writeln!(
            out,
            "{slot:<14} {:>12}  {:<17} {} {}",
            Elapsed(Duration::from_millis(request.since)).to_string(),
            request.id,
            request.method,
            request.target,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_all_of_it_is() {
        let mut out = Vec::new();
        write(&view::tests::example(12_345), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in [
            "serving (pid 7) for 2 h 1 min: /srv/site.toml",
            "proxy: serving (pid 8), 47 MiB, 12 connections, 0 B buffered",
            "http: 127.0.0.1:8080",
            "requests: 13 579 (12 345 2xx, 0 3xx, 0 4xx, 1 234 5xx); half took up to 1.7 ms, 99 % up to 2.4 ms",
            "failures: 1 234 queue-timeout, 2 client-left",
            "app api: cannot start: ImportError: no",
            "web·1              9 ready         2 h 0 min     12 345    64 MiB    1/2",
            "web·1/1               1.2 s  7e5a37dde8abe18c  GET /slow",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in:\n{text}"
            );
        }
        // In some ten million days.
        assert!(
            text.contains("\ncertificate of example.org: without an end\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "app web: 1 worker ready, 2 slots, 1 busy, 5 waiting; 65 MiB; half answer within"
            ),
            "{text}"
        );
    }
}
