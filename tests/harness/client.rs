//! A client that hides nothing: raw bytes out, and the answer as it came.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::Arc,
};

use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

use super::{PATIENCE, read_some, tls};

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// In order, names as sent.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self
            .fields
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What a connection runs over.
trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// One connection.
pub struct Client {
    stream: Box<dyn Stream>,
    tcp: Option<TcpStream>,
    host: String,
    buffer: Vec<u8>,
}

impl Client {
    pub fn plain(address: SocketAddr) -> Self {
        Self::over(connect(address), address)
    }

    /// From another address of this machine.
    pub fn plain_from(own: &str, address: SocketAddr) -> Self {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a descriptor");
        let own: IpAddr = own.parse().expect("an address");
        bind(&socket, &SocketAddr::new(own, 0)).expect("an address of this machine");
        connect(&socket, &address).expect("the stack listens");
        Self::over(patient(socket.into()), address)
    }

    /// One for which the kernel reads next to nothing in advance.
    pub fn with_small_buffer(address: SocketAddr) -> Self {
        use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a descriptor");
        sockopt::set_socket_recv_buffer_size(&socket, 4096).expect("a valid size");
        connect(&socket, &address).expect("the stack listens");
        Self::over(patient(socket.into()), address)
    }

    fn over(tcp: TcpStream, address: SocketAddr) -> Self {
        let stream = tcp.try_clone().expect("a descriptor is left");
        Self {
            stream: Box::new(stream),
            tcp: Some(tcp),
            host: address.to_string(),
            buffer: Vec::new(),
        }
    }

    /// HTTP/1.1 over a Unix socket.
    pub fn unix(stream: UnixStream) -> Self {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a valid time");
        Self {
            stream: Box::new(stream),
            tcp: None,
            host: "localhost".to_owned(),
            buffer: Vec::new(),
        }
    }

    /// HTTP/1.1 over TLS; any certificate will do.
    pub fn tls(address: SocketAddr, name: &str) -> Self {
        Self::tls_behind(address, name, b"")
    }

    /// The same behind these bytes.
    pub fn tls_behind(address: SocketAddr, name: &str, before: &[u8]) -> Self {
        let mut tcp = connect(address);
        tcp.write_all(before).expect("the server takes it");
        let config = Arc::new(tls::config(&[b"http/1.1"]));
        let name_or_address = ServerName::try_from(name.to_owned()).expect("a valid name");
        let session =
            ClientConnection::new(config, name_or_address).expect("a valid configuration");
        let stream = StreamOwned::new(session, tcp.try_clone().expect("a descriptor is left"));
        let host = format!("{name}:{}", address.port());
        Self {
            stream: Box::new(stream),
            tcp: Some(tcp),
            host,
            buffer: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream
            .write_all(bytes.as_ref())
            .expect("the server takes it");
        self.stream.flush().expect("the server takes it");
        self
    }

    /// The same where the server may have closed; whether it took them.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// A second hand on the connection, to write while another reads; plain only.
    pub fn another_hand(&self) -> TcpStream {
        let tcp = self.tcp.as_ref().expect("over TCP");
        tcp.try_clone().expect("a descriptor is left")
    }

    /// Says that nothing more will be sent.
    pub fn end(&self) {
        let tcp = self.tcp.as_ref().expect("over TCP");
        tcp.shutdown(std::net::Shutdown::Write).expect("connected");
    }

    /// Our own port.
    pub fn local_port(&self) -> u16 {
        let tcp = self.tcp.as_ref().expect("over TCP");
        tcp.local_addr().expect("connected").port()
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    /// GET, where the server may close instead of answering.
    pub fn try_get(&mut self, path: &str) -> Option<Answer> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.stream.write_all(head.as_bytes()).ok()?;
        while find(&self.buffer, b"\r\n\r\n").is_none() {
            if !self.more() {
                return None;
            }
        }
        Some(self.answer(false))
    }

    /// Asks and does not wait: the answer is read with [`Client::answer`].
    pub fn ask(&mut self, path: &str) -> &mut Self {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.send(head)
    }

    pub fn post(&mut self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        self.request("POST", path, &[("Content-Type", content_type)], body)
    }

    /// One request and its answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !fields
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            head.push_str(&format!("Host: {}\r\n", self.host));
        }
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(bytes);
        self.answer(method == "HEAD")
    }

    /// Reads one final answer.
    pub fn answer(&mut self, to_head: bool) -> Answer {
        loop {
            let mut answer = self.answer_head();
            if (100..200).contains(&answer.status) && answer.status != 101 {
                continue;
            }
            if !to_head && !matches!(answer.status, 204 | 304) {
                answer.body = self.body(&answer);
            }
            return answer;
        }
    }

    /// Reads one head, interim or final.
    pub fn answer_head(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            assert!(
                self.more(),
                "closed inside a head: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        };
        let head = String::from_utf8(self.buffer[..end].to_vec()).expect("heads are text");
        self.buffer.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let line = lines.next().expect("split gives one at least");
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let fields = lines.map(|line| {
            line.split_once(": ")
                .unwrap_or_else(|| panic!("{line:?} is no field"))
        });
        Answer {
            status: status.unwrap_or_else(|| panic!("{line:?} is no status line")),
            fields: fields
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: Vec::new(),
        }
    }

    fn body(&mut self, answer: &Answer) -> Vec<u8> {
        if answer.field("transfer-encoding") == Some("chunked") {
            return self.chunks();
        }
        match answer.field("content-length") {
            Some(length) => self.exactly(length.parse().expect("a length")),
            None => self.rest(),
        }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk();
            if chunk.is_empty() {
                return body;
            }
            body.extend(chunk);
        }
    }

    /// Reads one chunk; an empty one is the last.
    pub fn chunk(&mut self) -> Vec<u8> {
        let size = usize::from_str_radix(&self.line(), 16).expect("a chunk size");
        let chunk = self.exactly(size);
        assert_eq!(self.line(), "", "a chunk ends with CRLF");
        chunk
    }

    /// Reads chunks, all of them together of this length.
    pub fn body_of_length(&mut self, length: usize) -> Vec<u8> {
        let body = self.chunks();
        assert_eq!(body.len(), length);
        body
    }

    /// Reads chunks up to this length, or up to where the server closed.
    pub fn rest_of(&mut self, length: usize) -> Vec<u8> {
        let mut body = Vec::new();
        while body.len() < length {
            while find(&self.buffer, b"\r\n").is_none() {
                if !self.more() {
                    return body;
                }
            }
            let size = usize::from_str_radix(&self.line(), 16).expect("a chunk size");
            while self.buffer.len() < size + 2 {
                if !self.more() {
                    return body;
                }
            }
            body.extend(self.exactly(size));
            self.exactly(2);
        }
        body
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return line;
            }
            assert!(self.more(), "closed inside a line");
        }
    }

    /// Reads so many bytes.
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(
                self.more(),
                "closed after {} of {length} bytes",
                self.buffer.len()
            );
        }
        self.buffer.drain(..length).collect()
    }

    /// Reads until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the server closes now, without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more()
    }

    /// Reads more; false at the end, a reset included.
    fn more(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        match read_some(&mut self.stream, &mut piece) {
            Ok(length) => {
                self.buffer.extend_from_slice(&piece[..length]);
                length > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no answer in {PATIENCE:?}")
            }
            Err(_) => false,
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

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
