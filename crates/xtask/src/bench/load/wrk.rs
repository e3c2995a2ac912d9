//! `wrk` over keep-alive connections, with a script that counts what is not 2xx.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use super::{Load, Outcome, Request};
use crate::bench::{
    peer::Running,
    report::{P50, P99, RATE},
};

/// Makes the request over TCP.
pub(crate) struct Wrk(pub(crate) Request);

/// Prints one line that a program can read.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %f %f %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

impl Load for Wrk {
    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome> {
        run(self.0, &server.url()?, &server.folder, connections, time)
    }
}

/// Makes the request at this address.
pub(super) fn run(
    request: Request,
    url: &str,
    folder: &Path,
    connections: usize,
    time: Duration,
) -> Result<Outcome> {
    let script = folder.join("wrk.lua");
    let mut text = SCRIPT.to_owned();
    if request.body > 0 {
        text.push_str(&format!(
            "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {})\n",
            request.body
        ));
    }
    std::fs::write(&script, text)?;
    let output = Command::new("wrk")
        .args(["-t1", "-c", &connections.to_string()])
        .args(["-d", &format!("{}s", time.as_secs())])
        .arg("-s")
        .arg(&script)
        .arg(format!("{url}{}", request.path))
        .output()
        .context("cannot run wrk; it is in the package of that name")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let line = line.with_context(|| {
        format!(
            "wrk said: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    outcome(line)
}

fn outcome(line: &str) -> Result<Outcome> {
    let figures: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [requests, microseconds, p50, p99, errors] = figures[..] else {
        bail!("unexpected: {line}")
    };
    if errors > 0.0 || requests == 0.0 {
        bail!("{errors} of {requests} requests failed");
    }
    Ok(Outcome {
        requests: requests as u64,
        figures: vec![
            (RATE, requests / microseconds * 1e6),
            (P50, p50 / 1e3),
            (P99, p99 / 1e3),
        ],
    })
}
