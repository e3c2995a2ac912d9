//! Media types: by the ending of a name, by the route's own table first.

use std::collections::BTreeMap;

/// What nothing is known of: a browser then offers to save it.
const UNKNOWN: &str = "application/octet-stream";

/// Newer types, which the table that we use does not have or has otherwise than the IANA registry.
const NEWER: [(&str, &str); 12] = [
    ("avif", "image/avif"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
    ("heic", "image/heic"),
    ("jxl", "image/jxl"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4s", "video/iso.segment"),
    ("map", "application/json"),
    ("mjs", "text/javascript"),
    ("mpd", "application/dash+xml"),
    ("webmanifest", "application/manifest+json"),
    ("zst", "application/zstd"),
];

/// The type of a name. Text says its encoding, since a browser would otherwise guess.
pub(super) fn of(name: &[u8], own: &BTreeMap<String, String>) -> Box<str> {
    let Some(ending) = ending(name) else {
        return UNKNOWN.into();
    };
    if let Some(kind) = own.get(&ending) {
        return with_charset(kind);
    }
    let newer = NEWER.iter().find(|(known, _)| *known == ending);
    let kind = newer
        .map(|(_, kind)| *kind)
        .or_else(|| mime_guess::from_ext(&ending).first_raw());
    with_charset(kind.unwrap_or(UNKNOWN))
}

/// What follows the last dot, in lower case.
fn ending(name: &[u8]) -> Option<String> {
    let dot = memchr::memrchr(b'.', name)?;
    Some(str::from_utf8(&name[dot + 1..]).ok()?.to_lowercase())
}

fn with_charset(kind: &str) -> Box<str> {
    let is_text = kind.starts_with("text/") || kind == "application/javascript";
    if is_text && !kind.contains(';') {
        return format!("{kind}; charset=utf-8").into();
    }
    kind.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let own = BTreeMap::from([
            ("md".to_owned(), "text/markdown".to_owned()),
            (
                "html".to_owned(),
                "text/html; charset=iso-8859-1".to_owned(),
            ),
        ]);
        for (name, expected) in [
            ("style.css", "text/css; charset=utf-8"),
            ("page.html", "text/html; charset=iso-8859-1"),
            ("page.htm", "text/html; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("app.js.map", "application/json"),
            ("logo.svg", "image/svg+xml"),
            ("photo.JPG", "image/jpeg"),
            ("photo.avif", "image/avif"),
            ("photo.webp", "image/webp"),
            ("data.json", "application/json"),
            ("site.webmanifest", "application/manifest+json"),
            ("font.woff2", "font/woff2"),
            ("font.ttf", "font/ttf"),
            ("module.wasm", "application/wasm"),
            ("film.mp4", "video/mp4"),
            ("film.webm", "video/webm"),
            ("README.md", "text/markdown; charset=utf-8"),
            ("a.txt.gz", "application/gzip"),
            ("favicon.ico", "image/x-icon"),
            ("noending", UNKNOWN),
            ("a.", UNKNOWN),
        ] {
            assert_eq!(&*of(name.as_bytes(), &own), expected, "{name}");
        }
        assert_eq!(&*of(b"\xff.css", &own), "text/css; charset=utf-8");
        assert_eq!(&*of(b"a.\xff", &own), UNKNOWN);
    }
}
