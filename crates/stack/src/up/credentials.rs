//! What TLS needs and only the master may read: certificates, keys, who signs clients'. Read at the start, and again whenever the
//! files change; and the keys of session tickets, which are made here.
//!
//! The files are looked at every few seconds, and not watched: certificates are renewed by new files, by links that are turned
//! and on file systems of other machines, and a look sees them all. A change is taken once it has lasted from one look to the
//! next, since a certificate and its key are never written at once.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use ::proxy::{
    control::{Certificate, Credentials},
    tls::{self, ROTATION, SOON, Shown, TicketKey},
};
use config::{
    error::Problem,
    site::{HostPattern, Located, Site, Tls, VirtualHost},
};
use rustix::rand::{GetRandomFlags, getrandom};
use telemetry::text::Elapsed;
use tracing::{error, info, warn};

use super::certificates::store::{Got, Store, names};

/// How often the files are looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

/// How often somebody is reminded of a certificate that ends.
const REMINDER: Duration = Duration::from_secs(86_400);

/// Credentials, and what they were read from.
#[derive(Debug)]
pub(crate) struct Keeper {
    credentials: Credentials,
    /// What will be shown to whom.
    shown: Vec<Shown>,
    /// The files as they were when they were last read, whatever came of that.
    read: Vec<Look>,
    /// The same at the last look.
    seen: Vec<Look>,
    reminded: Option<Instant>,
    rotated: Instant,
    /// Where certificates by ACME are.
    store: Option<Store>,
    /// Those that were got since we began, by their ids: on a full disk they are nowhere else.
    got: BTreeMap<String, Got>,
    /// Who the authority's server is verified by, as PEM; empty where nobody wants a certificate.
    authorities: String,
    /// Which customer of it we are: what it calls the key, and the key.
    eab: Option<(String, String)>,
    /// By whom upstreams are verified.
    trusted: Vec<Trusted>,
}

/// A file that says who signs the certificates of an upstream's members. The proxy goes on with what it said at first: its
/// connections were verified by that.
#[derive(Debug)]
struct Trusted {
    upstream: String,
    file: PathBuf,
    /// The file as it was when that was read, or when somebody was told that it has changed.
    known: Look,
    /// The same at the last look.
    seen: Look,
}

impl Trusted {
    fn of(site: &Site) -> Vec<Self> {
        let upstreams = site.upstreams.iter().filter_map(|upstream| {
            let file = upstream.authorities.as_ref()?.value.clone();
            let look = look_at(&file);
            Some(Self {
                upstream: upstream.name.clone(),
                file,
                known: look,
                seen: look,
            })
        });
        upstreams.collect()
    }

    /// Whether it has changed, once it has lasted from one look to the next.
    fn changes(&mut self) -> bool {
        let now = look_at(&self.file);
        let settled = now == self.seen;
        self.seen = now;
        settled && std::mem::replace(&mut self.known, now) != now
    }
}

/// Whether a site has a certificate that a proxy makes.
fn is_made(host: &&VirtualHost) -> bool {
    host.tls.value == Tls::SelfSigned
}

/// What tells one state of a file from another; `None` where there is none.
pub(super) type Look = Option<(u64, i64, i64, u64)>;

impl Keeper {
    /// Reads all that the configuration names, or says what cannot be read.
    pub(crate) fn open(site: &Site) -> Result<Self, Vec<Problem>> {
        let store = Store::open(site).map_err(|problem| vec![problem])?;
        let authorities = match store {
            Some(_) => authorities(site).map_err(|problem| vec![problem])?,
            None => String::new(),
        };
        let eab = eab(site).map_err(|problem| vec![problem])?;
        let seen = look(site, store.as_ref());
        let trusted = Trusted::of(site);
        let got = BTreeMap::new();
        let mut credentials = read(site, store.as_ref(), &got)?;
        credentials.tickets.extend(ticket_key());
        for (path, mode) in keys(site).filter_map(|key| exposed(key)) {
            warn!(
                "the private key {} can be read by every user of this machine (mode {mode:03o}): chmod 600 {0}",
                path.display()
            );
        }
        let mut keeper = Self {
            // What is wrong with them the proxy refuses, and says.
            shown: tls::check(site, &credentials).unwrap_or_default(),
            credentials,
            read: seen.clone(),
            seen,
            reminded: None,
            rotated: Instant::now(),
            store,
            got,
            authorities,
            eab,
            trusted,
        };
        keeper.remind();
        Ok(keeper)
    }

    /// What a proxy is told.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Each certificate that is shown, and until when it is valid.
    pub(crate) fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// Where certificates by ACME are kept.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// Who the authority's server is verified by, as PEM.
    pub(crate) fn authorities(&self) -> &str {
        &self.authorities
    }

    /// Which customer of the authority we are: what it calls the key, and the key.
    pub(crate) fn eab(&self) -> Option<(String, String)> {
        self.eab.clone()
    }

    /// Uses a certificate that was just got; what the proxy is to be told.
    pub(crate) fn take(&mut self, site: &Site, id: String, got: Got) -> Option<Credentials> {
        self.got.insert(id, got);
        self.renew(site).then(|| self.credentials.clone())
    }

    /// Uses what was got while another configuration was served, since this one was opened; what the proxy is to be told, if there is
    /// anything.
    pub(crate) fn catch_up(&mut self, site: &Site, before: &Self) -> Option<Credentials> {
        if self.got == before.got {
            return None;
        }
        self.got.clone_from(&before.got);
        self.renew(site).then(|| self.credentials.clone())
    }

    /// Takes over what was made while another configuration was served: a visitor's browser trusts the self-signed certificate
    /// that it has seen, and goes on with the session that it has.
    pub(crate) fn inherit(&mut self, site: &Site, before: &Self, site_before: &Site) {
        self.rotated = before.rotated;
        self.reminded = before.reminded;
        if !before.got.is_empty() {
            self.got.clone_from(&before.got);
            // It is as it was where this fails, and the log says so.
            self.renew(site);
        }
        let tickets = before.credentials.tickets.clone();
        self.take_over(site, before.made(site_before), tickets);
    }

    /// The same, from another master.
    pub(crate) fn take_over(
        &mut self,
        site: &Site,
        certificates: Vec<(Vec<HostPattern>, Certificate)>,
        tickets: Vec<TicketKey>,
    ) {
        if !tickets.is_empty() {
            self.credentials.tickets = tickets;
        }
        let mut made = Vec::new();
        for (names, certificate) in certificates {
            let hosts = site.hosts.iter().enumerate();
            let same = hosts.filter(|(_, other)| is_made(other) && other.names == names);
            made.extend(same.map(|(host, _)| Certificate {
                host,
                ..certificate.clone()
            }));
        }
        self.keep(site, made);
    }

    /// The self-signed certificates, by the hosts of their sites.
    pub(crate) fn made(&self, site: &Site) -> Vec<(Vec<HostPattern>, Certificate)> {
        let certificates = self.credentials.certificates.iter();
        let made = certificates.filter_map(|certificate| {
            let host = site.hosts.get(certificate.host).filter(is_made)?;
            Some((host.names.clone(), certificate.clone()))
        });
        made.collect()
    }

    /// Keeps self-signed certificates for the next proxy.
    pub(crate) fn keep(&mut self, site: &Site, made: Vec<Certificate>) {
        for certificate in made {
            let known = &mut self.credentials.certificates;
            if !known.iter().any(|known| known.host == certificate.host) {
                known.push(certificate);
            }
        }
        self.shown = tls::check(site, &self.credentials).unwrap_or_default();
    }

    /// Looks at the files, and at the clock; what the proxy is to be told, if anything has changed.
    pub(crate) fn look(&mut self, site: &Site) -> Option<Credentials> {
        let now = look(site, self.store.as_ref());
        let settled = now == self.seen;
        self.seen = now;
        let rotated = self.rotate();
        let renewed = settled && self.seen != self.read && self.renew(site);
        if self.reminded.is_none_or(|last| last.elapsed() >= REMINDER) {
            self.remind();
        }
        for trusted in &mut self.trusted {
            if trusted.changes() {
                warn!(
                    "upstream {}: {} has changed, and is read by the next reload",
                    trusted.upstream,
                    trusted.file.display()
                );
            }
        }
        (rotated || renewed).then(|| self.credentials.clone())
    }

    /// New ones, unless they cannot be used: then the old ones stay, and the log says so once.
    fn renew(&mut self, site: &Site) -> bool {
        self.read.clone_from(&self.seen);
        let mut new = match read(site, self.store.as_ref(), &self.got) {
            Ok(new) => new,
            Err(problems) => {
                let why: Vec<_> = problems
                    .into_iter()
                    .map(|problem| problem.message)
                    .collect();
                error!("the certificates stay as they are: {}", why.join("; "));
                return false;
            }
        };
        new.tickets.clone_from(&self.credentials.tickets);
        // Those that a proxy has made have no files.
        let is_made = |certificate: &&Certificate| {
            site.hosts
                .get(certificate.host)
                .is_some_and(|host| is_made(&host))
        };
        let made = self.credentials.certificates.iter().filter(is_made);
        new.certificates.extend(made.cloned());
        match tls::check(site, &new) {
            Ok(shown) => {
                for shown in shown.iter().filter(|shown| !self.shown.contains(shown)) {
                    info!(
                        "new certificate for {}: valid for {}",
                        shown.hosts.join(", "),
                        Elapsed(left(shown))
                    );
                }
                self.shown = shown;
                self.credentials = new;
                self.remind();
                true
            }
            Err(why) => {
                error!("the certificates stay as they are: {why}");
                false
            }
        }
    }

    /// A new key for session tickets, when the one in use is old; the one before is still understood.
    fn rotate(&mut self) -> bool {
        if self.rotated.elapsed() < ROTATION {
            return false;
        }
        self.rotated = Instant::now();
        let Some(key) = ticket_key() else {
            return false;
        };
        self.credentials.tickets.insert(0, key);
        self.credentials.tickets.truncate(2);
        true
    }

    /// Names the certificates that have ended or soon will, and those that are other hosts'.
    fn remind(&mut self) {
        self.reminded = Some(Instant::now());
        for shown in &self.shown {
            let hosts = shown.hosts.join(", ");
            match left(shown) {
                Duration::ZERO => error!("the certificate for {hosts} has expired"),
                left if left < SOON => {
                    warn!("the certificate for {hosts} expires in {}", Elapsed(left));
                }
                _ => {}
            }
            if !shown.unnamed.is_empty() {
                warn!(
                    "the certificate {} does not name {}: browsers refuse it there",
                    shown.subject,
                    shown.unnamed.join(", ")
                );
            }
        }
    }
}

/// How long it is still valid.
fn left(shown: &Shown) -> Duration {
    shown
        .not_after
        .duration_since(SystemTime::now())
        .unwrap_or_default()
}

/// `None` without randomness: then there are no tickets, which only costs time.
fn ticket_key() -> Option<TicketKey> {
    let mut random = [0; 40];
    match getrandom(&mut random, GetRandomFlags::empty()) {
        Ok(length) if length == random.len() => {
            let (name, secret) = random.split_at(8);
            Some(TicketKey {
                name: name.try_into().ok()?,
                secret: secret.try_into().ok()?,
            })
        }
        _ => None,
    }
}

/// Every file, in one order.
fn files(site: &Site) -> impl Iterator<Item = &Path> {
    site.hosts.iter().flat_map(|host| {
        let pairs = match &host.tls.value {
            Tls::Files(pairs) => pairs.as_slice(),
            _ => &[],
        };
        let of_pairs = pairs
            .iter()
            .flat_map(|pair| [Some(&pair.cert), Some(&pair.key), pair.ocsp.as_ref()]);
        let authorities = host.clients.as_ref().map(|clients| &clients.authorities);
        of_pairs
            .chain([authorities])
            .flatten()
            .map(|path| path.value.as_path())
    })
}

fn look(site: &Site, store: Option<&Store>) -> Vec<Look> {
    let of_files = files(site).map(look_at);
    // Another stack may put them there.
    let of_store = store.into_iter().flat_map(|store| {
        let all = site.hosts.iter().filter_map(names);
        all.map(|names| look_at(&store.path(&store.id(&names))))
    });
    of_files.chain(of_store).collect()
}

/// As which a file is there.
pub(super) fn look_at(path: &Path) -> Look {
    let metadata = fs::metadata(path).ok()?;
    Some((
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len(),
    ))
}

fn keys(site: &Site) -> impl Iterator<Item = &Path> {
    site.hosts.iter().flat_map(|host| match &host.tls.value {
        Tls::Files(pairs) => pairs.iter().map(|pair| pair.key.value.as_path()).collect(),
        _ => Vec::new(),
    })
}

/// A file that everybody may read, and its mode.
fn exposed(path: &Path) -> Option<(&Path, u32)> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o007 != 0).then_some((path, mode))
}

fn read(
    site: &Site,
    store: Option<&Store>,
    got: &BTreeMap<String, Got>,
) -> Result<Credentials, Vec<Problem>> {
    let mut credentials = Credentials::default();
    let mut problems = Vec::new();
    for (index, host) in site.hosts.iter().enumerate() {
        if let Tls::Files(pairs) = &host.tls.value {
            for pair in pairs {
                let chain = text(&pair.cert);
                let key = text(&pair.key);
                let ocsp = pair
                    .ocsp
                    .as_ref()
                    .map(|path| of_file(path, |path| fs::read(path)));
                match (chain, key, ocsp.transpose()) {
                    (Ok(chain), Ok(key), Ok(ocsp)) => credentials.certificates.push(Certificate {
                        host: index,
                        chain,
                        key,
                        ocsp,
                    }),
                    (chain, key, ocsp) => {
                        let all = [chain.err(), key.err(), ocsp.err()];
                        problems.extend(all.into_iter().flatten());
                    }
                }
            }
        }
        if let (Some(store), Some(names)) = (store, names(host)) {
            match best(store, &names, got) {
                Ok(best) => credentials.certificates.extend(best.map(|got| Certificate {
                    host: index,
                    chain: got.chain,
                    key: got.key,
                    ocsp: None,
                })),
                Err(error) => {
                    let message = format!(
                        "cannot read a certificate in {}: {error}",
                        store.folder().display()
                    );
                    problems.push(Problem::new(host.tls.span, message));
                }
            }
        }
        if let Some(clients) = &host.clients {
            match text(&clients.authorities) {
                Ok(pem) => credentials.authorities.push((index, pem)),
                Err(problem) => problems.push(problem),
            }
        }
    }
    for upstream in &site.upstreams {
        let Some(member) = upstream.encrypted() else {
            continue;
        };
        let pem = match &upstream.authorities {
            Some(path) => text(path),
            None => system_authorities().map_err(|error| {
                let message = format!("cannot read whom this system trusts: {error}");
                Problem::new(member.span, message)
                    .hint("install `ca-certificates`, or name a file: `ca = \"ca.pem\"`")
            }),
        };
        match pem {
            Ok(pem) => credentials.upstreams.push((upstream.name.clone(), pem)),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(credentials)
    } else {
        Err(problems)
    }
}

/// What is shown for these names: theirs, or as long as that is not there, the nearest.
fn best(store: &Store, names: &[String], got: &BTreeMap<String, Got>) -> io::Result<Option<Got>> {
    let id = store.id(names);
    // One that does not parse is none.
    let usable = |got: &Got| got.not_after() > SystemTime::UNIX_EPOCH;
    let new = got.get(&id).cloned();
    let kept = match store.certificate(&id) {
        Ok(kept) => kept.filter(usable),
        // What was got just now is used, whatever has become of the disk.
        Err(_) if new.is_some() => None,
        Err(error) => return Err(error),
    };
    let theirs = kept.into_iter().chain(new).max_by_key(Got::not_after);
    Ok(theirs.or_else(|| store.nearest(names)))
}

/// Which customer of the authority we are.
fn eab(site: &Site) -> Result<Option<(String, String)>, Problem> {
    let Some(eab) = site.acme.as_ref().and_then(|acme| acme.eab.as_ref()) else {
        return Ok(None);
    };
    let key = text(&eab.mac_key)?;
    if ::acme::mac_key(&key).is_none() {
        let message = format!("{} holds no key in base64", eab.mac_key.display());
        return Err(Problem::new(eab.mac_key.span, message)
            .hint("put the key into it as the authority shows it, and nothing else"));
    }
    Ok(Some((eab.key_id.clone(), key)))
}

/// Who the server of the authority is verified by.
fn authorities(site: &Site) -> Result<String, Problem> {
    match site
        .acme
        .as_ref()
        .and_then(|acme| acme.authorities.as_ref())
    {
        Some(path) => text(path),
        None => system_authorities().map_err(|error| {
            let message = format!("cannot read whom this system trusts: {error}");
            Problem::new(None, message)
                .hint("install `ca-certificates`, or name a file: `ca = \"ca.pem\"` in `[acme]`")
        }),
    }
}

/// Where systems keep whom they trust, as one file: Debian, Arch and Alpine; Fedora; SUSE.
const BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// Whom this system trusts, or the file that OpenSSL's variable names, as PEM text.
fn system_authorities() -> io::Result<String> {
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        return pem(Path::new(&file));
    }
    let there = BUNDLES.iter().find(|path| Path::new(path).exists());
    pem(Path::new(there.unwrap_or(&BUNDLES[0])))
}

fn text(path: &Located<PathBuf>) -> Result<String, Problem> {
    of_file(path, pem)
}

/// What a file of PEM holds. What others write beside it, such as names in Latin-1, need not be UTF-8.
fn pem(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

fn of_file<T>(
    path: &Located<PathBuf>,
    read: impl FnOnce(&Path) -> io::Result<T>,
) -> Result<T, Problem> {
    read(&path.value).map_err(|error| {
        let message = format!("cannot read {}: {error}", path.value.display());
        Problem::new(path.span, message)
    })
}
