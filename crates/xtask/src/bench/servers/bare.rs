//! A slot of ours without Python: the example `bare_slot` of `appserver`.

use anyhow::{Context, Result};

use crate::bench::peer::{Address, Scene, Started, Tree};

pub(super) fn slot(scene: &Scene<'_>) -> Result<Started> {
    let folder = scene.place.stack.parent().context("no folder")?;
    let program = folder.join("examples/bare_slot");
    let missing = || {
        format!(
            "{} is missing: cargo build --package appserver --example bare_slot",
            program.display()
        )
    };
    let mut command = scene.command(&program)?;
    let child = command
        .args([&scene.socket(), &scene.threads])
        .spawn()
        .with_context(missing)?;
    Ok(Started {
        trees: vec![Tree {
            child,
            part: |_| "worker",
        }],
        address: Address::Socket(scene.socket().into()),
    })
}
