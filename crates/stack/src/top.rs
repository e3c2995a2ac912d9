//! `stack top`: the same as `stack status`, live, on a terminal of 80 columns or more, also over ssh.
//!
//! One thread asks the master once a second, another reads keys, and only this one draws. What a key asks of the master is
//! asked in a thread of its own, so that nothing here ever waits for it.

mod draw;
mod model;

use std::{
    io::{self, IsTerminal},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use telemetry::text::Elapsed;

use self::model::{Ask, Model, Then};
use crate::{
    admin::{AskRecycle, AskReload, AskTrace, Client, Done, Reloaded, Status, Trace},
    args,
    failure::Failure,
    trace,
};

/// How often the screen is drawn at least: the clock of a request that runs goes on between two answers.
const FRAME: Duration = Duration::from_millis(250);

/// What happens.
enum Happening {
    Key(event::KeyEvent),
    Resized,
    /// The master has answered, and when.
    Status(Box<Status>, Instant),
    /// It has not.
    Unreachable(String),
    /// What was asked by a key.
    Answer(Result<String, String>),
}

/// Shows it until `q`.
pub(crate) fn run(asked: &args::Top) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::User(
            "`stack top` needs a terminal; `stack status` prints the same once".to_owned(),
        ));
    }
    // Before the screen is taken: what is wrong now is said where it can be read.
    let first: Status = Client::find(&asked.file)?.get("/status")?;
    let (tell, told) = mpsc::channel();
    let interval = Duration::from_secs_f64(asked.interval.clamp(0.1, 3600.0));
    ask_often(asked.file.clone(), interval, tell.clone());
    read_keys(tell.clone());
    let mut model = Model::new(first, Instant::now());
    let mut terminal = ratatui::try_init().context("cannot take the terminal")?;
    let shown = show(&mut terminal, &mut model, &told, &tell, &asked.file);
    ratatui::restore();
    shown
}

fn show(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    told: &Receiver<Happening>,
    tell: &Sender<Happening>,
    file: &args::ConfigFile,
) -> Result<(), Failure> {
    loop {
        terminal.draw(|frame| draw::draw(frame, model, Instant::now()))?;
        let then = match told.recv_timeout(FRAME) {
            Ok(Happening::Key(key)) => model.key(key),
            Ok(Happening::Status(status, at)) => {
                model.status(*status, at);
                Then::GoOn
            }
            Ok(Happening::Unreachable(why)) => {
                model.unreachable(why);
                Then::GoOn
            }
            Ok(Happening::Answer(answer)) => {
                model.answer(answer);
                Then::GoOn
            }
            Ok(Happening::Resized) | Err(RecvTimeoutError::Timeout) => Then::GoOn,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        match then {
            Then::GoOn => {}
            Then::Leave => return Ok(()),
            Then::Ask(ask) => ask_once(ask, file.clone(), tell.clone()),
        }
    }
}

fn ask_often(file: args::ConfigFile, interval: Duration, tell: Sender<Happening>) {
    thread::spawn(move || {
        loop {
            thread::sleep(interval);
            let status = Client::find(&file).and_then(|client| client.get("/status"));
            let happening = match status {
                Ok(status) => Happening::Status(Box::new(status), Instant::now()),
                Err(failure) => Happening::Unreachable(failure.text()),
            };
            if tell.send(happening).is_err() {
                return;
            }
        }
    });
}

fn read_keys(tell: Sender<Happening>) {
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            let happening = match event {
                Event::Key(key) if key.kind != KeyEventKind::Release => Happening::Key(key),
                Event::Resize(..) => Happening::Resized,
                _ => continue,
            };
            if tell.send(happening).is_err() {
                return;
            }
        }
    });
}

fn ask_once(ask: Ask, file: args::ConfigFile, tell: Sender<Happening>) {
    thread::spawn(move || {
        let answer = put(&ask, &file).map_err(|failure| failure.text());
        // Whoever wanted to know may have left.
        let _ = tell.send(Happening::Answer(answer));
    });
}

fn put(ask: &Ask, file: &args::ConfigFile) -> Result<String, Failure> {
    let client = Client::find(file)?;
    match ask {
        Ask::Trace { app } => {
            let app = Some(app.clone());
            let trace: Trace = client.post("/trace", &AskTrace { app })?;
            let mut text = Vec::new();
            trace::write(&trace, &mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        Ask::Recycle { worker } => {
            let worker = worker.clone();
            let done: Done = client.post("/recycle", &AskRecycle { worker })?;
            Ok(done.done)
        }
        Ask::Reload => match client.post::<Reloaded>("/reload", &AskReload::default()) {
            Ok(Reloaded { took, .. }) => {
                let took = Elapsed(Duration::from_millis(took));
                Ok(format!("what is new is served, after {took}"))
            }
            Err(Failure::User(why)) => Err(Failure::User(format!("the old one serves on: {why}"))),
            Err(failure) => Err(failure),
        },
    }
}
