//! A server behind the stack, in the test's own words: what it was asked, and the bytes that it answers with.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use rustls::{ServerConnection, StreamOwned};

use super::{
    PATIENCE, read_some,
    tls::{Pair, accept},
};

/// What a connection of it runs over.
pub trait Stream: Read + Write + Send {
    /// Says that nothing more will be written.
    fn end(&self);
}

impl Stream for TcpStream {
    fn end(&self) {
        let _ = self.shutdown(std::net::Shutdown::Write);
    }
}

impl Stream for UnixStream {
    fn end(&self) {
        let _ = self.shutdown(std::net::Shutdown::Write);
    }
}

impl Stream for StreamOwned<ServerConnection, TcpStream> {
    fn end(&self) {
        let _ = self.sock.shutdown(std::net::Shutdown::Write);
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// The head, without its last empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    /// The request line.
    pub fn line(&self) -> &str {
        self.head.split("\r\n").next().expect("split gives one")
    }

    /// The values of all fields of this name.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.split("\r\n").skip(1);
        lines
            .filter_map(|line| line.split_once(": "))
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }
}

/// A server on a free port of 127.0.0.1, or on a socket, for as long as the test's process lives.
#[derive(Clone)]
pub struct Origin {
    address: Option<SocketAddr>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Handler = dyn Fn(&mut dyn Stream, &Seen) -> Then + Send + Sync;

/// What an origin does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Waits for the next request of the connection.
    Goes,
    /// Closes the connection.
    Closes,
}

impl Origin {
    /// Answers every request with these bytes and keeps its connections.
    pub fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::tcp(move |stream, _| {
            let _ = stream.write_all(&answer);
            Then::Goes
        })
    }

    /// Answers as it is told, over TCP.
    pub fn tcp(handler: impl Fn(&mut dyn Stream, &Seen) -> Then + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let origin = Self {
            address: Some(address),
            seen: Arc::default(),
        };
        let connections = listener.incoming_forever();
        origin.serve(connections, Arc::new(handler));
        origin
    }

    /// The same over TLS, with this certificate.
    pub fn tls(
        pair: Pair,
        handler: impl Fn(&mut dyn Stream, &Seen) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let origin = Self {
            address: Some(address),
            seen: Arc::default(),
        };
        let connections = std::iter::from_fn(move || listener.accept().ok())
            .map(move |(tcp, _)| Box::new(accept(tcp, &pair, "http/1.1")) as Box<dyn Stream>);
        origin.serve(connections, Arc::new(handler));
        origin
    }

    /// The port of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.expect("over TCP").port()
    }

    /// The same over a Unix socket.
    pub fn unix(
        path: &Path,
        handler: impl Fn(&mut dyn Stream, &Seen) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).expect("the folder is ours");
        let origin = Self {
            address: None,
            seen: Arc::default(),
        };
        let connections = std::iter::from_fn(move || listener.accept().ok())
            .map(|(stream, _)| Box::new(stream) as Box<dyn Stream>);
        origin.serve(connections, Arc::new(handler));
        origin
    }

    fn serve(
        &self,
        connections: impl Iterator<Item = Box<dyn Stream>> + Send + 'static,
        handler: Arc<Handler>,
    ) {
        let seen = Arc::clone(&self.seen);
        thread::spawn(move || {
            for (number, stream) in connections.enumerate() {
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                thread::spawn(move || converse(stream, number, &seen, &*handler));
            }
        });
    }

    /// Where it listens: `http://127.0.0.1:1234`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address.expect("over TCP"))
    }

    /// All requests so far, in order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no holder panics").clone()
    }
}

/// What `TcpListener::incoming` gives, owned.
trait Forever {
    fn incoming_forever(self) -> impl Iterator<Item = Box<dyn Stream>> + Send + 'static;
}

impl Forever for TcpListener {
    fn incoming_forever(self) -> impl Iterator<Item = Box<dyn Stream>> + Send + 'static {
        std::iter::from_fn(move || self.accept().ok()).map(|(stream, _)| {
            stream
                .set_read_timeout(Some(PATIENCE))
                .expect("a valid time");
            Box::new(stream) as Box<dyn Stream>
        })
    }
}

fn converse(
    mut stream: Box<dyn Stream>,
    connection: usize,
    seen: &Mutex<Vec<Seen>>,
    handler: &Handler,
) {
    while let Some(request) = read(&mut *stream, connection) {
        seen.lock().expect("no holder panics").push(request.clone());
        if handler(&mut *stream, &request) == Then::Closes {
            return;
        }
    }
}

/// Reads one request; `None` at the end of the connection.
fn read(stream: &mut dyn Stream, connection: usize) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match read_some(stream, &mut byte) {
            Ok(1..) => head.push(byte[0]),
            _ => return None,
        }
    }
    head.truncate(head.len() - 4);
    let mut request = Seen {
        connection,
        head: String::from_utf8_lossy(&head).into_owned(),
        body: Vec::new(),
    };
    let length = request.fields("content-length").first().map(|length| {
        length
            .parse::<usize>()
            .expect("the stack writes good lengths")
    });
    request.body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut request.body).ok()?;
    Some(request)
}
