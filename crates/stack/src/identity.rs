//! Who the proxy and the workers run as: the users that the configuration names, found on this machine, and whether they
//! can reach what they are to serve.
//!
//! The look-ups are the master's; they may block, and happen before anything is started.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use config::{
    error::{Problem, Span},
    site::{Account, App, Located, Site},
};
use supervisor::user::{self, Group, Permission, User};

/// Everybody, `None` or absent for who we are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identities {
    proxy: Option<User>,
    apps: BTreeMap<String, User>,
}

impl Identities {
    /// Finds them, or says all that is wrong.
    pub(crate) fn of(site: &Site) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut found = |account: Option<&Account>| {
            let result = account.map(find).transpose();
            result.unwrap_or_else(|problem| {
                // Several apps may name the same one, or inherit it.
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
                None
            })
        };
        let proxy = found(site.server.account.as_ref());
        let mut apps = BTreeMap::new();
        for app in &site.apps {
            if let Some(user) = found(site.account(app)) {
                apps.insert(app.name.clone(), user);
            }
        }
        if problems.is_empty() {
            let others = apps.into_iter().filter(|(_, user)| !user.is_us());
            Ok(Self {
                proxy: proxy.filter(|user| !user.is_us()),
                apps: others.collect(),
            })
        } else {
            Err(problems)
        }
    }

    /// The proxy's user, if it is not ours.
    pub(crate) fn proxy(&self) -> Option<&User> {
        self.proxy.as_ref()
    }

    /// The number of the proxy's user.
    pub(crate) fn proxy_uid(&self) -> u32 {
        let ours = || rustix::process::geteuid().as_raw();
        self.proxy.as_ref().map_or_else(ours, User::uid)
    }

    /// The user of an app's workers, if it is not ours.
    pub(crate) fn app(&self, name: &str) -> Option<&User> {
        self.apps.get(name)
    }

    /// What of the site its user cannot reach.
    fn obstacles(&self, site: &Site) -> Vec<Problem> {
        let mut problems = Vec::new();
        for app in &site.apps {
            problems.extend(self.app(&app.name).and_then(|user| app_obstacle(user, app)));
        }
        let Some(proxy) = &self.proxy else {
            return problems;
        };
        for path in site.served() {
            let wanted = if path.is_dir() {
                Permission::Enter
            } else {
                Permission::Read
            };
            let obstacle = proxy.obstacle(path, wanted);
            problems.extend(obstacle.map(|found| forbidden(proxy, &found, path.span)));
        }
        problems
    }
}

/// What is wrong with the users that a site names.
pub(crate) fn inspect(site: &Site) -> Vec<Problem> {
    match Identities::of(site) {
        Ok(identities) => identities.obstacles(site),
        Err(problems) => problems,
    }
}

/// Whether something that meets strangers runs as root because nobody else was named.
pub(crate) fn is_all_root(site: &Site) -> bool {
    rustix::process::geteuid().is_root() && site.server.account.is_none()
}

fn app_obstacle(user: &User, app: &App) -> Option<Problem> {
    let span = app.root.span.or(app.wsgi.span);
    if let Some(path) = user.obstacle(&app.root, Permission::Use) {
        return Some(forbidden(user, &path, span));
    }
    let python: PathBuf = config::machine::interpreter(app).ok()?;
    let path = user.obstacle(&python, Permission::Enter)?;
    // Nearly always root's own home, which is not to be opened: pyenv and uv keep their Pythons there.
    let message = format!(
        "the user `{}` may not enter {}, and so not run {}",
        user.name,
        path.display(),
        python.display()
    );
    let hint = format!(
        "name a Python that everybody may run (`venv` or `python` in [app.{}]), such as one of `/usr/bin/python3 -m venv {}`",
        app.name,
        app.root.join(".venv").display()
    );
    Some(Problem::new(app.interpreter.span.or(span), message).hint(hint))
}

fn forbidden(user: &User, path: &Path, span: Option<Span>) -> Problem {
    let (user, shown) = (&user.name, path.display());
    let problem = Problem::new(span, format!("the user `{user}` may not enter {shown}"));
    if path.is_dir() {
        problem.hint(format!(
            "let them (`chmod o+rx {shown}`, or `chgrp` and `chmod g+rx`), or move it elsewhere, such as below /srv"
        ))
    } else {
        problem.hint(format!("let them: `chmod o+rx {shown}`"))
    }
}

fn find(account: &Account) -> Result<User, Problem> {
    let user = &account.user;
    let name = user.value.as_str();
    let found = looked_up(user, User::find(name), "user", "useradd --system")?;
    let found = match &account.group {
        None => found,
        Some(group) => {
            let result = Group::find(&group.value);
            found.with_group(looked_up(group, result, "group", "groupadd --system")?)
        }
    };
    if found.is_us() || user::may_switch() {
        return Ok(found);
    }
    let us = rustix::process::geteuid().as_raw();
    let message = format!("only root can run something as `{name}`, and we are user {us}");
    Err(Problem::new(user.span, message).hint("start stack as root, or remove `user`"))
}

fn looked_up<T>(
    name: &Located<String>,
    result: io::Result<Option<T>>,
    what: &str,
    make: &str,
) -> Result<T, Problem> {
    let (span, shown) = (name.span, &name.value);
    match result {
        Ok(Some(found)) => Ok(found),
        Ok(None) => {
            let problem = Problem::new(span, format!("there is no {what} `{shown}`"));
            Err(problem.hint(format!("make it with `{make} {shown}`")))
        }
        Err(error) => {
            let message = format!("cannot look up the {what} `{shown}`: {error}");
            Err(Problem::new(span, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(text: &str) -> Site {
        let text = format!(
            "{text}\n[app.web]\nwsgi = \"app:app\"\nroot = \"/\"\npython = \"/bin/sh\"\n\
             [[site]]\nroutes = [{{ path = \"/\", app = \"web\" }}]\n"
        );
        let loaded = config::parse(Path::new("/srv/site.toml"), text, false);
        loaded.unwrap_or_else(|report| panic!("{report}")).site
    }

    fn messages(site: &Site) -> Vec<String> {
        let show = |problem: Problem| {
            format!("{} | {}", problem.message, problem.hint.unwrap_or_default())
        };
        inspect(site).into_iter().map(show).collect()
    }

    #[test]
    fn nobody_named_is_who_we_are() {
        let site = site("");
        let identities = Identities::of(&site).unwrap();
        assert_eq!(identities.proxy(), None);
        assert_eq!(identities.app("web"), None);
        assert_eq!(identities.proxy_uid(), rustix::process::geteuid().as_raw());
    }

    #[test]
    fn who_is_missing_is_said_once() {
        assert_eq!(
            messages(&site("[server]\nuser = \"no-such-user\"")),
            ["there is no user `no-such-user` | make it with `useradd --system no-such-user`"]
        );
        assert_eq!(
            messages(&site(
                "[server]\nuser = \"root\"\ngroup = \"no-such-group\""
            )),
            ["there is no group `no-such-group` | make it with `groupadd --system no-such-group`"]
        );
    }

    #[test]
    fn only_root_has_others_to_be() {
        let site = site("[server]\nuser = \"nobody\"");
        if user::may_switch() {
            let identities = Identities::of(&site).unwrap();
            let nobody = identities.proxy().unwrap();
            assert_eq!(nobody.name, "nobody");
            assert_eq!(identities.app("web"), Some(nobody), "inherited");
            assert_eq!(identities.proxy_uid(), nobody.uid());
        } else {
            assert!(messages(&site)[0].contains("only root can run something as `nobody`"));
        }
    }
}
