//! `cargo xtask soak --seed N`: all kinds of clients at once, and something that goes wrong each second.
//!
//! What goes wrong is drawn from the seed, so a run can be made again. Meanwhile clients with a ledger ask, as in `bench deploy`:
//! each request has an id, and the app writes down which it ran. At the end it is judged: nothing was lost or ran twice, each
//! failure is one that the faults excuse and that the log names, the newest code is served, and what was held is given back.

mod crowd;
mod fault;
mod state;

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use self::{crowd::Crowd, fault::Fault, state::State};
use super::{
    app::Framework,
    ledger::{Failed, Ledger},
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

/// How long after a fault that breaks connections one may still be found broken: what a client can wait for in one request.
const AFTERMATH: Duration = Duration::from_secs(25);

/// How long what is held may take to be given back: as long as the proxy keeps what it may need again.
const REST: Duration = Duration::from_secs(45);

/// Runs it and says what came of it; an error if a promise was broken.
pub(crate) fn run(options: &Options) -> Result<()> {
    let place = Place::prepare(options.stack.as_deref(), &options.python)?;
    let settings = Settings {
        framework: Framework::Rough,
        max_requests: None,
    };
    let mut trial = Trial::start(&server::ROUGH, &place, settings)?;
    let first = {
        // What is there once everything has been used.
        let crowd = Crowd::start(trial.address(), trial.tls_url()?);
        thread::sleep(Duration::from_secs(5));
        crowd.end()?;
        thread::sleep(Duration::from_secs(2));
        State::of(&trial)?
    };
    let ledger = Ledger::open(trial.address(), trial.code());
    let crowd = Crowd::start(trial.address(), trial.tls_url()?);
    let mut draw = Draw(options.seed);
    let mut happened = Vec::new();
    let mut counts = BTreeMap::<&str, u32>::new();
    let end = Instant::now() + Duration::from_secs(options.seconds);
    while Instant::now() < end {
        let next = Instant::now() + PACE;
        let fault = Fault::ALL[draw.below(Fault::ALL.len() as u64) as usize];
        eprintln_line(&format!("{}: {}", happened.len() + 1, fault.name()));
        happened.push((Instant::now(), fault));
        *counts.entry(fault.name()).or_default() += 1;
        fault.happen(&mut trial, draw.next(), happened.len())?;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let served = crowd.end()?;
    let newest = u32::try_from(happened.len()).unwrap_or(u32::MAX) + 1000;
    trial.code().write(newest)?;
    let begun = Instant::now();
    trial.reload()?;
    trial.until_all_are(newest, begun)?;
    ledger.wait_for(100)?;
    let outcome = ledger.close()?;
    thread::sleep(REST);
    let last = State::of(&trial)?;

    let (log, access) = (trial.log()?, trial.access_log()?);
    let is_excused = |failed: &&Failed| {
        let named = !failed.request_id.is_empty()
            && (log.contains(&failed.request_id) || access.contains(&failed.request_id));
        match failed.status {
            0 => !failed.refused && breaks_near(&happened, failed.at),
            502..=504 => named,
            _ => false,
        }
    };
    let unexcused: Vec<&Failed> = outcome
        .failed
        .iter()
        .filter(|failed| !is_excused(failed))
        .collect();
    let row = outcome.row();
    let figures: Vec<String> = row
        .iter()
        .map(|(name, figure)| format!("{name} {figure}"))
        .collect();
    let faults: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} ×{count}"))
        .collect();
    print_lines(&format!(
        "seed {}, {} faults in {} s: {}\nledger: {}\ncrowd: {served}\nheld before: {first}\nheld after:  {last}",
        options.seed,
        happened.len(),
        options.seconds,
        faults.join(", "),
        figures.join(", "),
    ));
    for failed in unexcused.iter().take(20) {
        print_lines(&format!("not excused: {failed:?}"));
    }
    ensure!(outcome.ran_once(), "a request was lost, or ran twice");
    ensure!(
        unexcused.is_empty(),
        "{} requests failed without an excuse",
        unexcused.len()
    );
    last.is_like(&first)
}

/// Whether a fault that may break connections was near.
fn breaks_near(happened: &[(Instant, Fault)], at: Instant) -> bool {
    happened.iter().any(|(when, fault)| {
        let since = at.checked_duration_since(*when);
        fault.breaks_connections() && since.is_some_and(|since| since < AFTERMATH)
    })
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
