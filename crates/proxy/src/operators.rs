//! `[server] metrics`: figures for operators at an address of their own, apart from everything that visitors use.
//!
//! The master has the figures, and parses no stranger's bytes; so the address is the proxy's, and the proxy asks the master. It
//! asks each thing once in a second, however many want to know, so that nobody can keep the master busy; connections have places,
//! and everything a time. What is said here is said to whoever comes, but nothing can be done.

mod bulletin;

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use message::{
    head::{Finder, Limits, Method, RequestHead},
    refusal::Refusal,
    status,
};
use telemetry::metrics::Format;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

pub(crate) use self::bulletin::Bulletins;
use crate::{
    access::Addresses,
    control::{Question, Said},
};

/// The page on which an operator sees all of it, live.
pub const PAGE: &str = include_str!("operators/page.html");

/// What the page may do: nothing but ask where it came from.
pub const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Connections at once; further ones wait to be accepted.
pub(crate) const CONNECTIONS: usize = 64;

/// Of these, pages that are shown live.
const STREAMS: usize = 16;

/// To ask in, and to take each part of an answer in.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a live page hears something new.
const BEAT: Duration = Duration::from_secs(1);

/// Then it comes again by itself: nobody holds a place for ever.
const LONGEST: Duration = Duration::from_secs(3600);

/// The head of a question.
const HEAD: Limits = Limits {
    line: 4 * 1024,
    head: 16 * 1024,
    fields: 64,
};

/// What is said at one address, and to whom.
#[derive(Debug)]
pub(crate) struct Operators {
    /// Whether the page is shown.
    page: bool,
    /// To whom; `None` for everybody.
    inside: Option<Addresses>,
}

/// Places of the addresses together.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) connections: Arc<Semaphore>,
    streams: Semaphore,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            streams: Semaphore::new(STREAMS),
        }
    }
}

impl Operators {
    /// As `metrics` says.
    pub(crate) fn new(metrics: Option<&config::site::Metrics>) -> Self {
        Self {
            page: metrics.is_some_and(|metrics| metrics.page),
            inside: metrics.and_then(|metrics| Addresses::new(&metrics.allow, &[])),
        }
    }

    /// Answers one question of a connection, from this address.
    pub(crate) async fn serve(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        from: Option<IpAddr>,
        bulletins: &Bulletins,
        places: &Places,
    ) {
        let served = async {
            let asked = timeout(PATIENCE, read(&mut stream)).await;
            let is_head = matches!(&asked, Ok(Ok(Some(head))) if head.method == Method::Head);
            let said = match asked {
                Err(_) => Said::text(408, "nothing was asked in time\n"),
                Ok(Err(Unread::Broken(error))) => return Err(error),
                Ok(Err(Unread::Refused(refusal))) => {
                    Said::text(refusal.status(), format!("{refusal}\n"))
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(head))) => match self.wanted(&head, from) {
                    Ok(Wanted::Said(said)) => said,
                    Ok(Wanted::Answer(question)) => bulletins.ask(question).await,
                    Ok(Wanted::Events) => {
                        return self.tell(&mut stream, bulletins, places).await;
                    }
                    Err(said) => said,
                },
            };
            let mut answer = encode(&said);
            if is_head {
                answer.truncate(answer.len() - said.content.len());
            }
            write(&mut stream, &answer).await?;
            timeout(PATIENCE, stream.shutdown()).await?
        };
        if let Err(error) = served.await {
            tracing::debug!("a connection for figures broke: {error}");
        }
    }

    fn wanted(&self, head: &RequestHead, from: Option<IpAddr>) -> Result<Wanted, Said> {
        if self
            .inside
            .as_ref()
            .is_some_and(|inside| !inside.admit(from))
        {
            return Err(Said::text(403, "this address is not let in here\n"));
        }
        let target = str::from_utf8(&head.target).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let wanted = match path {
            "/metrics" => {
                let format = Format::accepted(head.fields.get("accept"));
                Wanted::Answer(match format {
                    Format::Prometheus => Question::Metrics,
                    Format::OpenMetrics => Question::OpenMetrics,
                })
            }
            "/-/live" => Wanted::Answer(Question::Live),
            "/-/ready" => Wanted::Answer(Question::Ready),
            "/" if self.page => Wanted::Said(page()),
            "/events" if self.page => Wanted::Events,
            "/" => Wanted::Said(Said::text(200, "/metrics\n/-/live\n/-/ready\n")),
            _ => return Err(Said::text(404, "there is /metrics, /-/live and /-/ready\n")),
        };
        // Load balancers ask for a head alone, too; of events there is no end that it could be the head of.
        let is_read = match head.method {
            Method::Get => true,
            Method::Head => path != "/events",
            _ => false,
        };
        if !is_read {
            return Err(Said::text(405, "it is asked with GET\n"));
        }
        if self.page
            && matches!(path, "/" | "/events")
            && !is_named_plainly(head.fields.get("host"))
        {
            let why = "the page is shown by address or as localhost, and not by another name\n";
            return Err(Said::text(421, why));
        }
        Ok(wanted)
    }

    /// A summary each second, as server-sent events.
    async fn tell(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        bulletins: &Bulletins,
        places: &Places,
    ) -> io::Result<()> {
        let Ok(_place) = places.streams.try_acquire() else {
            let said = Said::text(503, "enough pages are shown already\n");
            return write(stream, &encode(&said)).await;
        };
        write(stream, EVENTS.as_bytes()).await?;
        let begun = Instant::now();
        while begun.elapsed() < LONGEST {
            let said = bulletins.ask(Question::Summary).await;
            write(stream, event(&said.content).as_bytes()).await?;
            sleep(BEAT).await;
        }
        Ok(())
    }
}

/// What is asked for.
enum Wanted {
    Said(Said),
    Answer(Question),
    Events,
}

/// The head of a stream of events.
pub const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
                          X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n";

/// One event; JSON has no line breaks of its own.
#[must_use]
pub fn event(json: &str) -> String {
    format!("data: {}\n\n", json.trim_end())
}

/// The page, as an answer.
#[must_use]
pub fn page() -> Said {
    Said {
        status: 200,
        content_type: "text/html; charset=utf-8".to_owned(),
        content: PAGE.to_owned(),
    }
}

/// Whether a browser was sent here by an address or as `localhost`. A page of somebody else's could have its own name lead here, and
/// would then read what is said as if it were its own (DNS rebinding).
#[must_use]
pub fn is_named_plainly(host: Option<&[u8]>) -> bool {
    let Some(host) = host.and_then(|host| str::from_utf8(host).ok()) else {
        return false;
    };
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split(']').next().unwrap_or_default();
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = host.split(':').next().unwrap_or_default();
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

fn encode(said: &Said) -> Vec<u8> {
    let policy = match said.content_type.starts_with("text/html") {
        true => format!("Content-Security-Policy: {PAGE_POLICY}\r\n"),
        false => String::new(),
    };
    let head = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n{policy}Connection: close\r\n\r\n",
        said.status,
        status::reason(said.status),
        said.content_type,
        said.content.len(),
    );
    [head.as_bytes(), said.content.as_bytes()].concat()
}

/// Writes all of it, each piece in its time.
async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    const PIECE: usize = 16 * 1024;
    for piece in bytes.chunks(PIECE) {
        timeout(PATIENCE, stream.write_all(piece)).await??;
    }
    Ok(())
}

/// Why there is no question.
enum Unread {
    Refused(Refusal),
    Broken(io::Error),
}

/// Reads one head; `None` when nothing was asked at all. Content is nobody's to send here, and is not read.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<RequestHead>, Unread> {
    let mut buffer = BytesMut::new();
    let mut finder = Finder::default();
    let end = loop {
        if let Some(end) = finder.find(&buffer, &HEAD).map_err(Unread::Refused)? {
            break end;
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) if buffer.is_empty() => return Ok(None),
            Ok(0) => return Err(Unread::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(Unread::Broken(error)),
        }
    };
    let head = RequestHead::parse(&buffer.split_to(end).freeze(), &HEAD);
    head.map(Some).map_err(Unread::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_somebody_elses_cannot_read_ours_by_a_name_of_its_own() {
        for (host, plain) in [
            (Some("localhost:9090"), true),
            (Some("LOCALHOST"), true),
            (Some("stack.localhost"), true),
            (Some("127.0.0.1:9090"), true),
            (Some("[::1]:9090"), true),
            (Some("[::1"), true),
            (Some("192.0.2.7"), true),
            (Some("evil.example:9090"), false),
            (Some("localhost.evil.example"), false),
            (Some("127.0.0.1.evil.example"), false),
            (Some("[evil]"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(is_named_plainly(host.map(str::as_bytes)), plain, "{host:?}");
        }
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(event("{\"a\":1}\n"), "data: {\"a\":1}\n\n");
    }
}
