//! The servers of a trial: how each is told to take new code, and which of its processes is which.

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::{
    app::{Code, Framework},
    ledger,
};
use crate::bench::{
    case::Size,
    peer::{Peer, Running},
    place::Place,
    process, servers,
};

/// The name of our row.
pub(super) const OURS: &str = "stack";

/// More slots than clients.
const SIZE: Size = Size {
    workers: 2,
    threads: 4,
    connections: 0,
};

/// How long new code may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is different about a trial.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// What the app is made with.
    pub(super) framework: Framework,
    /// After how many requests a worker is replaced.
    pub(super) max_requests: Option<u32>,
}

/// One server.
#[derive(Clone, Copy)]
pub(super) struct Server {
    /// Started with a limit to what a worker serves.
    worn: Peer,
    /// Started without.
    peer: Peer,
    kind: Kind,
}

/// How it is operated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Commands of ours.
    Stack,
    /// HUP.
    Gunicorn,
    /// USR2 for a second master, TERM for the first (gunicorn's documentation, "Upgrading to a new binary").
    GunicornTwice,
    /// HUP.
    Granian,
}

const STACK: Server = Server {
    worn: servers::DEPLOY_WORN[0],
    peer: servers::DEPLOY[0],
    kind: Kind::Stack,
};
const GUNICORN: Server = Server {
    worn: servers::DEPLOY_WORN[1],
    peer: servers::DEPLOY[1],
    kind: Kind::Gunicorn,
};
const GUNICORN_TWICE: Server = Server {
    peer: Peer {
        name: "nginx + gunicorn USR2",
        ..servers::DEPLOY[1]
    },
    kind: Kind::GunicornTwice,
    ..GUNICORN
};
const GRANIAN: Server = Server {
    // It has no such limit.
    worn: servers::DEPLOY[2],
    peer: servers::DEPLOY[2],
    kind: Kind::Granian,
};

/// Ours alone, over TLS as well.
pub(super) const ROUGH: Server = Server {
    worn: servers::ROUGH,
    peer: servers::ROUGH,
    kind: Kind::Stack,
};

pub(super) const ALL: &[Server] = &[STACK, GUNICORN, GRANIAN];
pub(super) const RELOADING: &[Server] = &[STACK, GUNICORN, GUNICORN_TWICE, GRANIAN];
pub(super) const RECYCLING: &[Server] = &[STACK, GUNICORN];
pub(super) const FRONTED: &[Server] = &[STACK, GUNICORN];
pub(super) const UPGRADING: &[Server] = &[STACK, GUNICORN_TWICE];

impl Server {
    /// The first program that it needs and that is not here.
    pub(super) fn missing(&self, place: &Place) -> Option<&'static str> {
        self.peer.missing(place)
    }

    /// Its row.
    pub(super) fn name(&self) -> &'static str {
        self.peer.name
    }
}

/// A server that runs, and the code that it runs.
pub(super) struct Trial<'a> {
    running: Running,
    place: &'a Place,
    kind: Kind,
    code: Code,
    address: SocketAddr,
    /// The process that is told things; another one after an upgrade.
    master: u32,
}

impl<'a> Trial<'a> {
    /// Starts it, on code of its own.
    pub(super) fn start(server: &Server, place: &'a Place, settings: Settings) -> Result<Self> {
        let folder = place.target.join("bench-deploy-app");
        let code = Code::make(&folder, settings.framework)?;
        let peer = match settings.max_requests {
            Some(_) => server.worn,
            None => server.peer,
        };
        let running = peer.start(&place.serving(&folder), "app:app", SIZE)?;
        if server.kind == Kind::Stack {
            // A page comes as soon as one worker is ready; operators wait for all.
            let log = running.folder.join("output.log");
            let says = |log: String| log.contains("; ready in ").then_some(());
            until("it is ready", || {
                fs::read_to_string(&log).ok().and_then(says)
            })?;
        }
        let address = running.url()?.trim_start_matches("http://").parse()?;
        let master = running.last_root();
        Ok(Self {
            running,
            place,
            kind: server.kind,
            code,
            address,
            master,
        })
    }

    /// Where it is asked.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it runs.
    pub(super) fn code(&self) -> &Code {
        &self.code
    }

    /// Where it is asked by TLS.
    pub(super) fn tls_url(&self) -> Result<String> {
        self.running.tls_url()
    }

    /// The process that is told things.
    pub(super) fn master(&self) -> u32 {
        self.master
    }

    /// All that it has said.
    pub(super) fn log(&self) -> Result<String> {
        let text = fs::read(self.running.folder.join("output.log"))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Has it take the code that is there now. Fails where the server says that it does not.
    pub(super) fn reload(&mut self) -> Result<()> {
        match self.kind {
            Kind::Stack => self.command("reload"),
            Kind::GunicornTwice => self.replace_gunicorn(),
            Kind::Gunicorn | Kind::Granian => self.hang_up(),
        }
    }

    /// Sends HUP.
    pub(super) fn hang_up(&mut self) -> Result<()> {
        ensure!(process::kill(self.master, Signal::HUP), "it is gone");
        Ok(())
    }

    /// Whether the process that is told things has ended.
    pub(super) fn is_gone(&self) -> bool {
        process::command_line(self.master).is_empty()
    }

    /// Has another process of the same program take over.
    pub(super) fn upgrade(&mut self) -> Result<()> {
        match self.kind {
            Kind::Stack => {
                let before = self.master;
                self.command("upgrade")?;
                // Not one that an earlier upgrade has left, and that waits for the last of its requests.
                let is_next = |pid: &u32| {
                    let line = process::command_line(*pid);
                    line.starts_with("stack: master") && !line.contains("(draining)")
                };
                let next = process::in_group_of(before).into_iter();
                let next = next.filter(|pid| *pid != before).find(is_next);
                self.master = next.context("no other master")?;
                Ok(())
            }
            _ => self.replace_gunicorn(),
        }
    }

    fn command(&self, name: &str) -> Result<()> {
        let config = self.running.folder.join("site.toml");
        let output = Command::new(&self.place.stack)
            .args([name, "--config"])
            .arg(config)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "stack {name}: {said}");
        Ok(())
    }

    fn replace_gunicorn(&mut self) -> Result<()> {
        let before = process::children(self.master);
        ensure!(process::kill(self.master, Signal::USR2), "it is gone");
        let is_next =
            |pid: &u32| !before.contains(pid) && process::children(*pid).len() == SIZE.workers;
        let next = until("a second master with its workers", || {
            process::children(self.master).into_iter().find(is_next)
        })?;
        // It does not say when its workers have imported the app; this is long after.
        thread::sleep(Duration::from_secs(1));
        process::kill(self.master, Signal::TERM);
        until("the first master has left", || self.is_gone().then_some(()))?;
        // Once a second it looks whether it is the only one; before that it takes no USR2.
        thread::sleep(Duration::from_secs(2));
        self.master = next;
        Ok(())
    }

    /// The processes that run the app.
    pub(super) fn workers(&self) -> Vec<u32> {
        let children = process::children(self.master).into_iter();
        let is_worker = |pid: &u32| {
            let line = process::command_line(*pid);
            match self.kind {
                Kind::Stack => line.starts_with("stack: worker "),
                Kind::Granian => !line.contains("resource_tracker"),
                Kind::Gunicorn | Kind::GunicornTwice => true,
            }
        };
        children.filter(is_worker).collect()
    }

    /// The processes that visitors are connected to, where they are others.
    pub(super) fn fronts(&self) -> Vec<u32> {
        match self.kind {
            Kind::Stack => {
                let is_proxy = |pid: &u32| process::command_line(*pid).starts_with("stack: proxy");
                let children = process::children(self.master).into_iter();
                children.filter(is_proxy).collect()
            }
            // nginx's workers.
            _ => process::children(self.running.first_root()),
        }
    }

    /// How long after `begun` the first of ten answers in a row came that were all of this version.
    pub(super) fn until_all_are(&self, version: u32, begun: Instant) -> Result<Duration> {
        let mut since = None;
        let mut count = 0;
        while count < 10 {
            ensure!(
                begun.elapsed() < PATIENCE,
                "version {version} does not come"
            );
            if ledger::version(self.address) == Some(version) {
                since.get_or_insert_with(|| begun.elapsed());
                count += 1;
            } else {
                (since, count) = (None, 0);
            }
            thread::sleep(Duration::from_millis(2));
        }
        since.context("ten answers have a first one")
    }
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = condition() {
            return Ok(found);
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("it never came: {what}")
}
