//! The tables of the documentation are those of the code. `BLESS=1` writes them.

use std::{fs, path::Path};

use telemetry::{
    access, causes,
    metrics::{self, Kind},
};

/// Compares what stands between `<!-- NAME -->` and `<!-- end -->` of a page with the table.
fn check(page: &str, name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(page);
    let text = fs::read_to_string(&path).expect("the page");
    let start = format!("<!-- {name} -->\n");
    let (before, rest) = text.split_once(&start).expect("the place of the table");
    let (stands, after) = rest.split_once("<!-- end -->").expect("its end");
    if stands == table {
        return;
    }
    assert!(
        std::env::var_os("BLESS").is_some(),
        "docs/{page} has another table of {name} than the code: run this test with BLESS=1"
    );
    let mended = format!("{before}{start}{table}<!-- end -->{after}");
    fs::write(path, mended).expect("the page can be written");
}

#[test]
fn the_names_of_a_format() {
    let mut table = "| name | what stands there |\n|---|---|\n".to_owned();
    for (name, meaning) in access::NAMES {
        table.push_str(&format!("| `${name}` | {meaning} |\n"));
    }
    check("logs.md", "names", &table);
}

#[test]
fn the_causes() {
    let mut table = "| cause | status | who | what happened |\n|---|---|---|---|\n".to_owned();
    for (at, cause) in causes::ALL.iter().enumerate() {
        assert_eq!(
            causes::index(cause.name),
            Some(at),
            "{} is there twice",
            cause.name
        );
        assert!(cause.meaning.ends_with('.'), "{}", cause.name);
        assert!((400..600).contains(&cause.status), "{}", cause.name);
        let causes::Cause {
            name,
            who,
            status,
            meaning,
        } = cause;
        table.push_str(&format!("| `{name}` | {status} | {who} | {meaning} |\n"));
    }
    check("logs.md", "causes", &table);
}

#[test]
fn the_figures() {
    let mut table = "| name | kind | by | what it is |\n|---|---|---|---|\n".to_owned();
    for family in metrics::FAMILIES {
        let end = if family.kind == Kind::Counter {
            "_total"
        } else {
            ""
        };
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        table.push_str(&format!(
            "| `{}{end}` | {} | {} | {} |\n",
            family.name,
            family.kind.name(),
            labels.join(", "),
            family.help.trim()
        ));
    }
    check("metrics.md", "figures", &table);
}

/// Whoever looks a cause up finds what to do about it.
#[test]
fn every_cause_has_a_remedy() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/troubleshooting.md");
    let text = fs::read_to_string(page).expect("the page");
    let (_, rest) = text.split_once("<!-- remedies -->\n").expect("it begins");
    let (table, _) = rest.split_once("<!-- end -->").expect("it ends");
    let row = |row: &str| -> Option<(String, String)> {
        let mut cells = row.trim_matches('|').split(" | ");
        let name = cells.next()?.trim().trim_matches('`').to_owned();
        Some((name, cells.next()?.trim().to_owned()))
    };
    let rows: Vec<(String, String)> = table.lines().skip(2).filter_map(row).collect();
    let named: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    let all: Vec<&str> = causes::ALL.iter().map(|cause| cause.name).collect();
    assert_eq!(named, all);
    for (name, remedy) in &rows {
        assert!(remedy.ends_with('.'), "{name}: {remedy}");
    }
}
