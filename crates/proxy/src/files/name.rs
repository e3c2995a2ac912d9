//! What a name says: whether visitors may ask for it at all, and whether what it names can ever change.

/// Endings of what editors and tools leave behind. Next to `settings.ini` such a copy would be sent as plain text, secrets
/// included.
const COPIES: [&[u8]; 10] = [
    b"~", b".bak", b".orig", b".rej", b".save", b".swn", b".swo", b".swp", b".swx", b".old",
];

/// Whether a decoded path may name a file at all. Hidden files (`.git`, `.env`) are not for visitors; `.well-known`
/// (RFC 8615) is.
pub(super) fn is_servable(path: &[u8]) -> bool {
    !path.contains(&0) && path.split(|&byte| byte == b'/').all(is_visible)
}

/// The same for one segment.
pub(super) fn is_visible(segment: &[u8]) -> bool {
    if segment.starts_with(b".") {
        return segment == b".well-known";
    }
    let is_copy = |ending: &&[u8]| {
        segment.len() > ending.len()
            && segment[segment.len() - ending.len()..].eq_ignore_ascii_case(ending)
    };
    // Emacs saves `#name#` while it edits.
    let is_autosave = segment.len() > 1 && segment.starts_with(b"#") && segment.ends_with(b"#");
    !is_autosave && !COPIES.iter().any(is_copy)
}

/// Whether the name has a hash of the content in it, so that another content would have another name: `app.3f2a9c01d4e5.css`
/// (Django's `ManifestStaticFilesStorage`, webpack), and `assets/index-DiwrgTda.js` (Vite, whose hash looks like a word, and is
/// therefore believed only in the folder that Vite gives it).
pub(super) fn is_immutable(path: &[u8]) -> bool {
    let mut segments = path.rsplit(|&byte| byte == b'/');
    let name = segments.next().unwrap_or_default();
    let folder = segments.next().unwrap_or_default();
    let mut parts: Vec<&[u8]> = name.split(|&byte| byte == b'.').collect();
    let stem = parts[0];
    parts.remove(0);
    parts.pop();
    parts.iter().any(|part| is_hash(part))
        || folder == b"assets" && name.len() > stem.len() && ends_with_hash(stem)
}

/// Hexadecimal, and not a date or a word: it has digits and letters.
fn is_hash(part: &[u8]) -> bool {
    (8..=64).contains(&part.len())
        && part
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && part.iter().any(u8::is_ascii_digit)
        && part.iter().any(u8::is_ascii_lowercase)
}

/// `-` and eight characters of base64url, which are not all lower case and not all digits.
fn ends_with_hash(stem: &[u8]) -> bool {
    const LENGTH: usize = 8;
    let Some(dash) = stem.len().checked_sub(LENGTH + 1).filter(|dash| *dash > 0) else {
        return false;
    };
    let hash = &stem[dash + 1..];
    stem[dash] == b'-'
        && hash
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && hash.iter().any(u8::is_ascii_alphabetic)
        && hash
            .iter()
            .any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_and_copies_are_not_for_visitors() {
        for (path, servable) in [
            ("a/b.css", true),
            ("", true),
            ("a/", true),
            (".git/config", false),
            ("a/.env", false),
            (".well-known/security.txt", true),
            (".well-known2/x", false),
            ("a..b", true),
            ("..", false),
            ("settings.py~", false),
            ("a.txt.BAK", false),
            ("dump.sql.old", false),
            (".index.html.swp", false),
            ("index.html.swp", false),
            ("#index.html#", false),
            ("#", true),
            ("~", true),
            ("bak", true),
            ("a.bak/b", false),
            ("a\0.css", false),
        ] {
            assert_eq!(is_servable(path.as_bytes()), servable, "{path}");
        }
    }

    #[test]
    fn names_with_a_hash() {
        for (path, immutable) in [
            ("css/app.3f2a9c01d4e5.css", true),
            ("admin/js/core.fd861cbb.min.js", true),
            ("app.3f2a9c01d4e5.css.map", true),
            ("assets/index-DiwrgTda.js", true),
            ("assets/index-1a2b3c4d.css", true),
            ("sub/assets/logo-B_x-9kQz.svg", true),
            ("index-DiwrgTda.js", false),
            ("assets/photo-vacation.jpg", false),
            ("assets/report-20240101.pdf", false),
            ("assets/DiwrgTda.js", false),
            ("assets/index-DiwrgTda", false),
            ("app.css", false),
            ("backup.202401011200.tar", false),
            ("a.deadbeef.css", false),
            ("jquery-3.7.1.min.js", false),
            ("3f2a9c01d4e5.css", false),
            ("a.3f2a9c01d4e5", false),
            ("", false),
        ] {
            assert_eq!(is_immutable(path.as_bytes()), immutable, "{path}");
        }
    }
}
