//! `[app.NAME]`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{Context, account, keys};
use crate::{
    defaults, env_file,
    error::{Mistake, Problem},
    site::{App, Entry, Interpreter, Located, Strategy, Workers},
    walk::{Table, Value},
};

/// `None` only where so much is missing that there is no app; that has been noted.
pub(super) fn read(context: &Context, name: &str, value: &Value<'_>) -> Option<App> {
    check_name(name, value);
    let table = value.table(&keys::APP, "a table such as `[app.web]`")?;
    let wsgi = table.required("wsgi", "wsgi = \"app:app\"");
    let wsgi = wsgi.and_then(|value| value.parsed("`\"module:attribute\"`", str::parse::<Entry>));
    let root = path(context, &table, "root");
    let app = App {
        name: name.to_owned(),
        root: root.unwrap_or_else(|| Located {
            value: context.folder.path(),
            span: None,
        }),
        interpreter: interpreter(context, &table),
        workers: workers(&table),
        threads: small(table.count(&defaults::THREADS)),
        streams: table
            .get(defaults::STREAMS.key)
            .map(|_| small(table.count(&defaults::STREAMS))),
        env: environment(context, &table),
        sendfile: sendfile(context, &table),
        timeout: table.duration(&defaults::TIMEOUT),
        boot_timeout: table.duration(&defaults::BOOT_TIMEOUT),
        max_requests: written(&table, "max_requests")
            .map(|()| table.count(&defaults::MAX_REQUESTS)),
        max_rss: written(&table, "max_rss").map(|()| table.size(&defaults::MAX_RSS)),
        max_age: written(&table, "max_age").map(|()| table.duration(&defaults::MAX_AGE)),
        memory_max: written(&table, "memory_max").map(|()| table.size(&defaults::MEMORY_MAX)),
        nofile: written(&table, "nofile").map(|()| table.count(&defaults::NOFILE)),
        private_tmp: table
            .get("private_tmp")
            .and_then(|value| value.boolean())
            .unwrap_or_default(),
        reload: table
            .get("reload")
            .and_then(|value| strategy(&value))
            .unwrap_or(defaults::RELOAD),
        before_reload: table
            .get("before_reload")
            .and_then(|value| value.parsed("a command in quotes", command)),
        before_reload_timeout: table.duration(&defaults::BEFORE_RELOAD_TIMEOUT),
        on_start: hook(&table, "on_start"),
        on_stop: hook(&table, "on_stop"),
        account: account::read(&table),
        umask: account::umask(&table),
        wsgi: wsgi?,
    };
    Some(app)
}

fn sendfile(context: &Context, table: &Table<'_>) -> Vec<Located<PathBuf>> {
    let folders = table.get("sendfile");
    let folders = folders.and_then(|value| value.list("a list of folders such as `[\"media\"]`"));
    let folder =
        |value: &Value<'_>| value.parsed("a path in quotes", |text| context.folder.parse(text));
    folders
        .unwrap_or_default()
        .iter()
        .filter_map(folder)
        .collect()
}

/// Limits that are off unless they are written.
fn written(table: &Table<'_>, key: &str) -> Option<()> {
    table.get(key).map(drop)
}

fn hook(table: &Table<'_>, key: &str) -> Option<Located<Entry>> {
    table.get(key)?.parsed("`\"module:function\"`", Entry::hook)
}

fn check_name(name: &str, value: &Value<'_>) {
    let fits = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
    if !name.is_empty() && name.chars().all(fits) {
        return;
    }
    let meant: String = name
        .to_lowercase()
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .collect();
    let hint = match meant.trim_matches('-') {
        "" => "write `[app.web]`".to_owned(),
        meant => format!("did you mean `{meant}`?"),
    };
    let message = format!("{name:?} is not a name for an app: it has a-z, 0-9, `_` and `-`");
    value
        .notes
        .wrong(Problem::new(value.key, message).hint(hint));
}

fn path(context: &Context, table: &Table<'_>, key: &str) -> Option<Located<PathBuf>> {
    table
        .get(key)?
        .parsed("a path in quotes", |text| context.folder.parse(text))
}

fn interpreter(context: &Context, table: &Table<'_>) -> Located<Interpreter> {
    let python = table.get("python");
    if let (Some(_), Some(python)) = (table.get("venv"), &python) {
        let problem = Problem::new(
            python.key,
            "`venv` and `python` both say which Python runs the app",
        );
        python
            .notes
            .wrong(problem.hint("remove `python`: a venv has its own"));
    }
    if let Some(Located { value, span }) = path(context, table, "venv") {
        return Located {
            value: Interpreter::Venv(value),
            span,
        };
    }
    let python =
        python.and_then(|value| value.parsed("a path in quotes", |text| program(context, text)));
    match python {
        Some(Located { value, span }) => Located {
            value: Interpreter::Path(value),
            span,
        },
        None => Located {
            value: Interpreter::Search,
            span: None,
        },
    }
}

/// A bare name is looked up in `PATH`, as a shell does.
fn program(context: &Context, text: &str) -> Result<PathBuf, Mistake> {
    let path = context.folder.parse(text)?;
    Ok(if text.contains('/') || text.starts_with('.') {
        path
    } else {
        PathBuf::from(text)
    })
}

fn workers(table: &Table<'_>) -> Workers {
    let Some(value) = table.get(defaults::WORKERS.key) else {
        return Workers::fixed(defaults::cores());
    };
    match value.as_str() {
        None => Workers::fixed(small(table.count(&defaults::WORKERS))),
        Some("auto") => Workers::fixed(defaults::cores()),
        Some(text) => match text.split_once("..") {
            Some((least, most)) => range(&value, least, most).unwrap_or(Workers::fixed(1)),
            None => {
                value.wrong(workers_mistake(&value, text));
                Workers::fixed(1)
            }
        },
    }
}

fn workers_mistake(value: &Value<'_>, text: &str) -> Mistake {
    let mistake = value.type_mistake(
        "a whole number, `\"auto\"` for one worker for each core, or a range such as `\"1..8\"`",
    );
    match text.parse::<u16>() {
        Ok(number) => mistake.hint(format!("write `{number}` without quotes")),
        Err(_) => mistake,
    }
}

/// `"1..8"`: both ends belong to it.
fn range(value: &Value<'_>, least: &str, most: &str) -> Option<Workers> {
    let number = |text: &str| {
        let number = text.trim().parse::<u64>().ok();
        if number.is_none() {
            let mistake = Mistake::new(format!("{text:?} is not a number of workers"));
            value.wrong(mistake.hint("write a range such as `\"1..8\"`"));
        }
        value.within(&defaults::WORKERS, number?, |count| count.to_string())
    };
    let (least, most) = (
        number(least)?,
        number(most.strip_prefix('=').unwrap_or(most))?,
    );
    if least > most {
        let mistake = Mistake::new(format!("from {least} to {most} there is no number"));
        value.wrong(mistake.hint(format!("write `\"{most}..{least}\"`")));
        return None;
    }
    Some(Workers {
        least: small(least),
        most: small(most),
    })
}

fn strategy(value: &Value<'_>) -> Option<Strategy> {
    let wanted = "`\"side-by-side\"` or `\"rolling\"`";
    let strategy = value.parsed(wanted, |text| match text {
        "side-by-side" => Ok(Strategy::SideBySide),
        "rolling" => Ok(Strategy::Rolling),
        _ => {
            let mistake = Mistake::new(format!("expected {wanted}, found {text:?}"));
            Err(match keys::nearest(&["side-by-side", "rolling"], text) {
                Some(near) => mistake.hint(format!("did you mean `\"{near}\"`?")),
                None => mistake,
            })
        }
    });
    strategy.map(|strategy| strategy.value)
}

fn command(text: &str) -> Result<String, Mistake> {
    if text.trim().is_empty() {
        return Err(Mistake::new("there is no command in it").hint(
            "write one, such as `\"python manage.py migrate --noinput\"`, or remove the key",
        ));
    }
    without_nul(text)
}

fn small(count: u64) -> u16 {
    u16::try_from(count).expect("the range of the figure fits a u16")
}

/// `env` wins over `env_file`: it is nearer.
fn environment(context: &Context, table: &Table<'_>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    if let Some(value) = table.get("env_file") {
        let file = value.parsed("a path in quotes", |text| context.folder.parse(text));
        environment.extend(
            file.map(|file| read_env_file(&value, &file))
                .unwrap_or_default(),
        );
    }
    let entries = table
        .get("env")
        .and_then(|value| value.named("a table such as `{ DEBUG = \"0\" }`"));
    for (name, value) in entries.unwrap_or_default() {
        if !env_file::is_name(name) {
            let message = format!("{name:?} is not a name for an environment variable");
            value.notes.wrong(Problem::new(value.key, message));
        }
        if let Some(text) = value.parsed("text in quotes", without_nul) {
            environment.insert(name.to_owned(), text.value);
        }
    }
    environment
}

fn without_nul(text: &str) -> Result<String, Mistake> {
    if text.contains('\0') {
        return Err(Mistake::new("an environment variable cannot contain NUL"));
    }
    Ok(text.to_owned())
}

fn read_env_file(value: &Value<'_>, file: &Path) -> BTreeMap<String, String> {
    let shown = file.display();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            value.wrong(Mistake::new(format!(
                "cannot read {shown}: {}",
                crate::plain(&error)
            )));
            return BTreeMap::new();
        }
    };
    env_file::parse(&text).unwrap_or_else(|bad| {
        for bad in bad {
            value.wrong(Mistake::new(format!(
                "{shown}:{}: {}",
                bad.line, bad.message
            )));
        }
        BTreeMap::new()
    })
}
