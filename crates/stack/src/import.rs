//! `stack import`: what nginx and gunicorn were told, as a `site.toml`; and, line by line, what of it has no twin.
//!
//! Nothing is run and nothing is asked of the servers: files are read. Each line ends in one of three ways: in the file, or
//! below it among what needs no word here, or among what is left to do. None is dropped.

mod draft;
mod gunicorn;
mod nginx;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use self::{draft::Draft, gunicorn::Gunicorn, nginx::Translator};
use crate::{args, check::plural, failure::Failure, load};

/// Largest file that is read, in bytes; a person's is some kilobytes.
const LARGEST: u64 = 16 << 20;

/// Translates, and says what is left to do.
pub(crate) fn run(asked: &args::Import) -> Result<(), Failure> {
    let mut sources = Vec::new();
    for path in &asked.files {
        read(path, &mut sources)?;
    }
    let draft = translate(&sources)?;
    let names: Vec<String> = asked
        .files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let text = draft.compose(&names);
    let mut err = anstream::stderr();
    match &asked.output {
        None => write!(anstream::stdout(), "{text}")?,
        Some(file) => {
            crate::init::write_new(file, &text, asked.force)?;
            writeln!(err, "wrote {}", file.display())?;
        }
    }
    let left = draft.left.len();
    if left > 0 {
        let lines = plural(left, "line");
        writeln!(
            err,
            "{lines} could not be translated: what to do is at the end of the file"
        )?;
    }
    // What it says, and not yet what this machine has.
    let place = asked.output.clone().unwrap_or_else(|| "site.toml".into());
    if let Err(report) = config::parse(&place, text, load::is_privileged()) {
        writeln!(
            err,
            "the translation is not right yet, which you have to mend:\n\n{report}"
        )?;
    } else if let Some(file) = &asked.output {
        writeln!(err, "next: stack check --config {}", file.display())?;
    }
    Ok(())
}

/// Reads a file, those of a folder, or standard input.
fn read(path: &Path, sources: &mut Vec<(PathBuf, String)>) -> Result<(), Failure> {
    let failed = |error: &io::Error| {
        let why = config::plain(error);
        Failure::User(format!("cannot read {}: {why}", path.display()))
    };
    if path.as_os_str() == "-" {
        let text = whole(io::stdin()).map_err(|error| failed(&error))?;
        sources.push((PathBuf::from("standard input"), text));
        return Ok(());
    }
    if path.is_dir() {
        let mut files: Vec<PathBuf> = fs::read_dir(path)
            .map_err(|error| failed(&error))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|file| file.is_file() && !is_hidden(file))
            .collect();
        files.sort();
        return files.iter().try_for_each(|file| read(file, sources));
    }
    let file = fs::File::open(path).and_then(whole);
    sources.push((path.to_owned(), file.map_err(|error| failed(&error))?));
    Ok(())
}

/// All that a file says. What is no UTF-8 stands in comments; what does not will be seen. Half of a file would be half of a
/// server, so one that is too large is not taken.
fn whole(file: impl Read) -> io::Result<String> {
    let mut content = Vec::new();
    let size = file.take(LARGEST + 1).read_to_end(&mut content)?;
    if size as u64 > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || name.ends_with('~')
}

/// What the files say, together.
fn translate(sources: &[(PathBuf, String)]) -> Result<Draft, Failure> {
    let mut draft = Draft::default();
    let ends = |path: &Path, ending: &str| path.extension().is_some_and(|found| found == ending);
    let is_python = |path: &Path| ends(path, "py");
    let is_unit = |path: &Path| ends(path, "service") || ends(path, "socket");
    let mut web = Vec::new();
    let mut dump = BTreeMap::new();
    for (path, text) in sources
        .iter()
        .filter(|(path, _)| !is_python(path) && !is_unit(path))
    {
        let mut files = dumped(path, text).into_iter();
        web.extend(files.next());
        dump.extend(files);
    }
    let apps = gunicorns(sources, is_python, is_unit)?;
    let alone = web.is_empty();
    for (at, app) in apps.into_iter().enumerate() {
        let name = match draft.apps.len() {
            0 => "web".to_owned(),
            before => format!("web{}", before + 1),
        };
        app.translate(&mut draft, &name, alone && at == 0);
    }
    if !alone {
        let reads = |pattern: &Path| {
            let printed = dump.iter().filter(|(path, _)| is_match(pattern, path));
            let printed: Vec<(PathBuf, io::Result<String>)> = printed
                .map(|(path, text)| (path.clone(), Ok(text.clone())))
                .collect();
            match printed.is_empty() {
                true => matching(pattern),
                false => printed,
            }
        };
        let result = Translator::new(&mut draft, &reads).run(&web);
        result.map_err(|error| {
            Failure::User(format!(
                "{}:{}: {}",
                error.file, error.error.line, error.error.message
            ))
        })?;
    }
    if draft.sites.is_empty() {
        return Err(Failure::User(format!(
            "nothing to serve is in these files: no `server` of nginx with something in it, and no gunicorn{}",
            draft.left.first().map_or(String::new(), |note| format!(
                " ({}: {})",
                note.place, note.what
            ))
        )));
    }
    Ok(draft)
}

/// Those that gunicorn was told: each unit with its file, and files without a unit.
fn gunicorns(
    sources: &[(PathBuf, String)],
    is_python: impl Fn(&Path) -> bool,
    is_unit: impl Fn(&Path) -> bool,
) -> Result<Vec<Gunicorn>, Failure> {
    let mut found: Vec<Gunicorn> = Vec::new();
    let mut used: Vec<&Path> = Vec::new();
    for (path, text) in sources.iter().filter(|(path, _)| is_unit(path)) {
        let Some(mut unit) = Gunicorn::of_unit(path, text) else {
            return Err(Failure::User(format!(
                "{} does not start gunicorn, as far as its lines say: name the unit that does",
                path.display()
            )));
        };
        if let Some(name) = unit.config().map(str::to_owned) {
            let same = |file: &Path| Path::new(&name).file_name() == file.file_name();
            let given = sources
                .iter()
                .find(|(file, _)| is_python(file) && same(file));
            if let Some((file, text)) = given {
                used.push(file);
                unit.take_file(file, text);
            } else if let Ok(text) = fs::read_to_string(&name) {
                unit.take_file(Path::new(&name), &text);
            } else {
                return Err(Failure::User(format!(
                    "{} names {name}, which is not here: name that file as well",
                    path.display()
                )));
            }
        }
        found.push(unit);
    }
    for (path, text) in sources.iter().filter(|(path, _)| is_python(path)) {
        if !used.contains(&path.as_path()) {
            found.push(Gunicorn::of_file(path, text));
        }
    }
    let (sockets, mut services): (Vec<Gunicorn>, Vec<Gunicorn>) = {
        let is_socket = |one: &Gunicorn, all: &[Gunicorn]| {
            all.iter()
                .any(|other| !std::ptr::eq(one, other) && one.belongs_to(other))
        };
        let flags: Vec<bool> = found.iter().map(|one| is_socket(one, &found)).collect();
        let mut flags = flags.into_iter();
        found
            .into_iter()
            .partition(|_| flags.next().unwrap_or_default())
    };
    for socket in sockets {
        match services
            .iter_mut()
            .find(|service| socket.belongs_to(service))
        {
            Some(service) => service.take(socket),
            None => services.push(socket),
        }
    }
    Ok(services)
}

/// `nginx -T` prints all files, each behind its name.
fn dumped(path: &Path, text: &str) -> Vec<(PathBuf, String)> {
    const MARK: &str = "# configuration file ";
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for line in text.split_inclusive('\n') {
        match line
            .trim_end()
            .strip_prefix(MARK)
            .and_then(|name| name.strip_suffix(':'))
        {
            Some(name) => files.push((PathBuf::from(name), String::new())),
            None => match files.last_mut() {
                Some((_, content)) => content.push_str(line),
                None => files.push((path.to_owned(), line.to_owned())),
            },
        }
    }
    if files.is_empty() {
        files.push((path.to_owned(), String::new()));
    }
    files
}

/// Whether a path is one that a pattern names, whose last part may have a star.
fn is_match(pattern: &Path, path: &Path) -> bool {
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let (wanted, found) = (name(pattern), name(path));
    pattern.parent() == path.parent()
        && match wanted.split_once('*') {
            None => wanted == found,
            Some((start, end)) => {
                found.len() >= start.len() + end.len()
                    && found.starts_with(start)
                    && found.ends_with(end)
                    && !found.starts_with('.')
            }
        }
}

/// The files on this machine that a pattern names, and what each says, or why it cannot be read.
fn matching(pattern: &Path) -> Vec<(PathBuf, io::Result<String>)> {
    let folder = pattern.parent().unwrap_or_else(|| Path::new("/"));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| is_match(pattern, path))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let content = fs::File::open(&path).and_then(whole);
        (path, content)
    };
    paths.into_iter().map(read).collect()
}
