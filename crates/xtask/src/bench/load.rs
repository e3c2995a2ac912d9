//! The load: `wrk` over keep-alive connections, with a script that counts what is not 2xx.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use super::case::Case;

/// How much, and for how long.
pub(crate) struct Load {
    /// Connections that stay open.
    pub(crate) connections: usize,
    /// How long.
    pub(crate) time: Duration,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Requests that were answered with 2xx.
    pub(crate) requests: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Median latency in milliseconds.
    pub(crate) p50: f64,
    /// 99th percentile in milliseconds.
    pub(crate) p99: f64,
}

/// Prints one line that a program can read.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %f %f %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

impl Load {
    /// Lets every worker see some requests before anything is counted.
    pub(crate) fn warm(&self, url: &str, case: &Case) -> Result<()> {
        wrk(url, case, self.connections, Duration::from_secs(1)).map(drop)
    }

    /// Runs it.
    pub(crate) fn run(&self, url: &str, case: &Case) -> Result<Outcome> {
        wrk(url, case, self.connections, self.time)
    }
}

fn wrk(url: &str, case: &Case, connections: usize, time: Duration) -> Result<Outcome> {
    let script = std::env::temp_dir().join(format!("stack-bench-{}.lua", std::process::id()));
    let mut text = SCRIPT.to_owned();
    if case.body > 0 {
        text.push_str(&format!(
            "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {})\n",
            case.body
        ));
    }
    std::fs::write(&script, text)?;
    let output = Command::new("wrk")
        .args([
            "-t1",
            "-c",
            &connections.to_string(),
            "-d",
            &format!("{}s", time.as_secs()),
        ])
        .arg("-s")
        .arg(&script)
        .arg(format!("{url}{}", case.path))
        .output()
        .context("cannot run wrk; it is in the package of that name")?;
    std::fs::remove_file(&script)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("RESULT "))
        .with_context(|| {
            format!(
                "wrk said: {text}{}",
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
    let figures: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [requests, microseconds, p50, p99, errors] = figures[..] else {
        bail!("unexpected: {line}")
    };
    if errors > 0.0 || requests == 0.0 {
        bail!("{errors} of {requests} requests failed");
    }
    Ok(Outcome {
        requests: requests as u64,
        seconds: microseconds / 1e6,
        p50: p50 / 1e3,
        p99: p99 / 1e3,
    })
}
