//! What a slot reads from its connection, whatever it is: no panic, no endless loop, and an application never sees a part of
//! a request that its grammar forbids.
#![no_main]

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
};

use appserver::{
    application::Application,
    request::Request,
    response::{Head, Response},
    serve::{Connection, Identity, Received, Wait},
};
use libfuzzer_sys::fuzz_target;

/// Checks every request, and answers it.
struct Checks;

impl Application for Checks {
    fn respond(&mut self, request: &Request<'_>, response: &mut Response) {
        let line_ends = |bytes: &[u8]| bytes.contains(&b'\n');
        let (method, target) = (request.method(), request.raw_target());
        assert!(!method.is_empty() && !method.contains(&b' ') && !line_ends(method));
        assert!(!line_ends(target) && !line_ends(request.path()) && !line_ends(request.query()));
        assert!(!request.path().contains(&b'?') && !request.path().contains(&b' '));
        let mut lengths = 0;
        for (name, value) in request.fields() {
            assert!(!name.is_empty() && name[0] != b'_' && !name.contains(&b':'));
            assert!(!line_ends(name) && !line_ends(value));
            assert!(!name.eq_ignore_ascii_case(b"transfer-encoding"));
            lengths += usize::from(name.eq_ignore_ascii_case(b"content-length"));
        }
        assert!(lengths <= 1);
        let mut head = Head::default();
        head.start(b"200 OK").expect("a valid status");
        response.begin(&head, Some(2));
        response.push(b"ok");
        response.end().expect("the whole content");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (mut proxy, slot) = UnixStream::pair().expect("descriptors are left");
    // Fits the socket: libFuzzer's inputs have 4 KiB unless it is told otherwise.
    let Some(bytes) = bytes.get(..bytes.len().min(64 * 1024)) else {
        return;
    };
    proxy.write_all(bytes).expect("there is room");
    proxy.shutdown(Shutdown::Write).expect("connected");
    let identity = Identity {
        build: "b".to_owned(),
        app: "web".to_owned(),
        worker: 1,
        slot: 1,
    };
    let mut connection = Connection::new(slot, identity);
    // How it ends is for the input to say.
    while let Ok(Received::Request) = connection.receive(Wait::Yes) {
        if !matches!(connection.answer(&mut Checks), Ok(true)) {
            break;
        }
    }
    drop(connection);
    let mut answers = Vec::new();
    proxy
        .read_to_end(&mut answers)
        .expect("the slot has closed its end");
});
