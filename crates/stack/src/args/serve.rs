//! The options of `stack serve`: gunicorn's, as far as people use them, and what to write in place of the others.

use std::path::PathBuf;

use clap::Args;

/// What the help of `stack serve` ends with.
pub(super) const EXAMPLES: &str = "\
Addresses are `:8000` (all, IPv6 and IPv4), `127.0.0.1:8000`, `[::1]:8000` or
`unix:/run/app.sock`. Times are seconds, or a number and a unit: `250ms`, `2m`.
Relative paths start at the working directory.
With --print-config the same comes out as a file, to go on from.

Examples:
  stack serve app:app
  stack serve app:app -w 4 --threads 8 -b :8000 --log-file -
  stack serve 'app:create_app()' --static /static=public
  stack serve app:app --reload
  stack serve mysite.wsgi --chdir /srv/web -e DJANGO_SETTINGS_MODULE=mysite.settings
  stack serve app:app -b :8443 --certfile fullchain.pem --keyfile privkey.pem
  stack serve app:app -w 4 --print-config > site.toml";

/// `stack serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Serve {
    /// The app: `module:attribute`, or a factory `module:create_app()`; `module` alone means `module:application`.
    #[arg(value_name = "APP")]
    pub(crate) app: String,
    /// How many worker processes, or `auto` for one for each core.
    #[arg(
        short,
        long,
        value_name = "COUNT",
        env = "WEB_CONCURRENCY",
        hide_env_values = true
    )]
    pub(crate) workers: Option<String>,
    /// How many requests each worker runs at once [default: 4]
    #[arg(long, value_name = "COUNT")]
    pub(crate) threads: Option<String>,
    /// Where to listen; can be given several times [default: :$PORT, else 127.0.0.1:8000]
    #[arg(short, long, value_name = "ADDRESS")]
    pub(crate) bind: Vec<String>,
    /// Files that are served without the app: the folder for a path; can be given several times.
    #[arg(long = "static", value_name = "PATH=FOLDER")]
    pub(crate) statics: Vec<String>,
    /// For development: take over changes of code, templates and settings, and show tracebacks in pages.
    #[arg(long, visible_alias = "dev")]
    pub(crate) reload: bool,
    /// With --reload: another file that the app depends on; can be given several times.
    #[arg(long, value_name = "FILE", requires = "reload")]
    pub(crate) reload_extra_file: Vec<PathBuf>,
    /// How long a request may take until its response begins [default: 30s]
    #[arg(short, long, value_name = "TIME")]
    pub(crate) timeout: Option<String>,
    /// How long running requests may take to finish when we stop [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub(crate) graceful_timeout: Option<String>,
    /// How long a connection may wait for its next request [default: 75s]
    #[arg(long, value_name = "TIME")]
    pub(crate) keep_alive: Option<String>,
    /// Replace a worker after so many requests, 10 % more or less [default: never]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_requests: Option<String>,
    /// An environment variable of the app; can be given several times.
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// The app's folder: its working directory, and first on its sys.path.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) chdir: Option<PathBuf>,
    /// The virtual environment whose Python runs the app [default: .venv or venv in its folder, else python3]
    #[arg(long, value_name = "FOLDER", conflicts_with = "python")]
    pub(crate) venv: Option<PathBuf>,
    /// Or a Python itself: a path, or a name in PATH.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) python: Option<PathBuf>,
    /// The certificate chain, in PEM; the addresses then speak TLS.
    #[arg(long, value_name = "FILE", requires = "keyfile")]
    pub(crate) certfile: Option<PathBuf>,
    /// The key of the certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "certfile")]
    pub(crate) keyfile: Option<PathBuf>,
    /// Who signs clients' certificates, in PEM; each client then needs one.
    #[arg(long, value_name = "FILE", requires = "certfile")]
    pub(crate) ca_certs: Option<PathBuf>,
    /// Whether each client needs a certificate: `optional` (1), or `required` (2).
    #[arg(long, value_name = "NEED", requires = "ca_certs")]
    pub(crate) cert_reqs: Option<String>,
    /// Who the proxy and the workers run as; only root can choose.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// The primary group, with --user [default: the user's own]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// Which permissions the files that the app makes lack, in octal.
    #[arg(short = 'm', long, value_name = "MASK")]
    pub(crate) umask: Option<String>,
    /// Folders for Python's path besides the app's own; several with commas.
    #[arg(long, value_name = "FOLDERS")]
    pub(crate) pythonpath: Option<String>,
    /// The access log: a file, `-` for standard output, or `off` [default: -]
    #[arg(long, value_name = "FILE")]
    pub(crate) access_logfile: Option<String>,
    /// Its format: `combined`, `json`, one with `$names` (docs/logs.md), or one of gunicorn's such as `%(h)s %(r)s`.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) access_logformat: Option<String>,
    /// Everything else that is to be said: a file, or `-` for standard error [default: -]
    #[arg(long, alias = "error-logfile", value_name = "FILE")]
    pub(crate) log_file: Option<String>,
    /// How much of it: `debug`, `info`, `warning`, `error` [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// What looks like a client but is a proxy in front of us, and is believed about clients; several with commas.
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) forwarded_allow_ips: Option<String>,
    /// Connections begin with a header of the PROXY protocol, from a load balancer that --proxy-allow-from names.
    #[arg(long)]
    pub(crate) proxy_protocol: bool,
    /// Such proxies; several with commas.
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) proxy_allow_from: Option<String>,
    /// Longest request line, in bytes [default: 8KiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) limit_request_line: Option<String>,
    /// Most fields of a request [default: 100]
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit_request_fields: Option<String>,
    /// Write the process id of the master to this file while it serves.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) pid: Option<PathBuf>,
    /// Print the same as a configuration file, and do not serve.
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Say all that is wrong, and do not serve.
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Gunicorn's options that need not be said here.
    #[command(flatten)]
    pub(crate) silent: Silent,
}

/// What people have in their gunicorn commands and what is so, or of no use, here.
#[derive(Clone, Debug, Args)]
pub(crate) struct Silent {
    #[arg(short = 'k', long, hide = true, value_name = "CLASS")]
    pub(crate) worker_class: Option<String>,
    #[arg(long, hide = true, value_name = "FOLDER")]
    pub(crate) worker_tmp_dir: Option<PathBuf>,
    #[arg(short, long, hide = true, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) backlog: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) capture_output: bool,
    #[arg(short = 'R', long, hide = true)]
    pub(crate) enable_stdio_inheritance: bool,
    #[arg(long, hide = true)]
    pub(crate) no_sendfile: bool,
    #[arg(long, hide = true)]
    pub(crate) preload: bool,
    #[arg(long, hide = true, value_name = "COUNT")]
    pub(crate) max_requests_jitter: Option<String>,
    #[arg(long, hide = true, value_name = "ENGINE")]
    pub(crate) reload_engine: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) reuse_port: bool,
    #[arg(long, hide = true)]
    pub(crate) initgroups: bool,
    #[arg(long, hide = true)]
    pub(crate) do_handshake_on_connect: bool,
    #[arg(long, hide = true)]
    pub(crate) suppress_ragged_eofs: bool,
    #[arg(long, hide = true)]
    pub(crate) disable_redirect_access_to_syslog: bool,
}

/// What to write in place of a gunicorn option that `stack serve` does not take.
pub(crate) fn instead_of(argument: &str) -> Option<&'static str> {
    let name = argument.split('=').next().unwrap_or_default();
    let known = INSTEAD.iter().find(|(names, _)| names.contains(&name));
    known.map(|(_, instead)| *instead)
}

/// The options, and what is said when one is given.
const INSTEAD: [(&[&str], &str); 12] = [
    (
        &["--config", "-c"],
        "`stack import gunicorn.conf.py > site.toml` translates the file, and `stack up` serves it",
    ),
    (
        &["--daemon", "-D"],
        "leave it in the foreground: systemd keeps it (deploy/stack.service), a terminal keeps it with `&` or tmux",
    ),
    (
        &["--worker-connections"],
        "one worker runs `--threads` requests at once; connections cost no worker: `[limits] connections` in a site.toml",
    ),
    (
        &["--limit-request-field_size", "--limit-request-field-size"],
        "the whole head of a request has one limit: `[limits] head` in a site.toml",
    ),
    (
        &["--ssl-version", "--ciphers"],
        "TLS 1.2 and 1.3 are spoken, with modern ciphers",
    ),
    (
        &[
            "--log-config",
            "--log-config-dict",
            "--log-config-json",
            "--logger-class",
        ],
        "the app configures Python's logging by itself; stack's own log has --log-level and --log-file",
    ),
    (
        &[
            "--log-syslog",
            "--log-syslog-to",
            "--log-syslog-prefix",
            "--log-syslog-facility",
        ],
        "under systemd all output is in the journal, which forwards it to syslog",
    ),
    (
        &[
            "--statsd-host",
            "--statsd-prefix",
            "--dogstatsd-tags",
            "--enable-backlog-metric",
        ],
        "figures are told to Prometheus (docs/metrics.md), whose statsd bridge or agent passes them on",
    ),
    (
        &["--paste", "--paster", "--paste-global"],
        "name the app of the PasteDeploy file: a module with `app = loadapp('config:…')`, and `stack serve module:app`",
    ),
    (
        &[
            "--strip-header-spaces",
            "--permit-obsolete-folding",
            "--permit-unconventional-http-method",
            "--permit-unconventional-http-version",
            "--casefold-http-method",
        ],
        "leave it out: what is ambiguous in a request is refused here, always (docs/security.md)",
    ),
    (
        &["--forwarder-headers", "--header-map"],
        "leave it out: fields with `_` in their names never reach the app, and forwarding fields are written by stack",
    ),
    (
        &["--spew"],
        "`stack trace` shows where every busy request is, without stopping any",
    ),
];
