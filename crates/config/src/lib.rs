//! The configuration file: read, checked, and explained where it is wrong.
//!
//! [`load`] makes a [`Site`](site::Site) of `site.toml`, or a [`Report`](error::Report) of everything that is wrong with
//! it. [`machine::inspect`] then asks whether this machine has what the file names. Nothing here binds, spawns or serves.

pub mod arguments;
mod defaults;
mod entry;
mod env_file;
pub mod error;
mod host;
mod listen;
mod load;
pub mod machine;
mod networks;
mod paths;
mod render;
mod schema;
pub mod site;
mod syntax;
pub mod units;
mod walk;

pub use load::{Loaded, load, parse};
pub use schema::NGINX_VARIABLES;

/// An I/O error without the `(os error 2)` that says nothing to people.
#[must_use]
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((plain, _)) => plain.to_lowercase(),
        None => text,
    }
}
