//! The guides: their links lead somewhere, and none of them is forgotten.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::harness::repository;

/// What `cargo xtask book` makes of what the program says itself; the rest of the guides is written.
const MADE: [&str; 2] = ["reference.md", "commands.md"];

/// Every page that people read.
fn pages() -> Vec<PathBuf> {
    let root = repository();
    let mut pages = [
        "README.md",
        "CHANGELOG.md",
        "deploy/README.md",
        "crates/ARCHITECTURE.md",
    ]
    .map(|page| root.join(page))
    .to_vec();
    let docs = fs::read_dir(root.join("docs")).expect("the guides");
    let docs = docs.map(|entry| entry.expect("a page").path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|end| end == "md")));
    pages
}

/// What stands in `](…)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            // Every second piece is set in backquotes.
            let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
            let targets = prose.split("](").skip(1);
            links.extend(targets.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
        }
    }
    links
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        words
            .chars()
            .filter(kept)
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("the page");
        for link in links(&text) {
            let is_made = MADE.contains(&link.as_str()) && page.ends_with("docs/SUMMARY.md");
            if link.contains("://") || link.starts_with("mailto:") || is_made {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().expect("a folder").join(path),
            };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !anchor.is_empty() {
                let there = fs::read_to_string(&target).expect("a page");
                assert!(
                    anchors(&there).contains(anchor),
                    "{}: there is no heading for {link}",
                    page.display()
                );
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "only {followed} links were found");
}

#[test]
fn every_guide_is_in_the_table_of_contents() {
    let contents = fs::read_to_string(repository().join("docs/SUMMARY.md")).expect("it is there");
    let listed: BTreeSet<String> = links(&contents).into_iter().collect();
    let is_contents = |path: &Path| path.ends_with("SUMMARY.md");
    let there: BTreeSet<String> = pages()
        .iter()
        .filter(|path| path.parent() == Some(&repository().join("docs")) && !is_contents(path))
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .chain(MADE.map(str::to_owned))
        .collect();
    assert_eq!(listed, there);
}
