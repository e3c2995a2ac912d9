//! The peers' Python servers, on [`Scene::socket`].

use anyhow::Result;

use crate::bench::peer::{Scene, Tree};

fn tree(scene: &Scene<'_>, program: &str, arguments: &[&str]) -> Result<Tree> {
    let child = scene.installed(program)?.args(arguments).spawn()?;
    Ok(Tree {
        child,
        part: |_| "worker",
    })
}

fn gunicorn(scene: &Scene<'_>, class: &[&str]) -> Result<Tree> {
    let bind = format!("unix:{}", scene.socket());
    let arguments = [scene.entry, "-w", &scene.workers, "-b", &bind];
    tree(scene, "gunicorn", &[&arguments, class].concat())
}

pub(super) fn gunicorn_sync(scene: &Scene<'_>) -> Result<Tree> {
    gunicorn(scene, &["-k", "sync"])
}

pub(super) fn gunicorn_gthread(scene: &Scene<'_>) -> Result<Tree> {
    let threads = ["-k", "gthread", "--threads", &scene.threads];
    gunicorn(scene, &[&threads[..], &["--keep-alive", "75"]].concat())
}

/// Its workers are replaced after 20 requests, give or take two, as ours are.
pub(super) fn gunicorn_worn(scene: &Scene<'_>) -> Result<Tree> {
    let threads = ["-k", "gthread", "--threads", &scene.threads];
    let worn = ["--max-requests", "18", "--max-requests-jitter", "4"];
    gunicorn(
        scene,
        &[&threads[..], &["--keep-alive", "75"], &worn].concat(),
    )
}

fn granian_at(scene: &Scene<'_>, place: &[&str]) -> Result<Tree> {
    let arguments = [
        scene.entry,
        "--interface",
        "wsgi",
        "--workers",
        &scene.workers,
        "--blocking-threads",
        &scene.threads,
    ];
    tree(scene, "granian", &[&arguments, place].concat())
}

pub(super) fn granian(scene: &Scene<'_>) -> Result<Tree> {
    granian_at(scene, &["--uds", &scene.socket()])
}

pub(super) fn granian_on_port(scene: &Scene<'_>) -> Result<Tree> {
    let port = scene.port.to_string();
    // Nobody stands before it who would write the access log.
    granian_at(
        scene,
        &["--access-log", "--host", "127.0.0.1", "--port", &port],
    )
}

fn uwsgi_at(scene: &Scene<'_>, protocol: &str) -> Result<Tree> {
    let (module, callable) = scene
        .entry
        .split_once(':')
        .unwrap_or((scene.entry, "application"));
    let venv = scene.place.venv.display().to_string();
    let arguments = [
        "--master",
        "--die-on-term",
        "--disable-logging",
        protocol,
        &scene.socket(),
        "--processes",
        &scene.workers,
        "--threads",
        &scene.threads,
        "--virtualenv",
        &venv,
        "--module",
        module,
        "--callable",
        callable,
    ];
    tree(scene, "uwsgi", &arguments)
}

/// In its own protocol, which is what its documentation advises behind nginx.
pub(super) fn uwsgi(scene: &Scene<'_>) -> Result<Tree> {
    uwsgi_at(scene, "--socket")
}

/// In HTTP/1.1, with connections that stay open.
pub(super) fn uwsgi_http(scene: &Scene<'_>) -> Result<Tree> {
    uwsgi_at(scene, "--http11-socket")
}

/// Waitress has one process.
pub(super) fn waitress(scene: &Scene<'_>) -> Result<Tree> {
    let socket = format!("--unix-socket={}", scene.socket());
    let threads = format!("--threads={}", scene.threads);
    tree(scene, "waitress-serve", &[&socket, &threads, scene.entry])
}
