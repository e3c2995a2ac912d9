//! Spans as OTLP/HTTP writes them in JSON: ids in hexadecimal, times as text, since numbers of JSON are too short for them.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::Recorded;

/// A request that is answered, one that is made, and what is neither (`SpanKind`).
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const INTERNAL: u8 = 1;

/// `StatusCode` of what failed.
const ERROR: u8 = 2;

/// An `ExportTraceServiceRequest`.
pub(super) fn request(service: &str, batch: &[Recorded]) -> Vec<u8> {
    let spans: Vec<Value> = batch.iter().flat_map(spans).collect();
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": [
            text("service.name", service),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ] },
        "scopeSpans": [{
            "scope": { "name": "stack", "version": env!("CARGO_PKG_VERSION") },
            "spans": spans,
        }],
    }] });
    serde_json::to_vec(&request).expect("it is data")
}

/// The request, and in it its wait and its origin's time.
fn spans(recorded: &Recorded) -> Vec<Value> {
    let trace = recorded.spans.below.trace_id();
    let span = |name: String, id: u64, parent: Option<u64>, kind: u8, from: Duration, time| {
        let begun = recorded.begun + from;
        json!({
            "traceId": trace.as_str(),
            "spanId": hexadecimal(id),
            "parentSpanId": parent.map_or_else(String::new, hexadecimal),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": nanoseconds(begun),
            "endTimeUnixNano": nanoseconds(begun + time),
        })
    };
    let own = recorded.spans.own;
    let name = format!("{} {}", recorded.method, recorded.route);
    let (parent, whole) = (recorded.spans.parent, recorded.duration);
    let mut request = span(name, own, parent, SERVER, Duration::ZERO, whole);
    request["attributes"] = attributes(recorded);
    // A client's mistake is none of a server's (semantic conventions for HTTP spans).
    if recorded.status >= 500 {
        request["status"] = json!({ "code": ERROR });
    }
    let mut all = vec![request];
    if let Some((from, time)) = recorded.queue {
        // Nobody else knows of it, so any id will do that is not one of the others.
        let id = own.rotate_left(1) ^ 1;
        all.push(span(
            "queue".to_owned(),
            id.max(1),
            Some(own),
            INTERNAL,
            from,
            time,
        ));
    }
    if let Some((from, time)) = recorded.origin {
        let id = recorded.spans.below.parent();
        let name = recorded.route.to_string();
        let mut origin = span(name, id, Some(own), CLIENT, from, time);
        if let Some(worker) = &recorded.worker {
            origin["attributes"] = json!([text("stack.worker", worker)]);
        }
        all.push(origin);
    }
    all
}

fn attributes(recorded: &Recorded) -> Value {
    let mut all = vec![
        text("http.request.method", &recorded.method),
        text("url.path", &recorded.path),
        text("url.scheme", if recorded.https { "https" } else { "http" }),
        text("server.address", &recorded.host),
        text("network.protocol.version", recorded.protocol),
        text("stack.request_id", &recorded.request_id),
        json!({
            "key": "http.response.status_code",
            "value": { "intValue": recorded.status.to_string() },
        }),
    ];
    if let Some(client) = recorded.client {
        all.push(text("client.address", &client.to_string()));
    }
    if let Some(cause) = recorded.cause {
        all.push(text("error.type", cause));
    }
    Value::Array(all)
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn hexadecimal(id: u64) -> String {
    format!("{id:016x}")
}

fn nanoseconds(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_nanos().to_string()
}
