//! As much of WebSockets (RFC 6455) as it takes to be spoken to by short messages: the frames, and a server that says what it
//! hears.

use std::io::{self, Read, Write};

/// The key of every visitor, and what a server says to it: the example of RFC 6455, 1.3.
pub(super) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(super) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Answers with a page until it is asked for a WebSocket, and then says what it hears, until the client hangs up.
pub(super) fn converse(reader: &mut impl Read, writer: &mut impl Write) -> io::Result<()> {
    while !is_upgrade(&head(reader)?) {
        writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n")?;
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    writer.write_all(answer.as_bytes())?;
    loop {
        let text = receive(reader)?;
        send(writer, &text, None)?;
    }
}

fn is_upgrade(head: &str) -> bool {
    let mut lines = head.lines();
    lines.any(|line| line.eq_ignore_ascii_case("upgrade: websocket"))
}

/// Reads a head, byte for byte: what follows it belongs to who reads next.
pub(super) fn head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
        if head.len() > 16 * 1024 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A short message, masked where a client says it.
pub(super) fn send(stream: &mut impl Write, text: &[u8], mask: Option<[u8; 4]>) -> io::Result<()> {
    let length = u8::try_from(text.len()).map_err(io::Error::other)? & 0x7f;
    let mut frame = vec![0x81, length | if mask.is_some() { 0x80 } else { 0 }];
    frame.extend(mask.into_iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(
        text.iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    stream.write_all(&frame)
}

/// Such a message.
pub(super) fn receive(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = [0; 2];
    stream.read_exact(&mut start)?;
    let mut mask = [0; 4];
    if start[1] & 0x80 != 0 {
        stream.read_exact(&mut mask)?;
    }
    let mut text = vec![0; usize::from(start[1] & 0x7f)];
    stream.read_exact(&mut text)?;
    for (byte, mask) in text.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(text)
}
