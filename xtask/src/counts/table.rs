//! The table in docs/performance.md: reading, writing, and comparing it with what was counted.

use anyhow::{Context as _, Result, bail};
use std::fmt::{self, Write as _};

/// The table stands between these two lines.
const BEGIN: &str = "<!-- cargo xtask counts --write writes from here -->";
const END: &str = "<!-- to here -->";

const HEAD: &str = "\
| operation | world | instructions | allocations | bytes | may differ |
| --- | --- | ---: | ---: | ---: | ---: |
";

/// What an operation costs: one row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// What is done.
    pub(crate) operation: String,
    /// Where.
    pub(crate) world: String,
    /// The instructions of one repetition.
    pub(crate) instructions: u64,
    /// How often it allocates. What happens now and then only, a table that grows, makes it a fraction.
    pub(crate) allocations: f64,
    /// How many bytes it allocates.
    pub(crate) bytes: u64,
    /// By how many percent each figure may differ.
    pub(crate) tolerance: u32,
}

impl Row {
    fn is_about_the_same_as(&self, other: &Row) -> bool {
        (&self.operation, &self.world) == (&other.operation, &other.world)
    }

    fn parse(line: &str) -> Option<Row> {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let [operation, world, instructions, allocations, bytes, tolerance] =
            line.split(" | ").collect::<Vec<_>>().try_into().ok()?;
        let number = |text: &str| text.replace(',', "");
        Some(Row {
            operation: operation.into(),
            world: world.into(),
            instructions: number(instructions).parse().ok()?,
            allocations: number(allocations).parse().ok()?,
            bytes: number(bytes).parse().ok()?,
            tolerance: tolerance.strip_suffix(" %")?.parse().ok()?,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { operation, world, tolerance, .. } = self;
        let allocations = thousands(&format!("{:.1}", self.allocations));
        let (instructions, bytes) =
            (thousands(&self.instructions.to_string()), thousands(&self.bytes.to_string()));
        write!(f, "| {operation} | {world} | {instructions} | {allocations} | {bytes} | {tolerance} % |")
    }
}

/// A number, with the digits before its point in groups of three.
fn thousands(number: &str) -> String {
    let point = number.find('.').unwrap_or(number.len());
    let mut text = String::new();
    for (index, digit) in number.char_indices() {
        if index > 0 && index < point && (point - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What is written with the table.
#[derive(Debug, PartialEq)]
pub(crate) struct Table {
    /// What compiled it and for what: other compilers make other instructions.
    pub(crate) compiler: String,
    /// The rows, in the order of the program.
    pub(crate) rows: Vec<Row>,
}

impl Table {
    /// Reads the table from the text of docs/performance.md.
    ///
    /// # Errors
    ///
    /// There is none, or a line of it is no row.
    pub(crate) fn parse(document: &str) -> Result<Table> {
        let (_, inside, _) = parts(document)?;
        let mut table = Table { compiler: String::new(), rows: Vec::new() };
        for line in inside.lines().filter(|line| !line.is_empty() && !HEAD.contains(*line)) {
            if let Some(compiler) = line.strip_prefix("Compiled by ").and_then(|line| line.strip_suffix('.'))
            {
                table.compiler = compiler.into();
                continue;
            }
            table.rows.push(Row::parse(line).with_context(|| format!("this is no row of counts: {line}"))?);
        }
        Ok(table)
    }

    /// The table after some of its rows were counted anew. The others stay, and new ones come last.
    pub(crate) fn updated_by(self, counted: Table) -> Table {
        let mut rows = self.rows;
        for row in counted.rows {
            match rows.iter_mut().find(|other| other.is_about_the_same_as(&row)) {
                Some(other) => *other = row,
                None => rows.push(row),
            }
        }
        Table { compiler: counted.compiler, rows }
    }

    /// Takes the lower one of two figures wherever something was counted twice.
    pub(crate) fn lower_to(&mut self, counted: Vec<Row>) {
        for other in counted {
            let same = self.rows.iter_mut().find(|row| row.is_about_the_same_as(&other));
            let Some(row) = same else { continue };
            row.instructions = row.instructions.min(other.instructions);
            row.allocations = row.allocations.min(other.allocations);
            row.bytes = row.bytes.min(other.bytes);
        }
    }

    /// Puts the table into the text of docs/performance.md.
    ///
    /// # Errors
    ///
    /// There is no place for it.
    pub(crate) fn put_into(&self, document: &str) -> Result<String> {
        let (before, _, after) = parts(document)?;
        let mut text = format!("{before}{BEGIN}\n\nCompiled by {}.\n\n{HEAD}", self.compiler);
        for row in &self.rows {
            writeln!(text, "{row}").context("a String can be written to")?;
        }
        Ok(format!("{text}\n{END}{after}"))
    }
}

/// What is before, between and after the markers.
fn parts(document: &str) -> Result<(&str, &str, &str)> {
    let parts = document.split_once(BEGIN).and_then(|(before, rest)| {
        let (inside, after) = rest.split_once(END)?;
        Some((before, inside, after))
    });
    parts.with_context(|| format!("there is no place for the table: the lines {BEGIN} and {END}"))
}

/// What is wrong with the table, or with the program.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    /// What costs more than the table says: a sentence for each.
    pub(crate) above: Vec<String>,
    /// What costs less. No fault, but as long as the table does not say so, all of it may be lost again unnoticed.
    pub(crate) below: Vec<String>,
    /// What is in the table only, or not there yet.
    pub(crate) unknown: Vec<String>,
}

/// Compares what is committed with what was counted.
pub(crate) fn compare(committed: &[Row], counted: &[Row]) -> Comparison {
    let mut comparison = Comparison::default();
    for row in counted {
        let Some(before) = committed.iter().find(|other| other.is_about_the_same_as(row)) else {
            comparison.unknown.push(format!("{} ({}) is not in the table", row.operation, row.world));
            continue;
        };
        for (unit, was, is) in [
            ("instructions", before.instructions as f64, row.instructions as f64),
            ("allocations", before.allocations, row.allocations),
            ("bytes", before.bytes as f64, row.bytes as f64),
        ] {
            if (is - was).abs() * 100.0 <= was * f64::from(row.tolerance) {
                continue;
            }
            let percent = (is - was) / was * 100.0;
            let [is, was] = [is, was].map(|number| thousands(&number.to_string()));
            let sentence = format!(
                "{} ({}): {is} {unit} instead of {was}, {percent:+.1} % (may differ by {} %)",
                row.operation, row.world, row.tolerance
            );
            if percent > 0.0 { comparison.above.push(sentence) } else { comparison.below.push(sentence) }
        }
    }
    for row in committed.iter().filter(|row| !counted.iter().any(|other| other.is_about_the_same_as(row))) {
        comparison.unknown.push(format!("{} ({}) is in the table only", row.operation, row.world));
    }
    comparison
}

impl Comparison {
    /// Says what is to be done.
    ///
    /// # Errors
    ///
    /// Something costs more than the table says, or the table has other rows than the program.
    pub(crate) fn judge(&self, seen: &str) -> Result<()> {
        for sentence in &self.below {
            println!("cheaper: {sentence}");
        }
        if !self.below.is_empty() {
            println!(
                "Bring the table up to date, so that this is not lost again: cargo xtask counts --write"
            );
        }
        let wrong: Vec<_> = self.above.iter().chain(&self.unknown).map(String::as_str).collect();
        if !wrong.is_empty() {
            // In the error, which is the last that is seen.
            bail!(
                "figures are not as docs/performance.md has them. What an operation does now: {seen} If it has to cost \
                 that, say why in the commit, and write the table anew: cargo xtask counts --write\nWRONG: {}",
                wrong.join("\nWRONG: ")
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(operation: &str, instructions: u64, allocations: f64, bytes: u64) -> Row {
        let (operation, world) = (operation.into(), "1,000 objects".into());
        Row { operation, world, instructions, allocations, bytes, tolerance: 5 }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let rows = vec![row("get", 12_345, 67.0, 999), row("page of 500, JSON", 1_234_567, 0.5, 1_000)];
        let table = Table { compiler: "rustc 1.2.3 (abc 2026-01-01), x86_64".into(), rows };
        let empty = format!("before\n{BEGIN}\n{END}\nafter\n");
        let text = table.put_into(&empty).expect("a place");
        assert!(text.contains("| get | 1,000 objects | 12,345 | 67.0 | 999 | 5 % |\n"), "{text}");
        assert!(text.starts_with("before\n") && text.ends_with("\nafter\n"), "{text}");
        assert_eq!(Table::parse(&text).expect("a table"), table);
        assert_eq!(table.put_into(&text).expect("a place"), text, "writing it again changes nothing");
    }

    #[test]
    fn some_rows_can_be_counted_anew() {
        let table = |rows| Table { compiler: "rustc".into(), rows };
        let old = table(vec![row("get", 1, 1.0, 1), row("list", 2, 2.0, 2)]);
        let new = old.updated_by(table(vec![row("list", 3, 3.0, 3), row("watch", 4, 4.0, 4)]));
        assert_eq!(new.rows, [row("get", 1, 1.0, 1), row("list", 3, 3.0, 3), row("watch", 4, 4.0, 4)]);
    }

    #[test]
    fn of_two_counts_the_lower_one_is_kept() {
        let rows = vec![row("get", 10, 1.0, 5), row("list", 2, 2.0, 2)];
        let mut table = Table { compiler: "rustc".into(), rows };
        table.lower_to(vec![row("get", 9, 2.0, 4), row("watch", 1, 1.0, 1)]);
        assert_eq!(table.rows, [row("get", 9, 1.0, 4), row("list", 2, 2.0, 2)]);
    }

    #[test]
    fn a_document_without_a_table_or_with_another_line_in_it_is_refused() {
        Table::parse("no markers").unwrap_err();
        let text = format!("{BEGIN}\n| get | 1,000 objects | many | 67.0 | 999 | 5 % |\n{END}");
        assert!(Table::parse(&text).unwrap_err().to_string().contains("many"));
    }

    #[test]
    fn what_differs_by_more_than_it_may_is_named() {
        let committed = row("get", 1_000, 100.0, 10_000);
        let cases = [
            (row("get", 1_050, 105.0, 10_500), 0, 0),
            (row("get", 1_051, 100.0, 10_000), 1, 0),
            (row("get", 1_000, 106.0, 10_600), 2, 0),
            (row("get", 949, 94.0, 9_400), 0, 3),
            (row("get", 2_000, 10.0, 10_000), 1, 1),
        ];
        for (counted, above, below) in cases {
            let comparison = compare(std::slice::from_ref(&committed), std::slice::from_ref(&counted));
            assert_eq!((comparison.above.len(), comparison.below.len()), (above, below), "{counted:?}");
            let error = comparison.judge("").err().map(|error| error.to_string());
            assert_eq!(error.is_some(), above > 0, "{counted:?}");
            assert!(error.is_none_or(|error| comparison.above.iter().all(|above| error.contains(above))));
        }
    }

    #[test]
    fn rows_that_only_one_side_has_are_wrong() {
        let comparison = compare(&[row("get", 1, 1.0, 1)], &[row("list", 1, 1.0, 1)]);
        assert_eq!(comparison.unknown.len(), 2);
        comparison.judge("").unwrap_err();
        // Where there was nothing, one is more than any percentage.
        let comparison = compare(&[row("get", 1, 0.0, 0)], &[row("get", 1, 1.0, 10)]);
        assert_eq!(comparison.above.len(), 2);
    }
}
