//! How a [`Report`] looks: the shape that rustc made known.
//!
//! The text of a configuration is shown as it is, but never lets a control character reach the terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthChar as _;

use crate::error::{Problem, Report, Span};

pub(crate) fn report(report: &Report, colour: bool) -> String {
    let mut problems: Vec<&Problem> = report.problems.iter().collect();
    // Those about the whole file come last: they are often the consequence of one that has a place.
    problems.sort_by_key(|problem| {
        problem
            .span
            .map_or((usize::MAX, 0), |span| (span.start, span.end))
    });
    let page = Page {
        file: report.file.display().to_string(),
        text: &report.text,
        palette: if colour {
            Palette::COLOUR
        } else {
            Palette::PLAIN
        },
    };
    let mut out = String::new();
    for problem in problems {
        page.problem(&mut out, problem);
        out.push('\n');
    }
    let count = report.problems.len();
    let noun = if count == 1 { "mistake" } else { "mistakes" };
    let Palette { strong, .. } = page.palette;
    put(
        &mut out,
        format_args!("{strong}{count} {noun} in {}{strong:#}", page.file),
    );
    out
}

#[derive(Clone, Copy)]
struct Palette {
    error: Style,
    strong: Style,
    frame: Style,
    help: Style,
}

impl Palette {
    const PLAIN: Self = Self {
        error: Style::new(),
        strong: Style::new(),
        frame: Style::new(),
        help: Style::new(),
    };
    const COLOUR: Self = Self {
        error: AnsiColor::Red.on_default().bold(),
        strong: Style::new().bold(),
        frame: AnsiColor::Blue.on_default().bold(),
        help: AnsiColor::Cyan.on_default().bold(),
    };
}

struct Page<'a> {
    file: String,
    text: &'a str,
    palette: Palette,
}

impl Page<'_> {
    fn problem(&self, out: &mut String, problem: &Problem) {
        let Palette { error, strong, .. } = self.palette;
        let message = printable(&problem.message);
        put(
            out,
            format_args!("{error}error{error:#}{strong}: {message}{strong:#}\n"),
        );
        let gutter = match problem.span {
            Some(span) if !self.text.is_empty() => self.excerpt(out, span),
            _ => self.place(out, 1, ""),
        };
        if let Some(hint) = &problem.hint {
            self.hint(out, gutter, &printable(hint));
        }
    }

    /// `--> file:line:column`; gives back the width of the gutter.
    fn place(&self, out: &mut String, gutter: usize, position: &str) -> usize {
        let Palette { frame, .. } = self.palette;
        put(
            out,
            format_args!(
                "{:gutter$}{frame}-->{frame:#} {}{position}\n",
                "", self.file
            ),
        );
        gutter
    }

    fn excerpt(&self, out: &mut String, span: Span) -> usize {
        let span = Span {
            start: span.start.min(self.text.len()),
            ..span
        };
        let first = Line::at(self.text, span.start);
        let last = Line::at(self.text, last_byte(self.text, span));
        let gutter = last.number.to_string().len();
        let column = first.text[..first.within(span.start)].chars().count() + 1;
        self.place(out, gutter, &format!(":{}:{column}", first.number));
        self.margin(out, gutter, None, "");
        self.underlined(
            out,
            gutter,
            &first,
            first.within(span.start),
            first.within(span.end),
        );
        if last.number > first.number {
            if last.number > first.number + 1 {
                let Palette { frame, .. } = self.palette;
                put(out, format_args!("{frame}...{frame:#}\n"));
            }
            let indent = last.text.len() - last.text.trim_start().len();
            let end = last.within(span.end);
            self.underlined(out, gutter, &last, indent.min(end), end);
        }
        gutter
    }

    /// A line of the file and a line of carets under `from..to`, which are bytes of the line.
    fn underlined(&self, out: &mut String, gutter: usize, line: &Line<'_>, from: usize, to: usize) {
        let (shown, start, width) = layout(line.text, from, to);
        let Palette { error, .. } = self.palette;
        self.margin(out, gutter, Some(line.number), &shown);
        let carets = "^".repeat(width);
        self.margin(
            out,
            gutter,
            None,
            &format!("{:start$}{error}{carets}{error:#}", ""),
        );
    }

    fn margin(&self, out: &mut String, gutter: usize, number: Option<usize>, content: &str) {
        let Palette { frame, .. } = self.palette;
        let number = number.map(|number| number.to_string()).unwrap_or_default();
        let space = if content.is_empty() { "" } else { " " };
        put(
            out,
            format_args!("{frame}{number:>gutter$} |{frame:#}{space}{content}\n"),
        );
    }

    fn hint(&self, out: &mut String, gutter: usize, hint: &str) {
        let Palette { frame, help, .. } = self.palette;
        put(
            out,
            format_args!(
                "{:gutter$} {frame}={frame:#} {help}help{help:#}: {hint}\n",
                ""
            ),
        );
    }
}

/// One line of the text, without its line ending.
struct Line<'a> {
    number: usize,
    start: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn at(text: &'a str, offset: usize) -> Self {
        let offset = floor(text, offset);
        let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let end = text[offset..]
            .find('\n')
            .map_or(text.len(), |at| offset + at);
        Self {
            number: text[..start].matches('\n').count() + 1,
            start,
            text: text[start..end].trim_end_matches('\r'),
        }
    }

    /// A byte of the file as a byte of this line.
    fn within(&self, offset: usize) -> usize {
        floor(self.text, offset.saturating_sub(self.start))
    }
}

/// The last byte that a span covers; a line ending at its end belongs to the line before.
fn last_byte(text: &str, span: Span) -> usize {
    let end = floor(text, span.end).max(span.start.min(text.len()));
    let covered = text.get(span.start..end).unwrap_or_default().trim_end();
    span.start + covered.len().saturating_sub(1)
}

/// The nearest character boundary at or before an offset: a span comes from elsewhere, and a report must not panic.
pub(crate) fn floor(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// What is shown of a line, the column where the underline starts, and how wide it is. Past [`WIDEST`] columns only the
/// surroundings of the underline are shown.
fn layout(line: &str, from: usize, to: usize) -> (String, usize, usize) {
    let from_column = width(&line[..from]);
    let skip = if from_column + CONTEXT > WIDEST {
        from_column - CONTEXT
    } else {
        0
    };
    let mut shown = String::new();
    let (mut column, mut start, mut end) = (0, None, None);
    let mut cut = 0;
    for (at, character) in line.char_indices() {
        let wide = column_width(character);
        if at == from {
            start = Some(column - cut);
        }
        if at == to {
            end = Some(column - cut);
        }
        if column < skip {
            cut += wide;
        } else if column - cut < WIDEST {
            draw(&mut shown, character);
        }
        column += wide;
    }
    let full = column - cut;
    let start = start.unwrap_or(full);
    let end = end.unwrap_or(full).min(WIDEST);
    let mut lead = 0;
    if cut > 0 {
        shown.insert(0, '…');
        lead = 1;
    }
    if full > WIDEST {
        shown.push('…');
    }
    (
        shown.trim_end().to_owned(),
        start + lead,
        end.saturating_sub(start).max(1),
    )
}

/// Widest part of a line that is shown; generated and binary files have lines without end.
const WIDEST: usize = 160;
/// How much is shown before the underline of a line that is wider.
const CONTEXT: usize = 40;
/// A tab is drawn as so many spaces, so that the underline fits whatever the terminal's tabs are.
const TAB: usize = 4;

fn width(text: &str) -> usize {
    text.chars().map(column_width).sum()
}

fn column_width(character: char) -> usize {
    match character {
        '\t' => TAB,
        // Drawn as U+FFFD.
        character if hidden(character) => 1,
        character => character.width().unwrap_or(1),
    }
}

fn draw(out: &mut String, character: char) {
    match character {
        '\t' => out.push_str("    "),
        character if hidden(character) => out.push('\u{FFFD}'),
        character => out.push(character),
    }
}

/// Control characters would move the cursor; bidirectional controls would show a line that is not what it says
/// (CVE-2021-42574).
fn hidden(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        draw(&mut out, character);
    }
    out
}

fn put(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments)
        .expect("writing to a String cannot fail");
}
