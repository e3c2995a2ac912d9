//! `wrk` over keep-alive connections, with a script that counts what is not 2xx.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{Load, Outcome, Request};
use crate::bench::{
    peer::Running,
    report::{P50, P99, RATE},
};

/// Makes the request over TCP.
pub(crate) struct Wrk(pub(crate) Request);

/// Asks for a file that the client has already, as a browser does that looks whether it is still the same.
pub(crate) struct Unchanged(pub(crate) &'static str);

/// Asks for the files of a folder that are called by their numbers, from 0, one after the other.
pub(crate) struct Each {
    /// The folder, with its last slash.
    pub(crate) folder: &'static str,
    /// How many there are.
    pub(crate) count: usize,
}

/// Asks the hosts `s0.example.org`, `s1.example.org`… one after the other.
pub(crate) struct Hosts {
    /// How many there are.
    pub(crate) count: usize,
}

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

impl Load for Unchanged {
    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome> {
        let (url, path) = (server.url()?, self.0);
        let known = validators(&url, path)?;
        let status = answer(&url, path, &known)?.0;
        ensure!(
            status == 304,
            "what has not changed is answered with {status}"
        );
        let script: String = known
            .iter()
            .map(|(name, value)| format!("wrk.headers[{name:?}] = {value:?}\n"))
            .collect();
        let url = format!("{url}{path}");
        ask(&script, &url, &server.folder, connections, time)
    }
}

impl Load for Each {
    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome> {
        let Self { folder, count } = self;
        let request = format!("nil, \"{folder}\" .. (number - 1)");
        let script = in_turn(&request, *count);
        ask(&script, &server.url()?, &server.folder, connections, time)
    }
}

impl Load for Hosts {
    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome> {
        let request = "nil, \"/\", { Host = \"s\" .. (number - 1) .. \".example.org\" }";
        let script = in_turn(request, self.count);
        ask(&script, &server.url()?, &server.folder, connections, time)
    }
}

/// So many requests one after the other; `request` is what each is made of, by its `number` from 1.
fn in_turn(request: &str, count: usize) -> String {
    format!(
        "local all, next = {{}}, 0\n\
         init = function()\n for number = 1, {count} do\n\
         all[number] = wrk.format({request})\n end\nend\n\
         request = function()\n next = next % {count} + 1\n return all[next]\nend\n"
    )
}

/// Makes the request at this address.
pub(super) fn run(
    request: Request,
    url: &str,
    folder: &Path,
    connections: usize,
    time: Duration,
) -> Result<Outcome> {
    let script = match request.body {
        0 => String::new(),
        length => format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {length})\n"),
    };
    let url = format!("{url}{}", request.path);
    ask(&script, &url, folder, connections, time)
}

fn ask(
    script: &str,
    url: &str,
    folder: &Path,
    connections: usize,
    time: Duration,
) -> Result<Outcome> {
    let file = folder.join("wrk.lua");
    std::fs::write(&file, format!("{SCRIPT}{script}"))?;
    let output = Command::new("wrk")
        .args(["-t1", "-c", &connections.to_string()])
        .args(["-d", &format!("{}s", time.as_secs())])
        .arg("-s")
        .arg(&file)
        .arg(url)
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

/// Fields of a request.
type Fields = Vec<(&'static str, String)>;

/// What a client that has the file says of it the next time.
fn validators(url: &str, path: &str) -> Result<Fields> {
    let (status, head) = answer(url, path, &[])?;
    ensure!(status == 200, "there is no {path}");
    let said = |name: &str| {
        let mut lines = head.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value
            .map(str::to_owned)
            .with_context(|| format!("no {name} in: {head}"))
    };
    Ok(vec![
        ("If-None-Match", said("ETag")?),
        ("If-Modified-Since", said("Last-Modified")?),
    ])
}

/// The status and the head of one answer.
fn answer(url: &str, path: &str, fields: &[(&str, String)]) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{fields}\r\n");
    // In one piece: the floor takes what it reads for a request.
    stream.write_all(request.as_bytes())?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let all = String::from_utf8_lossy(&all).into_owned();
    let status = all.get(9..12).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("no answer: {all}"))?, all))
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
        cpu: None,
        figures: vec![
            (RATE, requests / microseconds * 1e6),
            (P50, p50 / 1e3),
            (P99, p99 / 1e3),
        ],
    })
}
