//! Landlock: which files can still be opened, and which ports bound.

use std::{
    env,
    net::IpAddr,
    path::{Path, PathBuf},
};

use config::site::{Action, Member, Site, Symlinks};
use confine::{
    AccessFs, BitFlags, LandlockStatus, RESOLVER, RestrictionStatus, RulesetError, RulesetStatus,
};
use tracing::{info, warn};

/// Times of the local zone are in the log.
const ZONES: [&str; 2] = ["/etc/localtime", "/usr/share/zoneinfo"];

/// Where requests and responses may go that are too large for memory, when the file does not say.
const SPOOLS: [&str; 2] = ["/var/tmp", "/tmp"];

/// What was confined, for people.
#[derive(Debug)]
pub(super) struct Said {
    status: RestrictionStatus,
    readable: String,
    writable: String,
}

impl Said {
    pub(super) fn tell(&self) {
        let (readable, writable) = (&self.readable, &self.writable);
        let extent = match self.status.ruleset {
            RulesetStatus::FullyEnforced => "confined",
            RulesetStatus::PartiallyEnforced => "confined as far as this kernel can",
            RulesetStatus::NotEnforced => {
                let why = match self.status.landlock {
                    LandlockStatus::NotEnabled => "it is switched off (boot with lsm=landlock,…)",
                    _ => "this kernel has none",
                };
                warn!("files: not confined by Landlock, {why}");
                return;
            }
        };
        info!("files: {extent} by Landlock to reading {readable} and writing {writable}");
    }
}

/// Leaves what the configuration names.
pub(super) fn confine(site: &Site) -> Result<Said, RulesetError> {
    let readable = readable(site);
    let writable = writable(site);
    let zones = ZONES.map(PathBuf::from);
    let status = confine::keep_files(&[
        (&readable, confine::reading()),
        (&zones, BitFlags::from(AccessFs::ReadFile)),
        (&writable, temporary()),
    ])?;
    Ok(Said {
        status,
        readable: list(&readable),
        writable: list(&writable),
    })
}

/// All that is left to it.
pub(super) fn folders(site: &Site) -> Vec<PathBuf> {
    let mut folders = readable(site);
    folders.extend(writable(site));
    folders
}

/// A file that is made, and loses its name at once.
fn temporary() -> BitFlags<AccessFs> {
    AccessFs::ReadDir
        | AccessFs::ReadFile
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
}

fn readable(site: &Site) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = site.served().map(|path| path.value.clone()).collect();
    if follows_links(site) {
        // They may lead anywhere, and that is what was asked for.
        folders.push(PathBuf::from("/"));
    }
    if looks_up_names(site) {
        let resolver = RESOLVER.into_iter().map(PathBuf::from);
        folders.extend(resolver.filter(|folder| folder.is_dir()));
    }
    folders.sort();
    folders.dedup();
    folders
}

fn follows_links(site: &Site) -> bool {
    let mut routes = site.hosts.iter().flat_map(|host| &host.routes);
    routes.any(|route| match &route.action {
        Action::Files { files, .. } => files.symlinks == Symlinks::Follow,
        _ => false,
    })
}

/// Upstreams that are written as addresses need nothing of that.
fn looks_up_names(site: &Site) -> bool {
    let mut members = site.upstreams.iter().flat_map(|upstream| &upstream.members);
    members.any(|member| match &member.value {
        Member::Tcp { host, .. } => host.parse::<IpAddr>().is_err(),
        Member::Unix(_) => false,
    })
}

fn writable(site: &Site) -> Vec<PathBuf> {
    match &site.server.spool {
        Some(folder) => vec![folder.value.clone()],
        None => {
            let mut folders: Vec<PathBuf> = SPOOLS.into_iter().map(PathBuf::from).collect();
            folders.push(env::temp_dir());
            folders.retain(|folder| folder.is_dir());
            folders.sort();
            folders.dedup();
            folders
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "nothing".to_owned();
    }
    let shown = |path: &PathBuf| Path::display(path).to_string();
    paths.iter().map(shown).collect::<Vec<_>>().join(", ")
}
