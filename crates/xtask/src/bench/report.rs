//! The table: medians with minimum and maximum, and the ratio of each to the first row, which is ours.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

/// One peer in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// CPU µs per request, by part.
    pub(crate) parts: Vec<(&'static str, f64)>,
    /// Throughput.
    pub(crate) requests_per_second: f64,
    /// Median latency, ms.
    pub(crate) p50: f64,
    /// 99th percentile, ms.
    pub(crate) p99: f64,
    /// From start to the first page, ms.
    pub(crate) start: f64,
    /// PSS at rest by part, KiB.
    pub(crate) memory: BTreeMap<&'static str, u64>,
}

impl Row {
    fn cpu(&self) -> f64 {
        self.parts.iter().map(|(_, cpu)| cpu).sum()
    }
}

/// All rows.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Table {
    rows: Vec<(&'static str, Vec<Row>)>,
}

impl Table {
    /// Adds a round of a peer.
    pub(crate) fn add(&mut self, name: &'static str, row: Row) {
        match self.rows.iter_mut().find(|(known, _)| *known == name) {
            Some((_, rows)) => rows.push(row),
            None => self.rows.push((name, vec![row])),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{:<24} {:>22} {:>6} {:>36} {:>9} {:>15} {:>9} {:>22}\n",
            "",
            "CPU µs/request",
            "ratio",
            "of which",
            "requests/s",
            "p50/p99 ms",
            "start ms",
            "PSS MiB at rest"
        );
        let first = self.rows.first().map_or(&[][..], |(_, rows)| rows);
        let ours = Spread::of(first, Row::cpu).median;
        for (name, rows) in &self.rows {
            let cpu = Spread::of(rows, Row::cpu);
            let rate = Spread::of(rows, |row| row.requests_per_second);
            let (p50, p99) = (
                Spread::of(rows, |row| row.p50),
                Spread::of(rows, |row| row.p99),
            );
            let start = Spread::of(rows, |row| row.start);
            let figures = format!("{:.1} ({:.1}–{:.1})", cpu.median, cpu.least, cpu.most);
            let latency = format!("{:.2}/{:.2}", p50.median, p99.median);
            writeln!(
                text,
                "{name:<24} {figures:>22} {:>6.2} {:>36} {:>9.0} {latency:>15} {:>9.0} {:>22}",
                ours / cpu.median,
                parts(rows, first),
                rate.median,
                start.median,
                memory(rows),
            )
            .expect("a String takes every write");
        }
        text.push_str("ratio: ours / theirs; below 1 we need less\n");
        text
    }
}

/// What each part takes, and ours over theirs where we have the same part.
fn parts(rows: &[Row], ours: &[Row]) -> String {
    let Some(first) = rows.first() else {
        return String::new();
    };
    let median = |rows: &[Row], name: &str| {
        let cpu = |row: &Row| {
            row.parts
                .iter()
                .find(|(part, _)| *part == name)
                .map_or(f64::NAN, |(_, cpu)| *cpu)
        };
        Spread::of(rows, cpu).median
    };
    let shown = first.parts.iter().map(|(name, _)| {
        let theirs = median(rows, name);
        format!("{name} {theirs:.1} ({:.2})", median(ours, name) / theirs)
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn memory(rows: &[Row]) -> String {
    let Some(last) = rows.last() else {
        return String::new();
    };
    let shown = last
        .memory
        .iter()
        .map(|(part, kib)| format!("{part} {:.1}", *kib as f64 / 1024.0));
    shown.collect::<Vec<_>>().join(", ")
}

struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(rows: &[Row], figure: impl Fn(&Row) -> f64) -> Self {
        let mut figures: Vec<f64> = rows.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        Self {
            least: at(0),
            median: at(figures.len() / 2),
            most: at(figures.len().saturating_sub(1)),
        }
    }
}
