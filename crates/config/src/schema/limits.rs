//! `[limits]`.

use super::keys;
use crate::{
    defaults::{self, Figure},
    error::Problem,
    site::Limits,
    units,
    walk::{Notes, Table, Value},
};

pub(super) fn read(value: Option<Value<'_>>, notes: &Notes) -> Limits {
    let Some(table) = value.and_then(|value| value.table(&keys::LIMITS, "a table `[limits]`"))
    else {
        return Limits::default();
    };
    let before = notes.count();
    let limits = figures(&table);
    // Figures that are wrong have given way to defaults, which say nothing about what was meant.
    if notes.count() == before {
        check_head(&table, &limits, notes);
        check_body(&table, &limits);
    }
    limits
}

fn figures(table: &Table<'_>) -> Limits {
    Limits {
        request_line: table.size(&defaults::REQUEST_LINE),
        head: table.size(&defaults::HEAD),
        fields: table.count(&defaults::FIELDS),
        proxy_protocol_timeout: table.duration(&defaults::PROXY_PROTOCOL_TIMEOUT),
        handshakes: table.count(&defaults::HANDSHAKES),
        handshake_timeout: table.duration(&defaults::HANDSHAKE_TIMEOUT),
        head_timeout: table.duration(&defaults::HEAD_TIMEOUT),
        body_timeout: table.duration(&defaults::BODY_TIMEOUT),
        body_rate: table.size(&defaults::BODY_RATE),
        body: table.size(&defaults::BODY),
        body_memory: table.size(&defaults::BODY_MEMORY),
        response_memory: table.size(&defaults::RESPONSE_MEMORY),
        response_disk: table.size(&defaults::RESPONSE_DISK),
        buffers_memory: table.size(&defaults::BUFFERS_MEMORY),
        buffers_disk: table.size(&defaults::BUFFERS_DISK),
        file_memory: table.size(&defaults::FILE_MEMORY),
        file_watches: table.count(&defaults::FILE_WATCHES),
        encoders: table.count(&defaults::ENCODERS),
        send_timeout: table.duration(&defaults::SEND_TIMEOUT),
        keepalive_timeout: table.duration(&defaults::KEEPALIVE_TIMEOUT),
        keepalive_requests: table.count(&defaults::KEEPALIVE_REQUESTS),
        keepalive_age: table.duration(&defaults::KEEPALIVE_AGE),
        queue_timeout: table.duration(&defaults::QUEUE_TIMEOUT),
        queue_length: table.count(&defaults::QUEUE_LENGTH),
        queue_per_client: table.count(&defaults::QUEUE_PER_CLIENT),
        queue_target: table.duration(&defaults::QUEUE_TARGET),
        h2_streams: table.count(&defaults::H2_STREAMS),
        h2_resets: table.count(&defaults::H2_RESETS),
        h2_pings: table.count(&defaults::H2_PINGS),
        h2_empty_data: table.count(&defaults::H2_EMPTY_DATA),
        h2_window_updates: table.count(&defaults::H2_WINDOW_UPDATES),
        connections: table.count(&defaults::CONNECTIONS),
        connections_per_client: table.count(&defaults::CONNECTIONS_PER_CLIENT),
        limit_clients: table.count(&defaults::LIMIT_CLIENTS),
        tunnel_timeout: table.duration(&defaults::TUNNEL_TIMEOUT),
        drain_timeout: table.duration(&defaults::DRAIN_TIMEOUT),
    }
}

/// `limits = { body = "1GiB" }` of a site or a route: what a request meets once it is known whose it is. `None`: as `outer`.
/// `whole`: bodies are buffered.
pub(super) fn read_part(table: &Table<'_>, outer: &Limits, whole: bool) -> Option<Box<Limits>> {
    let value = table.get("limits")?;
    let table = value.table(&keys::PART, "a table such as `{ body = \"1GiB\" }`")?;
    fn or<T: Copy>(figure: Figure<T>, default: T) -> Figure<T> {
        Figure { default, ..figure }
    }
    let before = table.notes.count();
    let limits = Limits {
        body_timeout: table.duration(&or(defaults::BODY_TIMEOUT, outer.body_timeout)),
        body_rate: table.size(&or(defaults::BODY_RATE, outer.body_rate)),
        body: table.size(&or(defaults::BODY, outer.body)),
        body_memory: table.size(&or(defaults::BODY_MEMORY, outer.body_memory)),
        response_memory: table.size(&or(defaults::RESPONSE_MEMORY, outer.response_memory)),
        response_disk: table.size(&or(defaults::RESPONSE_DISK, outer.response_disk)),
        queue_timeout: table.duration(&or(defaults::QUEUE_TIMEOUT, outer.queue_timeout)),
        queue_length: table.count(&or(defaults::QUEUE_LENGTH, outer.queue_length)),
        queue_per_client: table.count(&or(defaults::QUEUE_PER_CLIENT, outer.queue_per_client)),
        queue_target: table.duration(&or(defaults::QUEUE_TARGET, outer.queue_target)),
        ..outer.clone()
    };
    if whole && table.notes.count() == before {
        check_body(&table, &limits);
    }
    Some(Box::new(limits))
}

/// A body that no budget can hold would be refused for want of room for ever, and its client told to come again.
fn check_body(table: &Table<'_>, limits: &Limits) {
    if limits.body <= limits.buffers_disk.max(limits.body_memory) {
        return;
    }
    let written = ["body", "buffers_disk", "body_memory"];
    // Where none of them is written, whoever wrote one has been told.
    let Some(value) = written.into_iter().find_map(|key| table.get(key)) else {
        return;
    };
    let (body, disk) = (
        units::show_size(limits.body),
        units::show_size(limits.buffers_disk),
    );
    let message = format!(
        "`body` is {body}, more than `buffers_disk` of [limits], which is {disk} and holds all bodies at once"
    );
    table
        .notes
        .wrong(Problem::new(value.span, message).hint(format!(
            "raise `buffers_disk` to {body} at least, or lower `body`"
        )));
}

/// The line is part of the head: a longer one could never come.
fn check_head(table: &Table<'_>, limits: &Limits, notes: &Notes) {
    if limits.request_line <= limits.head {
        return;
    }
    let Some(value) = table.get("request_line").or_else(|| table.get("head")) else {
        return;
    };
    let (line, head) = (
        units::show_size(limits.request_line),
        units::show_size(limits.head),
    );
    let message =
        format!("`request_line` is {line}, more than `head`, which is {head} and includes it");
    notes.wrong(Problem::new(value.span, message).hint("raise `head`, or lower `request_line`"));
}
