//! `allow`, `deny`, `auth`, `satisfy`, `limit` and `cors`, of a site and of a route.

use std::time::Duration;

use ipnet::IpNet;

use super::{Context, forward, keys, trust::parse_network};
use crate::{
    defaults,
    error::{Mistake, Problem},
    site::{Access, Auth, Ban, Cors, Limit, LimitBy, Satisfy, Upstream},
    units,
    walk::{Table, Value},
};

/// `outer` is what the site says; for the site itself nothing.
pub(super) fn read(
    context: &Context,
    table: &Table<'_>,
    upstreams: &mut Vec<Upstream>,
    outer: &Access,
) -> Access {
    let lists = ["allow", "deny"].map(|key| table.get(key));
    let (allow, deny) = match lists {
        [None, None] => (outer.allow.clone(), outer.deny.clone()),
        lists => {
            let [allow, deny] =
                lists.map(|list| list.map_or_else(Vec::new, |list| networks(&list)));
            (allow, deny)
        }
    };
    let auth = table
        .get("auth")
        .map(|value| auth(context, &value, upstreams));
    let access = Access {
        allow,
        deny,
        auth: auth.unwrap_or_else(|| outer.auth.clone()),
        satisfy: table
            .get("satisfy")
            .and_then(|value| satisfy(&value))
            .unwrap_or(outer.satisfy),
        limits: table
            .get("limit")
            .map_or_else(Vec::new, |value| limits(&value)),
        cors: table
            .get("cors")
            .map_or_else(|| outer.cors.clone(), |value| cors(&value)),
    };
    check_satisfy(table, &access);
    access
}

/// One of two things is no choice.
fn check_satisfy(table: &Table<'_>, access: &Access) {
    let Some(value) = table
        .get("satisfy")
        .filter(|_| access.satisfy == Satisfy::Any)
    else {
        return;
    };
    let addresses = !access.allow.is_empty() || !access.deny.is_empty();
    if !addresses || access.auth.is_none() {
        let problem = Problem::new(
            value.span,
            "`satisfy = \"any\"` needs `allow` or `deny`, and `auth`",
        );
        table
            .notes
            .missing(problem.hint("with one of them alone, remove `satisfy`"));
    }
}

pub(super) fn networks(value: &Value<'_>) -> Vec<IpNet> {
    let wanted = "a list of networks such as `[\"10.0.0.0/8\"]`";
    let elements = value.list(wanted).unwrap_or_default();
    let network = |element: &Value<'_>| {
        element.parsed("a network such as `\"10.0.0.0/8\"`", |text| match text {
            "all" => Err(Mistake::new("\"all\" is not a network")
                .hint("`allow` alone keeps all others out, `deny` alone lets all others in")),
            _ => parse_network(text),
        })
    };
    elements
        .iter()
        .filter_map(network)
        .map(|network| network.value)
        .collect()
}

/// `None` is nobody's question: `auth = "off"`, or what was written is wrong.
fn auth(context: &Context, value: &Value<'_>, upstreams: &mut Vec<Upstream>) -> Option<Auth> {
    let wanted = "a table such as `{ basic = \"users.htpasswd\" }`, or `\"off\"`";
    if value.as_str() == Some("off") {
        return None;
    }
    let table = value.table(&keys::AUTH, wanted)?;
    if let Some(asked) = table.get("forward") {
        return forward::read(context, &table, &asked, upstreams).map(Auth::Forward);
    }
    forward::check_alone(&table);
    let file = table.required("basic", "basic = \"users.htpasswd\"")?;
    let users = file.parsed("a path in quotes", |text| context.folder.parse(text));
    let realm = match table.get("realm") {
        Some(value) => value.parsed("a text in quotes", parse_realm)?.value,
        None => defaults::REALM.to_owned(),
    };
    Some(Auth::Basic {
        users: users?,
        realm,
    })
}

/// What may stand between the quotes of a challenge (RFC 9110 §5.6.4) without an escape.
fn parse_realm(text: &str) -> Result<String, Mistake> {
    match text
        .chars()
        .find(|c| !matches!(c, ' '..='~') || matches!(c, '"' | '\\'))
    {
        Some(bad) => Err(Mistake::new(format!("a realm cannot have {bad:?} in it"))
            .hint("write letters, digits and spaces")),
        None => Ok(text.to_owned()),
    }
}

fn satisfy(value: &Value<'_>) -> Option<Satisfy> {
    let wanted = "`\"all\"` or `\"any\"`";
    let parsed = value.parsed(wanted, |text| match text {
        "all" => Ok(Satisfy::All),
        "any" => Ok(Satisfy::Any),
        _ => Err(Mistake::new(format!("expected {wanted}, found {text:?}"))
            .hint("`\"any\"` lets in who has the right address or the right password")),
    });
    parsed.map(|satisfy| satisfy.value)
}

/// One, or a list: `"10/s"` keeps a burst in bounds, `"1000/h"` a day's work.
fn limits(value: &Value<'_>) -> Vec<Limit> {
    if value.as_str().is_some() || value.is_table() {
        return limit(value).into_iter().collect();
    }
    let wanted = "a rate such as `\"10/s burst 20\"`, a table such as `{ rate = \"10/s\", by = \"path\" }`, or a list of them";
    let elements = value.list(wanted).unwrap_or_default();
    elements.iter().filter_map(limit).collect()
}

fn limit(value: &Value<'_>) -> Option<Limit> {
    let plain = |(requests, per, burst)| Limit {
        requests,
        per,
        burst,
        by: LimitBy::Address,
        ban: None,
    };
    if !value.is_table() {
        return value.parsed(RATE, parse_rate).map(|rate| plain(rate.value));
    }
    let table = value.table(&keys::LIMIT, "a table such as `{ rate = \"10/s\" }`")?;
    let rate = table
        .required("rate", "rate = \"10/s\"")?
        .parsed(RATE, parse_rate);
    let by = table.get("by").map(|value| value.parsed(BY, parse_by));
    let ban = ban(&table);
    let mut limit = plain(rate?.value);
    limit.ban = ban;
    if let Some(by) = by {
        limit.by = by?.value;
    }
    Some(limit)
}

fn ban(table: &Table<'_>) -> Option<Ban> {
    let Some(time) = table.get(defaults::BAN.key) else {
        if let Some(after) = table.get(defaults::BAN_AFTER.key) {
            let problem = Problem::new(
                after.key,
                "`ban_after` says when, but nothing says for how long",
            );
            table.notes.missing(problem.hint("add `ban = \"10m\"`"));
        }
        return None;
    };
    let time = time.within(&defaults::BAN, time.duration()?, units::show_duration)?;
    let after = u32::try_from(table.count(&defaults::BAN_AFTER)).unwrap_or(u32::MAX);
    Some(Ban { after, time })
}

const RATE: &str = "a rate such as `\"10/s burst 20\"`";

/// `10/s`, `100/m burst 20`, `1000/12h`.
fn parse_rate(text: &str) -> Result<(u32, Duration, u32), Mistake> {
    let wrong = || {
        Mistake::new(format!("{text:?} is not a rate"))
            .hint("write so many in a time, such as `\"10/s\"` or `\"300/m burst 50\"`")
    };
    let mut words = text.split_ascii_whitespace();
    let (requests, per) = words
        .next()
        .and_then(|rate| rate.split_once('/'))
        .ok_or_else(wrong)?;
    let requests = requests
        .trim_end_matches('r')
        .parse::<u32>()
        .map_err(|_| wrong())?;
    let per = match per.starts_with(|c: char| c.is_ascii_digit()) {
        true => units::parse_duration(per)?,
        false => units::parse_duration(&format!("1{per}")).map_err(|_| wrong())?,
    };
    let burst = match (words.next(), words.next(), words.next()) {
        (None, ..) => requests,
        (Some("burst"), Some(burst), None) => burst.parse().map_err(|_| wrong())?,
        _ => return Err(wrong()),
    };
    if requests == 0 || burst == 0 || per.is_zero() {
        return Err(
            Mistake::new(format!("{text:?} lets nobody in")).hint("`deny` keeps clients out")
        );
    }
    Ok((requests, per, burst))
}

const BY: &str = "`\"address\"`, `\"path\"` or a field such as `\"header:X-Api-Key\"`";

fn parse_by(text: &str) -> Result<LimitBy, Mistake> {
    let wrong = || Mistake::new(format!("expected {BY}, found {text:?}"));
    match text {
        "address" => Ok(LimitBy::Address),
        "path" => Ok(LimitBy::Path),
        _ => match text.strip_prefix("header:") {
            Some(name)
                if !name.is_empty()
                    && name.bytes().all(|b| b == b'-' || b.is_ascii_alphanumeric()) =>
            {
                Ok(LimitBy::Header(name.to_ascii_lowercase()))
            }
            Some(_) => Err(wrong().hint("a field's name has letters, digits and hyphens")),
            None => Err(wrong().hint("an address is what nobody can choose freely")),
        },
    }
}

/// `None` is what browsers do by themselves: `cors = "off"`.
fn cors(value: &Value<'_>) -> Option<Cors> {
    match value.as_str() {
        Some("*") => return Some(Cors::Any),
        Some("off") => return None,
        _ => {}
    }
    let wanted = "a list of origins such as `[\"https://app.example.org\"]`, or `\"*\"`";
    let elements = value.list(wanted)?;
    let origin = |element: &Value<'_>| {
        element.parsed(
            "an origin such as `\"https://app.example.org\"`",
            parse_origin,
        )
    };
    Some(Cors::Origins(
        elements
            .iter()
            .filter_map(origin)
            .map(|origin| origin.value)
            .collect(),
    ))
}

/// RFC 6454 §6.2, as browsers write it: a default port is left out, and nothing stands behind the host.
fn parse_origin(text: &str) -> Result<String, Mistake> {
    let wrong = |hint: &str| Err(Mistake::new(format!("{text:?} is not an origin")).hint(hint));
    if text == "*" {
        return wrong("write `cors = \"*\"` for every origin");
    }
    let Some((scheme, host)) = text.split_once("://") else {
        return wrong("an origin begins with `https://` or `http://`");
    };
    let host = host.strip_suffix('/').unwrap_or(host);
    let fine = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"/?#@*\\\"".contains(&b));
    let default = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return wrong("an origin begins with `https://` or `http://`"),
    };
    if !fine {
        return wrong("an origin is a scheme, a host and perhaps a port, without a path");
    }
    let host = host.strip_suffix(default).unwrap_or(host);
    Ok(format!("{scheme}://{}", host.to_ascii_lowercase()))
}
