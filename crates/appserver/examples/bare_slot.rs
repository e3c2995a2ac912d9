//! Slots without Python: `bare_slot SOCKET THREADS` answers every request with a hello, for `cargo xtask bench`, which shows
//! by it what of a request's cost is the loop and the kernel and what is Python.

use std::{
    env,
    error::Error,
    os::{fd::OwnedFd, unix::net::UnixListener},
    thread,
};

use appserver::{
    application::Application,
    crew::{Crew, Steward},
    request::Request,
    response::{Head, Response},
    serve::{self, Identity},
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

/// Serves anyone. Clients of a benchmark leave as they like.
struct Anyone;

impl Steward for Anyone {
    fn admits(&self, _: &OwnedFd) -> bool {
        true
    }

    fn log(&self, _: &str) {}

    fn broke(&self, _: u16, _: &serve::Error) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().ok_or("which socket?")?;
    let threads: u16 = arguments.next().ok_or("how many threads?")?.parse()?;
    let listener = UnixListener::bind(path)?;
    let identity = Identity {
        build: String::new(),
        app: "bare".to_owned(),
        worker: 1,
        slot: 1,
    };
    let crew = Crew::new(threads, listener.into(), identity, Anyone)?;
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut hello = Hello::default();
                while crew.wait() {
                    let mut job = crew.claim();
                    while let Some(mut connection) = job {
                        crew.begin();
                        let goes_on = connection.answer(&mut hello).unwrap_or(false);
                        crew.finish(connection, goes_on);
                        job = crew.next();
                    }
                }
            });
        }
    });
    Ok(())
}
