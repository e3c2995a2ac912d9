//! `stack init`: looks at a folder, and writes the `site.toml` that serves what is there.
//!
//! Nothing of the folder is run: what there is is told from names and texts. What was found is said, and why.

mod pages;
mod python;
mod survey;

use std::{fs, io::Write, path::Path};

use self::survey::{Found, Survey};
use crate::{args, failure::Failure, load};

/// Looks, writes, and says what to do next.
pub(crate) fn run(asked: &args::Init) -> Result<(), Failure> {
    let folder = &asked.folder;
    let survey = Survey::of(folder).map_err(|error| {
        let why = config::plain(&error);
        Failure::User(format!("cannot read {}: {why}", folder.display()))
    })?;
    let (text, findings) = match (survey.found(), pages::below(folder)) {
        (Some(found), _) => (of_app(&survey, found), survey.findings(found)),
        (None, Some(pages)) if survey.asgi.is_none() => {
            (of_pages(pages), vec![format!("pages: {pages}/index.html")])
        }
        (None, _) => return Err(Failure::User(survey.nothing(folder))),
    };
    if asked.print {
        write!(anstream::stdout(), "{text}")?;
        return Ok(());
    }
    let file = folder.join("site.toml");
    write_new(&file, &text, asked.force)?;
    let mut out = anstream::stderr();
    for line in findings {
        writeln!(out, "  {line}")?;
    }
    let shown = file.display();
    writeln!(out, "wrote {shown}\n")?;
    // It may still be wrong for this machine, and then that is what to read next.
    load::load(&file)?;
    writeln!(out, "next:\n{}", next(&survey, &file))?;
    Ok(())
}

/// Writes a file that is not there yet, or is to be replaced.
pub(crate) fn write_new(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let mut options = fs::File::options();
    options.write(true).truncate(true).create(true);
    if !force {
        options.create_new(true);
    }
    let written = options
        .open(file)
        .and_then(|mut open| open.write_all(text.as_bytes()));
    written.map_err(|error| {
        let shown = file.display();
        Failure::User(match error.kind() {
            std::io::ErrorKind::AlreadyExists => format!(
                "{shown} is there already; `--force` writes over it, `--print` only shows what would be written"
            ),
            _ => format!("cannot write {shown}: {error}"),
        })
    })
}

/// The file for an app.
fn of_app(survey: &Survey, found: &Found) -> String {
    let mut lines = vec![
        String::new(),
        format!("[app.{APP}]"),
        format!("wsgi = {:?}", found.entry),
        match &found.root {
            Some(root) => format!("root = {root:?}"),
            None => commented("#root = \".\"", "its folder: the one of this file"),
        },
        match &survey.venv {
            Some(venv) if !venv.is_found_by_itself => format!("venv = {:?}", venv.path),
            venv => {
                let path = venv.as_ref().map_or(".venv", |venv| &venv.path);
                commented(
                    &format!("#venv = {path:?}"),
                    "found by itself; without one, python3",
                )
            }
        },
        commented(
            "#workers = 4",
            "processes; one for each core, where nothing is said",
        ),
        commented("#threads = 4", "requests at once in each"),
    ];
    if survey.has_env_file {
        lines.push("env_file = \".env\"".to_owned());
    }
    for (name, value) in &found.env {
        lines.push(format!("env = {{ {name} = {value:?} }}"));
    }
    let mut routes: Vec<String> = found.statics.iter().map(files_route).collect();
    routes.push(format!("  {{ path = \"/\", app = \"{APP}\" }},"));
    compose(&found.what, lines, routes)
}

/// The file for a folder of pages.
fn of_pages(folder: &str) -> String {
    compose("a folder of pages", Vec::new(), pages::routes(folder))
}

/// A file, with a word on what each line is for.
fn compose(what: &str, app: Vec<String>, routes: Vec<String>) -> String {
    let mut lines = vec![
        format!("# For {what}, by `stack init`."),
        "# `stack reference` shows every key, with its default and the reason for it.".to_owned(),
        String::new(),
        "[server]".to_owned(),
        commented("http = [\":8080\"]", "\":80\" on a server"),
        commented("#https = [\":443\"]", "with `tls` in [[site]] below"),
    ];
    lines.extend(app);
    lines.extend([
        String::new(),
        "[[site]]".to_owned(),
        commented(
            "#hosts = [\"example.org\"]",
            "every host, where none is named",
        ),
        "#tls = { cert = \"fullchain.pem\", key = \"privkey.pem\" }".to_owned(),
        "routes = [".to_owned(),
    ]);
    lines.extend(routes);
    lines.push("]".to_owned());
    lines.join("\n") + "\n"
}

/// A folder that is not there yet would be a mistake.
fn files_route(files: &survey::Statics) -> String {
    let start = if files.exists { "" } else { "#" };
    let route = format!(
        "  {start}{{ path = {:?}, files = {:?} }},",
        files.path, files.folder
    );
    files
        .note
        .map_or_else(|| route.clone(), |note| commented(&route, note))
}

fn commented(setting: &str, comment: &str) -> String {
    format!("{setting:<31} # {comment}")
}

/// The name of the app.
const APP: &str = "web";

/// What to type, in order.
fn next(survey: &Survey, file: &Path) -> String {
    let mut steps: Vec<(String, &str)> = Vec::new();
    let mut step = |command: &str, why| steps.push((command.to_owned(), why));
    if survey.venv.is_none() && survey.requirements.is_some() {
        let folder = file
            .strip_prefix(".")
            .unwrap_or(file)
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."));
        let venv = folder.join(".venv");
        let venv = venv.strip_prefix(".").unwrap_or(&venv);
        step(
            &format!("python3 -m venv {}", venv.display()),
            "a Python of its own",
        );
        let listed = match survey.requirements {
            Some("requirements.txt") => format!("-r {}", folder.join("requirements.txt").display()),
            _ => folder.display().to_string(),
        };
        let install = format!("{}/bin/pip install {listed}", venv.display());
        step(&install, "and the app's packages in it");
    }
    let config = match file.to_str() {
        Some("./site.toml" | "site.toml") => String::new(),
        _ => format!(" --config {}", file.display()),
    };
    step(&format!("stack check{config}"), "says what is still wrong");
    step(
        &format!("stack up{config} --dev"),
        "serves it at http://localhost:8080/, and takes over what you save",
    );
    step(&format!("stack up{config}"), "the same for visitors");
    let width = steps
        .iter()
        .map(|(command, _)| command.len())
        .max()
        .unwrap_or_default();
    let lines: Vec<String> = steps
        .iter()
        .map(|(command, why)| format!("  {command:<width$}   {why}"))
        .collect();
    lines.join("\n")
}
