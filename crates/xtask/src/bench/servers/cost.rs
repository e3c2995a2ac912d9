//! Fronts with few and with many sites and routes, which answer with a word: what it costs to find the right one.

use std::fmt::Write as _;

use anyhow::Result;

use super::{nginx, stack};
use crate::bench::peer::{Address, Scene, Started};

/// One site for whoever asks, and so many more that have names.
pub(super) fn stack_sites(scene: &Scene<'_>, count: usize) -> Result<Started> {
    let mut text = String::new();
    for host in hosts(count).chain(["*".to_owned()]) {
        writeln!(
            text,
            "[[site]]\nhosts = [\"{host}\"]\nroutes = [{{ path = \"/\", respond = \"ready\" }}]"
        )?;
    }
    stack::sites(scene, &text)
}

/// The same by nginx.
pub(super) fn nginx_sites(scene: &Scene<'_>, count: usize) -> Result<Started> {
    // With its own defaults it says that the table of names is too small, and does not start.
    let mut text =
        "server_names_hash_max_size 8192; server_names_hash_bucket_size 128;\n".to_owned();
    let port = scene.port;
    for host in hosts(count) {
        writeln!(
            text,
            "server {{ listen 127.0.0.1:{port}; server_name {host}; location / {{ return 200 ready; }} }}"
        )?;
    }
    writeln!(
        text,
        "server {{ listen 127.0.0.1:{port} default_server; location / {{ return 200 ready; }} }}"
    )?;
    started(scene, &text)
}

/// One route for all paths, and so many more.
pub(super) fn stack_routes(scene: &Scene<'_>, count: usize) -> Result<Started> {
    let mut text = "[[site]]\nhosts = [\"*\"]\nroutes = [\n".to_owned();
    for path in paths(count).chain(["/".to_owned()]) {
        writeln!(text, "{{ path = \"{path}\", respond = \"ready\" }},")?;
    }
    text.push_str("]\n");
    stack::sites(scene, &text)
}

/// The same by nginx.
pub(super) fn nginx_routes(scene: &Scene<'_>, count: usize) -> Result<Started> {
    let mut text = format!("server {{ listen 127.0.0.1:{};\n", scene.port);
    for path in paths(count) {
        writeln!(text, "location = {path} {{ return 200 ready; }}")?;
    }
    text.push_str("location / { return 200 ready; } }\n");
    started(scene, &text)
}

fn hosts(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("s{number}.example.org"))
}

fn paths(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("/r/{number}"))
}

fn started(scene: &Scene<'_>, text: &str) -> Result<Started> {
    Ok(Started {
        trees: vec![nginx::start(scene, text)?],
        address: Address::Port(scene.port),
    })
}
