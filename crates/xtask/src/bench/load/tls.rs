//! Loads over TLS: `wrk` and `h2load`.

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
        let output = Command::new("h2load")
            .args(["-t1", "-c", &connections.to_string()])
            .args(["-m", &self.streams.to_string()])
            .args(["-D", &time.as_secs().to_string()])
            .arg(format!("{}{}", server.tls_url()?, self.request.path))
            .output()
            .context("cannot run h2load; it is in the package nghttp2-client")?;
        let text = String::from_utf8_lossy(&output.stdout);
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
        Ok(Outcome {
            requests: good,
            cpu: None,
            figures: vec![(RATE, good as f64 / time.as_secs_f64())],
        })
    }
}
