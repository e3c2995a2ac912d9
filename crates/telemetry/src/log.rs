//! The log: what happens besides exchanges, on stderr.
//!
//! On a terminal a line is short and coloured; under journald it has a priority and no time, which journald knows
//! better; elsewhere it begins with an RFC 3339 time. A line is never torn between two writes, so that lines of the master,
//! the proxy and the workers, which share stderr, never mix; and nobody waits for its reader (`outlet`). Text of others (a traceback, a name a client sent) cannot act on
//! the terminal, and cannot forge a line: what follows a line break is indented. Or each line is a JSON object, for who
//! collects them. A place in the code that says the same over and over is cut short (`repeats`).
//!
//! Spans are not shown: a line says by itself what it is about.

mod repeats;

use std::{
    env, fmt,
    io::{self, IsTerminal},
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use anstyle::{AnsiColor, Style};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    subscriber::SetGlobalDefaultError,
};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::{FilterExt as _, ParseError},
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
};

use self::repeats::Repeats;
use crate::{
    access::json,
    clock,
    outlet::{self, Outlet, Rank},
    panics,
    text::visible,
};

/// The environment variable that says what is logged: `debug`, or `warn,proxy=debug`.
pub const FILTER_VARIABLE: &str = "STACK_LOG";

/// The environment variable that tells a child of ours that lines are JSON.
pub const FORMAT_VARIABLE: &str = "STACK_LOG_FORMAT";

/// What [`init`] needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who speaks.
    pub process: Process,
    /// What is logged where the environment does not say: `info`, or `warn,proxy=debug`.
    pub filter: String,
    /// How lines look.
    pub format: Format,
}

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people, by where they go.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

impl Format {
    /// What [`FORMAT_VARIABLE`] says of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// As [`FORMAT_VARIABLE`] says it.
    #[must_use]
    pub fn from_env() -> Self {
        match env::var(FORMAT_VARIABLE) {
            Ok(name) if name == Self::Json.name() => Self::Json,
            _ => Self::Text,
        }
    }
}

/// The level where nobody says anything.
pub const DEFAULT_FILTER: &str = "info";

/// Which of our processes speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// `stack up`, and every command that people start.
    Master,
    /// `stack proxy`.
    Proxy,
    /// `stack acme`.
    Acme,
}

impl Process {
    const fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Proxy => "proxy",
            Self::Acme => "acme",
        }
    }
}

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// `STACK_LOG` makes no sense.
    #[error(
        "{FILTER_VARIABLE}={text:?} is not a log filter; write a level like debug, or target=level, separated by commas"
    )]
    Filter {
        /// What it says.
        text: String,
        /// Why not, where the parser was asked.
        #[source]
        source: Option<ParseError>,
    },
    /// `STACK_LOG` is not text.
    #[error("{FILTER_VARIABLE} is not UTF-8")]
    NotUtf8,
    /// It was set up before.
    #[error("the log was set up twice")]
    Twice(#[from] SetGlobalDefaultError),
}

/// Sends everything that `tracing` is told to stderr, from here on. `STACK_LOG` wins over what the settings say.
///
/// # Errors
/// The filter makes no sense, or the log was set up before.
pub fn init(settings: Settings) -> Result<(), InitError> {
    let filter = match env::var(FILTER_VARIABLE) {
        Ok(text) => parse(&text)?,
        Err(env::VarError::NotPresent) => parse(&settings.filter)?,
        Err(env::VarError::NotUnicode(_)) => return Err(InitError::NotUtf8),
    };
    let look = match settings.format {
        Format::Text => Look::of(&io::stderr()),
        Format::Json => Look::Json,
    };
    let lines = Lines {
        process: settings.process,
        look,
    };
    let repeats = Repeats::new();
    repeats.follow(&filter);
    let (filter, handle) = reload::Layer::new(filter);
    let layer = tracing_subscriber::fmt::layer()
        .event_format(lines)
        .with_writer(Out)
        .with_filter(filter.and(repeats.clone()));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
    let _ = FILTER.set(Filter { handle, repeats });
    let _ = LOOK.set(look);
    panics::say_in_log();
    Ok(())
}

/// Hands everything that is said from here on to a thread that writes it: a reader of standard error that stalls costs
/// lines, which are counted and said, and nobody's time. Before that each line is written by who says it, so that a process
/// can confine itself before it has a second thread.
///
/// # Errors
/// The thread cannot be started, or descriptors are short.
pub fn never_wait() -> io::Result<()> {
    let to = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?;
    let settings = outlet::Settings {
        name: "log",
        linger: Duration::ZERO,
        piece: rustix::pipe::PIPE_BUF,
    };
    // Whoever calls it twice has one already.
    let _ = OUTLET.set(Outlet::new(to, settings)?);
    Ok(())
}

/// Writes out what was said before this call; gives up on a reader that does not read for two seconds.
pub fn flush() {
    if let Some(outlet) = OUTLET.get() {
        outlet.flush();
    }
}

/// How many lines were lost so far because the reader of standard error stalled or failed.
#[must_use]
pub fn dropped() -> u64 {
    OUTLET.get().map_or(0, Outlet::lost)
}

/// Writes a line of another process, with its end and as it is to be read. Says whether there was room for it.
pub fn pass_on(line: &[u8]) -> bool {
    put(line, Rank::Usual)
}

/// The same for the last lines of one that has died, which have room of their own: they may say of what.
pub fn pass_on_last(line: &[u8]) {
    put(line, Rank::Last);
}

fn put(line: &[u8], rank: Rank) -> bool {
    use io::Write as _;
    match OUTLET.get() {
        Some(outlet) => outlet.append(line, rank),
        // When nobody can read it, there is nobody to tell so.
        None => io::stderr().lock().write_all(line).is_ok(),
    }
}

/// Where events go: each is one line, or several that belong together, in one piece.
#[derive(Clone, Copy, Debug)]
struct Out;

/// The way of one event.
#[derive(Clone, Copy, Debug)]
struct Line(Rank);

impl MakeWriter<'_> for Out {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Rank::Usual)
    }

    /// An error is what the other lines are read for.
    fn make_writer_for(&self, metadata: &Metadata<'_>) -> Line {
        Line(match *metadata.level() {
            Level::ERROR => Rank::Last,
            _ => Rank::Usual,
        })
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        put(bytes, self.0);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static FILTER: OnceLock<Filter> = OnceLock::new();
static LOOK: OnceLock<Look> = OnceLock::new();
static OUTLET: OnceLock<Outlet> = OnceLock::new();

/// What decides what is said.
#[derive(Debug)]
struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    repeats: Repeats,
}

/// What standard error was before [`redirect`].
static BEFORE: OnceLock<OwnedFd> = OnceLock::new();

/// No target has another letter than ASCII's, and the parser panics where it cuts one in two.
fn parse(text: &str) -> Result<EnvFilter, InitError> {
    let wrong = |source| InitError::Filter {
        text: text.to_owned(),
        source,
    };
    if !text.is_ascii() {
        return Err(wrong(None));
    }
    EnvFilter::try_new(text.trim()).map_err(|source| wrong(Some(source)))
}

/// Whether a text says what is to be logged.
///
/// # Errors
/// When it does not.
pub fn check_filter(text: &str) -> Result<(), InitError> {
    parse(text).map(drop)
}

/// Logs by another filter from here on.
///
/// # Errors
/// When it makes no sense; nothing has changed then.
pub fn set_filter(text: &str) -> Result<(), InitError> {
    let filter = parse(text)?;
    if let Some(Filter { handle, repeats }) = FILTER.get() {
        repeats.follow(&filter);
        // It fails only when the subscriber is gone, and that lives as long as we do.
        let _ = handle.reload(filter);
    }
    Ok(())
}

/// What is logged now.
#[must_use]
pub fn filter() -> String {
    let handle = FILTER.get();
    handle
        .and_then(|filter| filter.handle.with_current(ToString::to_string).ok())
        .unwrap_or_else(|| DEFAULT_FILTER.to_owned())
}

/// How lines look.
#[must_use]
pub fn format() -> Format {
    match LOOK.get() {
        Some(Look::Json) => Format::Json,
        _ => Format::Text,
    }
}

/// Makes standard error this file, for the log and for everything else that is said there.
///
/// # Errors
/// When the system has no descriptor left.
pub fn redirect(file: impl AsFd) -> io::Result<()> {
    if BEFORE.get().is_none() {
        let _ = BEFORE.set(rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?);
    }
    if let Some(outlet) = OUTLET.get() {
        outlet.reopen(rustix::io::fcntl_dupfd_cloexec(&file, 3)?.into());
    }
    Ok(rustix::stdio::dup2_stderr(file)?)
}

/// Says something to the person who started us, wherever the log goes.
pub fn tell(text: &str) {
    put(text.as_bytes(), Rank::Last);
    flush();
    if let Some(before) = BEFORE.get() {
        let _ = rustix::io::write(before, text.as_bytes());
    }
}

/// A line that a worker has printed, as an object of a JSON log; `None` where lines are text.
#[must_use]
pub fn foreign_line(who: &str, line: &[u8]) -> Option<Vec<u8>> {
    (LOOK.get() == Some(&Look::Json)).then(|| foreign_json(who, line))
}

fn foreign_json(who: &str, line: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    json_time(SystemTime::now(), &mut out);
    json::string("process", who.as_bytes(), &mut out);
    json::string("message", line, &mut out);
    out.extend_from_slice(b"}\n");
    out
}

/// Whether to colour what is written to `stream`: a terminal that is not dumb, and no `NO_COLOR`.
#[must_use]
pub fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// How lines look, by where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Terminal {
        colour: bool,
    },
    /// `<4>` in front (sd-daemon(3)), no time.
    Journal,
    Plain,
    Json,
}

impl Look {
    fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        if stream.is_terminal() {
            Self::Terminal {
                colour: colour(stream),
            }
        } else if is_journal(stream, env::var("JOURNAL_STREAM").ok().as_deref()) {
            Self::Journal
        } else {
            Self::Plain
        }
    }
}

/// `JOURNAL_STREAM` is `device:inode` of the stream (systemd.exec(5)); it is inherited by those whose stderr is
/// something else by now, so it must be compared.
fn is_journal(stream: &impl AsFd, journal_stream: Option<&str>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(|text| text.split_once(':')) else {
        return false;
    };
    rustix::fs::fstat(stream)
        .is_ok_and(|stat| device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino))
}

/// Formats one event as one line, or as several that visibly belong together.
struct Lines {
    process: Process,
    look: Look,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let (level, now) = (*metadata.level(), SystemTime::now());
        if self.look == Look::Json {
            return writer.write_str(&self.object(level, metadata.target(), now, event));
        }
        let mut words = Words::default();
        event.record(&mut words);
        writer.write_str(&self.line(level, now, &words))
    }
}

impl Lines {
    fn line(&self, level: Level, now: SystemTime, words: &Words) -> String {
        let text = format!("{}{}", words.message, words.fields);
        let mut lines = text.trim_end().split('\n');
        let mut out = self.head(level, now).into_bytes();
        visible(lines.next().unwrap_or_default().as_bytes(), &mut out);
        out.push(b'\n');
        for line in lines {
            self.continuation(level, line, &mut out);
        }
        String::from_utf8(out).expect("`visible` writes UTF-8")
    }

    fn object(&self, level: Level, target: &str, now: SystemTime, event: &Event<'_>) -> String {
        let mut out = Vec::new();
        json_time(now, &mut out);
        let name = level.as_str().to_lowercase();
        json::string("level", name.as_bytes(), &mut out);
        json::string("process", self.process.name().as_bytes(), &mut out);
        json::string("target", target.as_bytes(), &mut out);
        event.record(&mut Members(&mut out));
        out.extend_from_slice(b"}\n");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    fn head(&self, level: Level, now: SystemTime) -> String {
        let process = self.process.name();
        match self.look {
            Look::Terminal { colour } => clock::at(now, |second, _| {
                let style = |style| if colour { style } else { Style::new() };
                let (dim, bold) = (style(Style::new().dimmed()), style(level_style(level)));
                // A level is padded outside its colour, and only as far as the longest usual one.
                let gap = 5 - level.as_str().len();
                // The master needs no name: it is who the person started.
                let who = match self.process {
                    Process::Master => String::new(),
                    Process::Proxy | Process::Acme => format!("{dim}{process}:{dim:#} "),
                };
                format!(
                    "{dim}{}{dim:#} {bold}{level}{bold:#}{:gap$} {who}",
                    second.clock, ""
                )
            }),
            Look::Journal => format!("<{}>{process}: ", priority(level)),
            Look::Plain | Look::Json => clock::at(now, |second, micros| {
                let millis = micros / 1000;
                format!(
                    "{}.{millis:03}{} {level} {process}: ",
                    second.date_time, second.offset
                )
            }),
        }
    }

    /// Journald makes each line an entry of its own, so each needs the priority.
    fn continuation(&self, level: Level, line: &str, out: &mut Vec<u8>) {
        if self.look == Look::Journal {
            out.extend_from_slice(format!("<{}>", priority(level)).as_bytes());
        }
        out.extend_from_slice(b"    ");
        visible(line.replace('\t', "    ").as_bytes(), out);
        out.push(b'\n');
    }
}

/// The first member of an object.
fn json_time(now: SystemTime, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    clock::at(now, |second, micros| {
        let text = format!("{}.{micros:06}{}\"", second.date_time, second.offset);
        out.extend_from_slice(text.as_bytes());
    });
}

/// The fields of an event, as members of an object.
struct Members<'a>(&'a mut Vec<u8>);

impl Visit for Members<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        json::string(field.name(), value.as_bytes(), self.0);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        self.record_str(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn level_style(level: Level) -> Style {
    match level {
        Level::ERROR => AnsiColor::Red.on_default().bold(),
        Level::WARN => AnsiColor::Yellow.on_default().bold(),
        Level::INFO => AnsiColor::Green.on_default(),
        Level::DEBUG => AnsiColor::Blue.on_default(),
        Level::TRACE => AnsiColor::Magenta.on_default(),
    }
}

/// syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The message of an event, and its other fields as ` name=value`.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record(field, format_args!("{value}"));
        let mut source = value.source();
        while let Some(error) = source {
            self.fields.push_str(&format!(": {error}"));
            source = error.source();
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format_args!("{value:?}"));
    }
}

impl Words {
    fn record(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            self.message = value.to_string();
        } else {
            self.fields.push_str(&format!(" {}={value}", field.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, sync::Arc, sync::Mutex};

    use super::*;

    /// Each write by itself, so that a test sees whether a line was one.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<String>>>);

    impl io::Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap()
                .push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Writes {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn said(process: Process, look: Look, speak: impl FnOnce()) -> Vec<String> {
        let writes = Writes::default();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Lines { process, look })
            .with_writer(writes.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), speak);
        writes.0.lock().unwrap().clone()
    }

    fn line(process: Process, look: Look, level: Level, message: &str) -> String {
        let words = Words {
            message: message.to_owned(),
            fields: String::new(),
        };
        Lines { process, look }.line(level, SystemTime::UNIX_EPOCH, &words)
    }

    #[test]
    fn each_place_has_its_look() {
        let (clock, stamp) = clock::at(SystemTime::UNIX_EPOCH, |second, _| {
            (
                second.clock.clone(),
                format!("{}.000{}", second.date_time, second.offset),
            )
        });
        let grey = Look::Terminal { colour: false };
        let rows = [
            (
                Process::Master,
                grey,
                format!("{clock} WARN  web·1 died: killed by SIGKILL\n"),
            ),
            (
                Process::Proxy,
                grey,
                format!("{clock} WARN  proxy: web·1 died: killed by SIGKILL\n"),
            ),
            (
                Process::Master,
                Look::Terminal { colour: true },
                format!(
                    "\x1b[2m{clock}\x1b[0m \x1b[1m\x1b[33mWARN\x1b[0m  web·1 died: killed by SIGKILL\n"
                ),
            ),
            (
                Process::Proxy,
                Look::Journal,
                "<4>proxy: web·1 died: killed by SIGKILL\n".to_owned(),
            ),
            (
                Process::Master,
                Look::Plain,
                format!("{stamp} WARN master: web·1 died: killed by SIGKILL\n"),
            ),
        ];
        for (process, look, expected) in rows {
            assert_eq!(
                line(process, look, Level::WARN, "web·1 died: killed by SIGKILL"),
                expected
            );
        }
    }

    #[test]
    fn foreign_text_forges_no_line_and_moves_no_cursor() {
        let message = "failed:\n\tFile \"x\"\n<2>kernel: \x1b[2Jpanic\r";
        assert_eq!(
            line(Process::Master, Look::Journal, Level::ERROR, message),
            "<3>master: failed:\n<3>        File \"x\"\n<3>    <2>kernel: \\x1B[2Jpanic\n"
        );
        let grey = line(
            Process::Master,
            Look::Terminal { colour: false },
            Level::ERROR,
            message,
        );
        assert!(
            grey.ends_with("failed:\n        File \"x\"\n    <2>kernel: \\x1B[2Jpanic\n"),
            "{grey:?}"
        );
    }

    #[test]
    fn an_event_is_one_write_with_its_fields() {
        let error = io::Error::from_raw_os_error(not_found());
        let writes = said(Process::Master, Look::Journal, || {
            tracing::info!(
                pid = 7,
                name = "web·1",
                error = &error as &dyn std::error::Error,
                "started\nwell"
            );
            tracing::error!("done");
        });
        assert_eq!(
            writes,
            [
                "<6>master: started\n<6>    well pid=7 name=web·1 error=No such file or directory (os error 2)\n",
                "<3>master: done\n",
            ]
        );
    }

    fn not_found() -> i32 {
        rustix::io::Errno::NOENT.raw_os_error()
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = File::open("/dev/null").unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let own = format!("{}:{}", stat.st_dev, stat.st_ino);
        let other = format!("{}:{}", stat.st_dev, stat.st_ino + 1);
        for (variable, expected) in [
            (Some(&*own), true),
            (Some(&*other), false),
            (None, false),
            (Some("x:y"), false),
            (Some(""), false),
        ] {
            assert_eq!(is_journal(&file, variable), expected, "{variable:?}");
        }
        assert_eq!(Look::of(&file), Look::Plain);
    }

    #[test]
    fn an_event_is_an_object_where_lines_are_json() {
        let writes = said(Process::Proxy, Look::Json, || {
            tracing::warn!(pid = 7, "a \"word\"\n\x1b[2J");
        });
        let value: serde_json::Value = serde_json::from_str(&writes[0]).unwrap();
        assert_eq!(value["message"], "a \"word\"\n\u{1b}[2J");
        assert_eq!(value["pid"], "7");
        assert_eq!(
            (&value["level"], &value["process"]),
            (&"warn".into(), &"proxy".into())
        );
        assert_eq!(value["target"], "telemetry::log::tests");
        assert!(!writes[0].trim_end().chars().any(char::is_control));
        let line = foreign_json("web·1", b"a\tb\xff");
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            (&value["process"], &value["message"]),
            (&"web·1".into(), &"a\tb\\xFF".into())
        );
    }

    #[test]
    fn a_wrong_filter_is_named() {
        // The second one's first letter is a space of three bytes, which made the parser panic.
        for text in ["proxy=loud", "\u{2003}é=debug", "warn,é["] {
            let error = check_filter(text).unwrap_err().to_string();
            let expected = format!("STACK_LOG={text:?} is not a log filter");
            assert!(error.starts_with(&expected), "{error}");
        }
        assert!(check_filter(" warn,proxy=debug ").is_ok());
    }
}
