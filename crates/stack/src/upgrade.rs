//! `stack upgrade`: has another master, of the program that is there by now, take over from the running one.

use std::io::Write;

use crate::{
    admin::{Client, Upgraded},
    args::ConfigFile,
    failure::Failure,
};

/// Asks, and says what came of it.
pub(crate) fn run(file: &ConfigFile) -> Result<(), Failure> {
    let client = Client::connect(&file.path()?)?;
    match client.post::<Upgraded>("/upgrade", &()) {
        Ok(Upgraded { pid }) => {
            writeln!(
                anstream::stdout(),
                "the master of process {pid} has taken over"
            )?;
            Ok(())
        }
        Err(Failure::User(why)) => Err(Failure::User(format!("the old one serves on: {why}"))),
        Err(failure) => Err(failure),
    }
}
