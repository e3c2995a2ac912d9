//! What `--dev` makes of a configuration: the same site, on the machine of who develops it.

use std::path::{Path, PathBuf};

use config::site::{Action, Cache, Dev, HostPattern, Site, Tls};

/// Adapts it. What only the machine that the file was written for has, is replaced; what visitors' browsers would remember is
/// not said.
pub(crate) fn adapt(site: &mut Site) {
    let mut dev = Dev::default();
    for host in &mut site.hosts {
        if let Tls::Files(pairs) = &host.tls.value {
            let files = pairs
                .iter()
                .flat_map(|pair| [&pair.cert.value, &pair.key.value]);
            let missing: Vec<PathBuf> = files.filter(|path| !is_there(path)).cloned().collect();
            if !missing.is_empty() {
                dev.missing.extend(missing);
                host.tls.value = Tls::SelfSigned;
            }
        }
        // Nobody outside could look whether this machine is who it says.
        if host.tls.value == Tls::Acme {
            host.tls.value = Tls::SelfSigned;
        }
        // It would outlive this run in the browser, for every port of localhost.
        host.hsts = None;
        for route in &mut host.routes {
            if let Action::Files { files, .. } = &mut route.action {
                files.cache = Cache::Never;
            }
        }
    }
    let is_any = |name: &HostPattern| *name == HostPattern::Any;
    if !site.hosts.iter().any(|host| host.names.iter().any(is_any))
        && let Some(first) = site.hosts.first_mut()
    {
        // Whoever develops asks for localhost.
        first.names.push(HostPattern::Any);
    }
    for app in &mut site.apps {
        // Flask keeps exceptions and old templates to itself otherwise. Its console is not part of that.
        if std::env::var_os(FLASK_DEBUG).is_none() {
            let debug = app.env.entry(FLASK_DEBUG.to_owned());
            debug.or_insert_with(|| "1".to_owned());
        }
    }
    site.acme = None;
    site.dev = Some(dev);
}

const FLASK_DEBUG: &str = "FLASK_DEBUG";

/// One that is there and cannot be read is a mistake, in development too.
fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(text: &str) -> Site {
        let loaded = config::parse(Path::new("/srv/site.toml"), text.to_owned(), false);
        let mut site = loaded.unwrap_or_else(|report| panic!("{report}")).site;
        adapt(&mut site);
        site
    }

    #[test]
    fn what_is_made_for_visitors_is_made_for_who_develops() {
        let site = adapted(
            r#"
            [server]
            https = [":8443"]
            [app.web]
            wsgi = "app:app"
            [[site]]
            hosts = ["example.org"]
            tls = { cert = "no-such-cert.pem", key = "no-such-key.pem" }
            hsts = "1y"
            routes = [{ path = "/", app = "web" }, { path = "/static/", files = "static", cache = "immutable" }]
            [acme]
            email = "ann@python.org"
            [[site]]
            hosts = ["www.python.org"]
            tls = "acme"
            routes = [{ path = "/", app = "web" }]
            [[site]]
            hosts = ["example.net"]
            tls = { cert = "/dev/null", key = "/dev/null" }
            routes = [{ path = "/", app = "web" }]
            "#,
        );
        let [first, got, second] = &site.hosts[..] else {
            panic!("three sites")
        };
        assert_eq!(got.tls.value, Tls::SelfSigned);
        assert_eq!(site.acme, None);
        assert_eq!(first.tls.value, Tls::SelfSigned);
        assert_eq!(first.hsts, None);
        assert!(first.names.contains(&HostPattern::Any));
        assert!(!second.names.contains(&HostPattern::Any));
        assert!(matches!(second.tls.value, Tls::Files(_)), "they are there");
        let missing = ["/srv/no-such-cert.pem", "/srv/no-such-key.pem"].map(PathBuf::from);
        assert_eq!(site.dev.expect("it is").missing, missing);
        let Action::Files { files, .. } = &first.routes[1].action else {
            panic!("files")
        };
        assert_eq!(files.cache, Cache::Never);
        assert_eq!(site.apps[0].env["FLASK_DEBUG"], "1");
    }

    #[test]
    fn what_the_file_says_of_flask_is_kept() {
        let site = adapted(
            "[app.web]\nwsgi = \"app:app\"\nenv = { FLASK_DEBUG = \"0\" }\n[[site]]\nroutes = [{ path = \"/\", app = \"web\" }]\n",
        );
        assert_eq!(site.apps[0].env["FLASK_DEBUG"], "0");
        assert_eq!(site.hosts[0].names, [HostPattern::Any], "once");
    }
}
