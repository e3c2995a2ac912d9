//! `stack passwd`: writes the files that `auth = { basic = … }` reads.
//!
//! A file is replaced as a whole, so that whoever reads it in between sees the old one or the new one, and keeps its owner's mode.

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use anyhow::Context;

use crate::{args::Passwd, failure::Failure};

/// Hashes are for the administrator and the group that stack runs as.
const MODE: u32 = 0o640;

/// Shorter ones are guessed.
const SHORTEST: usize = 8;

/// `stack passwd NAME [FILE]`.
pub(crate) fn run(asked: &Passwd) -> Result<(), Failure> {
    let name = &asked.name;
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b':')
    {
        return Err(Failure::User(format!(
            "{name:?} cannot be a name: it has no spaces, no colon and only ASCII"
        )));
    }
    let Some(file) = &asked.file else {
        let line = line(name)?;
        writeln!(io::stdout(), "{line}")?;
        return Ok(());
    };
    let before = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !asked.remove => String::new(),
        Err(error) => {
            return Err(Failure::User(format!(
                "cannot read {}: {error}",
                file.display()
            )));
        }
    };
    let known = before.lines().any(|line| is_of(line, name));
    let after = match (asked.remove, known) {
        (true, false) => {
            let file = file.display();
            return Err(Failure::User(format!("there is no {name:?} in {file}")));
        }
        (true, true) => replaced(&before, name, None),
        (false, _) => replaced(&before, name, Some(&line(name)?)),
    };
    write(file, &after)?;
    let done = match (asked.remove, known) {
        (true, _) => "is gone",
        (false, true) => "has a new password",
        (false, false) => "is added",
    };
    writeln!(
        io::stdout(),
        "{name} {done}; a running stack knows it within seconds"
    )?;
    Ok(())
}

fn line(name: &str) -> Result<String, Failure> {
    let password = password(name)?;
    if password.chars().count() < SHORTEST {
        return Err(Failure::User(format!(
            "that is too short to be kept: {SHORTEST} characters at least, better a sentence"
        )));
    }
    let hash = proxy::access::hash_password(password.as_bytes());
    Ok(format!(
        "{name}:{}",
        hash.context("cannot hash a password")?
    ))
}

fn password(name: &str) -> Result<String, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let mut line = String::new();
        stdin
            .lock()
            .read_line(&mut line)
            .context("cannot read standard input")?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let ask =
        |prompt: String| rpassword::prompt_password(prompt).context("cannot ask on this terminal");
    let first = ask(format!("Password of {name}: "))?;
    if first != ask("Once more: ".to_owned())? {
        return Err(Failure::User(
            "the two are not the same; nothing is changed".to_owned(),
        ));
    }
    Ok(first)
}

fn is_of(line: &str, name: &str) -> bool {
    line.trim()
        .split_once(':')
        .is_some_and(|(known, _)| known == name)
}

/// The text with one line in place of the name's own; everything else stays as it is.
fn replaced(before: &str, name: &str, line: Option<&str>) -> String {
    let mut line = line;
    let mut lines: Vec<&str> = Vec::new();
    for old in before.lines() {
        if is_of(old, name) {
            lines.extend(line.take());
        } else {
            lines.push(old);
        }
    }
    lines.extend(line);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let shown = path.display();
    let cannot = |error: io::Error| Failure::User(format!("cannot write {shown}: {error}"));
    // Behind a link the file itself is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut new = tempfile::NamedTempFile::new_in(folder).map_err(cannot)?;
    let mode = fs::metadata(&path).map_or(MODE, |metadata| metadata.permissions().mode());
    new.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))
        .map_err(cannot)?;
    if let Ok(metadata) = fs::metadata(&path) {
        use std::os::unix::fs::{MetadataExt, fchown};
        // Only root can; anybody else's file keeps its owner by being theirs.
        let _ = fchown(new.as_file(), Some(metadata.uid()), Some(metadata.gid()));
    }
    new.write_all(text.as_bytes()).map_err(cannot)?;
    new.as_file().sync_all().map_err(cannot)?;
    new.persist(&path).map_err(|error| cannot(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_own_line_changes() {
        let before = "# staff\nann:1\n\nbob:2\n";
        for (name, line, after) in [
            ("ann", Some("ann:9"), "# staff\nann:9\n\nbob:2\n"),
            ("cid", Some("cid:9"), "# staff\nann:1\n\nbob:2\ncid:9\n"),
            ("bob", None, "# staff\nann:1\n\n"),
            ("an", Some("an:9"), "# staff\nann:1\n\nbob:2\nan:9\n"),
        ] {
            assert_eq!(replaced(before, name, line), after, "{name}");
        }
        assert_eq!(replaced("ann:1", "bob", Some("bob:2")), "ann:1\nbob:2\n");
    }
}
