//! `stack exec APP -- …`: a command as the app itself would run: its user, folder, environment and Python.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use config::{Loaded, site::App};
use supervisor::{
    notify,
    user::{PERSONAL, User},
};

use crate::{args, failure::Failure, identity::Identities, load};

/// Becomes the command; returns only when it cannot.
pub(crate) fn run(asked: &args::Exec) -> Result<(), Failure> {
    let loaded = load::read(&asked.file.path()?)?;
    let app = choose(&loaded, asked.app.as_deref())?;
    let wrong = |problems| Failure::Config(loaded.report(problems));
    let problems = config::machine::inspect_app(app);
    if !problems.is_empty() {
        return Err(wrong(problems));
    }
    let python = config::machine::interpreter(app).map_err(|problem| wrong(vec![problem]))?;
    let (program, arguments) = asked
        .command
        .split_first()
        .ok_or_else(|| Failure::User("there is no command after `--`".to_owned()))?;
    let identities = Identities::of(&loaded.site).map_err(wrong)?;
    let user = identities.app(&app.name);
    let mut command = command(app, &python, program, user);
    if let Some(mask) = app.umask {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
    }
    if let Some(user) = user {
        user.assume()
            .with_context(|| format!("cannot become `{}`", user.name))?;
    }
    allocator::allow_huge_pages();
    let error = command.args(arguments).exec();
    Err(Failure::User(format!(
        "cannot run {}: {error}",
        program.display()
    )))
}

/// The app that is named, or the only one.
fn choose<'a>(loaded: &'a Loaded, name: Option<&str>) -> Result<&'a App, Failure> {
    let apps = &loaded.site.apps;
    let names = || {
        let names: Vec<&str> = apps.iter().map(|app| app.name.as_str()).collect();
        names.join(", ")
    };
    let file = loaded.file.display();
    match (name, apps.as_slice()) {
        (None, [app]) => Ok(app),
        (None, []) => Err(Failure::User(format!("{file} has no app"))),
        (None, _) => Err(Failure::User(format!(
            "{file} has several apps ({}): name one, as in `stack exec {} -- …`",
            names(),
            apps[0].name
        ))),
        (Some(name), _) => loaded.site.app(name).ok_or_else(|| {
            let names = names();
            Failure::User(format!(
                "there is no app {name:?} in {file}; it has {names}"
            ))
        }),
    }
}

fn command(app: &App, python: &Path, program: &OsStr, user: Option<&User>) -> Command {
    // Those two names mean the app's Python, whatever it is called.
    let ours = program == "python" || program == "python3";
    let mut command = Command::new(if ours { python.as_os_str() } else { program });
    command.current_dir(&app.root.value);
    for name in notify::FROM_MANAGER {
        command.env_remove(name);
    }
    if let Some(user) = user {
        for name in PERSONAL {
            command.env_remove(name);
        }
        command.envs(user.environment());
    }
    command.envs(environment(app, python));
    command
}

/// The app's own variables win over what an activated venv would set.
pub(crate) fn environment(app: &App, python: &Path) -> Vec<(OsString, OsString)> {
    let mut variables = Vec::new();
    let folder = python.parent().unwrap_or_else(|| Path::new("/"));
    if let Some(venv) = folder
        .parent()
        .filter(|venv| venv.join("pyvenv.cfg").exists())
    {
        variables.push(("VIRTUAL_ENV".into(), venv.into()));
    }
    variables.push(("PATH".into(), before(folder, env::var_os("PATH"))));
    // A worker has the root first on sys.path; programs such as `celery` and `flask` would not.
    let path = before(&app.root.value, env::var_os("PYTHONPATH"));
    variables.push(("PYTHONPATH".into(), path));
    for (name, value) in &app.env {
        variables.push((name.into(), value.into()));
    }
    variables
}

fn before(folder: &Path, rest: Option<OsString>) -> OsString {
    let rest = rest.unwrap_or_default();
    let rest = env::split_paths(&rest).filter(|path| path.as_os_str() != "");
    let all: Vec<PathBuf> = std::iter::once(folder.to_owned()).chain(rest).collect();
    // Only a folder with a colon in its name cannot stand in such a list.
    env::join_paths(all).unwrap_or_else(|_| folder.as_os_str().to_owned())
}
