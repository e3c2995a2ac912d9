//! Every default with its reason, and the range of every figure. Nothing else in the workspace invents a default.

use std::time::Duration;

use crate::site::{Forwarded, Limits, Listen, Need, Queue, Strategy, UnknownNames};

/// A key that holds a figure: what it is when nothing is written, and what may be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure<T> {
    pub(crate) key: &'static str,
    pub(crate) default: T,
    pub(crate) least: T,
    pub(crate) most: T,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = seconds(86_400);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn figure(key: &'static str, default: u64, least: u64, most: u64) -> Figure<u64> {
    Figure {
        key,
        default,
        least,
        most,
    }
}

/// A time limit: a millisecond (tests) to a day.
const fn time(key: &'static str, default: u64) -> Figure<Duration> {
    Figure {
        key,
        default: seconds(default),
        least: MILLISECOND,
        most: DAY,
    }
}

// Long links of single sign-on fit; nginx and Apache take 8 KiB too.
pub(crate) const REQUEST_LINE: Figure<u64> = figure("request_line", 8 * KIB, 256, MIB);
// Cookies are what makes heads large: a browser sends up to 4 KiB for each.
pub(crate) const HEAD: Figure<u64> = figure("head", 16 * KIB, 512, 4 * MIB);
// Browsers send about 20, chains of proxies add some.
pub(crate) const FIELDS: Figure<u64> = figure("fields", 100, 1, 10_000);
// A proxy sends it with its first packet, and is near.
pub(crate) const PROXY_PROTOCOL_TIMEOUT: Figure<Duration> = time("proxy_protocol_timeout", 3);
// More than a core finishes in the time that a patient client waits; each costs some 40 KiB until it is done.
pub(crate) const HANDSHAKES: Figure<u64> = figure("handshakes", 2048, 1, 1_000_000);
// Two round trips on the worst line, with retransmissions.
pub(crate) const HANDSHAKE_TIMEOUT: Figure<Duration> = time("handshake_timeout", 10);
// A head is a packet or two; slower is an attack (slowloris).
pub(crate) const HEAD_TIMEOUT: Figure<Duration> = time("head_timeout", 10);
// A phone in a tunnel.
pub(crate) const BODY_TIMEOUT: Figure<Duration> = time("body_timeout", 30);
// Slower than any modem: a trickle that only means to last.
pub(crate) const BODY_RATE: Figure<u64> = figure("body_rate", 256, 0, GIB);
// A photo passes, a film does not; who takes films says so.
pub(crate) const BODY: Figure<u64> = figure("body", 16 * MIB, 0, 1 << 50);
// Forms stay in memory, uploads go to disk.
pub(crate) const BODY_MEMORY: Figure<u64> = figure("body_memory", 64 * KIB, KIB, GIB);
// Nearly every page fits, so its worker is free at once.
pub(crate) const RESPONSE_MEMORY: Figure<u64> = figure("response_memory", 256 * KIB, 4 * KIB, GIB);
// A report or an export fits; a film is a file, which an app hands over.
pub(crate) const RESPONSE_DISK: Figure<u64> = figure("response_disk", 256 * MIB, 0, 1 << 50);
// Half a thousand pages that nobody takes, on the smallest machine that one would rent.
pub(crate) const BUFFERS_MEMORY: Figure<u64> = figure("buffers_memory", 128 * MIB, MIB, 1 << 50);
// What any disk has left.
pub(crate) const BUFFERS_DISK: Figure<u64> = figure("buffers_disk", GIB, 0, 1 << 50);
// The style sheets, scripts and small pictures of a dozen sites; a kernel has the rest in its own cache.
pub(crate) const FILE_MEMORY: Figure<u64> = figure("file_memory", 64 * MIB, 0, 1 << 40);
// The folders of a large site; a kernel gives each user 8192 at least, for all programs together.
pub(crate) const FILE_WATCHES: Figure<u64> = figure("file_watches", 1024, 0, 1_000_000);
// An encoder takes about a MiB.
pub(crate) const ENCODERS: Figure<u64> = figure("encoders", 128, 0, 100_000);
// A client that takes nothing for a minute is gone.
pub(crate) const SEND_TIMEOUT: Figure<Duration> = time("send_timeout", 60);
// Longer than a person reads a page; a connection at rest is cheap here. nginx's figure.
pub(crate) const KEEPALIVE_TIMEOUT: Figure<Duration> = time("keepalive_timeout", 75);
// Frees what a connection may have gathered; nginx's figure.
pub(crate) const KEEPALIVE_REQUESTS: Figure<u64> =
    figure("keepalive_requests", 1000, 1, 1_000_000_000);
// Lets load balancers in front spread anew.
pub(crate) const KEEPALIVE_AGE: Figure<Duration> = time("keepalive_age", 3600);
// People reload a page after that time: answering the first request would be work for nobody.
pub(crate) const QUEUE_TIMEOUT: Figure<Duration> = time("queue_timeout", 15);
// At 30 ms each and 4 workers of 4 slots, about a second's work.
pub(crate) const QUEUE_LENGTH: Figure<u64> = figure("queue_length", 512, 0, 1_000_000);
// A quarter of the queue: who is behind one address with many others still gets in, and nobody takes all places.
pub(crate) const QUEUE_PER_CLIENT: Figure<u64> = figure("queue_per_client", 128, 1, 1_000_000);
// A page that comes half a second later is slow; one that comes after the whole queue is too late.
pub(crate) const QUEUE_TARGET: Figure<Duration> = Figure {
    default: Duration::from_millis(500),
    least: Duration::ZERO,
    ..time("queue_target", 0)
};
// The least that RFC 9113 §6.5.2 recommends.
pub(crate) const H2_STREAMS: Figure<u64> = figure("h2_streams", 100, 1, 10_000);
// A page that is left cancels what it was loading, which is 100 streams at most; twice in ten seconds is much.
pub(crate) const H2_RESETS: Figure<u64> = figure("h2_resets", 200, 0, 1_000_000_000);
// Browsers send one in half a minute, if any. gRPC's clients may ask at each message how far away we are.
pub(crate) const H2_PINGS: Figure<u64> = figure("h2_pings", 100, 0, 1_000_000_000);
// Nobody has a use for them but to end a stream, which is not counted. Small messages are counted by 32.
pub(crate) const H2_EMPTY_DATA: Figure<u64> = figure("h2_empty_data", 200, 0, 1_000_000_000);
// Clients open a window by halves; the worst honest ones by each frame that they have read, which the content pays for.
pub(crate) const H2_WINDOW_UPDATES: Figure<u64> =
    figure("h2_window_updates", 2000, 0, 1_000_000_000);
// Some 200 MiB if all of them are at work with TLS.
pub(crate) const CONNECTIONS: Figure<u64> = figure("connections", 16_384, 1, 1_000_000);
// 0, no limit: a company or a mobile network may stand behind one address.
pub(crate) const CONNECTIONS_PER_CLIENT: Figure<u64> =
    figure("connections_per_client", 0, 0, 1_000_000);
// A table of 2 MiB for each `limit`: more clients than a small attack has, and far more than are busy at once.
pub(crate) const LIMIT_CLIENTS: Figure<u64> = figure("limit_clients", 65_536, 1024, 16 << 20);
// A chat that nobody writes in for an hour has been left; most protocols over WebSocket have heartbeats.
pub(crate) const TUNNEL_TIMEOUT: Figure<Duration> = time("tunnel_timeout", 3600);
// As long as a request may take, and less than what systemd waits (90 s).
pub(crate) const DRAIN_TIMEOUT: Figure<Duration> = Figure {
    least: Duration::ZERO,
    ..time("drain_timeout", 30)
};

// Python threads share one interpreter lock: a few overlap waiting for the database, many only wait for each other.
pub(crate) const THREADS: Figure<u64> = figure("threads", 4, 1, 512);
// The default is one for each core, see `cores`.
pub(crate) const WORKERS: Figure<u64> = figure("workers", 1, 1, 1024);
// The default is half of the slots, for the pool as it is: as many are left for pages.
pub(crate) const STREAMS: Figure<u64> = figure("streams", 1, 0, 32_768);
// gunicorn's figure; people and proxies in front give up then.
pub(crate) const TIMEOUT: Figure<Duration> = time("timeout", 30);
// Large frameworks and models take their time to import, on a cold disk too.
pub(crate) const BOOT_TIMEOUT: Figure<Duration> = time("boot_timeout", 60);

// A SYN that is lost is sent again after one second, and after three: the first of them is waited for.
pub(crate) const CONNECT_TIMEOUT: Figure<Duration> = time("connect_timeout", 3);
// nginx's figure for what it waits for; other servers than ours may take longer than a page should.
pub(crate) const UPSTREAM_TIMEOUT: Figure<Duration> = time("timeout", 60);
// Event streams send a comment every 15 to 60 s, so that proxies see that they live.
pub(crate) const READ_TIMEOUT: Figure<Duration> = time("read_timeout", 300);
// More than most servers take; where it is reached, waiting here is cheaper than failing there.
pub(crate) const UPSTREAM_CONNECTIONS: Figure<u64> = figure("connections", 1024, 1, 1_000_000);
// Enough for some thousand requests a second of some milliseconds each.
pub(crate) const IDLE_CONNECTIONS: Figure<u64> = figure("idle_connections", 64, 0, 65_536);
// Node.js and uvicorn close an idle connection after 5 s; we are before them, so that no request meets that.
pub(crate) const IDLE_TIMEOUT: Figure<Duration> = time("idle_timeout", 4);
// nginx's figure (fail_timeout): a restart takes about as long.
pub(crate) const RETRY_AFTER: Figure<Duration> = time("retry_after", 10);
// Migrations of a large table take minutes; one that waits for a lock for ever must not keep deploys from ever ending.
pub(crate) const BEFORE_RELOAD_TIMEOUT: Figure<Duration> = time("before_reload_timeout", 600);
// One takes over from many at the same moment, without a slot too few. Who lacks the memory for both says `"rolling"`.
pub(crate) const RELOAD: Strategy = Strategy::SideBySide;
// Where nothing is written there is no such limit, and these are only what hints propose: recycling is a remedy for apps
// that leak, and costs a start each time.
pub(crate) const MAX_REQUESTS: Figure<u64> = figure("max_requests", 10_000, 1, 1 << 40);
pub(crate) const MAX_RSS: Figure<u64> = figure("max_rss", 512 * MIB, MIB, 1 << 50);
pub(crate) const MAX_AGE: Figure<Duration> = Figure {
    key: "max_age",
    default: DAY,
    least: MILLISECOND,
    most: seconds(365 * 86_400),
};
// Proposed as well. An interpreter with a framework takes some 50 MiB before it has done anything.
pub(crate) const MEMORY_MAX: Figure<u64> = figure("memory_max", GIB, 32 * MIB, 1 << 50);
// Fewer than a worker itself needs for its slots and pipes would be none at all.
pub(crate) const NOFILE: Figure<u64> = figure("nofile", 4096, 64, 1 << 30);

// Who wants the files to be asked for at each use says `"0s"`; more than a year is no use (RFC 9111 §5.2.2.1, §1.2.2).
pub(crate) const CACHE: Figure<Duration> = Figure {
    key: "cache",
    default: Duration::ZERO,
    least: Duration::ZERO,
    most: seconds(10 * 365 * 86_400),
};
// What people put into links and forms although it opens doors. `code` and `key` are too often something else.
pub(crate) const REDACT: [&str; 14] = [
    "token",
    "secret",
    "password",
    "passwd",
    "pwd",
    "api_key",
    "apikey",
    "signature",
    "sig",
    "jwt",
    "session",
    "sessionid",
    "authorization",
    "cookie",
];
// Small enough to be opened by an editor, large enough for a day of most sites.
pub(crate) const ROTATE_SIZE: Figure<u64> = figure("size", 100 * MIB, KIB, 1 << 50);
pub(crate) const ROTATE_AGE: Figure<Duration> = Figure {
    key: "age",
    default: DAY,
    least: Duration::from_secs(1),
    most: seconds(366 * 86_400),
};
// Two weeks of daily files, as Debian's logrotate has it for web servers.
pub(crate) const ROTATE_KEEP: Figure<u64> = figure("keep", 14, 1, 10_000);

// A client that is slow to send takes nobody's time but its own.
pub(crate) const REQUEST_BUFFERING: bool = true;
// Nobody goes before others who does not say why.
pub(crate) const QUEUE: Queue = Queue::Last;
// What every web server and every framework's documentation takes it to be.
pub(crate) const INDEX: &str = "index.html";
// Text is a fifth of its length then; see `compress` of the proxy for what is left alone, and why.
pub(crate) const COMPRESS: bool = true;
// Ten minutes tire a script, and a person who was taken for one waits.
pub(crate) const BAN: Figure<Duration> = Figure {
    key: "ban",
    default: seconds(600),
    least: seconds(1),
    most: seconds(30 * 86_400),
};
// A hundredth shows what is slow, and costs next to nothing.
pub(crate) const TRACE_SAMPLE: u32 = 10_000;
pub(crate) const TRACE_SERVICE: &str = "stack";
// Long enough that browsers and crawlers that believe it do not come in vain, short enough for who waits.
pub(crate) const MAINTENANCE_RETRY_AFTER: Figure<Duration> = Figure {
    key: "retry_after",
    default: seconds(60),
    least: seconds(1),
    most: seconds(30 * 86_400),
};
// A page with many pictures may be refused some of them; nobody reloads it for the twentieth time.
pub(crate) const BAN_AFTER: Figure<u64> = figure("ban_after", 20, 1, 1_000_000);
// What the question above a name and a password is about, when nothing else is said.
pub(crate) const REALM: &str = "Restricted";
// It looks a session up, and every request waits for it.
pub(crate) const AUTH_TIMEOUT: Figure<Duration> = time("timeout", 5);
// What Authelia and Authentik's relatives say; the field is theirs, whatever a client sends in it.
pub(crate) const AUTH_USER: &str = "remote-user";
// A browser never forgets a 301: that a move is for good has to be said.
pub(crate) const REDIRECT_STATUS: u16 = 302;
// What a text is when nothing else is said.
pub(crate) const RESPOND_STATUS: u16 = 200;
pub(crate) const RESPOND_TYPE: &str = "text/plain; charset=utf-8";

// Nearly every proxy writes the X-Forwarded fields; who believed both kinds would believe the client about one of them.
pub(crate) const FORWARDED: Forwarded = Forwarded::XForwarded;

// Many proxies pass on a client's X-Forwarded-Host as it came.
pub(crate) const FORWARDED_HOST: bool = false;

// Who trusts an authority for clients wants to know its clients.
pub(crate) const CLIENT_AUTH: Need = Need::Required;
// A browser keeps it for that long, whatever becomes of the site; what two years are for is said by nobody.
pub(crate) const HSTS: Figure<Duration> = Figure {
    key: "age",
    default: seconds(365 * 86_400),
    least: Duration::ZERO,
    most: seconds(10 * 365 * 86_400),
};
/// What browsers ask of sites that they know beforehand.
pub(crate) const PRELOAD_AGE: Duration = seconds(365 * 86_400);
// Only who speaks to us over a network of its own can have use for it.
pub(crate) const H2C: bool = false;
// A browser then shows a page that says what is wrong (421), where it would show an error of its own.
pub(crate) const UNKNOWN_NAMES: UnknownNames = UnknownNames::Default;

// It says who answered where several servers stand in a row, and no version.
pub(crate) const SERVER_HEADER: bool = true;

// What the proxy is not given it cannot lose. A kernel that cannot is told of, not waited for.
pub(crate) const LANDLOCK: bool = true;
pub(crate) const SECCOMP: bool = true;

/// Where plain HTTP is accepted: the web's port for who may take it, else the one that everybody uses instead.
pub(crate) fn http(privileged: bool) -> Listen {
    Listen::Any {
        port: if privileged { 80 } else { 8080 },
    }
}

/// Free, known to every browser, and it renews by itself.
pub(crate) const ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The same for rehearsals: its limits are wide, and no browser knows it.
pub(crate) const ACME_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// What a hint proposes for `https`.
pub(crate) fn https(privileged: bool) -> Listen {
    Listen::Any {
        port: if privileged { 443 } else { 8443 },
    }
}

/// One worker for each core that we may run on: Python runs on one at a time.
pub(crate) fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cores).unwrap_or(u16::MAX).min(1024)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_line: REQUEST_LINE.default,
            head: HEAD.default,
            fields: FIELDS.default,
            proxy_protocol_timeout: PROXY_PROTOCOL_TIMEOUT.default,
            handshakes: HANDSHAKES.default,
            handshake_timeout: HANDSHAKE_TIMEOUT.default,
            head_timeout: HEAD_TIMEOUT.default,
            body_timeout: BODY_TIMEOUT.default,
            body_rate: BODY_RATE.default,
            body: BODY.default,
            body_memory: BODY_MEMORY.default,
            response_memory: RESPONSE_MEMORY.default,
            response_disk: RESPONSE_DISK.default,
            buffers_memory: BUFFERS_MEMORY.default,
            buffers_disk: BUFFERS_DISK.default,
            file_memory: FILE_MEMORY.default,
            file_watches: FILE_WATCHES.default,
            encoders: ENCODERS.default,
            send_timeout: SEND_TIMEOUT.default,
            keepalive_timeout: KEEPALIVE_TIMEOUT.default,
            keepalive_requests: KEEPALIVE_REQUESTS.default,
            keepalive_age: KEEPALIVE_AGE.default,
            queue_timeout: QUEUE_TIMEOUT.default,
            queue_length: QUEUE_LENGTH.default,
            queue_per_client: QUEUE_PER_CLIENT.default,
            queue_target: QUEUE_TARGET.default,
            h2_streams: H2_STREAMS.default,
            h2_resets: H2_RESETS.default,
            h2_pings: H2_PINGS.default,
            h2_empty_data: H2_EMPTY_DATA.default,
            h2_window_updates: H2_WINDOW_UPDATES.default,
            connections: CONNECTIONS.default,
            connections_per_client: CONNECTIONS_PER_CLIENT.default,
            limit_clients: LIMIT_CLIENTS.default,
            tunnel_timeout: TUNNEL_TIMEOUT.default,
            drain_timeout: DRAIN_TIMEOUT.default,
        }
    }
}
