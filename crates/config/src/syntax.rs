//! TOML, with every syntax error that can be told apart, in words for people who do not know its grammar.
//!
//! Where an error leaves it open what the rest of the file means, the rest is not judged: a made-up mistake costs more
//! time than one found in the next run.

use std::collections::BTreeSet;

use toml::de::DeTable;

use crate::{
    error::{Problem, Span},
    render::floor,
};

/// A text that has been looked through for syntax errors.
pub(crate) struct Syntax {
    /// The text, with lines that say nothing replaced by spaces, so that the rest can be read.
    mended: String,
    /// One for each line that has any, in order of place.
    pub(crate) problems: Vec<Problem>,
    /// Where the tree stops being what the file says.
    sound_until: usize,
    /// The lines that have a syntax error.
    bad: BTreeSet<usize>,
    /// Where each line starts.
    starts: Vec<usize>,
}

impl Syntax {
    pub(crate) fn check(text: &str) -> Self {
        let lines = Lines::of(text);
        let mut errors = errors_of(text);
        let mended = mend(&lines, &errors);
        if mended != text {
            errors.extend(errors_of(&mended));
        }
        errors.sort_by_key(|error| (error.span.start, error.span.end));
        let sound_until = sound_until(&errors);
        if errors.iter().any(|error| error.kind == Kind::Unclosed) {
            errors.retain(|error| error.span.start <= sound_until);
        }
        let bad = errors
            .iter()
            .map(|error| lines.number(error.span.start))
            .collect();
        drop_consequences(&mut errors, &lines);
        let mut problems: Vec<Problem> =
            errors.iter().map(|error| explain(error, &lines)).collect();
        // Of a file in another language once is enough.
        problems.dedup_by(|later, first| {
            later.hint.as_deref() == Some(OTHER_LANGUAGE) && later.hint == first.hint
        });
        Self {
            mended,
            problems,
            sound_until,
            bad,
            starts: lines.starts,
        }
    }

    /// The tree, as far as it could be made out.
    pub(crate) fn table(&self) -> DeTable<'_> {
        DeTable::parse_recoverable(&self.mended).0.into_inner()
    }

    /// Whether a place can be trusted to say what the file says.
    pub(crate) fn is_sound(&self, span: Span) -> bool {
        span.start < self.sound_until && !self.bad.contains(&line_number(&self.starts, span.start))
    }
}

/// A text and where its lines start; they are counted from 0.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(after).collect(),
        }
    }

    fn number(&self, offset: usize) -> usize {
        line_number(&self.starts, offset)
    }

    fn start(&self, offset: usize) -> usize {
        self.starts[self.number(offset)]
    }

    /// The line of a place, without its ending.
    fn line(&self, offset: usize) -> &'a str {
        self.text[self.start(offset)..]
            .lines()
            .next()
            .unwrap_or_default()
    }
}

fn line_number(starts: &[usize], offset: usize) -> usize {
    // The first line starts at 0, so there is always one.
    starts.partition_point(|start| *start <= offset) - 1
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A key without `=`: the line says nothing.
    NoValue,
    /// A list or an inline table has something wrong between its elements.
    Structure,
    /// A list or an inline table has no end, and takes what follows as its own.
    Unclosed,
    /// `[name` without its bracket: what follows belongs to a table without a name.
    Header,
    /// Anything else: the tree is as good as without it.
    Local,
}

#[derive(Debug)]
struct Error {
    kind: Kind,
    message: String,
    span: Span,
}

/// The parser has no error kinds; its messages are all that tells them apart. One that it rewords is `Local`, and shown
/// as the parser says it.
const KINDS: [(&str, Kind); 9] = [
    ("key with no value", Kind::NoValue),
    ("invalid key-value pair", Kind::NoValue),
    ("missing comma", Kind::Structure),
    ("missing key for inline", Kind::Structure),
    ("invalid inline table", Kind::Structure),
    ("unclosed table", Kind::Header),
    ("unclosed array table", Kind::Header),
    ("unclosed", Kind::Unclosed),
    // The next line's `key = …`, taken for an element.
    ("unexpected `=`", Kind::Unclosed),
];

fn errors_of(text: &str) -> Vec<Error> {
    let (_, errors) = DeTable::parse_recoverable(text);
    let error = |error: toml::de::Error| {
        let message = error.message().to_owned();
        let kind = KINDS
            .iter()
            .find(|(start, _)| message.starts_with(start))
            .map_or(Kind::Local, |(_, kind)| *kind);
        let span = error.span().unwrap_or(text.len()..text.len());
        let span = Span::from(floor(text, span.start)..floor(text, span.end));
        Error {
            kind,
            message,
            span,
        }
    };
    errors.into_iter().map(error).collect()
}

/// The parser gives up the tree at a line without `=`: with such lines blank it goes on.
fn mend(lines: &Lines<'_>, errors: &[Error]) -> String {
    let says_nothing = errors.iter().filter(|error| error.kind == Kind::NoValue);
    let bad: BTreeSet<usize> = says_nothing
        .map(|error| lines.number(error.span.start))
        .collect();
    let text = lines.text;
    let mut mended = String::with_capacity(text.len());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if bad.contains(&number) {
            // Byte for byte, so that places stay places.
            mended.extend(line.bytes().map(|byte| {
                if matches!(byte, b'\r' | b'\n') {
                    char::from(byte)
                } else {
                    ' '
                }
            }));
        } else {
            mended.push_str(line);
        }
    }
    mended
}

fn sound_until(errors: &[Error]) -> usize {
    let unclosed = errors.iter().any(|error| error.kind == Kind::Unclosed);
    let hides_rest = |error: &&Error| match error.kind {
        Kind::Header | Kind::Unclosed => true,
        Kind::Structure => unclosed,
        Kind::NoValue | Kind::Local => false,
    };
    errors
        .iter()
        .find(hides_rest)
        .map_or(usize::MAX, |error| error.span.start)
}

/// A table written twice has the keys of both, each of them twice; and a line has one mistake at a time.
fn drop_consequences(errors: &mut Vec<Error>, lines: &Lines<'_>) {
    let is_header = |start: usize| lines.line(start).starts_with('[');
    let mut inside_twice = false;
    let mut last = 0;
    errors.retain(|error| {
        let duplicate = error.message == "duplicate key";
        let start = error.span.start;
        // A header between the two ends what is written twice.
        inside_twice &= !lines.text[last..start].contains("\n[");
        last = start;
        let keep = !(duplicate && inside_twice && !is_header(start));
        inside_twice |= duplicate && is_header(start);
        keep
    });
    errors.dedup_by_key(|error| lines.number(error.span.start));
}

fn explain(error: &Error, lines: &Lines<'_>) -> Problem {
    let text = lines.text;
    let found = text
        .get(error.span.start..error.span.end)
        .unwrap_or_default();
    let message = error.message.as_str();
    match error.kind {
        Kind::NoValue => no_value(error, lines),
        Kind::Structure | Kind::Unclosed => structure(error, text),
        Kind::Header => Problem::new(error.span, "expected `]` after the table's name"),
        Kind::Local if message == "duplicate key" => duplicate(error, lines, found),
        Kind::Local if message.starts_with("string values must be quoted") => {
            unquoted(error.span, found)
        }
        Kind::Local if NUMBERS.iter().any(|start| message.starts_with(start)) => {
            number(error, text)
        }
        Kind::Local => value(error, message, found),
    }
}

/// How the parser begins when a value starts with a digit and goes on otherwise.
const NUMBERS: [&str; 4] = [
    "invalid float",
    "invalid integer",
    "invalid date",
    "invalid time",
];

/// An address or a version without quotes: the whole of it is what was meant.
fn number(error: &Error, text: &str) -> Problem {
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}' | '#' | '=');
    let (before, after) = text.split_at(error.span.start.min(text.len()));
    let start = before.trim_end_matches(|c| !ends(c)).len();
    let end = before.len() + after.find(ends).unwrap_or(after.len());
    unquoted(Span::from(start..end), &text[start..end])
}

fn value(error: &Error, message: &str, found: &str) -> Problem {
    if message.starts_with("unexpected key or value") {
        return Problem::new(error.span, "expected the end of the line");
    }
    if message.starts_with("unexpected leading zero") {
        return Problem::new(error.span, "a number has no zero in front")
            .hint("write it without, or in quotes as a string");
    }
    if message.starts_with("invalid basic string") && found.is_empty() {
        return Problem::new(error.span, "the string is not closed").hint("put `\"` at its end");
    }
    match found.chars().next() {
        Some(control) if control.is_control() => {
            Problem::new(error.span, "a control character cannot stand here")
                .hint(format!("write `\\u{:04X}` in a string", u32::from(control)))
        }
        // As YAML has it.
        Some(':') if message.starts_with("invalid unquoted key") => {
            Problem::new(error.span, "expected `key = value`")
                .hint("between key and value stands `=`, not `:`")
        }
        _ => Problem::new(error.span, message),
    }
}

fn no_value(error: &Error, lines: &Lines<'_>) -> Problem {
    let line = lines.line(error.span.start);
    let start = lines.start(error.span.start) + (line.len() - line.trim_start().len());
    let problem = Problem::new(
        Span::from(start..start + line.trim().len()),
        "expected `key = value`",
    );
    if line.trim_end().ends_with(['{', '}', ';']) {
        return problem.hint(OTHER_LANGUAGE);
    }
    if line.contains(':') && !line.contains('=') {
        return problem.hint("between key and value stands `=`, not `:`");
    }
    problem
}

const OTHER_LANGUAGE: &str =
    "this file is TOML: a table starts with `[name]` on a line of its own, without braces";

fn structure(error: &Error, text: &str) -> Problem {
    let at = error.span.start.min(text.len());
    let before = text[..at].trim_end();
    let next = text[at..].trim_start();
    let new_line =
        text[before.len()..at].contains('\n') || text[at..text.len() - next.len()].contains('\n');
    if next.is_empty() || (new_line && starts_something_new(next)) {
        let end = before.len();
        return Problem::new(
            Span::from(end..end),
            "the list or table that starts here or above is not closed",
        )
        .hint("put `]` after the last value of a list, `}` after the last of an inline table");
    }
    // What is missing is missing at the end of the line before.
    let span = if new_line {
        Span::from(before.len()..before.len())
    } else {
        error.span
    };
    let message = match error.message.as_str() {
        message if message.starts_with("missing comma") => "expected `,` between two values",
        message if message.contains("inline table") => "expected `,` or `}`",
        message => message,
    };
    Problem::new(span, message)
}

/// Whether a line looks like `key = …` or `[name]`, and not like the next element of a list.
fn starts_something_new(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default();
    let key = line
        .bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        .count();
    let assigns = key > 0 && line[key..].trim_start().starts_with('=');
    assigns
        || line
            .trim_end()
            .strip_prefix('[')
            .is_some_and(|rest| rest.ends_with(']') && !rest.contains(['"', '\'']))
}

fn duplicate(error: &Error, lines: &Lines<'_>, found: &str) -> Problem {
    let line = lines.line(error.span.start).trim();
    if !line.starts_with('[') {
        return Problem::new(error.span, format!("`{found}` is written twice"))
            .hint("keep one of the two");
    }
    let name = line
        .split_inclusive(']')
        .take_while(|part| !part.trim().starts_with('#'))
        .collect::<String>();
    let hint = if line.starts_with("[[") {
        "write all of them with two brackets"
    } else {
        "put the keys of both into one"
    };
    Problem::new(error.span, format!("`{}` is written twice", name.trim())).hint(hint)
}

fn unquoted(span: Span, found: &str) -> Problem {
    let problem = |message: String| Problem::new(span, message);
    match found {
        "" => problem("a value is missing".to_owned()),
        "True" | "TRUE" | "yes" | "Yes" | "on" | "On" => {
            problem(format!("`{found}` is not a value")).hint("write `true`")
        }
        "False" | "FALSE" | "no" | "No" => {
            problem(format!("`{found}` is not a value")).hint("write `false`")
        }
        "off" | "Off" => {
            problem(format!("`{found}` is not a value")).hint("write `\"off\"` or `false`")
        }
        "None" | "none" | "null" | "nil" => {
            problem(format!("`{found}` is not a value")).hint("leave the key out")
        }
        _ => {
            let quoted = format!("{:?}", found.trim_matches(['"', '\'']));
            problem("text needs quotes".to_owned()).hint(format!("write `{quoted}`"))
        }
    }
}
