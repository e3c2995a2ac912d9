//! What is in a folder: an app, its packages, its static files.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use super::{
    pages,
    python::{self, Candidate},
};

/// What there is.
#[derive(Debug)]
pub(super) struct Survey {
    apps: Vec<Found>,
    /// A framework that is not WSGI, and where.
    pub(super) asgi: Option<(&'static str, PathBuf)>,
    /// The venv, if there is one.
    pub(super) venv: Option<Venv>,
    /// Whether there is a `.env`.
    pub(super) has_env_file: bool,
    /// Where the app's packages are listed.
    pub(super) requirements: Option<&'static str>,
    /// Files of another server, for `stack import`.
    others: Vec<&'static str>,
}

/// An app that can be served.
#[derive(Debug)]
pub(super) struct Found {
    /// `module:attribute`.
    pub(super) entry: String,
    /// What it is, for people.
    pub(super) what: String,
    /// What it is known by.
    from: String,
    /// Its folder, where that is not the one that was looked at.
    pub(super) root: Option<String>,
    /// Variables that it needs.
    pub(super) env: Vec<(String, String)>,
    /// Its files.
    pub(super) statics: Vec<Statics>,
    weight: u32,
}

/// A folder of files.
#[derive(Debug)]
pub(super) struct Statics {
    pub(super) path: String,
    pub(super) folder: String,
    pub(super) exists: bool,
    pub(super) note: Option<&'static str>,
}

/// A virtual environment.
#[derive(Debug)]
pub(super) struct Venv {
    pub(super) path: String,
    pub(super) is_found_by_itself: bool,
}

impl Survey {
    /// Looks at a folder.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let names = names(folder)?;
        let has = |name: &str| names.iter().any(|known| known == name);
        let pick = |list: &[&'static str]| list.iter().copied().find(|name| has(name));
        let modules = modules(folder, &names);
        let mut apps: Vec<Found> = modules
            .iter()
            .filter_map(|module| module.app(folder))
            .collect();
        apps.extend(in_src(folder));
        apps.extend(django(folder));
        apps.extend(procfile(folder));
        apps.sort_by_key(|app| std::cmp::Reverse(app.weight));
        let asgi = modules
            .iter()
            .find_map(|module| Some((python::asgi(&module.text)?, module.path.clone())));
        Ok(Self {
            apps,
            asgi,
            venv: venv(folder),
            has_env_file: folder.join(".env").is_file(),
            requirements: pick(&["requirements.txt", "pyproject.toml"]),
            others: ["gunicorn.conf.py", "nginx.conf"]
                .into_iter()
                .filter(|name| has(name))
                .collect(),
        })
    }

    /// The app that is likeliest meant.
    pub(super) fn found(&self) -> Option<&Found> {
        self.apps.first()
    }

    /// What to say when there is none.
    pub(super) fn nothing(&self, folder: &Path) -> String {
        let shown = folder.display();
        match &self.asgi {
            Some((framework, path)) => format!(
                "{} has a {framework} app, which speaks ASGI; stack serves WSGI apps (Flask, Django and others), and leads to others: \
                 run it with uvicorn, and write a route with `upstream = \"http://127.0.0.1:8000\"` (`stack reference`)",
                path.display()
            ),
            None if pages::has(folder) => format!(
                "there is no WSGI app in {shown}, but an index.html: whoever may read the folder's pages could read a site.toml \
                 among them, so write it elsewhere, with `[[site]]` and `routes = [{{ path = \"/\", files = \"…\" }}]`"
            ),
            None => format!(
                "there is no WSGI app in {shown}: looked for Flask, Django and others in manage.py, Procfile, *.py and \
                 packages, and for pages in public, dist and such; name an app with `stack serve module:attribute`"
            ),
        }
    }

    /// What was found, in lines.
    pub(super) fn findings(&self, found: &Found) -> Vec<String> {
        let mut lines = vec![format!("{}: {} ({})", found.what, found.entry, found.from)];
        for other in self
            .apps
            .iter()
            .skip(1)
            .filter(|other| other.entry != found.entry)
        {
            lines.push(format!(
                "also {}: {} ({})",
                other.what, other.entry, other.from
            ));
        }
        for files in &found.statics {
            lines.push(format!("files: {} from {}", files.path, files.folder));
        }
        match (&self.venv, self.requirements) {
            (Some(venv), _) => lines.push(format!("its Python: {}", venv.path)),
            (None, Some(requirements)) => {
                lines.push(format!("no venv for the packages of {requirements}"));
            }
            (None, None) => {}
        }
        for other in &self.others {
            lines.push(format!("{other} is not read here: `stack import {other}`"));
        }
        lines
    }
}

/// The names in a folder that a glance would see, in order.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}

/// A Python file that may have an app.
#[derive(Debug)]
struct Module {
    name: String,
    path: PathBuf,
    text: String,
}

/// Most bytes of a file that are looked at: apps begin early.
const LOOKED_AT: usize = 256 * 1024;

/// Names that tell of an app, the likeliest first.
const USUAL: [&str; 8] = [
    "wsgi",
    "app",
    "application",
    "main",
    "server",
    "run",
    "web",
    "api",
];

/// The files of the folder, and of its packages: those themselves, and those of usual names in them.
fn modules(folder: &Path, names: &[String]) -> Vec<Module> {
    let mut modules = Vec::new();
    for name in names {
        let path = folder.join(name);
        if let Some(stem) = name.strip_suffix(".py") {
            modules.extend(read(stem, path));
        } else if path.join("__init__.py").is_file() {
            modules.extend(read(name, path.join("__init__.py")));
            for usual in USUAL {
                let inner = path.join(usual).with_extension("py");
                modules.extend(read(&format!("{name}.{usual}"), inner));
            }
        }
    }
    modules
}

fn read(name: &str, path: PathBuf) -> Option<Module> {
    if matches!(name, "setup" | "conftest" | "manage") || name.starts_with("test") {
        return None;
    }
    let mut bytes = fs::read(&path).ok()?;
    bytes.truncate(LOOKED_AT);
    Some(Module {
        name: name.to_owned(),
        path,
        text: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

impl Module {
    fn app(&self, folder: &Path) -> Option<Found> {
        let Candidate {
            attribute,
            what,
            weight,
        } = python::candidate(&self.text)?;
        let last = self.name.rsplit('.').next().unwrap_or(&self.name);
        let usual = USUAL.iter().rev().position(|usual| *usual == last);
        // Of the same kind the usual name wins, and then the shorter way to it.
        let rank = usual
            .map_or(0, |rank| rank + 1)
            .saturating_sub(self.name.matches('.').count());
        let below = self.path.parent().unwrap_or(folder);
        Some(Found {
            entry: format!("{}:{attribute}", self.name),
            what: what.to_owned(),
            from: relative(&self.path, folder),
            root: None,
            env: Vec::new(),
            statics: if what.contains("Flask") {
                flask_statics(folder, below)
            } else {
                plain_statics(folder)
            },
            weight: weight * 10 + u32::try_from(rank).unwrap_or_default(),
        })
    }
}

fn relative(path: &Path, folder: &Path) -> String {
    path.strip_prefix(folder)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Flask serves `static` beside its module at `/static`; a file route is faster and holds no worker.
fn flask_statics(folder: &Path, below: &Path) -> Vec<Statics> {
    let files = below.join("static");
    if !files.is_dir() {
        return plain_statics(folder);
    }
    vec![Statics {
        path: "/static/".to_owned(),
        folder: relative(&files, folder),
        exists: true,
        note: None,
    }]
}

fn plain_statics(folder: &Path) -> Vec<Statics> {
    let there = ["static", "public"]
        .into_iter()
        .filter(|name| folder.join(name).is_dir());
    there
        .map(|name| Statics {
            path: "/static/".to_owned(),
            folder: name.to_owned(),
            exists: true,
            note: None,
        })
        .take(1)
        .collect()
}

/// `manage.py` names the settings, and those name the app and the folders.
fn django(folder: &Path) -> Option<Found> {
    let manage = fs::read_to_string(folder.join("manage.py")).ok()?;
    let module = python::settings_module(&manage)?.to_owned();
    let package = module.split('.').next().unwrap_or(&module).to_owned();
    let file = folder.join(module.replace('.', "/"));
    let settings = [
        file.with_extension("py"),
        file.join("__init__.py"),
        file.join("base.py"),
    ];
    let text: String = settings
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    let entry =
        match python::setting(&text, "WSGI_APPLICATION").and_then(|path| path.rsplit_once('.')) {
            Some((module, attribute)) => format!("{module}:{attribute}"),
            None => format!("{package}.wsgi:application"),
        };
    let wsgi = folder.join(package).join("wsgi.py");
    let says_settings =
        fs::read_to_string(wsgi).is_ok_and(|text| text.contains("DJANGO_SETTINGS_MODULE"));
    let env = if says_settings {
        Vec::new()
    } else {
        vec![("DJANGO_SETTINGS_MODULE".to_owned(), module)]
    };
    Some(Found {
        entry,
        what: "a Django project".to_owned(),
        from: "manage.py".to_owned(),
        root: None,
        env,
        statics: django_statics(folder, &text),
        weight: 500,
    })
}

fn django_statics(folder: &Path, settings: &str) -> Vec<Statics> {
    let kinds = [
        (
            "STATIC_ROOT",
            "STATIC_URL",
            "/static/",
            Some("after `stack exec -- python manage.py collectstatic`"),
        ),
        (
            "MEDIA_ROOT",
            "MEDIA_URL",
            "/media/",
            Some("once the folder is there"),
        ),
    ];
    let mut statics = Vec::new();
    for (root, url, usual, note) in kinds {
        let Some(root) = python::setting(settings, root) else {
            continue;
        };
        let url = python::setting(settings, url).unwrap_or(usual);
        if url.contains("://") {
            // Somebody else serves them.
            continue;
        }
        let exists = folder.join(root).is_dir();
        statics.push(Statics {
            path: format!("/{}/", url.trim_matches('/')),
            folder: root.trim_end_matches('/').to_owned(),
            exists,
            note: note.filter(|_| !exists),
        });
    }
    statics
}

/// `web: gunicorn app:app --log-file -`: the platform's own word for it.
fn procfile(folder: &Path) -> Option<Found> {
    let text = fs::read_to_string(folder.join("Procfile")).ok()?;
    let web = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("web:"))?;
    let words: Vec<&str> = web
        .split_whitespace()
        .skip_while(|word| !word.ends_with("gunicorn"))
        .skip(1)
        .map(|word| word.trim_matches(['"', '\'']))
        .collect();
    let entry = words.iter().copied().find(is_entry)?;
    let at = words.iter().position(|word| word.starts_with("--chdir"));
    let chdir = at.and_then(|at| match words[at].split_once('=') {
        Some((_, path)) => Some(path),
        None => words.get(at + 1).copied(),
    });
    let root = chdir.map(|path| path.trim_start_matches("./").trim_end_matches('/'));
    let root = root.filter(|path| !path.is_empty() && folder.join(path).is_dir());
    let below = root.map_or_else(|| folder.to_owned(), |root| folder.join(root));
    Some(Found {
        entry: entry.to_owned(),
        what: "what gunicorn serves".to_owned(),
        from: "Procfile".to_owned(),
        root: root.map(str::to_owned),
        env: Vec::new(),
        statics: flask_statics(folder, &below),
        weight: 400,
    })
}

/// Packages in a folder `src`, which is on the path of a project that is not installed.
fn in_src(folder: &Path) -> Vec<Found> {
    let src = folder.join("src");
    if src.join("__init__.py").is_file() {
        return Vec::new();
    }
    let modules = modules(&src, &names(&src).unwrap_or_default());
    let apps = modules.iter().filter_map(|module| module.app(folder));
    let on_path = |app: Found| Found {
        env: vec![("PYTHONPATH".to_owned(), "src".to_owned())],
        ..app
    };
    apps.map(on_path).collect()
}

/// Neither an option nor an address, which have colons too.
fn is_entry(word: &&str) -> bool {
    let is_name = |text: &str| {
        let starts = text.starts_with(|first: char| first.is_alphabetic() || first == '_');
        starts && !text.contains(['/', '=', '$'])
    };
    word.split_once(':')
        .is_some_and(|(module, attribute)| is_name(module) && is_name(attribute))
}

fn venv(folder: &Path) -> Option<Venv> {
    let is_venv = |path: &Path| path.join("pyvenv.cfg").is_file();
    let near = [".venv", "venv"]
        .into_iter()
        .find(|name| is_venv(&folder.join(name)));
    if let Some(name) = near {
        return Some(Venv {
            path: name.to_owned(),
            is_found_by_itself: true,
        });
    }
    // Poetry, pipenv and virtualenvwrapper keep theirs elsewhere; who has it activated means it.
    let active = PathBuf::from(env::var_os("VIRTUAL_ENV")?);
    is_venv(&active).then(|| Venv {
        path: active.display().to_string(),
        is_found_by_itself: false,
    })
}
