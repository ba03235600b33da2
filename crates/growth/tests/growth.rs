//! What a request allocates grows no faster than what is sent, whatever is sent.
//!
//! The requests are small here, because nothing is optimised. `cargo xtask growth` makes them as large as they may be, and
//! counts instructions too: searching a list allocates nothing.

use std::process::{Command, Stdio};

/// The size of the larger request, in bytes. The other one is a quarter of it.
const LARGEST: &str = "32768";

/// What four times as much may allocate: n log n, and a little for what comes at once (a vector that doubles).
const MOST: f64 = 4.0 * 1.3;

/// What allocates less in all is not compared: a request has a cost of its own, and vectors grow in steps.
const LITTLE: f64 = 200_000.0;

fn growth(arguments: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_growth");
    let output = Command::new(program).args(arguments).stderr(Stdio::inherit()).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("it prints text");
    assert!(output.status.success(), "{arguments:?} failed: see above. Before that:\n{text}");
    text
}

/// Runs the rows of a table.
fn table(name: &str) {
    let rows = growth(&["list"]);
    let rows: Vec<&str> = rows.lines().filter(|row| row.starts_with(name)).collect();
    assert!(!rows.is_empty());
    let text = growth(&[&["run", LARGEST], rows.as_slice()].concat());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2 * rows.len(), "{text}");
    let mut wrong = Vec::new();
    for (row, pair) in rows.iter().zip(lines.chunks(2)) {
        let allocated = |line: &str| -> f64 {
            line.split(' ').nth(2).and_then(|number| number.parse().ok()).expect("a number")
        };
        let (small, large) = (allocated(pair[0]), allocated(pair[1]));
        if large > LITTLE && large > small * MOST {
            wrong.push(format!("{row}: {small} bytes, four times as large: {large}"));
        }
    }
    assert!(wrong.is_empty(), "these allocate more than in proportion:\n{}", wrong.join("\n"));
}

macro_rules! tables {
    ($($name:ident)*) => { $(#[test] fn $name() { table(concat!(stringify!($name), "/")); })* };
}

tables! { json yaml protobuf objects patches apply definitions access heads }

/// Each table has its test, so that those of a new one are not forgotten.
#[test]
fn all_tables_are_tested() {
    let tested =
        ["json", "yaml", "protobuf", "objects", "patches", "apply", "definitions", "access", "heads"];
    for row in growth(&["list"]).lines() {
        let table = row.split_once('/').map(|(table, _)| table);
        assert!(table.is_some_and(|table| tested.contains(&table)), "{row} is in no table that is tested");
    }
}
