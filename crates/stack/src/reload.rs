//! `stack reload`: has the running master take the new configuration and new code, and waits until they serve.

use std::{io::Write, time::Duration};

use telemetry::text::Elapsed;

use crate::{
    admin::{AskReload, Client, Reloaded},
    args,
    failure::Failure,
};

/// Asks, and says what came of it.
pub(crate) fn run(asked: &args::Reload) -> Result<(), Failure> {
    let question = AskReload {
        apps: (asked.config_only || !asked.apps.is_empty()).then(|| asked.apps.clone()),
    };
    let client = Client::connect(&asked.file.path()?)?;
    match client.post::<Reloaded>("/reload", &question) {
        Ok(Reloaded { config, took }) => {
            let took = Elapsed(Duration::from_millis(took));
            writeln!(anstream::stdout(), "{config} is served anew, after {took}")?;
            Ok(())
        }
        Err(Failure::User(why)) => Err(Failure::User(format!("the old one serves on: {why}"))),
        Err(failure) => Err(failure),
    }
}
