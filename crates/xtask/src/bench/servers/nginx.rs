//! nginx before a Python server.

use std::fs;

use anyhow::Result;

use super::{echo, python};
use crate::bench::peer::{Address, Scene, Started, Tree};

/// How requests go to a server that speaks HTTP.
const PASS: &str = "proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                    proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;\n\
                    proxy_set_header X-Forwarded-Proto $scheme;";

/// Before a server that speaks HTTP.
pub(super) fn before(scene: &Scene<'_>, server: fn(&Scene<'_>) -> Result<Tree>) -> Result<Started> {
    started(scene, PASS, server)
}

/// The same without its buffers, as it is told for apps that stream.
pub(super) fn unbuffered(
    scene: &Scene<'_>,
    server: fn(&Scene<'_>) -> Result<Tree>,
) -> Result<Started> {
    let pass = format!("{PASS} proxy_buffering off; proxy_request_buffering off;");
    started(scene, &pass, server)
}

/// Before a server that runs already.
pub(super) fn relay(scene: &Scene<'_>) -> Result<Started> {
    relay_to(scene, PASS, scene.entry)
}

/// The same for a server of WebSockets, as its documentation has it.
pub(super) fn websocket(scene: &Scene<'_>) -> Result<Started> {
    let pass = "proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Host $host;\n\
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";";
    relay_to(scene, pass, &echo::address()?.to_string())
}

fn relay_to(scene: &Scene<'_>, pass: &str, address: &str) -> Result<Started> {
    Ok(Started {
        trees: vec![nginx(scene, pass, address)?],
        address: Address::Port(scene.port),
    })
}

/// Before uWSGI, in its protocol.
pub(super) fn before_uwsgi(scene: &Scene<'_>) -> Result<Started> {
    let pass = "include /etc/nginx/uwsgi_params; uwsgi_pass app;";
    started(scene, pass, python::uwsgi)
}

fn started(
    scene: &Scene<'_>,
    pass: &str,
    server: fn(&Scene<'_>) -> Result<Tree>,
) -> Result<Started> {
    let socket = format!("unix:{}", scene.socket());
    Ok(Started {
        trees: vec![nginx(scene, pass, &socket)?, server(scene)?],
        address: Address::Port(scene.port),
    })
}

fn nginx(scene: &Scene<'_>, pass: &str, app: &str) -> Result<Tree> {
    let text = format!(
        "client_max_body_size 16m;\n\
         upstream app {{ server {app}; keepalive 64; keepalive_requests 1000000; }}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ {pass} }}\n\
         location /static/ {{ root {files}; sendfile on; tcp_nopush on; open_file_cache max=20000; }} }}\n",
        port = scene.port,
        files = scene.place.app.display(),
    );
    start(scene, &text)
}

/// Starts it with these lines of its `http` block, beside those that all have.
pub(super) fn start(scene: &Scene<'_>, text: &str) -> Result<Tree> {
    let config = scene.folder.join("nginx.conf");
    fs::write(&config, configuration(scene, text))?;
    Ok(Tree {
        child: scene.command("nginx")?.arg("-c").arg(&config).spawn()?,
        part: |_| "proxy",
    })
}

/// As root nginx gives its workers another user, who may not reach the app's socket.
pub(super) fn user() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "user root;\n"
    } else {
        ""
    }
}

fn configuration(scene: &Scene<'_>, text: &str) -> String {
    format!(
        "{user}daemon off;\nworker_processes auto;\npid {run}/nginx.pid;\nerror_log {run}/error.log;\n\
         events {{ worker_connections 16384; }}\nhttp {{\naccess_log {run}/access.log combined buffer=64k flush=1s;\n\
         client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u;\n\
         scgi_temp_path {run}/s;\nkeepalive_requests 100000000;\n{text}}}\n",
        user = user(),
        run = scene.folder.display(),
    )
}
