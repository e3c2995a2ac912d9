//! The table: medians with minimum and maximum, and the ratio of ours, which is the first row, to each.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

use super::case::{Bound, Promise};

/// What a figure is; the head of its column.
pub(crate) type Column = &'static str;

/// CPU time of all processes for each request.
pub(crate) const CPU: Column = "CPU µs/request";
/// Throughput.
pub(crate) const RATE: Column = "requests/s";
/// Median latency.
pub(crate) const P50: Column = "p50 ms";
/// 99th percentile.
pub(crate) const P99: Column = "p99 ms";
/// Proportional set size of all processes after the load.
pub(crate) const MEMORY: Column = "PSS MiB";
/// What connections at rest have added to the front's proportional set size.
pub(crate) const RESTING: Column = "MiB at rest";
/// The same for one of them.
pub(crate) const EACH: Column = "KiB each";
/// From start to the first page.
pub(crate) const START: Column = "start ms";

/// One server in one round.
pub(crate) type Row = Vec<(Column, f64)>;

/// One case.
#[derive(Default)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Entry>,
}

/// All rounds of one server.
struct Entry {
    name: &'static str,
    figures: BTreeMap<Column, Vec<f64>>,
}

/// A figure over the rounds.
#[derive(Clone, Copy, Serialize)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
    /// Ours over this one.
    ratio: Option<f64>,
}

impl Table {
    /// Adds a round of a server.
    pub(crate) fn add(&mut self, name: &'static str, row: Row) {
        let place = self.rows.iter().position(|entry| entry.name == name);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Entry {
                name,
                figures: BTreeMap::new(),
            });
            self.rows.len() - 1
        });
        for (column, figure) in row {
            if !self.columns.contains(&column) {
                self.columns.push(column);
            }
            self.rows[place]
                .figures
                .entry(column)
                .or_default()
                .push(figure);
        }
    }

    fn spread(&self, entry: &Entry, column: Column) -> Option<Spread> {
        let mut figures = entry.figures.get(column)?.clone();
        figures.sort_by(f64::total_cmp);
        let median = figures[figures.len() / 2];
        let ours = self.rows.first().filter(|ours| ours.name != entry.name);
        let ratio = ours.and_then(|ours| Some(self.spread(ours, column)?.median / median));
        Some(Spread {
            median,
            least: *figures.first()?,
            most: *figures.last()?,
            ratio,
        })
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![vec![String::new()]];
        lines[0].extend(self.columns.iter().map(|&column| column.to_owned()));
        for entry in &self.rows {
            let cells = self
                .columns
                .iter()
                .map(|&column| self.spread(entry, column).map_or(String::new(), cell));
            lines.push([entry.name.to_owned()].into_iter().chain(cells).collect());
        }
        let mut text = aligned(&lines);
        text.push_str("×: ours / theirs\n");
        text
    }

    /// For a page.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("| | {} |\n|---", self.columns.join(" | "));
        text.push_str(&"|---".repeat(self.columns.len()));
        text.push_str("|\n");
        for entry in &self.rows {
            let cells = self.columns.iter().map(|&column| {
                let spread = self.spread(entry, column);
                spread.map_or(String::new(), cell)
            });
            let cells: Vec<String> = cells.collect();
            text.push_str(&format!("| {} | {} |\n", entry.name, cells.join(" | ")));
        }
        text
    }

    /// What came of a promise; `None` if the peer took no part.
    pub(crate) fn judge(&self, promise: &Promise) -> Option<String> {
        let (figure, of) = match promise.peer {
            Some(peer) => {
                let entry = self.rows.iter().find(|entry| entry.name == peer)?;
                let ratio = self.spread(entry, promise.column)?.ratio?;
                (ratio, format!(" × {peer}"))
            }
            None => {
                let ours = self.spread(self.rows.first()?, promise.column)?;
                (ours.median, String::new())
            }
        };
        let (kept, bound, limit) = match promise.bound {
            Bound::AtMost(limit) => (figure <= limit, "at most", limit),
            Bound::AtLeast(limit) => (figure >= limit, "at least", limit),
        };
        Some(format!(
            "{}: {figure:.2}{of}, promised {bound} {limit:.2}: {}",
            promise.column,
            if kept { "kept" } else { "MISSED" },
        ))
    }

    /// For programs: by server, then by column.
    pub(crate) fn data(&self) -> impl Serialize + use<> {
        let of = |entry: &Entry| -> BTreeMap<Column, Spread> {
            let columns = self.columns.iter();
            columns
                .filter_map(|&column| Some((column, self.spread(entry, column)?)))
                .collect()
        };
        let rows = self.rows.iter().map(|entry| (entry.name, of(entry)));
        rows.collect::<BTreeMap<_, _>>()
    }
}

fn cell(spread: Spread) -> String {
    let Spread {
        median,
        least,
        most,
        ratio,
    } = spread;
    // Three digits say all that a few rounds can.
    let digits = match most {
        0.0 => 0,
        most if most < 1.0 => 3,
        most if most < 10.0 => 2,
        most if most < 1000.0 => 1,
        _ => 0,
    };
    // Nothing over nothing says nothing.
    let ratio = ratio.filter(|ratio| ratio.is_finite());
    let ratio = ratio.map_or(String::new(), |ratio| format!(" ×{ratio:.2}"));
    if least == most {
        return format!("{median:.digits$}{ratio}");
    }
    format!("{median:.digits$} ({least:.digits$}–{most:.digits$}){ratio}")
}

fn aligned(lines: &[Vec<String>]) -> String {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            write!(row, "{cell:<width$}  ").expect("a String takes every write");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::default();
        for (ours, theirs) in [(10.0, 40.0), (12.0, 20.0), (11.0, 22.0)] {
            table.add("stack", vec![(CPU, ours), (RATE, 5000.0)]);
            table.add("other", vec![(CPU, theirs)]);
        }
        table
    }

    #[test]
    fn a_table_has_medians_spreads_and_ratios() {
        assert_eq!(
            table().text(),
            "       CPU µs/request          requests/s\n\
             stack  11.0 (10.0–12.0)        5000\n\
             other  22.0 (20.0–40.0) ×0.50\n\
             ×: ours / theirs\n"
        );
    }

    #[test]
    fn promises_are_judged() {
        let judge = |peer, bound| {
            table().judge(&Promise {
                column: CPU,
                peer,
                bound,
            })
        };
        for (peer, bound, verdict) in [
            (
                Some("other"),
                Bound::AtMost(0.5),
                "0.50 × other, promised at most 0.50: kept",
            ),
            (
                Some("other"),
                Bound::AtMost(0.4),
                "0.50 × other, promised at most 0.40: MISSED",
            ),
            (
                Some("other"),
                Bound::AtLeast(0.6),
                "0.50 × other, promised at least 0.60: MISSED",
            ),
            (
                None,
                Bound::AtMost(11.0),
                "11.00, promised at most 11.00: kept",
            ),
            (
                None,
                Bound::AtMost(10.0),
                "11.00, promised at most 10.00: MISSED",
            ),
        ] {
            let judged = judge(peer, bound).unwrap_or_default();
            assert_eq!(judged, format!("CPU µs/request: {verdict}"));
        }
        assert_eq!(judge(Some("absent"), Bound::AtMost(1.0)), None);
    }
}
