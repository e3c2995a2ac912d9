//! One request through one slot: up to the response head, and what a worker says beside HTTP.

use std::{fs::File, io, ops::Range, sync::Arc};

use message::{
    handoff,
    head::{Method, ResponseHead},
};
use tokio::time::Instant;

use super::{Answer, AppRoute, slot::Slot};
use crate::{
    control::Report,
    failure::Failure,
    files::{Elsewhere, Handed, handed::from_descriptor},
    journal::Journal,
    origin::{
        Connection, Origin,
        head::passed_back,
        relay::{Unanswered, Written, answer, content, decimal, finish, is_live},
        spool::Spooled,
        wire::HeadError,
    },
    request::Request,
    response::{Content, Response},
};

/// Runs the request that was begun in the slot, up to the response head or, for a response that comes at once, to its end.
pub(super) async fn run(
    mut slot: Slot,
    app: &AppRoute,
    request: &Request<'_>,
    body: Spooled,
    written: Written,
    journal: &mut Journal,
) -> Result<Answer, Failure> {
    let begun = Instant::now();
    let deadline = begun + app.settings.timeout;
    let interims = &request.interims;
    let answered = answer(slot.connection(), body, written, deadline, interims).await;
    let (head, unsent) = match answered {
        Ok(answered) => answered,
        Err(error) => return Err(unanswered(slot, app, request, error).await),
    };
    journal.answered(begun);
    if let Some(what) = head.fields.get(handoff::FAILURE) {
        let what = String::from_utf8_lossy(what).into_owned();
        let traceback = head.fields.get(handoff::TRACEBACK).map(handoff::read_text);
        let worker = slot.worker().label.to_string();
        finish(slot, unsent.as_ref());
        return Err(Failure::AppFailed {
            worker,
            what,
            traceback,
        });
    }
    if let Some(offset) = head.fields.get(handoff::FILE) {
        let file = file(slot.connection(), &head, offset);
        finish(slot, unsent.as_ref());
        let response = response(&head, Content::None);
        let (file, part) = file.map_err(Failure::Handed)?;
        return from_descriptor(file, part, response, request).map(Answer::Here);
    }
    let is_head = request.head.method == Method::Head;
    if !is_head && is_live(&head) && !slot.stream(app.settings.streams) {
        // Whoever makes the response is told by the end of its connection.
        let app = Arc::clone(&app.pool.app);
        return Err(Failure::StreamsFull { app });
    }
    let content = content(
        slot,
        &head,
        is_head,
        unsent,
        &app.settings.holding,
        request.id,
    )?;
    let response = response(&head, content);
    Ok(match Elsewhere::of(&head.fields) {
        None => Answer::Here(response),
        Some(place) => Answer::Elsewhere(Handed { response, place }),
    })
}

fn response(head: &ResponseHead, content: Content) -> Response {
    Response {
        status: head.status,
        fields: passed_back(&head.fields),
        content,
    }
}

/// The file that came instead of the content, and which part of it was meant.
fn file(
    connection: &mut Connection,
    head: &ResponseHead,
    offset: &[u8],
) -> io::Result<(File, Range<u64>)> {
    let length = head.fields.get("content-length").and_then(decimal);
    let (Some(offset), Some(length)) = (decimal(offset), length) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let end = offset
        .checked_add(length)
        .ok_or(io::ErrorKind::InvalidData)?;
    let lost = || {
        // The kernel drops what this process's RLIMIT_NOFILE leaves no room for.
        io::Error::other(
            "its descriptor was lost: the limit of open files (RLIMIT_NOFILE) is too low",
        )
    };
    let descriptor = connection
        .wire
        .inbox
        .as_mut()
        .and_then(|inbox| inbox.descriptor.take())
        .ok_or_else(lost)?;
    Ok((descriptor.into(), offset..end))
}

/// Turns a missing answer into a failure, and tells the master what it should know.
async fn unanswered(
    slot: Slot,
    app: &AppRoute,
    request: &Request<'_>,
    error: Unanswered,
) -> Failure {
    let worker = slot.worker();
    match error {
        Unanswered::Late => {
            let overdue = Report::Overdue {
                worker: worker.name.clone(),
                request_id: request.id.to_string(),
            };
            app.pool.report(overdue);
            slot.late(app.settings.timeout)
        }
        Unanswered::Head(HeadError::Ended) => slot.ended().await,
        Unanswered::Head(HeadError::Broken(rule)) => slot.broke(rule),
        Unanswered::Spool(error) => Failure::Spool(error),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use message::{
        head::{Limits, RequestHead},
        target::Target,
    };
    use tokio::net::UnixStream;

    use super::*;
    use crate::{
        app::outbound::write_head,
        origin::{interim::Interims, relay::begin},
        request::{Client, Peer, RequestId},
    };

    const LIMITS: Limits = Limits {
        line: 1024,
        head: 1024,
        fields: 10,
    };

    fn begun(ours: UnixStream) -> (Connection, Option<Written>) {
        let text = Bytes::from_static(b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let head = RequestHead::parse(&text, &LIMITS).expect("a request");
        let request = Request {
            target: Target::of(&head).expect("a target"),
            head: &head,
            client: Client {
                address: None,
                port: 0,
                https: false,
            },
            id: RequestId::new(),
            user: None,
            vouched: crate::request::Vouched::default(),
            trace: crate::request::Trace::default(),
            interims: Interims::default(),
        };
        let peer = Peer {
            address: None,
            tls: None,
            tls_before: false,
            presented: None,
            local_port: None,
        };
        let mut connection = Connection::over(ours);
        write_head(&mut connection.out, &request, &peer, None, &Spooled::None);
        let written = begin(&mut connection, &Spooled::None);
        (connection, written)
    }

    /// A worker that was killed in the same turn of the reactor as its connection was taken: epoll has not told yet, so the
    /// connection seemed open, and the request got a 502 though nobody had seen a byte of it.
    #[tokio::test]
    async fn a_request_is_not_in_a_worker_that_took_no_byte() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        assert!(begun(ours).1.is_none());
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let (connection, written) = begun(ours);
        assert_eq!(
            written.expect("somebody is there").bytes(),
            connection.out.len(),
            "all at once"
        );
    }
}
