//! A configuration that is to come.

use std::{
    io::{self, IsTerminal},
    os::fd::OwnedFd,
    sync::Arc,
};

use config::site::{LogFormat, LogTarget, Site};
use telemetry::access::{Format, Log, Pattern, Redaction};

use super::{Error, kept::Kept};
use crate::{
    control::Order,
    listener::Listening,
    plan::{Given, Plan},
};

/// A configuration of which everything is ready, and nothing is served yet.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) site: Box<Site>,
    pub(super) plan: Plan,
    pub(super) listening: Vec<Listening>,
}

impl Offer {
    /// Makes it ready, or says why it cannot be served. What is the same as in `before`, which is being served, goes on.
    pub(super) fn open(
        kept: &Kept,
        order: Order,
        descriptors: Vec<OwnedFd>,
        before: Option<&Plan>,
    ) -> Result<Result<Self, String>, Error> {
        let Order::Serve {
            site,
            build,
            listeners,
            credentials,
            users,
            closed,
            access_log,
        } = order
        else {
            return Err(Error::Protocol);
        };
        kept.build.get_or_init(|| build.into());
        kept.closures.set(closed);
        let mut descriptors = descriptors.into_iter();
        let listening = listeners
            .iter()
            .map(|what| {
                let socket = descriptors.next().ok_or(Error::Protocol)?;
                Listening::new(socket, what.clone()).map_err(Error::Channel)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let file = match access_log {
            true => Some(descriptors.next().ok_or(Error::Protocol)?),
            false => None,
        };
        let log = match before.and_then(|before| kept.same_log(&site, before)) {
            Some(log) => log,
            None => {
                let log = Arc::new(open_log(&site, file).map_err(Error::Channel)?);
                kept.remember(&site, &log);
                log
            }
        };
        let given = Given {
            listeners: &listeners,
            credentials: &credentials,
            users: &users,
            self_signed: &kept.self_signed,
            limiters: &kept.limiters,
            closures: &kept.closures,
            draining: &kept.draining,
            challenges: &kept.challenges,
            budget: &kept.budget,
            before,
            log,
            figures: &kept.figures,
            dev: &kept.dev,
        };
        let pool = |app: &config::site::App| kept.pool(&app.name);
        Ok(match Plan::new(&site, given, pool) {
            Ok(plan) => Ok(Self {
                site,
                plan,
                listening,
            }),
            Err(error) => Err(error.to_string()),
        })
    }
}

/// The sink of access records: the file that the master opened, or standard output.
fn open_log(site: &Site, file: Option<OwnedFd>) -> io::Result<Log> {
    let settings = &site.server.access_log;
    let stdout = io::stdout();
    let terminal = file.is_none() && stdout.is_terminal();
    let colour = terminal && telemetry::log::colour(&stdout);
    let format = match &settings.format {
        Some(LogFormat::Pretty) => Format::Pretty { colour },
        None if terminal => Format::Pretty { colour },
        Some(LogFormat::Combined) | None => Format::Combined,
        Some(LogFormat::Json) => Format::Json,
        Some(LogFormat::Own(text)) => {
            Format::Own(Arc::new(Pattern::parse(text).map_err(io::Error::other)?))
        }
    };
    let log = match (&settings.to, file) {
        (LogTarget::Off, _) => Log::off(),
        (_, Some(file)) => Log::new(file, format)?,
        (_, None) => Log::new(rustix::io::dup(stdout)?, format)?,
    };
    Ok(log.redacted(Redaction::new(&site.server.redact)))
}
