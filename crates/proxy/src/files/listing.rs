//! What is in a folder, as a small page or as JSON.

use std::{
    fmt::Write,
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, SystemTime},
};

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use rustix::fs::{AtFlags, Dir, FileType, statat};
use serde::Serialize;

use super::{
    Folder, Rules, blocking,
    name::is_visible,
    resolve::{Found, Root, Wait},
};
use crate::{
    failure::Failure,
    pages::Wish,
    request::Request,
    response::{Content, Response, http_date},
};

/// Most names of a page: more are of no use to eyes, and would cost a look at each.
const MOST: usize = 10_000;

/// One name. JSON has it as nginx's `autoindex_format json` does, which scripts know.
#[derive(Debug, Serialize)]
struct Item {
    name: String,
    #[serde(rename = "type")]
    kind: Kind,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// The name as bytes, which need not be text.
    #[serde(skip)]
    raw: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Directory,
    File,
}

/// Answers with what is in the folder, which ends in a slash or is the route's own.
pub(super) async fn respond(
    folder: &Folder,
    open: OwnedFd,
    below: &[u8],
    request: &Request<'_>,
) -> Result<Response, Failure> {
    let (root, rules, path) = (
        folder.root.clone(),
        Arc::clone(&folder.rules),
        below.to_vec(),
    );
    let items = blocking(move || read(&root, &rules, open, &path)).await;
    let items = items.map_err(Failure::FileUnreadable)?;
    let (kind, body) = if Wish::of(&request.head.fields) == Wish::Json {
        let json = serde_json::to_vec(&items).expect("names and numbers");
        ("application/json", json)
    } else {
        let is_top = below.is_empty();
        let page = page(request.target.path.as_bytes(), is_top, &items);
        ("text/html; charset=utf-8", page.into_bytes())
    };
    Ok(Response::new(200, Content::Bytes(body.into()))
        .with("Content-Type", kind)
        .with("X-Content-Type-Options", "nosniff")
        .with("Cache-Control", "no-cache")
        .with("Vary", "Accept"))
}

fn read(root: &Root, rules: &Rules, open: OwnedFd, path: &[u8]) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    for entry in Dir::read_from(&open)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !is_visible(name) || name == b".well-known" {
            continue;
        }
        // What is gone by now, or may not be looked at, is not shown.
        if let Some(item) = item(root, rules, &open, path, name) {
            items.push(item);
        }
        if items.len() == MOST {
            break;
        }
    }
    items.sort_by(|one, two| (one.kind, &one.raw).cmp(&(two.kind, &two.raw)));
    Ok(items)
}

/// What a name is, if a visitor could have it.
fn item(root: &Root, rules: &Rules, open: &OwnedFd, path: &[u8], name: &[u8]) -> Option<Item> {
    let stat = statat(open, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let own = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let (kind, size, modified) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => (Kind::File, u64::try_from(stat.st_size).ok(), Some(own)),
        FileType::Directory => (Kind::Directory, None, Some(own)),
        FileType::Symlink => match root.find(&[path, name].concat(), rules.inside(), Wait::Yes) {
            Ok(Found::File(file, _)) => {
                let identity = file.identity;
                (Kind::File, Some(identity.length), identity.modified)
            }
            // Of a link, the time is the link's.
            Ok(Found::Folder) => (Kind::Directory, None, Some(own)),
            _ => return None,
        },
        _ => return None,
    };
    Some(Item {
        name: String::from_utf8_lossy(name).into_owned(),
        kind,
        mtime: modified.and_then(http_date).unwrap_or_default(),
        size,
        raw: name.to_vec(),
    })
}

/// What a path segment in a link must not have as it is.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'/')
    .add(b':')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

fn page(path: &[u8], is_top: bool, items: &[Item]) -> String {
    let title = escape(&String::from_utf8_lossy(path));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:52em;margin:2em auto;padding:0 1em;color:#222;\
         background:#fff}}h1{{font-size:1.2em}}table{{width:100%;border-collapse:collapse}}td{{padding:.15em .5em 0 0;\
         overflow-wrap:anywhere}}td+td{{text-align:right;white-space:nowrap;color:#777}}a{{text-decoration:none}}\
         @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#181818}}a{{color:#8ab4f8}}}}</style>\n\
         <h1>{title}</h1>\n<table>\n"
    );
    if !is_top {
        page.push_str("<tr><td><a href=\"../\">../</a><td><td>\n");
    }
    for item in items {
        line(&mut page, item);
    }
    page.push_str("</table>\n");
    if items.len() == MOST {
        writeln!(page, "<p>These are the first {MOST}.</p>").expect("a String takes all");
    }
    page
}

fn line(page: &mut String, item: &Item) {
    let slash = if item.kind == Kind::Directory {
        "/"
    } else {
        ""
    };
    let (link, name) = (percent_encode(&item.raw, ENCODED), escape(&item.name));
    let size = item.size.map(size).unwrap_or_default();
    let time = item.mtime.get(5..22).unwrap_or_default();
    writeln!(
        page,
        "<tr><td><a href=\"{link}{slash}\">{name}{slash}</a><td>{size}<td>{time}"
    )
    .expect("a String takes all");
}

fn size(bytes: u64) -> String {
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit < 4 {
        value /= 1024.0;
        unit += 1;
    }
    let name = ["B", "KiB", "MiB", "GiB", "TiB"][unit];
    if unit == 0 {
        format!("{bytes} {name}")
    } else {
        format!("{value:.1} {name}")
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &[u8]) -> Item {
        Item {
            name: String::from_utf8_lossy(name).into_owned(),
            kind: Kind::File,
            mtime: "Mon, 24 Nov 2025 16:00:00 GMT".to_owned(),
            size: Some(1536),
            raw: name.to_vec(),
        }
    }

    #[test]
    fn a_name_is_never_markup_and_always_a_link_to_itself() {
        let items = [
            file(b"<script>&\"'.txt"),
            file(b"a b%2F\xff:c"),
            file(b"javascript:alert(1)"),
        ];
        let page = page(b"/<b>/", false, &items);
        for expected in [
            "<title>/&lt;b&gt;/</title>",
            "<a href=\"../\">",
            "<a href=\"%3Cscript%3E%26%22%27.txt\">&lt;script&gt;&amp;&quot;&#39;.txt</a>",
            "<a href=\"a%20b%252F%FF%3Ac\">",
            "<a href=\"javascript%3Aalert(1)\">",
            "1.5 KiB<td>24 Nov 2025 16:00",
        ] {
            assert!(page.contains(expected), "{expected}\n{page}");
        }
        assert!(!super::page(b"/", true, &[]).contains("../"));
    }

    #[test]
    fn sizes() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
