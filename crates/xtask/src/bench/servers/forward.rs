//! Proxies before a server on a Unix socket, which is nginx with one process and a fixed answer.

use std::fs;

use anyhow::Result;

use super::{nginx, stack};
use crate::bench::peer::{Address, Scene, Started, Tree};

/// The server behind.
pub(super) fn origin(scene: &Scene<'_>) -> Result<Tree> {
    let config = scene.folder.join("origin.conf");
    let text = format!(
        "{user}daemon off;\nworker_processes 1;\npid {run}/origin.pid;\nerror_log {run}/error.log;\n\
         events {{ worker_connections 4096; }}\nhttp {{\naccess_log off;\nkeepalive_requests 100000000;\n\
         client_body_temp_path {run}/ob; proxy_temp_path {run}/op; fastcgi_temp_path {run}/of; uwsgi_temp_path {run}/ou;\n\
         scgi_temp_path {run}/os;\n\
         server {{ listen unix:{socket}; location / {{ return 200 \"Hello, World!\"; }} }}\n}}\n",
        user = nginx::user(),
        run = scene.folder.display(),
        socket = scene.socket(),
    );
    fs::write(&config, text)?;
    Ok(Tree {
        child: scene.command("nginx")?.arg("-c").arg(&config).spawn()?,
        part: |_| "origin",
    })
}

pub(super) fn nginx(scene: &Scene<'_>) -> Result<Started> {
    nginx::before(scene, origin)
}

pub(super) fn stack(scene: &Scene<'_>) -> Result<Started> {
    let text = format!(
        "[server]\nhttp = [\"127.0.0.1:{port}\"]\n\
         access_log = {{ file = \"access.log\", format = \"combined\" }}\n\
         [limits]\nkeepalive_requests = 100000000\n\
         [[site]]\nroutes = [{{ path = \"/\", upstream = \"unix:{socket}\" }}]\n",
        port = scene.port,
        socket = scene.socket(),
    );
    let origin = origin(scene)?;
    Ok(Started {
        trees: vec![stack::start(scene, &text)?, origin],
        address: Address::Port(scene.port),
    })
}

/// As its documentation has it for HTTP, with as many threads as there are cores. Its log goes to a file, a line at a time: it
/// knows no buffer, and a syslog server would be another process.
pub(super) fn haproxy(scene: &Scene<'_>) -> Result<Started> {
    let config = scene.folder.join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 18000\n  no strict-limits\n  log stdout format raw local0 info\n\
         defaults\n  mode http\n  log global\n  option httplog\n  option http-keep-alive\n  http-reuse always\n\
         \x20 timeout connect 3s\n  timeout client 75s\n  timeout server 60s\n  timeout http-keep-alive 75s\n\
         frontend in\n  bind 127.0.0.1:{port}\n  option forwardfor\n\
         \x20 http-request set-header X-Forwarded-Proto http\n  default_backend app\n\
         backend app\n  server one {socket}\n",
        port = scene.port,
        socket = scene.socket(),
    );
    fs::write(&config, text)?;
    let origin = origin(scene)?;
    let mut command = scene.command("haproxy")?;
    let child = command.args(["-db", "-f"]).arg(&config).spawn()?;
    Ok(Started {
        trees: vec![
            Tree {
                child,
                part: |_| "proxy",
            },
            origin,
        ],
        address: Address::Port(scene.port),
    })
}
