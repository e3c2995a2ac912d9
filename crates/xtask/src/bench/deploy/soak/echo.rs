//! Another server: it takes WebSockets and says what it hears.

use std::{io::BufReader, os::unix::net::UnixListener, path::Path, thread};

use anyhow::Result;

use crate::bench::websocket::converse;

/// Serves until the program ends.
pub(super) fn serve(path: &Path) -> Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whoever hangs up has heard enough.
            thread::spawn(move || converse(&mut BufReader::new(stream.try_clone()?), &mut stream));
        }
    });
    Ok(())
}
