//! `stack install` and `stack uninstall`: the binary, the units, the user and the folders, put in place on a machine or below
//! the root of an image. Done again it changes nothing; what an administrator has written is never touched.

mod plan;
mod writable;

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use self::plan::{Put, Step};
use crate::{args, failure::Failure, load, module::EMBEDDED};

/// Where the package puts the unit: who has that has the rest as well.
const PACKAGED: &str = "usr/lib/systemd/system/stack.service";

/// `stack install`.
pub(crate) fn install(asked: &args::Install) -> Result<(), Failure> {
    let site = site(asked)?;
    let place = Place::new(&asked.place)?;
    let users = site
        .as_ref()
        .is_some_and(|loaded| plan::has_users(&loaded.site));
    if !place.is_packaged() {
        let binary = binary(&place)?;
        let units = plan::Units {
            prefix: &asked.place.prefix,
            config: &asked.config,
        };
        place.run(plan::install(&units, binary, place.root_is_here()))?;
    }
    if place.root_is_here() {
        let unit = if users { "stack-users" } else { "stack" };
        let folders = site.as_ref().map(|loaded| writable::folders(&loaded.site));
        place.run(plan::site(plan::Served {
            unit,
            writable: &folders.unwrap_or_default(),
            divides: site
                .as_ref()
                .is_some_and(|loaded| plan::has_limits(&loaded.site)),
        }))?;
        say(&format!(
            "\nSay what is served in {}, then: systemctl start {unit}\n",
            asked.config.display()
        ))?;
    }
    Ok(())
}

/// `stack uninstall`.
pub(crate) fn uninstall(asked: &args::Place) -> Result<(), Failure> {
    let place = Place::new(asked)?;
    if place.is_packaged() {
        return Err(Failure::User(
            "it was installed as a package: remove that, as in `apt remove stack-server`"
                .to_owned(),
        ));
    }
    place.run(plan::uninstall(&asked.prefix, place.root_is_here()))?;
    say(
        "\n/etc/stack, /var/lib/stack and /var/log/stack are left as they are, and so is the user.\n",
    )
}

/// The configuration, if there is one. One that is wrong is an error: what it says decides what is installed.
fn site(asked: &args::Install) -> Result<Option<config::Loaded>, Failure> {
    let here = asked.place.root == Path::new("/");
    if here && asked.config.exists() {
        return load::load(&asked.config).map(Some);
    }
    Ok(None)
}

/// What is to be copied; `None` when it lies there already.
fn binary(place: &Place) -> Result<Option<Vec<u8>>, Failure> {
    if EMBEDDED.is_empty() {
        return Err(Failure::User(
            "this is a build of a checkout, whose Python module lies beside it; `cargo xtask dist` makes one to install"
                .to_owned(),
        ));
    }
    let ours = fs::metadata("/proc/self/exe").context("cannot find this program")?;
    let there = fs::metadata(place.of(&place.prefix.join("bin/stack")));
    if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
        return Ok(None);
    }
    Ok(Some(
        fs::read("/proc/self/exe").context("cannot read this program")?,
    ))
}

/// Where things are put, and whether at all.
#[derive(Debug)]
struct Place {
    root: PathBuf,
    prefix: PathBuf,
    dry_run: bool,
}

impl Place {
    fn new(asked: &args::Place) -> Result<Self, Failure> {
        let root_is_here = asked.root == Path::new("/");
        if root_is_here && !asked.dry_run && !rustix::process::geteuid().is_root() {
            return Err(Failure::User(
                "only root can install; `--dry-run` shows what would be done, `--root` puts it elsewhere".to_owned(),
            ));
        }
        Ok(Self {
            root: asked.root.clone(),
            prefix: asked.prefix.clone(),
            dry_run: asked.dry_run,
        })
    }

    fn root_is_here(&self) -> bool {
        self.root == Path::new("/")
    }

    fn is_packaged(&self) -> bool {
        self.root.join(PACKAGED).exists()
    }

    /// A path of the machine, below the root.
    fn of(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn run(&self, steps: Vec<Step>) -> Result<(), Failure> {
        for step in steps {
            match step {
                Step::Put(put) => self.put(&put)?,
                Step::Remove(path) => self.remove(&path)?,
                Step::Run(words) => self.call(words)?,
            }
        }
        Ok(())
    }

    fn put(&self, put: &Put) -> Result<(), Failure> {
        let path = self.of(&put.path);
        let there = match fs::read(&path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // What is there and cannot be looked at may be somebody's own.
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display()))?,
        };
        let verb = match &there {
            Some(_) if put.keep => return tell("keep", &path),
            Some(there) if *there == *put.content => return tell("unchanged", &path),
            Some(_) => "replace",
            None => "write",
        };
        tell(verb, &path)?;
        if self.dry_run {
            return Ok(());
        }
        let folder = path.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write(&path, put).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), Failure> {
        let path = self.of(path);
        if fs::symlink_metadata(&path).is_err() {
            return Ok(());
        }
        tell("remove", &path)?;
        if self.dry_run {
            return Ok(());
        }
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        // A folder of a unit's additions goes with the last of them.
        if let Some(folder) = path.parent().filter(|folder| folder.extension().is_some()) {
            let _ = fs::remove_dir(folder);
        }
        Ok(())
    }

    fn call(&self, words: &[&str]) -> Result<(), Failure> {
        say(&format!("run        {}\n", words.join(" ")))?;
        if self.dry_run {
            return Ok(());
        }
        let status = Command::new(words[0]).args(&words[1..]).status();
        let status = status.with_context(|| format!("cannot run {}", words[0]))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::User(format!(
            "{} failed ({status})",
            words.join(" ")
        )))
    }
}

fn say(text: &str) -> Result<(), Failure> {
    Ok(anstream::stdout().write_all(text.as_bytes())?)
}

fn tell(verb: &str, path: &Path) -> Result<(), Failure> {
    say(&format!("{verb:<10} {}\n", path.display()))
}

/// Whole or not at all: a program that runs is not written into.
fn write(path: &Path, put: &Put) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    fs::write(&aside, &*put.content)?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(put.mode))?;
    fs::rename(&aside, path)
}
