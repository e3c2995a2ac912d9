//! `cargo xtask bench deploy`: what deploys, worn workers and crashes cost the visitors who are there meanwhile.
//!
//! Clients ask at a constant pace, every request has an id, the app writes down which it ran, and the two are compared:
//! what failed, what was answered without having run (lost), what ran twice (doubled). A client never tries again, so all
//! that a visitor could have noticed is counted. Each part runs every server once.

mod app;
mod ledger;
mod server;
pub(crate) mod soak;

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::json;

use self::{
    app::Framework,
    ledger::{Ledger, Outcome},
    server::{Server, Settings, Trial},
};
use super::{
    Done, Options, eprintln_line,
    page::{Section, Taken},
    parts,
    place::Place,
    process,
    report::{Judged, Row, Table},
};

/// The name that stands for all of it on the command line.
pub(crate) const NAME: &str = "deploy";

/// One part.
struct Part {
    name: &'static str,
    about: &'static str,
    servers: &'static [Server],
    settings: Settings,
    /// What happens under load.
    happens: fn(&mut Trial<'_>, &Scale) -> Result<Row>,
    /// What is promised of ours.
    promise: Promise,
}

/// What may become of requests. Of those that are answered none is ever lost, and none runs twice.
#[derive(Clone, Copy, Debug)]
enum Promise {
    /// All are answered.
    NoneFails,
    /// One that fails is a 502, and a line of the log names it.
    EachIsNamed,
    /// Connections may break, and none is refused.
    NoneIsRefused,
}

impl Promise {
    fn words(self) -> &'static str {
        match self {
            Self::NoneFails => "none fails",
            Self::EachIsNamed => "each that fails is a 502 with a line in the log",
            Self::NoneIsRefused => "no connection is refused",
        }
    }

    fn is_kept(self, outcome: &Outcome, trial: &Trial<'_>) -> Result<bool> {
        let is_fine = match self {
            Self::NoneFails => outcome.failed.is_empty(),
            Self::EachIsNamed => {
                let log = trial.log()?;
                let is_named = |failed: &ledger::Failed| {
                    failed.status == 502 && log.contains(&failed.request_id)
                };
                outcome.failed.iter().all(is_named)
            }
            Self::NoneIsRefused => !outcome.failed.iter().any(|failed| failed.refused),
        };
        Ok(is_fine && outcome.ran_once())
    }
}

/// How much of it is run.
struct Scale(f64);

impl Scale {
    fn times(&self, all: u32) -> u32 {
        ((f64::from(all) * self.0).round() as u32).max(1)
    }

    fn time(&self, all: Duration) -> Duration {
        all.mul_f64(self.0).max(Duration::from_secs(2))
    }
}

const USUAL: Settings = Settings {
    framework: Framework::None,
    max_requests: None,
};

const PARTS: &[Part] = &[
    Part {
        name: "deploy-reload",
        about: "new code, 50 times",
        servers: server::RELOADING,
        settings: USUAL,
        happens: |trial, scale| new_code(trial, scale.times(50)),
        promise: Promise::NoneFails,
    },
    Part {
        name: "deploy-broken",
        about: "code that does not start, 10 times",
        servers: server::ALL,
        settings: USUAL,
        happens: |trial, scale| broken_code(trial, scale.times(10)),
        promise: Promise::NoneFails,
    },
    Part {
        name: "deploy-recycle",
        about: "each worker is replaced after 20 requests, for a minute",
        servers: server::RECYCLING,
        settings: Settings {
            max_requests: Some(20),
            ..USUAL
        },
        happens: |_, scale| {
            std::thread::sleep(scale.time(Duration::from_secs(60)));
            Ok(Vec::new())
        },
        promise: Promise::NoneFails,
    },
    Part {
        name: "deploy-kill",
        about: "a worker is killed every half second, for half a minute; what is inside it may fail",
        servers: server::ALL,
        settings: USUAL,
        happens: |trial, scale| kill_workers(trial, scale.time(Duration::from_secs(30))),
        promise: Promise::EachIsNamed,
    },
    Part {
        name: "deploy-kill-front",
        about: "the proxy is killed, 5 times; its connections break",
        servers: server::FRONTED,
        settings: USUAL,
        happens: |trial, scale| kill_front(trial, scale.times(5)),
        promise: Promise::NoneIsRefused,
    },
    Part {
        name: "deploy-upgrade",
        about: "another binary takes over, 10 times",
        servers: server::UPGRADING,
        settings: USUAL,
        happens: |trial, scale| upgrade(trial, scale.times(10)),
        promise: Promise::NoneFails,
    },
    Part {
        name: "deploy-storm",
        about: "100 times HUP, a tenth of a second apart, and then new code once",
        servers: server::ALL,
        settings: USUAL,
        happens: |trial, scale| storm(trial, scale.times(100)),
        promise: Promise::NoneFails,
    },
    Part {
        name: "deploy-flask",
        about: "from the command to new code: Flask's own first example",
        servers: server::RELOADING,
        settings: Settings {
            framework: Framework::Flask,
            ..USUAL
        },
        happens: |trial, scale| new_code(trial, scale.times(10)),
        promise: Promise::NoneFails,
    },
    Part {
        name: "deploy-django",
        about: "from the command to new code: an empty Django project",
        servers: server::RELOADING,
        settings: Settings {
            framework: Framework::Django,
            ..USUAL
        },
        happens: |trial, scale| new_code(trial, scale.times(10)),
        promise: Promise::NoneFails,
    },
];

/// The names of all parts.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PARTS.iter().map(|part| part.name)
}

/// Runs them; `target/bench-deploy.json` has the same for programs.
pub(super) fn run(options: &Options, done: Done<'_>) -> Result<()> {
    let parts = parts(NAME, PARTS, |part| part.name, options)?;
    let place = Place::prepare(options.stack.as_deref(), &options.python)?;
    let mut tables = BTreeMap::new();
    for part in parts {
        let section = run_part(part, &place, options)?;
        let verdict: Vec<String> = section.said.iter().map(Judged::line).collect();
        let data = json!({ "servers": section.table.data(), "verdict": verdict });
        tables.insert(part.name, data);
        done(section)?;
    }
    let path = place.target.join("bench-deploy.json");
    let report = json!({
        "machine": process::machine(),
        "scale": options.scale,
        "parts": tables,
    });
    fs::write(path, serde_json::to_string_pretty(&report)?)?;
    Ok(())
}

fn run_part(part: &Part, place: &Place, options: &Options) -> Result<Section> {
    let mut table = Table::default();
    let (mut said, mut left_out) = (Vec::new(), Vec::new());
    for server in part.servers {
        let is_ours = server.name() == server::OURS;
        let is_wanted = options.peers.is_empty()
            || is_ours
            || options.peers.iter().any(|name| name == server.name());
        if !is_wanted {
            continue;
        }
        eprintln_line(&format!("{}: {}", part.name, server.name()));
        if let Some(program) = server.missing(place) {
            let why = format!("{} (there is no {program} here)", server.name());
            eprintln_line(&format!("{}: LEFT OUT: {why}", part.name));
            left_out.push(why);
            continue;
        }
        match run_server(part, server, place, options) {
            Ok((row, is_kept)) => {
                table.add(server.name(), row);
                if is_ours {
                    let promised = part.promise.words();
                    said.push(Judged {
                        text: format!("promised: {promised}, none is lost or doubled"),
                        is_kept,
                        why: String::new(),
                    });
                }
            }
            // That a peer does not survive is a result.
            Err(error) if !is_ours => {
                eprintln_line(&format!(
                    "{}: {} failed: {error:#}",
                    part.name,
                    server.name()
                ));
                left_out.push(format!("{} (it failed: {error})", server.name()));
            }
            Err(error) => return Err(error),
        }
    }
    let scale = options.scale;
    let command = format!(
        "cargo xtask bench {} --scale {scale}{}",
        part.name,
        options.overrides()
    );
    let size = match scale {
        1.0 => "one round, as much as it says".to_owned(),
        part => format!("one round, {part} of what it says (at least one, or two seconds)"),
    };
    Ok(Section {
        name: part.name.to_owned(),
        about: part.about.to_owned(),
        taken: Taken::now(place, options, command, size)?,
        left_out,
        said,
        table,
    })
}

fn run_server(
    part: &Part,
    server: &Server,
    place: &Place,
    options: &Options,
) -> Result<(Row, bool)> {
    let mut trial = Trial::start(server, place, part.settings)?;
    let ledger = Ledger::open(trial.address(), trial.code());
    ledger.wait_for(50)?;
    let figures = (part.happens)(&mut trial, &Scale(options.scale))?;
    // What the last event breaks shows in the next requests, if there can be any.
    let serves_on = ledger.wait_for(50).is_ok();
    let outcome = ledger.close()?;
    let mut row = outcome.row();
    row.push(("serves on", f64::from(u8::from(serves_on))));
    row.extend(figures);
    let is_kept = part.promise.is_kept(&outcome, &trial)?;
    Ok((row, is_kept && serves_on))
}

/// New code, as often as that; how long it takes until no answer is of the old one.
fn new_code(trial: &mut Trial<'_>, times: u32) -> Result<Row> {
    let mut took = Vec::new();
    for version in 2..times + 2 {
        trial.code().write(version)?;
        let begun = Instant::now();
        trial.reload()?;
        took.push(trial.until_all_are(version, begun)?.as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    let most = took.last().copied().unwrap_or_default();
    Ok(vec![
        ("new code ms", took[took.len() / 2]),
        ("at most", most),
    ])
}

/// Code that raises when it is imported; the old one is to serve on.
fn broken_code(trial: &mut Trial<'_>, times: u32) -> Result<Row> {
    let mut refused = 0;
    for _ in 0..times {
        trial.code().break_it()?;
        refused += u32::from(trial.reload().is_err());
        if trial.is_gone() {
            break;
        }
        // Who does not say whether it went well is given the time to try.
        std::thread::sleep(Duration::from_millis(500));
        trial.code().write(1)?;
    }
    Ok(match trial.is_gone() {
        true => Vec::new(),
        false => vec![("said so", f64::from(refused))],
    })
}

fn kill_workers(trial: &mut Trial<'_>, time: Duration) -> Result<Row> {
    let end = Instant::now() + time;
    let mut kills = 0;
    while Instant::now() < end {
        let workers = trial.workers();
        if let Some(victim) = workers.get(kills % workers.len().max(1)) {
            process::kill(*victim, rustix::process::Signal::KILL);
            kills += 1;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(vec![("kills", kills as f64)])
}

fn kill_front(trial: &mut Trial<'_>, times: u32) -> Result<Row> {
    for _ in 0..times {
        for front in trial.fronts() {
            process::kill(front, rustix::process::Signal::KILL);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(vec![("kills", f64::from(times))])
}

fn upgrade(trial: &mut Trial<'_>, times: u32) -> Result<Row> {
    let mut took = Vec::new();
    for version in 2..times + 2 {
        trial.code().write(version)?;
        let begun = Instant::now();
        trial.upgrade()?;
        took.push(trial.until_all_are(version, begun)?.as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    Ok(vec![("taken over ms", took[took.len() / 2])])
}

fn storm(trial: &mut Trial<'_>, times: u32) -> Result<Row> {
    for _ in 0..times {
        trial.hang_up()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    new_code(trial, 1)
}
