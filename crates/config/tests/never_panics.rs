//! Whatever stands in the file, the answer is a site or a report, and both can be shown.

use std::path::Path;

use config::error::{Problem, Report, Span};
use proptest::prelude::*;

const REFERENCE: &str = include_str!("../../../config/reference.toml");
const MISTAKES: &str = include_str!("mistakes/syntax.toml");

fn answer(text: String) {
    match config::parse(Path::new("/srv/site.toml"), text, false) {
        Ok(loaded) => {
            let spans = loaded
                .site
                .server
                .http
                .iter()
                .filter_map(|listen| listen.span);
            assert!(
                spans
                    .into_iter()
                    .all(|span| loaded.text.get(span.start..span.end).is_some())
            );
        }
        Err(report) => {
            assert!(!report.problems.is_empty());
            for problem in &report.problems {
                let span = problem.span.unwrap_or(Span { start: 0, end: 0 });
                assert!(
                    report.text.get(span.start..span.end).is_some(),
                    "{problem:?}"
                );
            }
            let shown = report.render(true);
            assert!(
                !shown
                    .replace('\u{1b}', "")
                    .contains(|c: char| c.is_control() && c != '\n'),
                "{shown:?}"
            );
        }
    }
}

/// A piece of a valid file in place of another, or something else in its place.
fn mutate(text: &str, changes: &[(usize, usize, String)]) -> String {
    let mut text = text.to_owned();
    for (at, length, with) in changes {
        let boundary = |offset: usize| {
            (0..=offset.min(text.len()))
                .rev()
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(0)
        };
        let start = boundary(at % (text.len() + 1));
        let end = boundary(start + length).max(start);
        text.replace_range(start..end, with);
    }
    text
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[\\[\\]{}=,.\"'#\\\\\n\r\t :/*%-]{1,3}",
        "\\PC{0,4}",
        Just("\"\"\"".to_owned()),
        Just("\n[app]\n".to_owned()),
        Just("[[site.routes]]\n".to_owned()),
        Just("= 9999999999999999999999999".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        Just("-".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_text(text in "\\PC{0,200}|[\\x00-\\x7f]{0,200}") {
        answer(text);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("site.toml");
        std::fs::write(&file, bytes).expect("the file");
        if let Err(report) = config::load(&file, true) {
            assert!(report.render(true).contains("mistake"));
        }
    }

    #[test]
    fn a_valid_file_with_changes(changes in proptest::collection::vec((any::<usize>(), 0usize..40, token()), 1..6)) {
        // Without the prose, so that most changes meet something.
        let settings: String = REFERENCE
            .lines()
            .filter(|line| !line.starts_with("# ") && !line.is_empty())
            .map(|line| format!("{}\n", line.trim_start_matches('#')))
            .collect();
        answer(mutate(&settings, &changes));
        answer(mutate(MISTAKES, &changes));
    }

    #[test]
    fn any_value_anywhere(key in 0usize..60, value in "\\PC{0,24}") {
        let keyed: Vec<&str> = REFERENCE.lines().filter(|line| line.trim_start_matches('#').contains(" = ") && !line.starts_with("# ")).collect();
        let chosen = keyed[key % keyed.len()];
        let name = chosen.trim_start_matches('#').split(' ').next().expect("a key");
        let line = format!("{name} = {value:?}");
        answer(REFERENCE.replacen(chosen, &line, 1));
    }

    #[test]
    fn any_place_can_be_shown(text in "(\\PC|\n|\r|\t){0,60}", start in 0usize..80, length in 0usize..80) {
        let mut report = Report::new(Path::new("site.toml"), text);
        report.push(Problem::new(Span { start, end: start + length }, "wrong"));
        assert!(report.render(false).contains("error: wrong"));
    }
}
