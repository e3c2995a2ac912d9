//! The `environ` of a request (PEP 3333, "environ Variables"; RFC 3875 §4.1).
//!
//! What is the same for every request is in one dict that is copied; keys are interned once; a value that a slot has just
//! seen is not decoded again. A slot has one [`Template`] of its own, so nothing here is shared or locked.

use appserver::request::Request;
use message::{
    field::is_forwardable,
    handoff::{Certificate, NONE, SUCCESS, Scheme},
};
use pyo3::{
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

use crate::{
    errors::Errors,
    file_wrapper::FileWrapper,
    input::Input,
    text::{Memo, decode},
};

/// What does not change from request to request.
pub(crate) struct Fixed {
    /// More than one slot.
    pub(crate) multithread: bool,
    /// More than one worker.
    pub(crate) multiprocess: bool,
}

/// Makes environs.
pub(crate) struct Template {
    base: Py<PyDict>,
    keys: Keys,
    methods: Memo,
    client: Memo,
    client_port: (u16, Option<Py<PyString>>),
    server_name: Memo,
    server_port: (u16, Option<Py<PyString>>),
    path: Memo,
    target: Memo,
    fields: FieldCache,
    decoded: Vec<u8>,
}

/// Interned keys of the variables that are set for each request.
struct Keys {
    request_method: Py<PyString>,
    path_info: Py<PyString>,
    query_string: Py<PyString>,
    raw_uri: Py<PyString>,
    request_uri: Py<PyString>,
    remote_addr: Py<PyString>,
    remote_port: Py<PyString>,
    server_name: Py<PyString>,
    server_port: Py<PyString>,
    url_scheme: Py<PyString>,
    https: Py<PyString>,
    input: Py<PyString>,
    errors: Py<PyString>,
    request_id: Py<PyString>,
    empty: Py<PyString>,
    http: Py<PyString>,
    https_scheme: Py<PyString>,
    on: Py<PyString>,
}

impl Keys {
    fn new(py: Python<'_>) -> Self {
        let key = |text| PyString::intern(py, text).unbind();
        Self {
            request_method: key("REQUEST_METHOD"),
            path_info: key("PATH_INFO"),
            query_string: key("QUERY_STRING"),
            raw_uri: key("RAW_URI"),
            request_uri: key("REQUEST_URI"),
            remote_addr: key("REMOTE_ADDR"),
            remote_port: key("REMOTE_PORT"),
            server_name: key("SERVER_NAME"),
            server_port: key("SERVER_PORT"),
            url_scheme: key("wsgi.url_scheme"),
            https: key("HTTPS"),
            input: key("wsgi.input"),
            errors: key("wsgi.errors"),
            request_id: key("HTTP_X_REQUEST_ID"),
            empty: key(""),
            http: key("http"),
            https_scheme: key("https"),
            on: key("on"),
        }
    }
}

impl Template {
    pub(crate) fn new(py: Python<'_>, fixed: &Fixed) -> PyResult<Self> {
        let keys = Keys::new(py);
        let base = PyDict::new(py);
        // Those of each request are here too, so that a copy has their places already and does not grow by them.
        for key in [
            &keys.request_method,
            &keys.path_info,
            &keys.query_string,
            &keys.raw_uri,
            &keys.request_uri,
            &keys.remote_addr,
            &keys.remote_port,
            &keys.server_name,
            &keys.server_port,
            &keys.url_scheme,
            &keys.errors,
            &keys.request_id,
        ] {
            base.set_item(key, &keys.empty)?;
        }
        base.set_item(intern!(py, "SCRIPT_NAME"), &keys.empty)?;
        base.set_item(intern!(py, "GATEWAY_INTERFACE"), "CGI/1.1")?;
        base.set_item(intern!(py, "SERVER_PROTOCOL"), "HTTP/1.1")?;
        base.set_item(
            intern!(py, "SERVER_SOFTWARE"),
            concat!("stack/", env!("CARGO_PKG_VERSION")),
        )?;
        base.set_item(intern!(py, "wsgi.version"), (1, 0))?;
        base.set_item(intern!(py, "wsgi.multithread"), fixed.multithread)?;
        base.set_item(intern!(py, "wsgi.multiprocess"), fixed.multiprocess)?;
        base.set_item(intern!(py, "wsgi.run_once"), false)?;
        base.set_item(intern!(py, "wsgi.input_terminated"), true)?;
        base.set_item(
            intern!(py, "wsgi.file_wrapper"),
            py.get_type::<FileWrapper>(),
        )?;
        // Most requests have no content; this one object says so for all of them.
        base.set_item(&keys.input, Input::empty(py)?)?;
        Ok(Self {
            base: base.unbind(),
            keys,
            methods: Memo::default(),
            client: Memo::default(),
            client_port: (0, None),
            server_name: Memo::default(),
            server_port: (0, None),
            path: Memo::default(),
            target: Memo::default(),
            fields: FieldCache::new(),
            decoded: Vec::new(),
        })
    }

    /// Puts the `wsgi.errors` of the next requests in place.
    pub(crate) fn set_errors(&self, py: Python<'_>, errors: &Py<Errors>) -> PyResult<()> {
        self.base.bind(py).set_item(&self.keys.errors, errors)
    }

    /// Puts the `wsgi.early_hints` of the next requests in place.
    pub(crate) fn set_early_hints(&self, py: Python<'_>, hints: &Py<PyAny>) -> PyResult<()> {
        self.base
            .bind(py)
            .set_item(intern!(py, "wsgi.early_hints"), hints)
    }

    /// The environ of one request.
    pub(crate) fn environ<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.base.bind(py).copy()?;
        let method = self.methods.decode(py, request.method())?;
        environ.set_item(&self.keys.request_method, method)?;
        self.set_target(py, &environ, request)?;
        self.set_ends(py, &environ, request)?;
        for (name, value) in request.fields() {
            self.fields.set(py, &environ, name, value)?;
        }
        if let Some(content) = request.content() {
            environ.set_item(&self.keys.input, Input::of(py, content)?)?;
        }
        Ok(environ)
    }

    fn set_target(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        request: &Request<'_>,
    ) -> PyResult<()> {
        let keys = &self.keys;
        let path = percent_decode(request.path(), &mut self.decoded);
        let script = request.script_length();
        let path = match path.split_at_checked(script) {
            Some((script, rest)) if !script.is_empty() => {
                environ.set_item(intern!(py, "SCRIPT_NAME"), decode(py, script)?)?;
                rest
            }
            _ => path,
        };
        if let Some(user) = request.user() {
            environ.set_item(intern!(py, "REMOTE_USER"), decode(py, user)?)?;
            if let Some(scheme) = scheme(request) {
                environ.set_item(intern!(py, "AUTH_TYPE"), decode(py, scheme)?)?;
            }
        }
        environ.set_item(&keys.path_info, self.path.decode(py, path)?)?;
        if !request.query().is_empty() {
            environ.set_item(&keys.query_string, decode(py, request.query())?)?;
        }
        let target = self.target.decode(py, request.raw_target())?;
        environ.set_item(&keys.raw_uri, &target)?;
        environ.set_item(&keys.request_uri, target)
    }

    /// Who asks whom, and how.
    fn set_ends(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        request: &Request<'_>,
    ) -> PyResult<()> {
        let keys = &self.keys;
        let handoff = request.handoff();
        // A client that came over a Unix socket has no address; the copied template says so already.
        if handoff.client != "-" {
            environ.set_item(
                &keys.remote_addr,
                self.client.decode(py, handoff.client.as_bytes())?,
            )?;
            environ.set_item(
                &keys.remote_port,
                port(py, &mut self.client_port, handoff.client_port),
            )?;
        }
        // HTTP/1.0 without Host: PEP 3333 wants a name all the same.
        let name = if handoff.server_name == "-" {
            "localhost"
        } else {
            handoff.server_name
        };
        environ.set_item(
            &keys.server_name,
            self.server_name.decode(py, name.as_bytes())?,
        )?;
        environ.set_item(
            &keys.server_port,
            port(py, &mut self.server_port, handoff.server_port),
        )?;
        match handoff.scheme {
            Scheme::Http => environ.set_item(&keys.url_scheme, &keys.http)?,
            Scheme::Https => {
                environ.set_item(&keys.url_scheme, &keys.https_scheme)?;
                environ.set_item(&keys.https, &keys.on)?;
            }
        }
        environ.set_item(&keys.request_id, decode(py, handoff.request_id.as_bytes())?)?;
        match request.certificate() {
            Some(certificate) => set_certificate(py, environ, certificate),
            None => Ok(()),
        }
    }
}

/// What the site's clients showed to the proxy, under the names that Apache gave it.
fn set_certificate(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    certificate: Option<Certificate<'_>>,
) -> PyResult<()> {
    let verified = if certificate.is_some() { SUCCESS } else { NONE };
    environ.set_item(intern!(py, "SSL_CLIENT_VERIFY"), verified)?;
    let Some(certificate) = certificate else {
        return Ok(());
    };
    let text = |text: &str| decode(py, text.as_bytes());
    environ.set_item(intern!(py, "SSL_CLIENT_S_DN"), text(certificate.subject)?)?;
    environ.set_item(intern!(py, "SSL_CLIENT_I_DN"), text(certificate.issuer)?)?;
    environ.set_item(
        intern!(py, "SSL_CLIENT_M_SERIAL"),
        text(certificate.serial)?,
    )?;
    environ.set_item(
        intern!(py, "SSL_CLIENT_FINGERPRINT"),
        text(certificate.fingerprint)?,
    )
}

/// A port as a `str`, remembered.
fn port<'py>(
    py: Python<'py>,
    memo: &mut (u16, Option<Py<PyString>>),
    port: u16,
) -> Bound<'py, PyString> {
    match memo {
        (last, Some(text)) if *last == port => text.bind(py).clone(),
        _ => {
            let text = PyString::new(py, &port.to_string());
            *memo = (port, Some(text.clone().unbind()));
            text
        }
    }
}

/// The path with its percent-encoded octets decoded, once. `decoded` is only scratch.
fn percent_decode<'a>(path: &'a [u8], decoded: &'a mut Vec<u8>) -> &'a [u8] {
    let Some(first) = memchr::memchr(b'%', path) else {
        return path;
    };
    decoded.clear();
    decoded.extend_from_slice(&path[..first]);
    let mut rest = &path[first..];
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte == b'%'
            && let [high, low, tail @ ..] = rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            decoded.push(high << 4 | low);
            rest = tail;
        } else {
            decoded.push(*byte);
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// From a field's name to its variable: `Accept-Encoding` → `HTTP_ACCEPT_ENCODING`.
///
/// Bounded, because names are the client's to invent: each name has one place, where another of the same hash replaces it.
struct FieldCache {
    places: Box<[Option<Place>; Self::SIZE]>,
}

struct Place {
    name: Vec<u8>,
    /// `None`: this field does not reach the app.
    key: Option<Py<PyString>>,
    value: Memo,
}

impl FieldCache {
    /// Some times more than a browser's different names, and as many as a byte has values.
    const SIZE: usize = 256;

    fn new() -> Self {
        Self {
            places: Box::new([const { None }; Self::SIZE]),
        }
    }

    fn set(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        name: &[u8],
        value: &[u8],
    ) -> PyResult<()> {
        let place = &mut self.places[usize::from(hash(name))];
        let place = match place {
            Some(place) if place.name == name => place,
            _ => place.insert(Place {
                name: name.to_vec(),
                key: variable(py, name),
                value: Memo::default(),
            }),
        };
        let Some(key) = &place.key else { return Ok(()) };
        let key = key.bind(py);
        let value = place.value.decode(py, value)?;
        if environ.contains(key)? {
            return join(environ, key, &value);
        }
        environ.set_item(key, value)
    }
}

/// A repeated field is one list (RFC 9110 §5.3), except Cookie (RFC 6265 §5.4).
#[cold]
fn join(
    environ: &Bound<'_, PyDict>,
    key: &Bound<'_, PyString>,
    value: &Bound<'_, PyString>,
) -> PyResult<()> {
    let Some(first) = environ.get_item(key)? else {
        return environ.set_item(key, value);
    };
    let separator = if key.to_str()? == "HTTP_COOKIE" {
        "; "
    } else {
        ", "
    };
    environ.set_item(key, first.add(separator)?.add(value)?)
}

/// FNV-1a: short names, and a collision costs no more than a second decoding.
fn hash(name: &[u8]) -> u8 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let [lowest, ..] = (hash ^ hash >> 32).to_le_bytes();
    lowest
}

/// The variable of a field; `None` for what an app must not see.
fn variable(py: Python<'_>, name: &[u8]) -> Option<Py<PyString>> {
    // `X_Y` would pose as `X-Y`.
    if !is_forwardable(name) {
        return None;
    }
    let upper: String = name
        .iter()
        .map(|byte| {
            if *byte == b'-' {
                '_'
            } else {
                char::from(byte.to_ascii_uppercase())
            }
        })
        .collect();
    match upper.as_str() {
        "CONTENT_TYPE" | "CONTENT_LENGTH" => Some(PyString::intern(py, &upper).unbind()),
        // HTTP_PROXY configures HTTP clients (CVE-2016-5385); the request id is the proxy's, not the client's.
        "PROXY" | "X_REQUEST_ID" => None,
        name => Some(field_variable(py, name)),
    }
}

/// Interned where apps look for it, so that they find it by its address. Only there: names are the client's to invent, and
/// from CPython 3.12.0 to 3.12.4 an interned string is never freed.
fn field_variable(py: Python<'_>, name: &str) -> Py<PyString> {
    let variable = format!("HTTP_{name}");
    if COMMON.binary_search(&name).is_ok() {
        PyString::intern(py, &variable).unbind()
    } else {
        PyString::new(py, &variable).unbind()
    }
}

/// Fields that browsers, clients, proxies and frameworks use, sorted.
const COMMON: [&str; 48] = [
    "ACCEPT",
    "ACCEPT_CHARSET",
    "ACCEPT_ENCODING",
    "ACCEPT_LANGUAGE",
    "AUTHORIZATION",
    "CACHE_CONTROL",
    "CONTENT_DISPOSITION",
    "CONTENT_ENCODING",
    "CONTENT_LANGUAGE",
    "COOKIE",
    "DATE",
    "DNT",
    "EXPECT",
    "FORWARDED",
    "FROM",
    "HOST",
    "HTTP2_SETTINGS",
    "IDEMPOTENCY_KEY",
    "IF_MATCH",
    "IF_MODIFIED_SINCE",
    "IF_NONE_MATCH",
    "IF_RANGE",
    "IF_UNMODIFIED_SINCE",
    "MAX_FORWARDS",
    "ORIGIN",
    "PRAGMA",
    "PRIORITY",
    "RANGE",
    "REFERER",
    "SEC_CH_UA",
    "SEC_CH_UA_MOBILE",
    "SEC_CH_UA_PLATFORM",
    "SEC_FETCH_DEST",
    "SEC_FETCH_MODE",
    "SEC_FETCH_SITE",
    "SEC_FETCH_USER",
    "TRACEPARENT",
    "TRACESTATE",
    "UPGRADE_INSECURE_REQUESTS",
    "USER_AGENT",
    "VIA",
    "X_CSRFTOKEN",
    "X_FORWARDED_FOR",
    "X_FORWARDED_HOST",
    "X_FORWARDED_PORT",
    "X_FORWARDED_PREFIX",
    "X_FORWARDED_PROTO",
    "X_REQUESTED_WITH",
];

const _: () = {
    // What is not sorted would not be found.
    let mut place = 1;
    while place < COMMON.len() {
        let (before, after) = (COMMON[place - 1].as_bytes(), COMMON[place].as_bytes());
        assert!(is_less(before, after), "COMMON is not sorted");
        place += 1;
    }
};

const fn is_less(one: &[u8], other: &[u8]) -> bool {
    let mut place = 0;
    while place < one.len() && place < other.len() {
        if one[place] != other[place] {
            return one[place] < other[place];
        }
        place += 1;
    }
    one.len() < other.len()
}

/// How a user has shown to be it (RFC 3875 §4.1.1), if that was by a field of the request: whoever asks another server (forward
/// authentication) may have been told by a cookie.
fn scheme<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    let is = |(name, _): &(&[u8], &[u8])| name.eq_ignore_ascii_case(b"authorization");
    let (_, value) = request.fields().find(is)?;
    let scheme = value.split(|byte| *byte == b' ').next()?;
    // Schemes have no case (RFC 9110 §11.1), and apps compare.
    if scheme.eq_ignore_ascii_case(b"Basic") {
        return Some(b"Basic");
    }
    Some(scheme)
}
