//! Certificates: whence they come, and who must have one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Located;
use crate::defaults;

/// Where a site's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tls {
    /// The site is plain HTTP. The default where `[server]` has no `https`.
    Off,
    /// Made at start, kept in memory, for localhost and the site's hosts. The default where `[server]` has `https`.
    SelfSigned,
    /// PEM files; of several the client's abilities choose, the first of those that fit.
    Files(Vec<KeyPair>),
    /// Got and renewed by us, from the authority that `[acme]` names (RFC 8555).
    Acme,
}

/// `[acme]`: the authority that certificates come from. Whoever writes the table agrees to its terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acme {
    /// Where its directory is: an `https` URL (RFC 8555 §7.1.1).
    pub directory: String,
    /// Whom it may write to about certificates.
    pub email: Option<String>,
    /// Which of its kinds of certificates is wanted, by the authority's own name for it; `None` for the usual one.
    pub profile: Option<String>,
    /// Who is trusted to say who the authority is, as PEM; `None` for whom the system trusts.
    pub authorities: Option<Located<PathBuf>>,
    /// Which customer of the authority we are, where it wants to know (RFC 8555 §7.3.4).
    pub eab: Option<Eab>,
    /// Where account, keys and certificates are kept; `None` for the place that this system has for such things.
    pub state: Option<Located<PathBuf>>,
}

impl Acme {
    /// Where to rehearse: the authority's own place for that, where one is known, else the authority itself.
    #[must_use]
    pub fn rehearsal(&self) -> &str {
        match self.directory.as_str() {
            defaults::ACME_DIRECTORY => defaults::ACME_STAGING,
            directory => directory,
        }
    }
}

/// `eab`: what binds an account to one that was opened elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eab {
    /// What the authority calls the key.
    pub key_id: String,
    /// A file with the key, as the authority writes it: base64.
    pub mac_key: Located<PathBuf>,
}

/// A certificate in files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// The chain, leaf first.
    pub cert: Located<PathBuf>,
    /// The leaf's private key.
    pub key: Located<PathBuf>,
    /// What its authority says of it, as a response of OCSP in DER (RFC 6960), to be shown with it.
    pub ocsp: Option<Located<PathBuf>>,
}

/// Certificates of clients (mTLS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAuth {
    /// Who signs them: certificates in PEM.
    pub authorities: Located<PathBuf>,
    /// Whether every client must show one.
    pub need: Need,
}

/// Whether every client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Need {
    /// Who has none has no connection.
    Required,
    /// The app decides.
    Optional,
}
