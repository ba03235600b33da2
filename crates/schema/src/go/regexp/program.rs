//! Expressions that are compiled when they are needed: limited as Go limits them, matched within a budget, kept in a cache that
//! is bounded in bytes and shared by all who use the same text.
//!
//! ```text
//!  text ─► translate (Go's syntax) ─► parse ─► limits ─► Program ─┬─ small, used often, short text: crate regex
//!            refuses what Go refuses            of Go              └─ all else: Machine, step by step
//! ```

use super::machine::{Effort, Machine};
use super::{refuse, translate};
use crate::error::{RegexpError, RegexpProblem};
use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

/// The most instructions of a compiled expression (`maxSize` in Go's `regexp/syntax/parse.go`).
const MAX_SIZE: u64 = (128 << 20) / (5 * 8);
/// The greatest height of an expression's tree (`maxHeight`, ibid.).
const MAX_HEIGHT: usize = 1000;

/// An expression whose automaton of bytes has at most about so many states is matched by the crate `regex`, which is faster.
const FAST_STATES: u64 = 500;
/// As long as states times bytes are no more than this: then the crate's worst case, which cannot be interrupted, takes a few
/// milliseconds.
const FAST_WORK: u64 = 1 << 20;
/// So often an expression is matched by the machine first: making an automaton costs as much as many matches, and an expression
/// that a rule puts together may never come again.
const FAST_AFTER: u32 = 3;
/// The most memory of the crate's automaton and of each of its caches, in bytes.
const FAST_BYTES: usize = 1 << 20;

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Program {
    /// In the syntax of the crate.
    translated: String,
    /// How many states an automaton of bytes has, about.
    states: u64,
    machine: Machine,
    uses: AtomicU32,
    /// `None` inside if the crate refuses it.
    fast: OnceLock<Option<Regex>>,
}

impl Program {
    /// Compiles an expression in Go's syntax.
    ///
    /// # Errors
    /// What `regexp.Compile` would refuse.
    pub(crate) fn new(source: &str) -> Result<Self, RegexpError> {
        let (translated, hir) = parse(source)?;
        let states = states(&hir);
        let machine = Machine::new(&hir, false);
        Ok(Self { translated, states, machine, uses: AtomicU32::new(0), fast: OnceLock::new() })
    }

    /// What compiling it costs, in steps of an [`Effort`].
    pub(crate) fn price(&self) -> u64 {
        (self.translated.len() + self.machine.size() / 16) as u64
    }

    /// The memory that it may take, in bytes.
    fn size(&self) -> usize {
        let fast = if self.states <= FAST_STATES { (32 << 10) + 256 * self.states as usize } else { 0 };
        self.machine.size() + self.translated.len() + fast
    }

    /// Whether some part of `text` matches; `None` if that takes more than what is left of `effort`.
    pub(crate) fn is_match(&self, text: &str, effort: &mut Effort) -> Option<bool> {
        match self.fast(text) {
            Some(regex) => {
                // Mostly it looks at each byte once, at worst at each state for each byte.
                effort.spend(1 + self.states * text.len() as u64 / 8)?;
                Some(regex.is_match(text))
            }
            None => self.machine.is_match(text, effort),
        }
    }

    /// Where the first matches are, at most `most` of them, in bytes; `None` as in [`Program::is_match`].
    pub(crate) fn find(&self, text: &str, most: usize, effort: &mut Effort) -> Option<Vec<(usize, usize)>> {
        if let Some(regex) = self.fast(text) {
            effort.spend(1 + self.states * text.len() as u64 / 8)?;
            return Some(
                regex.find_iter(text).take(most).map(|found| (found.start(), found.end())).collect(),
            );
        }
        // It was parsed before.
        let Ok(hir) = parse_translated(&self.translated) else { return Some(Vec::new()) };
        let machine = Machine::new(&hir, true);
        effort.spend((machine.size() / 16) as u64)?;
        let (mut found, mut from, mut last) = (Vec::new(), 0, None);
        while found.len() < most && from <= text.len() {
            let Some((start, end)) = machine.run(text, from, effort)? else { break };
            // Nothing is no match where the match before has just ended.
            if start != end || last != Some(end) {
                found.push((start, end));
                last = Some(end);
            }
            from = match text[end..].chars().next() {
                Some(c) if start == end => end + c.len_utf8(),
                None if start == end => break,
                _ => end,
            };
        }
        Some(found)
    }

    /// The automaton of the crate, if it is worth while and safe for this text.
    fn fast(&self, text: &str) -> Option<&Regex> {
        if self.states > FAST_STATES || self.states.saturating_mul(text.len() as u64) > FAST_WORK {
            return None;
        }
        if self.uses.load(Ordering::Relaxed) < FAST_AFTER {
            self.uses.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.fast.get_or_init(|| build(&self.translated).ok()).as_ref()
    }
}

/// An automaton of the crate `regex`, in bounded memory.
pub(super) fn build(translated: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(translated).size_limit(FAST_BYTES).dfa_size_limit(FAST_BYTES / 8).octal(true).build()
}

/// Reads an expression in Go's syntax, and refuses what Go refuses: in time and memory linear in its text.
fn parse(source: &str) -> Result<(String, Hir), RegexpError> {
    let translated = translate(source)?;
    let hir = match parse_translated(&translated) {
        Ok(hir) => hir,
        Err(_) => return refuse(RegexpProblem::InvalidSyntax, source),
    };
    if height(&hir, MAX_HEIGHT).is_none() {
        return refuse(RegexpProblem::NestingDepth, source);
    }
    if size(&hir) > MAX_SIZE {
        return refuse(RegexpProblem::Large, source);
    }
    Ok((translated, hir))
}

fn parse_translated(translated: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    // Octal escapes are Go's, and off by default. Groups that Go does not count (`(?:…)`) make no height, so that what is
    // written may be deeper than what is read.
    let mut parser = regex_syntax::ParserBuilder::new().octal(true).nest_limit(2 * MAX_HEIGHT as u32).build();
    parser.parse(translated).map_err(Box::new)
}

/// The height of the tree (`calcHeight`); `None` if it is more than `most`, below which the recursion ends.
fn height(hir: &Hir, most: usize) -> Option<usize> {
    let below = most.checked_sub(1)?;
    hir.kind()
        .subs()
        .iter()
        .try_fold(1, |highest, sub| Some(height(sub, below)?.max(highest - 1) + 1))
        .map(|h| h.max(1))
}

/// How many instructions Go counts (`calcSize`).
fn size(hir: &Hir) -> u64 {
    let all = |parts: &[Hir]| parts.iter().fold(0, |sum: u64, part| sum.saturating_add(size(part)));
    let size = match hir.kind() {
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => String::from_utf8_lossy(&literal.0).chars().count() as u64,
        HirKind::Capture(capture) => size(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) => all(parts),
        HirKind::Alternation(parts) => all(parts).saturating_add(parts.len() as u64 - 1),
        HirKind::Repetition(repetition) => {
            let (sub, min) = (size(&repetition.sub), u64::from(repetition.min));
            match repetition.max {
                None if min == 0 => sub.saturating_add(2),
                None => min.saturating_mul(sub).saturating_add(1),
                Some(max) => {
                    let max = u64::from(max);
                    max.saturating_mul(sub).saturating_add(max.saturating_sub(min))
                }
            }
        }
    };
    size.max(1)
}

/// How many states an automaton has that reads bytes, about: a class beyond ASCII is a small tree of them.
fn states(hir: &Hir) -> u64 {
    let all = |parts: &[Hir]| parts.iter().fold(1, |sum: u64, part| sum.saturating_add(states(part)));
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(Class::Unicode(class)) if !class.is_ascii() => 2 + class.ranges().len() as u64,
        HirKind::Class(_) => 1,
        HirKind::Capture(capture) => states(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => all(parts),
        HirKind::Repetition(repetition) => {
            let times = u64::from(repetition.max.unwrap_or(repetition.min).max(1));
            states(&repetition.sub).saturating_add(1).saturating_mul(times)
        }
    }
}

/// The most memory of all programs that are kept, in bytes.
const CACHE_BYTES: usize = 32 << 20;

/// The programs that were used lately, by their text.
#[derive(Default)]
struct Cache {
    programs: HashMap<Arc<str>, Kept>,
    bytes: usize,
    /// Counts uses, to tell which was used last.
    tick: u64,
}

struct Kept {
    program: Arc<Result<Program, RegexpError>>,
    bytes: usize,
    used: AtomicU64,
}

impl Cache {
    fn find(&mut self, source: &str) -> Option<Arc<Result<Program, RegexpError>>> {
        self.tick += 1;
        let kept = self.programs.get(source)?;
        kept.used.store(self.tick, Ordering::Relaxed);
        Some(Arc::clone(&kept.program))
    }

    fn keep(&mut self, source: &str, program: &Arc<Result<Program, RegexpError>>, most: usize) {
        // The text is counted twice, for it is in an error as well.
        let bytes = 2 * source.len() + 256 + program.as_ref().as_ref().map_or(0, Program::size);
        if bytes > most / 4 {
            return;
        }
        if self.bytes + bytes > most {
            self.make_room(most / 2);
        }
        let kept = Kept { program: Arc::clone(program), bytes, used: AtomicU64::new(self.tick) };
        self.bytes += bytes;
        if let Some(before) = self.programs.insert(source.into(), kept) {
            self.bytes -= before.bytes;
        }
    }

    /// Lets go of those that were used longest ago until no more than `most` bytes are kept. Half of them go at once, so that
    /// each costs little.
    fn make_room(&mut self, most: usize) {
        let mut by_use: Vec<(u64, Arc<str>)> = self
            .programs
            .iter()
            .map(|(text, kept)| (kept.used.load(Ordering::Relaxed), Arc::clone(text)))
            .collect();
        by_use.sort();
        for (_, text) in by_use {
            if self.bytes <= most {
                return;
            }
            if let Some(gone) = self.programs.remove(&text) {
                self.bytes -= gone.bytes;
            }
        }
    }
}

static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);

/// The program of an expression, and whether it was compiled for this.
pub(crate) fn program(source: &str) -> (Arc<Result<Program, RegexpError>>, bool) {
    // The operations keep the cache whole, whatever panics elsewhere.
    let lock = || CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = lock().find(source) {
        return (program, false);
    }
    // Without the lock: two may compile the same at once, but nobody waits for another expression.
    let program = Arc::new(Program::new(source));
    lock().keep(source, &program, CACHE_BYTES);
    (program, true)
}

/// Checks an expression without keeping anything of it.
///
/// # Errors
/// What `regexp.Compile` would refuse.
pub(crate) fn check(source: &str) -> Result<(), RegexpError> {
    parse(source).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn both(pattern: &str, text: &str) -> (bool, Option<bool>) {
        let program = Program::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        let fast = RegexBuilder::new(&program.translated).octal(true).size_limit(64 << 20).build();
        let fast = fast.unwrap_or_else(|e| panic!("{pattern}: {e}"));
        (fast.is_match(text), program.machine.is_match(text, &mut Effort::new(10_000_000)))
    }

    #[test]
    fn the_machine_finds_what_the_automaton_finds() {
        for pattern in [
            "",
            "a",
            "^a$",
            "a|b|",
            "(a|b)*c",
            "^(ab){2,3}$",
            "a{3}",
            "^a{2,}$",
            "^a{0,2}b{1,3}$",
            "^(a?b+)*$",
            "[^a]b",
            r"\bab\b",
            r"\Bb",
            "(?i)AB",
            "(?m)^b$",
            "(?s)a.b",
            "a.b",
            "^(?:a{0,2}){0,2}$",
            "^[ab]{65,70}$",
            "^a{64}$",
            "^(a{2}|b{3,}){2}$",
            "^é{2}$",
            "(a+)+$",
            "a*?b",
            r"^\pL{2,4}$",
            "^(?:a{2,3}b?){2}$",
            "^.{3,5}$",
            "((a+)+)+b",
        ] {
            for text in [
                "",
                "a",
                "b",
                "ab",
                "aab",
                "abab",
                "ababab",
                "aaa",
                "aaaa",
                "b\nb\n",
                "xab",
                " ab ",
                "AB",
                "a\nb",
                "éé",
                "ééé",
                "aabbb",
                "aaabaa",
                "bbbaa",
                &"a".repeat(64),
                &"b".repeat(65),
                &"ab".repeat(35),
                &"a".repeat(71),
            ] {
                let (fast, slow) = both(pattern, text);
                assert_eq!(Some(fast), slow, "{pattern} on {text:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_machine_agrees_on_any_expression(
            pattern in r"(\(\?:|\(|a|b|\[ab\]|\.|é){1,5}[)|?*+]{0,3}(\{[0-3],?[3-5]?\})?[ab)]{0,4}",
            text in "[abé\n]{0,12}",
        ) {
            if let Ok(program) = Program::new(&pattern) {
                let fast = build(&program.translated).expect("it is small");
                let mut effort = Effort::new(1_000_000);
                prop_assert_eq!(Some(fast.is_match(&text)), program.machine.is_match(&text, &mut effort));
                let hir = parse_translated(&program.translated).expect("parsed before");
                let found = Machine::new(&hir, true).run(&text, 0, &mut effort).expect("enough");
                prop_assert_eq!(found, fast.find(&text).map(|m| (m.start(), m.end())));
            }
        }
    }

    #[test]
    fn all_matches_are_those_of_the_automaton() {
        for (pattern, text) in
            [("a*", "baac"), ("", "ab"), ("[0-9]+", "1 22 333"), ("é|b*", "ébbé"), ("a|ab", "ab")]
        {
            let program = Program::new(pattern).expect("sound");
            let slow = program.find(text, usize::MAX, &mut Effort::new(10_000)).expect("enough");
            let fast = build(&program.translated).expect("small");
            let fast: Vec<_> = fast.find_iter(text).map(|m| (m.start(), m.end())).collect();
            assert_eq!(slow, fast, "{pattern}");
        }
    }

    /// The limits are those of Go 1.26: each of these was tried with `regexp.Compile`.
    #[test]
    fn what_go_refuses_is_refused_in_its_words_and_nothing_else() {
        let words = |pattern: &str| match check(pattern) {
            Ok(()) => "ok",
            Err(error) => match error.problem {
                RegexpProblem::Large => "expression too large",
                RegexpProblem::NestingDepth => "expression nests too deeply",
                RegexpProblem::InvalidRepeatSize => "invalid repeat count",
                _ => "another",
            },
        };
        let nested =
            |open: &str, close: &str, depth: usize| format!("{}a{}", open.repeat(depth), close.repeat(depth));
        for (pattern, expected) in [
            ("a{1000}".to_string(), "ok"),
            ("a{1001}".into(), "invalid repeat count"),
            ("(a{30}){33}".into(), "ok"),
            ("(a{31}){33}".into(), "invalid repeat count"),
            ("((a{10}){10}){10}".into(), "ok"),
            ("((a{10}){10}){11}".into(), "invalid repeat count"),
            ("((a{100}|b{11})c*){100}".into(), "invalid repeat count"),
            ("(a{0,1000}){1,1}".into(), "ok"),
            ("(a{0,1000}){0,2}".into(), "invalid repeat count"),
            ("((a{1000}){0}b){1000}".into(), "ok"),
            ("(a{2,}){501}".into(), "invalid repeat count"),
            ("(a{2,}){500}".into(), "ok"),
            (r"\pL{1000}".into(), "ok"),
            (format!("({}){{1000}}", "ab".repeat(1_500)), "ok"),
            (format!("({}){{1000}}", "a*".repeat(1_200)), "expression too large"),
            (nested("(", ")", 900), "ok"),
            (nested("(", ")", 1_001), "expression nests too deeply"),
            (nested("(?:", ")", 1_500), "ok"),
        ] {
            assert_eq!(words(&pattern), expected, "{}", &pattern[..pattern.len().min(40)]);
        }
    }

    #[test]
    fn memory_and_work_are_linear_in_the_expression() {
        // A million copies of a class of hundreds of ranges; each counter is some hundred bytes.
        let large = Program::new(&r"(?:\pL{0,60}){0,16}".repeat(50)).expect("as Go");
        assert!(large.size() < 1 << 20, "{}", large.size());
        let heavy = Program::new(&format!("({}){{1000}}", "ab".repeat(1_500))).expect("as Go");
        assert!(heavy.size() < 64 << 20, "{}", heavy.size());
        // Work is stopped where the effort ends, and is linear in the text before that.
        let spent = |length: usize| {
            let mut effort = Effort::new(u64::MAX);
            assert_eq!(large.is_match(&format!("1{}", "a".repeat(length)), &mut effort), Some(true));
            let program = Program::new(r"(?:\pL{0,60}){0,16}$").expect("as Go");
            let mut effort = Effort::new(u64::MAX);
            program.machine.is_match(&format!("{}1", "a".repeat(length)), &mut effort);
            u64::MAX - effort.left()
        };
        let (short, long) = (spent(1_000), spent(4_000));
        assert!(long < short * 5, "{short} {long}");
        assert_eq!(
            Program::new("(a+)+$").expect("sound").is_match(&"a".repeat(100), &mut Effort::new(50)),
            None
        );
    }

    #[test]
    fn the_cache_is_bounded_in_bytes_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        let most = 1 << 20;
        let used = "^used$";
        for index in 0..2_000 {
            let text = format!("^x{index}$");
            let program = Arc::new(Program::new(&text));
            cache.keep(&text, &program, most);
            if index == 0 {
                cache.keep(used, &Arc::new(Program::new(used)), most);
            }
            assert!(cache.find(used).is_some(), "{index}");
            assert!(cache.bytes <= most);
        }
        assert_eq!(cache.bytes, cache.programs.values().map(|kept| kept.bytes).sum::<usize>());
        // What is too large for the cache does not empty it.
        let large = format!("({}){{1000}}", "ab".repeat(500));
        let before = cache.programs.len();
        cache.keep(&large, &Arc::new(Program::new(&large)), most);
        assert_eq!(cache.programs.len(), before);
    }

    #[test]
    fn one_text_is_compiled_once() {
        let text = "^of this test alone{1,7}$";
        assert!(program(text).1);
        let (again, fresh) = program(text);
        assert!(!fresh && again.is_ok());
    }
}
