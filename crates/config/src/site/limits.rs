//! `[limits]`: what the internet may ask of us.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[limits]`: what the internet may ask of us. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest request line (414).
    pub request_line: u64,
    /// Longest request head (431).
    pub head: u64,
    /// Most field lines of a request (431).
    pub fields: u64,
    /// Time for the header of the PROXY protocol (close).
    pub proxy_protocol_timeout: Duration,
    /// Most TLS handshakes at once; further ones wait for their turn, within their time.
    pub handshakes: u64,
    /// Time for a TLS handshake (close).
    pub handshake_timeout: Duration,
    /// Time for a whole request head once its first byte came (408).
    pub head_timeout: Duration,
    /// Longest silence while a request body is awaited (408).
    pub body_timeout: Duration,
    /// Slowest a body may come, in bytes a second, once `body_timeout` has passed (408).
    pub body_rate: u64,
    /// Largest request body (413).
    pub body: u64,
    /// How much of a request body is kept in memory before it goes to a temporary file.
    pub body_memory: u64,
    /// How much of a response that the client has not taken is kept in memory.
    pub response_memory: u64,
    /// How much of it beyond that is kept in a temporary file; past it the worker waits for the client.
    pub response_disk: u64,
    /// Most memory for all bodies and responses together; past it they go to files sooner.
    pub buffers_memory: u64,
    /// Most bytes in temporary files for all of them together; past it: 503 for bodies, workers wait for clients.
    pub buffers_disk: u64,
    /// How much of files, and of what they were compressed to, is kept in memory.
    pub file_memory: u64,
    /// Most folders of files whose changes the kernel tells; elsewhere they are seen within a second. 0: none.
    pub file_watches: u64,
    /// Most responses that are encoded while they come; further ones go out as they are.
    pub encoders: u64,
    /// Longest time a client may take to accept any byte of a response (reset).
    pub send_timeout: Duration,
    /// Longest time between two requests of a connection (close).
    pub keepalive_timeout: Duration,
    /// Most requests of one connection (close).
    pub keepalive_requests: u64,
    /// Longest life of a connection, looked at between requests (close).
    pub keepalive_age: Duration,
    /// Longest time a request waits for a slot (503).
    pub queue_timeout: Duration,
    /// Most requests that wait for a slot of one app (503).
    pub queue_length: u64,
    /// Most requests of one client that wait for a slot of one app (503).
    pub queue_per_client: u64,
    /// How long requests should wait at most while there are lastingly more than the app can do (503); zero: no matter.
    pub queue_target: Duration,
    /// Most streams at once of an HTTP/2 connection.
    pub h2_streams: u64,
    /// Most streams that an HTTP/2 client may cancel in ten seconds (GOAWAY, `ENHANCE_YOUR_CALM`).
    pub h2_resets: u64,
    /// Most PING frames of an HTTP/2 client in ten seconds (the same).
    pub h2_pings: u64,
    /// Most DATA frames of an HTTP/2 client in ten seconds that hold nothing and end nothing (the same).
    pub h2_empty_data: u64,
    /// Most WINDOW_UPDATE frames of an HTTP/2 client in ten seconds, besides one for each KiB that it was sent (the same).
    pub h2_window_updates: u64,
    /// Most connections at once; further ones wait in the backlog.
    pub connections: u64,
    /// Most connections of one client at once (close); 0: any number.
    pub connections_per_client: u64,
    /// How many clients each `limit` can tell apart; of more, those that came longest ago are forgotten.
    pub limit_clients: u64,
    /// Longest time in which nothing passes through a tunnel, such as a WebSocket (close).
    pub tunnel_timeout: Duration,
    /// How long running requests may take to finish when we stop.
    pub drain_timeout: Duration,
}
