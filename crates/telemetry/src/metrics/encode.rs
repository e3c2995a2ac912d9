//! The text of a [`Snapshot`]: Prometheus' own (0.0.4), or OpenMetrics (1.0) for who asks for it.

use std::fmt::Write as _;

use super::{BOUNDS, FAMILIES, Family, Kind, Observed, Snapshot, Value};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Every reader understands it.
    Prometheus,
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
    OpenMetrics,
}

impl Format {
    /// What the reader asks for.
    #[must_use]
    pub fn accepted(accept: Option<&[u8]>) -> Self {
        let wanted = accept.and_then(|accept| str::from_utf8(accept).ok());
        match wanted {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes the text.
#[must_use]
pub fn encode(snapshot: &Snapshot, format: Format) -> String {
    let mut out = String::new();
    for family in FAMILIES {
        let mut samples = snapshot.samples(family).peekable();
        if samples.peek().is_none() {
            // Nobody can see a counter rise that begins with its first event (`increase`).
            if family.kind == Kind::Counter && family.labels.is_empty() {
                head(family, format, &mut out);
                sample(family, &[], &Value::Count(0), &mut out);
            }
            continue;
        }
        head(family, format, &mut out);
        for (labels, value) in samples {
            sample(family, labels, value, &mut out);
        }
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

/// A String takes everything.
macro_rules! put {
    ($out:expr, $($text:tt)*) => {
        $out.write_fmt(format_args!($($text)*)).expect("a String takes everything")
    };
}

fn head(family: &Family, format: Format, out: &mut String) {
    // Only OpenMetrics gives a counter its name without `_total`.
    let suffix = match (family.kind, format) {
        (Kind::Counter, Format::Prometheus) => "_total",
        _ => "",
    };
    let Family {
        name, kind, help, ..
    } = family;
    put!(out, "# HELP {name}{suffix} {}\n", help.trim());
    put!(out, "# TYPE {name}{suffix} {}\n", kind.name());
}

fn sample(family: &Family, labels: &[String], value: &Value, out: &mut String) {
    let name = family.name;
    let labels = written(family, labels);
    match value {
        Value::Observed(observed) => histogram(name, &labels, observed, out),
        Value::Count(count) if family.kind == Kind::Counter => {
            put!(out, "{name}_total{} {count}\n", braced(&labels, ""));
        }
        Value::Number(number) if family.kind == Kind::Counter => {
            put!(out, "{name}_total{} {number}\n", braced(&labels, ""));
        }
        Value::Count(count) => put!(out, "{name}{} {count}\n", braced(&labels, "")),
        Value::Number(number) => put!(out, "{name}{} {number}\n", braced(&labels, "")),
    }
}

fn histogram(name: &str, labels: &str, observed: &Observed, out: &mut String) {
    let mut so_far = 0;
    for (at, count) in observed.counts.iter().enumerate() {
        so_far += count;
        let bound = BOUNDS
            .get(at)
            .map_or_else(|| "+Inf".to_owned(), |bound| seconds(*bound));
        let le = format!("le=\"{bound}\"");
        put!(out, "{name}_bucket{} {so_far}\n", braced(labels, &le));
    }
    put!(
        out,
        "{name}_sum{} {}\n",
        braced(labels, ""),
        seconds(observed.sum)
    );
    put!(out, "{name}_count{} {so_far}\n", braced(labels, ""));
}

/// Microseconds as seconds, with the point that OpenMetrics wants of every bound.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let short = text.trim_end_matches('0');
    match short.strip_suffix('.') {
        Some(whole) => format!("{whole}.0"),
        None => short.to_owned(),
    }
}

fn written(family: &Family, labels: &[String]) -> String {
    let mut out = String::new();
    for (name, value) in family.labels.iter().zip(labels) {
        let comma = if out.is_empty() { "" } else { "," };
        put!(out, "{comma}{name}=\"");
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                plain => out.push(plain),
            }
        }
        out.push('"');
    }
    out
}

fn braced(labels: &str, more: &str) -> String {
    match (labels, more) {
        ("", "") => String::new(),
        ("", one) | (one, "") => format!("{{{one}}}"),
        (one, two) => format!("{{{one},{two}}}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{CONNECTIONS, CPU, DURATION, Histogram, REQUESTS},
        *,
    };

    fn example() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.count(&REQUESTS, ["a\"b", "/", "200"], 7);
        snapshot.count(&CONNECTIONS, [], 3);
        snapshot.add(&CPU, ["proxy"], Value::Number(1.5));
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(300));
        histogram.observe(Duration::from_secs(60));
        snapshot.add(&DURATION, ["a", "/"], Value::Observed(histogram.observed()));
        snapshot
    }

    #[test]
    fn prometheus_reads_it() {
        let text = encode(&example(), Format::Prometheus);
        for line in [
            "# TYPE stack_requests_total counter",
            "stack_requests_total{site=\"a\\\"b\",route=\"/\",code=\"200\"} 7",
            "# TYPE stack_connections gauge",
            "stack_connections 3",
            "stack_process_cpu_seconds_total{process=\"proxy\"} 1.5",
            "stack_proxy_deaths_total 0",
            "stack_request_duration_seconds_bucket{site=\"a\",route=\"/\",le=\"0.00025\"} 0",
            "stack_request_duration_seconds_bucket{site=\"a\",route=\"/\",le=\"0.0005\"} 1",
            "stack_request_duration_seconds_bucket{site=\"a\",route=\"/\",le=\"30.0\"} 1",
            "stack_request_duration_seconds_bucket{site=\"a\",route=\"/\",le=\"+Inf\"} 2",
            "stack_request_duration_seconds_sum{site=\"a\",route=\"/\"} 60.0003",
            "stack_request_duration_seconds_count{site=\"a\",route=\"/\"} 2",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in:\n{text}"
            );
        }
        assert!(!text.contains("# EOF"));
    }

    #[test]
    fn open_metrics_names_a_counter_without_its_end_and_says_where_it_ends() {
        let text = encode(&example(), Format::OpenMetrics);
        assert!(
            text.contains("# TYPE stack_requests counter\nstack_requests_total{"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(
            Format::accepted(Some(b"application/openmetrics-text;version=1.0.0,*/*")),
            Format::OpenMetrics
        );
        assert_eq!(Format::accepted(Some(b"text/plain")), Format::Prometheus);
        assert_eq!(Format::accepted(None), Format::Prometheus);
    }
}
