//! Tasks of this repository that are not part of the product: `cargo xtask bench`.

mod bench;

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
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Bench(options) => bench::run(&options),
    }
}
