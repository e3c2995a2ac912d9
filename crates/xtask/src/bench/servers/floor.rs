//! The system calls of an exchange alone ([`crate::floor`]).

use std::env::current_exe;

use anyhow::Result;

use super::forward;
use crate::bench::peer::{Address, Scene, Started, Tree};

fn floor(scene: &Scene<'_>, arguments: &[&str]) -> Result<Tree> {
    let child = scene
        .command(current_exe()?)?
        .args(["floor", "--port", &scene.port.to_string()])
        .args(arguments)
        .spawn()?;
    Ok(Tree {
        child,
        part: |_| "proxy",
    })
}

/// A file of 1 KiB, or that it is the same still.
pub(super) fn file(scene: &Scene<'_>) -> Result<Started> {
    Ok(Started {
        trees: vec![floor(scene, &["--length", "1024"])?],
        address: Address::Port(scene.port),
    })
}

/// To the server behind and back.
pub(super) fn forward(scene: &Scene<'_>) -> Result<Started> {
    let origin = forward::origin(scene)?;
    Ok(Started {
        trees: vec![floor(scene, &["--origin", &scene.socket()])?, origin],
        address: Address::Port(scene.port),
    })
}
