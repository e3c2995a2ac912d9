//! `config/reference.toml` says what is true: every key is in it, and its defaults are the defaults.

use std::path::{Path, PathBuf};

use config::{Loaded, site::Site};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}

fn reference() -> String {
    std::fs::read_to_string(folder().join("reference.toml")).expect("the reference")
}

fn read(text: String) -> Loaded {
    config::parse(Path::new("/srv/reference.toml"), text, false)
        .unwrap_or_else(|report| panic!("{report}"))
}

/// The site as data, without the places in the file.
fn meaning(site: &Site) -> serde_json::Value {
    fn forget(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                map.remove("span");
                map.values_mut().for_each(forget);
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(forget),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(site).expect("a site is data");
    forget(&mut value);
    value
}

fn is_setting(line: &str) -> bool {
    let key = line.split('=').next().unwrap_or_default().trim();
    line.contains('=')
        && !key.is_empty()
        && key.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

#[test]
fn commented_defaults_are_the_defaults() {
    let uncomment = |line: &str| match line
        .strip_prefix('#')
        .filter(|rest| is_setting(rest) && !rest.starts_with(' '))
    {
        Some(setting) => setting.to_owned(),
        None => line.to_owned(),
    };
    let reference = reference();
    let lines: Vec<String> = reference.lines().map(uncomment).collect();
    let changed = lines
        .iter()
        .zip(reference.lines())
        .filter(|(new, old)| new.as_str() != *old)
        .count();
    assert!(changed > 30, "only {changed} defaults were found");
    let (written, default) = (read(lines.join("\n")), read(reference));
    assert_eq!(meaning(&written.site), meaning(&default.site));
}

#[test]
fn every_example_is_valid() {
    let reference = reference();
    let lines: Vec<&str> = reference.lines().collect();
    let mut tried = 0;
    for (number, line) in lines.iter().enumerate() {
        let Some(example) = line.strip_prefix("# e.g. ") else {
            continue;
        };
        // These need a file, or a neighbour.
        if ["key = value", "env_file", "group", "client_auth"]
            .iter()
            .any(|start| example.starts_with(start))
        {
            continue;
        }
        let mut text: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        example.clone_into(&mut text[number]);
        if example.starts_with("routes") {
            text.truncate(number + 1);
        }
        // Certificates need a place to be used.
        let text = text.join("\n");
        let text = if ["tls", "client_ca", "hsts"]
            .iter()
            .any(|start| example.starts_with(start))
        {
            text.replace("#https = []", "https = [\":8443\"]")
        } else if example.starts_with("ca ") {
            text.replace("members = [\"http:", "members = [\"https:")
        } else {
            text
        };
        read(text);
        tried += 1;
    }
    assert!(tried > 10, "only {tried} examples were found");
}

/// Those that are served elsewhere: their apps are not here, so they are read and not looked for.
#[test]
fn the_files_of_containers_and_clusters_are_valid() {
    let deploy = folder().join("../deploy");
    let file = |name: &str| std::fs::read_to_string(deploy.join(name)).expect("we have it");
    read(file("container/site.toml"));
    read(file("site.toml"));
    let map = file("kubernetes/configuration.yaml");
    let (_, block) = map
        .split_once("  site.toml: |\n")
        .expect("it is in the map");
    let lines: Vec<&str> = block
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .collect();
    let site = read(lines.join("\n")).site;
    assert!(!site.apps.is_empty());
}

#[test]
fn the_files_that_we_ship_are_valid() {
    for name in ["site.toml", "flask.toml", "django.toml", "reference.toml"] {
        let file = folder().join(name);
        let loaded = config::load(&file, false).unwrap_or_else(|report| panic!("{report}"));
        assert!(loaded.site.file.is_absolute());
        assert!(!loaded.site.apps.is_empty(), "{name}");
    }
}
