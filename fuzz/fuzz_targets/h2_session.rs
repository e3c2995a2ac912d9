//! A connection of HTTP/2 whose client sends anything, and whose requests are answered, begun or left alone at any time: no
//! panic, and what is kept stays within its bounds, which the session asserts itself.
#![no_main]

use libfuzzer_sys::fuzz_target;

// Its sources, and not its crate: TLS and all that comes with it have no part in this.
#[path = "../../crates/proxy/src/connection"]
mod connection {
    #[path = "h2"]
    pub(crate) mod h2 {
        #[allow(
            dead_code,
            reason = "what is said of an attack is said by the connection"
        )]
        #[path = "budget.rs"]
        mod budget;
        #[allow(dead_code, reason = "sockets and tasks are not here")]
        #[path = "session/mod.rs"]
        mod session;

        use bytes::Bytes;
        use config::site;
        use message::{
            frame::{Code, PREFACE},
            head::Limits,
        };

        use self::{budget::Budget, session::Session};

        const STREAMS: usize = 4;

        /// What waits to be written and still lets frames come in, what one response adds to it, and the answers to the frames
        /// that were read at once.
        const OUT_MOST: usize = 3 * 64 * 1024;

        pub(crate) fn try_all(mut bytes: &[u8]) {
            let limits = Limits {
                line: 1024,
                head: 4096,
                fields: 32,
            };
            let budget = Budget::new(&site::Limits::default());
            let mut session = Session::new(STREAMS, limits, budget, true);
            session.receive(PREFACE).expect("as it must begin");
            session
                .receive(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
                .expect("SETTINGS");
            let mut input = Vec::new();
            // Streams that somebody works for.
            let mut working = Vec::new();
            while let Some((&[what, size], rest)) = bytes.split_first_chunk() {
                bytes = rest;
                let size = usize::from(size);
                let place = working.get(size % STREAMS).copied();
                match (what % 12, place) {
                    (0..4, _) => {
                        let (frame, rest) = bytes.split_at(size.min(bytes.len()));
                        bytes = rest;
                        input.extend_from_slice(frame);
                        if !receive(&mut session, &mut input) {
                            return;
                        }
                    }
                    // A frame whose head is right, of any kind.
                    (4..6, _) => {
                        let Some((&[kind, flags, stream], rest)) = bytes.split_first_chunk() else {
                            return;
                        };
                        let (payload, rest) = rest.split_at(size.min(rest.len()));
                        bytes = rest;
                        let length = u8::try_from(payload.len()).expect("at most 255");
                        input.clear();
                        input.extend([0, 0, length, kind % 11, flags, 0, 0, 0, stream]);
                        input.extend_from_slice(payload);
                        if !receive(&mut session, &mut input) {
                            return;
                        }
                    }
                    (6, _) => session.written(),
                    (7, _) => match session.leaving {
                        session::Leaving::No => session.warn(),
                        _ => session.farewell(),
                    },
                    (8, Some(place)) => {
                        // Whatever comes of it: one that is gone takes nothing.
                        let fields = [(&b"server"[..], &b"stack"[..])];
                        let _ = session.send_head(place, 200, fields.into_iter(), size > 200);
                    }
                    (9, Some(place)) => {
                        let mut content = Bytes::from(vec![b'x'; size * 512]);
                        let _ = session.send_content(place, &mut content, size > 128);
                    }
                    (10, Some(place)) => drop(session.take(place, size * 64)),
                    (11, Some(place)) => {
                        if size > 128 {
                            session.send_reset(place, Code::Internal);
                        }
                        session.finish(place);
                        working.retain(|one| *one != place);
                    }
                    _ => {}
                }
                while let Some(opened) = session.opened.pop_front() {
                    working.push(opened.place);
                }
                session.woken.clear();
                assert!(session.receive(&[]) == Ok(0), "there was nothing");
                assert!(session.out.len() <= OUT_MOST, "{}", session.out.len());
            }
        }

        /// Whether the connection goes on.
        fn receive(session: &mut Session, input: &mut Vec<u8>) -> bool {
            match session.receive(input) {
                Ok(used) => {
                    input.drain(..used);
                    true
                }
                Err(fatal) => {
                    session.give_up(&fatal);
                    false
                }
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| connection::h2::try_all(bytes));
