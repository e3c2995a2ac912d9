//! Files of names and passwords: read at the start, and again whenever they change. They are often root's alone, so the proxy gets
//! what is in them.

use std::{fs, path::PathBuf};

use ::proxy::{access, control::Users};
use config::{
    error::Problem,
    site::{Located, Site},
};
use tracing::{error, info};

use super::credentials::{Look, look_at};

/// The files, and as what they were read.
#[derive(Debug)]
pub(crate) struct Keeper {
    users: Vec<Users>,
    /// The files as they were when they were last read, whatever came of that.
    read: Vec<Look>,
    /// The same at the last look.
    seen: Vec<Look>,
}

impl Keeper {
    /// Reads all that the configuration names, or says what cannot be read.
    pub(crate) fn open(site: &Site) -> Result<Self, Vec<Problem>> {
        let seen = look(site);
        let (users, problems): (Vec<_>, Vec<_>) = access::user_files(site)
            .into_iter()
            .map(read)
            .partition(Result::is_ok);
        let problems: Vec<Problem> = problems.into_iter().filter_map(Result::err).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            users: users.into_iter().flatten().collect(),
            read: seen.clone(),
            seen,
        })
    }

    /// What a proxy is told.
    pub(crate) fn users(&self) -> &[Users] {
        &self.users
    }

    /// Looks at the files; what the proxy is to be told, if something is new. A change is taken once it has lasted from one look to
    /// the next: not every editor writes at once.
    pub(crate) fn look(&mut self, site: &Site) -> Option<Vec<Users>> {
        let now = look(site);
        let settled = now == self.seen;
        self.seen = now;
        if !settled || self.seen == self.read {
            return None;
        }
        self.read.clone_from(&self.seen);
        let mut changed = false;
        for file in access::user_files(site) {
            changed |= self.renew(file);
        }
        changed.then(|| self.users.clone())
    }

    /// The file as it is now, unless it cannot be used: then it stays as it was, and the log says so once.
    fn renew(&mut self, file: &Located<PathBuf>) -> bool {
        let path = file.value.display();
        let new = match read(file) {
            Ok(new) => new,
            Err(problem) => {
                error!("the users of {path} stay as they are: {}", problem.message);
                return false;
            }
        };
        let Some(known) = self.users.iter_mut().find(|known| known.path == new.path) else {
            return false;
        };
        if known.text == new.text {
            return false;
        }
        match access::check_users(&new) {
            Ok(count) => {
                info!("new users: {path} has {count}");
                *known = new;
                true
            }
            Err(why) => {
                error!("the users of {path} stay as they are: {why}");
                false
            }
        }
    }
}

fn look(site: &Site) -> Vec<Look> {
    let files = access::user_files(site).into_iter();
    files.map(|file| look_at(&file.value)).collect()
}

fn read(path: &Located<PathBuf>) -> Result<Users, Problem> {
    match fs::read_to_string(&path.value) {
        Ok(text) => Ok(Users {
            path: path.value.clone(),
            text,
        }),
        Err(error) => {
            let message = format!("cannot read {}: {error}", path.value.display());
            Err(Problem::new(path.span, message))
        }
    }
}
