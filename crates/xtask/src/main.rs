//! Tasks of this repository that are not part of the product: `cargo xtask bench`, `cargo xtask dist`.

mod bench;
mod dist;

use clap::{Parser, Subcommand};

/// Tasks of the stack repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure the release build against its peers, in one run on this machine.
    Bench(bench::Options),
    /// Make what is released: one binary, a Debian package, a wheel, their contents and checksums.
    Dist(dist::Options),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Bench(options) => bench::run(&options),
        Task::Dist(options) => dist::run(&options),
    }
}
