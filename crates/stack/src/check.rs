//! `stack check`: everything `up` would do short of binding and starting.

use std::{io::Write, path::Path};

use config::site::Site;

use crate::{
    admin::{Client, Rehearsal},
    args::Check,
    failure::Failure,
    load,
};

/// Says that the configuration is right, or all that is wrong with it.
pub(crate) fn run(asked: &Check) -> Result<(), Failure> {
    let path = asked.file.path()?;
    let loaded = load::load(&path)?;
    writeln!(
        anstream::stdout(),
        "{} is valid: {}",
        path.display(),
        summary(&loaded.site)
    )?;
    match asked.acme {
        true => rehearse(&path),
        false => Ok(()),
    }
}

/// Has the stack that runs order certificates where nothing comes of it.
fn rehearse(config: &Path) -> Result<(), Failure> {
    let client = Client::connect(config)?;
    let rehearsal: Rehearsal = client.post("/rehearse", &serde_json::json!({}))?;
    let mut failed = Vec::new();
    for scene in &rehearsal.scenes {
        let names = scene.names.join(", ");
        match (&scene.challenge, &scene.error) {
            (Some(challenge), _) => {
                let mut out = anstream::stdout();
                writeln!(out, "{names}: a certificate can be got, by {challenge}")?;
            }
            (None, error) => {
                let error = error.as_deref().unwrap_or("it is not known why");
                failed.push(format!("{names}: no certificate: {error}"));
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::User(failed.join("\n"))),
    }
}

fn summary(site: &Site) -> String {
    let routes = site.hosts.iter().map(|host| host.routes.len()).sum();
    let counts = [
        (site.hosts.len(), "site"),
        (site.apps.len(), "app"),
        (routes, "route"),
    ];
    counts.map(|(count, what)| plural(count, what)).join(", ")
}

/// `1 app`, `2 apps`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {what}{ending}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_summary_counts_what_was_written() {
        let text = "[app.web]\nwsgi = \"app:app\"\nroot = \"/srv/web\"\n\
                    [[site]]\nroutes = [{ path = \"/\", app = \"web\" }, { path = \"/a\", redirect = \"/b\" }]\n\
                    [[site]]\nhosts = [\"example.org\"]\nroutes = [{ path = \"/\", app = \"web\" }]\n";
        let loaded = config::parse(Path::new("/site.toml"), text.to_owned(), false).unwrap();
        assert_eq!(summary(&loaded.site), "2 sites, 1 app, 3 routes");
    }
}
