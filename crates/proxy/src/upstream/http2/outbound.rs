//! The head of a request as a member that speaks HTTP/2 sees it: what one that speaks HTTP/1.1 would see.

use message::refusal::Refusal;

use super::super::outbound::fields;
use crate::{failure::Failure, origin::spool::Spooled, request::Request, response::lines};

/// The head. `scheme` is the connection's; `stripped` bytes of the path are not for the member.
pub(super) fn head(
    request: &Request<'_>,
    scheme: &str,
    stripped: Option<usize>,
    body: &Spooled,
) -> Result<http::Request<()>, Failure> {
    let target = &request.target;
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(scheme.as_bytes());
    text.extend_from_slice(b"://");
    // What HTTP/1.0 may leave out, HTTP/2 has.
    text.extend_from_slice(match &target.authority[..] {
        b"" => b"localhost",
        authority => authority,
    });
    target.write_path(stripped.unwrap_or(0), &mut text);
    target.write_query(&mut text);
    let uri = http::Uri::try_from(text).map_err(|_| Failure::from(Refusal::Target))?;
    let method = http::Method::from_bytes(request.head.method.as_bytes());
    let mut head = http::Request::new(());
    *head.version_mut() = http::Version::HTTP_2;
    *head.method_mut() = method.map_err(|_| Failure::from(Refusal::Method))?;
    *head.uri_mut() = uri;
    let mut own = Vec::with_capacity(1024);
    fields(&mut own, request, stripped, None, body);
    for (name, value) in lines(&own) {
        let name = http::HeaderName::from_bytes(name).map_err(|_| Refusal::FieldName)?;
        let value = http::HeaderValue::from_bytes(value).map_err(|_| Refusal::FieldValue)?;
        head.headers_mut().append(name, value);
    }
    // Trailers are passed on (RFC 9110 §10.1.4); gRPC servers insist on it.
    head.headers_mut()
        .insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    Ok(head)
}
