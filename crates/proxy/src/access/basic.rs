//! `auth = { basic = … }`: names and passwords (RFC 7617).
//!
//! A browser sends the same name and password with every request, and a good hash takes tens of milliseconds on purpose.
//! So hashes are computed where blocking is allowed, only a few at a time, and what fitted is remembered for a minute: not the
//! password, but a keyed hash of it whose key dies with the process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use telemetry::panics;
use tokio::sync::Semaphore;

use super::passwords::Users;
use crate::failure::Failure;

/// How long a password that fitted is taken as fitting.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How many are remembered; more people than that at once pay with a hash each.
const REMEMBERED_MOST: usize = 4096;

/// How long a request may wait for its turn to have a hash computed.
const TURN: Duration = Duration::from_secs(5);

/// A file of users, and who of them was here a moment ago.
#[derive(Debug)]
pub(crate) struct Basic {
    users: ArcSwap<Users>,
    realm: Arc<str>,
    key: hmac::Key,
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    /// Guessing passwords must not take all cores, nor all blocking threads.
    turns: Semaphore,
}

impl Basic {
    /// Lets in the users of the file. `realm` is what a browser shows above the question.
    pub(crate) fn new(users: Users, realm: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let random: [u8; 32] = {
            let mut bytes = [0; 32];
            aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
            bytes
        };
        Self {
            users: ArcSwap::from_pointee(users),
            realm: realm.into(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &random),
            remembered: Mutex::default(),
            turns: Semaphore::new(cores.div_ceil(2)),
        }
    }

    /// The name of who asks.
    pub(crate) async fn user(&self, authorization: Option<&[u8]>) -> Result<String, Failure> {
        let refused = || Failure::Unauthorized {
            challenge: format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.realm).into(),
        };
        let (name, password) = authorization.and_then(credentials).ok_or_else(refused)?;
        let digest = self.digest(&name, &password);
        if self.remembers(&digest) {
            return Ok(name);
        }
        let users = self.users.load_full();
        if !self.verify(&users, name.clone(), password).await? {
            return Err(refused());
        }
        self.remember(digest, &users);
        Ok(name)
    }

    /// Lets in these from now on. Who was here a moment ago has to fit anew.
    pub(crate) fn renew(&self, users: Users) {
        let mut remembered = panics::lock(&self.remembered);
        self.users.store(Arc::new(users));
        remembered.clear();
    }

    async fn verify(
        &self,
        users: &Arc<Users>,
        name: String,
        password: Vec<u8>,
    ) -> Result<bool, Failure> {
        let turn = tokio::time::timeout(TURN, self.turns.acquire()).await;
        let _turn = turn
            .map_err(|_| Failure::AuthBusy)?
            .expect("the semaphore is never closed");
        let users = Arc::clone(users);
        tokio::task::spawn_blocking(move || users.verify(&name, &password))
            .await
            .map_err(|_| Failure::AuthBusy)
    }

    fn digest(&self, name: &str, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        // No name has a colon (RFC 7617 §2), so no two pairs look alike.
        context.update(name.as_bytes());
        context.update(b":");
        context.update(password);
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    fn remembers(&self, digest: &[u8; 32]) -> bool {
        let remembered = panics::lock(&self.remembered);
        remembered
            .get(digest)
            .is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    /// `users` are those among whom it fitted.
    fn remember(&self, digest: [u8; 32], users: &Arc<Users>) {
        let mut remembered = panics::lock(&self.remembered);
        // Meanwhile there may be others.
        if !Arc::ptr_eq(users, &self.users.load()) {
            return;
        }
        if remembered.len() >= REMEMBERED_MOST {
            remembered.retain(|_, since| since.elapsed() < REMEMBERED);
        }
        if remembered.len() < REMEMBERED_MOST {
            remembered.insert(digest, Instant::now());
        }
    }
}

/// Name and password out of an `Authorization` field.
fn credentials(field: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = field.split_at_checked(5)?;
    if !scheme.eq_ignore_ascii_case(b"basic") || !rest.starts_with(b" ") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = memchr::memchr(b':', &decoded)?;
    let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    // What goes to the app and into logs has no control characters and no spaces, as no name in the file has.
    let plain = name.bytes().all(|byte| byte.is_ascii_graphic()) && !name.is_empty();
    plain.then(|| (name, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str) -> Vec<u8> {
        format!("Basic {}", BASE64_STANDARD.encode(text)).into_bytes()
    }

    fn basic() -> Basic {
        let hash = crate::access::hash_password(b"open:sesame").expect("hashed");
        Basic::new(Users::parse(&format!("ann:{hash}")).expect("read"), "Staff")
    }

    #[tokio::test]
    async fn only_the_right_pair_comes_in() {
        let basic = basic();
        for (authorization, user) in [
            (Some(field("ann:open:sesame")), Ok("ann")),
            (Some(field("ann:open:sesame")), Ok("ann")),
            (Some(field("ann:open")), Err(401)),
            (Some(field("ann:")), Err(401)),
            (Some(field("Ann:open:sesame")), Err(401)),
            (Some(field("bob:open:sesame")), Err(401)),
            (Some(field(":open:sesame")), Err(401)),
            (Some(field("ann")), Err(401)),
            (Some(field("a\nn:x")), Err(401)),
            (Some(b"Basic !!!".to_vec()), Err(401)),
            (Some(b"Bearer abc".to_vec()), Err(401)),
            (Some(b"Basic".to_vec()), Err(401)),
            (Some(b"".to_vec()), Err(401)),
            (None, Err(401)),
        ] {
            let found = basic.user(authorization.as_deref()).await;
            let found = found.as_deref().map_err(Failure::status);
            assert_eq!(found, user, "{authorization:?}");
        }
        let lower = [b"bAsIc".as_slice(), &field("ann:open:sesame")[5..]].concat();
        assert_eq!(basic.user(Some(&lower)).await.ok().as_deref(), Some("ann"));
    }

    #[tokio::test]
    async fn only_what_fitted_is_remembered_and_not_in_the_clear() {
        let basic = basic();
        let wrong = basic.user(Some(&field("ann:no"))).await;
        assert!(wrong.is_err());
        assert!(basic.remembered.lock().expect("no panic").is_empty());
        let right = basic.user(Some(&field("ann:open:sesame"))).await;
        assert!(right.is_ok());
        assert_eq!(basic.remembered.lock().expect("no panic").len(), 1);
        let shown = format!("{basic:?}");
        assert!(!shown.contains("sesame"), "{shown}");
    }

    #[tokio::test]
    async fn who_is_taken_out_is_out_at_once() {
        let basic = basic();
        let ann = field("ann:open:sesame");
        assert!(basic.user(Some(&ann)).await.is_ok());
        let before = basic.users.load_full();
        let hash = crate::access::hash_password(b"another").expect("hashed");
        basic.renew(Users::parse(&format!("bob:{hash}")).expect("read"));
        assert!(
            basic.user(Some(&ann)).await.is_err(),
            "nor is she remembered"
        );
        // One that was being checked while the file changed.
        basic.remember([0; 32], &before);
        assert!(!basic.remembers(&[0; 32]));
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_waits_its_turn_and_not_for_ever() {
        let basic = basic();
        let all = u32::try_from(basic.turns.available_permits()).expect("few");
        let _taken = basic.turns.acquire_many(all).await.expect("open");
        let busy = basic
            .user(Some(&field("ann:guess")))
            .await
            .expect_err("no turn");
        assert_eq!((busy.status(), busy.cause()), (503, "auth-busy"));
    }
}
