//! How often a client may ask: a token bucket for each key, in memory that does not grow.
//!
//! The bucket is kept as one time stamp, the generic cell rate algorithm's theoretical arrival time (ITU-T I.371): what a
//! key has used up lies in the future by so much, and drains by itself. Keys live in small sets of a table of fixed size;
//! a new key takes the place of the one in its set that has used up least, so whoever comes often is not forgotten for
//! those who come once. Which set a key belongs to is drawn by a keyed hash: nobody can aim at another's.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::Mutex,
    time::{Duration, Instant},
};

use config::site::Limit;
use telemetry::panics;

/// Keys that share one place of the table. More would be a longer walk, fewer would forget sooner.
const SET: usize = 8;

/// Locks that the table is spread over: more than there are threads that could meet.
const SHARDS: usize = 64;

/// The buckets of one `limit`.
#[derive(Debug)]
pub(crate) struct Limiter {
    requests: u32,
    per: Duration,
    /// What one request uses up.
    cost: u64,
    /// What may be used up at once.
    room: u64,
    ban: Option<Ban>,
    begun: Instant,
    hash: RandomState,
    shards: Box<[Mutex<Box<[Bucket]>>]>,
}

/// When a key is shut out for longer than its bucket says.
#[derive(Clone, Copy, Debug)]
struct Ban {
    /// After so many refusals in a row.
    after: u32,
    /// In nanoseconds.
    time: u64,
}

/// What is known of one key. Times are nanoseconds since the limiter was made.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// The key's hash; 0 is nobody's.
    key: u64,
    /// The theoretical arrival time.
    drained: u64,
    /// Until then nothing is let through.
    banned: u64,
    /// Since the bucket was last empty.
    refusals: u32,
}

/// A request that comes too soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    /// When the next one would be let through.
    pub(crate) retry: Duration,
    /// Whether that is because it came too soon too often.
    pub(crate) banned: bool,
    /// What would have been allowed: so many requests
    pub(crate) requests: u32,
    /// in so long a time.
    pub(crate) per: Duration,
}

impl Limiter {
    /// Empty buckets, `keys` of them at most.
    pub(crate) fn new(limit: &Limit, keys: usize) -> Self {
        let cost = nanoseconds(limit.per) / u64::from(limit.requests.max(1));
        let each = keys.div_ceil(SHARDS).next_multiple_of(SET).max(SET);
        let shard = || Mutex::new(vec![Bucket::default(); each].into_boxed_slice());
        Self {
            requests: limit.requests,
            per: limit.per,
            cost,
            room: cost.saturating_mul(u64::from(limit.burst.max(1))),
            ban: limit.ban.map(|ban| Ban {
                after: ban.after,
                time: nanoseconds(ban.time),
            }),
            begun: Instant::now(),
            hash: RandomState::new(),
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }

    /// Takes one request of this key into account.
    pub(crate) fn take(&self, key: impl Hash, now: Instant) -> Result<(), TooMany> {
        // 0 marks an empty place; one key in 2^64 shares its bucket with another.
        let key = self.hash.hash_one(key).max(1);
        let now = nanoseconds(now.saturating_duration_since(self.begun));
        let shard = &self.shards[(key & 0xffff_ffff) as usize % SHARDS];
        let mut buckets = panics::lock(shard);
        let sets = buckets.len() / SET;
        let at = (key >> 32) as usize % sets * SET;
        let bucket = of_key(&mut buckets[at..at + SET], key, now);
        self.spend(bucket, now)
    }

    fn spend(&self, bucket: &mut Bucket, now: u64) -> Result<(), TooMany> {
        let too_many = |until: u64, banned| TooMany {
            retry: Duration::from_nanos(until.saturating_sub(now)),
            banned,
            requests: self.requests,
            per: self.per,
        };
        if bucket.banned > now {
            return Err(too_many(bucket.banned, true));
        }
        if bucket.drained <= now {
            bucket.refusals = 0;
        }
        let full = bucket.drained.max(now).saturating_add(self.cost);
        let limit = now.saturating_add(self.room);
        if full <= limit {
            bucket.drained = full;
            return Ok(());
        }
        bucket.refusals = bucket.refusals.saturating_add(1);
        match self.ban {
            Some(ban) if bucket.refusals >= ban.after => {
                bucket.refusals = 0;
                bucket.banned = now.saturating_add(ban.time);
                Err(too_many(bucket.banned, true))
            }
            _ => Err(too_many(now + (full - limit), false)),
        }
    }
}

/// The bucket of a key: its own, an empty place, or that of the key that has used up least.
fn of_key(set: &mut [Bucket], key: u64, now: u64) -> &mut Bucket {
    let known = set.iter().position(|bucket| bucket.key == key);
    let at = known.unwrap_or_else(|| {
        let coldest = set
            .iter()
            .enumerate()
            .min_by_key(|(_, bucket)| bucket.drained.max(bucket.banned));
        let (at, _) = coldest.expect("a set has places");
        set[at] = Bucket {
            key,
            drained: now,
            ..Bucket::default()
        };
        at
    });
    &mut set[at]
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use config::site::{self, LimitBy};

    use super::*;
    use crate::network::Network;

    fn limit(requests: u32, burst: u32) -> Limit {
        Limit {
            requests,
            per: Duration::from_secs(1),
            burst,
            by: LimitBy::Address,
            ban: None,
        }
    }

    fn after(limiter: &Limiter, milliseconds: u64) -> Instant {
        limiter.begun + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        let limiter = Limiter::new(&limit(10, 5), 1024);
        let passed = |at, count| {
            (0..count)
                .filter(|_| limiter.take("a", after(&limiter, at)).is_ok())
                .count()
        };
        assert_eq!(passed(0, 100), 5, "the burst");
        let refused = limiter
            .take("a", after(&limiter, 0))
            .expect_err("it is used up");
        assert_eq!(
            (refused.retry, refused.banned),
            (Duration::from_millis(100), false)
        );
        assert_eq!(passed(100, 100), 1, "one every 100 ms");
        assert_eq!(passed(350, 100), 2);
        assert_eq!(passed(10_000, 100), 5, "and in the end the burst again");
        assert!(
            limiter.take("b", after(&limiter, 10_000)).is_ok(),
            "each key has its own"
        );
    }

    #[test]
    fn who_does_not_stop_is_banned_for_a_time() {
        let mut limit = limit(1, 1);
        limit.ban = Some(site::Ban {
            after: 3,
            time: Duration::from_secs(60),
        });
        let limiter = Limiter::new(&limit, 1024);
        let take = |at| limiter.take("a", after(&limiter, at));
        assert_eq!(take(0), Ok(()));
        for _ in 0..2 {
            assert!(!take(1).expect_err("too soon").banned);
        }
        let banned = take(1).expect_err("once too often");
        assert_eq!(
            (banned.retry, banned.banned),
            (Duration::from_secs(60), true)
        );
        assert!(take(59_000).expect_err("still").banned);
        assert_eq!(take(60_002), Ok(()));
        // Patience between refusals begins the count anew.
        for second in 62..100 {
            assert_eq!(take(second * 1000 + 1), Ok(()));
            assert!(!take(second * 1000 + 2).expect_err("too soon").banned);
        }
    }

    #[test]
    fn many_addresses_neither_grow_it_nor_free_the_busy_one() {
        let limiter = Limiter::new(&limit(1, 3), 4096);
        let places = |limiter: &Limiter| {
            let shards = limiter.shards.iter();
            shards
                .map(|shard| shard.lock().expect("no panic").len())
                .sum::<usize>()
        };
        let before = places(&limiter);
        let busy = Network::V4(0xc000_0201);
        let mut passed = 0;
        for number in 0..50_000_u32 {
            let now = after(&limiter, u64::from(number) / 50);
            let other = Network::V4(0x0a00_0000 + number);
            assert_eq!(limiter.take(other, now), Ok(()), "nobody pays for another");
            passed += u32::from(limiter.take(busy, now).is_ok());
        }
        assert_eq!(places(&limiter), before);
        assert!(passed <= 4, "three at once and one in the second: {passed}");
    }
}
