//! The head of an HTTP/2 request (RFC 9113 §8.3): fields and pseudo-fields, made into the head that HTTP/1.1 would have sent,
//! so that one set of rules judges both.
//!
//! What HTTP/1.1 could not carry is refused, not repaired: it is how requests are smuggled past whoever translates.
//!
//! A tunnel is asked for by CONNECT with `:protocol` (RFC 8441 §4), which in HTTP/1.1 is GET with `Upgrade` and `Connection`. Those two
//! no other HTTP/2 request can have, so whoever finds `Upgrade` in one knows what it is.

use bytes::Bytes;

use crate::{
    field::{Collected, check_http2, is_token},
    head::{Limits, Method, RequestHead, Version},
    refusal::Refusal,
};

/// What a field costs beside its text (RFC 9113 §6.5.2, `SETTINGS_MAX_HEADER_LIST_SIZE`).
const OVERHEAD: usize = 32;

/// Takes the fields of one request, one by one, and keeps no more of them than the limits allow.
#[derive(Debug)]
pub struct Collector {
    limits: Limits,
    method: Option<Method>,
    path: Option<Bytes>,
    scheme: bool,
    authority: Option<Bytes>,
    /// Whether tunnels have been offered to the client.
    tunnels: bool,
    protocol: Option<Bytes>,
    /// Host as a field of its own.
    host: Option<Bytes>,
    /// The crumbs that browsers make of their cookies, as one value again (RFC 9113 §8.2.3): an app would read only one.
    cookie: Vec<u8>,
    fields: Collected,
    size: usize,
    count: usize,
    refusal: Option<Refusal>,
}

impl Collector {
    /// None has come yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            tunnels: false,
            limits,
            method: None,
            path: None,
            scheme: false,
            authority: None,
            protocol: None,
            host: None,
            cookie: Vec::new(),
            fields: Collected::default(),
            size: 0,
            count: 0,
            refusal: None,
        }
    }

    /// Whether the client has been told that it may ask for tunnels (`SETTINGS_ENABLE_CONNECT_PROTOCOL`, RFC 8441 §3).
    #[must_use]
    pub fn with_tunnels(self, tunnels: bool) -> Self {
        Self { tunnels, ..self }
    }

    /// The next field of the block. After the first rule that is broken nothing is kept any more.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        if self.refusal.is_some() {
            return;
        }
        self.size += name.len() + value.len() + OVERHEAD;
        if self.size > self.limits.head {
            self.refusal = Some(Refusal::HeadTooLong);
            return;
        }
        let taken = match name {
            [b':', name @ ..] => self.pseudo(name, value),
            _ => self.plain(name, value),
        };
        self.refusal = taken.err();
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        // One that comes behind other fields may have been meant for somebody else (RFC 9113 §8.3).
        if self.count > 0 || value.is_empty() {
            return Err(Refusal::PseudoField);
        }
        let twice = match name {
            b"method" => self.method.replace(Method::copied(value)?).is_some(),
            b"path" => self.path.replace(Bytes::copy_from_slice(value)).is_some(),
            b"authority" => self
                .authority
                .replace(Bytes::copy_from_slice(value))
                .is_some(),
            b"scheme" if matches!(value, b"https" | b"http") => {
                std::mem::replace(&mut self.scheme, true)
            }
            // RFC 8441 §4: only of a server that has said that it knows it.
            b"protocol" if self.tunnels && is_token(value) => self
                .protocol
                .replace(Bytes::copy_from_slice(value))
                .is_some(),
            _ => true,
        };
        if twice {
            Err(Refusal::PseudoField)
        } else {
            Ok(())
        }
    }

    fn plain(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        // Each crumb of a cookie counts: HPACK makes thousands of them out of a few bytes (CVE-2026-49975).
        self.count += 1;
        if self.count > self.limits.fields {
            return Err(Refusal::TooManyFields);
        }
        check_http2(name, value)?;
        match name {
            b"host" => {
                if self.host.replace(Bytes::copy_from_slice(value)).is_some() {
                    return Err(Refusal::RepeatedHost);
                }
            }
            b"cookie" => {
                if !self.cookie.is_empty() {
                    self.cookie.extend_from_slice(b"; ");
                }
                self.cookie.extend_from_slice(value);
            }
            _ => self.fields.push(name, value),
        }
        Ok(())
    }

    /// The block has ended: the head of a request.
    ///
    /// # Errors
    /// The first rule that it broke.
    pub fn finish(mut self) -> Result<RequestHead, Refusal> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let mut method = self.method.take().ok_or(Refusal::PseudoField)?;
        let target = self.target(&method)?;
        if let Some(protocol) = self.protocol.take() {
            method = Method::Get;
            self.fields.push(b"connection", b"upgrade");
            self.fields.push(b"upgrade", &protocol);
        }
        let line = method.as_str().len() + target.len() + " HTTP/1.1\r\n ".len();
        if line > self.limits.line {
            return Err(Refusal::LineTooLong);
        }
        // `:authority`, or Host where there is none; where there are both, they must agree (RFC 9113 §8.3.1).
        let host = match (self.authority, self.host) {
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(&host) => {
                return Err(Refusal::AuthorityMismatch);
            }
            (authority, host) => authority.or(host),
        };
        if let Some(host) = host {
            // It has not been looked at as a field yet.
            check_http2(b"host", &host).map_err(|_| Refusal::Host)?;
            self.fields.push(b"host", &host);
        }
        if !self.cookie.is_empty() {
            self.fields.push(b"cookie", &self.cookie);
        }
        Ok(RequestHead {
            method,
            target,
            version: Version::Http2,
            fields: self.fields.finish(),
        })
    }

    /// RFC 9113 §8.3.1: `:scheme` and `:path` of every request but CONNECT, which has neither (§8.5), unless it names a protocol
    /// (RFC 8441 §4).
    fn target(&mut self, method: &Method) -> Result<Bytes, Refusal> {
        if *method != Method::Connect && self.protocol.is_some() {
            return Err(Refusal::PseudoField);
        }
        if *method == Method::Connect && self.protocol.is_none() {
            return match (&self.authority, &self.path, self.scheme) {
                (Some(authority), None, false) => Ok(authority.clone()),
                _ => Err(Refusal::PseudoField),
            };
        }
        let path = self.path.take().filter(|_| self.scheme);
        let path = path.ok_or(Refusal::PseudoField)?;
        // An absolute form would name a second authority.
        match &path[..] {
            // `*` is of OPTIONS alone, which whoever admits the request knows.
            b"*" if self.protocol.is_none() => Ok(path),
            [b'/', ..] => Ok(path),
            _ => Err(Refusal::Target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        line: 40,
        head: 600,
        fields: 4,
    };

    fn collect(lines: &str) -> Result<RequestHead, Refusal> {
        read(lines, Collector::new(LIMITS))
    }

    fn read(lines: &str, mut collector: Collector) -> Result<RequestHead, Refusal> {
        for line in lines.split('|').filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once('=').expect("name=value");
            collector.field(name.as_bytes(), value.as_bytes());
        }
        collector.finish()
    }

    #[test]
    fn what_is_a_head_and_what_is_not() {
        use Refusal::{
            AuthorityMismatch, ConnectionField, FieldName, FieldValue, HeadTooLong, Host,
            LineTooLong, PseudoField, RepeatedHost, Target, TooManyFields,
        };
        let get = ":method=GET|:scheme=https|:path=/|:authority=a";
        let long = format!("{get}|x={}", "y".repeat(500));
        let line = format!(
            ":method=GET|:scheme=https|:authority=a|:path=/{}",
            "x".repeat(30)
        );
        for (lines, expected) in [
            (get, None),
            (":method=GET|:scheme=http|:path=/|host=a", None),
            (":method=OPTIONS|:scheme=https|:path=*|:authority=a", None),
            (":method=CONNECT|:authority=a:1", None),
            ("", Some(PseudoField)),
            (":method=GET|:scheme=https|:authority=a", Some(PseudoField)),
            (":method=GET|:path=/|:authority=a", Some(PseudoField)),
            (":scheme=https|:path=/|:authority=a", Some(PseudoField)),
            (":method=GET|:scheme=ftp|:path=/", Some(PseudoField)),
            (
                ":method=GET|:scheme=https|:path=|:authority=a",
                Some(PseudoField),
            ),
            (&format!(":method=GET|{get}"), Some(PseudoField)),
            (&format!("{get}|:path=/b"), Some(PseudoField)),
            (&format!("{get}|:authority=a"), Some(PseudoField)),
            (&format!("{get}|:status=200"), Some(PseudoField)),
            (&format!("{get}|:x=1"), Some(PseudoField)),
            (&format!("{get}|:protocol=websocket"), Some(PseudoField)),
            (":method=GET|x=1|:scheme=https|:path=/", Some(PseudoField)),
            (":method=CONNECT|:authority=a:1|:path=/", Some(PseudoField)),
            (":method=CONNECT", Some(PseudoField)),
            (":method=G T|:scheme=https|:path=/", Some(Refusal::Method)),
            (
                ":method=GET|:scheme=https|:path=http://a/|:authority=a",
                Some(Target),
            ),
            (
                ":method=GET|:scheme=https|:path=a|:authority=a",
                Some(Target),
            ),
            (&format!("{get}|host=b"), Some(AuthorityMismatch)),
            (&format!("{get}|host=A"), None),
            (
                ":method=GET|:scheme=https|:path=/|host=a|host=a",
                Some(RepeatedHost),
            ),
            (
                ":method=GET|:scheme=https|:path=/|:authority=a\r\nx: y",
                Some(Host),
            ),
            (&format!("{get}|X=1"), Some(FieldName)),
            (&format!("{get}|x=1\r\ny: 2"), Some(FieldValue)),
            (&format!("{get}|connection=close"), Some(ConnectionField)),
            (
                &format!("{get}|transfer-encoding=chunked"),
                Some(ConnectionField),
            ),
            (&format!("{get}|a=1|b=2|c=3|d=4"), None),
            (&format!("{get}|a=1|b=2|c=3|d=4|e=5"), Some(TooManyFields)),
            (
                &format!("{get}|cookie=1|cookie=2|cookie=3|cookie=4|cookie=5"),
                Some(TooManyFields),
            ),
            (&long, Some(HeadTooLong)),
            (&line, Some(LineTooLong)),
        ] {
            assert_eq!(collect(lines).err(), expected, "{lines:?}");
        }
    }

    #[test]
    fn cookies_are_whole_and_the_host_is_a_field() {
        let head = collect(
            ":method=GET|:scheme=https|:path=/x?y|:authority=a:1|cookie=a=1|x=2|cookie=b=2",
        )
        .expect("a head");
        assert_eq!(head.target, "/x?y");
        assert_eq!(head.fields.get("host"), Some(&b"a:1"[..]));
        assert_eq!(head.fields.get("cookie"), Some(&b"a=1; b=2"[..]));
        assert_eq!(head.fields.get("x"), Some(&b"2"[..]));
    }

    /// RFC 8441 §4.
    #[test]
    fn a_tunnel_is_asked_for_as_http1_would_have_it() {
        let offered = |lines: &str| read(lines, Collector::new(LIMITS).with_tunnels(true));
        let connect = ":method=CONNECT|:protocol=websocket|:scheme=https|:authority=a";
        let head = offered(&format!("{connect}|:path=/chat?b|x=1")).expect("a head");
        assert_eq!(
            (head.method, &head.target[..]),
            (Method::Get, &b"/chat?b"[..])
        );
        assert_eq!(head.fields.get("upgrade"), Some(&b"websocket"[..]));
        assert_eq!(head.fields.get("connection"), Some(&b"upgrade"[..]));
        assert_eq!(head.fields.get("host"), Some(&b"a"[..]));
        for (lines, expected) in [
            (connect.to_owned(), Refusal::PseudoField),
            (format!("{connect}|:path=*"), Refusal::Target),
            (
                format!("{connect}|:path=/|:protocol=a"),
                Refusal::PseudoField,
            ),
            (
                format!("{connect}|:path=/|upgrade=websocket"),
                Refusal::ConnectionField,
            ),
            (
                ":method=CONNECT|:protocol=websocket|:path=/|:authority=a".to_owned(),
                Refusal::PseudoField,
            ),
            (
                ":method=CONNECT|:protocol=a b|:scheme=https|:path=/|:authority=a".to_owned(),
                Refusal::PseudoField,
            ),
            (
                ":method=GET|:protocol=websocket|:scheme=https|:path=/|:authority=a".to_owned(),
                Refusal::PseudoField,
            ),
        ] {
            assert_eq!(offered(&lines).err(), Some(expected), "{lines:?}");
        }
        assert_eq!(
            collect(&format!("{connect}|:path=/")).err(),
            Some(Refusal::PseudoField),
            "nobody has offered it"
        );
    }
}
