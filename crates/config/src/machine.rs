//! What this machine must have for a [`Site`] to work, short of binding a socket or starting a process.
//!
//! An answer is only as good as the user who asks: the master asks as itself. What may be right although it is not seen
//! here (a module that lies in the venv) is not a problem.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    error::{Problem, Span},
    plain,
    schema::keys::nearest,
    site::{Action, App, Auth, Entry, Interpreter, Listen, Located, LogTarget, Site, Tls},
};

/// Everything that is missing, each with its place in the file.
#[must_use]
pub fn inspect(site: &Site) -> Vec<Problem> {
    let mut problems = Vec::new();
    for listen in site.server.http.iter().chain(&site.server.https) {
        if let Listen::Unix(path) = &listen.value {
            problems.extend(parent(path, listen.span, "the socket"));
        }
    }
    if let LogTarget::File(path) = &site.server.access_log.to {
        problems.extend(log_file(path));
    }
    if let Some(admin) = &site.server.admin {
        problems.extend(parent(&admin.value, admin.span, "the admin socket"));
    }
    problems.extend(site.server.spool.as_ref().and_then(folder));
    if let Some(file) = &site.server.log.file {
        problems.extend(log_file(file));
    }
    problems.extend(site.apps.iter().flat_map(inspect_app));
    problems.extend(
        site.apps
            .iter()
            .flat_map(|app| app.sendfile.iter().filter_map(folder)),
    );
    let authorities = site.upstreams.iter();
    let authorities = authorities.filter_map(|upstream| upstream.authorities.as_ref());
    problems.extend(authorities.filter_map(readable));
    let acme = site.acme.as_ref();
    problems.extend(acme.and_then(|acme| acme.authorities.as_ref().and_then(readable)));
    let eab = acme.and_then(|acme| acme.eab.as_ref());
    problems.extend(eab.and_then(|eab| readable(&eab.mac_key)));
    for host in &site.hosts {
        problems.extend(host.errors.iter().filter_map(|error| readable(&error.page)));
        problems.extend(host.maintenance.page.as_ref().and_then(readable));
        if let Tls::Files(pairs) = &host.tls.value {
            let files = pairs
                .iter()
                .flat_map(|pair| [Some(&pair.cert), Some(&pair.key), pair.ocsp.as_ref()]);
            problems.extend(files.flatten().filter_map(readable));
        }
        if let Some(clients) = &host.clients {
            problems.extend(readable(&clients.authorities));
        }
        let own = host.routes.iter().map(|route| &route.access);
        for access in std::iter::once(&host.access).chain(own) {
            if let Some(Auth::Basic { users, .. }) = &access.auth {
                problems.extend(readable(users).filter(|problem| !problems.contains(problem)));
            }
        }
        problems.extend(host.routes.iter().filter_map(|route| match &route.action {
            Action::Files { files, .. } => folder(&files.root),
            _ => None,
        }));
    }
    problems
}

/// What one app needs to run its Python, whatever else is missing.
#[must_use]
pub fn inspect_app(app: &App) -> Vec<Problem> {
    let root = root(app).or_else(|| module(app));
    root.into_iter().chain(interpreter(app).err()).collect()
}

/// [`inspect`] for a site with defaults where the file has mistakes: only what the file itself names is looked at.
pub(crate) fn inspect_part(site: &Site) -> Vec<Problem> {
    let mut problems = inspect(site);
    // What is said of the app as a whole rests on its root and its Python, and either may be one of those defaults.
    let whole = |span| site.apps.iter().any(|app| app.wsgi.span == Some(span));
    problems.retain(|problem| problem.span.is_some_and(|span| !whole(span)));
    problems
}

/// The Python that runs an app: what the file names, else `.venv` or `venv` in its root, else `python3` from `PATH`.
/// Links are kept: a venv is found by the name under which its Python is started.
///
/// # Errors
/// Says where was looked and what to do.
pub fn interpreter(app: &App) -> Result<PathBuf, Problem> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    interpreter_in(app, &path)
}

fn interpreter_in(app: &App, path: &OsStr) -> Result<PathBuf, Problem> {
    let span = app.interpreter.span;
    match &app.interpreter.value {
        Interpreter::Venv(venv) => venv_python(venv, span),
        Interpreter::Path(name) if name.components().count() == 1 && name.is_relative() => {
            let missing = || Problem::new(span, format!("there is no {} in PATH", name.display()));
            find(path, name)
                .ok_or_else(|| missing().hint("install it, or write the whole path of a Python"))
        }
        Interpreter::Path(python) => match executable(python) {
            Ok(()) => Ok(python.clone()),
            Err(why) => {
                let message = format!("cannot run {}: {why}", python.display());
                let hint = "name the program of a Python, such as `\"/usr/bin/python3\"` or `\"python3.12\"`";
                Err(Problem::new(span, message).hint(hint))
            }
        },
        Interpreter::Search => search(app, path),
    }
}

fn venv_python(venv: &Path, span: Option<Span>) -> Result<PathBuf, Problem> {
    let python = venv.join("bin/python");
    if let Some(gone) = dead_end(&python) {
        let message = format!(
            "the Python of this venv is gone: {} leads to {}, which is not there",
            python.display(),
            gone.display()
        );
        return Err(Problem::new(span, message).hint(format!(
            "make it anew with `python3 -m venv --clear {}`, and install its packages again",
            venv.display()
        )));
    }
    executable(&python).map(|()| python.clone()).map_err(|why| {
        let problem = Problem::new(
            span,
            format!("this venv has no Python: {}: {why}", python.display()),
        );
        problem.hint(format!("make it with `python3 -m venv {}`", venv.display()))
    })
}

/// Where a chain of links ends, if nothing is there: Pythons are replaced by newer ones under other names, and the venvs made of
/// them stay.
fn dead_end(link: &Path) -> Option<PathBuf> {
    if link.exists() {
        return None;
    }
    let mut at = link.to_owned();
    // As many as the kernel follows (path_resolution(7)).
    for _ in 0..40 {
        let Ok(next) = fs::read_link(&at) else {
            break;
        };
        at = at.parent()?.join(next);
    }
    (at != link).then_some(at)
}

fn search(app: &App, path: &OsStr) -> Result<PathBuf, Problem> {
    let root = &app.root.value;
    for venv in [".venv", "venv"] {
        let venv = root.join(venv);
        // A venv that is there but broken is not passed over: another Python would not have the app's packages.
        if venv.join("pyvenv.cfg").exists() {
            return venv_python(&venv, app.root.span.or(app.wsgi.span));
        }
    }
    find(path, Path::new("python3")).ok_or_else(|| {
        let root = root.display();
        let message = format!(
            "no Python for app `{}`: neither {root}/.venv nor {root}/venv, and no python3 in PATH",
            app.name
        );
        Problem::new(app.root.span.or(app.wsgi.span), message)
            .hint("install Python 3.10 or later, or name one with `venv` or `python`")
    })
}

fn find(path: &OsStr, name: &Path) -> Option<PathBuf> {
    // An empty entry would be the working directory; nobody means that here.
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders
        .map(|folder| folder.join(name))
        .find(|program| executable(program).is_ok())
}

fn executable(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| plain(&error))?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err("it is not executable".to_owned());
    }
    Ok(())
}

fn root(app: &App) -> Option<Problem> {
    let problem = folder(&app.root)?;
    // A default has no place of its own.
    let span = app.root.span.or(app.wsgi.span);
    Some(Problem { span, ..problem })
}

fn folder(path: &Located<PathBuf>) -> Option<Problem> {
    let why = fs::read_dir(&path.value).err()?;
    let shown = path.value.display();
    let message = match why.kind() {
        io::ErrorKind::NotFound => format!("there is no folder {shown}"),
        io::ErrorKind::NotADirectory => format!("{shown} is not a folder"),
        _ => format!("cannot read the folder {shown}: {}", plain(&why)),
    };
    let problem = Problem::new(path.span, message);
    Some(match why.kind() {
        io::ErrorKind::NotFound => problem.hint("paths are taken from the folder of this file"),
        _ => problem,
    })
}

fn readable(path: &Located<PathBuf>) -> Option<Problem> {
    let shown = path.value.display();
    match fs::File::open(&path.value).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_dir() => Some(Problem::new(
            path.span,
            format!("{shown} is a folder, not a file"),
        )),
        Ok(_) => None,
        Err(error) => {
            let problem =
                Problem::new(path.span, format!("cannot read {shown}: {}", plain(&error)));
            Some(match error.kind() {
                io::ErrorKind::NotFound => {
                    problem.hint("paths are taken from the folder of this file")
                }
                io::ErrorKind::PermissionDenied => problem.hint(
                    "let this user read it, or start as root, who opens such files before it gives up its rights (`user` in [server])",
                ),
                _ => problem,
            })
        }
    }
}

fn log_file(path: &Located<PathBuf>) -> Option<Problem> {
    if path.value.is_dir() {
        return Some(Problem::new(
            path.span,
            format!("{} is a folder, not a file", path.value.display()),
        ));
    }
    parent(&path.value, path.span, "the log")
}

/// The folder that something is going to be made in.
fn parent(path: &Path, span: Option<Span>, what: &str) -> Option<Problem> {
    let parent = path.parent().filter(|parent| !parent.is_dir())?;
    let problem = Problem::new(
        span,
        format!("there is no folder {} for {what}", parent.display()),
    );
    Some(problem.hint(format!("make it with `mkdir -p {}`", parent.display())))
}

/// A module whose package lies in the root but which does not lie in the package. Anything else may be elsewhere on
/// `sys.path`.
fn module(app: &App) -> Option<Problem> {
    let Entry { module, .. } = &app.wsgi.value;
    let mut folder = app.root.value.clone();
    let mut parts = module.split('.');
    let first = parts.next()?;
    if !folder.join(first).join("__init__.py").is_file() {
        return None;
    }
    folder.push(first);
    for part in parts {
        let names = modules_in(&folder)?;
        if !names.iter().any(|name| name == part) {
            return Some(no_module(app, &folder, part, &names));
        }
        folder.push(part);
        // A plain module has nothing below; what its import does with names is Python's affair.
        if !folder.join("__init__.py").is_file() {
            return None;
        }
    }
    None
}

fn no_module(app: &App, folder: &Path, part: &str, names: &[String]) -> Problem {
    let problem = Problem::new(
        app.wsgi.span,
        format!("there is no module `{part}` in {}", folder.display()),
    );
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match nearest(&names, part) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint(format!(
            "`wsgi` is looked up in the app's root, {}",
            app.root.value.display()
        )),
    }
}

/// The modules of a package: `x.py`, `x.pyc`, `x.cpython-311-x86_64-linux-gnu.so`, folders.
fn modules_in(folder: &Path) -> Option<Vec<String>> {
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let is_folder = entry.path().is_dir();
        match name.split_once('.') {
            None if is_folder => Some(name),
            Some((stem, suffix)) if suffix.ends_with("so") || matches!(suffix, "py" | "pyc") => {
                Some(stem.to_owned())
            }
            _ => None,
        }
    };
    Some(
        entries
            .filter_map(name)
            .filter(|name| !name.starts_with("__"))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Loaded;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary folder"))
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn folder(&self, name: &str) -> &Self {
            fs::create_dir_all(self.path(name)).expect("a folder");
            self
        }

        fn file(&self, name: &str, mode: u32) -> &Self {
            let path = self.path(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(&path, "").expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
            self
        }

        fn load(&self, text: &str) -> Loaded {
            crate::parse(&self.path("site.toml"), text.to_owned(), false)
                .unwrap_or_else(|report| panic!("{report}"))
        }

        /// What is shown, with the temporary folder as `/tmp/place`.
        fn inspect(&self, text: &str) -> Vec<String> {
            let problems = inspect(&self.load(text).site);
            let folder = self.0.path().display().to_string();
            let say = |problem: Problem| {
                let place = problem
                    .span
                    .map(|span| &text[span.start..span.end])
                    .unwrap_or_default();
                let hint = problem.hint.unwrap_or_default();
                format!("{place} | {} | {hint}", problem.message).replace(&folder, "/place")
            };
            problems.into_iter().map(say).collect()
        }
    }

    const SITE: &str = "[[site]]\nroutes = [{ path = \"/\", app = \"web\" }]\n";

    #[test]
    fn everything_that_is_missing_is_said() {
        let place = Place::new();
        place
            .file("a-file", 0o644)
            .folder("certificates")
            .folder("log");
        let text = r#"
[server]
http = ["unix:no-folder/http.sock"]
https = [":8443"]
access_log = { file = "log" }
[app.web]
wsgi = "app:app"
root = "no-root"
venv = "no-venv"
[[site]]
tls = { cert = "no.pem", key = "certificates" }
routes = [
  { path = "/a/", files = "no-files" },
  { path = "/b/", files = "a-file" },
]
"#;
        let hint = "paths are taken from the folder of this file";
        assert_eq!(
            place.inspect(text),
            [
                "\"unix:no-folder/http.sock\" | there is no folder /place/no-folder for the socket | make it with `mkdir -p /place/no-folder`".to_owned(),
                "\"log\" | /place/log is a folder, not a file | ".to_owned(),
                format!("\"no-root\" | there is no folder /place/no-root | {hint}"),
                "\"no-venv\" | this venv has no Python: /place/no-venv/bin/python: no such file or directory | make it with `python3 -m venv /place/no-venv`".to_owned(),
                format!("\"no.pem\" | cannot read /place/no.pem: no such file or directory | {hint}"),
                "\"certificates\" | /place/certificates is a folder, not a file | ".to_owned(),
                format!("\"no-files\" | there is no folder /place/no-files | {hint}"),
                "\"a-file\" | /place/a-file is not a folder | ".to_owned(),
            ]
        );
    }

    #[test]
    fn a_module_is_missed_only_in_a_package_that_is_there() {
        let place = Place::new();
        place
            .file("venv/bin/python", 0o755)
            .file("venv/pyvenv.cfg", 0o644);
        place
            .file("mysite/__init__.py", 0o644)
            .file("mysite/wsgi.py", 0o644);
        place
            .file("mysite/deep/__init__.py", 0o644)
            .file("plain/wsgi.py", 0o644);
        place
            .file("mysite/fast.cpython-311-x86_64-linux-gnu.so", 0o644)
            .file("app.py", 0o644);
        for (entry, says) in [
            ("app:app", None),
            ("mysite:app", None),
            ("mysite.wsgi:application", None),
            ("mysite.wsgi.deeper:application", None),
            ("mysite.fast:app", None),
            ("installed.elsewhere:app", None),
            ("plain.anything:app", None),
            (
                "mysite.wsgy:app",
                Some("there is no module `wsgy` in /place/mysite | did you mean `wsgi`?"),
            ),
            (
                "mysite.deep.x:app",
                Some(
                    "there is no module `x` in /place/mysite/deep | `wsgi` is looked up in the app's root, /place",
                ),
            ),
        ] {
            let text = format!("[app.web]\nwsgi = \"{entry}\"\n{SITE}");
            let says = says.map(|says| format!("\"{entry}\" | {says}"));
            assert_eq!(place.inspect(&text), Vec::from_iter(says), "{entry}");
        }
    }

    #[test]
    fn interpreters() {
        let place = Place::new();
        place
            .file("bin/python3", 0o755)
            .file("bin/python3.12", 0o755)
            .file("bin/python3.9", 0o644);
        place
            .file("with/.venv/bin/python", 0o755)
            .file("with/.venv/pyvenv.cfg", 0o644);
        place
            .file("with/venv/bin/python", 0o755)
            .file("with/venv/pyvenv.cfg", 0o644);
        place
            .file("second/venv/bin/python", 0o755)
            .file("second/venv/pyvenv.cfg", 0o644);
        place.file("broken/.venv/pyvenv.cfg", 0o644).folder("bare");
        place.file("dead/.venv/pyvenv.cfg", 0o644);
        let bin = place.path("dead/.venv/bin");
        fs::create_dir(&bin).expect("a folder");
        for (target, name) in [("python3", "python"), ("/gone/python3.9", "python3")] {
            std::os::unix::fs::symlink(target, bin.join(name)).expect("a link");
        }
        let path = place.path("bin").into_os_string();
        for (lines, path, expected) in [
            (
                "root = \"with\"",
                path.as_os_str(),
                Ok("/place/with/.venv/bin/python"),
            ),
            (
                "root = \"second\"",
                &path,
                Ok("/place/second/venv/bin/python"),
            ),
            ("root = \"bare\"", &path, Ok("/place/bin/python3")),
            (
                "root = \"bare\"\nvenv = \"with/venv\"",
                &path,
                Ok("/place/with/venv/bin/python"),
            ),
            (
                "python = \"bin/python3.12\"",
                &path,
                Ok("/place/bin/python3.12"),
            ),
            (
                "python = \"python3.12\"",
                &path,
                Ok("/place/bin/python3.12"),
            ),
            (
                "python = \"python3.9\"",
                &path,
                Err("there is no python3.9 in PATH"),
            ),
            (
                "python = \"bin/python3.9\"",
                &path,
                Err("cannot run /place/bin/python3.9: it is not executable"),
            ),
            (
                "python = \"bin/\"",
                &path,
                Err("cannot run /place/bin: it is not a file"),
            ),
            (
                "root = \"broken\"",
                &path,
                Err(
                    "this venv has no Python: /place/broken/.venv/bin/python: no such file or directory",
                ),
            ),
            (
                "root = \"dead\"",
                &path,
                Err(
                    "the Python of this venv is gone: /place/dead/.venv/bin/python leads to /gone/python3.9, which is not there",
                ),
            ),
            (
                "root = \"bare\"",
                OsStr::new(""),
                Err(
                    "no Python for app `web`: neither /place/bare/.venv nor /place/bare/venv, and no python3 in PATH",
                ),
            ),
            (
                "root = \"bare\"",
                OsStr::new("bin"),
                Err(
                    "no Python for app `web`: neither /place/bare/.venv nor /place/bare/venv, and no python3 in PATH",
                ),
            ),
        ] {
            let loaded = place.load(&format!("[app.web]\nwsgi = \"app:app\"\n{lines}\n{SITE}"));
            let found = interpreter_in(&loaded.site.apps[0], path);
            let folder = place.0.path().display().to_string();
            let tidy = |text: String| text.replace(&folder, "/place");
            let found = found
                .map(|python| tidy(python.display().to_string()))
                .map_err(|problem| {
                    assert!(problem.span.is_some(), "{lines}");
                    tidy(problem.message)
                });
            assert_eq!(
                found,
                expected.map(str::to_owned).map_err(str::to_owned),
                "{lines}"
            );
        }
    }
}
