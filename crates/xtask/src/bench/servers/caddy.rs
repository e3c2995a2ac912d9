//! Caddy before a Python server, as its documentation has it, with an access log to a file.

use std::fs;

use anyhow::Result;

use crate::bench::peer::{Address, Scene, Started, Tree};

pub(super) fn before(scene: &Scene<'_>, server: fn(&Scene<'_>) -> Result<Tree>) -> Result<Started> {
    let config = scene.folder.join("Caddyfile");
    let text = format!(
        "{{\n admin off\n auto_https off\n}}\n\
         :{port} {{\n bind 127.0.0.1\n log {{\n  output file {run}/access.log\n }}\n\
         reverse_proxy unix/{socket} {{\n  transport http {{\n   keepalive_idle_conns_per_host 64\n  }}\n }}\n}}\n",
        port = scene.port,
        run = scene.folder.display(),
        socket = scene.socket(),
    );
    fs::write(&config, text)?;
    let mut command = scene.command("caddy")?;
    // Whatever it keeps goes with the rest of the run.
    let command = command
        .env("HOME", scene.folder)
        .env("XDG_DATA_HOME", scene.folder);
    let command = command.args(["run", "--adapter", "caddyfile", "--config"]);
    let proxy = Tree {
        child: command.arg(&config).spawn()?,
        part: |_| "proxy",
    };
    Ok(Started {
        trees: vec![proxy, server(scene)?],
        address: Address::Port(scene.port),
    })
}
