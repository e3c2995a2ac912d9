//! Addresses to listen on, as the configuration writes them.
//!
//! Names are not looked up: what a server listens on must not depend on a resolver. `localhost` is the one exception,
//! and means 127.0.0.1.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{error::Mistake, site::Listen};

impl FromStr for Listen {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(text, path);
        }
        if let Some(port) = text.strip_prefix(':').filter(|port| is_number(port)) {
            return Ok(Self::Any {
                port: parse_port(port)?,
            });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Address(address));
        }
        let Some((host, port)) = text.rsplit_once(':').filter(|(_, port)| is_number(port)) else {
            return Err(not_an_address(text, suggest(text)));
        };
        let port = parse_port(port)?;
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(Self::Address(SocketAddr::new(
                Ipv4Addr::LOCALHOST.into(),
                port,
            )));
        }
        Err(not_an_address(text, suggest_for_host(host, port)))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any { port } => write!(f, ":{port}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listen {
    /// Whether the two cannot both be bound, because one takes what the other asks for.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(two)) => one == two,
            (Self::Unix(_), _) | (_, Self::Unix(_)) => false,
            // Port 0 is another port each time.
            _ if self.port() != other.port() || self.port() == Some(0) => false,
            (Self::Address(one), Self::Address(two)) => addresses_overlap(one.ip(), two.ip()),
            (Self::Any { .. }, _) | (_, Self::Any { .. }) => true,
        }
    }

    /// The port as written, unless it is a Unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.address().map(|address| address.port())
    }

    /// The same address with a relative socket path taken from `folder`.
    #[must_use]
    pub(crate) fn resolved(self, resolve: impl FnOnce(&Path) -> PathBuf) -> Self {
        match self {
            Self::Unix(path) => Self::Unix(resolve(&path)),
            other => other,
        }
    }
}

fn addresses_overlap(one: IpAddr, two: IpAddr) -> bool {
    one == two || (one.is_ipv4() == two.is_ipv4() && (one.is_unspecified() || two.is_unspecified()))
}

fn unix(text: &str, path: &str) -> Result<Listen, Mistake> {
    if path.is_empty() {
        let hint = "write the socket's path, such as `\"unix:/run/stack.sock\"`";
        return Err(Mistake::new(format!("{text:?} has no path")).hint(hint));
    }
    if path.contains('\0') {
        return Err(Mistake::new("a socket's path cannot contain NUL"));
    }
    Ok(Listen::Unix(PathBuf::from(path)))
}

/// The longest path that fits `sockaddr_un.sun_path` with its closing NUL (unix(7)).
pub(crate) const LONGEST_SOCKET_PATH: usize = 107;

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_port(text: &str) -> Result<u16, Mistake> {
    text.parse().map_err(|_| {
        Mistake::new(format!("{text} is not a port"))
            .hint("ports go from 1 to 65535; 0 lets the system choose one")
    })
}

fn not_an_address(text: &str, suggestion: Option<String>) -> Mistake {
    let hint = match suggestion {
        Some(meant) => format!("did you mean `\"{meant}\"`?"),
        None => "write `\":8080\"`, `\"127.0.0.1:8080\"`, `\"[::1]:8080\"` or `\"unix:/run/stack.sock\"`".to_owned(),
    };
    Mistake::new(format!("{text:?} is not an address to listen on")).hint(hint)
}

fn suggest(text: &str) -> Option<String> {
    if is_number(text) && text.parse::<u16>().is_ok() {
        return Some(format!(":{text}"));
    }
    if let Some(rest) = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
    {
        let authority = rest.split('/').next().unwrap_or_default();
        return authority
            .parse::<Listen>()
            .is_ok()
            .then(|| authority.to_owned());
    }
    if text.starts_with('/') {
        return Some(format!("unix:{text}"));
    }
    let bare = text.trim_start_matches('[').trim_end_matches([']', ':']);
    match bare.parse::<IpAddr>() {
        Ok(address) => Some(SocketAddr::new(address, 8080).to_string()),
        Err(_) if bare.eq_ignore_ascii_case("localhost") => Some("127.0.0.1:8080".to_owned()),
        Err(_) => None,
    }
}

fn suggest_for_host(host: &str, port: u16) -> Option<String> {
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Some(format!("[{address}]:{port}"));
    }
    // Any other name stands for an address that only the user knows; `*` and a name of this machine mean all of them.
    let rest = host.rsplit_once("//").map_or(host, |(_, rest)| rest);
    if rest != host {
        return suggest(&format!("http://{rest}:{port}"));
    }
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'*');
    host.bytes().all(name).then(|| format!(":{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Listen {
        text.parse()
            .unwrap_or_else(|mistake| panic!("{text}: {mistake}"))
    }

    #[test]
    fn addresses() {
        for (text, expected, shown) in [
            (":80", Listen::Any { port: 80 }, ":80"),
            (":0", Listen::Any { port: 0 }, ":0"),
            (
                "127.0.0.1:8080",
                Listen::Address(([127, 0, 0, 1], 8080).into()),
                "127.0.0.1:8080",
            ),
            (
                "[::1]:8080",
                Listen::Address((Ipv6Addr::LOCALHOST, 8080).into()),
                "[::1]:8080",
            ),
            (
                "localhost:8080",
                Listen::Address(([127, 0, 0, 1], 8080).into()),
                "127.0.0.1:8080",
            ),
            (
                "unix:/run/x.sock",
                Listen::Unix("/run/x.sock".into()),
                "unix:/run/x.sock",
            ),
            ("unix:x.sock", Listen::Unix("x.sock".into()), "unix:x.sock"),
        ] {
            assert_eq!(listen(text), expected);
            assert_eq!(expected.to_string(), shown);
        }
    }

    #[test]
    fn what_is_not_an_address_gets_a_hint() {
        for (text, hint) in [
            ("8080", "did you mean `\":8080\"`?"),
            ("*:8080", "did you mean `\":8080\"`?"),
            ("example.org:80", "did you mean `\":80\"`?"),
            ("127.0.0.1", "did you mean `\"127.0.0.1:8080\"`?"),
            ("localhost", "did you mean `\"127.0.0.1:8080\"`?"),
            ("::1:8080", "did you mean `\"[::1]:8080\"`?"),
            ("[::1]", "did you mean `\"[::1]:8080\"`?"),
            ("http://127.0.0.1:80/", "did you mean `\"127.0.0.1:80\"`?"),
            ("http://127.0.0.1:80", "did you mean `\"127.0.0.1:80\"`?"),
            ("/run/x.sock", "did you mean `\"unix:/run/x.sock\"`?"),
            (
                ":70000",
                "ports go from 1 to 65535; 0 lets the system choose one",
            ),
            (
                "127.0.0.1:70000",
                "ports go from 1 to 65535; 0 lets the system choose one",
            ),
            (
                "unix:",
                "write the socket's path, such as `\"unix:/run/stack.sock\"`",
            ),
        ] {
            let mistake = text.parse::<Listen>().expect_err(text);
            assert_eq!(mistake.hint.as_deref(), Some(hint), "{text}");
        }
        for text in ["", ":", ":http", "a b:80", "127.0.0.1:http"] {
            let hint = text
                .parse::<Listen>()
                .expect_err(text)
                .hint
                .expect("a hint");
            assert!(hint.starts_with("write `\":8080\"`"), "{text}: {hint}");
        }
    }

    #[test]
    fn overlap() {
        for (one, two, expected) in [
            (":80", ":80", true),
            (":80", ":81", false),
            (":0", ":0", false),
            (":80", "127.0.0.1:80", true),
            ("[::1]:80", ":80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", ":80", false),
        ] {
            assert_eq!(listen(one).overlaps(&listen(two)), expected, "{one} {two}");
        }
    }
}
