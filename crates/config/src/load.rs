//! From a path to a [`Site`], or to all that is wrong with it.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{
    arguments,
    error::{Problem, Report, Span},
    machine, plain,
    schema::{self, Reading},
    site::Site,
};

/// A valid configuration, and its text, so that what is found wrong later can still be shown in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub site: Site,
    /// The file's text.
    pub text: String,
    /// The file as the user named it.
    pub file: PathBuf,
    /// What the text is.
    pub(crate) origin: Origin,
}

/// What the places of a configuration point into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The text itself.
    File,
    /// A text made of arguments: the parts of it, and the places of those arguments in the command line.
    Arguments(Vec<(Range<usize>, Span)>),
}

impl Origin {
    /// The same problem, where the user wrote it.
    pub(crate) fn translate(&self, problem: Problem) -> Problem {
        match self {
            Self::File => problem,
            Self::Arguments(places) => arguments::translate(places, problem),
        }
    }
}

impl Loaded {
    /// A report of problems that were found after loading.
    #[must_use]
    pub fn report(&self, problems: Vec<Problem>) -> Report {
        let mut report = Report::new(&self.file, self.text.clone());
        for problem in problems {
            report.push(self.origin.translate(problem));
        }
        report
    }

    /// What is served, for people: the file, or the app that a command line names.
    #[must_use]
    pub fn title(&self) -> String {
        match (&self.origin, self.site.apps.as_slice()) {
            (Origin::Arguments(_), [app]) => app.wsgi.to_string(),
            _ => self.file.display().to_string(),
        }
    }
}

/// Reads a file. `privileged` says whether we may take the ports below 1024, which decides the default of `http`.
///
/// # Errors
/// Everything that is wrong with the file, in one report; with it what this machine lacks of what could be read, so that
/// nobody mends the one only to be told of the other.
pub fn load(file: &Path, privileged: bool) -> Result<Loaded, Report> {
    let bytes = std::fs::read(file).map_err(|error| unreadable(file, &error))?;
    understand(file, decode(file, bytes)?, privileged).map_err(|misread| {
        let Misread { mut report, site } = *misread;
        let lacking = site.map(|site| machine::inspect_part(&site));
        for problem in lacking.into_iter().flatten() {
            report.push(problem);
        }
        report
    })
}

/// Reads a text as if it were the content of a file; relative paths start at the file's folder. Does not look at this
/// machine, but for `env_file`.
///
/// # Errors
/// Everything that is wrong with the text, in one report.
pub fn parse(file: &Path, text: String, privileged: bool) -> Result<Loaded, Report> {
    understand(file, text, privileged).map_err(|misread| misread.report)
}

/// What is wrong, with as much of the site as could be read.
pub(crate) struct Misread {
    pub(crate) report: Report,
    pub(crate) site: Option<Site>,
}

/// Makes of the text what it says.
pub(crate) fn understand(
    file: &Path,
    text: String,
    privileged: bool,
) -> Result<Loaded, Box<Misread>> {
    let absolute = std::path::absolute(file).map_err(|error| Misread {
        report: unreadable(file, &error),
        site: None,
    })?;
    let mut report = Report::new(file, text);
    // Taken out and put back, so that the report can be written to while the text is read.
    let text = std::mem::take(&mut report.text);
    let site = match schema::read(&absolute, &text, privileged, &mut report) {
        Reading::Whole(site) => {
            let file = file.to_owned();
            let origin = Origin::File;
            return Ok(Loaded {
                site,
                text,
                file,
                origin,
            });
        }
        Reading::Partly(site) => Some(site),
        Reading::No => None,
    };
    let report = Report { text, ..report };
    Err(Box::new(Misread { report, site }))
}

fn decode(file: &Path, bytes: Vec<u8>) -> Result<String, Report> {
    String::from_utf8(bytes).map_err(|error| {
        let start = error.utf8_error().valid_up_to();
        let mut report = Report::new(file, String::from_utf8_lossy(error.as_bytes()));
        // The first wrong byte has become U+FFFD, at the same place.
        let span = Span {
            start,
            end: start + char::REPLACEMENT_CHARACTER.len_utf8(),
        };
        report.push(Problem::new(span, "this is not UTF-8").hint("save the file as UTF-8"));
        report
    })
}

fn unreadable(file: &Path, error: &std::io::Error) -> Report {
    let mut report = Report::new(file, "");
    let problem = Problem::new(None, format!("cannot read the file: {}", plain(error)));
    report.push(match error.kind() {
        std::io::ErrorKind::NotFound => problem.hint("name another with `--config FILE`"),
        _ => problem,
    });
    report
}
