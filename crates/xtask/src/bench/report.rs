//! The table: medians with minimum and maximum, and the ratio of ours, which is the first row, to each.

use std::{collections::BTreeMap, fmt::Write};

use serde::{Deserialize, Serialize};

use super::case::{Bound, Figure, Growth, Promise};

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
/// The same before any load, once all is started.
pub(crate) const UNASKED: Column = "PSS MiB unasked";
/// What connections at rest have added to the front's proportional set size.
pub(crate) const RESTING: Column = "MiB at rest";
/// The same for one of them.
pub(crate) const EACH: Column = "KiB each";
/// From start to the first page.
pub(crate) const START: Column = "start ms";

/// One server in one round.
pub(crate) type Row = Vec<(Column, f64)>;

/// One case.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Table {
    columns: Vec<String>,
    rows: Vec<Entry>,
}

/// All rounds of one server.
#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    figures: BTreeMap<String, Vec<f64>>,
}

/// What came of a promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// The figure, and what was promised of it.
    pub(crate) text: String,
    /// Whether it is as promised.
    pub(crate) is_kept: bool,
    /// Why it is not, where that is known.
    pub(crate) why: String,
}

impl Judged {
    /// For people.
    pub(crate) fn line(&self) -> String {
        let Self { text, is_kept, why } = self;
        match (is_kept, why.as_str()) {
            (true, _) => format!("{text}: kept"),
            (false, "") => format!("{text}: MISSED"),
            (false, why) => format!("{text}: MISSED: {why}"),
        }
    }
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
    /// Adds a round of a server. What is no number says nothing (and JSON has no word for it).
    pub(crate) fn add(&mut self, name: &str, row: Row) {
        let place = self.rows.iter().position(|entry| entry.name == name);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Entry {
                name: name.to_owned(),
                figures: BTreeMap::new(),
            });
            self.rows.len() - 1
        });
        for (column, figure) in row.into_iter().filter(|(_, figure)| figure.is_finite()) {
            if !self.columns.iter().any(|known| known == column) {
                self.columns.push(column.to_owned());
            }
            self.rows[place]
                .figures
                .entry(column.to_owned())
                .or_default()
                .push(short(figure));
        }
    }

    fn spread(&self, entry: &Entry, column: &str) -> Option<Spread> {
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
        lines[0].extend(self.columns.iter().cloned());
        for entry in &self.rows {
            let cells = self
                .columns
                .iter()
                .map(|column| self.spread(entry, column).map_or(String::new(), cell));
            lines.push([entry.name.clone()].into_iter().chain(cells).collect());
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
            let cells = self.columns.iter().map(|column| {
                let spread = self.spread(entry, column);
                spread.map_or(String::new(), cell)
            });
            let cells: Vec<String> = cells.collect();
            text.push_str(&format!("| {} | {} |\n", entry.name, cells.join(" | ")));
        }
        text
    }

    /// What came of a promise; `None` if one of those that it speaks of took no part.
    pub(crate) fn judge(&self, promise: &Promise) -> Option<Judged> {
        let median = |row: &str| {
            let entry = self.rows.iter().find(|entry| entry.name == row)?;
            Some(self.spread(entry, promise.column)?.median)
        };
        let ours = self.rows.first()?.name.as_str();
        let grown = |Growth { from, to }: Growth| Some(median(to)? / median(from)?);
        let figure = match promise.figure {
            Figure::Ours => median(ours)?,
            Figure::Times(peer) => median(ours)? / median(peer)?,
            Figure::Growth(growth) => grown(growth)?,
            Figure::Steeper(ours, theirs) => grown(ours)? / grown(theirs)?,
        };
        let said = match promise.figure {
            Figure::Ours => format!("{figure:.2}"),
            Figure::Times(peer) => format!("{figure:.3} × {peer}"),
            Figure::Growth(Growth { from, to }) => format!("{figure:.3} × from “{from}” to “{to}”"),
            Figure::Steeper(Growth { to, .. }, theirs) => format!(
                "to “{to}” it grows {figure:.3} × as much as to “{}”",
                theirs.to
            ),
        };
        let (is_kept, bound, limit) = match promise.bound {
            Bound::AtMost(limit) => (figure <= limit, "at most", limit),
            Bound::AtLeast(limit) => (figure >= limit, "at least", limit),
        };
        Some(Judged {
            text: format!("{}: {said}, promised {bound} {limit:.2}", promise.column),
            is_kept,
            why: promise.why.to_owned(),
        })
    }

    /// For programs: by server, then by column.
    pub(crate) fn data(&self) -> impl Serialize + use<> {
        let of = |entry: &Entry| -> BTreeMap<String, Spread> {
            let columns = self.columns.iter();
            columns
                .filter_map(|column| Some((column.clone(), self.spread(entry, column)?)))
                .collect()
        };
        let rows = self
            .rows
            .iter()
            .map(|entry| (entry.name.clone(), of(entry)));
        rows.collect::<BTreeMap<_, _>>()
    }
}

/// Six digits: more than anything here is exact to, and nobody reads them where it is kept.
fn short(figure: f64) -> f64 {
    if figure == 0.0 {
        return 0.0;
    }
    let power = 5 - figure.abs().log10().floor() as i32;
    let (up, down) = (10_f64.powi(power.max(0)), 10_f64.powi((-power).max(0)));
    (figure * up / down).round() / up * down
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
        let judge = |figure, bound| {
            table().judge(&Promise {
                column: CPU,
                figure,
                bound,
                why: "physics",
            })
        };
        const GROWTH: Growth = Growth {
            from: "stack",
            to: "other",
        };
        for (figure, bound, verdict) in [
            (
                Figure::Times("other"),
                Bound::AtMost(0.5),
                "0.500 × other, promised at most 0.50: kept",
            ),
            (
                Figure::Times("other"),
                Bound::AtMost(0.4),
                "0.500 × other, promised at most 0.40: MISSED: physics",
            ),
            (
                Figure::Times("other"),
                Bound::AtLeast(0.6),
                "0.500 × other, promised at least 0.60: MISSED: physics",
            ),
            (
                Figure::Ours,
                Bound::AtMost(11.0),
                "11.00, promised at most 11.00: kept",
            ),
            (
                Figure::Ours,
                Bound::AtMost(10.0),
                "11.00, promised at most 10.00: MISSED: physics",
            ),
            (
                Figure::Growth(GROWTH),
                Bound::AtMost(1.5),
                "2.000 × from “stack” to “other”, promised at most 1.50: MISSED: physics",
            ),
            (
                Figure::Steeper(GROWTH, GROWTH),
                Bound::AtMost(1.0),
                "to “other” it grows 1.000 × as much as to “other”, promised at most 1.00: kept",
            ),
        ] {
            let judged = judge(figure, bound).map(|judged| judged.line());
            assert_eq!(judged, Some(format!("CPU µs/request: {verdict}")));
        }
        assert_eq!(judge(Figure::Times("absent"), Bound::AtMost(1.0)), None);
    }

    #[test]
    fn what_is_kept_is_the_same_when_it_is_read() -> anyhow::Result<()> {
        let mut table = table();
        table.add("none", vec![(CPU, f64::NAN), (P50, 1.0 / 3.0)]);
        let read: Table = serde_json::from_str(&serde_json::to_string(&table)?)?;
        assert_eq!(read.markdown(), table.markdown());
        assert!(read.markdown().contains("| none |  |  | 0.333 |"));
        Ok(())
    }
}
