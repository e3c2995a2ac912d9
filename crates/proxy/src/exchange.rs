//! One request and its response, whatever the protocol that carries them: admit, route, answer.
//!
//! The order is the design: nothing is done for a request before it is admitted, nothing is asked of a worker before the
//! request is whole, and whatever goes wrong in any step is turned into a response here, at the bottom, and nowhere else.

use std::time::SystemTime;

use bytes::Bytes;
use message::{
    head::{Method, RequestHead},
    refusal::Refusal,
    target::Form,
};

use crate::{
    admit::admit,
    app,
    failure::Failure,
    files,
    journal::{Journal, Route},
    plan::{Action, Host, Plan},
    request::{Peer, Request, Upload},
    response::{Content, Response, date},
};

/// Answers a request. Its upload may be left unread, which the connection then deals with.
pub(crate) async fn respond(
    plan: &Plan,
    peer: &Peer,
    head: &RequestHead,
    upload: &mut impl Upload,
    journal: &mut Journal,
) -> Response {
    let mut response = match attempt(plan, peer, head, upload, journal).await {
        Ok(response) => response,
        Err(failure) => {
            journal.fail(&failure);
            failure.into_response(Some(&head.fields), journal.id)
        }
    };
    if head.method == Method::Head {
        response.content = response.content.without_content();
    }
    signed(response, plan, journal)
}

/// Answers what never became a request.
pub(crate) fn refuse(plan: &Plan, failure: Failure, journal: &mut Journal) -> Response {
    journal.fail(&failure);
    signed(failure.into_response(None, journal.id), plan, journal)
}

async fn attempt(
    plan: &Plan,
    peer: &Peer,
    head: &RequestHead,
    upload: &mut impl Upload,
    journal: &mut Journal,
) -> Result<Response, Failure> {
    let request = admit(head, peer, plan, journal.id)?;
    journal.client = request.client.address;
    let host = plan
        .host(&request.target.host)
        .ok_or_else(|| unknown_host(&request))?;
    if request.target.form == Form::Asterisk {
        // OPTIONS * asks about the server itself (RFC 9110 §9.3.7).
        return Ok(Response::new(204, Content::None).with("Allow", "GET, HEAD, OPTIONS"));
    }
    if let Some(response) = to_https(host, &request, journal)? {
        return Ok(response);
    }
    let (action, prefix) = host
        .route(request.target.path.as_bytes())
        .ok_or(Failure::NoRoute)?;
    match action {
        Action::App(app) => {
            journal.route = Route::App(app.pool.label.clone());
            app::respond(app, &request, peer, upload, journal).await
        }
        Action::Files(root) => {
            journal.route = Route::Fixed("files");
            files::respond(root, prefix, &request).await
        }
        Action::Redirect { to, status } => {
            journal.route = Route::Fixed("redirect");
            Ok(
                Response::new(*status, Content::Bytes(Bytes::new()))
                    .with("Location", to.as_bytes()),
            )
        }
        Action::Respond {
            status,
            body,
            content_type,
        } => {
            journal.route = Route::Fixed("respond");
            let content = match *status {
                // Neither may state a length (RFC 9110 §8.6), and neither has content.
                204 | 304 => return Ok(Response::new(*status, Content::None)),
                _ => Content::Bytes(body.clone()),
            };
            Ok(Response::new(*status, content).with("Content-Type", content_type.as_bytes()))
        }
    }
}

fn unknown_host(request: &Request<'_>) -> Failure {
    Failure::UnknownHost(String::from_utf8_lossy(&request.target.host).into_owned())
}

/// A site with a certificate is not served in the clear: the same place, by TLS. 308 keeps the method (RFC 9110 §15.4.9).
fn to_https(
    host: &Host,
    request: &Request<'_>,
    journal: &mut Journal,
) -> Result<Option<Response>, Failure> {
    let Some(port) = host.https_port.filter(|_| !request.client.https) else {
        return Ok(None);
    };
    if request.target.host.is_empty() {
        // HTTP/1.0 without Host: there is no place to send it to.
        return Err(Refusal::MissingHost.into());
    }
    journal.route = Route::Fixed("redirect");
    let target = &request.target;
    let mut location = b"https://".to_vec();
    location.extend_from_slice(&target.host);
    if port != 443 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    target.path.encode(&mut location);
    if let Some(query) = &target.query {
        location.push(b'?');
        location.extend_from_slice(query);
    }
    let response = Response::new(308, Content::Bytes(Bytes::new()));
    Ok(Some(response.with("Location", location)))
}

/// What every response says of itself: when it was made, by what, and under which id it is in the logs.
fn signed(response: Response, plan: &Plan, journal: &Journal) -> Response {
    let response = response
        .with("Date", date(SystemTime::now()).as_bytes())
        .with("X-Request-ID", journal.id.as_str());
    if plan.server_header {
        response.with("Server", "stack")
    } else {
        response
    }
}
