//! A slot of ours without Python: the example `bare_slot` of `appserver`.

use anyhow::{Context, Result};

use crate::bench::peer::{Address, Scene, Started, Tree};

/// Beside our binary: `cargo build --package appserver --example bare_slot`.
pub(super) const PROGRAM: &str = "examples/bare_slot";

pub(super) fn slot(scene: &Scene<'_>) -> Result<Started> {
    let folder = scene.place.stack.parent().context("no folder")?;
    let mut command = scene.command(folder.join(PROGRAM))?;
    let child = command.args([&scene.socket(), &scene.threads]).spawn()?;
    Ok(Started {
        trees: vec![Tree {
            child,
            part: |_| "worker",
        }],
        address: Address::Socket(scene.socket().into()),
    })
}
