//! `cargo xtask bench`: the same app, the same load, ours and the peers in turn, several rounds in one run.
//!
//! A machine's speed drifts, so figures are only compared within a run: rounds are interleaved, medians are printed with
//! their minimum and maximum, and each with the ratio of ours to it. The first figure is CPU time of the servers per request,
//! which a busy neighbour disturbs least. A single response other than 2xx ends the run: a server that fails is fast.

mod apps;
mod case;
pub(crate) mod deploy;
mod limit;
mod load;
mod page;
mod peer;
mod place;
mod process;
mod report;
mod servers;
pub(crate) mod slow;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::{
    case::{Case, Size},
    page::Section,
    peer::Peer,
    place::Place,
    report::{CPU, MEMORY, Row, START, Table},
};

/// What is measured, and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which cases, by name or by the beginning of it (`worker`); all without any, but for `slow` and `deploy`, which take long;
    /// `all` is those as well.
    cases: Vec<String>,
    /// Writes a page of what was measured; `all` writes docs/benchmarks.md unless this says otherwise.
    #[arg(long)]
    page: Option<PathBuf>,
    /// Only these peers, by name (repeatable); ours always takes part.
    #[arg(long = "peer")]
    peers: Vec<String>,
    /// Rounds; each runs every peer once.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of load in each round.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections that stay open at once, instead of what the case says.
    #[arg(long)]
    connections: Option<usize>,
    /// Worker processes of each Python server, instead of what the case says.
    #[arg(long)]
    workers: Option<usize>,
    /// Threads of each worker, where the server has threads, instead of what the case says.
    #[arg(long)]
    threads: Option<usize>,
    /// A stack that is built already, with its module beside it, instead of the release build of this tree.
    #[arg(long)]
    stack: Option<PathBuf>,
    /// Another build of ours, with its module beside it, that takes part as a peer of its own.
    #[arg(long)]
    against: Option<PathBuf>,
    /// How many slow clients of each kind there are (`slow`).
    #[arg(long, default_value_t = 1000)]
    slow_clients: usize,
    /// How much of a trial is run, such as 0.1 for a tenth of its deploys and of its time (`deploy`).
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// The Python of every server.
    #[arg(long, default_value = "python3.11")]
    python: String,
}

/// The row of `--against`.
const AGAINST: &str = "stack (the other)";

/// Runs the benchmark and prints its tables; `target/bench.json` has the same for programs.
pub(crate) fn run(options: &Options) -> Result<()> {
    let all = options.cases == [ALL];
    let sections = if asks_for(slow::NAME, options) {
        slow::run(options)?
    } else if asks_for(deploy::NAME, options) {
        deploy::run(options)?
    } else if all {
        let mut sections = run_cases(options)?;
        sections.extend(slow::run(options)?);
        sections.extend(deploy::run(options)?);
        sections
    } else {
        run_cases(options)?
    };
    let page = all.then(|| crate::repository().map(|root| root.join("docs/benchmarks.md")));
    match options.page.clone().or(page.transpose()?) {
        Some(path) => page::write(&path, &sections, options),
        None => Ok(()),
    }
}

/// What stands for everything on the command line.
const ALL: &str = "all";

fn run_cases(options: &Options) -> Result<Vec<Section>> {
    let cases = chosen(options)?;
    process::raise_descriptors()?;
    let place = Place::prepare(options.stack.as_deref(), &options.python)?;
    let mut tables = BTreeMap::new();
    let mut sections = Vec::new();
    for case in cases {
        let table = compare(case, &place, options)?;
        let judged = case
            .promises
            .iter()
            .filter_map(|promise| table.judge(promise));
        let judged: Vec<String> = judged.collect();
        tables.insert(
            case.name,
            json!({ "servers": table.data(), "promises": judged }),
        );
        let section = Section {
            name: case.name,
            about: case.about,
            table,
            judged,
        };
        print_lines(&section.text());
        sections.push(section);
    }
    let report = json!({
        "taken": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        "machine": process::machine(),
        "python": place::version(&options.python)?,
        "peers": place::PEERS,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "cases": tables,
    });
    let path = place.target.join("bench.json");
    fs::write(&path, serde_json::to_string_pretty(&report)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(sections)
}

/// Whether the command line asks for parts of the group `name`, and for nothing else.
fn asks_for(name: &str, options: &Options) -> bool {
    !options.cases.is_empty() && options.cases.iter().all(|case| case.starts_with(name))
}

/// Those of the group's parts that were named, or all if the group was.
fn parts<'a, P>(
    group: &str,
    all: &'a [P],
    name: impl Fn(&P) -> &'static str,
    options: &Options,
) -> Result<Vec<&'a P>> {
    let is_wanted = |part: &&P| {
        let is_named = |case: &String| case == group || case == ALL || case == name(part);
        options.cases.iter().any(is_named)
    };
    let chosen: Vec<_> = all.iter().filter(is_wanted).collect();
    let names: Vec<_> = all.iter().map(name).collect();
    ensure!(!chosen.is_empty(), "there are: {}", names.join(", "));
    Ok(chosen)
}

/// The cases that were named, or all.
fn chosen(options: &Options) -> Result<Vec<&'static Case>> {
    let all = case::all();
    if options.cases == [ALL] {
        return Ok(all);
    }
    for wanted in &options.cases {
        ensure!(
            all.iter().any(|case| case.name.starts_with(wanted)),
            "no case {wanted:?}; there are: {}",
            all.iter()
                .map(|case| case.name)
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    let is_wanted = |case: &&Case| {
        let exact = options.cases.iter().any(|wanted| *wanted == case.name);
        let group = |wanted: &String| {
            case.name.starts_with(wanted) && !all.iter().any(|other| other.name == wanted)
        };
        options.cases.is_empty() || exact || options.cases.iter().any(group)
    };
    let chosen: Vec<_> = all.iter().copied().filter(is_wanted).collect();
    for wanted in &options.peers {
        let mut peers = chosen.iter().flat_map(|case| case.peers());
        ensure!(
            peers.any(|peer| peer.name == wanted),
            "no peer {wanted:?} takes part"
        );
    }
    Ok(chosen)
}

fn compare(case: &Case, place: &Place, options: &Options) -> Result<Table> {
    let size = Size {
        workers: options.workers.unwrap_or(case.size.workers),
        threads: options.threads.unwrap_or(case.size.threads),
        connections: options.connections.unwrap_or(case.size.connections),
    };
    let against = options.against.as_deref();
    let against = against.map(|stack| place.with(stack)).transpose()?;
    let mut table = Table::default();
    for round in 1..=options.rounds {
        let mut add = |name, peer: &Peer, place: &Place| -> Result<()> {
            let what = format!("{}: round {round}/{}: {name}", case.name, options.rounds);
            eprintln_line(&what);
            let row = measure(case, peer, place, size, options).context(what)?;
            table.add(name, row);
            Ok(())
        };
        for (place_in_list, peer) in case.peers().enumerate() {
            let is_ours = place_in_list == 0;
            if is_ours
                || options.peers.is_empty()
                || options.peers.iter().any(|name| name == peer.name)
            {
                add(peer.name, peer, place)?;
            }
            if let Some(against) = against.as_ref().filter(|_| is_ours) {
                add(AGAINST, peer, against)?;
            }
        }
        if let Some(limit) = &case.limit {
            table.add(limit::NAME, limit.measure(place, case.entry)?);
        }
    }
    Ok(table)
}

fn measure(case: &Case, peer: &Peer, place: &Place, size: Size, options: &Options) -> Result<Row> {
    let running = peer.start(place, case.entry, size)?;
    let ask = |seconds| {
        case.load
            .run(&running, size.connections, Duration::from_secs(seconds))
    };
    if case.load.warms_up() {
        // Every worker sees some requests before anything is counted.
        ask(1)?;
    }
    let before = running.cpu()?;
    let outcome = ask(options.seconds)?;
    let after = running.cpu()?;
    let per_request = |part: &str| after.since(&before, part) / outcome.requests as f64;
    let parts: Vec<_> = peer
        .parts
        .iter()
        .map(|&part| (part, per_request(part)))
        .collect();
    let mut row = vec![(CPU, parts.iter().map(|(_, cpu)| cpu).sum())];
    if parts.len() > 1 {
        row.extend(parts);
    }
    row.extend(outcome.figures);
    row.push((MEMORY, running.memory()?));
    row.push((START, running.started_in.as_secs_f64() * 1e3));
    Ok(row)
}

#[expect(clippy::print_stderr, reason = "progress of a tool for developers")]
fn eprintln_line(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the result of a tool for developers")]
fn print_lines(text: &str) {
    println!("{text}");
}
