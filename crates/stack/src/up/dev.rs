//! `--dev`: what is saved is served a moment later, and what cannot be served is shown to who has written it.
//!
//! A change is a reload like any other, so the last version that works goes on serving while the new one is broken. What is wrong
//! with that is in the log, and in the pages of the browser.

mod rules;
mod watch;

use std::path::{Path, PathBuf};

use ::proxy::control::Order;
use config::site::Site;
use tokio::sync::mpsc;
use tracing::{info, warn};

use self::{
    rules::{Change, Targets},
    watch::Watch,
};
use super::{master::Master, reload::Scope};
use crate::load::Source;

/// How much of a report is shown in a page, in bytes; of a longer one the end.
const SHOWN: usize = 64 * 1024;

/// What is done for who develops a site.
#[derive(Debug)]
pub(crate) struct Dev {
    /// `None` where the kernel tells nothing, which was said.
    watch: Option<Watch>,
    changes: mpsc::Receiver<Change>,
    /// The file of the configuration, where there is one.
    file: Option<PathBuf>,
    /// Further files that apps depend on.
    extra: Vec<PathBuf>,
    /// What has changed since something was taken over the last time.
    owed: Option<Scope>,
    broken: Option<Broken>,
}

/// Why the newest version is not served.
#[derive(Debug)]
struct Broken {
    why: String,
    /// The app that has no version at all that could be served.
    app: Option<String>,
}

impl Dev {
    /// Begins to watch; `None` where nobody develops.
    pub(crate) fn start(site: &Site, source: &Source) -> Option<Self> {
        let dev = site.dev.as_ref()?;
        warn!(
            "this is for development (--dev): changes are taken over by themselves, and clients of this machine and its networks see tracebacks"
        );
        for path in &dev.missing {
            warn!(
                "{} is not there: a self-signed certificate takes its place",
                path.display()
            );
        }
        let (tell, changes) = mpsc::channel(1);
        let (file, extra) = (source.file(), source.extra());
        let targets = Targets::of(site, file.as_deref(), &extra);
        let watch = Watch::start(targets, tell);
        let unable = |error: &std::io::Error| {
            warn!(
                "changes are not seen: {error} (fs.inotify.max_user_instances?); `stack reload` takes them over"
            );
        };
        Some(Self {
            watch: watch.inspect_err(unable).ok(),
            changes,
            file,
            extra,
            owed: None,
            broken: None,
        })
    }

    fn follow(&self, site: &Site) {
        if let Some(watch) = &self.watch {
            watch.follow(Targets::of(site, self.file.as_deref(), &self.extra));
        }
    }

    /// What a proxy is told that knows nothing.
    pub(crate) fn order(&self) -> Option<Order> {
        let why = Some(self.broken.as_ref()?.why.clone());
        Some(Order::Broken { why })
    }
}

/// The next change; never where nobody develops.
pub(crate) async fn next_change(dev: Option<&mut Dev>) -> Change {
    if let Some(dev) = dev
        && let Some(change) = dev.changes.recv().await
    {
        return change;
    }
    std::future::pending().await
}

impl Master {
    /// Something was saved.
    pub(super) fn saved(&mut self, change: &Change) {
        let file = self.opened.loaded.site.file.clone();
        info!(
            "{}",
            change.show(file.parent().unwrap_or_else(|| Path::new("/")))
        );
        let Some(dev) = &mut self.dev else { return };
        let owed = match dev.owed.take() {
            Some(owed) => owed.and(change.scope.clone()),
            None => change.scope.clone(),
        };
        dev.owed = Some(owed.clone());
        self.supersede_reload();
        self.want_reload(owed, None);
    }

    /// The newest version cannot be served. `app` is one that has no other.
    pub(super) fn is_broken(&mut self, why: &str, app: Option<String>) {
        let Some(dev) = &mut self.dev else { return };
        let mut from = why.len().saturating_sub(SHOWN);
        while !why.is_char_boundary(from) {
            from += 1;
        }
        let why = why[from..].to_owned();
        dev.broken = Some(Broken { why, app });
        if let Some(order) = dev.order() {
            self.tell_front(order);
        }
    }

    /// What was saved is served, but for what is still `owed`.
    pub(super) fn is_mended(&mut self, owed: Option<Scope>) {
        let Some(dev) = &mut self.dev else { return };
        dev.owed = owed;
        let was_broken = dev.broken.take().is_some();
        dev.follow(&self.opened.loaded.site);
        if was_broken {
            self.tell_front(Order::Broken { why: None });
        }
    }

    /// An app has a worker.
    pub(super) fn works(&mut self, app: &str) {
        let is_its = |broken: &mut Broken| broken.app.as_deref() == Some(app);
        if let Some(dev) = &mut self.dev
            && dev.broken.take_if(is_its).is_some()
        {
            self.tell_front(Order::Broken { why: None });
        }
    }

    /// Errands are for what visitors get.
    pub(super) fn has_no_errands(&self) -> bool {
        self.dev.is_some()
    }
}
