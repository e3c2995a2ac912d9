//! `metrics` of `[server]`: where operators find figures.

use super::{Context, access, keys, server};
use crate::{
    error::Problem,
    site::{Listen, Metrics},
    walk::Value,
};

/// An address, a list of them, or a table. `taken` are the addresses of visitors.
pub(super) fn read(
    context: &Context,
    value: &Value<'_>,
    taken: &mut Vec<Listen>,
) -> Option<Metrics> {
    let wanted = "an address such as `\"127.0.0.1:9180\"`, or a table such as `{ listen = \"127.0.0.1:9180\", page = true }`";
    if !value.is_table() {
        let listen = addresses(context, value, taken, wanted)?;
        return Some(Metrics {
            listen,
            page: false,
            allow: Vec::new(),
        });
    }
    let table = value.table(&keys::METRICS, wanted)?;
    let listen = table.required("listen", "listen = \"127.0.0.1:9180\"");
    let listen = listen.map(|value| addresses(context, &value, taken, wanted));
    let page = table.get("page");
    let shows = page.and_then(|value| value.boolean()).unwrap_or(false);
    let allow = table
        .get("allow")
        .map_or_else(Vec::new, |value| access::networks(&value));
    let listen = listen.flatten()?;
    let open = listen.iter().any(|endpoint| !is_near(&endpoint.listen));
    if let Some(page) = page.filter(|_| shows && open && allow.is_empty()) {
        let text = "the page shows what runs to everybody who finds the address";
        let problem = Problem::new(page.span, text);
        let hint = "add `allow = [\"10.0.0.0/8\"]`, or listen on 127.0.0.1";
        table.notes.wrong(problem.hint(hint));
    }
    Some(Metrics {
        listen,
        page: shows,
        allow,
    })
}

fn addresses(
    context: &Context,
    value: &Value<'_>,
    taken: &mut Vec<Listen>,
    wanted: &str,
) -> Option<Vec<crate::site::Endpoint>> {
    match value.is_list() {
        true => server::endpoints(context, &value.list(wanted)?, taken, false),
        false => server::endpoints(context, &[*value], taken, false),
    }
}

/// Whether only this machine gets there.
fn is_near(listen: &Listen) -> bool {
    match listen {
        Listen::Any { .. } => false,
        Listen::Address(address) => address.ip().is_loopback(),
        Listen::Unix(_) => true,
    }
}
