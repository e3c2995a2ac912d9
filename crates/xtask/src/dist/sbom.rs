//! What is in the binary: CycloneDX 1.6, from what Cargo has resolved. Build tools and tests are not in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Release, TARGET};
use crate::{cargo_in, output};

/// What ends up in the binary.
const ROOTS: [&str; 2] = ["stack", "python"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `None` for an ordinary dependency.
    kind: Option<String>,
}

/// Builds it; returns where it is.
pub(super) fn make(release: &Release) -> Result<PathBuf> {
    let mut cargo = cargo_in(&release.repository);
    cargo.args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        TARGET,
    ]);
    let metadata: Metadata = serde_json::from_str(&output(&mut cargo)?)?;
    let sums = checksums(&fs::read_to_string(release.repository.join("Cargo.lock"))?);
    let packages: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package))
        .collect();
    let (components, dependencies) = graph(&metadata, &packages, &sums);
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": timestamp(release.epoch)?,
            "component": {
                "type": "application",
                "bom-ref": "stack",
                "name": "stack",
                "version": release.version,
                "licenses": [{ "expression": "MIT OR Apache-2.0" }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    });
    let path = release
        .out
        .join(format!("stack-{}.cdx.json", release.version));
    fs::write(&path, format!("{document:#}\n"))?;
    Ok(path)
}

fn graph(
    metadata: &Metadata,
    packages: &BTreeMap<&str, &Package>,
    sums: &BTreeMap<(String, String), String>,
) -> (Vec<Value>, Vec<Value>) {
    let needs: BTreeMap<&str, Vec<&str>> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), ordinary(node)))
        .collect();
    let is_root =
        |package: &&Package| ROOTS.contains(&package.name.as_str()) && package.source.is_none();
    let mut waiting: Vec<&str> = metadata
        .packages
        .iter()
        .filter(is_root)
        .map(|package| package.id.as_str())
        .collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if reached.insert(id) {
            waiting.extend(needs.get(id).into_iter().flatten());
        }
    }
    let mut found: Vec<&Package> = reached
        .iter()
        .filter_map(|id| packages.get(id).copied())
        .collect();
    found.sort_by_key(|package| (&package.name, &package.version));
    let components = found
        .iter()
        .map(|package| component(package, sums))
        .collect();
    let dependencies = found
        .iter()
        .map(|package| {
            let on: BTreeSet<String> = needs
                .get(package.id.as_str())
                .into_iter()
                .flatten()
                .filter_map(|id| packages.get(id).map(|package| reference(package)))
                .collect();
            json!({ "ref": reference(package), "dependsOn": on })
        })
        .collect();
    (components, dependencies)
}

fn ordinary(node: &Node) -> Vec<&str> {
    let is_ordinary =
        |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
    node.deps
        .iter()
        .filter(is_ordinary)
        .map(|dependency| dependency.pkg.as_str())
        .collect()
}

/// A package URL: what every scanner looks vulnerabilities up by.
fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn component(package: &Package, sums: &BTreeMap<(String, String), String>) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(package),
        "name": package.name,
        "version": package.version,
        "purl": reference(package),
    });
    if let Some(license) = &package.license {
        // Cargo took `/` for `OR` in its first years.
        let expression = license.replace('/', " OR ");
        component["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(sum) = sums.get(&(package.name.clone(), package.version.clone())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

/// Of the archives that Cargo fetched, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key));
        line.map(|rest| rest.trim_matches(['"', ' ', '=']).to_owned())
    };
    let entry = |block: &str| {
        let name = (value(block, "name")?, value(block, "version")?);
        Some((name, value(block, "checksum")?))
    };
    lock.split("[[package]]")
        .skip(1)
        .filter_map(entry)
        .collect()
}

/// RFC 3339. `date` knows calendars.
fn timestamp(epoch: u64) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("@{epoch}")]);
    let text = output(&mut date).context("cannot ask `date`")?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_found_by_name_and_version() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n";
        let sums = checksums(lock);
        assert_eq!(sums.len(), 1);
        assert_eq!(sums[&("a".to_owned(), "1.0.0".to_owned())], "00ff");
    }
}
