//! What counts as a change, and when it is told: pure rules, tried as tables.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use config::site::{Action, Auth, Site};

use crate::up::reload::Scope;

/// How long nothing more must happen until a change is told: an editor writes a file in several steps, and many at once.
const QUIET: Duration = Duration::from_millis(100);

/// How long a change waits for that at most.
const LONGEST: Duration = Duration::from_secs(2);

/// How many files a change names.
const NAMED: usize = 3;

/// What is looked after.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    /// The configuration, which is no app's code wherever it is.
    config: Option<PathBuf>,
    /// Single files, and what is new when one of them is.
    files: Vec<(PathBuf, Scope)>,
    /// Folders with all below them, and whose code is in them.
    trees: Vec<(PathBuf, String)>,
    /// Folders below them whose files the proxy serves itself, and which are nobody's code.
    served: BTreeSet<PathBuf>,
    /// Most folders that are watched.
    pub(super) most: usize,
}

impl Targets {
    /// Those of a site; `extra` are further files that apps depend on.
    pub(super) fn of(site: &Site, file: Option<&Path>, extra: &[PathBuf]) -> Self {
        let mut targets = Self {
            config: file.map(real),
            most: usize::try_from(site.limits.file_watches).unwrap_or(usize::MAX),
            ..Self::default()
        };
        let read_by_us = site.hosts.iter().flat_map(|host| {
            let pages = host.errors.iter().map(|error| &error.page.value);
            let own = host.routes.iter().map(|route| &route.access);
            let users = own
                .chain([&host.access])
                .filter_map(|access| match &access.auth {
                    Some(Auth::Basic { users, .. }) => Some(&users.value),
                    _ => None,
                });
            pages.chain(users)
        });
        for path in read_by_us.map(PathBuf::as_path).chain(file) {
            targets
                .files
                .push((real(path), Scope::Apps(BTreeSet::new())));
        }
        for path in extra {
            targets.files.push((real(path), Scope::Everything));
        }
        for app in &site.apps {
            let path = app.env.get("PYTHONPATH").map(String::as_str);
            let further = std::env::split_paths(path.unwrap_or_default());
            let further = further.filter(|path| path.is_absolute());
            for folder in std::iter::once(app.root.value.clone()).chain(further) {
                targets.trees.push((real(&folder), app.name.clone()));
            }
        }
        let routes = site.hosts.iter().flat_map(|host| &host.routes);
        let roots = routes.filter_map(|route| match &route.action {
            Action::Files { files, .. } => Some(&files.root),
            _ => None,
        });
        let handed = site.apps.iter().flat_map(|app| &app.sendfile);
        targets.served = roots
            .chain(handed)
            .map(|folder| real(&folder.value))
            .collect();
        targets
    }

    /// Folders that are watched with all below them.
    pub(super) fn trees(&self) -> impl Iterator<Item = &Path> {
        self.trees.iter().map(|(folder, _)| folder.as_path())
    }

    /// Folders that are watched without what is below them.
    pub(super) fn parents(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().filter_map(|(file, _)| file.parent())
    }

    /// Whether a folder below one of the trees is looked into.
    pub(super) fn enters(&self, folder: &Path) -> bool {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with('.') && !IGNORED.contains(&&*name) && !self.served.contains(folder)
    }

    /// What is new when something has changed at this path; `None` for what nobody needs to be told of.
    pub(super) fn concerned(&self, path: &Path) -> Option<Scope> {
        let files = self.files.iter().filter(|(file, _)| file == path);
        let files = files.map(|(_, scope)| scope.clone());
        let is_config = self.config.as_deref() == Some(path);
        let owners = self
            .trees
            .iter()
            .filter(|(tree, _)| !is_config && self.is_code(tree, path));
        let owners: BTreeSet<String> = owners.map(|(_, app)| app.clone()).collect();
        let owners = (!owners.is_empty()).then_some(Scope::Apps(owners));
        files.chain(owners).reduce(Scope::and)
    }

    /// Whether it belongs to the code below this folder.
    fn is_code(&self, tree: &Path, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(tree) else {
            return false;
        };
        let between = below
            .ancestors()
            .skip(1)
            .filter(|folder| !folder.as_os_str().is_empty());
        between
            .into_iter()
            .all(|folder| self.enters(&tree.join(folder)))
            && counts(below)
    }
}

/// Folders that tools fill. A venv is known by what is in it.
const IGNORED: [&str; 4] = [
    "__pycache__",
    "node_modules",
    "site-packages",
    "bower_components",
];

/// What is code, a template or a setting, by the ending of its name. What an app itself writes while it runs (databases, logs,
/// uploads) is not among them.
const ENDINGS: [&str; 17] = [
    "py", "pyi", "so", "html", "htm", "jinja", "jinja2", "j2", "mako", "tmpl", "tpl", "mo", "toml",
    "yaml", "yml", "ini", "cfg",
];

/// Endings that count nowhere, not even among templates.
const NOISE: [&str; 16] = [
    "pyc",
    "pyo",
    "log",
    "db",
    "sqlite",
    "sqlite3",
    "db-journal",
    "db-wal",
    "db-shm",
    "sqlite3-journal",
    "swp",
    "swx",
    "tmp",
    "bak",
    "orig",
    "pid",
];

/// Whether a file counts, by its path below the app's folder.
fn counts(below: &Path) -> bool {
    let name = below.file_name().unwrap_or_default().to_string_lossy();
    if name == ".env" || name.starts_with(".env.") {
        return true;
    }
    let ending = below
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    if name.starts_with(['.', '#']) || name.ends_with('~') || NOISE.contains(&&*ending) {
        return false;
    }
    let templates = below.parent().into_iter().flat_map(Path::components);
    let is_template = templates
        .into_iter()
        .any(|part| part.as_os_str() == "templates");
    // Without an ending it may be what an editor tries whether it may write (`4913`).
    ENDINGS.contains(&&*ending) || is_template && !ending.is_empty()
}

/// Where links lead; the kernel tells of real places.
fn real(path: &Path) -> PathBuf {
    // The name itself is kept: an editor puts another file there.
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    match (path.canonicalize(), parent, path.file_name()) {
        (Ok(real), _, _) if real.is_dir() => real,
        (_, Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// What is to be new.
    pub(crate) scope: Scope,
    /// Some of the files.
    files: Vec<PathBuf>,
    /// How many more there are.
    more: usize,
}

impl Change {
    /// For people; paths as they are below `folder`.
    pub(crate) fn show(&self, folder: &Path) -> String {
        let short = |path: &PathBuf| {
            path.strip_prefix(folder)
                .unwrap_or(path)
                .display()
                .to_string()
        };
        let names: Vec<String> = self.files.iter().map(short).collect();
        let names = names.join(", ");
        match (self.more, self.files.len()) {
            (0, 1) => format!("{names} has changed"),
            (0, _) => format!("{names} have changed"),
            (more, _) => format!("{names} and {more} more have changed"),
        }
    }
}

/// Gathers what belongs together.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    pending: Option<(Change, Instant, Instant)>,
}

impl Debounce {
    /// Something has changed.
    pub(super) fn add(&mut self, now: Instant, scope: Scope, path: &Path) {
        let Some((change, _, last)) = &mut self.pending else {
            let files = vec![path.to_owned()];
            let change = Change {
                scope,
                files,
                more: 0,
            };
            self.pending = Some((change, now, now));
            return;
        };
        *last = now;
        change.scope = change.scope.clone().and(scope);
        if change.files.iter().any(|known| known == path) {
            return;
        }
        match change.files.len() < NAMED {
            true => change.files.push(path.to_owned()),
            false => change.more += 1,
        }
    }

    /// When [`Self::take`] has something, if nothing more comes.
    pub(super) fn due(&self) -> Option<Instant> {
        let (_, first, last) = self.pending.as_ref()?;
        Some((*last + QUIET).min(*first + LONGEST))
    }

    /// What is to be told now.
    pub(super) fn take(&mut self, now: Instant) -> Option<Change> {
        self.pending
            .take_if(|(_, first, last)| (*last + QUIET).min(*first + LONGEST) <= now)
            .map(|(change, ..)| change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apps(names: &[&str]) -> Scope {
        Scope::Apps(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn targets() -> Targets {
        let text = r#"
            [app.web]
            wsgi = "app:app"
            root = "/nowhere/web"
            sendfile = ["/nowhere/web/media"]
            env = { PYTHONPATH = "/nowhere/shared:relative" }
            [app.api]
            wsgi = "app:app"
            root = "/nowhere/web/api"
            [[site]]
            errors = { 404 = "/nowhere/pages/404.html" }
            routes = [{ path = "/", app = "web" }, { path = "/static/", files = "/nowhere/web/static" }, { path = "/api/", app = "api" }]
        "#;
        let file = Path::new("/nowhere/site.toml");
        let loaded = config::parse(file, text.to_owned(), false).unwrap();
        Targets::of(
            &loaded.site,
            Some(file),
            &["/nowhere/data/extra.json".into()],
        )
    }

    #[test]
    fn what_counts_is_code_templates_and_settings() {
        let targets = targets();
        let cases: [(&str, Option<Scope>); 34] = [
            ("web/app.py", Some(apps(&["web"]))),
            ("web/deep/er/views.py", Some(apps(&["web"]))),
            ("web/api/app.py", Some(apps(&["web", "api"]))),
            ("shared/lib.py", Some(apps(&["web"]))),
            ("web/page.HTML", Some(apps(&["web"]))),
            ("web/locale/de/LC_MESSAGES/django.mo", Some(apps(&["web"]))),
            ("web/templates/mail/welcome.txt", Some(apps(&["web"]))),
            ("web/blog/templates/blog/list.xml", Some(apps(&["web"]))),
            ("web/settings.toml", Some(apps(&["web"]))),
            ("web/.env", Some(apps(&["web"]))),
            ("web/.env.local", Some(apps(&["web"]))),
            ("site.toml", Some(apps(&[]))),
            ("pages/404.html", Some(apps(&[]))),
            ("data/extra.json", Some(Scope::Everything)),
            ("other.toml", None),
            ("pages/500.html", None),
            ("data/other.json", None),
            ("web/db.sqlite3", None),
            ("web/db.sqlite3-journal", None),
            ("web/debug.log", None),
            ("web/notes.txt", None),
            ("web/upload.json", None),
            ("web/static/page.html", None),
            ("web/media/page.html", None),
            ("web/__pycache__/app.cpython-312.pyc", None),
            ("web/deep/__pycache__/app.py", None),
            ("web/.git/hooks/update.py", None),
            ("web/.venv/lib/app.py", None),
            ("web/node_modules/gyp/gyp.py", None),
            ("web/app.py~", None),
            ("web/.app.py.swp", None),
            ("web/.#app.py", None),
            ("web/4913", None),
            ("web/templates/4913", None),
        ];
        for (path, expected) in cases {
            let found = targets.concerned(&Path::new("/nowhere").join(path));
            assert_eq!(found, expected, "{path}");
        }
        assert_eq!(targets.concerned(Path::new("/elsewhere/app.py")), None);
        assert_eq!(targets.concerned(Path::new("/nowhere/web")), None);
    }

    #[test]
    fn a_burst_is_one_change() {
        let mut debounce = Debounce::default();
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        assert_eq!((debounce.due(), debounce.take(at(0))), (None, None));
        for (millis, name) in [
            (0, "a.py"),
            (60, "b.py"),
            (120, "a.py"),
            (150, "c.py"),
            (150, "d.py"),
            (151, "e.py"),
        ] {
            debounce.add(at(millis), apps(&["web"]), &Path::new("/srv").join(name));
            assert_eq!(debounce.take(at(millis)), None);
        }
        debounce.add(at(152), Scope::Everything, Path::new("/srv/a.py"));
        assert_eq!(debounce.due(), Some(at(252)));
        assert_eq!(debounce.take(at(251)), None);
        let change = debounce.take(at(252)).expect("it is time");
        assert_eq!(change.scope, Scope::Everything);
        assert_eq!(
            change.show(Path::new("/srv")),
            "a.py, b.py, c.py and 2 more have changed"
        );
        assert_eq!(
            (debounce.due(), debounce.take(at(999))),
            (None, None),
            "once"
        );
    }

    #[test]
    fn who_never_stops_writing_is_not_waited_for() {
        let mut debounce = Debounce::default();
        let begin = Instant::now();
        let mut millis = 0;
        let told = loop {
            let now = begin + Duration::from_millis(millis);
            if let Some(change) = debounce.take(now) {
                break change;
            }
            debounce.add(now, apps(&["web"]), Path::new("/srv/a.py"));
            millis += 50;
        };
        assert_eq!(millis, 2000);
        assert_eq!(told.show(Path::new("/elsewhere")), "/srv/a.py has changed");
    }
}
