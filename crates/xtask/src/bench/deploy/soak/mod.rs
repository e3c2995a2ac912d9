//! `cargo xtask soak --seed N`: all kinds of clients at once, and something that goes wrong each second.
//!
//! What goes wrong is drawn from the seed, so a run can be made again. Meanwhile clients with a ledger ask, as in `bench deploy`:
//! each request has an id, and the app writes down which it ran; and a crowd of all kinds comes and goes. At the end it is judged:
//! nothing was lost or ran twice, each failure is one that a fault excuses which happened just then, and that the log names, the
//! newest code is served with the newest certificate, logs are whole, and what was held is given back.
//!
//! Disks are filled, and control groups made, by root alone; elsewhere that is left out, and said.

mod crowd;
mod echo;
mod fault;
mod ground;
mod state;
mod verdict;
mod visitor;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use self::{
    crowd::{Crowd, Doors},
    fault::{Event, Fault},
    ground::Ground,
    state::State,
    verdict::Evidence,
    visitor::{Session, Trust},
};
use super::{
    app::Framework,
    ledger::Ledger,
    server::{self, Settings, Trial},
};
use crate::bench::{eprintln_line, place::Place, print_lines};

/// How long, and what.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What is drawn: the same seed has the same faults in the same order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long things go wrong, in seconds.
    #[arg(long, default_value_t = 1800)]
    seconds: u64,
    /// A stack that is built already, with its module beside it, instead of the release build of this tree.
    #[arg(long)]
    stack: Option<std::path::PathBuf>,
    /// The Python of the app.
    #[arg(long, default_value = "python3.11")]
    python: String,
}

/// Between one fault and the next.
const PACE: Duration = Duration::from_secs(1);

/// How long what is held may take to be given back: as long as the proxy keeps what it may need again.
const REST: Duration = Duration::from_secs(45);

/// Between an answer and the next request of a client of the ledger: what is looked for is no load, and others may work here.
const PAUSE: Duration = Duration::from_millis(25);

/// How long the newest certificate may take until it is shown: files are looked at every few seconds.
const RENEWED: Duration = Duration::from_secs(20);

/// Runs it and says what came of it; an error if a promise was broken.
pub(crate) fn run(options: &Options) -> Result<()> {
    ground::enter()?;
    let place = Place::prepare(options.stack.as_deref(), &options.python)?;
    let mut ground = Ground::prepare(&place)?;
    echo::serve(&ground.path("echo.sock"))?;
    let settings = Settings {
        framework: Framework::Rough,
        max_requests: None,
    };
    let mut trial = Trial::start(&server::ROUGH, &place, settings)?;
    let tls: SocketAddr = trial.tls_url()?.trim_start_matches("https://").parse()?;
    let doors = Arc::new(Doors {
        plain: trial.address(),
        tls,
        behind: ground.path("echo.sock"),
        trust: Trust::of(ground.certificates()?)?,
    });
    let before = {
        // What is there once everything has been used.
        let crowd = Crowd::start(&doors);
        thread::sleep(Duration::from_secs(5));
        let book = crowd.end()?;
        ensure!(
            book.failed.is_empty(),
            "{} visits fail before anything goes wrong, the first of {}",
            book.failed.len(),
            book.failed[0]
        );
        thread::sleep(Duration::from_secs(2));
        State::of(&trial, &ground)?
    };
    let judged = soak(options, &mut trial, &mut ground, &doors, before);
    // The folder of the server goes with it.
    std::fs::write(ground.path("server.log"), trial.log()?)?;
    judged
}

/// All of it, once the server has been used.
fn soak(
    options: &Options,
    trial: &mut Trial<'_>,
    ground: &mut Ground,
    doors: &Arc<Doors>,
    before: State,
) -> Result<()> {
    let ledger = Ledger::at_pace(trial.address(), trial.code(), PAUSE);
    let crowd = Crowd::start(doors);
    let mut happened = go_wrong(options, trial, ground)?;
    ground.recover_all()?;
    for event in &mut happened {
        if event.fault.fills().is_some() {
            event.until = ground.freed_after(event.from).unwrap_or(event.until);
        }
    }
    let book = crowd.end()?;
    is_well(trial, ground, doors, happened.len())?;
    ledger.wait_for(100)?;
    let outcome = ledger.close()?;
    thread::sleep(REST);
    let after = State::of(trial, ground)?;
    let states = (before, after);
    Evidence::gather(trial, ground, &happened, outcome, book, states)?.judge()
}

/// Something each second.
fn go_wrong(options: &Options, trial: &mut Trial<'_>, ground: &mut Ground) -> Result<Vec<Event>> {
    let mut draw = Draw(options.seed);
    let mut happened = Vec::new();
    let mut counts = BTreeMap::<&str, u32>::new();
    let begun = Instant::now();
    let end = begun + Duration::from_secs(options.seconds);
    while Instant::now() < end {
        let next = Instant::now() + PACE;
        ground.recover(Instant::now())?;
        let fault = Fault::ALL[draw.below(Fault::ALL.len() as u64) as usize];
        let number = happened.len() + 1;
        eprintln_line(&format!(
            "{number} ({} s): {}",
            begun.elapsed().as_secs(),
            fault.name()
        ));
        let from = Instant::now();
        *counts.entry(fault.name()).or_default() += 1;
        fault
            .happen(trial, ground, draw.next(), number)
            .with_context(|| format!("fault {number}, {}", fault.name()))?;
        let until = Instant::now();
        happened.push(Event { fault, from, until });
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let faults: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} ×{count}"))
        .collect();
    print_lines(&format!(
        "seed {}, {} faults in {} s: {}",
        options.seed,
        happened.len(),
        options.seconds,
        faults.join(", ")
    ));
    Ok(happened)
}

/// Whether the newest code answers, and the newest certificate is shown, once nothing goes wrong any more.
fn is_well(trial: &mut Trial<'_>, ground: &Ground, doors: &Doors, faults: usize) -> Result<()> {
    let newest = u32::try_from(faults).unwrap_or(u32::MAX) + 1000;
    trial.code().write(newest)?;
    let begun = Instant::now();
    trial.reload()?;
    trial.until_all_are(newest, begun)?;
    let certificate = &ground.certificates()?[ground.newest_certificate()];
    let begun = Instant::now();
    loop {
        match visitor::come(doors.tls, &doors.trust, Session::New, "the-last") {
            Ok(shown) if shown == *certificate => return Ok(()),
            Ok(_) => {}
            Err(trouble) => anyhow::bail!("a visitor by TLS fails at the end: {trouble}"),
        }
        ensure!(
            begun.elapsed() < RENEWED,
            "the newest certificate is not shown"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// Numbers from a seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_its_faults() {
        let faults = |seed| {
            let mut draw = Draw(seed);
            [(); 50].map(|()| draw.below(Fault::ALL.len() as u64))
        };
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
    }
}
