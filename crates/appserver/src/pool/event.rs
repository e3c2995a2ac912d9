//! What a pool is told, and what it answers.

use std::time::{Duration, Instant};

use config::site::Strategy;
use supervisor::child::Exit;

use super::{Load, Settings};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed: see [`super::Pool::wake`].
    Tick,
    /// A worker that was to be started has no process.
    NotStarted {
        /// Which.
        number: u32,
        /// Why, in one line.
        why: String,
    },
    /// A worker has imported its app and accepts.
    Ready {
        /// Which.
        number: u32,
    },
    /// A worker says that it cannot serve its app; it leaves by itself.
    Failed {
        /// Which.
        number: u32,
        /// Why, in one line.
        why: String,
        /// As Python prints it; may be empty.
        traceback: String,
    },
    /// A worker's process has ended.
    Exited {
        /// Which.
        number: u32,
        /// How.
        exit: Exit,
    },
    /// The proxy has let go of a worker that was to be released: nothing of ours runs in it.
    Released {
        /// Which.
        number: u32,
    },
    /// A worker that serves is to be replaced.
    Worn {
        /// Which.
        number: u32,
        /// Why.
        why: Wear,
    },
    /// What the proxy saw of the app.
    Load(Load),
    /// A person wants one more.
    Grow,
    /// A person wants one less.
    Shrink,
    /// New settings for the workers that there are.
    Update {
        /// What the pool is to be from now on.
        settings: Settings,
    },
    /// Start a new generation beside this one.
    Stage {
        /// What the pool is to be with it.
        settings: Settings,
        /// All at once, or one at a time.
        strategy: Strategy,
    },
    /// The staged generation takes over.
    Commit,
    /// The staged generation is not wanted any more.
    Abandon,
    /// The app is not served any more: workers are to finish what they do and leave.
    Dissolve,
    /// We stop, and nobody sends requests any more: workers are to leave by this time.
    Stop {
        /// Who is still there then is killed.
        deadline: Instant,
    },
    /// Workers are to be gone now.
    Abort,
}

/// Why a worker that serves is to be replaced; what is worse comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wear {
    /// Its code or its settings are those of an earlier generation.
    Superseded,
    /// A person wants it.
    Asked,
    /// It has lived for `max_age`.
    Age,
    /// It has served `max_requests`.
    Requests,
    /// It has more memory than `max_rss`.
    Memory {
        /// How much, in bytes.
        rss: u64,
    },
    /// A request in it has not been answered within `timeout`.
    Stuck,
}

/// Why a worker that served is not to serve any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// It is worn.
    Worn(Wear),
    /// Fewer workers are to be there.
    Fewer,
    /// The app, or all of us, stops.
    Stop,
    /// It did not leave when it was asked to, and was killed.
    Overdue,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker. Its end will be an event: [`Event::NotStarted`] or [`Event::Exited`].
    Start {
        /// Its number, never used before.
        number: u32,
        /// Of what.
        make: Make,
    },
    /// Have the proxy let go of a worker; [`Event::Released`] tells that it has.
    Release {
        /// Which.
        number: u32,
    },
    /// Ask a worker to leave.
    Drain {
        /// Which.
        number: u32,
    },
    /// Have a worker print where it is, whatever it does.
    Dump {
        /// Which.
        number: u32,
    },
    /// Kill a worker.
    Kill {
        /// Which.
        number: u32,
    },
    /// Tell whoever is interested.
    Announce(News),
}

/// Of what a worker is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// Of what the pool is now.
    Current,
    /// Of what is staged.
    Staged,
}

/// What the rest of the master wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A worker is ready and serves from now on.
    Ready {
        /// Which.
        number: u32,
        /// How long it took.
        after: Duration,
    },
    /// A worker could not start.
    CannotStart {
        /// Which.
        number: u32,
        /// Why, in one line.
        why: String,
        /// The traceback, unless the same one was told since a worker was last ready.
        traceback: Option<String>,
        /// When there is another try, from now; `None` when the pool stops.
        again: Option<Duration>,
    },
    /// A worker that was ready is gone, and nobody had asked it to go.
    Died {
        /// Which.
        number: u32,
        /// How.
        exit: Exit,
        /// How long it had been ready.
        lived: Duration,
        /// When there will be another in its place, from now.
        again: Duration,
    },
    /// A worker is to be replaced, and another is started for its place.
    Replacing {
        /// Which.
        number: u32,
        /// Why.
        why: Wear,
    },
    /// A worker that had been asked to leave is gone.
    Left {
        /// Which.
        number: u32,
        /// Why it had been asked.
        parting: Parting,
        /// How.
        exit: Exit,
    },
    /// A worker that was asked to leave did not do so in time.
    Overdue {
        /// Which.
        number: u32,
    },
    /// No worker is ready and one has just failed to start.
    AppFailed {
        /// Why, in one line.
        why: String,
        /// As Python prints it; may be empty.
        traceback: String,
    },
    /// There are to be so many workers from now on.
    Resized {
        /// How many.
        workers: usize,
    },
    /// The first round is decided: all workers are ready, or one could not start. Told once.
    Decided,
    /// The new generation could take over now.
    Staged,
    /// The new generation cannot start; all is as it was.
    StageFailed {
        /// Whose fault.
        number: u32,
        /// Why, in one line.
        why: String,
        /// As Python prints it; may be empty.
        traceback: String,
    },
    /// After a commit: every worker that serves is of the new generation.
    Renewed,
    /// After a commit: a further worker of the new generation could not start. Those of the old serve on, and it is tried
    /// again.
    RenewFailed {
        /// How many workers are still of the old one.
        left: usize,
        /// Why, in one line.
        why: String,
    },
}
