//! Who is believed about its clients, and in which fields.

use ipnet::IpNet;

use super::keys;
use crate::{
    error::Mistake,
    networks,
    site::{Forwarded, TrustedProxies},
    walk::Value,
};

/// `trusted_proxies`: networks, addresses, names of networks, and `"unix"`.
pub(super) fn proxies(value: &Value<'_>) -> TrustedProxies {
    let mut trusted = TrustedProxies::default();
    let elements = value
        .list("a list of networks such as `[\"10.0.0.0/8\"]`")
        .unwrap_or_default();
    for element in elements {
        match element.as_str() {
            Some("unix") => trusted.unix = true,
            Some(name) if networks::NAMES.contains(&name) => {
                trusted
                    .networks
                    .extend(networks::named(name).into_iter().flatten());
            }
            _ => {
                let network = element.parsed("a network such as `\"10.0.0.0/8\"`", parse_proxy);
                trusted
                    .networks
                    .extend(network.map(|network| network.value));
            }
        }
    }
    trusted
}

fn parse_proxy(text: &str) -> Result<IpNet, Mistake> {
    let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    if !is_word {
        return parse_network(text);
    }
    let mistake = Mistake::new(format!("{text:?} is not a network, nor the name of one"));
    let lower = text.to_lowercase();
    let names: Vec<&str> = networks::NAMES.into_iter().chain(["unix"]).collect();
    Err(match keys::nearest(&names, &lower) {
        Some(near) => mistake.hint(format!("did you mean `\"{near}\"`?")),
        None => mistake.hint(format!("the names are {}", keys::list(&names))),
    })
}

/// `forwarded`.
pub(super) fn forwarded(value: &Value<'_>) -> Option<Forwarded> {
    let wanted = "`\"x-forwarded\"` or `\"forwarded\"`";
    let parsed = value.parsed(wanted, |text| match text {
        "x-forwarded" => Ok(Forwarded::XForwarded),
        "forwarded" => Ok(Forwarded::Forwarded),
        _ => {
            let mistake = Mistake::new(format!("expected {wanted}, found {text:?}"));
            let lower = text.to_lowercase();
            Err(if lower.starts_with("x-forwarded") {
                mistake.hint("did you mean `\"x-forwarded\"`?")
            } else {
                mistake.hint(
                    "`\"x-forwarded\"` is X-Forwarded-For and its like, `\"forwarded\"` the field of RFC 7239",
                )
            })
        }
    });
    parsed.map(|forwarded| forwarded.value)
}

pub(super) fn parse_network(text: &str) -> Result<IpNet, Mistake> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let wrong = || Mistake::new(format!("{text:?} is not a network"));
    let Ok(network) = text.parse::<IpNet>() else {
        return Err(wrong().hint(
            "write an address, or one and the length of its prefix, such as `\"10.0.0.0/8\"`",
        ));
    };
    // Bits past the prefix mean that one of the two is not what was meant.
    if network.trunc() != network {
        let address = network.addr();
        return Err(wrong().hint(format!(
            "write `\"{}\"` for the network, or `\"{address}\"` for the one address",
            network.trunc()
        )));
    }
    Ok(network)
}
