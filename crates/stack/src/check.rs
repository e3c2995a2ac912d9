//! `stack check`: everything `up` would do short of binding and starting.

mod rehearsal;

use std::io::Write;

use config::site::Site;

use crate::{args::Check, failure::Failure, load};

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
        true => rehearsal::play(&path, &loaded.site),
        false => Ok(()),
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
