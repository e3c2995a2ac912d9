//! What we hand out for containers and clusters is what they take, as far as that can be known without them: Kubernetes' own schema,
//! in its Python client, and hadolint.

use std::{fs, process::Command};

use crate::harness::{repository, venv};

const TOOLS: &str = "kubernetes==37.0.2\nPyYAML==6.0.4\nhadolint-bin==2.15.1\n";

/// The models of the client are made of the API's schema. A document that they read and write again without a change has no key that
/// the schema does not know, and all that it must have.
const CHECK: &str = r#"
import sys
import yaml
from kubernetes import client

def model(document):
    group, _, version = document["apiVersion"].rpartition("/")
    return getattr(client, version[0].upper() + version[1:] + document["kind"], None)

def differences(one, two, place):
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted(one.keys() | two.keys()):
            yield from differences(one.get(key), two.get(key), f"{place}.{key}")
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for at, pair in enumerate(zip(one, two)):
            yield from differences(*pair, f"{place}[{at}]")
    elif one != two:
        yield f"{place}: {one!r} is not what the schema knows ({two!r})"

api = client.ApiClient()
for path in sys.argv[1:]:
    for document in yaml.safe_load_all(open(path)):
        name = f"{document.get('apiVersion', 'values')} {document.get('kind', '')}".strip()
        kind = model(document) if "apiVersion" in document else None
        if kind is None:
            print("unknown", name)
            continue
        try:
            again = api.sanitize_for_serialization(api._ApiClient__deserialize(document, kind))
            wrong = list(differences(document, again, document["kind"]))
        except ValueError as error:
            wrong = [str(error)]
        print(*([f"wrong {path}: {what}" for what in wrong] or [f"right {name}"]), sep="\n")
"#;

/// Kinds of other makers, whose schemas are not in the client, and what is no manifest.
const OTHERS: [&str; 5] = [
    "cert-manager.io/v1 Certificate",
    "gateway.networking.k8s.io/v1 HTTPRoute",
    "kustomize.config.k8s.io/v1beta1 Kustomization",
    "monitoring.coreos.com/v1 PodMonitor",
    "values",
];

fn judge(texts: &[(&str, String)]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let python = venv::with("deploy", TOOLS).join("bin/python");
    let mut command = Command::new(python);
    command.args(["-c", CHECK]);
    for (name, text) in texts {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("the folder is ours");
        command.arg(path);
    }
    let output = command.output().expect("it runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8(output.stdout).expect("text");
    said.lines().map(str::to_owned).collect()
}

#[test]
fn kubernetes_takes_what_we_hand_out() {
    let folder = repository().join("deploy/kubernetes");
    let mut texts = Vec::new();
    let entries = fs::read_dir(folder).expect("the manifests");
    let paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    for path in &paths {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        texts.push((name, fs::read_to_string(path).expect("text")));
    }
    let said = judge(&texts);
    let right = said
        .iter()
        .filter(|line| line.starts_with("right "))
        .count();
    assert!(right >= 6, "{said:#?}");
    for line in &said {
        let is_other = |line: &str| {
            line.strip_prefix("unknown ")
                .is_some_and(|name| OTHERS.contains(&name))
        };
        assert!(line.starts_with("right ") || is_other(line), "{line}");
    }
    // And it would be noticed if it were otherwise.
    let (_, deployment) = texts
        .iter()
        .find(|(name, _)| *name == "deployment.yaml")
        .expect("there is one");
    let broken = [
        deployment.replace("containerPort:", "contanerPort:"),
        deployment.replace(
            "  selector:\n    matchLabels: { app.kubernetes.io/name: web }\n  strategy",
            "  strategy",
        ),
    ];
    for broken in broken {
        assert_ne!(broken, *deployment);
        let said = judge(&[("broken.yaml", broken)]);
        assert!(said[0].starts_with("wrong "), "{said:?}");
    }
}

#[test]
fn hadolint_has_nothing_to_say_of_the_recipes() {
    let hadolint = venv::with("deploy", TOOLS).join("bin/hadolint");
    let folder = repository().join("deploy/container");
    let output = Command::new(hadolint)
        .arg("--no-color")
        .args(["Containerfile", "Containerfile.app"])
        .current_dir(folder)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
