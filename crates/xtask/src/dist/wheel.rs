//! A wheel, so that `pip install` brings the command: the binary as a script of the environment, and nothing to import.
//!
//! It is the same binary: the workers' Python is found by the configuration, whichever environment the command lies in.

use std::{fs, path::PathBuf};

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, digest};

use super::{Release, zip::Zip};

/// The distribution's name; the command is `stack`.
const NAME: &str = "stack_server";

/// Builds it; returns where it is.
pub(super) fn make(release: &Release) -> Result<PathBuf> {
    let version = &release.version;
    let platform = format!(
        "manylinux_{}_{}_x86_64",
        release.glibc.major, release.glibc.minor
    );
    let info = format!("{NAME}-{version}.dist-info");
    let read = |name: &str| fs::read(release.repository.join(name));
    let files = [
        (
            format!("{NAME}-{version}.data/scripts/stack"),
            0o755,
            fs::read(&release.binary)?,
        ),
        (format!("{info}/METADATA"), 0o644, metadata(release)?.into()),
        (format!("{info}/WHEEL"), 0o644, tags(&platform).into()),
        (
            format!("{info}/licenses/LICENSE-MIT"),
            0o644,
            read("LICENSE-MIT")?,
        ),
        (
            format!("{info}/licenses/LICENSE-APACHE"),
            0o644,
            read("LICENSE-APACHE")?,
        ),
    ];
    let mut zip = Zip::default();
    let mut record = String::new();
    for (name, mode, content) in &files {
        let sum = base64(digest(&SHA256, content).as_ref());
        record.push_str(&format!("{name},sha256={sum},{}\n", content.len()));
        zip.add(name, *mode, content)?;
    }
    let name = format!("{info}/RECORD");
    record.push_str(&format!("{name},,\n"));
    zip.add(&name, 0o644, record.as_bytes())?;
    let path = release
        .out
        .join(format!("{NAME}-{version}-py3-none-{platform}.whl"));
    fs::write(&path, zip.finish()?)?;
    Ok(path)
}

/// Core metadata 2.4.
fn metadata(release: &Release) -> Result<String> {
    let readme = fs::read_to_string(release.repository.join("README.md"))?;
    let version = &release.version;
    Ok(format!(
        "Metadata-Version: 2.4\nName: stack-server\nVersion: {version}\n\
         Summary: nginx and gunicorn as one binary: serve a Python web app with one command\n\
         License-Expression: MIT OR Apache-2.0\nLicense-File: LICENSE-MIT\nLicense-File: LICENSE-APACHE\n\
         Requires-Python: >=3.10\nClassifier: Environment :: Web Environment\n\
         Classifier: Operating System :: POSIX :: Linux\nClassifier: Topic :: Internet :: WWW/HTTP :: HTTP Servers\n\
         Classifier: Topic :: Internet :: WWW/HTTP :: WSGI :: Server\nDescription-Content-Type: text/markdown\n\n{readme}"
    ))
}

fn tags(platform: &str) -> String {
    format!(
        "Wheel-Version: 1.0\nGenerator: xtask\nRoot-Is-Purelib: false\nTag: py3-none-{platform}\n"
    )
}

/// For URLs and without padding, as RECORD wants it (RFC 4648 §5).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0, |group, byte| group << 8 | usize::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[group >> (18 - 6 * place) & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648_without_padding() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "-_8");
    }
}
