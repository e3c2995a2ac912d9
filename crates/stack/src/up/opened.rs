//! Everything that the master opens for its children before any of them is started: sockets, certificates, the log, the
//! interpreters and the module.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::proxy::{
    control::{Certificate, Closed, Order},
    tls::TicketKey,
};
use anyhow::Context;
use appserver::{
    assignment::BUILD_ID,
    worker::{Module, Template},
};
use config::{
    Loaded,
    error::Problem,
    site::{App, HostPattern, Interpreter, Site},
};

use super::{
    allowances::Allowances,
    credentials,
    listen::{self, Given, Listening},
    logs::Logs,
    rundir,
    upgrade::{Estate, Heir},
    users,
};
use crate::{failure::Failure, identity::Identities, module::EMBEDDED};

/// What is open.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The configuration that all of it is for.
    pub(crate) loaded: Loaded,
    /// In the order of the file: `http`, then `https`.
    pub(crate) listening: Vec<Listening>,
    /// What workers are made of, for each app.
    pub(crate) templates: Vec<Template>,
    /// What TLS needs.
    pub(crate) credentials: credentials::Keeper,
    /// Who everybody runs as.
    pub(crate) identities: Identities,
    /// Who may come in by name.
    pub(crate) users: users::Keeper,
    /// The files that are logged to.
    pub(crate) logs: Logs,
    /// What workers load, whatever becomes of its file.
    module: Arc<Module>,
    /// What workers may take.
    allowances: Allowances,
    /// Where workers listen.
    run_directory: PathBuf,
}

/// What every generation of workers has in common.
struct Base<'a> {
    module: Arc<Module>,
    allowances: Allowances,
    run_directory: &'a Path,
}

impl Opened {
    /// Opens it, or says all that cannot be.
    pub(crate) fn open(
        loaded: Loaded,
        identities: Identities,
        given: Given,
        run_directory: &Path,
    ) -> Result<Self, Failure> {
        let module = Arc::new(module()?);
        let listening = listen::open_all(&loaded.site.server, given);
        let base = Base {
            module,
            allowances: Allowances::open(),
            run_directory,
        };
        Self::gather(loaded, identities, listening, base)
    }

    /// Opens it as the heir of another master: what that one listens on is listened on without a moment between.
    pub(crate) fn open_as_heir(
        loaded: Loaded,
        identities: Identities,
        heir: &Heir,
    ) -> Result<Self, Failure> {
        let module = Arc::new(module()?);
        let listening = listen::open_others(&loaded.site.server, &heir.listening);
        let folder = rundir::sockets_in(&heir.estate.run_directory);
        let base = Base {
            module,
            allowances: Allowances::open(),
            run_directory: &folder,
        };
        let mut opened = Self::gather(loaded, identities, listening, base)?;
        let Self {
            loaded,
            credentials,
            ..
        } = &mut opened;
        let Estate {
            certificates,
            tickets,
            ..
        } = heir.estate.clone();
        credentials.take_over(&loaded.site, certificates, tickets);
        Ok(opened)
    }

    /// What another master should not have to make again: certificates that visitors trust, and keys of their sessions.
    pub(crate) fn inheritance(&self) -> (Vec<(Vec<HostPattern>, Certificate)>, Vec<TicketKey>) {
        let made = self.credentials.made(&self.loaded.site);
        (made, self.credentials.credentials().tickets.clone())
    }

    /// Opens what another configuration needs, beside what is open for this one.
    pub(crate) fn open_beside(
        &self,
        loaded: Loaded,
        identities: Identities,
    ) -> Result<Self, Failure> {
        let listening = listen::open_others(&loaded.site.server, &self.listening);
        let base = Base {
            module: Arc::clone(&self.module),
            allowances: self.allowances.clone(),
            run_directory: &self.run_directory,
        };
        let mut next = Self::gather(loaded, identities, listening, base)?;
        let Self {
            loaded,
            credentials,
            ..
        } = &mut next;
        credentials.inherit(&loaded.site, &self.credentials, &self.loaded.site);
        Ok(next)
    }

    fn gather(
        loaded: Loaded,
        identities: Identities,
        listening: Result<Vec<Listening>, Vec<Problem>>,
        mut base: Base<'_>,
    ) -> Result<Self, Failure> {
        let mut problems = Vec::new();
        let site = &loaded.site;
        let listening = keep(listening, &mut problems);
        let credentials = keep(credentials::Keeper::open(site), &mut problems);
        let users = keep(users::Keeper::open(site), &mut problems);
        let logs = keep(
            Logs::open(site).map_err(|problem| vec![problem]),
            &mut problems,
        );
        let templates = keep(templates(site, &identities, &mut base), &mut problems);
        match (listening, credentials, users, logs, templates) {
            (Some(listening), Some(credentials), Some(users), Some(logs), Some(templates)) => {
                for template in &templates {
                    template.allowance.tell(&template.app);
                }
                let with_users = loaded.site.apps.iter();
                base.allowances
                    .keep_for(with_users.map(|app| (app, identities.app(&app.name))));
                Ok(Self {
                    loaded,
                    listening,
                    templates,
                    credentials,
                    identities,
                    users,
                    logs,
                    module: base.module,
                    allowances: base.allowances,
                    run_directory: base.run_directory.to_owned(),
                })
            }
            _ => Err(Failure::Config(loaded.report(problems))),
        }
    }

    /// Keeps self-signed certificates for the next proxy.
    pub(crate) fn keep(&mut self, made: Vec<Certificate>) {
        self.credentials.keep(&self.loaded.site, made);
    }

    /// The first message to a proxy, and the descriptors that go with it.
    pub(crate) fn serve(&self, closed: &[Closed]) -> io::Result<(Order, Vec<OwnedFd>)> {
        let order = Order::Serve {
            site: Box::new(self.loaded.site.clone()),
            build: BUILD_ID.to_owned(),
            listeners: self
                .listening
                .iter()
                .map(|listening| listening.what.clone())
                .collect(),
            credentials: self.credentials.credentials().clone(),
            users: self.users.users().to_vec(),
            closed: closed.to_vec(),
            access_log: self.logs.access().is_some(),
        };
        let sockets = self.listening.iter().map(|listening| &*listening.socket);
        let descriptors = sockets.chain(self.logs.access()).map(OwnedFd::try_clone);
        Ok((order, descriptors.collect::<io::Result<_>>()?))
    }
}

fn keep<T>(result: Result<T, Vec<Problem>>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|found| problems.extend(found)).ok()
}

fn module() -> Result<Module, Failure> {
    if !EMBEDDED.is_empty() {
        return Ok(Module::embedded(EMBEDDED).context("no memory for the Python module")?);
    }
    let executable = std::env::current_exe().context("cannot find out where this program is")?;
    Ok(Module::beside(&executable)?)
}

fn templates(
    site: &Site,
    identities: &Identities,
    base: &mut Base<'_>,
) -> Result<Vec<Template>, Vec<Problem>> {
    let mut templates = Vec::new();
    let mut problems = Vec::new();
    for app in &site.apps {
        match template(site, app, identities, base) {
            Ok(template) => templates.push(template),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(templates)
    } else {
        Err(problems)
    }
}

fn template(
    site: &Site,
    app: &App,
    identities: &Identities,
    base: &mut Base<'_>,
) -> Result<Template, Problem> {
    // Where a link leads is decided here, for all workers of this generation: one that is started anew after the link was
    // turned to the next release must not run that one before it is asked for.
    let mut app = app.clone();
    resolve(&mut app.root.value);
    if let Interpreter::Venv(venv) = &mut app.interpreter.value {
        resolve(venv);
    }
    let interpreter = config::machine::interpreter(&app)?;
    let user = identities.app(&app.name);
    Ok(Template {
        allowance: base.allowances.of(site, &app, user, &interpreter)?,
        interpreter,
        run_directory: base.run_directory.to_owned(),
        module: Arc::clone(&base.module),
        proxy_uid: identities.proxy_uid(),
        user: user.cloned(),
        grace: site.limits.drain_timeout,
        dev: site.dev.is_some(),
        app,
    })
}

/// What cannot be resolved is somebody else's to report.
fn resolve(path: &mut PathBuf) {
    if let Ok(real) = path.canonicalize() {
        *path = real;
    }
}
