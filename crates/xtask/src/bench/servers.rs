//! The servers, ours first: how each is started as its own documentation has it for production.

use std::fs;

use anyhow::Result;

use super::peer::{Peer, Scene, Started};

/// All of them.
pub(crate) fn all(workers: usize, threads: usize) -> Vec<Peer> {
    const BOTH: &[&str] = &["proxy", "worker"];
    let peer = |name, parts, start| Peer {
        name,
        parts,
        has_files: matches!(name, "stack" | "nginx + gunicorn gthread"),
        workers,
        threads,
        start,
    };
    vec![
        peer("stack", BOTH, stack),
        peer("nginx + gunicorn gthread", BOTH, nginx_gthread),
        peer("nginx + gunicorn sync", BOTH, nginx_sync),
        peer("nginx + granian", BOTH, nginx_granian),
        peer("nginx + uwsgi", BOTH, nginx_uwsgi),
        peer("nginx + waitress", BOTH, nginx_waitress),
        peer("granian", &["worker"], granian),
    ]
}

fn worker(_: &str) -> &'static str {
    "worker"
}

fn stack(scene: &Scene<'_>) -> Result<Vec<Started>> {
    let config = scene.folder.join("site.toml");
    let Scene {
        port,
        entry,
        workers,
        threads,
        ..
    } = scene;
    let (root, venv) = (&scene.place.app, &scene.place.venv);
    let files = root.join("static");
    let text = format!(
        "[server]\nhttp = [\"127.0.0.1:{port}\"]\n\
         access_log = {{ file = \"access.log\", format = \"combined\" }}\n\
         [limits]\nkeepalive_requests = 1000000\n\
         [app.bench]\nwsgi = {entry:?}\nroot = {root:?}\nvenv = {venv:?}\nworkers = {workers}\nthreads = {threads}\n\
         [[site]]\nhosts = [\"*\"]\nroutes = [{{ path = \"/static/\", files = {files:?} }}, {{ path = \"/\", app = \"bench\" }}]\n",
    );
    fs::write(&config, text)?;
    let child = scene
        .command(&scene.place.stack)?
        .args(["up", "--config"])
        .arg(&config)
        .spawn()?;
    let part = |line: &str| match line {
        _ if line.contains(" proxy") => "proxy",
        _ if line.contains("python") => "worker",
        _ => "master",
    };
    Ok(vec![Started { child, part }])
}

/// nginx before a server that speaks HTTP.
fn nginx(scene: &Scene<'_>) -> Result<Started> {
    let pass = "proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;\n\
                proxy_set_header X-Forwarded-Proto $scheme;";
    nginx_with(scene, pass)
}

fn nginx_with(scene: &Scene<'_>, pass: &str) -> Result<Started> {
    let config = scene.folder.join("nginx.conf");
    let text = format!(
        "{user}daemon off;\nworker_processes auto;\npid {run}/nginx.pid;\nerror_log {run}/error.log;\n\
         events {{ worker_connections 4096; }}\nhttp {{\naccess_log {run}/access.log combined buffer=64k flush=1s;\n\
         client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u;\n\
         scgi_temp_path {run}/s;\nkeepalive_requests 1000000; client_max_body_size 16m;\n\
         upstream app {{ server unix:{run}/app.sock; keepalive 64; keepalive_requests 1000000; }}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ {pass} }}\n\
         location /static/ {{ root {app}; sendfile on; tcp_nopush on; open_file_cache max=20000; }} }}\n}}\n",
        // As root nginx gives its workers another user, who may not reach the app's socket.
        user = if rustix::process::geteuid().is_root() {
            "user root;\n"
        } else {
            ""
        },
        run = scene.folder.display(),
        port = scene.port,
        app = scene.place.app.display(),
    );
    fs::write(&config, text)?;
    let child = scene.command("nginx")?.arg("-c").arg(&config).spawn()?;
    Ok(Started {
        child,
        part: |_| "proxy",
    })
}

fn behind_nginx(scene: &Scene<'_>, program: &str, arguments: &[&str]) -> Result<Vec<Started>> {
    let child = scene.installed(program)?.args(arguments).spawn()?;
    Ok(vec![
        nginx(scene)?,
        Started {
            child,
            part: worker,
        },
    ])
}

fn gunicorn(scene: &Scene<'_>, class: &[&str]) -> Result<Vec<Started>> {
    let bind = format!("unix:{}", scene.socket());
    let mut arguments = vec![scene.entry, "-w", &scene.workers, "-b", &bind];
    arguments.extend(class);
    behind_nginx(scene, "gunicorn", &arguments)
}

fn nginx_gthread(scene: &Scene<'_>) -> Result<Vec<Started>> {
    gunicorn(
        scene,
        &[
            "-k",
            "gthread",
            "--threads",
            &scene.threads,
            "--keep-alive",
            "75",
        ],
    )
}

fn nginx_sync(scene: &Scene<'_>) -> Result<Vec<Started>> {
    gunicorn(scene, &["-k", "sync"])
}

/// What granian is told wherever it listens.
fn granian_arguments<'a>(scene: &'a Scene<'_>) -> [&'a str; 7] {
    let Scene {
        entry,
        workers,
        threads,
        ..
    } = scene;
    [
        entry,
        "--interface",
        "wsgi",
        "--workers",
        workers,
        "--blocking-threads",
        threads,
    ]
}

fn nginx_granian(scene: &Scene<'_>) -> Result<Vec<Started>> {
    let socket = scene.socket();
    let mut arguments = granian_arguments(scene).to_vec();
    arguments.extend(["--uds", &socket]);
    behind_nginx(scene, "granian", &arguments)
}

fn granian(scene: &Scene<'_>) -> Result<Vec<Started>> {
    let mut command = scene.installed("granian")?;
    let command = command.args(granian_arguments(scene));
    let child = command
        .args(["--host", "127.0.0.1", "--port", &scene.port.to_string()])
        .spawn()?;
    Ok(vec![Started {
        child,
        part: worker,
    }])
}

/// uWSGI in its own protocol, which is what its documentation advises behind nginx.
fn nginx_uwsgi(scene: &Scene<'_>) -> Result<Vec<Started>> {
    let Scene {
        entry,
        workers,
        threads,
        ..
    } = scene;
    let (module, callable) = entry.split_once(':').unwrap_or((entry, "application"));
    let venv = scene.place.venv.display().to_string();
    let child = scene
        .installed("uwsgi")?
        .args([
            "--master",
            "--die-on-term",
            "--disable-logging",
            "--socket",
            &scene.socket(),
        ])
        .args([
            "--processes",
            workers,
            "--threads",
            threads,
            "--virtualenv",
            &venv,
        ])
        .args(["--module", module, "--callable", callable])
        .spawn()?;
    let pass = "include /etc/nginx/uwsgi_params; uwsgi_pass app;";
    Ok(vec![
        nginx_with(scene, pass)?,
        Started {
            child,
            part: worker,
        },
    ])
}

/// Waitress has one process.
fn nginx_waitress(scene: &Scene<'_>) -> Result<Vec<Started>> {
    let socket = format!("--unix-socket={}", scene.socket());
    let threads = format!("--threads={}", scene.threads);
    behind_nginx(scene, "waitress-serve", &[&socket, &threads, scene.entry])
}
