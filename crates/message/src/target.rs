//! What a request asks for (RFC 9112 §3.2, §3.3): decided once, so that what is routed is what is served.
//!
//! The path is percent-decoded once, its dot segments are resolved (RFC 3986 §5.2.4) after decoding, so that `%2e%2e` is `..`
//! for everybody behind us, and repeated slashes are one. Nothing below decodes it again.

use bytes::Bytes;

use crate::{
    head::{Method, RequestHead, Version},
    refusal::Refusal,
};

/// The four forms of a target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`.
    Absolute,
    /// `host:port`, of CONNECT alone.
    Authority,
    /// `*`, of OPTIONS alone.
    Asterisk,
}

/// A target, with the host that it is asked of.
#[derive(Clone, Debug)]
pub struct Target {
    /// Which form was sent.
    pub form: Form,
    /// The host: lower case, no port, IPv6 in brackets. Empty only in HTTP/1.0 without Host.
    pub host: Bytes,
    /// The port, where one was given.
    pub port: Option<u16>,
    /// `host[:port]` as it was sent.
    pub authority: Bytes,
    /// The path.
    pub path: Path,
    /// The query as sent, without its `?`.
    pub query: Option<Bytes>,
    /// The target as sent.
    pub raw: Bytes,
}

impl Target {
    /// Decides.
    ///
    /// # Errors
    /// The rule that the target or the Host breaks.
    pub fn of(head: &RequestHead) -> Result<Self, Refusal> {
        let raw = head.target.clone();
        check_characters(&raw)?;
        let (form, rest, named) = form(head, &raw)?;
        let authority = authority(head, named)?;
        let (host, port) = match &authority {
            Some(authority) => host_and_port(authority)?,
            None => (Bytes::new(), None),
        };
        // RFC 9112 §3.2.3: there is no default port to connect to.
        if form == Form::Authority && port.is_none() {
            return Err(Refusal::Target);
        }
        let (path, query) = match memchr::memchr(b'?', &rest) {
            Some(mark) => (rest.slice(..mark), Some(rest.slice(mark + 1..))),
            None => (rest, None),
        };
        let path = if form == Form::Asterisk || form == Form::Authority {
            Path::unchanged(path)
        } else {
            Path::new(path)?
        };
        Ok(Self {
            form,
            host,
            port,
            authority: authority.unwrap_or_default(),
            path,
            query,
            raw,
        })
    }
}

impl Target {
    /// The same asked of another host, which is `host[:port]`, and of this port where that says none. The target as sent stays.
    ///
    /// # Errors
    /// When it is no host.
    pub fn asked_of(self, authority: Bytes, port: Option<u16>) -> Result<Self, Refusal> {
        let (host, own) = host_and_port(&authority)?;
        Ok(Self {
            host,
            port: own.or(port),
            authority,
            ..self
        })
    }

    /// Writes the path behind its first `start` decoded bytes: as it was sent where that is the path that was routed, so that
    /// an encoded slash stays one; else encoded anew.
    pub fn write_path(&self, start: usize, out: &mut Vec<u8>) {
        if self.form != Form::Origin || self.path.changed() {
            return self.path.encode_from(start, out);
        }
        let end = match &self.query {
            Some(query) => self.raw.len() - query.len() - 1,
            None => self.raw.len(),
        };
        let mut sent = &self.raw[..end];
        for _ in 0..start {
            let length = if sent.first() == Some(&b'%') { 3 } else { 1 };
            sent = sent.get(length..).unwrap_or_default();
        }
        out.extend_from_slice(sent);
    }

    /// The same for a Location: what no URI has is percent-encoded, above all `\`, which browsers take for a slash, so that
    /// `/\host` would lead to another host.
    pub fn write_location(&self, start: usize, out: &mut Vec<u8>) {
        let mut path = Vec::new();
        self.write_path(start, &mut path);
        for byte in path {
            match byte {
                b'%' => out.push(byte),
                byte => encode_byte(byte, out),
            }
        }
    }

    /// Writes `?` and the query, if there is one.
    pub fn write_query(&self, out: &mut Vec<u8>) {
        if let Some(query) = &self.query {
            out.push(b'?');
            out.extend_from_slice(query);
        }
    }
}

/// Whether every byte may stand in a target at all.
pub(crate) fn check_characters(raw: &[u8]) -> Result<(), Refusal> {
    if raw.iter().all(|&byte| ALLOWED[usize::from(byte)]) {
        Ok(())
    } else {
        Err(Refusal::Target)
    }
}

/// Bytes that a target may have: visible ASCII. `#` begins a fragment, which is never sent (RFC 9112 §3.2.1 has none).
const ALLOWED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = byte != b'#' as usize;
        byte += 1;
    }
    table
};

/// The form, the part with path and query, and the authority of the absolute form.
fn form(head: &RequestHead, raw: &Bytes) -> Result<(Form, Bytes, Option<Bytes>), Refusal> {
    if head.method == Method::Connect {
        return Ok((Form::Authority, Bytes::new(), Some(raw.clone())));
    }
    match raw.first() {
        Some(b'/') => Ok((Form::Origin, raw.clone(), None)),
        Some(b'*') if raw.len() == 1 => Ok((Form::Asterisk, raw.clone(), None)),
        _ => absolute(raw),
    }
}

fn absolute(raw: &Bytes) -> Result<(Form, Bytes, Option<Bytes>), Refusal> {
    let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
        raw.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    let start = scheme.ok_or(Refusal::Target)?.len();
    let end = raw[start..]
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .map_or(raw.len(), |at| start + at);
    let named = raw.slice(start..end);
    let rest = match raw.get(end) {
        Some(b'/') => raw.slice(end..),
        // An empty path is `/` (RFC 9110 §4.2.3).
        None => Bytes::from_static(b"/"),
        _ => {
            let mut rest = b"/".to_vec();
            rest.extend_from_slice(&raw[end..]);
            rest.into()
        }
    };
    Ok((Form::Absolute, rest, Some(named)))
}

/// The one authority of a request: Host, which must be there once, and with which an authority in the target must agree.
/// `None` in HTTP/1.0, which need not say.
fn authority(head: &RequestHead, named: Option<Bytes>) -> Result<Option<Bytes>, Refusal> {
    let mut hosts = head.fields.all("host");
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::RepeatedHost);
    }
    match (host, named) {
        (Some(host), Some(named)) if !host.eq_ignore_ascii_case(&named) => {
            Err(Refusal::AuthorityMismatch)
        }
        (Some(host), _) => Ok(Some(head.fields.share(host))),
        (None, named) if head.version == Version::Http10 => Ok(named),
        (None, _) => Err(Refusal::MissingHost),
    }
}

/// `host[:port]` (RFC 3986 §3.2.2, §3.2.3), without userinfo. An http URI has a host (RFC 9110 §4.2.1), so an empty one names
/// nothing that we could serve.
pub(crate) fn host_and_port(authority: &Bytes) -> Result<(Bytes, Option<u16>), Refusal> {
    let end = match authority.first() {
        Some(b'[') => memchr::memchr(b']', authority).ok_or(Refusal::Host)? + 1,
        _ => memchr::memchr(b':', authority).unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let kinds = host
        .iter()
        .fold(0, |all, &byte| all | NAME[usize::from(byte)]);
    let good = match host {
        [b'[', address @ .., b']'] => str::from_utf8(address)
            .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        name => !name.is_empty() && kinds & NO_NAME == 0,
    };
    if !good {
        return Err(Refusal::Host);
    }
    let port = match port {
        // RFC 3986 §3.2.3: a port may be empty, and then means the default.
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(port_number(digits)?),
        _ => return Err(Refusal::Host),
    };
    let host = if kinds & UPPER != 0 {
        host.to_ascii_lowercase().into()
    } else {
        authority.slice(..end)
    };
    Ok((host, port))
}

pub(crate) fn port_number(digits: &[u8]) -> Result<u16, Refusal> {
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::Host);
    }
    let text = str::from_utf8(digits).map_err(|_| Refusal::Host)?;
    text.parse().map_err(|_| Refusal::Host)
}

/// What [`NAME`] says of a byte that no name has.
const NO_NAME: u8 = 1;

/// What it says of a letter that is made a small one.
const UPPER: u8 = 2;

/// What each byte is to the name of a host. Names in use: letters, digits, `-`, `.` and, as some internal names have it, `_`. RFC 3986
/// would allow more; no client needs it.
const NAME: [u8; 256] = {
    let mut table = [NO_NAME; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte as usize] = match byte {
            b'A'..=b'Z' => UPPER,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => 0,
            _ => NO_NAME,
        };
        byte += 1;
    }
    table
};

/// A path as it is routed: decoded once, without dot segments and repeated slashes. A `\` is a byte like any other.
#[derive(Clone, Debug)]
pub struct Path {
    decoded: Bytes,
    encoded_separator: bool,
    changed: bool,
}

impl Path {
    fn unchanged(raw: Bytes) -> Self {
        Self {
            decoded: raw,
            encoded_separator: false,
            changed: false,
        }
    }

    /// Decodes and resolves a percent-encoded path, which begins with a slash.
    ///
    /// # Errors
    /// [`Refusal::Target`] or the rule that an escape in it breaks.
    pub fn new(raw: Bytes) -> Result<Self, Refusal> {
        if raw.first() != Some(&b'/') {
            return Err(Refusal::Target);
        }
        let mut path = match memchr::memchr(b'%', &raw) {
            None => Self::unchanged(raw),
            Some(_) => Self::decode(&raw)?,
        };
        if needs_resolving(&path.decoded) {
            path.decoded = resolve(&path.decoded)?.into();
            path.changed = true;
        }
        Ok(path)
    }

    fn decode(raw: &[u8]) -> Result<Self, Refusal> {
        let (decoded, encoded_separator) = decode(raw)?;
        Ok(Self {
            decoded,
            encoded_separator,
            changed: false,
        })
    }

    /// The decoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.decoded
    }

    /// Whether a slash or backslash came percent-encoded: to a file system it would be another path than to a reader of the
    /// encoded form.
    #[must_use]
    pub fn encoded_separator(&self) -> bool {
        self.encoded_separator
    }

    /// Whether it is another path than was sent: a dot segment was resolved or slashes were merged. If not, whoever decodes
    /// what was sent gets this path.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// Writes the path percent-encoded, for a request line or a Location.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_from(0, out);
    }

    /// Writes the first `end` decoded bytes, percent-encoded.
    pub fn encode_until(&self, end: usize, out: &mut Vec<u8>) {
        for &byte in self.decoded.get(..end).unwrap_or_default() {
            encode_byte(byte, out);
        }
    }

    /// Writes what follows the first `start` decoded bytes, percent-encoded.
    pub fn encode_from(&self, start: usize, out: &mut Vec<u8>) {
        for &byte in self.decoded.get(start..).unwrap_or_default() {
            encode_byte(byte, out);
        }
    }
}

fn encode_byte(byte: u8, out: &mut Vec<u8>) {
    if PLAIN[usize::from(byte)] {
        out.push(byte);
    } else {
        let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
        out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
    }
}

/// Characters that stand for themselves in a path (RFC 3986 §3.3: pchar and `/`).
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "byte is below 256")]
        let character = byte as u8;
        table[byte] = character.is_ascii_alphanumeric()
            || matches!(
                character,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'@'
                    | b'/'
            );
        byte += 1;
    }
    table
};

/// Decodes once; also whether `%2F` or `%5C` was there.
fn decode(raw: &[u8]) -> Result<(Bytes, bool), Refusal> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut separator = false;
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let [high, low, tail @ ..] = rest else {
            return Err(Refusal::PercentEncoding);
        };
        let (Some(high), Some(low)) = (hex(*high), hex(*low)) else {
            return Err(Refusal::PercentEncoding);
        };
        let byte = high << 4 | low;
        if byte == 0 {
            return Err(Refusal::PercentEncoding);
        }
        separator = separator || matches!(byte, b'/' | b'\\');
        decoded.push(byte);
        rest = tail;
    }
    Ok((decoded.into(), separator))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Whether there is a dot segment or an empty one (other than the last) to resolve.
fn needs_resolving(path: &[u8]) -> bool {
    memchr::memchr_iter(b'/', path).any(|slash| {
        matches!(
            path[slash + 1..],
            [b'/', ..] | [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..]
        )
    })
}

/// RFC 3986 §5.2.4, with repeated slashes merged first, as nginx does. `..` above the root is refused instead of ignored: no
/// honest client sends it, since browsers and libraries resolve dot segments themselves, so it is a probe for a server that
/// decodes or joins paths wrongly.
fn resolve(path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut resolved = Vec::with_capacity(path.len());
    let mut segments = path.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"" | b"." => {
                if last {
                    resolved.push(b'/');
                }
            }
            b".." => {
                let parent = memchr::memrchr(b'/', &resolved).ok_or(Refusal::AboveRoot)?;
                resolved.truncate(parent);
                if last {
                    resolved.push(b'/');
                }
            }
            segment => {
                resolved.push(b'/');
                resolved.extend_from_slice(segment);
            }
        }
    }
    if resolved.is_empty() {
        resolved.push(b'/');
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(raw: &str) -> Result<Path, Refusal> {
        Path::new(Bytes::copy_from_slice(raw.as_bytes()))
    }

    #[test]
    fn paths() {
        // As sent, as routed, whether it is another path.
        for (raw, expected, changed) in [
            ("/", "/", false),
            ("/a/b", "/a/b", false),
            ("/a/b/", "/a/b/", false),
            ("/a b", "/a b", false),
            ("/a%20b", "/a b", false),
            ("/%61", "/a", false),
            ("/%c3%a4", "/ä", false),
            ("/%C3%A4", "/ä", false),
            ("/a+b", "/a+b", false),
            ("/a;b=c", "/a;b=c", false),
            ("/a%3Fb", "/a?b", false),
            ("/a%23b", "/a#b", false),
            ("/a%0d%0ab", "/a\r\nb", false),
            ("/a|\"<>{}^`", "/a|\"<>{}^`", false),
            // Dot segments.
            ("/a/./b", "/a/b", true),
            ("/./a", "/a", true),
            ("/.", "/", true),
            ("/./", "/", true),
            ("/a/.", "/a/", true),
            ("/a/..", "/", true),
            ("/a/../", "/", true),
            ("/a/../b", "/b", true),
            ("/a/b/..", "/a/", true),
            ("/a/b/../", "/a/", true),
            ("/a/b/../../c", "/c", true),
            ("/a/./.././b", "/b", true),
            // No dot segments, though they have dots.
            ("/...", "/...", false),
            ("/.../a", "/.../a", false),
            ("/.a", "/.a", false),
            ("/..a", "/..a", false),
            ("/a.", "/a.", false),
            ("/a..", "/a..", false),
            ("/a../b", "/a../b", false),
            ("/..;/a", "/..;/a", false),
            ("/.%20/a", "/. /a", false),
            // Slashes.
            ("//", "/", true),
            ("///", "/", true),
            ("//a", "/a", true),
            ("//a//b//", "/a/b/", true),
            ("/a//../b", "/b", true),
            ("/a/..//b", "/b", true),
            // Encoded dots and slashes.
            ("/a/%2e%2e/b", "/b", true),
            ("/a/%2E%2E/b", "/b", true),
            ("/a/.%2e/b", "/b", true),
            ("/a/%2e./b", "/b", true),
            ("/a/%2e/b", "/a/b", true),
            ("/a/%2e", "/a/", true),
            ("/a%2fb", "/a/b", false),
            ("/a%2Fb", "/a/b", false),
            ("/a%2f..%2fb", "/b", true),
            ("/a/..%2fb", "/b", true),
            ("/a%2f%2fb", "/a/b", true),
            ("/%2f", "/", true),
            // Backslashes are bytes like any other.
            ("/a\\b", "/a\\b", false),
            ("/a\\..\\b", "/a\\..\\b", false),
            ("/..\\a", "/..\\a", false),
            ("/%5c..%5ca", "/\\..\\a", false),
            // Decoded once: what comes of it is not decoded again.
            ("/%252e%252e/", "/%2e%2e/", false),
            ("/a/%252e%252e/b", "/a/%2e%2e/b", false),
            ("/%252f", "/%2f", false),
            ("/%2500", "/%00", false),
        ] {
            let path = path(raw).unwrap_or_else(|refusal| panic!("{raw}: {refusal}"));
            assert_eq!(str::from_utf8(path.as_bytes()), Ok(expected), "{raw}");
            assert_eq!(path.changed(), changed, "{raw}");
        }
        // Overlong UTF-8 of `.` and `/` (CVE-2000-0884) is no UTF-8, and no dot or slash.
        let overlong = path("/%c0%ae%c0%ae%c0%af").expect("bytes like others");
        assert_eq!(overlong.as_bytes(), b"/\xc0\xae\xc0\xae\xc0\xaf");
    }

    #[test]
    fn refused_paths() {
        for raw in [
            "/..",
            "/../",
            "/../etc/passwd",
            "/a/../..",
            "/a/../../etc",
            "/./..",
            "//..",
            "//../a",
            "/a//../../b",
            "/%2e%2e",
            "/%2e%2e/etc",
            "/.%2e/etc",
            "/%2e./etc",
            "/%2E%2E/etc",
            "/%2e%2e%2fetc",
            "/..%2fetc",
            "/%2f..",
            "/a%2f..%2f..%2fetc",
            "/a/..%2f..%2fetc",
        ] {
            assert_eq!(path(raw).err(), Some(Refusal::AboveRoot), "{raw}");
        }
        for raw in [
            "/%",
            "/%2",
            "/%zz",
            "/%2g",
            "/%g2",
            "/a%",
            "/%%",
            "/%25%",
            "/%u002e",
            "/% 2e",
            "/%+1",
            "/%00",
            "/a%00.png",
            "/%00/..",
        ] {
            assert_eq!(path(raw).err(), Some(Refusal::PercentEncoding), "{raw}");
        }
    }

    #[test]
    fn encoded_separators_are_remembered() {
        for (raw, separator) in [
            ("/a/b", false),
            ("/a\\b", false),
            ("/a%20b", false),
            ("/a%252fb", false),
            ("/a%2fb", true),
            ("/a%2Fb", true),
            ("/a%5cb", true),
            ("/a%5Cb", true),
            ("/a%2f../b", true),
        ] {
            assert_eq!(
                path(raw).expect("good").encoded_separator(),
                separator,
                "{raw}"
            );
        }
    }

    #[test]
    fn what_needs_no_change_is_not_copied() {
        let raw = Bytes::from_static(b"/a/b.c/d");
        assert_eq!(
            Path::new(raw.clone()).expect("good").decoded.as_ptr(),
            raw.as_ptr()
        );
    }

    #[test]
    fn encoded_again() {
        for (raw, again) in [
            ("/a%20b", "/a%20b"),
            ("/%c3%a4", "/%C3%A4"),
            ("/%7euser", "/~user"),
            ("/a/../b", "/b"),
            ("/%2541", "/%2541"),
            ("/a%3fb%23c", "/a%3Fb%23c"),
            ("/a%0d%0ab", "/a%0D%0Ab"),
            ("/a:b@c;d=e,f!$&'()*+", "/a:b@c;d=e,f!$&'()*+"),
            ("/a\\b", "/a%5Cb"),
        ] {
            let mut out = Vec::new();
            path(raw).expect("good").encode(&mut out);
            assert_eq!(str::from_utf8(&out), Ok(again), "{raw}");
        }
    }

    #[test]
    fn hosts() {
        for (authority, expected) in [
            ("a", Ok(("a", None))),
            ("Example.ORG", Ok(("example.org", None))),
            ("example.org:8080", Ok(("example.org", Some(8080)))),
            ("example.org:", Ok(("example.org", None))),
            ("example.org.", Ok(("example.org.", None))),
            ("my_host-1", Ok(("my_host-1", None))),
            ("127.0.0.1:1", Ok(("127.0.0.1", Some(1)))),
            ("a:65535", Ok(("a", Some(65535)))),
            ("a:080", Ok(("a", Some(80)))),
            ("[::1]", Ok(("[::1]", None))),
            ("[2001:DB8::1]:443", Ok(("[2001:db8::1]", Some(443)))),
            ("[::ffff:192.0.2.1]", Ok(("[::ffff:192.0.2.1]", None))),
            ("a:65536", Err(Refusal::Host)),
            ("a:000080", Err(Refusal::Host)),
            ("a:-1", Err(Refusal::Host)),
            ("a:+1", Err(Refusal::Host)),
            ("a:b", Err(Refusal::Host)),
            ("a:1:2", Err(Refusal::Host)),
            ("a:1 ", Err(Refusal::Host)),
            ("", Err(Refusal::Host)),
            (":80", Err(Refusal::Host)),
            ("a b", Err(Refusal::Host)),
            ("a/b", Err(Refusal::Host)),
            ("a\\b", Err(Refusal::Host)),
            ("a?b", Err(Refusal::Host)),
            ("a,b", Err(Refusal::Host)),
            ("a@b", Err(Refusal::Host)),
            ("u:p@a", Err(Refusal::Host)),
            ("a%2eb", Err(Refusal::Host)),
            ("*", Err(Refusal::Host)),
            ("<script>", Err(Refusal::Host)),
            ("\u{e4}.de", Err(Refusal::Host)),
            ("::1", Err(Refusal::Host)),
            ("[::1", Err(Refusal::Host)),
            ("[]", Err(Refusal::Host)),
            ("[::1]a", Err(Refusal::Host)),
            ("[::1]]", Err(Refusal::Host)),
            ("[127.0.0.1]", Err(Refusal::Host)),
            ("[v1.a]", Err(Refusal::Host)),
            ("[fe80::1%25eth0]", Err(Refusal::Host)),
            ("[::1]:", Ok(("[::1]", None))),
        ] {
            let found = host_and_port(&Bytes::copy_from_slice(authority.as_bytes()));
            let expected = expected.map(|(host, port)| (Bytes::from_static(host.as_bytes()), port));
            assert_eq!(found, expected, "{authority}");
        }
    }

    fn target(line: &str) -> Target {
        let limits = crate::head::Limits {
            line: 1024,
            head: 1024,
            fields: 10,
        };
        let head = format!("GET {line} HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = RequestHead::parse(&head.into(), &limits).expect("a good head");
        Target::of(&head).expect("a good target")
    }

    #[test]
    fn what_is_passed_on_is_what_was_sent_wherever_that_is_what_was_routed() {
        for (sent, start, passed, location) in [
            ("/", 0, "/", "/"),
            ("/a%2Fb?c", 0, "/a%2Fb", "/a%2Fb"),
            ("/a%2fb", 2, "%2fb", "%2fb"),
            ("/%61/b", 2, "/b", "/b"),
            ("/a/b?", 2, "/b", "/b"),
            ("/a", 2, "", ""),
            ("/a/../b%2Fc", 0, "/b/c", "/b/c"),
            ("//b", 0, "/b", "/b"),
            ("http://a/b%2Fc", 0, "/b/c", "/b/c"),
            ("/\\b", 0, "/\\b", "/%5Cb"),
            ("/a|b", 0, "/a|b", "/a%7Cb"),
        ] {
            let (mut out, target) = (Vec::new(), target(sent));
            target.write_path(start, &mut out);
            assert_eq!(out, passed.as_bytes(), "{sent}");
            out.clear();
            target.write_location(start, &mut out);
            assert_eq!(out, location.as_bytes(), "{sent}");
        }
        let mut out = Vec::new();
        target("/a?").write_query(&mut out);
        target("/a").write_query(&mut out);
        target("/a?b=c?d").write_query(&mut out);
        assert_eq!(out, b"??b=c?d");
    }

    /// Paths of what traversals are made of.
    fn suspicious() -> impl Strategy<Value = String> {
        let part = proptest::sample::select(vec![
            "/", ".", "..", "%2e", "%2F", "%5c", "\\", "a", "%61", "%25", "%00", "%", ";",
        ]);
        proptest::collection::vec(part, 0..12).prop_map(|parts| format!("/{}", parts.concat()))
    }

    proptest! {
        #[test]
        fn a_routed_path_has_nothing_left_to_resolve(raw in suspicious()) {
            if let Ok(path) = path(&raw) {
                prop_assert_eq!(path.as_bytes()[0], b'/');
                prop_assert!(!path.as_bytes().contains(&0));
                prop_assert!(!needs_resolving(path.as_bytes()));
            }
        }

        #[test]
        fn whoever_decodes_what_is_passed_on_gets_the_same_path(raw in suspicious()) {
            if let Ok(first) = path(&raw) {
                let mut encoded = Vec::new();
                first.encode(&mut encoded);
                let second = Path::new(encoded.into()).expect("what we write is good");
                prop_assert_eq!(first.as_bytes(), second.as_bytes());
                prop_assert!(!second.changed());
                if !first.changed() {
                    prop_assert_eq!(first.as_bytes(), &decode(raw.as_bytes()).expect("it was good").0[..]);
                }
            }
        }

        #[test]
        fn random_bytes_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..60), host in proptest::collection::vec(any::<u8>(), 0..30)) {
            let raw = [&b"/"[..], &raw].concat();
            let _ = Path::new(raw.into());
            let _ = host_and_port(&host.into());
        }
    }
}
