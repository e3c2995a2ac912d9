//! The keys of a route that goes to files.

use std::{collections::BTreeMap, time::Duration};

use super::{Context, route};
use crate::{
    defaults,
    error::{Mistake, Problem},
    site::{Cache, Files, RoutePath, Symlinks},
    units,
    walk::{Table, Value},
};

/// What goes with `files` alone.
pub(super) const OPTIONS: &[&str] = &[
    "index", "fallback", "listing", "cache", "types", "symlinks", "compress", "internal",
];

/// `value` is that of `files`.
pub(super) fn read(
    context: &Context,
    table: &Table<'_>,
    value: &Value<'_>,
    path: Option<&RoutePath>,
) -> Option<Files> {
    if let Some(RoutePath::Exact(exact)) = path {
        let problem = Problem::new(
            table.get("path").map(|value| value.span),
            "`files` needs a path that ends in `/`",
        );
        table
            .notes
            .wrong(problem.hint(format!("did you mean `\"{exact}/\"`?")));
    }
    let root = value.parsed("a path in quotes", |text| context.folder.parse(text));
    let listing = table.get("listing").and_then(|value| value.boolean());
    let fallback = fallback(table);
    Some(Files {
        index: index(table),
        fallback,
        listing: listing.unwrap_or(false),
        cache: table
            .get("cache")
            .and_then(|value| cache(&value))
            .unwrap_or(Cache::Unsaid),
        types: types(table),
        symlinks: symlinks(table).unwrap_or(Symlinks::Inside),
        internal: internal(table),
        root: root?,
    })
}

fn index(table: &Table<'_>) -> Vec<String> {
    let Some(value) = table.get("index") else {
        return vec![defaults::INDEX.to_owned()];
    };
    let wanted = "a file name such as `\"index.html\"`";
    let names = if value.as_str().is_some() {
        vec![value]
    } else {
        value
            .list(&format!("{wanted}, or a list of them"))
            .unwrap_or_default()
    };
    let name = |name: &Value<'_>| Some(name.parsed(wanted, parse_index)?.value);
    names.iter().filter_map(name).collect()
}

fn parse_index(text: &str) -> Result<String, Mistake> {
    if text.is_empty() || text.contains(['/', '\0']) || text.starts_with('.') {
        return Err(
            Mistake::new(format!("{text:?} is not the name of a file in a folder"))
                .hint("write a name such as `\"index.html\"`, or `[]` for none"),
        );
    }
    Ok(text.to_owned())
}

fn fallback(table: &Table<'_>) -> Option<String> {
    let value = table.get("fallback")?;
    if table.get("app").is_some() {
        let problem = Problem::new(
            value.key,
            "`app` and `fallback` both say what answers where there is no file",
        );
        table.notes.wrong(problem.hint("keep one of the two"));
    }
    let parsed = value.parsed("the path of a file below the folder", parse_fallback)?;
    Some(parsed.value)
}

/// Below the folder, so that it is found as every other file is.
fn parse_fallback(text: &str) -> Result<String, Mistake> {
    let path = text.strip_prefix('/').unwrap_or(text);
    let names_a_file = !path.is_empty() && !path.contains('\0');
    if names_a_file
        && path
            .split('/')
            .all(|segment| !segment.is_empty() && !segment.starts_with('.'))
    {
        return Ok(path.to_owned());
    }
    Err(Mistake::new(format!(
        "{text:?} is not the path of a file below the folder"
    ))
    .hint("write a path such as `\"index.html\"`"))
}

fn cache(value: &Value<'_>) -> Option<Cache> {
    if value.as_str() == Some("immutable") {
        return Some(Cache::Immutable);
    }
    let duration: Duration = value.duration()?;
    let duration = value.within(&defaults::CACHE, duration, units::show_duration)?;
    if duration.subsec_nanos() != 0 {
        value.wrong(
            Mistake::new("`cache` is in whole seconds").hint("RFC 9111 has no shorter time"),
        );
    }
    Some(Cache::Age(duration))
}

fn types(table: &Table<'_>) -> BTreeMap<String, String> {
    let wanted = "a table such as `{ \".wasm\" = \"application/wasm\" }`";
    let entries = table.get("types").and_then(|value| value.named(wanted));
    let mut types = BTreeMap::new();
    for (name, value) in entries.unwrap_or_default() {
        let ending = name.trim_start_matches('.').to_lowercase();
        if ending.is_empty() || ending.contains(['/', '.']) {
            let problem = Problem::new(value.key, format!("{name:?} is not the ending of a name"));
            value
                .notes
                .wrong(problem.hint("write what follows the last dot, such as `\".wasm\"`"));
        }
        let parsed = value.parsed("a type such as `\"text/html\"`", route::parse_type);
        if let Some(kind) = parsed {
            types.insert(ending, kind.value);
        }
    }
    types
}

fn internal(table: &Table<'_>) -> bool {
    let Some(value) = table.get("internal") else {
        return false;
    };
    let internal = value.boolean() == Some(true);
    if internal && table.get("app").is_some() {
        let problem = Problem::new(value.key, "an app cannot be `internal`, files alone can");
        value
            .notes
            .wrong(problem.hint("give the files a route of their own"));
    }
    internal
}

fn symlinks(table: &Table<'_>) -> Option<Symlinks> {
    let value = table.get("symlinks")?;
    let wanted = "`\"inside\"` or `\"follow\"`";
    let parsed = value.parsed(wanted, |text| match text {
        "inside" => Ok(Symlinks::Inside),
        "follow" => Ok(Symlinks::Follow),
        _ => Err(Mistake::new(format!("expected {wanted}, found {text:?}"))),
    });
    Some(parsed?.value)
}
