//! What a `[[site]]` says of TLS: its certificates, its clients' and what browsers shall remember.

use super::{Context, keys};
use crate::{
    defaults,
    error::Mistake,
    site::{ClientAuth, Hsts, KeyPair, Located, Need, Tls},
    units,
    walk::{Table, Value},
};

/// `tls`.
pub(super) fn read(context: &Context, table: &Table<'_>, https: bool) -> Located<Tls> {
    let default = if https { Tls::SelfSigned } else { Tls::Off };
    let default = Located {
        value: default,
        span: None,
    };
    let Some(value) = table.get("tls") else {
        return default;
    };
    if let Some(on) = value.as_bool() {
        let meant = if on { "self-signed" } else { "off" };
        value.wrong(
            value
                .type_mistake(WANTED)
                .hint(format!("did you mean `\"{meant}\"`?")),
        );
        return default;
    }
    let tls = if value.is_table() {
        pair(context, &value).map(|pair| Tls::Files(vec![pair]))
    } else if value.is_list() {
        pairs(context, &value).map(Tls::Files)
    } else {
        word(&value)
    };
    let Some(tls) = tls else {
        return default;
    };
    if tls != Tls::Off && !https {
        let listen = defaults::https(context.privileged);
        let mistake = Mistake::new("this site has `tls`, but `[server]` has no `https`");
        value.notes.missing(
            mistake
                .hint(format!("add `https = [\"{listen}\"]` to `[server]`"))
                .at(value.span),
        );
    }
    value.located(tls)
}

const WANTED: &str = "`\"acme\"`, `\"self-signed\"`, `\"off\"` or a table such as `{ cert = \"fullchain.pem\", key = \"privkey.pem\" }`";

fn word(value: &Value<'_>) -> Option<Tls> {
    let tls = value.parsed(WANTED, |text| match text {
        "self-signed" => Ok(Tls::SelfSigned),
        "off" => Ok(Tls::Off),
        "acme" => Ok(Tls::Acme),
        _ => Err(not_tls(text)),
    });
    tls.map(|tls| tls.value)
}

fn not_tls(text: &str) -> Mistake {
    let mistake = Mistake::new(format!("expected {WANTED}, found {text:?}"));
    let lower = text.to_lowercase();
    let near = match lower.as_str() {
        "none" | "no" | "false" => Some("off"),
        "snakeoil" | "adhoc" | "on" | "true" => Some("self-signed"),
        "auto" | "automatic" | "letsencrypt" | "lets-encrypt" | "le" => Some("acme"),
        _ => keys::nearest(&["acme", "self-signed", "off"], &lower),
    };
    match near {
        Some(near) => mistake.hint(format!("did you mean `\"{near}\"`?")),
        None => mistake,
    }
}

/// Several certificates of one site, for clients that can do different things.
fn pairs(context: &Context, value: &Value<'_>) -> Option<Vec<KeyPair>> {
    let elements = value.list(WANTED)?;
    if elements.is_empty() {
        value.wrong(Mistake::new("no certificate is named").hint("write `\"off\"` for none"));
        return None;
    }
    let count = elements.len();
    let pairs: Vec<KeyPair> = elements
        .iter()
        .filter_map(|element| pair(context, element))
        .collect();
    (pairs.len() == count).then_some(pairs)
}

fn pair(context: &Context, value: &Value<'_>) -> Option<KeyPair> {
    let table = value.table(&keys::TLS, WANTED)?;
    let parse =
        |value: Value<'_>| value.parsed("a path in quotes", |text| context.folder.parse(text));
    let cert = table.required("cert", "cert = \"fullchain.pem\"");
    let key = table.required("key", "key = \"privkey.pem\"");
    let ocsp = table.get("ocsp").map(parse);
    let (cert, key) = (cert.and_then(parse), key.and_then(parse));
    Some(KeyPair {
        cert: cert?,
        key: key?,
        // One that is wrong has been noted.
        ocsp: ocsp.flatten(),
    })
}

/// `client_ca` and `client_auth`.
pub(super) fn clients(context: &Context, table: &Table<'_>, https: bool) -> Option<ClientAuth> {
    let authorities = table.get("client_ca");
    let need = table.get("client_auth");
    let Some(authorities) = authorities else {
        if let Some(need) = need {
            let mistake = Mistake::new("`client_auth` says nothing without `client_ca`");
            need.wrong(
                mistake.hint(
                    "add `client_ca = \"clients.pem\"`, the certificates of who signs clients'",
                ),
            );
        }
        return None;
    };
    check_https(&authorities, "client_ca", https);
    let parsed = authorities.parsed("a path in quotes", |text| context.folder.parse(text));
    let need = need.and_then(|need| {
        need.parsed(NEEDS, |text| match text {
            "required" => Ok(Need::Required),
            "optional" => Ok(Need::Optional),
            _ => {
                let mistake = Mistake::new(format!("expected {NEEDS}, found {text:?}"));
                Err(match keys::nearest(&["required", "optional"], text) {
                    Some(near) => mistake.hint(format!("did you mean `\"{near}\"`?")),
                    None => mistake.hint("remove `client_ca` where no client has a certificate"),
                })
            }
        })
    });
    Some(ClientAuth {
        authorities: parsed?,
        need: need.map_or(defaults::CLIENT_AUTH, |need| need.value),
    })
}

const NEEDS: &str = "`\"required\"` or `\"optional\"`";

/// `hsts` (RFC 6797).
pub(super) fn hsts(table: &Table<'_>, https: bool) -> Option<Hsts> {
    let value = table.get("hsts")?;
    check_https(&value, "hsts", https);
    if !value.is_table() {
        if value.as_bool().is_some() {
            let mistake = value.type_mistake("a duration such as `\"1y\"`, or a table");
            value.wrong(
                mistake.hint("write `\"1y\"`: how long browsers remember it cannot be taken back"),
            );
            return None;
        }
        let age = value.duration()?;
        return Some(Hsts {
            age: value.within(&defaults::HSTS, age, units::show_duration)?,
            subdomains: false,
            preload: false,
        });
    }
    let table = value.table(
        &keys::HSTS,
        "a table such as `{ age = \"1y\", subdomains = true }`",
    )?;
    table.required("age", "age = \"1y\"")?;
    let flag = |key: &str| {
        table
            .get(key)
            .and_then(|value| value.boolean())
            .unwrap_or(false)
    };
    let hsts = Hsts {
        age: table.duration(&defaults::HSTS),
        subdomains: flag("subdomains"),
        preload: flag("preload"),
    };
    // What the lists of browsers ask for (hstspreload.org).
    if hsts.preload && !(hsts.subdomains && hsts.age >= defaults::PRELOAD_AGE) {
        let mistake =
            Mistake::new("browsers preload only what holds for a year and for subdomains");
        value.wrong(mistake.hint("write `{ age = \"1y\", subdomains = true, preload = true }`"));
    }
    Some(hsts)
}

fn check_https(value: &Value<'_>, key: &str, https: bool) {
    if !https {
        let mistake = Mistake::new(format!(
            "this site has `{key}`, but `[server]` has no `https`"
        ));
        value.notes.missing(
            mistake
                .hint("remove it, or add `https = [\":8443\"]` to `[server]`")
                .at(value.span),
        );
    }
}
