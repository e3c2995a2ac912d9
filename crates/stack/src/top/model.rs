//! What is shown and what keys do, without a terminal: a table of states and keys that can be tried as one.

use std::time::{Duration, Instant};

use appserver::pool::keeper::{RequestStatus, WorkerStatus};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{admin::Status, view::Span};

/// All that is shown.
pub(super) struct Model {
    /// The last two answers, and when they came.
    pub(super) now: (Status, Instant),
    before: Option<(Status, Instant)>,
    pub(super) tab: Tab,
    pub(super) sort: Sort,
    /// Only rows that contain this.
    pub(super) filter: String,
    pub(super) input: Input,
    /// Which row is marked.
    pub(super) row: usize,
    /// A text over the screen, and how far it is scrolled.
    pub(super) page: Option<(String, u16)>,
    /// What happened last, for the bottom line.
    pub(super) note: Option<String>,
    /// Why there are no new answers.
    pub(super) lost: Option<String>,
    pub(super) paused: bool,
}

/// What the table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    /// Requests that run in slots.
    Running,
    Workers,
    /// Routes of sites.
    Routes,
    Failures,
}

impl Tab {
    pub(super) const ALL: [Self; 4] = [Self::Running, Self::Workers, Self::Routes, Self::Failures];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Workers => "workers",
            Self::Routes => "routes",
            Self::Failures => "failures",
        }
    }
}

/// How its rows are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// What takes longest, is used most, fails most.
    Most,
    /// By name.
    Name,
}

/// Where keys go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Keys,
    /// Into the filter.
    Filter,
    /// `y` does it.
    Confirm(Ask),
}

/// What is asked of the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Trace {
        app: String,
    },
    Recycle {
        worker: String,
    },
    /// New configuration and code.
    Reload,
}

/// What a key leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    Leave,
    Ask(Ask),
}

/// A slot that runs something.
pub(super) struct Running<'a> {
    pub(super) worker: &'a WorkerStatus,
    /// `web·1/2`.
    pub(super) slot: String,
    pub(super) request: &'a RequestStatus,
}

impl Model {
    pub(super) fn new(status: Status, at: Instant) -> Self {
        Self {
            now: (status, at),
            before: None,
            tab: Tab::Running,
            sort: Sort::Most,
            filter: String::new(),
            input: Input::Keys,
            row: 0,
            page: None,
            note: None,
            lost: None,
            paused: false,
        }
    }

    /// The master has answered.
    pub(super) fn status(&mut self, status: Status, at: Instant) {
        self.lost = None;
        if self.paused {
            return;
        }
        // Another master counts from nothing.
        let same = status.pid == self.now.0.pid;
        let before = std::mem::replace(&mut self.now, (status, at));
        self.before = same.then_some(before);
    }

    pub(super) fn unreachable(&mut self, why: String) {
        self.lost = Some(why);
    }

    pub(super) fn answer(&mut self, answer: Result<String, String>) {
        match answer {
            Ok(text) | Err(text) if text.contains('\n') => {
                self.note = None;
                self.page = Some((text, 0));
            }
            Ok(text) | Err(text) => self.note = Some(text),
        }
    }

    /// The figures since the last answer; since the start before there are two.
    pub(super) fn span(&self) -> Span<'_> {
        match &self.before {
            Some((before, at)) => Span::between(before, &self.now.0, self.now.1 - *at),
            None => Span::whole(&self.now.0),
        }
    }

    pub(super) fn workers(&self) -> Vec<&WorkerStatus> {
        let all = self.now.0.apps.iter().flat_map(|app| &app.workers);
        let mut workers: Vec<&WorkerStatus> = all
            .filter(|worker| self.passes(&[&worker.name, &worker.state]))
            .collect();
        let busy = |worker: &WorkerStatus| {
            worker
                .slots
                .iter()
                .filter(|slot| slot.request.is_some())
                .count()
        };
        match self.sort {
            Sort::Name => {}
            Sort::Most => {
                workers.sort_by_key(|worker| std::cmp::Reverse((busy(worker), worker.rss)))
            }
        }
        workers
    }

    pub(super) fn running(&self) -> Vec<Running<'_>> {
        let mut running = Vec::new();
        for worker in self.now.0.apps.iter().flat_map(|app| &app.workers) {
            for slot in &worker.slots {
                let Some(request) = &slot.request else {
                    continue;
                };
                let name = format!("{}/{}", worker.name, slot.slot);
                if self.passes(&[&name, &request.method, &request.target, &request.id]) {
                    running.push(Running {
                        worker,
                        slot: name,
                        request,
                    });
                }
            }
        }
        if self.sort == Sort::Most {
            running.sort_by_key(|running| std::cmp::Reverse(running.request.since));
        }
        running
    }

    pub(super) fn routes(&self) -> Vec<(String, String)> {
        let span = self.span();
        let mut places = span.places();
        places.retain(|(site, route)| self.passes(&[site, route]));
        if self.sort == Sort::Most {
            places.sort_by_key(|(site, route)| {
                let here = |labels: &[String]| labels[0] == *site && labels[1] == *route;
                std::cmp::Reverse(span.count(&telemetry::metrics::REQUESTS, here))
            });
        }
        places
    }

    /// Causes, how many since the start, and how many in the interval.
    pub(super) fn failures(&self) -> Vec<(String, u64, u64)> {
        let lately = self.span().failures();
        let mut failures: Vec<(String, u64, u64)> = Span::whole(&self.now.0)
            .failures()
            .into_iter()
            .filter(|(cause, _)| self.passes(&[cause]))
            .map(|(cause, all)| {
                let found = lately.iter().find(|(name, _)| *name == cause);
                let recent = found.map_or(0, |(_, count)| *count);
                (cause, all, recent)
            })
            .collect();
        match self.sort {
            Sort::Name => failures.sort(),
            Sort::Most => {
                failures.sort_by_key(|(_, all, recent)| std::cmp::Reverse((*recent, *all)))
            }
        }
        failures
    }

    /// How long ago the answer that is shown came: what runs has run so much longer.
    pub(super) fn age(&self, now: Instant) -> Duration {
        if self.paused {
            Duration::ZERO
        } else {
            now.saturating_duration_since(self.now.1)
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self.tab {
            Tab::Running => self.running().len(),
            Tab::Workers => self.workers().len(),
            Tab::Routes => self.routes().len(),
            Tab::Failures => self.failures().len(),
        }
    }

    fn passes(&self, texts: &[&str]) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.is_empty()
            || texts
                .iter()
                .any(|text| text.to_lowercase().contains(&wanted))
    }

    /// The worker of the row that is marked.
    fn marked(&self) -> Option<String> {
        match self.tab {
            Tab::Running => self
                .running()
                .get(self.row)
                .map(|running| running.worker.name.clone()),
            Tab::Workers => self
                .workers()
                .get(self.row)
                .map(|worker| worker.name.clone()),
            Tab::Routes | Tab::Failures => None,
        }
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Then {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Then::Leave;
        }
        self.note = None;
        if self.page.is_some() {
            self.page_key(key.code);
            return Then::GoOn;
        }
        match std::mem::replace(&mut self.input, Input::Keys) {
            Input::Filter => {
                self.filter_key(key.code);
                Then::GoOn
            }
            Input::Confirm(ask) if matches!(key.code, KeyCode::Char('y' | 'Y')) => {
                if ask == Ask::Reload {
                    self.note = Some("reloading …".to_owned());
                }
                Then::Ask(ask)
            }
            Input::Confirm(_) => Then::GoOn,
            Input::Keys => self.plain_key(key.code),
        }
    }

    fn page_key(&mut self, code: KeyCode) {
        let Some((text, at)) = &mut self.page else {
            return;
        };
        let last = u16::try_from(text.lines().count())
            .unwrap_or(u16::MAX)
            .saturating_sub(1);
        *at = match code {
            KeyCode::Down | KeyCode::Char('j') => at.saturating_add(1).min(last),
            KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => at.saturating_add(15).min(last),
            KeyCode::PageUp => at.saturating_sub(15),
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => {
                self.page = None;
                return;
            }
        };
    }

    fn filter_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => return,
            KeyCode::Esc => {
                self.filter.clear();
                return;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(character) => self.filter.push(character),
            _ => {}
        }
        self.row = 0;
        self.input = Input::Filter;
    }

    fn plain_key(&mut self, code: KeyCode) -> Then {
        match code {
            KeyCode::Char('q') => return Then::Leave,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => self.input = Input::Filter,
            KeyCode::Char('s') => {
                self.sort = match self.sort {
                    Sort::Most => Sort::Name,
                    Sort::Name => Sort::Most,
                };
            }
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char('?' | 'h') => self.page = Some((HELP.to_owned(), 0)),
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Tab::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='4') => {
                let at = usize::from(u8::try_from(digit).unwrap_or(b'1') - b'1');
                self.tab = Tab::ALL[at];
                self.row = 0;
            }
            KeyCode::Down | KeyCode::Char('j') => {
                self.row = (self.row + 1).min(self.rows().saturating_sub(1));
            }
            KeyCode::Up => self.row = self.row.saturating_sub(1),
            KeyCode::Char('t') | KeyCode::Enter => {
                return self.on_worker(|worker| {
                    Then::Ask(Ask::Trace {
                        app: app_of(&worker),
                    })
                });
            }
            KeyCode::Char('r') => self.input = Input::Confirm(Ask::Reload),
            KeyCode::Char('k') => {
                if let Some(worker) = self.marked() {
                    self.input = Input::Confirm(Ask::Recycle { worker });
                } else {
                    self.note = Some(NO_WORKER.to_owned());
                }
            }
            _ => {}
        }
        Then::GoOn
    }

    fn on_worker(&mut self, ask: impl FnOnce(String) -> Then) -> Then {
        match self.marked() {
            Some(worker) => ask(worker),
            None => {
                self.note = Some(NO_WORKER.to_owned());
                Then::GoOn
            }
        }
    }

    fn turn(&mut self, by: usize) {
        let at = Tab::ALL
            .iter()
            .position(|tab| *tab == self.tab)
            .unwrap_or_default();
        self.tab = Tab::ALL[(at + by) % Tab::ALL.len()];
        self.row = 0;
    }
}

const NO_WORKER: &str = "mark a worker, or a request that runs, first";

/// `web` of `web·3`.
fn app_of(worker: &str) -> String {
    worker
        .rsplit_once('·')
        .map_or(worker, |(app, _)| app)
        .to_owned()
}

const HELP: &str = "\
Keys

  1 2 3 4, Tab      requests that run, workers, routes, failures
  up, down          mark a row
  s                 order by what is most, or by name
  /                 show only rows that contain a text; Esc shows all
  t, Enter          where the Python of the marked worker's app is
  k                 replace the marked worker: another is ready before it leaves
  r                 take new configuration and code, or change nothing
  p                 hold still
  q, Ctrl-C         leave

Any key closes this.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::example;

    fn model() -> Model {
        Model::new(example(1000), Instant::now())
    }

    fn press(model: &mut Model, keys: &str) -> Then {
        let mut then = Then::GoOn;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\t' => KeyCode::Tab,
                other => KeyCode::Char(other),
            };
            then = model.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        then
    }

    #[test]
    fn keys_do_what_the_help_says() {
        let mut model = model();
        assert_eq!(
            press(&mut model, "t"),
            Then::Ask(Ask::Trace { app: "web".into() })
        );
        assert_eq!(press(&mut model, "k"), Then::GoOn);
        let recycle = Ask::Recycle {
            worker: "web·1".into(),
        };
        assert_eq!(model.input, Input::Confirm(recycle.clone()));
        assert_eq!(press(&mut model, "y"), Then::Ask(recycle));
        press(&mut model, "kn");
        assert_eq!(model.input, Input::Keys);
        assert_eq!(press(&mut model, "rn"), Then::GoOn);
        assert_eq!(press(&mut model, "ry"), Then::Ask(Ask::Reload));
        assert!(model.note.is_some(), "it takes its time");
        press(&mut model, "\t");
        assert_eq!(model.tab, Tab::Workers);
        press(&mut model, "4");
        assert_eq!(
            (model.tab, press(&mut model, "t")),
            (Tab::Failures, Then::GoOn)
        );
        assert!(model.note.is_some());
        press(&mut model, "?");
        assert!(model.page.is_some());
        press(&mut model, "x");
        assert!(model.page.is_none());
        assert_eq!(press(&mut model, "q"), Then::Leave);
    }

    #[test]
    fn a_filter_leaves_what_contains_it() {
        let mut model = model();
        press(&mut model, "2/STARTING\n");
        assert_eq!(model.workers().len(), 1);
        press(&mut model, "\x1b");
        assert_eq!(model.workers().len(), 2);
        press(&mut model, "1/q");
        assert!(model.running().is_empty(), "a q in a filter is a letter");
    }

    #[test]
    fn rates_are_those_between_two_answers_of_one_master() {
        let mut model = model();
        let later = model.now.1 + Duration::from_secs(1);
        model.status(example(2000), later);
        assert_eq!(model.failures()[0], ("queue-timeout".to_owned(), 200, 100));
        let mut other = example(5);
        other.pid = 99;
        model.status(other, later);
        assert_eq!(
            model.span().count(&telemetry::metrics::REQUESTS, |_| true),
            5
        );
        model.paused = true;
        model.status(example(9000), later);
        assert_eq!(model.now.0.pid, 99);
    }
}
