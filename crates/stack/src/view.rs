//! What `stack status` and `stack top` show: figures for people, made of one status, or of two and the time between them.

use std::time::Duration;

use telemetry::{
    metrics::{self, Family, Observed, Snapshot, Value},
    text::{Elapsed, Size},
};

use crate::admin::{AppStatus, Status};

/// Figures of an interval: since the last look, or since the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    now: &'a Snapshot,
    before: Option<&'a Snapshot>,
    time: Duration,
}

impl<'a> Span<'a> {
    /// Since the start.
    pub(crate) fn whole(status: &'a Status) -> Self {
        Self {
            now: &status.figures,
            before: None,
            time: Duration::from_secs(status.uptime.max(1)),
        }
    }

    /// Since an earlier look.
    pub(crate) fn between(before: &'a Status, now: &'a Status, time: Duration) -> Self {
        Self {
            now: &now.figures,
            before: Some(&before.figures),
            time,
        }
    }

    /// How many have come.
    pub(crate) fn count(&self, family: &Family, which: impl Fn(&[String]) -> bool + Copy) -> u64 {
        let before = self.before.map_or(0, |before| before.total(family, which));
        self.now.total(family, which).saturating_sub(before)
    }

    /// How long it is; never nothing, so that it can be divided by.
    pub(crate) fn seconds(&self) -> f64 {
        self.time.as_secs_f64().max(0.001)
    }

    /// How many come in a second.
    pub(crate) fn rate(&self, family: &Family, which: impl Fn(&[String]) -> bool + Copy) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let count = self.count(family, which) as f64;
        count / self.seconds()
    }

    /// The times that have come.
    pub(crate) fn times(
        &self,
        family: &Family,
        which: impl Fn(&[String]) -> bool + Copy,
    ) -> Observed {
        let now = self.now.observed(family, which);
        match self.before {
            Some(before) => now.since(&before.observed(family, which)),
            None => now,
        }
    }

    /// How many CPUs the processes of a name have kept busy: 1.0 is one.
    pub(crate) fn cpu(&self, process: &str) -> f64 {
        let seconds = |snapshot: &Snapshot| {
            let mut samples = snapshot.samples(&metrics::CPU);
            let found = samples.find(|(labels, _)| labels[0] == process);
            match found {
                Some((_, Value::Number(seconds))) => *seconds,
                _ => 0.0,
            }
        };
        let spent = seconds(self.now) - self.before.map_or(0.0, seconds);
        (spent / self.seconds()).max(0.0)
    }

    /// What fails, the most frequent first.
    pub(crate) fn failures(&self) -> Vec<(String, u64)> {
        let causes = self.now.samples(&metrics::FAILURES);
        let mut failures: Vec<(String, u64)> = causes
            .map(|(labels, _)| {
                let cause = labels[0].clone();
                let count = self.count(&metrics::FAILURES, |labels| labels[0] == cause);
                (cause, count)
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        failures.sort_by(|one, two| two.1.cmp(&one.1).then_with(|| one.0.cmp(&two.0)));
        failures
    }

    /// Every place that requests were counted at, by site and path.
    pub(crate) fn places(&self) -> Vec<(String, String)> {
        let places = self.now.samples(&metrics::DURATION);
        places
            .map(|(labels, _)| (labels[0].clone(), labels[1].clone()))
            .collect()
    }
}

/// A gauge's value now.
pub(crate) fn gauge(status: &Status, family: &Family, which: impl Fn(&[String]) -> bool) -> u64 {
    status.figures.total(family, which)
}

/// Sites with certificates, and when the first of each site's ends, in seconds since 1970.
pub(crate) fn certificates(status: &Status) -> Vec<(String, f64)> {
    let samples = status.figures.samples(&metrics::CERTIFICATE);
    let ends = samples.filter_map(|(labels, value)| {
        #[expect(clippy::cast_precision_loss, reason = "a time for people")]
        let end = match value {
            Value::Count(end) => *end as f64,
            Value::Number(end) => *end,
            Value::Observed(_) => return None,
        };
        Some((labels[0].clone(), end))
    });
    ends.collect()
}

/// An app's slots: busy, and all.
pub(crate) fn slots(status: &Status, app: &str) -> (u64, u64) {
    let of = |state: Option<&str>| {
        gauge(status, &metrics::SLOTS, |labels| {
            labels[0] == app && state.is_none_or(|state| labels[1] == state)
        })
    };
    (of(Some("busy")), of(None))
}

/// `1.2 ms`, or `-` where nothing was measured.
pub(crate) fn share(times: &Observed, share: f64) -> String {
    times
        .quantile(share)
        .map_or_else(|| "-".to_owned(), |time| Elapsed(time).to_string())
}

/// A count with its digits in threes: `12 345`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A rate: `0`, `0.4`, `12`, `3 456`.
pub(crate) fn rate(rate: f64) -> String {
    if rate < 0.05 {
        "0".to_owned()
    } else if rate < 9.95 {
        format!("{rate:.1}")
    } else {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rates are small and not negative"
        )]
        let whole = rate.round() as u64;
        grouped(whole)
    }
}

/// How many times a second something was measured.
pub(crate) fn per_second(times: &Observed, span: &Span<'_>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let count = times.count() as f64;
    count / span.seconds()
}

/// What an app's workers hold.
pub(crate) fn memory(app: &AppStatus) -> Size {
    Size(app.workers.iter().map(|worker| worker.rss).sum())
}

/// An age in seconds; below one it is none, and not `0 µs`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0 => "0 s".to_owned(),
        seconds => Elapsed(Duration::from_secs(seconds)).to_string(),
    }
}

/// Longer than this no authority lets a certificate live, in days: who has made one that lives longer wants none of an end.
const FOR_EVER: f64 = 36_500.0;

/// Days until a moment, and below two days hours; negative ones are past.
pub(crate) fn until(moment: f64, now: f64) -> String {
    let hours = (moment - now) / 3600.0;
    if hours < 0.0 {
        "expired".to_owned()
    } else if hours < 48.0 {
        format!("{hours:.0} h")
    } else if hours / 24.0 > FOR_EVER {
        "without an end".to_owned()
    } else {
        format!("{:.0} days", hours / 24.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use telemetry::metrics::Histogram;

    use super::*;
    use crate::admin::{ListenerStatus, ProxyStatus};

    /// What a master could have said after so many requests.
    pub(crate) fn example(requests: u64) -> Status {
        let text = serde_json::json!({
            "version": "0.1.0-x", "pid": 7, "config": "/srv/site.toml", "phase": "serving", "uptime": 7260,
            "proxy": { "pid": 8, "state": "serving" },
            "listeners": [],
            "apps": [
                { "name": "web", "failed": null, "workers": [
                    { "name": "web·1", "pid": 9, "state": "ready", "age": 7200, "rss": 67_108_864, "requests": requests, "slots": [
                        { "slot": 1, "requests": 3, "request": { "id": "7e5a37dde8abe18c", "method": "GET", "target": "/slow", "since": 1234 } },
                        { "slot": 2, "requests": 1, "request": null },
                    ] },
                    { "name": "web·2", "pid": 10, "state": "starting", "age": 1, "rss": 1_048_576, "requests": 0, "slots": [] },
                ] },
                { "name": "api", "failed": "ImportError: no", "workers": [] },
            ],
            "log": "info", "figures": {}, "certificates": [],
        });
        let mut status: Status = serde_json::from_value(text).expect("a status");
        status.listeners = vec![ListenerStatus {
            name: "127.0.0.1:8080".into(),
            tls: false,
            figures: false,
        }];
        status.proxy = ProxyStatus {
            pid: Some(8),
            state: "serving".into(),
        };
        let figures = &mut status.figures;
        figures.count(&metrics::REQUESTS, ["*", "/", "200"], requests);
        figures.count(&metrics::REQUESTS, ["*", "/", "503"], requests / 10);
        figures.count(&metrics::FAILURES, ["queue-timeout"], requests / 10);
        figures.count(&metrics::FAILURES, ["client-left"], 2);
        figures.count(&metrics::SLOTS, ["web", "busy"], 1);
        figures.count(&metrics::SLOTS, ["web", "idle"], 1);
        figures.count(&metrics::QUEUE, ["web"], 5);
        figures.count(&metrics::CONNECTIONS, [], 12);
        figures.count(&metrics::MEMORY, ["proxy"], 50_000_000);
        figures.add(
            &metrics::CPU,
            ["proxy"],
            Value::Number(if requests > 1000 { 11.0 } else { 10.0 }),
        );
        let histogram = Histogram::default();
        for _ in 0..requests {
            histogram.observe(Duration::from_micros(1500));
        }
        figures.add(
            &metrics::DURATION,
            ["*", "/"],
            Value::Observed(histogram.observed()),
        );
        figures.add(
            &metrics::APP_DURATION,
            ["web"],
            Value::Observed(histogram.observed()),
        );
        figures.count(&metrics::CERTIFICATE, ["example.org"], 1_000_000_000_000);
        status
    }

    #[test]
    fn an_interval_is_the_difference_of_two_looks() {
        let (before, now) = (example(1000), example(3000));
        let span = Span::between(&before, &now, Duration::from_secs(2));
        assert!((span.rate(&metrics::REQUESTS, |_| true) - 1100.0).abs() < 1e-9);
        assert_eq!(span.times(&metrics::DURATION, |_| true).count(), 2000);
        assert!((span.cpu("proxy") - 0.5).abs() < 1e-9);
        assert_eq!(span.failures(), [("queue-timeout".to_owned(), 200)]);
        let whole = Span::whole(&now);
        assert_eq!(whole.failures()[1], ("client-left".to_owned(), 2));
        assert_eq!(slots(&now, "web"), (1, 2));
    }

    #[test]
    fn figures_for_eyes() {
        assert_eq!(
            [0.0, 0.44, 9.0, 12.4, 12345.6].map(rate),
            ["0", "0.4", "9.0", "12", "12 346"]
        );
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1 000", "1 234 567"]
        );
        assert_eq!(until(10.0, 20.0), "expired");
        assert_eq!(until(3600.0 * 30.0, 0.0), "30 h");
        assert_eq!(until(86_400.0 * 60.0, 0.0), "60 days");
        assert_eq!(until(86_400.0 * 36_500.0, 0.0), "36500 days");
        assert_eq!(until(86_400.0 * 36_501.0, 0.0), "without an end");
    }
}
