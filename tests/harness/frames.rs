//! HTTP/2 frame by frame: a client, or a server, that says whatever it likes, and sees what comes back.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use message::hpack::Decoder;
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use super::{
    PATIENCE, read_some,
    tls::{self, Pair},
};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITIZED: u8 = 0x20;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The number at the end of RST_STREAM, or the code of GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let bytes = self.payload[at..at + 4].try_into().expect("four bytes");
        u32::from_be_bytes(bytes)
    }
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A connection.
pub struct Frames {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    decoder: Decoder,
}

/// One frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field block of literals that touch no table.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let text = |text: &str, block: &mut Vec<u8>| {
        let mut rest = text.len();
        if rest < 127 {
            block.push(rest.to_le_bytes()[0]);
        } else {
            block.push(127);
            rest -= 127;
            while rest >= 128 {
                block.push(rest.to_le_bytes()[0] | 128);
                rest >>= 7;
            }
            block.push(rest.to_le_bytes()[0]);
        }
        block.extend(text.bytes());
    };
    for (name, value) in fields {
        block.push(0);
        text(name, &mut block);
        text(value, &mut block);
    }
    block
}

/// The block of a plain GET.
pub fn get(path: &str) -> Vec<u8> {
    block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
    ])
}

impl Frames {
    /// Over TLS, with the preface and an empty SETTINGS sent.
    pub fn tls(address: SocketAddr) -> Self {
        let mut frames = Self::silent(address);
        frames.begin();
        frames
    }

    /// Over TLS, with nothing sent.
    pub fn silent(address: SocketAddr) -> Self {
        let tcp = connect(address);
        let name = ServerName::try_from("localhost").expect("a valid name");
        let config = Arc::new(tls::config(&[b"h2"]));
        let session = ClientConnection::new(config, name).expect("a valid configuration");
        Self::over(StreamOwned::new(session, tcp))
    }

    /// In the clear, with the preface and an empty SETTINGS sent.
    pub fn plain(address: SocketAddr) -> Self {
        let mut frames = Self::over(connect(address));
        frames.begin();
        frames
    }

    /// Over TLS with this configuration, the preface and an empty SETTINGS sent.
    pub fn with(address: SocketAddr, config: ClientConfig, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a valid name");
        let session = ClientConnection::new(Arc::new(config), name).expect("valid");
        let mut frames = Self::over(StreamOwned::new(session, connect(address)));
        frames.begin();
        frames
    }

    /// The other end: a server's, in the clear, with the client's preface read and this SETTINGS sent.
    pub fn serving(tcp: TcpStream, settings: &[u8]) -> Option<Self> {
        Self::serving_over(patient(tcp), settings)
    }

    /// The same over TLS.
    pub fn serving_tls(tcp: TcpStream, pair: &Pair) -> Option<Self> {
        Self::serving_over(tls::accept(patient(tcp), pair, "h2"), b"")
    }

    fn serving_over(stream: impl Read + Write + Send + 'static, settings: &[u8]) -> Option<Self> {
        let mut frames = Self::over(stream);
        while frames.buffer.len() < PREFACE.len() {
            frames.more()?;
        }
        let preface: Vec<u8> = frames.buffer.drain(..PREFACE.len()).collect();
        assert_eq!(preface, PREFACE);
        frames.send(SETTINGS, 0, 0, settings);
        Some(frames)
    }

    fn over(stream: impl Read + Write + Send + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
            decoder: Decoder::default(),
        }
    }

    fn begin(&mut self) {
        self.raw(PREFACE);
        self.send(SETTINGS, 0, 0, b"");
    }

    /// Sends bytes; false when the server takes no more.
    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok() && self.stream.flush().is_ok()
    }

    /// Sends a frame; false when the server takes no more.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.raw(&frame(kind, flags, stream, payload))
    }

    /// The next frame; `None` when the server has closed.
    pub fn next(&mut self) -> Option<Frame> {
        while self.buffer.len() < 9 {
            self.more()?;
        }
        let length = u32::from_be_bytes([0, self.buffer[0], self.buffer[1], self.buffer[2]]);
        let end = 9 + length as usize;
        while self.buffer.len() < end {
            self.more()?;
        }
        let bytes: Vec<u8> = self.buffer.drain(..end).collect();
        Some(Frame {
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]),
            payload: bytes[9..].to_vec(),
        })
    }

    /// The next frame of a kind; what comes before is thrown away. `None` when the server has closed.
    pub fn next_of(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if kinds.contains(&frame.kind) {
                return Some(frame);
            }
        }
    }

    /// The head of the next response.
    pub fn head(&mut self) -> Option<(u32, Vec<(String, String)>)> {
        let frame = self.next_of(&[HEADERS])?;
        Some((frame.stream, self.fields(&frame)))
    }

    /// What a HEADERS frame says. Every one must be read, in order.
    pub fn fields(&mut self, frame: &Frame) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.decoder
            .decode(&frame.payload, |name, value| {
                fields.push((text(name), text(value)))
            })
            .expect("a field block");
        fields
    }

    /// The status of the next response.
    pub fn status(&mut self) -> Option<u16> {
        let (_, fields) = self.head()?;
        let (_, status) = fields.first().expect("a response has :status");
        Some(status.parse().expect("a number"))
    }

    fn more(&mut self) -> Option<()> {
        let mut piece = [0; 16 * 1024];
        match read_some(&mut self.stream, &mut piece) {
            Ok(0) => None,
            Ok(length) => {
                self.buffer.extend_from_slice(&piece[..length]);
                Some(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no answer in {PATIENCE:?}")
            }
            Err(_) => None,
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect_timeout(&address, PATIENCE).expect("the stack listens"))
}

fn patient(tcp: TcpStream) -> TcpStream {
    tcp.set_read_timeout(Some(PATIENCE)).expect("a valid time");
    tcp.set_write_timeout(Some(PATIENCE)).expect("a valid time");
    tcp
}
