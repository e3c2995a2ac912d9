//! A slot's connection: a request is received, then answered, again, until the proxy ends the stream. [`crate::crew`] decides
//! which thread does so.
//!
//! Without a clock: the proxy writes a request only when it has all of it and takes a response at the slot's speed, so
//! nothing here waits for a visitor. The proxy's greeting is answered here; the application never sees it. There is no
//! recovery: what the proxy would never write ends the connection with an error.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use memchr::memmem;
use message::handoff::Greeting;
use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, recv},
};

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

/// Whether a call may wait for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until there is something.
    Yes,
    /// Not at all: with what is here.
    No,
}

/// What a connection has for its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The head of a request, to be answered.
    Request,
    /// Nothing, or not all of a head yet.
    Nothing,
    /// The proxy ended it between requests.
    End,
}

/// One connection of the proxy.
#[derive(Debug)]
pub struct Connection {
    stream: Arc<UnixStream>,
    identity: Identity,
    inbound: Inbound,
    /// Where the head that was received ends.
    head: usize,
    index: Index,
    response: Response,
}

impl Connection {
    /// A new one, not yet greeted.
    pub fn new(stream: UnixStream, identity: Identity) -> Self {
        let stream = Arc::new(stream);
        Self {
            response: Response::new(Arc::clone(&stream)),
            stream,
            identity,
            inbound: Inbound::default(),
            head: 0,
            index: Index::default(),
        }
    }

    /// The number of the slot that it belongs to.
    pub fn slot(&self) -> u16 {
        self.identity.slot
    }

    /// Reads the head of the next request.
    ///
    /// # Errors
    /// When what comes is no request, or the connection breaks within one.
    pub fn receive(&mut self, wait: Wait) -> Result<Received, Error> {
        let received = self.inbound.read_head(&self.stream, wait)?;
        if let Head::Whole(end) = received {
            self.head = end;
        }
        Ok(match received {
            Head::Whole(_) => Received::Request,
            Head::Partial => Received::Nothing,
            Head::End => Received::End,
        })
    }

    /// Has the request that was received answered; whether another may follow.
    ///
    /// # Errors
    /// When it is no request, or comes from a proxy of another build.
    pub fn answer(&mut self, application: &mut impl Application) -> Result<bool, Error> {
        let (head, early) = self.inbound.split(self.head);
        self.index.scan(head)?;
        let content = content(&self.stream, early, self.index.content_length())?;
        let response = &mut self.response;
        response.reset(false);
        if let Some(build) = self.index.greeting(head) {
            greet(build, &self.identity, response)?;
        } else {
            let request = self.index.request(head, content.as_ref())?;
            response.reset(request.is_head());
            application.respond(&request, response);
        }
        if !response.flush_without_wait() {
            application.wait(|| response.flush());
        }
        if response.must_close() {
            return Ok(false);
        }
        if let Some(content) = content {
            let drained = match content.cut_off() {
                true => Ok(()),
                false => application.wait(|| content.drain()),
            };
            // A proxy that has its answer may spare itself the rest of an upload, and close.
            if drained.is_err() {
                return Ok(false);
            }
        }
        self.inbound.clear();
        Ok(true)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
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

/// What [`Inbound::read_head`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// It ends here.
    Whole(usize),
    /// There is more to come, and no wait was wanted.
    Partial,
    /// The stream ended between requests.
    End,
}

/// What was read from the connection: one head, and the beginning of its content.
#[derive(Debug, Default)]
struct Inbound {
    buffer: Vec<u8>,
    filled: usize,
}

impl Inbound {
    /// Reads up to the end of a head.
    fn read_head(&mut self, stream: &UnixStream, wait: Wait) -> Result<Head, Error> {
        let flags = match wait {
            Wait::Yes => RecvFlags::empty(),
            Wait::No => RecvFlags::DONTWAIT,
        };
        loop {
            self.make_room()?;
            let space = &mut self.buffer[self.filled..];
            let count = match retry_on_intr(|| recv(stream, &mut *space, flags)) {
                Ok((0, _)) if self.filled == 0 => return Ok(Head::End),
                // The proxy was just greeted and has let go of the worker without looking at the answer.
                Err(Errno::CONNRESET) if self.filled == 0 => return Ok(Head::End),
                Ok((0, _)) => return Err(Error::Connection(io::ErrorKind::UnexpectedEof.into())),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return Ok(Head::Partial),
                Err(error) => return Err(Error::Connection(error.into())),
            };
            // The end may lie across two reads.
            let from = self.filled.saturating_sub(3);
            self.filled += count;
            if let Some(place) = memmem::find(&self.buffer[from..self.filled], b"\r\n\r\n") {
                return Ok(Head::Whole(from + place + 4));
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
        response::{Failure, Head as ResponseHead},
    };

    /// Answers with what it was asked, in plain Rust.
    #[derive(Default)]
    struct Echo {
        seen: Vec<String>,
    }

    impl Application for Echo {
        fn respond(&mut self, request: &Request<'_>, response: &mut Response) {
            let path = String::from_utf8_lossy(request.path()).into_owned();
            let mut head = ResponseHead::default();
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

    fn serve(stream: UnixStream, echo: &mut Echo) -> Result<(), Error> {
        let mut connection = Connection::new(stream, identity());
        while connection.receive(Wait::Yes)? == Received::Request && connection.answer(echo)? {}
        Ok(())
    }

    /// What a slot answers to these bytes, how it ends, and what the application saw.
    fn talk(sent: &[u8]) -> (String, Result<(), Error>, Vec<String>) {
        let (mut proxy, slot) = UnixStream::pair().unwrap();
        let served = thread::spawn(move || {
            let mut echo = Echo::default();
            (serve(slot, &mut echo), echo.seen)
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
        assert_eq!(
            inbound.read_head(&ours, Wait::Yes).unwrap(),
            Head::Whole(length)
        );
        inbound.clear();
        assert_eq!(inbound.buffer.capacity(), BUFFER);
        drop(sender.join().unwrap());
        assert_eq!(inbound.read_head(&ours, Wait::Yes).unwrap(), Head::End);
    }
}
