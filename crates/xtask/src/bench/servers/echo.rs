//! A server of WebSockets that gives back what it gets (RFC 6455), in threads of this process, so that it is no part of what is
//! measured. Any other request has a page.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::OnceLock,
    thread,
};

use anyhow::{Context, Result};

/// The key of the RFC's own example (section 1.3), and what answers it.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Where it listens, for as long as this process lives.
pub(super) fn address() -> Result<SocketAddr> {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    if let Some(address) = ADDRESS.get() {
        return Ok(*address);
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever leaves ends it.
            thread::spawn(move || drop(serve(stream)));
        }
    });
    Ok(*ADDRESS.get_or_init(|| address))
}

fn serve(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut answers = stream.try_clone()?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut is_upgrade = false;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            is_upgrade |= line.trim_end().eq_ignore_ascii_case("upgrade: websocket");
            if line == "\r\n" {
                break;
            }
        }
        if is_upgrade {
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            );
            answers.write_all(head.as_bytes())?;
            return echo(&mut stream, &mut answers);
        }
        answers.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n")?;
    }
}

/// Short text frames, one after the other: a server's are not masked (section 5.1).
fn echo(messages: &mut impl Read, answers: &mut impl Write) -> Result<()> {
    let mut space = [0; 6 + 125];
    loop {
        messages.read_exact(&mut space[..6])?;
        let [kind, length, mask @ ..] =
            [space[0], space[1], space[2], space[3], space[4], space[5]];
        let end = 6 + usize::from(length & 0x7f);
        let text = space.get_mut(6..end).context("a long frame")?;
        messages.read_exact(text)?;
        for (at, byte) in text.iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
        (space[4], space[5]) = (kind, length & 0x7f);
        answers.write_all(&space[4..end])?;
    }
}
