//! The state directory: the account, certificates with their keys, and what has been tried. Ours alone (0700, files 0600).
//!
//! Files are written beside what they replace, to the disk, and then put in its place: whoever is interrupted leaves the old
//! one. A certificate and its key are one file, so that they are never of different orders. All of this blocks.

use std::{
    env,
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ::acme::{Facts, account_id, message::Progress};
use config::{
    error::{Problem, Span},
    site::{Acme, HostPattern, Located, Site, Tls, VirtualHost},
};
use rustix::{fs::FlockOperation, io::Errno};
use tracing::warn;

/// Nobody but us.
const PRIVATE: u32 = 0o700;

/// How files begin that are being written.
const UNFINISHED: &str = ".new-";

/// No write takes longer.
const HOUR: Duration = Duration::from_secs(3600);

/// How long after its end a certificate is kept: who comes back to a configuration of yore orders a new one by then.
const OLD: Duration = Duration::from_secs(30 * 86_400);

/// Where a certificate begins in a file that has the key before it.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// And where it ends.
const END: &str = "-----END CERTIFICATE-----";

/// The state directory, for one authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Store {
    folder: PathBuf,
    directory: String,
}

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl std::fmt::Debug for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys never reach a log.
        f.write_str("Got")
    }
}

/// The names that are to be in a site's certificate; `None` where it is none by ACME.
pub(crate) fn names(host: &VirtualHost) -> Option<Vec<String>> {
    let name = |name: &HostPattern| match name {
        HostPattern::Exact(name) => Some(name.trim_matches(['[', ']']).to_owned()),
        // The configuration has refused them.
        HostPattern::Any | HostPattern::Wildcard(_) => None,
    };
    let names = host.names.iter().filter_map(name);
    (host.tls.value == Tls::Acme).then(|| names.collect())
}

impl Store {
    /// Opens it, if a site wants certificates by ACME: makes the folder where it is not there, and sees that it is ours alone.
    pub(crate) fn open(site: &Site) -> Result<Option<Self>, Problem> {
        let wanted = site.hosts.iter().find(|host| host.tls.value == Tls::Acme);
        let (Some(acme), Some(wanted)) = (&site.acme, wanted) else {
            return Ok(None);
        };
        let folder = place(acme, wanted.tls.span)?;
        make(&folder.value).map_err(|error| {
            let shown = folder.value.display();
            let message = format!("cannot keep certificates in {shown}: {error}");
            let hint = "make it a folder that only the user of the master may enter and write to, or name one with `state` in `[acme]`";
            Problem::new(folder.span, message).hint(hint)
        })?;
        Ok(Some(Self {
            folder: folder.value,
            directory: acme.directory.clone(),
        }))
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the files of a certificate are called.
    pub(crate) fn id(&self, names: &[String]) -> String {
        ::acme::id(&self.directory, names)
    }

    /// The file of a certificate.
    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.pem"))
    }

    fn progress_path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    fn account_path(&self) -> PathBuf {
        self.folder
            .join(format!("{}.json", account_id(&self.directory)))
    }

    /// The lock of a certificate, held as long as this file is open in whatever process; `None` while another stack has it.
    pub(crate) fn lock(&self, id: &str) -> io::Result<Option<File>> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.folder.join(format!("{id}.lock")))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what nobody will want: files that were not finished, and certificates that ended long ago, with what is about them.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        let now = SystemTime::now();
        let is_older = |time: SystemTime, age| now.duration_since(time).is_ok_and(|it| it > age);
        for path in fs::read_dir(&self.folder)?
            .flatten()
            .map(|entry| entry.path())
        {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(UNFINISHED) {
                let written = fs::metadata(&path).and_then(|metadata| metadata.modified());
                if written.is_ok_and(|written| is_older(written, HOUR)) {
                    fs::remove_file(&path)?;
                }
            } else if path.extension().is_some_and(|ending| ending == "pem") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                let got = Got::of(&text).filter(|got| got.not_after() > SystemTime::UNIX_EPOCH);
                if got.is_some_and(|got| is_older(got.not_after(), OLD)) {
                    for ending in ["pem", "json", "lock"] {
                        there(fs::remove_file(path.with_extension(ending)))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The account that there is.
    pub(crate) fn account(&self) -> io::Result<Option<String>> {
        there(fs::read_to_string(self.account_path()))
    }

    pub(crate) fn keep_account(&self, text: &str) -> io::Result<()> {
        self.put(&self.account_path(), text)
    }

    /// The certificate for exactly these names. A file that holds none is as good as none: another is got, and the log says why.
    pub(crate) fn certificate(&self, id: &str) -> io::Result<Option<Got>> {
        let path = self.path(id);
        let text = there(fs::read_to_string(&path))?;
        let got = text.as_deref().map(Got::of);
        if let Some(None) = got {
            warn!("there is no certificate in {}", path.display());
        }
        Ok(got.flatten())
    }

    /// The one that is best for these names while theirs is not there: it has most of them, and lives longest.
    pub(crate) fn nearest(&self, names: &[String]) -> Option<Got> {
        let now = SystemTime::now();
        let entries = fs::read_dir(&self.folder).ok()?.flatten();
        let files = entries.map(|entry| entry.path());
        let files = files.filter(|path| path.extension().is_some_and(|end| end == "pem"));
        let judged = files.filter_map(|path| {
            let got = Got::of(&fs::read_to_string(path).ok()?)?;
            let facts = Facts::of_chain(&got.chain)?;
            let has = names
                .iter()
                .filter(|name| facts.names.contains(name))
                .count();
            let end = facts.validity.not_after;
            (has > 0 && end > now).then_some(((has, end), got))
        });
        judged.max_by_key(|(worth, _)| *worth).map(|(_, got)| got)
    }

    pub(crate) fn keep_certificate(&self, id: &str, got: &Got) -> io::Result<()> {
        let Got { chain, key } = got;
        self.put(&self.path(id), &format!("{key}{chain}"))
    }

    /// What has been tried for a site. A file that cannot be read is none: then it is tried, and the log says what is not known.
    pub(crate) fn progress(&self, id: &str) -> Progress {
        let path = self.progress_path(id);
        let read = there(fs::read_to_string(&path)).and_then(|text| match text {
            Some(text) => Ok(serde_json::from_str(&text)?),
            None => Ok(Progress::default()),
        });
        read.unwrap_or_else(|error| {
            let shown = path.display();
            warn!(
                "what has been tried for a certificate is not known, cannot read {shown}: {error}"
            );
            Progress::default()
        })
    }

    pub(crate) fn keep_progress(&self, id: &str, progress: &Progress) -> io::Result<()> {
        let text = serde_json::to_string(progress)?;
        self.put(&self.progress_path(id), &text)
    }

    fn put(&self, path: &Path, text: &str) -> io::Result<()> {
        // Made for its owner alone, and gone again where this fails.
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(&self.folder)?.sync_all()
    }
}

impl Got {
    fn of(text: &str) -> Option<Self> {
        let (key, chain) = text.split_at(text.find(CERTIFICATE)?);
        Some(Self {
            chain: chain.to_owned(),
            key: key.to_owned(),
        })
    }

    /// The chain's first certificate.
    pub(crate) fn leaf(&self) -> &str {
        let end = self.chain.find(END).map(|at| at + END.len());
        self.chain.get(..end.unwrap_or(0)).unwrap_or_default()
    }

    /// Until when it is valid.
    pub(crate) fn not_after(&self) -> SystemTime {
        let facts = Facts::of_chain(&self.chain);
        facts.map_or(SystemTime::UNIX_EPOCH, |facts| facts.validity.not_after)
    }
}

fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where it is to be. `span` is that of a site that wants it.
fn place(acme: &Acme, span: Option<Span>) -> Result<Located<PathBuf>, Problem> {
    if let Some(state) = &acme.state {
        return Ok(state.clone());
    }
    let value = usual().ok_or_else(|| {
        let message = "there is no place for certificates: neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set";
        Problem::new(span, message).hint("add `state = \"/var/lib/stack/acme\"` to `[acme]`")
    })?;
    Ok(Located { value, span })
}

/// systemd's `StateDirectory=`, else what the Filesystem Hierarchy Standard has for root, and the XDG Base Directory
/// Specification for others.
fn usual() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(given) = variable("STATE_DIRECTORY") {
        // Several are separated by colons (systemd.exec(5)).
        return Some(env::split_paths(&given).next()?.join("acme"));
    }
    if rustix::process::geteuid().is_root() {
        return Some("/var/lib/stack/acme".into());
    }
    let home = || Some(PathBuf::from(variable("HOME")?).join(".local/state"));
    let state = variable("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(home)?;
    Some(state.join("stack/acme"))
}

fn make(folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(PRIVATE).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::metadata(folder)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(PRIVATE))?;
    }
    rustix::fs::access(
        folder,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path) -> Store {
        make(folder).unwrap();
        Store {
            folder: folder.to_owned(),
            directory: "https://ca.example/dir".to_owned(),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn made(names: &[&str]) -> Got {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Got {
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    #[test]
    fn what_is_kept_is_ours_alone_and_is_found_again() {
        let place = tempfile::tempdir().unwrap();
        let store = store(&place.path().join("state/acme"));
        assert_eq!(mode(store.folder()), 0o700);
        assert_eq!(store.account().unwrap(), None);
        store.keep_account("{}").unwrap();
        assert_eq!(store.account().unwrap().as_deref(), Some("{}"));
        assert_eq!(store.certificate("a").unwrap(), None);
        let got = made(&["a.example"]);
        store.keep_certificate("a", &got).unwrap();
        assert_eq!(store.certificate("a").unwrap().as_ref(), Some(&got));
        let long = Got {
            chain: format!("{}{}", got.chain, made(&["b.example"]).chain),
            ..got.clone()
        };
        assert_eq!(long.leaf(), got.chain.trim_end());
        assert_eq!(store.progress("a"), Progress::default());
        let progress = Progress {
            failures: 3,
            ..Progress::default()
        };
        store.keep_progress("a", &progress).unwrap();
        assert_eq!(store.progress("a"), progress);
        for entry in fs::read_dir(store.folder()).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn a_folder_that_is_open_to_others_is_closed() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("acme");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        make(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(make(&file).is_err());
    }

    #[test]
    fn one_of_two_has_the_lock() {
        let place = tempfile::tempdir().unwrap();
        let store = store(place.path());
        let first = store.lock("a").unwrap().expect("nobody has it");
        assert!(store.lock("a").unwrap().is_none());
        assert!(store.lock("b").unwrap().is_some(), "of another certificate");
        drop(first);
        assert!(store.lock("a").unwrap().is_some());
    }

    #[test]
    fn what_nobody_will_want_is_swept_away() {
        let place = tempfile::tempdir().unwrap();
        let store = store(place.path());
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 3, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let old = Got {
            chain: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        };
        store.keep_certificate("old", &old).unwrap();
        store.keep_progress("old", &Progress::default()).unwrap();
        store
            .keep_certificate("new", &made(&["a.example"]))
            .unwrap();
        store.keep_progress("other", &Progress::default()).unwrap();
        fs::write(place.path().join("broken.pem"), "nonsense").unwrap();
        let unfinished = place.path().join(".new-old");
        fs::write(&unfinished, "").unwrap();
        let long_ago = SystemTime::now() - 2 * HOUR;
        File::options()
            .write(true)
            .open(&unfinished)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        fs::write(place.path().join(".new-now"), "").unwrap();
        store.sweep().unwrap();
        let files = fs::read_dir(place.path()).unwrap().flatten();
        let mut left: Vec<_> = files
            .map(|file| file.file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [".new-now", "broken.pem", "new.pem", "other.json"]);
    }

    #[test]
    fn the_nearest_has_most_of_the_names() {
        let place = tempfile::tempdir().unwrap();
        let store = store(place.path());
        let two = made(&["a.example", "b.example"]);
        store
            .keep_certificate("one", &made(&["a.example"]))
            .unwrap();
        store.keep_certificate("two", &two).unwrap();
        store
            .keep_certificate("other", &made(&["c.example"]))
            .unwrap();
        fs::write(place.path().join("broken.pem"), "nonsense").unwrap();
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let wanted = names(&["a.example", "b.example", "d.example"]);
        assert_eq!(store.nearest(&wanted), Some(two));
        assert_eq!(store.nearest(&names(&["d.example"])), None);
    }
}
