//! What was measured, as Markdown, as JSON, and as plots.

use crate::plot::{self, Plot};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// A cell of a table.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    /// Words.
    Text(String),
    /// A figure.
    Number(f64),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Number(number as f64)
    }
}

/// Something that is to be reached.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Goal {
    /// What.
    pub(crate) what: String,
    /// How much.
    pub(crate) wanted: String,
    /// How much it is.
    pub(crate) seen: String,
    /// Whether that is enough.
    pub(crate) met: bool,
}

impl Goal {
    /// A ratio that should be `at_least` so large. `detail` says of what.
    pub(crate) fn ratio(what: &str, of: &str, at_least: f64, seen: f64, detail: &str) -> Self {
        Self {
            what: what.into(),
            wanted: format!("≥ {at_least} × {of}"),
            seen: format!("{} × ({detail})", round(seen)),
            met: seen >= at_least,
        }
    }

    /// A figure that should be `at_most` so large.
    pub(crate) fn at_most(what: &str, at_most: f64, seen: f64, unit: &str, detail: &str) -> Self {
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        Self {
            what: what.into(),
            wanted: format!("≤ {at_most} {unit}"),
            seen: format!("{} {unit}{detail}", round(seen)),
            met: seen <= at_most,
        }
    }
}

/// What one part of the measuring gave.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Section {
    /// Its title.
    pub(crate) title: String,
    /// What was done, in a few sentences.
    pub(crate) how: String,
    /// The heads of its table.
    pub(crate) columns: Vec<String>,
    /// The rows of its table.
    pub(crate) rows: Vec<Vec<Cell>>,
    /// What it says of what is to be reached.
    pub(crate) goals: Vec<Goal>,
    /// What can be drawn of it.
    pub(crate) plots: Vec<Plot>,
}

impl Section {
    /// One without rows.
    pub(crate) fn new(title: &str, how: &str, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            how: how.into(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            rows: Vec::new(),
            goals: Vec::new(),
            plots: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Title, words and table.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("## {}\n\n{}\n\n", self.title, self.how);
        out.push_str(&table(&self.columns, &self.rows));
        for plot in &self.plots {
            let _ = write!(out, "\n![{}]({}.svg)\n", plot.title, plot.file);
        }
        out
    }
}

/// All of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// When (UTC).
    pub(crate) date: String,
    /// Where.
    pub(crate) machine: String,
    /// Whether it was only seen that everything works.
    pub(crate) quick: bool,
    /// The parts.
    pub(crate) sections: Vec<Section>,
}

impl Report {
    /// The table of what is to be reached, then the sections.
    pub(crate) fn markdown(&self) -> String {
        let goals = self.sections.iter().flat_map(|section| &section.goals);
        let rows: Vec<Vec<Cell>> = goals
            .map(|goal| {
                let met = if goal.met { "yes" } else { "**no**" };
                vec![
                    goal.what.clone().into(),
                    goal.wanted.clone().into(),
                    goal.seen.clone().into(),
                    met.into(),
                ]
            })
            .collect();
        let mut out = format!("{}; {}.\n\n", self.date, self.machine);
        if self.quick {
            out.push_str("A quick run: it shows that everything works, not how fast.\n\n");
        }
        out.push_str(&table(&["what", "wanted", "seen", "reached"].map(String::from), &rows));
        for section in &self.sections {
            out.push('\n');
            out.push_str(&section.markdown());
        }
        out
    }

    /// Writes `results.json`, `results.md` and the plots into a folder.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        file("results.json", serde_json::to_string_pretty(self)?)?;
        file("results.md", self.markdown())?;
        for plot in self.sections.iter().flat_map(|section| &section.plots) {
            plot::draw(plot, &folder.join(format!("{}.svg", plot.file)))?;
        }
        Ok(())
    }
}

fn table(columns: &[String], rows: &[Vec<Cell>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!("| {} |\n|", columns.join(" | "));
    for at in 0..columns.len() {
        let number = rows.iter().any(|row| matches!(row.get(at), Some(Cell::Number(_))));
        out.push_str(if number { " ---: |" } else { " --- |" });
    }
    out.push('\n');
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .map(|cell| match cell {
                Cell::Text(text) => text.clone(),
                Cell::Number(number) => round(*number),
            })
            .collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

/// A figure as it is read: with three digits, thousands apart.
pub(crate) fn round(number: f64) -> String {
    if !number.is_finite() {
        return "–".into();
    }
    let decimals = match number.abs() {
        n if n >= 100.0 || n == 0.0 => 0,
        n if n >= 10.0 => 1,
        n if n >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{number:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(w, r)| (w, Some(r)));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 && digit.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match rest.map(|rest| rest.trim_end_matches('0')).filter(|rest| !rest.is_empty()) {
        Some(rest) => format!("{grouped}.{rest}"),
        None => grouped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (number, want) in [
            (0.0, "0"),
            (0.0123, "0.012"),
            (1.5, "1.5"),
            (12.34, "12.3"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(round(number), want);
        }
    }

    #[test]
    fn a_report_begins_with_what_is_to_be_reached() {
        let mut section = Section::new("Part", "How.", &["server", "per second"]);
        section.row(["fleetpass".into(), 1234.0.into()]);
        section.goals.push(Goal::ratio("get", "theirs", 5.0, 4.0, "1,234/s to 308/s"));
        section.goals.push(Goal::at_most("idle", 30.0, 27.04, "MB", ""));
        let report = Report {
            date: "2026-01-01".into(),
            machine: "one".into(),
            quick: false,
            sections: vec![section],
        };
        let text = report.markdown();
        assert!(text.contains("| get | ≥ 5 × theirs | 4 × (1,234/s to 308/s) | **no** |"), "{text}");
        assert!(text.contains("| idle | ≤ 30 MB | 27 MB | yes |"), "{text}");
        assert!(text.contains("| --- | ---: |\n| fleetpass | 1,234 |"), "{text}");
    }
}
