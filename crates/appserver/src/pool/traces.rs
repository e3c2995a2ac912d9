//! Asking workers where they are, and what is done with the answers.
//!
//! A worker that lives answers itself: its main thread looks at the frames of its busy slots, which go on. One that does not
//! within a moment (C code holds the GIL, or the app is still being imported) is sent a signal at which faulthandler writes
//! where every thread is, from the signal handler. Each question gets one answer, if only that there is none.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use supervisor::scoreboard::Entry;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::keeper::{Live, RequestStatus, SlotTrace, WorkerTrace};
use crate::{assignment::Stack, worker::Order};

/// How long a worker may take to answer by itself: the GIL changes hands every 5 ms unless C code keeps it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a dump may take to come.
const DUMP_PATIENCE: Duration = Duration::from_secs(2);

/// What an answer is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A request was not answered in time: the log says where it is.
    Overdue { request_id: String },
    /// It did not become ready: the log says where it hangs.
    Hangs,
    /// A person asked.
    Asked { survey: u64 },
}

/// What a worker said.
#[derive(Clone, Debug)]
enum Finding {
    Slots(Vec<SlotTrace>),
    Dump(String),
    Nothing,
}

/// All questions that are open.
#[derive(Debug, Default)]
pub(super) struct Traces {
    open: BTreeMap<u32, Open>,
    surveys: BTreeMap<u64, Survey>,
    last_survey: u64,
}

/// What is being asked of one worker.
#[derive(Debug)]
struct Open {
    name: String,
    pid: i32,
    purposes: Vec<Purpose>,
    way: Way,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It was asked.
    Asked,
    /// It was sent the signal.
    Signalled,
}

/// A person's question to all workers of an app.
#[derive(Debug)]
struct Survey {
    missing: usize,
    found: Vec<WorkerTrace>,
    answer: oneshot::Sender<Vec<WorkerTrace>>,
}

impl Traces {
    /// Asks a worker where its busy slots are.
    pub(super) fn ask(&mut self, number: u32, name: String, worker: &Live, purpose: Purpose) {
        if let Some(open) = self.open.get_mut(&number) {
            open.purposes.push(purpose);
            return;
        }
        worker.order(Order::Trace);
        self.open(number, name, worker, purpose, Way::Asked);
    }

    /// A worker will not become ready: where is it? It cannot answer by itself.
    pub(super) fn hangs(&mut self, number: u32, name: String, worker: &Live) {
        worker.order(Order::Dump);
        self.open(number, name, worker, Purpose::Hangs, Way::Signalled);
    }

    fn open(&mut self, number: u32, name: String, worker: &Live, purpose: Purpose, way: Way) {
        let until = Instant::now() + way.patience();
        let open = self.open.entry(number).or_insert_with(|| Open {
            name,
            pid: worker.pid,
            purposes: Vec::new(),
            way,
            until,
        });
        open.purposes.push(purpose);
        (open.way, open.until) = (way, until);
    }

    /// Asks all of them, for a person.
    pub(super) fn ask_all<'a>(
        &mut self,
        workers: impl ExactSizeIterator<Item = (u32, String, &'a Live)>,
        answer: oneshot::Sender<Vec<WorkerTrace>>,
    ) {
        self.last_survey += 1;
        let survey = self.last_survey;
        let missing = workers.len();
        if missing == 0 {
            // Whoever asked may have gone.
            let _ = answer.send(Vec::new());
            return;
        }
        self.surveys.insert(
            survey,
            Survey {
                missing,
                found: Vec::new(),
                answer,
            },
        );
        for (number, name, worker) in workers {
            self.ask(number, name, worker, Purpose::Asked { survey });
        }
    }

    /// A worker has answered.
    pub(super) fn stacks(&mut self, number: u32, worker: &Live, stacks: Vec<Stack>) {
        let entries = worker.board.read();
        let slots = stacks.into_iter().map(|stack| slot(stack, &entries));
        let slots = Finding::Slots(slots.collect());
        if let Some(open) = self.open.remove(&number) {
            self.finish(open, &slots);
        }
    }

    /// A worker has written a dump.
    pub(super) fn dump(&mut self, number: u32, name: &str, text: String) {
        match self.open.remove(&number) {
            Some(open) => self.finish(open, &Finding::Dump(text)),
            None => warn!("{name} was sent a signal to say where it is:\n{text}"),
        }
    }

    /// When [`Self::give_up`] is due.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.open.values().map(|open| open.until).min()
    }

    /// Goes on with those that have not answered in time.
    pub(super) fn give_up(&mut self, now: Instant, workers: &BTreeMap<u32, Live>) {
        let late: Vec<u32> = self
            .open
            .iter()
            .filter(|(_, open)| open.until <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            match (self.open.get_mut(&number), workers.get(&number)) {
                (Some(open), Some(worker)) if open.way == Way::Asked => {
                    worker.order(Order::Dump);
                    open.way = Way::Signalled;
                    open.until = now + DUMP_PATIENCE;
                }
                _ => self.forget(number),
            }
        }
    }

    /// A worker will not answer any more.
    pub(super) fn forget(&mut self, number: u32) {
        if let Some(open) = self.open.remove(&number) {
            self.finish(open, &Finding::Nothing);
        }
    }

    fn finish(&mut self, open: Open, finding: &Finding) {
        let Open {
            name,
            pid,
            purposes,
            ..
        } = open;
        for purpose in purposes {
            match purpose {
                Purpose::Overdue { request_id } => log_overdue(&name, &request_id, finding),
                Purpose::Hangs => log_hanging(&name, finding),
                Purpose::Asked { survey } => {
                    let (slots, dump) = match finding.clone() {
                        Finding::Slots(slots) => (slots, None),
                        Finding::Dump(text) => (Vec::new(), Some(text)),
                        Finding::Nothing => (Vec::new(), None),
                    };
                    let name = name.clone();
                    self.found(
                        survey,
                        WorkerTrace {
                            name,
                            pid,
                            slots,
                            dump,
                        },
                    );
                }
            }
        }
    }

    fn found(&mut self, survey: u64, trace: WorkerTrace) {
        let Some(one) = self.surveys.get_mut(&survey) else {
            return;
        };
        one.found.push(trace);
        one.missing -= 1;
        if one.missing == 0
            && let Some(mut done) = self.surveys.remove(&survey)
        {
            done.found.sort_by_key(|trace| trace.pid);
            // Whoever asked may have gone.
            let _ = done.answer.send(done.found);
        }
    }
}

impl Way {
    fn patience(self) -> Duration {
        match self {
            Self::Asked => PATIENCE,
            Self::Signalled => DUMP_PATIENCE,
        }
    }
}

fn slot(stack: Stack, entries: &[Entry]) -> SlotTrace {
    let Stack { slot, text } = stack;
    let entry = entries.iter().find(|entry| entry.slot == slot);
    SlotTrace {
        slot,
        request: entry.and_then(RequestStatus::of),
        stack: text,
    }
}

fn log_overdue(name: &str, request_id: &str, finding: &Finding) {
    match finding {
        Finding::Slots(slots) => {
            let of_request = |slot: &&SlotTrace| {
                let request = slot.request.as_ref();
                request.is_some_and(|request| request.id == request_id)
            };
            match slots.iter().find(of_request) {
                Some(SlotTrace {
                    slot,
                    request: Some(request),
                    stack,
                }) => error!(
                    "{name}/{slot} is stuck: it has been running {request}, and is at\n{stack}"
                ),
                _ => warn!(
                    "{name} was late with request {request_id}, which has ended in the meantime"
                ),
            }
        }
        Finding::Dump(text) => error!(
            "{name} is stuck with request {request_id}, and so is its Python: C code holds the GIL. \
             Its threads are at (innermost first)\n{text}"
        ),
        Finding::Nothing => {
            error!("{name} is stuck with request {request_id}, and does not say where");
        }
    }
}

fn log_hanging(name: &str, finding: &Finding) {
    match finding {
        Finding::Dump(text) => {
            error!("{name} is not ready in time; its threads are at (innermost first)\n{text}");
        }
        Finding::Slots(_) | Finding::Nothing => {
            warn!("{name} is not ready in time, and does not say where it is");
        }
    }
}
