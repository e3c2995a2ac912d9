//! A configuration that nobody wrote down: it is made of the arguments of a command, and judged by the rules of the file.
//!
//! The arguments become the text of a file, so that there is one way to a [`Site`](crate::site::Site). What is wrong with
//! that text is then shown where it came from: in the command line.

use std::{ops::Range, path::Path};

use crate::{
    error::{Problem, Span},
    load::{self, Loaded, Misread, Origin},
};

/// Where a line of the configuration belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `[server]`.
    Server,
    /// `[limits]`.
    Limits,
    /// `[app.NAME]`.
    App,
    /// `[[site]]`.
    Site,
}

impl Section {
    const ALL: [Self; 4] = [Self::Server, Self::Limits, Self::App, Self::Site];

    fn index(self) -> usize {
        match self {
            Self::Server => 0,
            Self::Limits => 1,
            Self::App => 2,
            Self::Site => 3,
        }
    }
}

/// A piece of configuration and the argument that asked for it.
#[derive(Clone, Debug)]
struct Piece {
    text: String,
    from: Option<Span>,
}

/// A command line, and the configuration that it asks for.
#[derive(Clone, Debug)]
pub struct Arguments {
    shown: String,
    app: String,
    sections: [Vec<Piece>; 4],
}

impl Arguments {
    /// Those of `command`, such as `stack serve`, with an app of this name.
    #[must_use]
    pub fn new(command: &str, app: &str) -> Self {
        Self {
            shown: command.to_owned(),
            app: app.to_owned(),
            sections: Default::default(),
        }
    }

    /// Adds an argument to the command line that is shown; returns its place there.
    pub fn show(&mut self, argument: &str) -> Span {
        self.shown.push(' ');
        let start = self.shown.len();
        self.shown.push_str(argument);
        Span {
            start,
            end: self.shown.len(),
        }
    }

    /// Adds a piece of a section: whole lines, or parts of a line in order. `from` is the argument that asked for it.
    pub fn set(&mut self, section: Section, text: impl Into<String>, from: Option<Span>) {
        let text = text.into();
        self.sections[section.index()].push(Piece { text, from });
    }

    /// The command line as it is shown.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The configuration as a file would say it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.write().0
    }

    /// What a section says, without its header.
    #[must_use]
    pub fn section(&self, section: Section) -> String {
        let pieces = self.sections[section.index()].iter();
        pieces.map(|piece| piece.text.as_str()).collect()
    }

    /// The text, and for each part of it that an argument asked for the place of that argument.
    fn write(&self) -> (String, Vec<(Range<usize>, Span)>) {
        let mut text = String::new();
        let mut places = Vec::new();
        for section in Section::ALL {
            let pieces = &self.sections[section.index()];
            if pieces.is_empty() {
                continue;
            }
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&match section {
                Section::Server => "[server]\n".to_owned(),
                Section::Limits => "[limits]\n".to_owned(),
                Section::App => format!("[app.{}]\n", self.app),
                Section::Site => "[[site]]\n".to_owned(),
            });
            for piece in pieces {
                let start = text.len();
                text.push_str(&piece.text);
                places.extend(piece.from.map(|from| (start..text.len(), from)));
            }
        }
        (text, places)
    }

    /// Judges it like a file that lies at `file`, where relative paths start.
    ///
    /// # Errors
    /// Everything that is wrong, in one report about the command line.
    pub fn parse(&self, file: &Path, privileged: bool) -> Result<Loaded, crate::error::Report> {
        let (text, places) = self.write();
        let origin = Origin::Arguments(places);
        match load::understand(file, text, privileged) {
            Ok(loaded) => Ok(Loaded {
                text: self.shown.clone(),
                file: COMMAND_LINE.into(),
                origin,
                ..loaded
            }),
            Err(misread) => {
                let Misread { report, site } = *misread;
                let lacking = site.map(|site| crate::machine::inspect_part(&site));
                let problems = report
                    .problems
                    .into_iter()
                    .chain(lacking.into_iter().flatten());
                let mut report = crate::error::Report::new(Path::new(COMMAND_LINE), &*self.shown);
                for problem in problems {
                    report.push(origin.translate(problem));
                }
                Err(report)
            }
        }
    }
}

/// What stands in the place of a file's name.
const COMMAND_LINE: &str = "the command line";

/// The place of the argument behind a place of the text, and words that fit a command line.
pub(crate) fn translate(places: &[(Range<usize>, Span)], problem: Problem) -> Problem {
    let span = problem.span.and_then(|span| {
        let asked = |(range, _): &&(Range<usize>, Span)| {
            range.start <= span.start && span.start < range.end
        };
        places.iter().find(asked).map(|(_, from)| *from)
    });
    Problem {
        span,
        message: problem.message,
        hint: problem
            .hint
            .map(|hint| hint.replace("the folder of this file", "the working directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(workers: &str) -> Arguments {
        let mut arguments = Arguments::new("stack serve", "app");
        let entry = arguments.show("app:app");
        arguments.set(Section::App, "wsgi = \"app:app\"\n", Some(entry));
        let count = arguments.show(&format!("--workers {workers}"));
        arguments.set(Section::App, format!("workers = {workers}\n"), Some(count));
        arguments.set(
            Section::Site,
            "routes = [{ path = \"/\", app = \"app\" }]\n",
            None,
        );
        arguments
    }

    #[test]
    fn arguments_are_a_configuration() {
        let loaded = example("3").parse(Path::new("/srv/x"), false).unwrap();
        assert_eq!(loaded.site.apps[0].workers.most, 3);
        assert_eq!(loaded.site.apps[0].root.value, Path::new("/srv"));
        assert_eq!(
            example("3").to_toml(),
            "[app.app]\nwsgi = \"app:app\"\nworkers = 3\n\n[[site]]\nroutes = [{ path = \"/\", app = \"app\" }]\n"
        );
    }

    #[test]
    fn a_mistake_is_shown_in_the_command_line() {
        let report = example("0").parse(Path::new("/srv/x"), false).unwrap_err();
        let shown = report.to_string();
        assert!(shown.contains("--> the command line:1:21"), "{shown}");
        assert!(
            shown
                .contains("| stack serve app:app --workers 0\n  |                     ^^^^^^^^^^^"),
            "{shown}"
        );
    }
}
