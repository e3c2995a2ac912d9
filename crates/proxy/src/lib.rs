//! The front: what the internet meets.
//!
//! One process, unprivileged, that accepts connections on sockets the master opened, speaks TLS, HTTP/1.1 and HTTP/2,
//! reads each request whole, finds its route, and answers from files, from a fixed answer or from a slot of an app's pool.
//! It starts no processes, opens no listening socket, reads no configuration file and never runs Python. What it knows of
//! the Python side is a Unix socket and HTTP/1.1.
//!
//! One request's way, in order: `server` → `listener` → `tls` → `connection` → `exchange` (`admit`, `route`, then `files`
//! or `app` or `upstream`) → `connection`; every error becomes a response in `failure`, once.

pub mod access;
mod address;
mod admit;
mod app;
mod boxed;
mod buffer;
mod challenges;
pub mod channel;
mod clock;
mod closed;
mod coder;
mod compress;
pub mod confine;
mod connection;
pub mod control;
mod dev;
mod door;
mod exchange;
mod failure;
mod figures;
mod files;
mod framed;
mod health;
mod journal;
mod listener;
mod memory;
mod network;
pub mod operators;
mod origin;
mod pages;
pub mod plan;
mod put;
mod redirect;
mod request;
mod response;
mod route;
mod server;
mod spans;
mod timer;
pub mod tls;
mod trust;
mod upstream;

pub use memory::GiveBack;
pub use server::{Error, run};
