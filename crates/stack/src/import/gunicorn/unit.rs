//! A systemd unit that starts gunicorn: its lines, and the words of its command.

/// `Key=value` of a section, with the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
}

/// The entries of a unit (systemd.syntax(7)).
pub(super) fn entries(text: &str) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut section = String::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut whole = line.trim().to_owned();
        if whole.is_empty() || whole.starts_with(['#', ';']) {
            continue;
        }
        while let Some(before) = whole.strip_suffix('\\') {
            let Some((_, next)) = lines.next() else { break };
            whole = match next.trim().starts_with(['#', ';']) {
                true => format!("{before} \\"),
                false => format!("{} {}", before.trim_end(), next.trim()),
            };
        }
        if let Some(name) = whole
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
        {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = whole.split_once('=') {
            all.push(Entry {
                line: number + 1,
                section: section.clone(),
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
            });
        }
    }
    all
}

/// The words of a command line, by the rules that a shell and systemd have in common.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some('"') | None, '\\') => {
                let escaped = characters.next();
                word.get_or_insert_default().extend(escaped);
            }
            (None, c) if c.is_whitespace() => all.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_line_by_line() {
        let text = "# x\n[Unit]\nDescription=a = b\n\n[Service]\nExecStart=/x/gunicorn \\\n  --workers 3 \\\n  # no\n  'a b':app\n; y\nUser=web\n";
        let entries: Vec<_> = entries(text)
            .into_iter()
            .map(|entry| (entry.line, entry.section, entry.key, entry.value))
            .collect();
        let entry = |line, section: &str, key: &str, value: &str| {
            (line, section.to_owned(), key.to_owned(), value.to_owned())
        };
        assert_eq!(entries[0], entry(3, "Unit", "Description", "a = b"));
        assert_eq!((entries[1].0, entries[1].2.as_str()), (6, "ExecStart"));
        assert_eq!(entries[2], entry(11, "Service", "User", "web"));
        assert_eq!(
            words(&entries[1].3),
            ["/x/gunicorn", "--workers", "3", "a b:app"]
        );
        assert_eq!(
            words(r#"a "b \" c" '\d' e\ f "" "#),
            ["a", "b \" c", "\\d", "e f", ""]
        );
    }
}
