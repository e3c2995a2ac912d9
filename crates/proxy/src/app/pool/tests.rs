//! Slots, the queue before them, and those who come and go.

use std::path::Path;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use super::*;
use crate::{
    app::queue::Place,
    buffer::{Holding, Store},
    origin::spool::Spooling,
};

/// A worker whose slots greet as soon as the semaphore lets them, and then hold their connections.
fn worker(socket: &Path, number: u32, free: Arc<Semaphore>) {
    let listener = UnixListener::bind(socket).expect("the folder is ours");
    tokio::spawn(async move {
        for slot in 1.. {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            tokio::spawn(greet(stream, number, slot, Arc::clone(&free)));
        }
    });
}

async fn greet(mut stream: UnixStream, number: u32, slot: u32, free: Arc<Semaphore>) {
    let mut greeting = [0; 512];
    let length = stream.read(&mut greeting).await.expect("a greeting");
    assert!(String::from_utf8_lossy(&greeting[..length]).contains("_greeting: build-7"));
    free.acquire().await.expect("never closed").forget();
    let answer = format!("HTTP/1.1 204 No Content\r\n_greeting: web {number} {slot}\r\n\r\n");
    stream
        .write_all(answer.as_bytes())
        .await
        .expect("the pool listens");
    // Held until the pool lets go.
    let _ = stream.read(&mut greeting).await;
}

struct Fixture {
    folder: tempfile::TempDir,
    pool: Arc<Pool>,
    reports: mpsc::Receiver<Report>,
    settings: Settings,
}

impl Fixture {
    fn new() -> Self {
        let (sender, reports) = mpsc::channel(16);
        let settings = Settings {
            timeout: Duration::from_secs(30),
            queue: Bounds {
                length: 2,
                per_client: 2,
                timeout: Duration::from_secs(15),
                target: Duration::ZERO,
            },
            place: Place::Last,
            holding: Holding {
                store: Store::for_tests(1 << 20, 1 << 20),
                memory: 1024,
                disk: 0,
            },
            streams: None,
            spooling: Spooling::for_tests(),
        };
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            pool: Pool::new("web", "build-7".into(), sender),
            reports,
            settings,
        }
    }

    /// Adds a worker with two slots, of which `free` greet at once.
    fn add(&self, number: u32, free: usize) -> (WorkerName, Arc<Semaphore>) {
        let socket = self.folder.path().join(format!("{number}.sock"));
        let free = Arc::new(Semaphore::new(free));
        worker(&socket, number, Arc::clone(&free));
        let name = WorkerName {
            app: "web".into(),
            number,
        };
        self.pool.add(name.clone(), socket, 2);
        (name, free)
    }

    async fn take(&self) -> Result<Slot, Failure> {
        let asker = Asker::default();
        self.pool
            .take(&self.settings, asker, &mut Journal::begin())
            .await
    }

    async fn until_idle(&self, count: usize) {
        let idle = || {
            self.pool
                .lock()
                .members
                .iter()
                .map(|member| member.idle.len())
                .sum::<usize>()
        };
        while idle() < count {
            tokio::task::yield_now().await;
        }
    }
}

fn cause(result: Result<Slot, Failure>) -> &'static str {
    result.map_or_else(|failure| failure.cause(), |_| "slot")
}

/// Were it the end of the app, one broken request would be an outage.
#[tokio::test]
async fn a_panic_under_the_lock_is_nobody_elses() {
    let fixture = Fixture::new();
    fixture.add(1, 2);
    fixture.until_idle(2).await;
    let pool = Arc::clone(&fixture.pool);
    let broken = tokio::spawn(async move {
        let _inner = pool.lock();
        panic!("meant");
    });
    assert!(broken.await.is_err());
    let slots = [fixture.take().await, fixture.take().await];
    for slot in slots {
        slot.expect("one is free").free();
    }
    fixture.until_idle(2).await;
}

#[tokio::test]
async fn requests_spread_over_workers_and_then_wait_their_turn() {
    let fixture = Fixture::new();
    fixture.add(1, 2);
    fixture.add(2, 2);
    fixture.until_idle(4).await;
    let (one, two) = (
        fixture.take().await.expect("idle"),
        fixture.take().await.expect("idle"),
    );
    assert_ne!(one.worker().name, two.worker().name, "a GIL each");
    let (_three, _four) = (
        fixture.take().await.expect("idle"),
        fixture.take().await.expect("idle"),
    );
    let mut waiting = std::pin::pin!(fixture.take());
    assert!(
        futures_poll(waiting.as_mut()).await.is_none(),
        "all four are busy"
    );
    let place = one.place().to_string();
    one.free();
    assert_eq!(waiting.await.expect("freed").place().to_string(), place);
    drop(two);
}

#[tokio::test]
async fn a_full_queue_refuses_and_one_who_left_makes_room() {
    let fixture = Fixture::new();
    let mut first = Box::pin(fixture.take());
    let mut second = Box::pin(fixture.take());
    assert!(futures_poll(first.as_mut()).await.is_none());
    assert!(futures_poll(second.as_mut()).await.is_none());
    assert_eq!(cause(fixture.take().await), "queue-full");
    drop(first);
    let mut third = Box::pin(fixture.take());
    assert!(
        futures_poll(third.as_mut()).await.is_none(),
        "the place of the one who left"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let fixture = Fixture::new();
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(cause(fixture.take().await), "queue-timeout");
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_secs(15) && waited < Duration::from_secs(16));
    }
    // One who comes later and may wait for less: after a reload.
    let mut hasty = fixture.settings.clone();
    hasty.queue.timeout = Duration::from_secs(3);
    let (asker, mut journal) = (Asker::default(), Journal::begin());
    let begun = Instant::now();
    let (patient, hasty) = tokio::join!(
        async { (cause(fixture.take().await), begun.elapsed()) },
        async {
            let turn = fixture.pool.take(&hasty, asker, &mut journal).await;
            (cause(turn), begun.elapsed())
        }
    );
    assert_eq!((patient.0, hasty.0), ("queue-timeout", "queue-timeout"));
    assert!(hasty.1 < Duration::from_secs(4) && patient.1 < Duration::from_secs(16));
    // Nobody waits, and nobody looks.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fixture.pool.lock().ward.is_none());
}

#[tokio::test]
async fn an_app_that_cannot_start_says_so_until_a_worker_is_ready() {
    let fixture = Fixture::new();
    let mut waiting = Box::pin(fixture.take());
    assert!(futures_poll(waiting.as_mut()).await.is_none());
    fixture.pool.fail("ImportError: no module");
    assert_eq!(cause(waiting.await), "app-not-ready");
    assert_eq!(cause(fixture.take().await), "app-not-ready");
    fixture.add(1, 2);
    assert_eq!(cause(fixture.take().await), "slot");
}

#[tokio::test]
async fn when_the_last_worker_of_a_failed_app_dies_nobody_goes_on_waiting() {
    // They waited for `queue_timeout`, though nobody could come: only news of a failed start emptied the queue.
    let fixture = Fixture::new();
    let (name, _) = fixture.add(1, 2);
    fixture.until_idle(2).await;
    let _busy = (
        fixture.take().await.expect("idle"),
        fixture.take().await.expect("idle"),
    );
    let mut waiting = Box::pin(fixture.take());
    assert!(futures_poll(waiting.as_mut()).await.is_none());
    fixture.pool.fail("ImportError: no module");
    assert!(
        futures_poll(waiting.as_mut()).await.is_none(),
        "a worker still serves"
    );
    fixture.pool.bury(&name, "exit code 3");
    assert_eq!(cause(waiting.await), "app-not-ready");
}

#[tokio::test]
async fn a_connection_that_was_not_freed_is_greeted_again_before_it_is_used() {
    let fixture = Fixture::new();
    let (_, free) = fixture.add(1, 2);
    fixture.until_idle(2).await;
    let (one, _two) = (
        fixture.take().await.expect("idle"),
        fixture.take().await.expect("idle"),
    );
    drop(one);
    let mut waiting = Box::pin(fixture.take());
    assert!(
        futures_poll(waiting.as_mut()).await.is_none(),
        "the thread has not greeted yet"
    );
    free.add_permits(1);
    assert_eq!(cause(waiting.await), "slot");
}

#[tokio::test]
async fn a_worker_is_released_when_its_last_request_is_done() {
    let mut fixture = Fixture::new();
    let (name, _) = fixture.add(1, 2);
    fixture.until_idle(2).await;
    let busy = fixture.take().await.expect("idle");
    fixture.pool.release(&name);
    let relieved = Report::Relieved {
        worker: name.clone(),
    };
    assert_eq!(fixture.reports.recv().await, Some(relieved));
    assert!(
        fixture.reports.try_recv().is_err(),
        "one request still runs"
    );
    busy.free();
    assert_eq!(
        fixture.reports.recv().await,
        Some(Report::Released { worker: name })
    );
}

#[tokio::test]
async fn who_is_to_leave_serves_until_another_does() {
    let mut fixture = Fixture::new();
    let (old, _) = fixture.add(1, 2);
    fixture.until_idle(2).await;
    let (_, free) = fixture.add(2, 0);
    fixture.pool.release(&old);
    let slot = fixture.take().await.expect("the old one's");
    assert_eq!(slot.worker().name, old);
    slot.free();
    assert!(fixture.reports.try_recv().is_err());
    free.add_permits(1);
    let relieved = Report::Relieved {
        worker: old.clone(),
    };
    assert_eq!(fixture.reports.recv().await, Some(relieved));
    let released = Report::Released {
        worker: old.clone(),
    };
    assert_eq!(fixture.reports.recv().await, Some(released));
    let slot = fixture.take().await.expect("the new one's");
    assert_ne!(slot.worker().name, old);
}

#[tokio::test]
async fn who_is_to_leave_goes_when_nobody_comes() {
    let mut fixture = Fixture::new();
    let (old, _) = fixture.add(1, 2);
    fixture.until_idle(2).await;
    let (new, _) = fixture.add(2, 0);
    fixture.pool.release(&old);
    fixture.pool.bury(&new, "exit code 3");
    let relieved = Report::Relieved {
        worker: old.clone(),
    };
    assert_eq!(fixture.reports.recv().await, Some(relieved));
    let released = Report::Released { worker: old };
    assert_eq!(fixture.reports.recv().await, Some(released));
}

#[tokio::test(start_paused = true)]
async fn the_load_is_what_was_since_it_was_last_asked_for() {
    let fixture = Fixture::new();
    fixture.add(1, 2);
    fixture.until_idle(2).await;
    let load = |waited, busy| Report::Load {
        app: "web".to_owned(),
        waited: Duration::from_millis(waited),
        busy,
    };
    assert_eq!(fixture.pool.load(), load(0, 0));
    let one = fixture.take().await.expect("idle");
    let two = fixture.take().await.expect("idle");
    two.free();
    assert_eq!(fixture.pool.load(), load(0, 2));
    assert_eq!(fixture.pool.load(), load(0, 1));
    one.free();
    assert_eq!(fixture.pool.load(), load(0, 1));
    assert_eq!(fixture.pool.load(), load(0, 0));
}

#[tokio::test]
async fn the_dead_are_named() {
    let fixture = Fixture::new();
    let (name, _) = fixture.add(1, 2);
    fixture.until_idle(2).await;
    let slot = fixture.take().await.expect("idle");
    let worker = Arc::clone(slot.worker());
    fixture.pool.bury(&name, "killed by SIGSEGV");
    assert_eq!(
        worker.obituary().await.as_deref(),
        Some("killed by SIGSEGV")
    );
    drop(slot);
    let mut waiting = Box::pin(fixture.take());
    assert!(
        futures_poll(waiting.as_mut()).await.is_none(),
        "nobody is left"
    );
}

/// Its requests used to be told that it "closed the connection", which says nothing.
#[tokio::test]
async fn who_dies_on_the_way_out_is_named_too() {
    let mut fixture = Fixture::new();
    let (name, _) = fixture.add(1, 2);
    fixture.until_idle(2).await;
    let slot = fixture.take().await.expect("idle");
    let worker = Arc::clone(slot.worker());
    fixture.pool.release(&name);
    drop(slot);
    let relieved = Report::Relieved {
        worker: name.clone(),
    };
    assert_eq!(fixture.reports.recv().await, Some(relieved));
    let released = Report::Released {
        worker: name.clone(),
    };
    assert_eq!(fixture.reports.recv().await, Some(released));
    fixture.pool.bury(&name, "killed by SIGKILL");
    assert_eq!(
        worker.obituary().await.as_deref(),
        Some("killed by SIGKILL")
    );
}

/// Polls a few times, so that what can happen at once happens.
async fn futures_poll<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    for _ in 0..20 {
        let polled = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        });
        if let Some(output) = polled.await {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}
