//! What the master and the agent say to each other: one JSON object a line, over a socketpair.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::schedule::{Failures, Kind};

/// Longest line that either side reads, in bytes: the setup of thousands of sites, each with a leaf and a hundred names at most.
pub const LINE_MAX: usize = 16 << 20;

/// From the master to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The first message: care for these.
    Begin(Box<Setup>),
    /// The answer to [`Report::Save`]: it is on the disk, or why it is not.
    Saved {
        /// Whose answer.
        number: u64,
        /// For people; `None` where all went well.
        trouble: Option<String>,
    },
    /// The answer to [`Report::Answers`]: the proxy gives them from now on.
    Answering {
        /// Whose answer.
        number: u64,
    },
    /// Care for this one as well: nobody else does any more.
    Care(Box<Wanted>),
    /// Somebody has mended something: what has failed is tried again at once, unless the authority has said when.
    Now,
    /// Order, at the place for rehearsals, what the sites want, and throw it away: [`Report::Rehearsed`] is the answer.
    Rehearse,
}

/// From the agent to the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Keep this; the agent waits for [`Order::Saved`].
    Save {
        /// Which question this is.
        number: u64,
        /// What.
        what: Keep,
    },
    /// Answer challenges so, and no others; the agent waits for [`Order::Answering`].
    Answers {
        /// Which question this is.
        number: u64,
        /// All of them.
        answers: Vec<Answer>,
    },
    /// How the certificate of a site is.
    Standing {
        /// Which site.
        id: String,
        /// How it is.
        standing: Standing,
    },
    /// It is at work, and would leave something half done: orders count against limits.
    Busy,
    /// It waits.
    Idle,
    /// An order has come to its end.
    Ordered {
        /// Which site.
        id: String,
        /// Whether there is a certificate.
        done: bool,
    },
    /// The rehearsal is over.
    Rehearsed {
        /// What came of it, for each site.
        scenes: Vec<Scene>,
    },
}

/// All that the agent is told of its work.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The authority's directory, an `https` URL.
    pub directory: String,
    /// The directory for rehearsals.
    pub rehearsal: String,
    /// Whom the authority may write to.
    pub email: Option<String>,
    /// Which of its kinds of certificates.
    pub profile: Option<String>,
    /// Who is trusted to say who the authority is: certificates in PEM.
    pub authorities: String,
    /// Which customer of the authority we are: what it calls the key, and the key, in base64.
    pub eab: Option<(String, String)>,
    /// The account that there is: what [`Keep::Account`] was.
    pub account: Option<String>,
    /// How we can be reached, the best way first.
    pub challenges: Vec<Challenge>,
    /// Whether to give up files.
    pub landlock: bool,
    /// Sites that want a certificate.
    pub sites: Vec<Wanted>,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The account's key never reaches a log.
        f.debug_struct("Setup")
            .field("directory", &self.directory)
            .field("sites", &self.sites)
            .finish_non_exhaustive()
    }
}

/// A site that wants a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// What its files are called.
    pub id: String,
    /// The names that are to be in it.
    pub names: Vec<String>,
    /// The certificate that it has, PEM; what is behind the leaf is not needed.
    pub chain: Option<String>,
    /// What has been tried.
    pub progress: Progress,
}

/// What is to be kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// The account, with its key.
    Account(String),
    /// What has been tried for a site.
    Progress {
        /// Which site.
        id: String,
        /// What has been tried.
        progress: Progress,
    },
    /// A certificate, to be used at once.
    Certificate {
        /// Which site.
        id: String,
        /// PEM, leaf first.
        chain: String,
        /// The key, PEM.
        key: String,
    },
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys never reach a log.
        f.write_str(match self {
            Self::Account(_) => "Account",
            Self::Progress { .. } => "Progress",
            Self::Certificate { .. } => "Certificate",
        })
    }
}

/// A way by which an authority sees that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Challenge {
    /// RFC 8555 §8.3: it asks for a file at port 80.
    #[serde(rename = "http-01")]
    Http01,
    /// RFC 8737: it shakes hands at port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        })
    }
}

/// What an authority is to find.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// This text at the token's place.
    Http {
        /// The last segment of the path.
        token: String,
        /// The content.
        text: String,
    },
    /// This certificate in a handshake for `acme-tls/1`.
    Tls {
        /// The name that the handshake is for.
        name: String,
        /// PEM.
        certificate: String,
        /// PEM.
        key: String,
    },
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { token, .. } => f.debug_tuple("Http").field(token).finish(),
            Self::Tls { name, .. } => f.debug_tuple("Tls").field(name).finish(),
        }
    }
}

/// What has been tried for a site since its last success. Kept, so that a master that is started again and again asks no more
/// often than one that is not. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// How often it has failed.
    pub failures: u32,
    /// When it was tried last.
    pub last: u64,
    /// Why that failed; absent where it has not.
    pub kind: Option<Kind>,
    /// The same for people.
    pub error: Option<String>,
    /// Before when the authority does not want to be asked.
    pub not_before: Option<u64>,
    /// How the certificate was got that there is.
    pub challenge: Option<Challenge>,
    /// When.
    pub got: Option<u64>,
}

impl Progress {
    /// What the schedule wants to know.
    #[must_use]
    pub fn failures(&self) -> Option<Failures> {
        Some(Failures {
            count: self.failures,
            kind: self.kind?,
            last: moment(self.last),
            not_before: self.not_before.map(moment),
        })
    }
}

/// How the certificate of a site is, for people. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What comes next: `order` or `renew`.
    pub next: String,
    /// When.
    pub at: u64,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// How often in a row.
    pub failures: u32,
    /// Until when the certificate is valid that there is.
    pub not_after: Option<u64>,
    /// How it was got, where we have got it.
    #[serde(default)]
    pub challenge: Option<Challenge>,
}

/// What a rehearsal came to, for a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// The names.
    pub names: Vec<String>,
    /// How it went well.
    pub challenge: Option<Challenge>,
    /// Why it did not.
    pub error: Option<String>,
}

/// Seconds since 1970.
#[must_use]
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The moment that many seconds after the beginning of 1970.
#[must_use]
pub fn moment(seconds: u64) -> SystemTime {
    // What is too far away for the clock is far enough.
    let far = Duration::from_secs(u64::from(u32::MAX) * 4);
    UNIX_EPOCH + Duration::from_secs(seconds).min(far)
}
