//! `stack check --acme`: whether certificates by ACME could be got, found out by ordering some where nothing comes of it.
//!
//! The authority comes to the ports that the configuration names. The stack that has them is asked to rehearse; where none
//! runs, another one is started on them, with the same sites and nothing behind them, and nothing is left of it.

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ::acme::message::{Scene, Standing};
use anyhow::Context;
use config::site::{Acme, Endpoint, Site, Tls};
use telemetry::text::Elapsed;

use crate::{
    admin::{AcmeStatus, Client, Rehearsal, Status},
    failure::Failure,
};

/// Plays it, and says what came of it.
pub(super) fn play(config: &Path, site: &Site) -> Result<(), Failure> {
    let wants = site.hosts.iter().any(|host| host.tls.value == Tls::Acme);
    let Some(acme) = site.acme.as_ref().filter(|_| wants) else {
        return Err(Failure::User(
            "no site has `tls = \"acme\"`, so there is nothing to rehearse".to_owned(),
        ));
    };
    let mut out = anstream::stdout();
    writeln!(
        out,
        "certificates are ordered at {}, for nothing",
        acme.rehearsal()
    )?;
    let scenes = match Client::running(config)? {
        Some(client) => {
            let rehearsal: Rehearsal = client.post("/rehearse", &serde_json::json!({}))?;
            rehearsal.scenes
        }
        None => alone(site, acme)?,
    };
    let mut failed = Vec::new();
    for scene in &scenes {
        let names = scene.names.join(", ");
        match (&scene.challenge, &scene.error) {
            (_, Some(error)) => failed.push(format!("{names}: no certificate: {error}")),
            (Some(challenge), None) => {
                writeln!(out, "{names}: a certificate can be got, by {challenge}")?;
            }
            (None, None) => writeln!(out, "{names}: a certificate can be got")?,
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::User(failed.join("\n"))),
    }
}

/// How long the start of a stack without apps may take.
const START: Duration = Duration::from_secs(30);

/// How long an authority may take with all sites.
const PATIENCE: Duration = Duration::from_secs(600);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// A stack for the rehearsal alone; it ends with this.
struct Stage {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // TERM, so that it takes its children along and its run directory away.
        let pid = i32::try_from(self.child.id()).ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn alone(site: &Site, acme: &Acme) -> Result<Vec<Scene>, Failure> {
    let mut stage = Stage::open(site, acme)?;
    let config = stage.folder.path().join("site.toml");
    let begun = Instant::now();
    let mut serves = false;
    loop {
        if let Some(status) = stage
            .child
            .try_wait()
            .context("cannot watch the rehearsal")?
        {
            let said = std::fs::read_to_string(stage.folder.path().join("said"));
            let said = said.unwrap_or_default();
            return Err(Failure::User(format!(
                "the rehearsal ended early ({status}):\n{}",
                said.trim_end()
            )));
        }
        let status = Client::running(&config)?.map(|client| client.get::<Status>("/status"));
        if let Some(status) = status.transpose()? {
            serves |= !status.acme.is_empty();
            let scenes = status.acme.iter().map(scene).collect::<Option<Vec<_>>>();
            if let Some(scenes) = scenes.filter(|scenes| !scenes.is_empty()) {
                return Ok(scenes);
            }
        }
        let patience = if serves { PATIENCE } else { START };
        if begun.elapsed() > patience {
            let patience = Elapsed(patience);
            return Err(Failure::User(format!(
                "the rehearsal has not come to its end within {patience}"
            )));
        }
        thread::sleep(LOOK);
    }
}

/// What came of it; `None` while it plays.
fn scene(acme: &AcmeStatus) -> Option<Scene> {
    let standing: &Standing = acme.standing.as_ref()?;
    if standing.failures == 0 && standing.not_after.is_none() {
        return None;
    }
    Some(Scene {
        names: acme.hosts.clone(),
        challenge: standing.challenge,
        error: standing.error.clone().filter(|_| standing.failures > 0),
    })
}

impl Stage {
    fn open(site: &Site, acme: &Acme) -> Result<Self, Failure> {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let config = folder.path().join("site.toml");
        std::fs::write(&config, script(site, acme))
            .context("cannot write into a folder of ours")?;
        let said = std::fs::File::create(folder.path().join("said"));
        let said = said.context("cannot write into a folder of ours")?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("up").arg("--config").arg(&config);
        for name in [
            "NOTIFY_SOCKET",
            "RUNTIME_DIRECTORY",
            "STATE_DIRECTORY",
            "STACK_LOG",
        ] {
            command.env_remove(name);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .context("cannot start a stack for the rehearsal")?;
        Ok(Self { child, folder })
    }
}

/// The configuration for it: the same listeners and hosts, and nothing behind them.
fn script(site: &Site, acme: &Acme) -> String {
    let mut text = "[server]\naccess_log = \"off\"\n".to_owned();
    let server = &site.server;
    for (key, endpoints) in [("http", &server.http), ("https", &server.https)] {
        let list: Vec<String> = endpoints.iter().map(listener).collect();
        text.push_str(&format!("{key} = [{}]\n", list.join(", ")));
    }
    let account = server.account.as_ref();
    let user = account.map(|account| account.user.value.as_str());
    let group = account.and_then(|account| account.group.as_ref());
    let group = group.map(|group| group.value.as_str());
    let authorities = acme.authorities.as_ref().map(|path| path.to_string_lossy());
    let mut write = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            text.push_str(&format!("{key} = {}\n", quoted(value)));
        }
    };
    write("user", user);
    write("group", group);
    text.push_str("[acme]\nstate = \"state\"\n");
    let mut write = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            text.push_str(&format!("{key} = {}\n", quoted(value)));
        }
    };
    write("directory", Some(acme.rehearsal()));
    write("email", acme.email.as_deref());
    write("profile", acme.profile.as_deref());
    write("ca", authorities.as_deref());
    if let Some(eab) = &acme.eab {
        let (id, key) = (quoted(&eab.key_id), quoted(&eab.mac_key.to_string_lossy()));
        text.push_str(&format!("eab = {{ key_id = {id}, mac_key = {key} }}\n"));
    }
    let wanting = site.hosts.iter().filter(|host| host.tls.value == Tls::Acme);
    for host in wanting {
        let names: Vec<String> = host
            .names
            .iter()
            .map(|name| quoted(&name.to_string()))
            .collect();
        let names = names.join(", ");
        text.push_str(&format!(
            "[[site]]\nhosts = [{names}]\ntls = \"acme\"\nroutes = [{{ path = \"/\", respond = \"\", status = 503 }}]\n"
        ));
    }
    text
}

fn listener(endpoint: &Endpoint) -> String {
    let place = quoted(&endpoint.listen.value.to_string());
    match endpoint.proxy_protocol {
        true => format!("{{ listen = {place}, proxy_protocol = true }}"),
        false => place,
    }
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    // JSON's escapes are TOML's, but for DEL, which neither must escape (RFC 8259 §7, TOML 1.0).
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_a_configuration_of_the_same_hosts() {
        let text = r#"
            [server]
            http = [":8080", { listen = "127.0.0.1:8081", proxy_protocol = true }]
            https = [":8443"]
            [acme]
            email = "you@example.org"
            [[site]]
            hosts = ["a.example.org", "b.example.org"]
            tls = "acme"
            routes = [{ path = "/", respond = "a" }]
            [[site]]
            hosts = ["c.example.org"]
            tls = "self-signed"
            routes = [{ path = "/", respond = "c" }]
        "#;
        let read = |text: String| {
            let loaded = config::parse(Path::new("/srv/site.toml"), text, false);
            loaded.unwrap_or_else(|report| panic!("{report}")).site
        };
        let site = read(text.to_owned());
        let acme = site.acme.clone().expect("there is one");
        let script = read(script(&site, &acme));
        assert_eq!(script.hosts.len(), 1);
        assert_eq!(script.hosts[0].names, site.hosts[0].names);
        let places = |site: &Site| {
            let all = site.server.http.iter().chain(&site.server.https);
            all.map(|one| (one.listen.value.clone(), one.proxy_protocol))
                .collect::<Vec<_>>()
        };
        assert_eq!(places(&script), places(&site));
        let rehearsed = script.acme.expect("there is one");
        assert_eq!(rehearsed.directory, acme.rehearsal());
        assert_ne!(rehearsed.directory, acme.directory, "not the real one");
    }
}
