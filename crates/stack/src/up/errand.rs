//! An errand: a command that an app wants to have run before its new workers are started (`before_reload`).
//!
//! It runs as the app would: as its user, in its root, with its environment and its Python first in PATH. What it prints is
//! in the log, line by line; how it ended decides whether the reload goes on. It has a time, and is killed with all that it
//! started when that is over.

use std::{collections::VecDeque, fmt, io, os::fd::OwnedFd, time::Duration};

use appserver::worker::Template;
use supervisor::{
    child::{Child, Command, Exit, Signal, SpawnError, Stdio},
    notify,
};
use telemetry::text::Elapsed;
use tokio::{io::AsyncReadExt, net::unix::pipe};
use tracing::info;

use crate::exec;

/// An errand that has begun.
#[derive(Debug)]
pub(crate) struct Errand {
    app: String,
    child: Child,
    output: pipe::Receiver,
    timeout: Duration,
}

/// Why a reload does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be started.
    #[error("before_reload of app {app} cannot be run: {source}")]
    Start {
        /// Whose.
        app: String,
        /// Why.
        #[source]
        source: SpawnError,
    },
    /// It has no pipe, or nobody knows how it ended.
    #[error("before_reload of app {app}: {source}")]
    Machine {
        /// Whose.
        app: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says no.
    #[error("before_reload of app {app} failed: {exit}{output}")]
    Failed {
        /// Whose.
        app: String,
        /// How.
        exit: Exit,
        /// What it printed last.
        output: Tail,
    },
    /// It did not end.
    #[error("before_reload of app {app} took longer than {}{output}", Elapsed(*timeout))]
    Late {
        /// Whose.
        app: String,
        /// Its time.
        timeout: Duration,
        /// What it printed last.
        output: Tail,
    },
}

/// The last lines of something long.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<String>);

/// How many lines a person is shown.
const LINES: usize = 20;

impl Tail {
    fn push(&mut self, line: String) {
        if self.0.len() == LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

/// The longest line; the rest of it is another one.
const LINE_MAX: usize = 8 * 1024;

impl Errand {
    /// Starts the app's errand, if it has one. Must be called on the main thread: see [`Command::spawn`].
    pub(crate) fn start(template: &Template) -> Result<Option<Self>, Error> {
        let Some(command) = &template.app.before_reload else {
            return Ok(None);
        };
        let app = template.app.name.clone();
        let machine = |source| Error::Machine {
            app: app.clone(),
            source,
        };
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| machine(error.into()))?;
        let second = write.try_clone().map_err(machine)?;
        let child = shell(template, command, write, second)
            .spawn()
            .map_err(|source| Error::Start {
                app: app.clone(),
                source,
            })?;
        info!("app {app}: before_reload runs: {}", command.value);
        Ok(Some(Self {
            output: pipe::Receiver::from_owned_fd(read).map_err(machine)?,
            child,
            timeout: template.app.before_reload_timeout,
            app,
        }))
    }

    /// Waits for its end.
    pub(crate) async fn finish(mut self) -> Result<(), Error> {
        let mut tail = Tail::default();
        let (app, timeout) = (self.app.clone(), self.timeout);
        let end = tokio::time::timeout(timeout, self.watch(&mut tail)).await;
        match end {
            Ok(Ok(Exit::Code(0))) => Ok(()),
            Ok(Ok(exit)) => Err(Error::Failed {
                app,
                exit,
                output: tail,
            }),
            Ok(Err(source)) => Err(Error::Machine { app, source }),
            Err(_) => {
                // Dropped, it is killed with its group; asked for here so that it is gone when the answer is given.
                let _ = self.child.signal(Signal::KILL);
                let _ = self.child.wait().await;
                Err(Error::Late {
                    app,
                    timeout,
                    output: tail,
                })
            }
        }
    }

    /// Passes its lines on until it ends. What a process that it leaves behind prints is not waited for.
    async fn watch(&mut self, tail: &mut Tail) -> io::Result<Exit> {
        let mut text = Vec::new();
        let mut open = true;
        let exit = loop {
            tokio::select! {
                exit = self.child.wait() => break exit?,
                read = self.output.read_buf(&mut text), if open => {
                    open = matches!(read, Ok(1..));
                    say(&self.app, &mut text, tail);
                }
            }
        };
        while let Ok(1..) = self.output.try_read_buf(&mut text) {
            say(&self.app, &mut text, tail);
        }
        if !text.is_empty() {
            text.push(b'\n');
            say(&self.app, &mut text, tail);
        }
        Ok(exit)
    }
}

fn shell(template: &Template, line: &str, out: OwnedFd, err: OwnedFd) -> Command {
    let app = &template.app;
    let mut command = Command::new("/bin/sh")
        .arg("-c")
        .arg(line)
        .directory(&*app.root)
        .stdin(Stdio::Null)
        .stdout(Stdio::To(out))
        .stderr(Stdio::To(err))
        .own_group();
    if let Some(user) = &template.user {
        command = command.user(user.clone()).no_new_privileges();
    }
    if let Some(mask) = app.umask {
        command = command.umask(mask);
    }
    for name in notify::FROM_MANAGER {
        command = command.env_remove(name);
    }
    for (name, value) in exec::environment(app, &template.interpreter) {
        command = command.env(name, value);
    }
    command
}

/// Logs whole lines, and remembers them.
fn say(app: &str, text: &mut Vec<u8>, tail: &mut Tail) {
    while let Some(end) = line_end(text) {
        let line: Vec<u8> = text.drain(..end).collect();
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        info!("app {app}: before_reload: {line}");
        tail.push(line);
    }
}

fn line_end(text: &[u8]) -> Option<usize> {
    let end = text.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
    end.or_else(|| (text.len() >= LINE_MAX).then_some(LINE_MAX))
}
