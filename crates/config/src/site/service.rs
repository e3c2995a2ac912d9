//! Whether a site is open, and who wants to know.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Endpoint, Located};

/// `maintenance`: visitors are told to come back later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// Whether that is so now. A command may say so as well.
    pub on: bool,
    /// What they see; a page for 503 without.
    pub page: Option<Located<PathBuf>>,
    /// Who comes in nevertheless.
    pub allow: Vec<IpNet>,
    /// When they shall come back.
    pub retry_after: Duration,
}

/// `metrics`: where operators find figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Where that is.
    pub listen: Vec<Endpoint>,
    /// Whether there is a page for people as well.
    pub page: bool,
    /// To whom it is said; everybody, where nobody is named.
    pub allow: Vec<IpNet>,
}

/// `traces`: where spans are sent, as OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traces {
    /// The name of the collector's upstream.
    pub upstream: String,
    /// The value of `Host`.
    pub host: String,
    /// The path that is posted to.
    pub target: String,
    /// Which share of the traces that begin here is recorded, in millionths.
    pub sample: u32,
    /// What the collector knows us as.
    pub service: String,
    /// Fields that the collector wants, such as a key.
    pub headers: Vec<(String, String)>,
}
