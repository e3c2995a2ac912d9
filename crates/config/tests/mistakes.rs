//! What people are told. Each `mistakes/NAME.toml` is read as `/srv/site.toml` by a user who is not root, and what is
//! shown is `mistakes/NAME.txt`, to the letter. `BLESS=1` writes what is shown now; read the difference before you keep it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use config::error::Report;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes");
    let entries = fs::read_dir(&folder).expect("the folder of cases");
    let mut cases: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    cases.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    cases.sort();
    assert!(cases.len() > 10, "the cases are in {}", folder.display());
    cases
}

fn report(text: &str) -> Report {
    config::parse(Path::new("/srv/site.toml"), text.to_owned(), false)
        .expect_err("a file with mistakes")
}

#[test]
fn what_is_shown() {
    let mut wrong = Vec::new();
    for case in cases() {
        let shown = report(&fs::read_to_string(&case).expect("the case")).to_string() + "\n";
        let expected = case.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &shown).expect("the expectation can be written");
        }
        if fs::read_to_string(&expected).unwrap_or_default() != shown {
            wrong.push(format!("{}:\n{shown}", case.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "shown otherwise than expected:\n{}",
        wrong.join("\n")
    );
}
