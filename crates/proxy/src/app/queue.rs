//! Who waits for a slot, in which order, and who is told not to wait: a table without a clock, without I/O and without a
//! lock, so that what it decides can be simulated.
//!
//! First come, first served; a route's `queue = "first"` goes before, for health checks that must be answered while
//! everything else waits. A queue bounds three things:
//!
//! - *How many* wait (`limits.queue_length`), and how many of one client (`limits.queue_per_client`): a single visitor with
//!   many connections does not take everybody's places.
//! - *How long* each waits (`limits.queue_timeout`).
//! - *How long all wait* under lasting overload (`limits.queue_target`). Without this a queue in front of an app that gets
//!   more than it can do is always full, and everybody who is served has waited as long as the queue is: the app works
//!   as hard as ever, and the site is as slow as it can be.
//!
//! The last is what CoDel (RFC 8289) does for packets, and its measure is used: not the length of the queue, which says
//! nothing about time, but whether there has been a *standing* queue for an interval. Its control law is not: dropping at a rate that
//! grows with the square root of the drops relies on senders that slow down when they lose packets, and visitors do the
//! opposite; dropping at the front tells the sender sooner, and a visitor later. So while the queue stands, whoever comes and
//! would wait for longer than the target, by the rate at which slots have become free, is told so at once; and who has waited
//! twice as long, because the app has become slower, leaves from the front, where those are who are most likely to have given
//! up (as on Facebook's servers; Maurer, "Fail at Scale", 2015). Two rounds' work always stays, so no slot ever idles for
//! it, and an app whose every request takes seconds is not called overloaded because somebody waited for as long as a
//! request takes.
//!
//! A queue that grows while there is nobody to serve it, as while a worker starts, is not overload.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use crate::network::Network;

/// How long the queue must have stood before anybody is turned away, in targets: bursts shorter than that are what a queue
/// is for.
const INTERVAL: u32 = 10;

/// Who has waited for so many targets leaves.
const LATE: u32 = 2;

/// For how long the rate is taken at which slots become free.
const WINDOW: Duration = Duration::from_secs(1);

/// How many rounds' work stays in the queue whatever its age.
const ROUNDS: usize = 2;

/// Most that wait in front: a health check comes every few seconds, from a handful of places. What is more than that is
/// not one.
const FIRST_MOST: usize = 16;

/// What bounds a queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    /// How many may wait.
    pub(crate) length: usize,
    /// How many of one client.
    pub(crate) per_client: usize,
    /// How long each may wait.
    pub(crate) timeout: Duration,
    /// How long they should wait at most under lasting overload; zero: as long as each likes.
    pub(crate) target: Duration,
}

/// Who wants to wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asker {
    /// `None`: nothing is known of it, and it is not counted.
    pub(crate) client: Option<Network>,
    /// Where it waits.
    pub(crate) place: Place,
}

/// Where a request waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before those who came before it.
    First,
    /// Behind them.
    #[default]
    Last,
}

/// Why somebody may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// So many wait.
    Length(usize),
    /// So many of this client wait.
    Client(usize),
    /// It would take too long.
    Overload,
}

/// A place in the queue, to give it up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(Lane, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    First,
    Last,
}

/// Those who wait; `T` is how each is told that its wait is over.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: BTreeMap<Ticket, Waiting<T>>,
    /// How many of them are in front.
    first: usize,
    next: u64,
    clients: HashMap<Network, usize>,
    /// Since when somebody has always waited although there were slots.
    standing: Option<Standing>,
}

/// A queue that does not go away.
#[derive(Debug)]
struct Standing {
    since: Instant,
    slots: usize,
    /// How many have been served since then.
    served: u32,
    from: Instant,
    /// How many were served in a second, in the window before.
    rate: Option<f64>,
}

impl Standing {
    fn new(slots: usize, now: Instant) -> Self {
        Self {
            since: now,
            slots,
            served: 0,
            from: now,
            rate: None,
        }
    }

    fn count(&mut self, now: Instant) {
        self.served += 1;
        let time = now - self.from;
        if time >= WINDOW {
            self.rate = Some(f64::from(self.served) / time.as_secs_f64());
            self.served = 0;
            self.from = now;
        }
    }

    /// Whether it has been there for so long that it will not go away.
    fn is_overload(&self, bounds: &Bounds, now: Instant) -> bool {
        !bounds.target.is_zero() && now - self.since >= bounds.target * INTERVAL
    }
}

#[derive(Debug)]
struct Waiting<T> {
    turn: T,
    client: Option<Network>,
    since: Instant,
    until: Instant,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            first: 0,
            next: 0,
            clients: HashMap::new(),
            standing: None,
        }
    }
}

impl<T> Queue<T> {
    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nobody serves: what waits from now on is no sign of overload.
    pub(crate) fn pause(&mut self) {
        self.standing = None;
    }

    /// How long the one has waited who is served next but for those in front: about as long as one who comes now will.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        let oldest = self.waiting.range(Ticket(Lane::Last, 0)..).next();
        oldest.map_or(Duration::ZERO, |(_, oldest)| now - oldest.since)
    }

    /// Takes a place, if there is one.
    pub(crate) fn enter(
        &mut self,
        turn: T,
        asker: Asker,
        bounds: &Bounds,
        now: Instant,
    ) -> Result<Ticket, Full> {
        let lane = match asker.place {
            Place::First => Lane::First,
            Place::Last => Lane::Last,
        };
        let (there, most) = match lane {
            Lane::First => (self.first, FIRST_MOST.min(bounds.length)),
            Lane::Last => (self.waiting.len() - self.first, bounds.length),
        };
        if there >= most {
            return Err(Full::Length(there));
        }
        if lane == Lane::Last && self.would_wait_too_long(bounds, now) {
            return Err(Full::Overload);
        }
        let client = asker.client.filter(|_| lane == Lane::Last);
        if let Some(client) = client {
            let count = self.clients.entry(client).or_default();
            if *count >= bounds.per_client {
                return Err(Full::Client(*count));
            }
            *count += 1;
        }
        let ticket = Ticket(lane, self.next);
        self.next += 1;
        self.first += usize::from(lane == Lane::First);
        let waiting = Waiting {
            turn,
            client,
            since: now,
            until: now + bounds.timeout,
        };
        self.waiting.insert(ticket, waiting);
        Ok(ticket)
    }

    fn would_wait_too_long(&self, bounds: &Bounds, now: Instant) -> bool {
        let Some(standing) = &self.standing else {
            return false;
        };
        let length = self.waiting.len() - self.first;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "both are positive, and what does not fit becomes the most"
        )]
        let room = |rate: f64| (rate * bounds.target.as_secs_f64()) as usize;
        standing.is_overload(bounds, now)
            && length >= ROUNDS * standing.slots
            && standing.rate.is_some_and(|rate| length >= room(rate))
    }

    /// Gives a place up; `None` if its turn has come.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let left = self.waiting.remove(&ticket)?;
        self.first -= usize::from(ticket.0 == Lane::First);
        if let Some(client) = left.client
            && let Some(count) = self.clients.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
        if self.waiting.is_empty() {
            self.standing = None;
        }
        Some(left.turn)
    }

    /// Whose turn it is.
    pub(crate) fn next(&mut self, now: Instant) -> Option<T> {
        let (&ticket, _) = self.waiting.first_key_value()?;
        if let Some(standing) = &mut self.standing {
            standing.count(now);
        }
        self.leave(ticket)
    }

    /// When the first of those who wait will have waited for too long.
    pub(crate) fn next_late(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.until).min()
    }

    /// Those who have waited for too long leave.
    pub(crate) fn late(&mut self, now: Instant) -> Vec<T> {
        let late = self.waiting.iter().filter(|(_, it)| it.until <= now);
        let late: Vec<Ticket> = late.map(|(&ticket, _)| ticket).collect();
        let left = late.into_iter().filter_map(|ticket| self.leave(ticket));
        left.collect()
    }

    /// Everybody's wait is over.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            next: self.next,
            ..Self::default()
        };
    }

    /// Somebody came or is about to be served by one of `slots`: who is told not to wait any longer, and for how long each
    /// has. To be asked again until there is nobody.
    pub(crate) fn shed(
        &mut self,
        slots: usize,
        bounds: &Bounds,
        now: Instant,
    ) -> Option<(T, Duration)> {
        if slots == 0 || self.waiting.is_empty() {
            self.pause();
            return None;
        }
        let standing = self
            .standing
            .get_or_insert_with(|| Standing::new(slots, now));
        standing.slots = slots;
        if !standing.is_overload(bounds, now) {
            return None;
        }
        let (&ticket, oldest) = self.waiting.range(Ticket(Lane::Last, 0)..).next()?;
        let waited = now - oldest.since;
        if waited <= bounds.target * LATE || self.waiting.len() - self.first <= ROUNDS * slots {
            return None;
        }
        self.leave(ticket).map(|turn| (turn, waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        length: 512,
        per_client: 128,
        timeout: Duration::from_secs(30),
        target: Duration::from_millis(500),
    };

    fn from(client: u32) -> Asker {
        Asker {
            client: Some(Network::V4(client)),
            place: Place::Last,
        }
    }

    const CHECK: Asker = Asker {
        client: None,
        place: Place::First,
    };

    fn drain(queue: &mut Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.next(Instant::now())).collect()
    }

    #[test]
    fn first_come_first_served_but_for_health_checks() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for number in 1..=3 {
            queue.enter(number, from(1), &BOUNDS, now).expect("room");
        }
        queue.enter(10, CHECK, &BOUNDS, now).expect("room");
        let third = queue.enter(4, from(2), &BOUNDS, now).expect("room");
        queue.enter(11, CHECK, &BOUNDS, now).expect("room");
        queue.enter(5, from(2), &BOUNDS, now).expect("room");
        assert_eq!(queue.leave(third), Some(4));
        assert_eq!(queue.leave(third), None);
        assert_eq!(drain(&mut queue), [10, 11, 1, 2, 3, 5]);
        assert!(queue.clients.is_empty());
    }

    #[test]
    fn nobody_takes_all_places() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let bounds = Bounds {
            length: 5,
            per_client: 3,
            ..BOUNDS
        };
        let mut enter = |asker| queue.enter(0, asker, &bounds, now);
        let one = enter(from(1)).expect("room");
        for _ in 0..2 {
            enter(from(1)).expect("room");
        }
        assert_eq!(enter(from(1)), Err(Full::Client(3)));
        enter(from(2)).expect("room");
        enter(Asker::default()).expect("room");
        assert_eq!(enter(from(3)), Err(Full::Length(5)));
        enter(CHECK).expect("a check has room of its own");
        for _ in 0..4 {
            enter(CHECK).expect("room");
        }
        assert_eq!(enter(CHECK), Err(Full::Length(5)));
        queue.leave(one);
        queue.enter(0, from(1), &bounds, now).expect("room again");
    }

    /// Each by what was true when it came: a new configuration may be less patient.
    #[test]
    fn nobody_waits_longer_than_allowed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        let hasty = Bounds {
            timeout: Duration::from_secs(10),
            ..BOUNDS
        };
        assert_eq!(queue.next_late(), None);
        queue.enter(1, from(1), &BOUNDS, now).expect("room");
        queue.enter(2, CHECK, &BOUNDS, after(5)).expect("room");
        queue.enter(3, from(1), &hasty, after(6)).expect("room");
        assert_eq!(queue.next_late(), Some(after(16)));
        assert_eq!(queue.late(after(15)), [0; 0]);
        assert_eq!(queue.late(after(16)), [3]);
        assert_eq!(queue.next_late(), Some(after(30)));
        assert_eq!(queue.late(after(40)), [2, 1]);
        assert_eq!((queue.len(), queue.next_late()), (0, None));
        assert!(queue.clients.is_empty());
    }

    /// An app in which each request takes `work`, and requests that come evenly, so many a second.
    struct Simulation {
        slots: usize,
        work: Duration,
        bounds: Bounds,
    }

    #[derive(Debug, Default)]
    struct Outcome {
        /// How long each waited that was served, in the order in which they were.
        served: Vec<Duration>,
        shed: Vec<Duration>,
        full: usize,
        /// How many slots had nothing to do, added up over all arrivals.
        idle: usize,
        left: usize,
    }

    impl Simulation {
        /// `rates`: seconds, and requests in each of them.
        fn run(&self, rates: &[(u32, u32)]) -> Outcome {
            let mut queue = Queue::default();
            let mut outcome = Outcome::default();
            let mut now = Instant::now();
            let mut busy: Vec<Instant> = Vec::new();
            for &(seconds, rate) in rates {
                for _ in 0..seconds * rate.max(1) {
                    let next = now + Duration::from_secs(1) / rate.max(1);
                    self.until(next, &mut queue, &mut busy, &mut outcome);
                    now = next;
                    if rate > 0 {
                        self.arrive(now, &mut queue, &mut busy, &mut outcome);
                    }
                }
            }
            outcome.left = queue.waiting.len();
            outcome
        }

        fn arrive(
            &self,
            now: Instant,
            queue: &mut Queue<Instant>,
            busy: &mut Vec<Instant>,
            outcome: &mut Outcome,
        ) {
            if busy.len() < self.slots {
                outcome.idle += self.slots - busy.len() - 1;
                outcome.served.push(Duration::ZERO);
                busy.push(now + self.work);
                return;
            }
            while let Some((_, waited)) = queue.shed(self.slots, &self.bounds, now) {
                outcome.shed.push(waited);
            }
            match queue.enter(now, Asker::default(), &self.bounds, now) {
                Ok(_) => {}
                Err(Full::Overload) => outcome.shed.push(Duration::ZERO),
                Err(_) => outcome.full += 1,
            }
        }

        /// Slots become free until then, and take who waits.
        fn until(
            &self,
            then: Instant,
            queue: &mut Queue<Instant>,
            busy: &mut Vec<Instant>,
            outcome: &mut Outcome,
        ) {
            while let Some(at) = (0..busy.len()).min_by_key(|&at| busy[at])
                && busy[at] <= then
            {
                let now = busy.swap_remove(at);
                while let Some((_, waited)) = queue.shed(self.slots, &self.bounds, now) {
                    outcome.shed.push(waited);
                }
                if let Some(since) = queue.next(now) {
                    outcome.served.push(now - since);
                    busy.push(now + self.work);
                }
            }
        }
    }

    const FAST: Simulation = Simulation {
        slots: 4,
        work: Duration::from_millis(10),
        bounds: BOUNDS,
    };

    #[test]
    fn a_burst_is_what_a_queue_is_for() {
        // 4 slots do 400 a second: 500 at once take 1.25 s, and nobody is turned away.
        let outcome = FAST.run(&[(1, 500), (4, 300)]);
        assert_eq!((outcome.shed.len(), outcome.full), (0, 0));
        assert_eq!(outcome.served.len() + outcome.left, 500 + 1200);
    }

    #[test]
    fn under_lasting_overload_no_slot_idles_and_nobody_who_is_served_has_waited_long() {
        let outcome = FAST.run(&[(30, 1600)]);
        let served = outcome.served.len();
        assert!(served >= 11_990, "{served} of 12000 that can be done");
        // It is known to be overload after five seconds, and then the queue takes a while to become shorter.
        let late = &outcome.served[7 * 400..];
        let longest = late.iter().max().expect("some");
        assert!(*longest <= Duration::from_millis(510), "{longest:?}");
        let waited = outcome.shed.iter().filter(|waited| !waited.is_zero());
        let (waited, all) = (waited.count(), outcome.shed.len());
        assert!(
            waited < 200 && all > 25_000,
            "{waited} of {all} waited in vain"
        );
    }

    #[test]
    fn without_a_target_everybody_waits_for_as_long_as_the_queue_is() {
        // What the target is for: the same work gets done, and every visitor waits for 1.28 s.
        let bounds = Bounds {
            target: Duration::ZERO,
            ..BOUNDS
        };
        let outcome = Simulation { bounds, ..FAST }.run(&[(30, 1600)]);
        assert!(outcome.served.len() >= 11_990);
        let late = &outcome.served[6 * 400..];
        let shortest = late.iter().min().expect("some");
        assert!(*shortest >= Duration::from_millis(1270), "{shortest:?}");
    }

    #[test]
    fn it_recovers_within_the_target() {
        let outcome = FAST.run(&[(30, 1600), (1, 40), (5, 200)]);
        let calm = &outcome.served[outcome.served.len() - 1000..];
        assert!(calm.iter().all(Duration::is_zero));
        assert_eq!(outcome.left, 0);
    }

    #[test]
    fn an_app_of_long_requests_is_not_overloaded_because_somebody_waits_for_one() {
        // Ten people look at a report that takes 2 s, one after the other, all day.
        let slow = Simulation {
            slots: 2,
            work: Duration::from_secs(2),
            bounds: BOUNDS,
        };
        let outcome = slow.run(&[(1, 5), (60, 1)]);
        assert!(outcome.shed.is_empty(), "{:?}", outcome.shed);
        // Twice what it can do: it stays at work, and who waits, waits for two rounds.
        let outcome = slow.run(&[(60, 2)]);
        assert!(outcome.served.len() >= 58, "{}", outcome.served.len());
        let longest = outcome.served.iter().max().expect("some");
        assert!(*longest <= Duration::from_secs(8), "{longest:?}");
    }

    #[test]
    fn waiting_for_a_worker_is_not_overload() {
        let mut queue = Queue::default();
        let begun = Instant::now();
        for number in 0..300 {
            let now = begun + Duration::from_millis(20) * number;
            assert!(queue.shed(0, &BOUNDS, now).is_none());
            queue
                .enter(number, Asker::default(), &BOUNDS, now)
                .expect("room");
        }
        // The worker is there after six seconds, and everybody gets a chance.
        let now = begun + Duration::from_secs(6);
        assert!(queue.shed(4, &BOUNDS, now).is_none());
        assert_eq!(queue.next(now), Some(0));
        assert_eq!(queue.age(now), Duration::from_millis(5980));
    }
}
