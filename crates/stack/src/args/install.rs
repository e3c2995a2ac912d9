//! `stack install` and `stack uninstall`.

use std::path::PathBuf;

use clap::Args;

/// What is written under them.
pub(crate) const INSTALL_EXAMPLES: &str = "\
Puts this program, the systemd units, the user `stack`, and an example of a configuration in place. Done again it changes
nothing; a configuration that is there is never touched. Where it names users, the service is stack-users. Folders that the
apps' users may write to are left open to them: do it again when there are others.

Examples:
  stack install --dry-run
  sudo stack install
  stack install --root image/ --prefix /usr";

/// See [`INSTALL_EXAMPLES`].
pub(crate) const UNINSTALL_EXAMPLES: &str = "\
Stops the services and removes what `stack install` has put. The configuration, the apps' data, the logs and the user stay.

Example:
  stack uninstall --dry-run
  sudo stack uninstall";

/// `stack install`.
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// The configuration that the service is to serve
    #[arg(long, short, value_name = "FILE", default_value = "/etc/stack/site.toml", value_parser = absolute)]
    pub(crate) config: PathBuf,
    /// Where everything goes.
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Where things are put.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Below this folder, as for an image; no command is run then
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    pub(crate) root: PathBuf,
    /// The program goes to `bin` in this folder
    #[arg(long, value_name = "FOLDER", default_value = "/usr/local", value_parser = absolute)]
    pub(crate) prefix: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// It is written into units, which know no working directory.
fn absolute(text: &str) -> Result<PathBuf, std::io::Error> {
    std::path::absolute(text)
}
