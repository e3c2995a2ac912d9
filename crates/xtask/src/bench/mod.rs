//! `cargo xtask bench`: the same app, the same load, ours and the peers in turn, several rounds in one run.
//!
//! A machine's speed drifts, so figures are only compared within a run: rounds are interleaved, medians are printed with
//! their minimum and maximum, and each with its ratio to ours. The unit is CPU time of the servers per request, which a busy
//! neighbour disturbs least. A single response other than 2xx ends the run: a server that fails is fast.

mod case;
mod load;
mod peer;
mod process;
mod report;
mod servers;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use self::{
    case::{Answers, Case},
    load::Load,
    peer::{Peer, Place},
    report::{Row, Table},
};

/// What is measured, and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which cases, by name; all without any.
    cases: Vec<String>,
    /// Which peers, by name (repeatable); all without any.
    #[arg(long = "peer")]
    peers: Vec<String>,
    /// Rounds; each runs every peer once.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of load in each round.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections that stay open at once.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// A stack that is built already, with its module beside it, instead of the release build of this tree.
    #[arg(long)]
    stack: Option<PathBuf>,
    /// Worker processes of each Python server.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Threads of each worker, where the server has threads.
    #[arg(long, default_value_t = 4)]
    threads: usize,
}

/// Runs the benchmark and prints its tables; `target/bench.json` has the same for programs.
pub(crate) fn run(options: &Options) -> Result<()> {
    let place = Place::prepare(options.stack.clone())?;
    let peers = servers::all(options.workers, options.threads);
    let peers = chosen(&peers, &options.peers, |peer| peer.name)?;
    let cases = chosen(case::ALL, &options.cases, |case| case.name)?;
    let mut tables = BTreeMap::new();
    for case in cases {
        let table = compare(case, &peers, &place, options)?;
        print_lines(&format!("{}\n{}", case.name, table.text()));
        tables.insert(case.name, table);
    }
    fs::write(
        place.target.join("bench.json"),
        serde_json::to_string_pretty(&tables)?,
    )?;
    Ok(())
}

/// Those that were named, or all.
fn chosen<'a, T>(
    all: &'a [T],
    names: &[String],
    name: impl Fn(&T) -> &'static str,
) -> Result<Vec<&'a T>> {
    for wanted in names {
        let known: Vec<_> = all.iter().map(&name).collect();
        anyhow::ensure!(
            known.contains(&wanted.as_str()),
            "no {wanted:?}; there are: {}",
            known.join(", ")
        );
    }
    Ok(all
        .iter()
        .filter(|one| names.is_empty() || names.iter().any(|wanted| *wanted == name(one)))
        .collect())
}

fn compare(case: &Case, peers: &[&Peer], place: &Place, options: &Options) -> Result<Table> {
    let load = Load {
        connections: options.connections,
        time: Duration::from_secs(options.seconds),
    };
    let mut table = Table::default();
    for round in 1..=options.rounds {
        for peer in peers
            .iter()
            .filter(|peer| peer.has_files || case.answers == Answers::App)
        {
            eprintln_line(&format!(
                "{}: round {round}/{}: {}",
                case.name, options.rounds, peer.name
            ));
            let row = measure(case, peer, place, &load)
                .with_context(|| format!("{} failed", peer.name))?;
            table.add(peer.name, row);
        }
    }
    Ok(table)
}

fn measure(case: &Case, peer: &Peer, place: &Place, load: &Load) -> Result<Row> {
    let running = peer.start(place, case.entry)?;
    let memory = running.memory()?;
    load.warm(&running.url, case)?;
    let before = running.cpu()?;
    let result = load.run(&running.url, case)?;
    let after = running.cpu()?;
    let per_request = |name: &str| {
        after.of(name).saturating_sub(before.of(name)).as_secs_f64() * 1e6 / result.requests as f64
    };
    Ok(Row {
        parts: peer
            .parts
            .iter()
            .map(|part| (*part, per_request(part)))
            .collect(),
        requests_per_second: result.requests as f64 / result.seconds,
        p50: result.p50,
        p99: result.p99,
        start: running.started_in.as_secs_f64() * 1e3,
        memory,
    })
}

#[expect(clippy::print_stderr, reason = "progress of a tool for developers")]
fn eprintln_line(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the result of a tool for developers")]
fn print_lines(text: &str) {
    println!("{text}");
}
