//! Lines that repeat: a place in the code that speaks too often is cut short, and what was left out is counted and said.
//!
//! Under overload every request may be worth a warning, and ten thousand of them a second help nobody and fill the disk.
//! Who has asked for debug output gets all of it.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{
    Event, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    filter::LevelFilter,
    layer::{Context, Filter},
};

use crate::panics;

/// So many lines of one place pass in [`WINDOW`]: enough to see a pattern, few enough to read.
const BURST: u64 = 50;
const WINDOW: Duration = Duration::from_secs(10);

/// How much of a line stands for those that were left out.
const SAMPLE: usize = 200;

/// Counts what each place says.
#[derive(Clone, Debug)]
pub(super) struct Repeats {
    places: Arc<Mutex<HashMap<Identifier, Place>>>,
    /// Nothing is left out.
    all: Arc<AtomicBool>,
    window: Duration,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    said: u64,
    /// What the first line that was left out says.
    sample: String,
}

impl Repeats {
    pub(super) fn new() -> Self {
        Self::with(WINDOW)
    }

    fn with(window: Duration) -> Self {
        Self {
            places: Arc::default(),
            all: Arc::default(),
            window,
        }
    }

    /// Learns what is logged now.
    pub(super) fn follow(&self, filter: &EnvFilter) {
        let most = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
        self.all.store(most > LevelFilter::INFO, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Place>> {
        panics::lock(&self.places)
    }

    fn passes(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        if self.all.load(Ordering::Relaxed) {
            return true;
        }
        let now = Instant::now();
        let mut places = self.lock();
        let place = places.entry(metadata.callsite()).or_insert_with(|| Place {
            since: now,
            said: 0,
            sample: String::new(),
        });
        if place.said <= BURST && now.duration_since(place.since) >= self.window {
            place.since = now;
            place.said = 0;
        }
        place.said += 1;
        if place.said == BURST + 1 {
            place.sample = sample(event);
            let wait = self.window.saturating_sub(now.duration_since(place.since));
            if self.tell_later(metadata.callsite(), wait).is_err() {
                // Nobody would end the silence.
                place.said = 0;
            }
        }
        place.said <= BURST
    }

    /// The silence ends with the window, whether the place speaks again or not.
    fn tell_later(&self, place: Identifier, wait: Duration) -> io::Result<()> {
        let repeats = self.clone();
        thread::Builder::new()
            .name("log-repeats".to_owned())
            .spawn(move || {
                thread::sleep(wait);
                let Some(place) = repeats.lock().remove(&place) else {
                    return;
                };
                let more = place.said.saturating_sub(BURST);
                let window = crate::text::Elapsed(repeats.window);
                tracing::warn!(
                    "{more} more lines within {window} were left out, such as: {}",
                    place.sample
                );
            })
            .map(drop)
    }
}

impl<S: Subscriber> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    /// Without one, all that asks whether a level is enabled at all would be told that it is.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.passes(event)
    }
}

fn sample(event: &Event<'_>) -> String {
    #[derive(Default)]
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}").chars().take(SAMPLE).collect();
            }
        }
    }
    let mut message = Message::default();
    event.record(&mut message);
    message.0
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{Layer as _, fmt::MakeWriter, layer::SubscriberExt as _};

    use super::*;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<String>>);

    impl io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Said {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn hearing(repeats: Repeats) -> (Said, tracing::Dispatch) {
        let said = Said::default();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(said.clone())
            .with_filter(repeats);
        (said, tracing_subscriber::registry().with(layer).into())
    }

    #[test]
    fn a_place_that_repeats_itself_is_cut_short_and_others_are_not() {
        let (said, dispatch) = hearing(Repeats::with(Duration::from_secs(3600)));
        tracing::dispatcher::with_default(&dispatch, || {
            for number in 0..1000 {
                tracing::warn!("request {number} failed");
            }
            tracing::warn!("something else");
        });
        let said = said.0.lock().unwrap();
        assert_eq!(said.matches("failed").count() as u64, BURST);
        assert_eq!(said.matches("something else").count(), 1);
    }

    #[test]
    fn who_asks_for_debug_output_gets_all_of_it() {
        let repeats = Repeats::with(Duration::from_secs(3600));
        repeats.follow(&EnvFilter::new("warn,proxy=debug"));
        let (said, dispatch) = hearing(repeats);
        tracing::dispatcher::with_default(&dispatch, || {
            for number in 0..200 {
                tracing::warn!("request {number} failed");
            }
        });
        assert_eq!(said.0.lock().unwrap().matches("failed").count(), 200);
    }

    #[test]
    fn the_count_is_kept_for_whoever_tells_it() {
        let repeats = Repeats::with(Duration::from_secs(3600));
        let (_, dispatch) = hearing(repeats.clone());
        tracing::dispatcher::with_default(&dispatch, || {
            for number in 0..60 {
                tracing::error!("request {number} failed");
            }
        });
        let places = repeats.lock();
        let place = places.values().next().unwrap();
        assert_eq!(place.said, 60);
        assert_eq!(place.sample, format!("request {BURST} failed"));
    }

    #[test]
    fn a_new_window_begins_anew() {
        let (said, dispatch) = hearing(Repeats::with(Duration::ZERO));
        tracing::dispatcher::with_default(&dispatch, || {
            for number in 0..500 {
                tracing::warn!("request {number} failed");
            }
        });
        assert_eq!(said.0.lock().unwrap().matches("failed").count(), 500);
    }
}
