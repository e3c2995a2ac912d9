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
mod websocket;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::{
    case::{Case, Size},
    page::{Page, Section, Taken},
    peer::Peer,
    place::Place,
    report::{CPU, Judged, MEMORY, Row, START, Table},
};

/// What is measured, and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which cases, by name or by the beginning of it (`worker`); all without any, but for `slow` and `deploy`, which take long;
    /// `all` is those as well, `page` measures none and makes the page anew of what is kept beside it.
    cases: Vec<String>,
    /// Puts what was measured into a page, in the place of what it says of the same cases, as soon as each is done; `all`
    /// and `page` write docs/benchmarks.md unless this says otherwise.
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
    /// How much of a trial is run, such as 0.1 for a tenth of its deploys and of its time (`deploy`), or of the time that a normal
    /// client is watched (`slow-clients`).
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
    let (all, only_page) = (options.cases == [ALL], options.cases == [PAGE]);
    let usual = crate::repository()?.join("docs/benchmarks.md");
    let path = options.page.clone();
    let path = path.or_else(|| (all || only_page).then_some(usual));
    let page = path.map(|path| Page::at(&path, names()));
    // As each comes: what was measured is not lost with what was not.
    let mut done = |section: Section| {
        print_lines(&section.text());
        page.as_ref().map_or(Ok(()), |page| page.put(section))
    };
    if only_page {
        return page.as_ref().map_or(Ok(()), Page::renew);
    }
    if asks_for(slow::NAME, options) {
        return slow::run(options, &mut done);
    }
    if asks_for(deploy::NAME, options) {
        return deploy::run(options, &mut done);
    }
    run_cases(options, &mut done)?;
    if all {
        slow::run(options, &mut done)?;
        deploy::run(options, &mut done)?;
    }
    Ok(())
}

/// What stands for everything on the command line, and for nothing but the page.
const ALL: &str = "all";
const PAGE: &str = "page";

/// Who takes what was measured.
type Done<'a> = &'a mut dyn FnMut(Section) -> Result<()>;

/// Has a build of ours serve what these cases ask, and measures nothing. Its proxy is not confined: it leaves a file.
pub(crate) fn serve_cases(
    names: &[&str],
    stack: &Path,
    python: &str,
    time: Duration,
) -> Result<()> {
    process::raise_descriptors()?;
    let mut place = Place::prepare(Some(stack), python)?;
    place.unconfined = true;
    for name in names {
        let case = case::all().into_iter().find(|case| case.name == *name);
        let case = case.with_context(|| format!("no case {name:?}"))?;
        let ours = case.peers().next().context("a case has ours first")?;
        eprintln_line(name);
        let running = ours.start(&place, case.entry, case.size)?;
        case.load.run(&running, case.size.connections, time)?;
    }
    Ok(())
}

/// All that can be measured, in the order of the page.
fn names() -> Vec<&'static str> {
    let cases = case::all().into_iter().map(|case| case.name);
    cases.chain(slow::names()).chain(deploy::names()).collect()
}

fn run_cases(options: &Options, done: Done<'_>) -> Result<()> {
    let cases = chosen(options)?;
    process::raise_descriptors()?;
    let place = Place::prepare(options.stack.as_deref(), &options.python)?;
    let mut tables = BTreeMap::new();
    for case in cases {
        let section = section(case, &place, options)?;
        let judged: Vec<String> = section.judged().iter().map(Judged::line).collect();
        tables.insert(
            case.name,
            json!({ "servers": section.table.data(), "promises": judged }),
        );
        done(section)?;
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
        .with_context(|| format!("cannot write {}", path.display()))
}

fn section(case: &Case, place: &Place, options: &Options) -> Result<Section> {
    let size = Size {
        workers: options.workers.unwrap_or(case.size.workers),
        threads: options.threads.unwrap_or(case.size.threads),
        connections: options.connections.unwrap_or(case.size.connections),
    };
    let Options {
        rounds, seconds, ..
    } = options;
    let command = format!(
        "cargo xtask bench {} --rounds {rounds} --seconds {seconds}{}",
        case.name,
        options.overrides()
    );
    let Size {
        workers,
        threads,
        connections,
    } = size;
    let said = format!(
        "{workers} workers of {threads} threads, where there are workers; {connections} connections"
    );
    let missing = case.peers().filter_map(|peer| {
        let program = peer.missing(place)?;
        Some(format!("{} (there is no {program} here)", peer.name))
    });
    let left_out: Vec<String> = missing.collect();
    for peer in &left_out {
        eprintln_line(&format!("{}: LEFT OUT: {peer}", case.name));
    }
    Ok(Section {
        name: case.name.to_owned(),
        about: case.about.to_owned(),
        taken: Taken::now(place, options, command, said)?,
        left_out,
        said: Vec::new(),
        table: compare(case, place, size, options)?,
    })
}

impl Options {
    /// What the command line says instead of the cases.
    fn overrides(&self) -> String {
        let numbers = [
            ("connections", self.connections),
            ("workers", self.workers),
            ("threads", self.threads),
        ];
        let mut text = String::new();
        for (name, number) in numbers {
            if let Some(number) = number {
                text.push_str(&format!(" --{name} {number}"));
            }
        }
        for peer in &self.peers {
            text.push_str(&format!(" --peer {peer:?}"));
        }
        text
    }
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

fn compare(case: &Case, place: &Place, size: Size, options: &Options) -> Result<Table> {
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
            let is_wanted =
                options.peers.is_empty() || options.peers.iter().any(|name| name == peer.name);
            if is_ours || (is_wanted && peer.missing(place).is_none()) {
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
    let size = Size {
        connections: peer.connections.unwrap_or(size.connections),
        ..size
    };
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
    let (before, after) = match outcome.cpu {
        Some(of_it) => of_it,
        None => (before, running.cpu()?),
    };
    let mut row = Row::new();
    if outcome.requests > 0 {
        let per_request = |part: &str| after.since(&before, part) / outcome.requests as f64;
        let parts = peer.parts.iter();
        let parts: Vec<_> = parts.map(|&part| (part, per_request(part))).collect();
        row.push((CPU, parts.iter().map(|(_, cpu)| cpu).sum()));
        if parts.len() > 1 {
            row.extend(parts);
        }
    }
    row.extend(outcome.figures);
    row.push((MEMORY, running.memory()?));
    row.push((START, running.started_in.as_secs_f64() * 1e3));
    Ok(row)
}

#[expect(clippy::print_stderr, reason = "progress of a tool for developers")]
pub(crate) fn eprintln_line(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the result of a tool for developers")]
fn print_lines(text: &str) {
    println!("{text}");
}
