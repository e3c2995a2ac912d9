//! What is put where, and which commands follow. Plain data: nothing is done here.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use config::site::Site;

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A file is to be as described.
    Put(Put),
    /// A file is not to be there.
    Remove(PathBuf),
    /// A command.
    Run(&'static [&'static str]),
}

/// A file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) content: Cow<'static, [u8]>,
    /// Whether one that is there stays as it is.
    pub(super) keep: bool,
}

/// What units name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units<'a> {
    /// `/usr/local`.
    pub(super) prefix: &'a Path,
    /// The configuration, absolute.
    pub(super) config: &'a Path,
}

const UNITS: [(&str, &str); 5] = [
    (
        "stack.service",
        include_str!("../../../../deploy/stack.service"),
    ),
    (
        "stack-users.service",
        include_str!("../../../../deploy/stack-users.service"),
    ),
    (
        "stack@.service",
        include_str!("../../../../deploy/stack@.service"),
    ),
    (
        "stack-http.socket",
        include_str!("../../../../deploy/stack-http.socket"),
    ),
    (
        "stack-https.socket",
        include_str!("../../../../deploy/stack-https.socket"),
    ),
];

const OTHERS: [(&str, &str); 4] = [
    (
        "/etc/sysusers.d/stack.conf",
        include_str!("../../../../deploy/stack.sysusers"),
    ),
    (
        "/etc/tmpfiles.d/stack.conf",
        include_str!("../../../../deploy/stack.tmpfiles"),
    ),
    (
        "/etc/logrotate.d/stack",
        include_str!("../../../../deploy/stack.logrotate"),
    ),
    (
        "/etc/ufw/applications.d/stack",
        include_str!("../../../../deploy/stack.ufw"),
    ),
];

const EXAMPLE: &str = include_str!("../../../../deploy/site.toml");

/// Where the units of the package find the program and the configuration.
const PACKAGED_PROGRAM: &str = "/usr/bin/stack";
const USUAL_CONFIG: &str = "/etc/stack/site.toml";

const SERVICES: [&str; 2] = ["stack", "stack-users"];

/// What is written for a service besides its unit: where it may write, and that it divides its control group.
const ADDITIONS: [&str; 2] = ["50-writable.conf", "50-groups.conf"];

const GROUPS: &str = "# Written by `stack install`, because the configuration has `memory_max`: each worker gets a control group of its own.\n\
                      [Service]\nDelegate=memory pids\nProtectControlGroups=no\n";

const FILE: u32 = 0o644;
const PROGRAM: u32 = 0o755;

/// Whether the configuration names users.
pub(super) fn has_users(site: &Site) -> bool {
    site.server.account.is_some() || site.apps.iter().any(|app| app.account.is_some())
}

/// Everything that does not depend on what is served.
pub(super) fn install(units: &Units<'_>, binary: Option<Vec<u8>>, here: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(binary) = binary {
        steps.push(put(
            program(units.prefix),
            PROGRAM,
            Cow::Owned(binary),
            false,
        ));
    }
    for (name, text) in UNITS {
        let text = unit(text, units).into_bytes();
        steps.push(put(unit_path(name), FILE, Cow::Owned(text), false));
    }
    for (path, text) in OTHERS {
        steps.push(put(
            path.into(),
            FILE,
            Cow::Borrowed(text.as_bytes()),
            false,
        ));
    }
    let example = Cow::Borrowed(EXAMPLE.as_bytes());
    steps.push(put(units.config.to_owned(), FILE, example, true));
    if here {
        steps.push(Step::Run(&["systemd-sysusers", "stack.conf"]));
        steps.push(Step::Run(&["systemd-tmpfiles", "--create", "stack.conf"]));
    }
    steps
}

/// Whether the configuration limits the memory of workers, for which the service must be given a control group to divide.
pub(super) fn has_limits(site: &Site) -> bool {
    site.apps.iter().any(|app| app.memory_max.is_some())
}

/// What follows from what is served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served<'a> {
    /// Which service it is.
    pub(super) unit: &'static str,
    /// Where its apps may write.
    pub(super) writable: &'a [PathBuf],
    /// Whether it divides its control group.
    pub(super) divides: bool,
}

/// What follows from what is served.
pub(super) fn site(served: Served<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let unit = served.unit;
    for service in SERVICES {
        let is_it = service == unit;
        let [writable, groups] = ADDITIONS.map(|name| addition(service, name));
        steps.push(match served.writable {
            folders if is_it && !folders.is_empty() => {
                let text = additions(folders).into_bytes();
                put(writable, FILE, Cow::Owned(text), false)
            }
            _ => Step::Remove(writable),
        });
        steps.push(if is_it && served.divides {
            put(groups, FILE, Cow::Borrowed(GROUPS.as_bytes()), false)
        } else {
            Step::Remove(groups)
        });
    }
    steps.push(Step::Run(&["systemctl", "daemon-reload"]));
    steps.push(Step::Run(if unit == "stack" {
        &["systemctl", "enable", "--quiet", "stack.service"]
    } else {
        &["systemctl", "enable", "--quiet", "stack-users.service"]
    }));
    steps
}

/// Everything that [`install`] and [`site`] have put.
pub(super) fn uninstall(prefix: &Path, here: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if here {
        steps.push(Step::Run(&[
            "systemctl",
            "disable",
            "--quiet",
            "--now",
            "stack-http.socket",
            "stack-https.socket",
            "stack.service",
            "stack-users.service",
        ]));
    }
    for service in SERVICES {
        steps.extend(ADDITIONS.map(|name| Step::Remove(addition(service, name))));
    }
    steps.extend(UNITS.map(|(name, _)| Step::Remove(unit_path(name))));
    steps.extend(OTHERS.map(|(path, _)| Step::Remove(path.into())));
    steps.push(Step::Remove(program(prefix)));
    if here {
        steps.push(Step::Run(&["systemctl", "daemon-reload"]));
    }
    steps
}

fn put(path: PathBuf, mode: u32, content: Cow<'static, [u8]>, keep: bool) -> Step {
    Step::Put(Put {
        path,
        mode,
        content,
        keep,
    })
}

fn program(prefix: &Path) -> PathBuf {
    prefix.join("bin/stack")
}

fn unit_path(name: &str) -> PathBuf {
    Path::new("/etc/systemd/system").join(name)
}

fn addition(service: &str, name: &str) -> PathBuf {
    unit_path(&format!("{service}.service.d/{name}"))
}

fn unit(text: &str, units: &Units<'_>) -> String {
    let program = program(units.prefix).display().to_string();
    text.replace(PACKAGED_PROGRAM, &program)
        .replace(USUAL_CONFIG, &units.config.display().to_string())
}

fn additions(writable: &[PathBuf]) -> String {
    let mut text = "# Written by `stack install` from the configuration: folders that the apps' users may write to.\n\
                    [Service]\n"
        .to_owned();
    for path in writable {
        // `-`: one that is gone later does not keep the service from starting.
        text.push_str(&format!("ReadWritePaths=\"-{}\"\n", path.display()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units() -> Units<'static> {
        Units {
            prefix: Path::new("/opt/stack"),
            config: Path::new("/srv/site.toml"),
        }
    }

    fn put_paths(steps: &[Step]) -> Vec<&Path> {
        let puts = steps.iter().filter_map(|step| match step {
            Step::Put(put) => Some(put),
            _ => None,
        });
        let ours = puts.filter(|put| !put.keep);
        ours.map(|put| put.path.as_path()).collect()
    }

    #[test]
    fn units_name_what_was_installed() {
        for (name, text) in UNITS {
            let text = unit(text, &units());
            assert!(!text.contains("/usr/bin/stack"), "{name}");
            if name == "stack.service" {
                assert!(
                    text.contains("\nExecStart=/opt/stack/bin/stack up --config /srv/site.toml\n")
                );
            }
        }
    }

    #[test]
    fn all_that_is_put_is_removed_but_the_configuration() {
        let mut steps = install(&units(), Some(b"binary".to_vec()), true);
        steps.extend(site(Served {
            unit: "stack",
            writable: &["/srv/web/media".into()],
            divides: true,
        }));
        let removed = uninstall(Path::new("/opt/stack"), true);
        for path in put_paths(&steps) {
            assert!(
                removed.contains(&Step::Remove(path.to_owned())),
                "{}",
                path.display()
            );
        }
        assert!(!removed.contains(&Step::Remove("/srv/site.toml".into())));
    }

    #[test]
    fn what_apps_write_is_added_to_the_service_that_serves_them() {
        let steps = site(Served {
            unit: "stack-users",
            writable: &["/srv/web/media".into()],
            divides: false,
        });
        assert_eq!(
            steps[0],
            Step::Remove(unit_path("stack.service.d/50-writable.conf"))
        );
        assert_eq!(steps[1], Step::Remove(addition("stack", ADDITIONS[1])));
        let Step::Put(put) = &steps[2] else {
            panic!("not put: {steps:?}")
        };
        assert_eq!(
            put.path,
            unit_path("stack-users.service.d/50-writable.conf")
        );
        let text = String::from_utf8_lossy(&put.content);
        assert!(
            text.ends_with("[Service]\nReadWritePaths=\"-/srv/web/media\"\n"),
            "{text}"
        );
    }

    #[test]
    fn who_limits_memory_gets_a_group_to_divide() {
        let steps = site(Served {
            unit: "stack",
            writable: &[],
            divides: true,
        });
        let Step::Put(put) = &steps[1] else {
            panic!("not put: {steps:?}")
        };
        assert_eq!(put.path, unit_path("stack.service.d/50-groups.conf"));
        let text = String::from_utf8_lossy(&put.content);
        assert!(
            text.contains("\nDelegate=memory pids\nProtectControlGroups=no\n"),
            "{text}"
        );
        assert_eq!(
            steps[3],
            Step::Remove(addition("stack-users", ADDITIONS[1]))
        );
    }
}
