//! What came of it, judged: each failure has a fault that excuses it, nothing was lost or ran twice, and logs are whole.

use std::{fs, time::Instant};

use anyhow::{Result, ensure};

use super::{
    crowd::{Book, H2LOAD_PATIENCE, NO_APP, Trouble, Visit},
    fault::{CUT, Event, Fault},
    ground::Ground,
    state::State,
};
use crate::bench::{
    deploy::{
        ledger::{Failed, Outcome},
        server::Trial,
    },
    print_lines,
};

/// Visits whose response is still coming when something happens to whoever makes it.
const STREAMS: [&str; 2] = ["slow readers", "listeners"];

/// All that is known at the end.
pub(super) struct Evidence<'a> {
    pub(super) happened: &'a [Event],
    pub(super) outcome: Outcome,
    pub(super) book: Book,
    pub(super) before: State,
    pub(super) after: State,
    log: String,
    access: String,
    /// What the app has run.
    ran: String,
    has_clock: bool,
}

impl<'a> Evidence<'a> {
    pub(super) fn gather(
        trial: &Trial<'_>,
        ground: &Ground,
        happened: &'a [Event],
        outcome: Outcome,
        book: Book,
        (before, after): (State, State),
    ) -> Result<Self> {
        Ok(Self {
            happened,
            outcome,
            book,
            before,
            after,
            log: trial.log()?,
            access: ground.access_log()?,
            ran: fs::read_to_string(trial.code().ran())?,
            has_clock: ground.has_clock(),
        })
    }

    /// Says it, and whether it is well.
    pub(super) fn judge(&self) -> Result<()> {
        let row = self.outcome.row();
        let figures: Vec<String> = row
            .iter()
            .map(|(name, figure)| format!("{name} {figure}"))
            .collect();
        print_lines(&format!(
            "ledger: {}\ncrowd: {}\nheld before: {}\nheld after:  {}",
            figures.join(", "),
            self.book,
            self.before,
            self.after,
        ));
        let failed: Vec<&Failed> = (self.outcome.failed.iter())
            .filter(|failed| !self.excuses(failed))
            .collect();
        let visits: Vec<&Visit> = (self.book.failed.iter())
            .filter(|visit| !self.excuses_visit(visit))
            .collect();
        print_lines(&format!("slow: {} visits", self.book.slow.len()));
        for visit in self.book.slow.iter().take(20) {
            print_lines(&format!(
                "slow: {visit}{}\n  past the server at most {:.2?} then{}",
                self.around(visit.since, visit.at),
                self.book.past_then(visit.since, visit.at),
                self.recorded(&visit.name)
            ));
        }
        for failed in failed.iter().take(20) {
            print_lines(&format!(
                "not excused: {failed:?}{}",
                self.around(failed.since, failed.at)
            ));
        }
        for visit in visits.iter().take(20) {
            print_lines(&format!(
                "not excused: {visit}{}{}",
                self.around(visit.since, visit.at),
                self.recorded(&visit.name)
            ));
        }
        ensure!(
            self.outcome.ran_once(),
            "a request was lost, or ran twice: {:?}",
            self.outcome.examples()
        );
        ensure!(
            !self.ran.lines().any(|line| line.starts_with(CUT)),
            "half an upload has run"
        );
        ensure!(
            failed.is_empty() && visits.is_empty(),
            "{} requests and {} visits failed without an excuse",
            failed.len(),
            visits.len()
        );
        self.logs_are_whole()?;
        self.after.is_like(&self.before)
    }

    fn excuses(&self, failed: &Failed) -> bool {
        let Failed { since, at, .. } = *failed;
        let id = failed.request_id.as_str();
        let named = || {
            !id.is_empty()
                && (self.log.contains(id)
                    || self.access.contains(id)
                    || self.any(|event| event.forgets(at)))
        };
        match failed.status {
            0 => !failed.refused && self.any(|event| event.breaks(since, at)),
            status => self.any(|event| event.fails(status, since, at)) && named(),
        }
    }

    fn excuses_visit(&self, visit: &Visit) -> bool {
        let Visit { since, at, .. } = *visit;
        let (asks_app, streams) = (!NO_APP.contains(&visit.kind), STREAMS.contains(&visit.kind));
        let breaks = || self.any(|event| event.breaks(since, at));
        // A visitor over HTTP/2 that leaves because all workers hang does not stay for the answer that says so.
        let by_http2 = visit.kind.ends_with("by h2");
        let left = || {
            let waited = at - since >= H2LOAD_PATIENCE;
            by_http2 && asks_app && waited && self.any(|event| event.fails(504, since, at))
        };
        let is_full = || self.any(|event| event.is_full(since, at));
        match &visit.trouble {
            Trouble::Wrong(_) | Trouble::Late => false,
            Trouble::Broken(_) => {
                breaks()
                    || streams && self.any(|event| event.cuts(since, at))
                    || by_http2 && self.any(|event| event.says_goodbye(since, at))
                    || left()
            }
            // Without descriptors a proxy opens neither a file nor a connection.
            Trouble::Status(502..=504) if !asks_app => breaks(),
            Trouble::Status(status) => {
                asks_app && self.any(|event| event.fails(*status, since, at))
                    || *status == 503 && visit.kind == "uploads" && is_full()
            }
        }
    }

    fn any(&self, is_it: impl FnMut(&Event) -> bool) -> bool {
        self.happened.iter().any(is_it)
    }

    /// What went wrong about then, for whoever looks for the cause.
    fn around(&self, since: Instant, at: Instant) -> String {
        let mut text = format!("\n  it took {:.2?};", at - since);
        let latest = self.happened.iter().filter(|event| event.from <= at);
        for Event { fault, from, until } in latest.rev().take(6) {
            let (name, ago, took) = (fault.name(), at - *from, *until - *from);
            text += &format!(" {name} ({ago:.2?} before its end, for {took:.2?}),");
        }
        text
    }

    /// What the access log has of a visit.
    fn recorded(&self, name: &str) -> String {
        let query = format!("?{name}");
        let lines: Vec<&str> = (self.access.lines())
            .filter(|line| line.ends_with(&query))
            .collect();
        let mut text = format!("; recorded: {}", lines.len());
        // The first and the last of many.
        let (first, last) = (lines.first(), lines.last().filter(|_| lines.len() > 1));
        for line in first.into_iter().chain(last) {
            text += &format!("\n    {line}");
        }
        text
    }

    /// A line of the access log is a whole one. A disk that is full cuts one, and each time that it is, another.
    fn logs_are_whole(&self) -> Result<()> {
        let is_whole = |line: &&str| {
            let fields: Vec<&str> = line.split(' ').collect();
            let is_status = |text: &str| text.len() == 3 && text.parse::<u16>().is_ok();
            fields.len() == 6 && fields[0].contains('T') && is_status(fields[2])
        };
        let torn: Vec<&str> = (self.access.lines())
            .filter(|line| !is_whole(line))
            .collect();
        let full = self.count(Fault::FullLogs);
        // Each time two writers may meet the end of the disk: that of a proxy that leaves, and that of the next.
        ensure!(
            torn.len() <= 2 * full,
            "{} lines of the access log are cut: {:?}",
            torn.len(),
            torn.iter().take(3).collect::<Vec<_>>()
        );
        ensure!(
            !self.has_clock
                || self.count(Fault::Clock1970) == 0
                || self.access.contains("1970-01-01T"),
            "the clock did not jump"
        );
        Ok(())
    }

    fn count(&self, wanted: Fault) -> usize {
        let of_it = self.happened.iter().filter(|event| event.fault == wanted);
        of_it.count()
    }
}
