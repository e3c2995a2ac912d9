//! `traces` of `[server]`: where spans are sent.

use super::{Context, forward, headers, keys};
use crate::{
    defaults,
    error::Mistake,
    site::{Traces, Upstream},
    walk::Value,
};

const EXAMPLE: &str = "an address such as `\"http://127.0.0.1:4318\"`";

const HINTS: forward::Hints = forward::Hints {
    path: "write the whole address, such as `\"http://127.0.0.1:4318\"`",
    other: "write the address of a collector that takes OTLP over HTTP, such as `\"http://127.0.0.1:4318\"`",
};

/// An address, or a table.
pub(super) fn read(
    context: &Context,
    value: &Value<'_>,
    upstreams: &mut Vec<Upstream>,
) -> Option<Traces> {
    let table = match value.is_table() {
        true => Some(value.table(&keys::TRACES, EXAMPLE)?),
        false => None,
    };
    let get = |key| table.as_ref().and_then(|table| table.get(key));
    let to = match &table {
        Some(table) => table.required("to", "to = \"http://127.0.0.1:4318\"")?,
        None => *value,
    };
    let sample = get("sample").map(|value| value.parsed("a share such as `\"1%\"`", parse_share));
    let service = get("service").map(|value| value.text("a name in quotes"));
    let headers = get("headers").map(|value| headers::sent(&value));
    let text = to.text(EXAMPLE)?;
    let (upstream, host, target) = forward::of_address(context, &to, text, &HINTS, upstreams)?;
    Some(Traces {
        upstream,
        host,
        // As OTLP/HTTP has it where the address has no path of its own.
        target: match target.as_str() {
            "/" => "/v1/traces".to_owned(),
            _ => target,
        },
        sample: match sample {
            Some(sample) => sample?.value,
            None => defaults::TRACE_SAMPLE,
        },
        service: match service {
            Some(service) => service?.to_owned(),
            None => defaults::TRACE_SERVICE.to_owned(),
        },
        headers: headers.unwrap_or_default(),
    })
}

/// `5%`, `0.01%`: in millionths.
fn parse_share(text: &str) -> Result<u32, Mistake> {
    let wrong = || {
        Mistake::new(format!("{text:?} is not a share"))
            .hint("write a part of all traces, from `\"0.0001%\"` to `\"100%\"`")
    };
    let digits = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let fine = !whole.is_empty()
        && part.len() <= 4
        && [whole, part]
            .iter()
            .all(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let millionths = format!("{whole}{part:0<4}").parse::<u32>().ok();
    millionths
        .filter(|share| fine && (1..=1_000_000).contains(share))
        .ok_or_else(wrong)
}
