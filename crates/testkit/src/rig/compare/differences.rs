//! What may differ, and why: a list in which nothing is for nothing.

use anyhow::{Context as _, Result, bail, ensure};
use regex::Regex;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// On whose side lines are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Fleetpass,
    Kubernetes,
    Both,
}

/// Lines that may differ.
#[derive(Debug)]
struct Difference {
    what: String,
    side: Side,
    lines: Regex,
    needed: AtomicBool,
}

/// The list of what may differ.
///
/// It is a file of paragraphs, each with a `what:` (what was run; a `*` at its end stands for any rest), a `side:`
/// (`Fleetpass`, `Kubernetes` or `both`), `lines:` (a regular expression) and a `why:`. Lines beginning with `//` are
/// comments.
#[derive(Debug)]
pub struct Differences {
    all: Vec<Difference>,
}

impl Differences {
    /// Reads the list.
    ///
    /// # Errors
    ///
    /// It cannot be read, or a paragraph is not complete.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with("//"));
        let mut all = Vec::new();
        for paragraph in lines.collect::<Vec<_>>().split(|line| line.trim().is_empty()) {
            if !paragraph.is_empty() {
                all.push(Difference::parse(paragraph)?);
            }
        }
        Ok(Self { all })
    }

    /// Compares what was written on both sides. Nothing, if it is the same but for what may differ; else what is left.
    pub fn compare(&self, what: &str, ours: &str, theirs: &str) -> Option<(String, String)> {
        let may: Vec<&Difference> = self.all.iter().filter(|one| one.is_about(what)).collect();
        let (left, right) = (without(ours, &may, Side::Fleetpass), without(theirs, &may, Side::Kubernetes));
        if left != right {
            return Some((left, right));
        }
        for (at, one) in may.iter().enumerate() {
            let mut others = may.clone();
            others.remove(at);
            if without(ours, &others, Side::Fleetpass) != without(theirs, &others, Side::Kubernetes) {
                one.needed.store(true, Ordering::Relaxed);
            }
        }
        None
    }

    /// How many there are of what begins so.
    pub fn about(&self, begin: &str) -> usize {
        self.all.iter().filter(|one| one.what.starts_with(begin)).count()
    }

    /// Those without which all comparisons would have gone as they did.
    pub fn needless(&self) -> Vec<String> {
        let needless = self.all.iter().filter(|one| !one.needed.load(Ordering::Relaxed));
        needless.map(|one| format!("{} ({:?} {})", one.what, one.side, one.lines)).collect()
    }
}

impl Difference {
    fn parse(paragraph: &[&str]) -> Result<Self> {
        let member = |name: &str| {
            let found = paragraph.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            found.map(str::trim).with_context(|| format!("no {name}: in\n{}", paragraph.join("\n")))
        };
        ensure!(!member("why")?.is_empty(), "no reason in\n{}", paragraph.join("\n"));
        let side = match member("side")? {
            "Fleetpass" => Side::Fleetpass,
            "Kubernetes" => Side::Kubernetes,
            "both" => Side::Both,
            other => bail!("no side: {other}"),
        };
        Ok(Self {
            what: member("what")?.into(),
            side,
            lines: Regex::new(member("lines")?)?,
            needed: AtomicBool::new(false),
        })
    }

    fn is_about(&self, what: &str) -> bool {
        match self.what.strip_suffix('*') {
            Some(begin) => what.starts_with(begin),
            None => what == self.what,
        }
    }
}

/// A text without the lines that may differ on a side.
fn without(text: &str, may: &[&Difference], side: Side) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let on_this = |one: &&&Difference| one.side == side || one.side == Side::Both;
        if !may.iter().filter(on_this).any(|one| one.lines.is_match(line)) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "// a comment\nwhat: list all\nside: Kubernetes\nlines: ^pods\nwhy: no workloads\n\n\
        what: say*\nside: both\nlines: ^ {4}\nwhy: other words\n";

    #[test]
    fn listed_lines_may_differ_and_others_not() -> Result<()> {
        let list = Differences::parse(LIST)?;
        assert_eq!(list.compare("list all", "a\n", "a\npods 1\n"), None);
        assert_eq!(
            list.compare("list all", "pods 1\na\n", "a\n"),
            Some(("pods 1\na\n".into(), "a\n".into()))
        );
        assert_eq!(list.compare("list some", "a\n", "pods\n"), Some(("a\n".into(), "pods\n".into())));
        assert_eq!(list.compare("say it", "a\n    b\n", "a\n    c\n    d\n"), None);
        assert!(list.needless().is_empty());
        Ok(())
    }

    #[test]
    fn who_is_needed_nowhere_is_named() -> Result<()> {
        let list = Differences::parse(LIST)?;
        // It matches, but nothing differs.
        assert_eq!(list.compare("say it", "    b\n", "    b\n"), None);
        assert_eq!(list.compare("list all", "a\n", "a\npods 1\n"), None);
        assert_eq!(list.needless(), ["say* (Both ^ {4})"]);
        Ok(())
    }

    #[test]
    fn every_difference_has_a_reason() {
        for text in ["what: a\nside: both\nlines: b\n", "what: a\nside: both\nlines: b\nwhy:\n"] {
            assert!(Differences::parse(text).is_err(), "{text}");
        }
    }
}
