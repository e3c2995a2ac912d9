//! A server of WebSockets that says what it hears, in threads of this process, so that it is no part of what is measured.

use std::{
    io::BufReader,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::OnceLock,
    thread,
};

use anyhow::Result;

use crate::bench::websocket::converse;

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
            // Whoever hangs up has heard enough.
            thread::spawn(move || serve(stream));
        }
    });
    Ok(*ADDRESS.get_or_init(|| address))
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    converse(&mut BufReader::new(stream.try_clone()?), &mut stream)
}
