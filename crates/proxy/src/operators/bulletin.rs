//! What the master has said: asked once in a second, however many want to know.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use telemetry::panics;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::control::{Question, Report, Said};

/// How long an answer is good.
const FRESH: Duration = Duration::from_millis(900);

/// How long the master may take for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way to the master, and what it has said last.
#[derive(Debug)]
pub(crate) struct Bulletins {
    reports: mpsc::Sender<Report>,
    next: AtomicU64,
    asked: Mutex<HashMap<u64, oneshot::Sender<Said>>>,
    /// One for each question; who holds its lock asks, and the others wait for that.
    last: [Last; Question::ALL.len()],
}

/// What was said, and when.
type Last = tokio::sync::Mutex<Option<(Instant, Said)>>;

impl Bulletins {
    pub(crate) fn new(reports: mpsc::Sender<Report>) -> Self {
        Self {
            reports,
            next: AtomicU64::new(0),
            asked: Mutex::default(),
            last: Default::default(),
        }
    }

    /// What the master says, or said a moment ago.
    pub(crate) async fn ask(&self, question: Question) -> Said {
        let at = Question::ALL.iter().position(|known| *known == question);
        let mut last = self.last[at.unwrap_or_default()].lock().await;
        if let Some((when, said)) = &*last
            && when.elapsed() < FRESH
        {
            return said.clone();
        }
        let said = self.ask_anew(question).await;
        *last = Some((Instant::now(), said.clone()));
        said
    }

    async fn ask_anew(&self, question: Question) -> Said {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.lock().insert(id, answer);
        let answered = timeout(PATIENCE, async {
            // The master is gone when nobody reads; then nothing comes.
            self.reports
                .send(Report::Asked { id, question })
                .await
                .ok()?;
            answered.await.ok()
        });
        let said = answered.await.ok().flatten();
        self.lock().remove(&id);
        said.unwrap_or_else(|| Said::text(503, "the master does not answer\n"))
    }

    /// The master has answered.
    pub(crate) fn answered(&self, id: u64, said: Said) {
        if let Some(answer) = self.lock().remove(&id) {
            // Whoever asked may have given up.
            let _ = answer.send(said);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Said>>> {
        panics::lock(&self.asked)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_master_is_asked_once_in_a_second_however_many_want_to_know() {
        let (reports, mut asked) = mpsc::channel(8);
        let bulletins = Arc::new(Bulletins::new(reports));
        let many: Vec<_> = (0..100)
            .map(|_| {
                let bulletins = Arc::clone(&bulletins);
                tokio::spawn(async move { bulletins.ask(Question::Live).await })
            })
            .collect();
        let Some(Report::Asked { id, question }) = asked.recv().await else {
            panic!("a question")
        };
        assert_eq!(question, Question::Live);
        bulletins.answered(id, Said::text(200, "live\n"));
        for one in many {
            assert_eq!(one.await.expect("it runs").status, 200);
        }
        assert!(asked.try_recv().is_err(), "nothing more was asked");
        tokio::time::advance(FRESH).await;
        let late = {
            let bulletins = Arc::clone(&bulletins);
            tokio::spawn(async move { bulletins.ask(Question::Live).await })
        };
        assert!(asked.recv().await.is_some(), "it is asked anew");
        // Nobody answers.
        assert_eq!(late.await.expect("it runs").status, 503);
        assert!(bulletins.lock().is_empty(), "nothing is left behind");
    }
}
