//! A slot's loop on one connection: read a request, have it answered, again, until the proxy ends the stream.
//!
//! Blocking, on a thread of its own, without a clock: the proxy writes a request only when it has all of it and takes a
//! response at the slot's speed, so nothing here waits for a visitor. The loop answers the proxy's greeting itself; the
//! application never sees it. It does no recovery: what the proxy would never write ends the connection with an error.

use std::{io, os::unix::net::UnixStream, sync::Arc};

use memchr::memmem;
use message::handoff::Greeting;
use rustix::io::{Errno, read, retry_on_intr};

use crate::{
    application::Application,
    content::Content,
    request::{Garbage, Index},
    response::Response,
};

/// Longest head that is accepted. The proxy's own limit for a client's head is far below; ours only bounds memory.
pub const HEAD_LIMIT: usize = 256 * 1024;

/// What one read can bring: most requests, whole.
const BUFFER: usize = 16 * 1024;

/// Why a connection ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What came is not what our proxy writes.
    #[error("the proxy sent something that is not a request: {0}")]
    Garbage(#[from] Garbage),
    /// The proxy is of another build.
    #[error("the proxy is of build {theirs:?}, this worker of {ours:?}")]
    Build {
        /// What the greeting said.
        theirs: String,
        /// What this worker is.
        ours: String,
    },
    /// The proxy left in the middle of a request.
    #[error("the connection to the proxy broke")]
    Connection(#[source] io::Error),
}

/// What a slot says of itself in the greeting.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The build that the proxy must be of.
    pub build: String,
    /// The app's name.
    pub app: String,
    /// The worker's number.
    pub worker: u32,
    /// The slot's number.
    pub slot: u16,
}

/// Serves one connection until the proxy ends it.
pub fn serve(
    stream: UnixStream,
    identity: &Identity,
    application: &mut impl Application,
) -> Result<(), Error> {
    let stream = Arc::new(stream);
    let mut inbound = Inbound::default();
    let mut index = Index::default();
    let mut response = Response::new(Arc::clone(&stream));
    while let Some(end) = inbound.read_head(&stream)? {
        let (head, early) = inbound.split(end);
        index.scan(head)?;
        let content = content(&stream, early, index.content_length())?;
        response.reset(false);
        if let Some(build) = index.greeting(head) {
            greet(build, identity, &mut response)?;
        } else {
            let request = index.request(head, content.as_ref())?;
            response.reset(request.is_head());
            application.respond(&request, &mut response);
        }
        response.flush();
        if response.must_close() {
            return Ok(());
        }
        // A proxy that has its answer may spare itself the rest of an upload, and close.
        if content.is_some_and(|content| content.drain().is_err()) {
            return Ok(());
        }
        inbound.clear();
    }
    Ok(())
}

fn content(stream: &Arc<UnixStream>, early: &[u8], length: u64) -> Result<Option<Content>, Error> {
    let left = length
        .checked_sub(early.len() as u64)
        .ok_or(Garbage::Pipelined)?;
    Ok((length > 0).then(|| Content::new(Arc::clone(stream), early, left)))
}

fn greet(build: &[u8], identity: &Identity, response: &mut Response) -> Result<(), Error> {
    if build != identity.build.as_bytes() {
        return Err(Error::Build {
            theirs: String::from_utf8_lossy(build).into_owned(),
            ours: identity.build.clone(),
        });
    }
    let mut answer = b"HTTP/1.1 204 No Content\r\n".to_vec();
    Greeting {
        app: &identity.app,
        worker: identity.worker,
        slot: identity.slot,
    }
    .encode(&mut answer);
    answer.extend_from_slice(b"\r\n");
    response.raw(&answer);
    Ok(())
}

/// What was read from the connection: one head, and the beginning of its content.
#[derive(Default)]
struct Inbound {
    buffer: Vec<u8>,
    filled: usize,
}

impl Inbound {
    /// Reads up to the end of a head; how long it is. `None`: the stream ended between requests.
    fn read_head(&mut self, stream: &UnixStream) -> Result<Option<usize>, Error> {
        loop {
            self.make_room()?;
            let space = &mut self.buffer[self.filled..];
            let count = match retry_on_intr(|| read(stream, &mut *space)) {
                Ok(0) if self.filled == 0 => return Ok(None),
                // The proxy was just greeted and has let go of the worker without looking at the answer.
                Err(Errno::CONNRESET) if self.filled == 0 => return Ok(None),
                Ok(0) => return Err(Error::Connection(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => count,
                Err(error) => return Err(Error::Connection(error.into())),
            };
            // The end may lie across two reads.
            let from = self.filled.saturating_sub(3);
            self.filled += count;
            if let Some(place) = memmem::find(&self.buffer[from..self.filled], b"\r\n\r\n") {
                return Ok(Some(from + place + 4));
            }
        }
    }

    fn make_room(&mut self) -> Result<(), Garbage> {
        if self.filled == self.buffer.len() {
            if self.filled >= HEAD_LIMIT {
                return Err(Garbage::TooLong);
            }
            self.buffer.resize((self.filled * 2).max(BUFFER), 0);
        }
        Ok(())
    }

    fn split(&self, end: usize) -> (&[u8], &[u8]) {
        self.buffer[..self.filled].split_at(end)
    }

    fn clear(&mut self) {
        self.filled = 0;
        self.buffer.truncate(BUFFER);
        self.buffer.shrink_to(BUFFER);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        mem::MaybeUninit,
        thread,
    };

    use super::*;
    use crate::{
        request::Request,
        response::{Failure, Head},
    };

    /// Answers with what it was asked, in plain Rust.
    #[derive(Default)]
    struct Echo {
        seen: Vec<String>,
    }

    impl Application for Echo {
        fn respond(&mut self, request: &Request<'_>, response: &mut Response) {
            let path = String::from_utf8_lossy(request.path()).into_owned();
            let mut head = Head::default();
            head.start(b"200 OK").unwrap();
            match path.as_str() {
                "/fail" => response.fail(Failure::Exception),
                "/abandon" => {}
                _ => {
                    let length =
                        request
                            .content()
                            .filter(|_| path == "/read")
                            .map_or(0, |content| {
                                let mut space = vec![MaybeUninit::uninit(); 1 << 20];
                                content.read(&mut space).unwrap()
                            });
                    let text = format!("{path} {length}");
                    response.begin(&head, Some(text.len() as u64));
                    response.push(text.as_bytes());
                    response.end().unwrap();
                }
            }
            self.seen.push(path);
        }
    }

    fn identity() -> Identity {
        Identity {
            build: "b-1".to_owned(),
            app: "web".to_owned(),
            worker: 2,
            slot: 3,
        }
    }

    /// What a slot answers to these bytes, how it ends, and what the application saw.
    fn talk(sent: &[u8]) -> (String, Result<(), Error>, Vec<String>) {
        let (mut proxy, slot) = UnixStream::pair().unwrap();
        let served = thread::spawn(move || {
            let mut echo = Echo::default();
            (serve(slot, &identity(), &mut echo), echo.seen)
        });
        let mut half = proxy.try_clone().unwrap();
        let sent = sent.to_vec();
        let sender = thread::spawn(move || {
            // One request at a time, as the proxy does it; a slot that has closed takes no more.
            let mut answered = Vec::new();
            for request in split(&sent) {
                if half.write_all(request).is_err() {
                    break;
                }
                if !read_answer(&mut half, &mut answered) {
                    break;
                }
            }
            answered
        });
        let mut text = sender.join().unwrap();
        drop(proxy.shutdown(std::net::Shutdown::Write));
        let _ = proxy.read_to_end(&mut text);
        let (result, seen) = served.join().unwrap();
        (String::from_utf8(text).unwrap(), result, seen)
    }

    /// The requests of a script: each ends where the next method stands after a line of `--`.
    fn split(sent: &[u8]) -> impl Iterator<Item = &[u8]> {
        let mut rest = sent;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = memmem::find(rest, b"--").unwrap_or(rest.len());
            let request = &rest[..end];
            rest = rest.get(end + 2..).unwrap_or_default();
            Some(request)
        })
    }

    /// Reads one answer with a Content-Length or none; `false` at the end of the stream.
    fn read_answer(stream: &mut UnixStream, all: &mut Vec<u8>) -> bool {
        let start = all.len();
        loop {
            let text = String::from_utf8_lossy(&all[start..]).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("Content-Length: "));
                if body.len() == length.map_or(0, |length| length.parse().unwrap()) {
                    return true;
                }
            }
            let mut block = [0; 1024];
            match stream.read(&mut block) {
                Ok(count @ 1..) => all.extend_from_slice(&block[..count]),
                _ => return false,
            }
        }
    }

    const WHO: &str = "_stack: - 0 http - 80 id\r\n";

    #[test]
    fn the_runtime_answers_greetings() {
        let (text, end, seen) =
            talk(b"OPTIONS * HTTP/1.1\r\nHost: stack\r\n_greeting: b-1\r\n\r\n");
        assert_eq!(
            text,
            "HTTP/1.1 204 No Content\r\n_greeting: web 2 3\r\n\r\n"
        );
        assert!(end.is_ok() && seen.is_empty());
        let (text, end, _) = talk(b"OPTIONS * HTTP/1.1\r\n_greeting: b-2\r\n\r\n");
        assert_eq!(text, "");
        assert!(matches!(end, Err(Error::Build { theirs, .. }) if theirs == "b-2"));
    }

    #[test]
    fn requests_follow_one_another_whatever_is_read() {
        let body = "GET /smuggled HTTP/1.1\r\n\r\n".repeat(2000);
        let script = format!(
            "POST /ignore HTTP/1.1\r\n{WHO}Content-Length: {length}\r\n\r\n{body}--\
             POST /read HTTP/1.1\r\n{WHO}Content-Length: {length}\r\n\r\n{body}--\
             GET /fail HTTP/1.1\r\n{WHO}\r\n--\
             OPTIONS * HTTP/1.1\r\n{WHO}\r\n",
            length = body.len()
        );
        let (text, end, seen) = talk(script.as_bytes());
        assert!(end.is_ok());
        assert_eq!(seen, ["/ignore", "/read", "/fail", "*"]);
        assert!(
            text.contains(&format!("/read {}HTTP/1.1 500 ", body.len())),
            "{text}"
        );
        assert!(text.ends_with("* 0"), "{text}");
    }

    #[test]
    fn a_response_that_is_not_finished_ends_the_connection() {
        let (text, end, seen) = talk(
            format!("GET /abandon HTTP/1.1\r\n{WHO}\r\n--GET / HTTP/1.1\r\n{WHO}\r\n").as_bytes(),
        );
        assert!(end.is_ok());
        assert_eq!((text.as_str(), seen.len()), ("", 1));
    }

    #[test]
    fn garbage_ends_the_connection() {
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(HEAD_LIMIT));
        let pipelined = format!("GET / HTTP/1.1\r\n{WHO}\r\nGET ");
        for (sent, garbage) in [
            (endless.as_str(), Garbage::TooLong),
            (pipelined.as_str(), Garbage::Pipelined),
            ("GET / HTTP/1.1\r\n\r\n", Garbage::Handoff),
        ] {
            let (text, end, seen) = talk(sent.as_bytes());
            assert!(
                matches!(end, Err(Error::Garbage(why)) if why == garbage),
                "{garbage}"
            );
            assert!(text.is_empty() && seen.is_empty());
        }
    }

    #[test]
    fn a_long_head_is_read_and_its_memory_given_back() {
        let head = format!(
            "GET /long HTTP/1.1\r\n{WHO}X: {}\r\n\r\n",
            "y".repeat(100_000)
        );
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let length = head.len();
        let sender = thread::spawn(move || theirs.write_all(head.as_bytes()).map(|()| theirs));
        let mut inbound = Inbound::default();
        assert_eq!(inbound.read_head(&ours).unwrap(), Some(length));
        inbound.clear();
        assert_eq!(inbound.buffer.capacity(), BUFFER);
        drop(sender.join().unwrap());
        assert_eq!(inbound.read_head(&ours).unwrap(), None);
    }
}
