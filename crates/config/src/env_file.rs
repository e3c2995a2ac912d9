//! `env_file`: lines of `KEY=VALUE`, as `.env` files are known from docker, systemd and python-dotenv.
//!
//! `#` comments, an `export` in front, and quotes are understood: `'…'` keeps everything, `"…"` knows `\n`, `\t`, `\r`,
//! `\"`, `\\` and `\$`; both may span lines. Nothing is expanded: `$HOME` stays `$HOME`. A later line wins.

use std::collections::BTreeMap;

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Counted from 1.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) message: String,
}

/// Reads the whole text, and says everything that is wrong with it.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, String>, Vec<BadLine>> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let mut reader = Reader {
        rest: text,
        line: 1,
    };
    let mut values = BTreeMap::new();
    let mut bad = Vec::new();
    while !reader.rest.is_empty() {
        let line = reader.line;
        match reader.assignment() {
            Ok(Some((key, value))) => {
                values.insert(key, value);
            }
            Ok(None) => {}
            Err(message) => {
                reader.skip_line();
                bad.push(BadLine { line, message });
            }
        }
    }
    if bad.is_empty() { Ok(values) } else { Err(bad) }
}

/// Whether a name can be set in an environment (POSIX.1-2017 §8.1, and what `exec` can carry).
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !name.contains(char::is_whitespace)
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    /// One line, or several when a quoted value spans them. Nothing is consumed on an error.
    fn assignment(&mut self) -> Result<Option<(String, String)>, String> {
        let line = self.rest.split('\n').next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            self.skip_line();
            return Ok(None);
        }
        let Some((before, _)) = line.split_once('=') else {
            return Err(format!("expected KEY=VALUE, found {:?}", shortened(line)));
        };
        let key = before.trim();
        let key = key
            .strip_prefix("export")
            .filter(|rest| rest.starts_with([' ', '\t']))
            .map_or(key, str::trim);
        if !is_name(key) {
            return Err(format!(
                "{:?} is not a name for an environment variable",
                shortened(key)
            ));
        }
        let key = key.to_owned();
        let at = self.rest.find('=').expect("the line has a `=`") + 1;
        let value = self.value(at)?;
        if value.contains('\0') {
            return Err(format!("the value of {key} contains NUL"));
        }
        Ok(Some((key, value)))
    }

    /// The value that starts at a byte of `rest`; consumes the line, or the lines.
    fn value(&mut self, at: usize) -> Result<String, String> {
        let text = self.rest[at..].trim_start_matches([' ', '\t']);
        let start = self.rest.len() - text.len();
        let (value, used) = match text.chars().next() {
            Some('\'') => single_quoted(&text[1..])?,
            Some('"') => double_quoted(&text[1..])?,
            _ => {
                let value = unquoted(text.split('\n').next().unwrap_or_default());
                self.skip_line();
                return Ok(value.to_owned());
            }
        };
        let end = start + 1 + used;
        let after = self.rest[end..]
            .split('\n')
            .next()
            .unwrap_or_default()
            .trim();
        if !(after.is_empty() || after.starts_with('#')) {
            return Err(format!(
                "unexpected {:?} after the closing quote",
                shortened(after)
            ));
        }
        self.line += self.rest[..end].matches('\n').count();
        self.rest = &self.rest[end..];
        self.skip_line();
        Ok(value)
    }

    fn skip_line(&mut self) {
        self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        self.line += 1;
    }
}

/// A `#` begins a comment only after a space, so that `secret#1` stays whole.
fn unquoted(line: &str) -> &str {
    let end = [" #", "\t#"]
        .iter()
        .filter_map(|mark| line.find(mark))
        .min()
        .unwrap_or(line.len());
    let value = line[..end].trim();
    if value.starts_with('#') { "" } else { value }
}

/// The value and how many bytes it took with its closing quote.
fn single_quoted(text: &str) -> Result<(String, usize), String> {
    let end = text.find('\'').ok_or("the closing ' is missing")?;
    Ok((text[..end].to_owned(), end + 1))
}

fn double_quoted(text: &str) -> Result<(String, usize), String> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, at + 1)),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, escaped @ ('"' | '\\' | '$'))) => value.push(escaped),
                // Unknown escapes stay as they are, as in a shell.
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err("the closing \" is missing".to_owned())
}

/// Enough to find the line; a value may be a secret, and an error goes to a log.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(24).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (text, expected) in [
            ("", &[][..]),
            ("\n# A=1\n  \n", &[]),
            ("A=1", &[("A", "1")]),
            ("A=1\r\nB=2\r\n", &[("A", "1"), ("B", "2")]),
            ("export A=1\nexport\tB=2", &[("A", "1"), ("B", "2")]),
            ("exported=1", &[("exported", "1")]),
            ("A = 1 # one", &[("A", "1")]),
            ("A=secret#1", &[("A", "secret#1")]),
            ("A=#x\nB= # x", &[("A", ""), ("B", "")]),
            ("A=\nB=2", &[("A", ""), ("B", "2")]),
            ("A=a=b", &[("A", "a=b")]),
            ("A='a \\n # b' # c", &[("A", "a \\n # b")]),
            (r#"A="a\n\t\"\\\$\q # b""#, &[("A", "a\n\t\"\\$\\q # b")]),
            ("A=\"one\ntwo\"\nB=3", &[("A", "one\ntwo"), ("B", "3")]),
            ("A=$HOME/${X}", &[("A", "$HOME/${X}")]),
            ("A=1\nA=2", &[("A", "2")]),
            ("\u{FEFF}A=1", &[("A", "1")]),
            ("A=it's", &[("A", "it's")]),
            ("A=ü", &[("A", "ü")]),
        ] {
            let expected: BTreeMap<_, _> = expected
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            assert_eq!(parse(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn every_bad_line_is_named() {
        let text = "A=1\nFOO\nB=\"x\ny\"\n=1\nA B=2\nC='x' y\nD=\"open\nE=2\n";
        let bad = parse(text).expect_err("bad lines");
        let said: Vec<_> = bad
            .iter()
            .map(|bad| format!("{}: {}", bad.line, bad.message))
            .collect();
        assert_eq!(
            said,
            [
                "2: expected KEY=VALUE, found \"FOO\"",
                "5: \"\" is not a name for an environment variable",
                "6: \"A B\" is not a name for an environment variable",
                "7: unexpected \"y\" after the closing quote",
                "8: the closing \" is missing",
            ]
        );
    }
}
