//! Session tickets (RFC 8446 §4.6.1, RFC 5077): what a client brings back so that the next handshake is a short one.
//!
//! The keys come from the master, which makes new ones every few hours: a proxy that is started again still understands the
//! tickets of the one before, and a key that is stolen opens no more than a few hours of TLS 1.2 without the client's help.
//! In TLS 1.3 every resumed session has fresh keys as well.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

/// How long the master keeps to one key before it makes another.
pub const ROTATION: Duration = Duration::from_secs(6 * 3600);

/// A key, and the name by which tickets call it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    /// Any number that no other key in use has.
    pub name: [u8; 8],
    /// Random bytes.
    pub secret: [u8; 32],
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key never reaches a log.
        f.debug_struct("TicketKey").finish_non_exhaustive()
    }
}

/// Seals and opens tickets: with the first key, and with those before it. Without any key there are no tickets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tickets(Arc<ArcSwap<Vec<Sealer>>>);

#[derive(Debug)]
struct Sealer {
    name: [u8; 8],
    key: RandomizedNonceKey,
}

impl Tickets {
    /// Takes new keys, the one in use first.
    pub(crate) fn renew(&self, keys: &[TicketKey]) {
        let sealers = keys.iter().filter_map(|key| {
            let sealer = RandomizedNonceKey::new(&AES_256_GCM, &key.secret).ok()?;
            Some(Sealer {
                name: key.name,
                key: sealer,
            })
        });
        self.0.store(Arc::new(sealers.collect()));
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.0.load().is_empty()
    }

    fn lifetime(&self) -> u32 {
        // The key before is kept as long as the one in use.
        u32::try_from(ROTATION.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let sealers = self.0.load();
        let Sealer { name, key } = sealers.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(name), &mut sealed)
            .ok()?;
        Some([&name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(8)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let sealers = self.0.load();
        let sealer = sealers.iter().find(|sealer| sealer.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let plain = sealer
            .key
            .open_in_place(nonce, Aad::from(&sealer.name), &mut opened)
            .ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> TicketKey {
        TicketKey {
            name: [number; 8],
            secret: [number; 32],
        }
    }

    #[test]
    fn tickets_live_as_long_as_their_key() {
        let tickets = Tickets::default();
        assert!(!tickets.enabled());
        assert_eq!(tickets.encrypt(b"session"), None);
        tickets.renew(&[key(1)]);
        let ticket = tickets.encrypt(b"session").expect("there is a key");
        assert_ne!(
            tickets.encrypt(b"session"),
            Some(ticket.clone()),
            "each is another"
        );
        // Another proxy with the same keys, and the next key.
        let next = Tickets::default();
        next.renew(&[key(2), key(1)]);
        assert_eq!(next.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        next.renew(&[key(3), key(2)]);
        assert_eq!(next.decrypt(&ticket), None);
        for index in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[index] ^= 1;
            assert_eq!(tickets.decrypt(&forged), None, "{index}");
            assert_eq!(tickets.decrypt(&ticket[..index]), None);
        }
    }
}
