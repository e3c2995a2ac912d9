//! Slots without Python: `bare_slot SOCKET THREADS` answers every request with a hello, for `cargo xtask bench`, which shows
//! by it what of a request's cost is the loop and the kernel and what is Python.

use std::{env, error::Error, os::unix::net::UnixListener, thread};

use appserver::{
    application::Application,
    request::Request,
    response::{Head, Response},
    serve::{Identity, serve},
};

/// The hello app, in Rust.
#[derive(Default)]
struct Hello(Head);

impl Application for Hello {
    fn respond(&mut self, _: &Request<'_>, response: &mut Response) {
        let Self(head) = self;
        head.start(b"200 OK").expect("a status");
        head.field(b"Content-Type", b"text/plain").expect("a field");
        head.field(b"Content-Length", b"14").expect("a field");
        response.begin(head, Some(14));
        response.push(b"Hello, world!\n");
        response.end().expect("the whole content");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().ok_or("which socket?")?;
    let threads: u16 = arguments.next().ok_or("how many threads?")?.parse()?;
    let listener = UnixListener::bind(path)?;
    thread::scope(|scope| {
        for slot in 1..=threads {
            let listener = &listener;
            scope.spawn(move || {
                let identity = Identity {
                    build: String::new(),
                    app: "bare".to_owned(),
                    worker: 1,
                    slot,
                };
                while let Ok((stream, _)) = listener.accept() {
                    // Clients of a benchmark leave as they like.
                    let _ = serve(stream, &identity, &mut Hello::default());
                }
            });
        }
    });
    Ok(())
}
