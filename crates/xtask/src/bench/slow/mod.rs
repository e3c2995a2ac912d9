//! `cargo xtask bench slow`: what becomes of everybody else while clients are slow, many, or more than can be served.
//!
//! Not CPU time this time but the latency of one normal client, and what the front holds meanwhile. Each part runs every
//! server once, since a part takes minutes, and compares a server with itself: alone, beside the crowd, after it.

mod crowd;
mod downloads;
mod events;
mod normal;
mod overload;

use std::{collections::BTreeMap, fs};

use anyhow::Result;
use serde_json::json;

use super::{
    Done, Options, eprintln_line,
    page::{Section, Taken},
    parts,
    peer::{Peer, Running},
    place::Place,
    report::{Row, Table},
    servers,
};

/// The name that stands for all of it on the command line.
pub(crate) const NAME: &str = "slow";

/// The server that always takes part.
const OURS: &str = "stack";

/// The part that takes longest.
const CROWD: &str = "slow-clients";

/// One part: its name, what it shows, how it is measured.
struct Part {
    name: &'static str,
    about: &'static str,
    peers: &'static [Peer],
    measure: fn(&Peer, &Place, &Options) -> Result<Row>,
}

const PARTS: &[Part] = &[
    Part {
        name: CROWD,
        about: "a normal client beside slow heads, slow uploads and slow readers",
        peers: servers::FRONTS,
        measure: crowd::measure,
    },
    Part {
        name: "slow-downloads",
        about: "a thousand readers of a file of 1 GiB, and what is held for them",
        peers: servers::FILES,
        measure: downloads::measure,
    },
    Part {
        name: "slow-overload",
        about: "four times as many requests as can be answered, and then a few",
        peers: servers::FRONTS,
        measure: overload::measure,
    },
    Part {
        name: "slow-events",
        about: "events to a thousand clients at once, from the app; nothing says that they are not to be buffered",
        peers: servers::EVENTS,
        measure: events::measure,
    },
    Part {
        name: "slow-events-upstream",
        about: "events to a thousand clients at once, from a server behind the proxy that has its first event ready",
        peers: servers::RELAYS,
        measure: events::relayed,
    },
];

/// The names of all parts.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PARTS.iter().map(|part| part.name)
}

/// Runs them; `target/bench-slow.json` has the same for programs.
pub(super) fn run(options: &Options, done: Done<'_>) -> Result<()> {
    let parts = parts(NAME, PARTS, |part| part.name, options)?;
    let place = Place::prepare(options.stack.as_deref(), &options.python)?;
    let mut tables = BTreeMap::new();
    for part in parts {
        let mut table = Table::default();
        let mut left_out = Vec::new();
        let peers = part.peers.iter().filter(|peer| {
            let is_wanted = |name: &String| name == peer.name;
            peer.name == OURS || options.peers.is_empty() || options.peers.iter().any(is_wanted)
        });
        for peer in peers {
            eprintln_line(&format!("{}: {}", part.name, peer.name));
            if let Some(program) = peer.missing(&place) {
                let why = format!("{} (there is no {program} here)", peer.name);
                eprintln_line(&format!("{}: LEFT OUT: {why}", part.name));
                left_out.push(why);
                continue;
            }
            match (part.measure)(peer, &place, options) {
                Ok(row) => table.add(peer.name, row),
                // That a peer does not survive is a result.
                Err(error) if peer.name != OURS => {
                    eprintln_line(&format!("{}: {} failed: {error:#}", part.name, peer.name));
                    left_out.push(format!("{} (it failed: {error})", peer.name));
                }
                Err(error) => return Err(error),
            }
        }
        tables.insert(part.name, table.data());
        let Options {
            slow_clients: clients,
            scale,
            ..
        } = options;
        let command = format!(
            "cargo xtask bench {} --slow-clients {clients} --scale {scale}{}",
            part.name,
            options.overrides()
        );
        let mut size = format!("one round; {clients} slow clients of each kind");
        if part.name == CROWD && *scale != 1.0 {
            size.push_str(&format!(", watched for {scale} of the usual minute"));
        }
        done(Section {
            name: part.name.to_owned(),
            about: part.about.to_owned(),
            taken: Taken::now(&place, options, command, size)?,
            left_out,
            said: Vec::new(),
            table,
        })?;
    }
    let path = place.target.join("bench-slow.json");
    let report = json!({ "machine": super::process::machine(), "parts": tables });
    fs::write(path, serde_json::to_string_pretty(&report)?)?;
    Ok(())
}

/// Where the server listens.
fn address(server: &Running) -> Result<std::net::SocketAddr> {
    Ok(server.url()?.trim_start_matches("http://").parse()?)
}

/// The value below which that part of all lies; 0 of nothing.
fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values
        .get(at.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}
