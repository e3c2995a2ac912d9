//! `[acme]`, and whether the authority that it names can certify the hosts of the sites that want it to.
//!
//! What is refused here no authority does, or not the one that is named: an order for it would fail each time, and count
//! against its limits.

use std::net::IpAddr;

use super::{Context, keys};
use crate::{
    defaults,
    error::{Mistake, Problem, Span},
    site::{Acme, Eab, HostPattern, Tls, VirtualHost},
    walk::{Table, Value},
};

/// Two directories that have a name; all others are URLs.
const NAMED: [(&str, &str); 2] = [
    ("letsencrypt", defaults::ACME_DIRECTORY),
    ("letsencrypt-staging", defaults::ACME_STAGING),
];

/// Most names of one certificate (Let's Encrypt, and others likewise).
const NAMES_MAX: usize = 100;

/// The profile of Let's Encrypt in which addresses can be certified.
const SHORT_LIVED: &str = "shortlived";

/// Endings of names that nobody on the internet can own (RFC 2606, RFC 6761, RFC 6762, RFC 8375, RFC 9476; `internal` by
/// ICANN).
const PRIVATE_ENDINGS: [&str; 10] = [
    "alt",
    "example",
    "home.arpa",
    "internal",
    "invalid",
    "lan",
    "local",
    "localhost",
    "onion",
    "test",
];

const EXAMPLE: &str = "a table `[acme]`";

/// The table, if the file has it. Sites that want certificates and cannot have them are noted.
pub(super) fn read(context: &Context, root: &Table<'_>, hosts: &[VirtualHost]) -> Option<Acme> {
    let value = root.get("acme");
    let acme = value.and_then(|value| table(context, &value));
    let wanting = || hosts.iter().filter(|host| *host.tls == Tls::Acme);
    match (value, &acme) {
        (None, _) => {
            if let Some(host) = wanting().next() {
                let message = "certificates by ACME need a table `[acme]`, by which you agree to the authority's terms";
                let hint = "add `[acme]` and below it `email = \"you@example.org\"`, to which it may write";
                root.notes
                    .missing(Problem::new(host.tls.span, message).hint(hint));
            }
        }
        (Some(_), Some(acme)) => {
            for problem in wanting().flat_map(|host| check(acme, host)) {
                root.notes.wrong(problem);
            }
        }
        (Some(_), None) => {}
    }
    acme
}

fn table(context: &Context, value: &Value<'_>) -> Option<Acme> {
    let table = value.table(&keys::ACME, EXAMPLE)?;
    let path = |key: &str| {
        let value = table.get(key)?;
        value.parsed("a path in quotes", |text| context.folder.parse(text))
    };
    let email = table.get("email").and_then(|value| {
        value.parsed("an address such as `\"you@example.org\"`", |text| {
            email(text)
        })
    });
    let directory = table
        .get("directory")
        .and_then(|value| value.parsed(DIRECTORY, directory));
    let profile = table.get("profile").and_then(|value| {
        value.parsed("a name such as `\"shortlived\"`", |text| {
            match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
                true => Ok(text.to_owned()),
                false => Err(Mistake::new(format!("{text:?} is no name of a profile"))),
            }
        })
    });
    Some(Acme {
        directory: directory.map_or_else(
            || defaults::ACME_DIRECTORY.to_owned(),
            |directory| directory.value,
        ),
        email: email.map(|email| email.value),
        profile: profile.map(|profile| profile.value),
        authorities: path("ca"),
        eab: table.get("eab").and_then(|value| eab(context, &value)),
        state: path("state"),
    })
}

fn eab(context: &Context, value: &Value<'_>) -> Option<Eab> {
    let wanted = "a table such as `{ key_id = \"kid-1\", mac_key = \"eab.key\" }`";
    let table = value.table(&keys::EAB, wanted)?;
    let key_id = table.required("key_id", "key_id = \"kid-1\"");
    let mac_key = table.required("mac_key", "mac_key = \"eab.key\"");
    let key_id = key_id.and_then(|value| {
        value.parsed("a text in quotes", |text| match text.is_empty() {
            true => Err(Mistake::new("the key has no name")
                .hint("the authority says it where it gives you the key")),
            false => Ok(text.to_owned()),
        })
    });
    let mac_key = mac_key.and_then(|value| {
        value.parsed("the path of a file in quotes", |text| {
            context.folder.parse(text)
        })
    });
    Some(Eab {
        key_id: key_id?.value,
        mac_key: mac_key?,
    })
}

const DIRECTORY: &str = "`\"letsencrypt\"`, `\"letsencrypt-staging\"` or the URL of a directory, which begins with `https://`";

fn directory(text: &str) -> Result<String, Mistake> {
    if let Some((_, url)) = NAMED.iter().find(|(name, _)| *name == text) {
        return Ok((*url).to_owned());
    }
    let rest = text.strip_prefix("https://");
    let is_url = rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && rest.bytes().all(|byte| byte.is_ascii_graphic())
    });
    if is_url {
        return Ok(text.to_owned());
    }
    let mistake = Mistake::new(format!("expected {DIRECTORY}, found {text:?}"));
    let names = NAMED.map(|(name, _)| name);
    Err(match keys::nearest(&names, text) {
        Some(near) => mistake.hint(format!("did you mean `\"{near}\"`?")),
        None if text.starts_with("http://") => mistake
            .hint("write `https://`: an authority without TLS could be anybody (RFC 8555 §6.1)"),
        None => mistake,
    })
}

/// One address, which goes into a `mailto` URL (RFC 8555 §7.3).
fn email(text: &str) -> Result<String, Mistake> {
    let plain = |c: char| {
        c.is_ascii_graphic() && !matches!(c, ',' | ':' | '?' | '<' | '>' | '"' | '%' | '#' | '&')
    };
    let parts = text.split_once('@');
    let is_address = parts.is_some_and(|(user, host)| {
        !user.is_empty() && host.contains('.') && !host.contains('@') && text.chars().all(plain)
    });
    if is_address {
        return Ok(text.to_owned());
    }
    let mistake = Mistake::new(format!("{text:?} is no address for mail"));
    Err(match text.strip_prefix("mailto:") {
        Some(rest) => mistake.hint(format!("write `\"{rest}\"`")),
        None => mistake.hint("write one such as `\"you@example.org\"`, or leave it out"),
    })
}

/// What of a site cannot be certified.
fn check(acme: &Acme, host: &VirtualHost) -> Vec<Problem> {
    let span = host.tls.span;
    let mut problems: Vec<Problem> = host
        .names
        .iter()
        .filter_map(|name| check_name(acme, name, span))
        .collect();
    if host.names.len() > NAMES_MAX {
        let count = host.names.len();
        let message = format!("this site has {count} hosts, and a certificate at most {NAMES_MAX}");
        problems.push(Problem::new(span, message).hint("make two sites of it"));
    }
    problems
}

fn check_name(acme: &Acme, name: &HostPattern, span: Option<Span>) -> Option<Problem> {
    let (message, hint) = match name {
        HostPattern::Any => (
            "a certificate needs names, and this site is for every host".to_owned(),
            "add `hosts = [\"example.org\"]` with each name that is to be in it".to_owned(),
        ),
        HostPattern::Wildcard(rest) => (
            format!("a certificate for `*.{rest}` is given to who controls its DNS, which we do not"),
            "name each host, or get it with a client of your DNS and write `tls = { cert = …, key = … }`"
                .to_owned(),
        ),
        HostPattern::Exact(name) => match name.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => check_address(acme, address)?,
            Err(_) => check_host(acme, name)?,
        },
    };
    Some(Problem::new(span, message).hint(hint))
}

fn check_address(acme: &Acme, address: IpAddr) -> Option<(String, String)> {
    if !is_public(acme) {
        return None;
    }
    if is_private(address) {
        return Some((
            format!(
                "no public authority certifies `{address}`, which is an address of a private network"
            ),
            "give the site a name, or an authority of your own: `directory = \"https://…\"`"
                .to_owned(),
        ));
    }
    if acme.profile.as_deref() != Some(SHORT_LIVED) {
        return Some((
            format!(
                "Let's Encrypt certifies addresses such as `{address}` for six days only, if it is asked to"
            ),
            format!(
                "add `profile = \"{SHORT_LIVED}\"` to `[acme]`, or take the address out of `hosts`"
            ),
        ));
    }
    None
}

fn check_host(acme: &Acme, name: &str) -> Option<(String, String)> {
    if !is_public(acme) {
        return None;
    }
    let is_below = |ending: &&&str| {
        let rest = name.strip_suffix(**ending);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let ending = PRIVATE_ENDINGS.iter().find(is_below);
    let why = match ending {
        _ if !name.contains('.') => "which has no dot",
        Some(_) => "which nobody on the internet can own",
        None if name.contains('_') => "which has `_` in it",
        None => return None,
    };
    Some((
        format!("no public authority certifies `{name}`, {why}"),
        "write a name that the internet knows, `tls = \"self-signed\"`, or an authority of your own: `directory = \"https://…\"`"
            .to_owned(),
    ))
}

/// Whether the directory is one that we know the rules of.
fn is_public(acme: &Acme) -> bool {
    NAMED.iter().any(|(_, url)| *url == acme.directory)
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_broadcast()
                || address.is_documentation()
                || address.is_multicast()
                // Shared by the customers of a provider (RFC 6598).
                || first == 100 && (64..128).contains(&second)
        }
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || (first, second) == (0x2001, 0x0db8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mail_can_go_to() {
        for good in ["you@example.org", "a.b+c@mail.example.org"] {
            assert_eq!(email(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "you",
            "@example.org",
            "you@host",
            "a@b.c,d@e.f",
            "a@b@c.d",
            "mailto:a@b.c?x",
            "a b@c.d",
        ] {
            assert!(email(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn directories() {
        assert_eq!(
            directory("letsencrypt").as_deref(),
            Ok(defaults::ACME_DIRECTORY)
        );
        assert_eq!(
            directory("https://ca.lan:14000/dir").as_deref(),
            Ok("https://ca.lan:14000/dir")
        );
        for bad in [
            "",
            "https://",
            "https:///dir",
            "http://ca.lan/dir",
            "ca.lan",
            "https://a b",
        ] {
            assert!(directory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_private_networks() {
        let private = |text: &str| is_private(text.parse().expect("an address"));
        for address in [
            "10.1.2.3",
            "127.0.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "192.0.2.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(private(address), "{address}");
        }
        for address in ["8.8.8.8", "100.128.0.1", "2606:4700::1111"] {
            assert!(!private(address), "{address}");
        }
    }
}
