//! The admin socket: what a command asks of a running master, and how it finds it.
//!
//! HTTP/1.1 with JSON over a Unix socket that only the master's user may open, one question to a connection, so `curl
//! --unix-socket` and any library can ask as well. The master's end is `up::admin`. A command never reads the
//! configuration to find its master: one that reloads a file with a mistake in it must still get there.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use ::acme::message::{Scene, Standing};
use anyhow::Context;
use appserver::pool::keeper::{WorkerStatus, WorkerTrace};
use bytes::Bytes;
use ipnet::IpNet;
use message::head::{Finder, Limits, ResponseHead};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use telemetry::metrics::Snapshot;

use crate::{args::ConfigFile, failure::Failure, up::rundir};

/// The name of the socket in the run directory.
pub(crate) const SOCKET: &str = "admin.sock";

/// How the whole is: the answer to `GET /status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The master's build.
    pub(crate) version: String,
    /// The master's process id.
    pub(crate) pid: u32,
    /// The configuration that is served.
    pub(crate) config: PathBuf,
    /// `starting`, `serving`, `draining` or `stopping`.
    pub(crate) phase: String,
    /// Since when the master lives, in seconds.
    pub(crate) uptime: u64,
    /// The proxy.
    pub(crate) proxy: ProxyStatus,
    /// What is listened on.
    pub(crate) listeners: Vec<ListenerStatus>,
    /// What TLS shows to whom.
    pub(crate) certificates: Vec<CertificateStatus>,
    /// Certificates by ACME, in order of the file.
    #[serde(default)]
    pub(crate) acme: Vec<AcmeStatus>,
    /// The apps, in order of name.
    pub(crate) apps: Vec<AppStatus>,
    /// What is closed for maintenance.
    #[serde(default)]
    pub(crate) closed: Vec<ClosedStatus>,
    /// What is logged.
    pub(crate) log: String,
    /// All figures; docs/metrics.md has their names.
    pub(crate) figures: Snapshot,
}

/// How the proxy is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProxyStatus {
    /// Its process id; `None` while there is none.
    pub(crate) pid: Option<i32>,
    /// `starting`, `serving`, `waiting` (it died and is started again soon) or `gone`.
    pub(crate) state: String,
}

/// A certificate that TLS shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CertificateStatus {
    /// The hosts of the site that shows it.
    pub(crate) hosts: Vec<String>,
    /// Whose it is.
    pub(crate) subject: String,
    /// Its serial number, in hexadecimal digits.
    pub(crate) serial: String,
    /// Until when it is valid, in seconds since 1970.
    pub(crate) not_after: u64,
}

/// A certificate by ACME. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AcmeStatus {
    /// The names that are to be in it.
    pub(crate) hosts: Vec<String>,
    /// How it is; `None` where another stack gets it, or nobody has looked yet.
    pub(crate) standing: Option<Standing>,
    /// Whether another stack, with the same state directory, gets it.
    pub(crate) elsewhere: bool,
}

/// What a rehearsal came to: the answer to `POST /rehearse`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rehearsal {
    /// For each site that wants a certificate.
    pub(crate) scenes: Vec<Scene>,
}

/// What is listened on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerStatus {
    /// `127.0.0.1:8080`.
    pub(crate) name: String,
    /// Whether TLS is spoken on it.
    pub(crate) tls: bool,
    /// Whether it is for operators.
    #[serde(default)]
    pub(crate) figures: bool,
}

/// How an app is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppStatus {
    /// Its name.
    pub(crate) name: String,
    /// Why it has no worker, when the last one could not start.
    pub(crate) failed: Option<String>,
    /// All that have a process, those that come and those that leave too.
    pub(crate) workers: Vec<WorkerStatus>,
}

/// Something that is closed for maintenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClosedStatus {
    /// `everything`, `site example.org`, `app web`.
    pub(crate) what: String,
    /// Who has closed it: a `command`, or the `configuration`.
    pub(crate) by: String,
    /// Who comes in nevertheless.
    pub(crate) allow: Vec<IpNet>,
}

/// What `POST /maintenance` asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskMaintenance {
    /// To close or to open; without it, only what is closed.
    #[serde(default)]
    pub(crate) on: Option<bool>,
    /// The site with this host; everything, without it and `app`.
    #[serde(default)]
    pub(crate) site: Option<String>,
    /// What this app answers.
    #[serde(default)]
    pub(crate) app: Option<String>,
    /// Who comes in nevertheless.
    #[serde(default)]
    pub(crate) allow: Vec<IpNet>,
}

/// What is closed now: the answer to `POST /maintenance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maintenance {
    /// All of it.
    pub(crate) closed: Vec<ClosedStatus>,
}

/// What `POST /log` asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskLog {
    /// `debug`, `warn,proxy=debug`; what the configuration says without.
    #[serde(default)]
    pub(crate) level: Option<String>,
}

/// What is logged now: the answer to `POST /log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Logged {
    /// As `STACK_LOG` would say it.
    pub(crate) level: String,
}

/// What `POST /recycle` asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskRecycle {
    /// This worker: `web·3`, or `web.3`, which is easier to type.
    pub(crate) worker: String,
}

/// It is done, or has begun: the answer where there is nothing more to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// For people.
    pub(crate) done: String,
}

/// What `POST /trace` asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskTrace {
    /// Of this app; of all without.
    #[serde(default)]
    pub(crate) app: Option<String>,
}

/// Where the busy slots are: the answer to `POST /trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// All workers that have a process.
    pub(crate) workers: Vec<WorkerTrace>,
}

/// What `POST /reload` asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskReload {
    /// The apps that get new workers whatever has changed: all without, none if it is empty.
    #[serde(default)]
    pub(crate) apps: Option<Vec<String>>,
}

/// It has been done: the answer to `POST /reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    /// What is served now.
    pub(crate) config: String,
    /// How long it took, in milliseconds.
    pub(crate) took: u64,
}

/// Another master has taken over: the answer to `POST /upgrade`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upgraded {
    /// Its process id.
    pub(crate) pid: i32,
}

/// Whatever a question has no better answer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// For people; may have several lines.
    pub(crate) error: String,
}

/// A way to the master of a configuration.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
}

/// An answer is never this large, unless it is no answer.
const ANSWER_MAX: u64 = 64 << 20;

/// The head is our own.
const HEAD: Limits = Limits {
    line: 1024,
    head: 8 * 1024,
    fields: 64,
};

impl Client {
    /// Connects to the master of the configuration that is named or found; where none is, to the only one that there is.
    pub(crate) fn find(file: &ConfigFile) -> Result<Self, Failure> {
        match file.path() {
            Ok(config) => Self::connect(&config),
            Err(nowhere) => Self::only().unwrap_or(Err(nowhere)),
        }
    }

    /// The only master that runs here as our user; `None` where there is none.
    fn only() -> Option<Result<Self, Failure>> {
        let mut running: Vec<(PathBuf, UnixStream)> = rundir::all_admin_sockets()
            .into_iter()
            .filter_map(|(config, socket)| Some((config, UnixStream::connect(socket).ok()?)))
            .collect();
        let (_, stream) = running.pop()?;
        if running.is_empty() {
            return Some(Ok(Self { stream }));
        }
        let more = running.len() + 1;
        let named = running
            .first()
            .map(|(config, _)| config.display().to_string());
        Some(Err(Failure::User(format!(
            "{more} configurations are served here: name one, such as `--config {}`",
            named.unwrap_or_default()
        ))))
    }

    /// Connects to the master that serves this configuration.
    pub(crate) fn connect(config: &Path) -> Result<Self, Failure> {
        let shown = config.display();
        Self::running(config)?.ok_or_else(|| {
            Failure::User(format!(
                "{shown} is not being served here; start it with `stack up --config {shown}`"
            ))
        })
    }

    /// The same, or `None` where none does.
    pub(crate) fn running(config: &Path) -> Result<Option<Self>, Failure> {
        let mut refused = None;
        for socket in rundir::admin_sockets(config) {
            match UnixStream::connect(&socket) {
                Ok(stream) => return Ok(Some(Self { stream })),
                // What a run that was killed has left behind.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => refused = Some((socket, error)),
            }
        }
        match refused {
            Some((socket, error)) => Err(Failure::User(format!(
                "{} is being served, but we may not ask its master: {}: {error}; do it as the user that it runs as",
                config.display(),
                socket.display()
            ))),
            None => Ok(None),
        }
    }

    /// Asks for something.
    pub(crate) fn get<T: DeserializeOwned>(self, path: &str) -> Result<T, Failure> {
        self.ask("GET", path, b"")
    }

    /// Asks for something that needs words.
    pub(crate) fn post<T: DeserializeOwned>(
        self,
        path: &str,
        content: &impl Serialize,
    ) -> Result<T, Failure> {
        self.ask("POST", path, &serde_json::to_vec(content)?)
    }

    /// Whether visitors are served as they should be.
    pub(crate) fn ready(self) -> Result<(), Failure> {
        match self.answer("GET", "/-/ready", b"")? {
            (200, _) => Ok(()),
            (_, why) => Err(Failure::User(
                String::from_utf8_lossy(&why).trim_end().to_owned(),
            )),
        }
    }

    fn ask<T: DeserializeOwned>(
        self,
        method: &str,
        path: &str,
        content: &[u8],
    ) -> Result<T, Failure> {
        let (status, content) = self.answer(method, path, content)?;
        if (200..300).contains(&status) {
            return Ok(serde_json::from_slice(&content)?);
        }
        let trouble: Trouble = serde_json::from_slice(&content)?;
        Err(Failure::User(trouble.error))
    }

    fn answer(
        mut self,
        method: &str,
        path: &str,
        content: &[u8],
    ) -> Result<(u16, Vec<u8>), Failure> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: stack\r\nContent-Length: {}\r\n\r\n",
            content.len()
        );
        let answer = self
            .exchange(&[head.as_bytes(), content].concat())
            .context("the master does not answer")?;
        let (status, content) = understand(&answer)
            .ok_or_else(|| Failure::User("the master ended before it had answered".to_owned()))?;
        Ok((status, content.to_vec()))
    }
}

impl Client {
    fn exchange(&mut self, question: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.write_all(question)?;
        let mut answer = Vec::new();
        (&self.stream).take(ANSWER_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// The status and the content of a whole answer.
fn understand(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = Finder::default().find_response(answer, &HEAD).ok()??;
    let head = ResponseHead::parse(Bytes::copy_from_slice(&answer[..end]), &HEAD).ok()?;
    let length = head.fields.get("content-length")?;
    let length: usize = str::from_utf8(length).ok()?.parse().ok()?;
    let content = answer.get(end..end.checked_add(length)?)?;
    Some((head.status, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_none() {
        let whole = b"HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\n\r\n{}\n";
        assert_eq!(understand(whole), Some((409, &b"{}\n"[..])));
        for cut in 0..whole.len() {
            assert_eq!(understand(&whole[..cut]), None, "{cut}");
        }
    }
}
