//! Proxies before a server on a Unix socket, which is nginx with one process and a fixed answer.

use std::fs;

use anyhow::Result;

use super::{haproxy, nginx, stack};
use crate::bench::peer::{Scene, Started, Tree};

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
    let site = format!(
        "[[site]]\nroutes = [{{ path = \"/\", upstream = \"unix:{socket}\" }}]\n",
        socket = scene.socket(),
    );
    let origin = origin(scene)?;
    let mut started = stack::sites(scene, &site)?;
    started.trees.push(origin);
    Ok(started)
}

pub(super) fn haproxy(scene: &Scene<'_>) -> Result<Started> {
    haproxy::before(scene, origin)
}
