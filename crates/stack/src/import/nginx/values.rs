//! nginx's sizes, times, rates and addresses, as the file of ours writes them.

/// `16m` in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, factor) = match text.chars().last()?.to_ascii_lowercase() {
        'k' => (&text[..text.len() - 1], 1 << 10),
        'm' => (&text[..text.len() - 1], 1 << 20),
        'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Bytes in the largest unit that is exact: `"16MiB"`.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units
        .into_iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("\"{}{name}\"", bytes / unit),
        None => format!("\"{bytes}\""),
    }
}

/// `1h 30m`, `30s`, `60`, `500ms` as one number and one unit: `"90m"`.
pub(super) fn time(text: &str) -> Option<String> {
    let mut millis: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        const DAY: u64 = 86_400_000;
        let units = [
            ("ms", 1),
            ("s", 1000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", DAY),
            ("w", 7 * DAY),
            ("M", 30 * DAY),
            ("y", 365 * DAY),
        ];
        let unit = units.iter().find(|(name, _)| after.starts_with(name));
        let (length, factor) = unit.map_or((0, 1000), |(name, factor)| (name.len(), *factor));
        if unit.is_none() && !after.is_empty() && !after.starts_with(' ') {
            return None;
        }
        millis = millis.checked_add(number.checked_mul(factor)?)?;
        rest = after[length..].trim_start();
    }
    const UNITS: [(u64, &str); 6] = [
        (365 * 86_400_000, "y"),
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
        (1, "ms"),
    ];
    let (unit, name) = UNITS
        .into_iter()
        .find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit))
        .unwrap_or((1000, "s"));
    Some(format!("\"{}{name}\"", millis / unit))
}

/// `rate=10r/s` as `10/s`.
pub(super) fn rate(text: &str) -> Option<String> {
    let (number, per) = text.split_once("r/")?;
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    matches!(per, "s" | "m").then(|| format!("{number}/{per}"))
}

/// Where a `listen` listens, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listen {
    /// As `[server] http` has it.
    pub(super) at: String,
    pub(super) tls: bool,
    pub(super) proxy_protocol: bool,
    pub(super) is_default: bool,
    /// HTTP/3, which is not spoken.
    pub(super) quic: bool,
}

/// `listen [::]:443 ssl http2 default_server`. `None` for a name of a host, which would have to be looked up.
pub(super) fn listen(words: &[String]) -> Option<Listen> {
    let (first, options) = words.split_first()?;
    let has = |name: &str| options.iter().any(|option| option == name);
    let any = |port: &str| port.parse::<u16>().ok().map(|port| format!(":{port}"));
    let at = if let Some(path) = first.strip_prefix("unix:") {
        path.starts_with('/').then(|| format!("unix:{path}"))
    } else if let Some(port) = first
        .strip_prefix("*:")
        .or_else(|| first.strip_prefix("0.0.0.0:"))
        .or_else(|| first.strip_prefix("[::]:"))
    {
        any(port)
    } else if first.bytes().all(|byte| byte.is_ascii_digit()) {
        any(first)
    } else if first.parse::<std::net::SocketAddr>().is_ok() {
        Some(first.clone())
    } else {
        let bare = first.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<std::net::IpAddr>() {
            Ok(address) => Some(std::net::SocketAddr::new(address, 80).to_string()),
            Err(_) if first == "*" => Some(":80".to_owned()),
            Err(_) => None,
        }
    }?;
    Some(Listen {
        at,
        tls: has("ssl"),
        proxy_protocol: has("proxy_protocol"),
        is_default: has("default_server") || has("default"),
        quic: has("quic"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_in_our_units() {
        for (theirs, ours) in [
            ("16m", "16MiB"),
            ("1g", "1GiB"),
            ("1500k", "1500KiB"),
            ("1000", "1000"),
            ("2048", "2KiB"),
            ("10M", "10MiB"),
            ("0", "0"),
        ] {
            let shown = size(theirs).map(show_size);
            assert_eq!(shown, Some(format!("\"{ours}\"")), "{theirs}");
        }
        for wrong in ["", "m", "1.5m", "-1", "99999999999999999g"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        for (theirs, ours) in [
            ("60", "1m"),
            ("65s", "65s"),
            ("1h 30m", "90m"),
            ("30d", "30d"),
            ("1y", "1y"),
            ("500ms", "500ms"),
            ("1M", "30d"),
            ("2w", "14d"),
            ("0", "0s"),
        ] {
            assert_eq!(time(theirs), Some(format!("\"{ours}\"")), "{theirs}");
        }
        for wrong in ["", "s", "1x", "max", "off", "1h30", "99999999999999999999y"] {
            assert_eq!(
                time(wrong),
                if wrong == "1h30" {
                    Some("\"3630s\"".into())
                } else {
                    None
                },
                "{wrong}"
            );
        }
        assert_eq!(rate("10r/s").as_deref(), Some("10/s"));
        assert_eq!(
            (rate("0r/s"), rate("10r/h"), rate("10")),
            (None, None, None)
        );
    }

    #[test]
    fn listeners_are_where_they_are() {
        let of = |text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            listen(&words)
        };
        for (theirs, at, tls) in [
            ("80", ":80", false),
            ("[::]:80", ":80", false),
            ("*:8080", ":8080", false),
            ("443 ssl http2", ":443", true),
            ("[::]:443 ssl ipv6only=on", ":443", true),
            ("127.0.0.1:81 default_server", "127.0.0.1:81", false),
            ("127.0.0.1", "127.0.0.1:80", false),
            ("[::1]", "[::1]:80", false),
            ("unix:/run/x.sock", "unix:/run/x.sock", false),
        ] {
            let found = of(theirs).expect(theirs);
            assert_eq!((found.at.as_str(), found.tls), (at, tls), "{theirs}");
        }
        assert!(of("80 default_server").expect("right").is_default);
        for wrong in ["example.org:80", "99999", "unix:relative", ""] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
