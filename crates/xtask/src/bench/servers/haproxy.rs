//! HAProxy before another server: as its documentation has it for HTTP, with as many threads as there are cores. Its log goes
//! to a file, a line at a time: it knows no buffer, and a syslog server would be another process.

use std::fs;

use anyhow::Result;

use super::echo;
use crate::bench::peer::{Address, Scene, Started, Tree};

/// Before a server on [`Scene::socket`].
pub(super) fn before(scene: &Scene<'_>, server: fn(&Scene<'_>) -> Result<Tree>) -> Result<Started> {
    let behind = server(scene)?;
    started(scene, &scene.socket(), "", Some(behind))
}

/// Before a server of events that runs already: without this option it holds the last piece back for another fifth of a second.
pub(super) fn relay(scene: &Scene<'_>) -> Result<Started> {
    started(scene, scene.entry, "  option http-no-delay\n", None)
}

/// Before a server of WebSockets.
pub(super) fn websocket(scene: &Scene<'_>) -> Result<Started> {
    started(scene, &echo::address()?.to_string(), "", None)
}

fn started(
    scene: &Scene<'_>,
    address: &str,
    defaults: &str,
    behind: Option<Tree>,
) -> Result<Started> {
    let config = scene.folder.join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 18000\n  no strict-limits\n  log stdout format raw local0 info\n\
         defaults\n  mode http\n  log global\n  option httplog\n  option http-keep-alive\n  http-reuse always\n\
         \x20 timeout connect 3s\n  timeout client 75s\n  timeout server 60s\n  timeout http-keep-alive 75s\n  timeout tunnel 1h\n{defaults}\
         frontend in\n  bind 127.0.0.1:{port}\n  option forwardfor\n\
         \x20 http-request set-header X-Forwarded-Proto http\n  default_backend app\n\
         backend app\n  server one {address}\n",
        port = scene.port,
    );
    fs::write(&config, text)?;
    let mut command = scene.command("haproxy")?;
    let child = command.args(["-db", "-f"]).arg(&config).spawn()?;
    let proxy = Tree {
        child,
        part: |_| "proxy",
    };
    Ok(Started {
        trees: [proxy].into_iter().chain(behind).collect(),
        address: Address::Port(scene.port),
    })
}
