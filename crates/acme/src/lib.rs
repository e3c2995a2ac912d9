//! Certificates by ACME (RFC 8555): when a site needs one, how it is got, and the process that does both.
//!
//! The *agent* is a process of its own, because it speaks with a server on the internet, as the master never does, and because
//! it must not share a reactor with visitors, as it would in the proxy. It has no files and no key but while it orders:
//! the master keeps everything in the state directory and hands it over (`message`), the proxy answers challenges. What it
//! decides about time is in `schedule`, which is a function of figures and knows no clock.
//!
//! It does HTTP-01 (RFC 8555 §8.3) and TLS-ALPN-01 (RFC 8737), for addresses too (RFC 8738), and asks when to renew (RFC
//! 9773). It does not do DNS-01, and so no wildcards.

mod account;
mod agent;
mod certificate;
mod challenge;
pub mod channel;
mod client;
mod confine;
mod link;
pub mod message;
mod order;
pub mod schedule;
mod site;
mod work;

pub use account::mac_key;
pub use agent::{Error, run};
pub use certificate::{Facts, account_id, id};
