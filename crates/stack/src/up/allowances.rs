//! What workers may take of the machine, made ready by the master: the control group that it divides among them, and folders for
//! their temporary files, which outlive reloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::Path,
    sync::Arc,
};

use appserver::allowance::Allowance;
use config::{
    error::Problem,
    site::{App, Site},
};
use supervisor::{group::Delegation, tmp::PrivateTmp, user::User};
use tracing::warn;

/// What there is to share out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowances {
    groups: Option<Arc<Delegation>>,
    /// By the app's name and its user's id: another user could not get into them.
    tmps: BTreeMap<String, Arc<PrivateTmp>>,
}

impl Allowances {
    /// Takes what the service manager has left to us.
    pub(crate) fn open() -> Self {
        let groups = Delegation::take().unwrap_or_else(|error| {
            warn!("workers have no control groups of their own, although the service may divide its own: {error}");
            None
        });
        Self {
            groups: groups.map(Arc::new),
            tmps: BTreeMap::new(),
        }
    }

    /// What the workers of this app may take.
    pub(crate) fn of(
        &mut self,
        site: &Site,
        app: &App,
        user: Option<&User>,
        interpreter: &Path,
    ) -> Result<Allowance, Problem> {
        let tmp = if app.private_tmp {
            Some(self.tmp(site, app, user, interpreter)?)
        } else {
            None
        };
        Ok(Allowance::new(app, tmp, self.groups.clone()))
    }

    fn tmp(
        &mut self,
        site: &Site,
        app: &App,
        user: Option<&User>,
        interpreter: &Path,
    ) -> Result<Arc<PrivateTmp>, Problem> {
        let name = name(app, user);
        if let Some(tmp) = self.tmps.get(&name) {
            return Ok(Arc::clone(tmp));
        }
        let spool = site.server.spool.as_ref();
        let place = spool.map_or_else(env::temp_dir, |folder| folder.value.clone());
        let needs = [app.root.value.as_path(), interpreter];
        let made = PrivateTmp::make(&place, &name, user, &needs).map_err(|error| {
            let message = format!(
                "cannot make a folder for temporary files of app {} in {}: {error}",
                app.name,
                place.display()
            );
            Problem::new(None, message)
        })?;
        let made = Arc::new(made);
        self.tmps.insert(name, Arc::clone(&made));
        Ok(made)
    }

    /// Lets go of what no app of this configuration has: it is removed when the last worker that has it is gone.
    pub(crate) fn keep_for<'a>(&mut self, apps: impl Iterator<Item = (&'a App, Option<&'a User>)>) {
        let kept: BTreeSet<String> = apps
            .filter(|(app, _)| app.private_tmp)
            .map(|(app, user)| name(app, user))
            .collect();
        self.tmps.retain(|name, _| kept.contains(name));
    }
}

fn name(app: &App, user: Option<&User>) -> String {
    let uid = user.map_or_else(|| rustix::process::geteuid().as_raw(), User::uid);
    format!("{}-{uid}", app.name)
}
