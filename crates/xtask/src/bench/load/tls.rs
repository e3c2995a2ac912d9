//! Loads over TLS: `wrk`, `h2load`, and `openssl s_time` for handshakes.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{Load, Outcome, Request, wrk};
use crate::bench::{peer::Running, report::RATE};

/// Keep-alive connections of HTTP/1.1.
pub(crate) struct Wrk(pub(crate) Request);

impl Load for Wrk {
    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome> {
        wrk::run(
            self.0,
            &server.tls_url()?,
            &server.folder,
            connections,
            time,
        )
    }
}

/// HTTP/2.
pub(crate) struct H2load {
    /// What is asked for.
    pub(crate) request: Request,
    /// Requests at once on each connection.
    pub(crate) streams: usize,
}

impl Load for H2load {
    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome> {
        let text = output(
            Command::new("h2load")
                .args(["-t1", "-c", &connections.to_string()])
                .args(["-m", &self.streams.to_string()])
                .args(["-D", &time.as_secs().to_string()])
                .arg(format!("{}{}", server.tls_url()?, self.request.path)),
            "nghttp2-client",
        )?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("status codes: "));
        let counts: Vec<u64> = line
            .with_context(|| format!("h2load said: {text}"))?
            .split(", ")
            .filter_map(|part| part.split(' ').next()?.parse().ok())
            .collect();
        let good = counts.first().copied().unwrap_or(0);
        ensure!(
            good > 0 && counts[1..].iter().sum::<u64>() == 0,
            "not all were answered: {text}"
        );
        Ok(outcome(good, time))
    }
}

/// A connection and a handshake for each request, one after the other.
pub(crate) struct Handshakes(pub(crate) Request);

impl Load for Handshakes {
    fn run(&self, server: &Running, _: usize, time: Duration) -> Result<Outcome> {
        let url = server.tls_url()?;
        let text = output(
            Command::new("openssl")
                .args([
                    "s_time",
                    "-new",
                    "-connect",
                    url.trim_start_matches("https://"),
                ])
                .args(["-time", &time.as_secs().to_string(), "-www", self.0.path]),
            "openssl",
        )?;
        let line = text.lines().find(|line| line.contains(" real seconds"));
        let made = line.and_then(|line| line.split(' ').next()?.parse().ok());
        let made: u64 = made.with_context(|| format!("openssl said: {text}"))?;
        ensure!(made > 0, "no handshake came about: {text}");
        Ok(outcome(made, time))
    }
}

fn output(command: &mut Command, package: &str) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}; it is in the package {package}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn outcome(requests: u64, time: Duration) -> Outcome {
    Outcome {
        requests,
        figures: vec![(RATE, requests as f64 / time.as_secs_f64())],
    }
}
