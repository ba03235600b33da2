//! A machine that matches expressions in time linear in the size of the expression times the length of the text, and in memory
//! linear in the expression: the one that Go's `regexp` is (`exec.go`), after Thompson and Pike. It reads characters, not bytes,
//! so that a class of thousands of characters is one instruction and one table, however often it is repeated.
//!
//! The crate `regex` is faster. It makes automata of bytes, in which `\pL{1000}` has a million states: what is large for it is
//! matched here.

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};
use std::collections::HashMap;

/// An instruction. The places are indices of instructions.
#[derive(Debug, Clone, Copy)]
enum Inst {
    /// One character of the class, then on to the next instruction.
    Class(u32),
    /// Characters of a class, as often as [`Counter`] says, then on to the next instruction.
    Count(u32),
    /// One of two, the first is preferred.
    Split(u32, u32),
    Jump(u32),
    Look(Look),
    Match,
}

/// `x{min,max}` of a single character or class: one instruction that keeps all numbers of characters at once, a bit for each.
#[derive(Debug, Clone, Copy)]
struct Counter {
    class: u32,
    min: u32,
    /// `None`: without end; what is more than `min` is then counted as `min`.
    max: Option<u32>,
    /// Where its bits begin among those of all counters, and how many words they are.
    offset: u32,
    words: u32,
}

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Machine {
    insts: Vec<Inst>,
    /// Sorted ranges of characters.
    classes: Vec<Box<[(char, char)]>>,
    counters: Vec<Counter>,
    /// How many words the bits of all counters take.
    words: usize,
    /// Whether it can say where a match is.
    positions: bool,
}

/// How much work a match may still be: instructions and characters that are looked at. It is shared by all matches of one
/// request.
#[derive(Debug)]
pub struct Effort {
    left: u64,
}

impl Effort {
    /// So much work.
    pub fn new(steps: u64) -> Self {
        Self { left: steps }
    }

    /// Takes some of it; `None` if there is not so much.
    pub(crate) fn spend(&mut self, steps: u64) -> Option<()> {
        match self.left.checked_sub(steps) {
            Some(left) => self.left = left,
            None => {
                self.left = 0;
                return None;
            }
        }
        Some(())
    }

    /// What is left of it.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }
}

impl Machine {
    /// Compiles an expression. With `positions` it can say where a match is, and repetitions of classes are spelled out.
    pub(super) fn new(hir: &Hir, positions: bool) -> Self {
        let machine =
            Self { insts: Vec::new(), classes: Vec::new(), counters: Vec::new(), words: 0, positions };
        let mut compiler = Compiler { machine, known: HashMap::new() };
        compiler.node(hir);
        compiler.push(Inst::Match);
        compiler.machine
    }

    /// The memory that it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        let classes: usize = self.classes.iter().map(|class| class.len() * size_of::<(char, char)>()).sum();
        self.insts.len() * size_of::<Inst>()
            + classes
            + self.counters.len() * size_of::<Counter>()
            + self.words * 16
    }

    /// Whether some part of `text` matches; `None` if that cannot be found out with what is left of `effort`.
    pub(super) fn is_match(&self, text: &str, effort: &mut Effort) -> Option<bool> {
        Some(self.run(text, 0, effort)?.is_some())
    }

    /// The leftmost match at or after the byte `from`: where it begins and ends. Of a machine with positions; of another one
    /// only whether there is a match is right.
    pub(super) fn run(&self, text: &str, from: usize, effort: &mut Effort) -> Option<Option<(usize, usize)>> {
        let (mut now, mut next) = (Threads::new(self), Threads::new(self));
        let mut found = None;
        let mut before = text[..from].chars().next_back();
        let mut rest = text[from..].char_indices().map(|(at, c)| (from + at, c)).peekable();
        let mut at = from;
        loop {
            let here = rest.next();
            let around = (before, here.map(|(_, c)| c));
            // A match that begins further left is preferred: none begins here any more once there is one.
            if found.is_none() {
                self.enter(&mut now, 0, at, around, effort)?;
            }
            if now.list.is_empty() && found.is_some() {
                return Some(found);
            }
            let end = here.map_or(text.len(), |(at, c)| at + c.len_utf8());
            let after = (here.map(|(_, c)| c), rest.peek().map(|(_, c)| *c));
            let mut place = 0;
            while let Some(&(inst, start)) = now.list.get(place) {
                place += 1;
                effort.spend(1)?;
                match (self.insts[inst as usize], here) {
                    (Inst::Match, _) => {
                        found = Some((start, at));
                        // Those behind it are less preferred.
                        break;
                    }
                    (Inst::Class(class), Some((_, c))) if self.has(class, c) => {
                        self.enter(&mut next, inst + 1, start, after, effort)?;
                    }
                    (Inst::Count(counter), Some((_, c))) => {
                        let counter = self.counters[counter as usize];
                        effort.spend(u64::from(counter.words))?;
                        if self.has(counter.class, c) && counter.advance(&now.bits, &mut next.bits) {
                            self.count(&mut next, inst, counter, start, after, effort)?;
                        }
                    }
                    _ => {}
                }
            }
            if found.is_some() && !self.positions {
                return Some(found);
            }
            now.clear(self);
            std::mem::swap(&mut now, &mut next);
            let Some((_, c)) = here else { return Some(found) };
            (before, at) = (Some(c), end);
        }
    }

    fn has(&self, class: u32, c: char) -> bool {
        let ranges = &self.classes[class as usize];
        let place = ranges.partition_point(|(_, last)| *last < c);
        ranges.get(place).is_some_and(|(first, _)| *first <= c)
    }

    /// Adds an instruction and all that can be reached from it without a character, in the order of preference.
    fn enter(
        &self,
        threads: &mut Threads,
        inst: u32,
        start: usize,
        around: (Option<char>, Option<char>),
        effort: &mut Effort,
    ) -> Option<()> {
        let mut todo = std::mem::take(&mut threads.todo);
        todo.push(inst);
        while let Some(inst) = todo.pop() {
            effort.spend(1)?;
            if let Inst::Count(index) = self.insts[inst as usize] {
                let counter = self.counters[index as usize];
                // Entered anew: no character so far. It may be there already, with other numbers.
                threads.bits[counter.offset as usize] |= 1;
                if threads.add(inst, start) && counter.min == 0 {
                    todo.push(inst + 1);
                }
                continue;
            }
            if !threads.add_silent(inst) {
                continue;
            }
            match self.insts[inst as usize] {
                Inst::Jump(to) => todo.push(to),
                Inst::Split(first, second) => todo.extend([second, first]),
                Inst::Look(look) if holds(look, around) => todo.push(inst + 1),
                Inst::Look(_) => {}
                Inst::Class(_) | Inst::Count(_) | Inst::Match => threads.list.push((inst, start)),
            }
        }
        threads.todo = todo;
        Some(())
    }

    /// Adds a counter whose bits have advanced, and what follows it where it has counted enough.
    fn count(
        &self,
        threads: &mut Threads,
        inst: u32,
        counter: Counter,
        start: usize,
        around: (Option<char>, Option<char>),
        effort: &mut Effort,
    ) -> Option<()> {
        threads.add(inst, start);
        if counter.is_enough(&threads.bits) {
            self.enter(threads, inst + 1, start, around, effort)?;
        }
        Some(())
    }
}

impl Counter {
    /// Counts one character more: the bits of `from`, shifted, join those of `to`. Gives whether any are left.
    fn advance(&self, from: &[u64], to: &mut [u64]) -> bool {
        let (offset, words) = (self.offset as usize, self.words as usize);
        let most = self.max.unwrap_or(self.min) as usize;
        let (mut carry, mut any) = (0, 0);
        for index in 0..words {
            let bits = from[offset + index];
            let mut shifted = (bits << 1) | carry;
            carry = bits >> 63;
            if index == words - 1 {
                let last = most % 64;
                // Numbers beyond the greatest end; without an end they count as the least that is enough.
                let beyond = if self.max.is_none() { bits & (1 << last) } else { 0 };
                shifted = (shifted & (u64::MAX >> (63 - last))) | beyond;
            }
            to[offset + index] |= shifted;
            any |= shifted;
        }
        any != 0
    }

    /// Whether some number of characters is enough.
    fn is_enough(&self, bits: &[u64]) -> bool {
        let bits = &bits[self.offset as usize..][..self.words as usize];
        let (word, bit) = ((self.min / 64) as usize, self.min % 64);
        bits[word] >> bit != 0 || bits[word + 1..].iter().any(|bits| *bits != 0)
    }
}

/// The instructions that a text has come to, in the order of preference, each with the beginning of its match.
struct Threads {
    list: Vec<(u32, usize)>,
    /// Instructions that were looked at for this character; a bit for each.
    seen: Vec<u64>,
    /// Those, to be forgotten in time that grows with their number only.
    touched: Vec<u32>,
    /// The numbers of all counters.
    bits: Vec<u64>,
    todo: Vec<u32>,
}

impl Threads {
    fn new(machine: &Machine) -> Self {
        Self {
            list: Vec::new(),
            seen: vec![0; machine.insts.len().div_ceil(64)],
            touched: Vec::new(),
            bits: vec![0; machine.words],
            todo: Vec::new(),
        }
    }

    fn add_silent(&mut self, inst: u32) -> bool {
        let (word, bit) = (inst as usize / 64, 1 << (inst % 64));
        let fresh = self.seen[word] & bit == 0;
        if fresh {
            self.seen[word] |= bit;
            self.touched.push(inst);
        }
        fresh
    }

    fn add(&mut self, inst: u32, start: usize) -> bool {
        let fresh = self.add_silent(inst);
        if fresh {
            self.list.push((inst, start));
        }
        fresh
    }

    fn clear(&mut self, machine: &Machine) {
        for inst in self.touched.drain(..) {
            self.seen[inst as usize / 64] = 0;
            if let Inst::Count(counter) = machine.insts[inst as usize] {
                let counter = machine.counters[counter as usize];
                self.bits[counter.offset as usize..][..counter.words as usize].fill(0);
            }
        }
        self.list.clear();
    }
}

/// Whether an assertion holds between two characters. Words are of ASCII letters only, in Go.
fn holds(look: Look, (before, after): (Option<char>, Option<char>)) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    match look {
        Look::Start => before.is_none(),
        Look::End => after.is_none(),
        Look::StartLF => before.is_none_or(|c| c == '\n'),
        Look::EndLF => after.is_none_or(|c| c == '\n'),
        Look::WordAscii => is_word(before) != is_word(after),
        Look::WordAsciiNegate => is_word(before) == is_word(after),
        // Go has no others, so that none comes out of the translation.
        _ => false,
    }
}

struct Compiler {
    machine: Machine,
    /// Classes that occurred before: a class is kept once, however often it is repeated.
    known: HashMap<Box<[(char, char)]>, u32>,
}

impl Compiler {
    /// The place of the next instruction.
    fn here(&self) -> u32 {
        u32::try_from(self.machine.insts.len()).unwrap_or(u32::MAX)
    }

    fn push(&mut self, inst: Inst) -> usize {
        self.machine.insts.push(inst);
        self.machine.insts.len() - 1
    }

    /// As deep as the expression, whose depth is limited as in Go.
    fn node(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Empty => {}
            HirKind::Literal(literal) => {
                for c in String::from_utf8_lossy(&literal.0).chars() {
                    let class = self.class(Box::new([(c, c)]));
                    self.push(Inst::Class(class));
                }
            }
            HirKind::Class(class) => {
                let class = self.class(ranges(class));
                self.push(Inst::Class(class));
            }
            HirKind::Look(look) => {
                self.push(Inst::Look(*look));
            }
            HirKind::Capture(capture) => self.node(&capture.sub),
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.node(part)),
            HirKind::Alternation(parts) => self.alternation(parts),
            HirKind::Repetition(repetition) => self.repetition(repetition),
        }
    }

    fn class(&mut self, ranges: Box<[(char, char)]>) -> u32 {
        if let Some(known) = self.known.get(&ranges) {
            return *known;
        }
        let index = u32::try_from(self.machine.classes.len()).unwrap_or(u32::MAX);
        self.machine.classes.push(ranges.clone());
        self.known.insert(ranges, index);
        index
    }

    fn alternation(&mut self, parts: &[Hir]) {
        let mut ends = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            if index + 1 == parts.len() {
                self.node(part);
                break;
            }
            let split = self.push(Inst::Jump(0));
            let first = self.here();
            self.node(part);
            ends.push(self.push(Inst::Jump(0)));
            self.machine.insts[split] = Inst::Split(first, self.here());
        }
        let end = self.here();
        ends.into_iter().for_each(|jump| self.machine.insts[jump] = Inst::Jump(end));
    }

    fn repetition(&mut self, repetition: &Repetition) {
        let Repetition { min, max, greedy, sub } = repetition;
        let counted = *min > 1 || max.is_some_and(|max| max > 1);
        if counted
            && !self.machine.positions
            && let Some(ranges) = single(sub)
        {
            return self.counter(ranges, *min, *max);
        }
        // The last of those that must be there is the one that an endless repetition goes back to.
        let ahead = if max.is_none() { min.saturating_sub(1) } else { *min };
        for _ in 0..ahead {
            self.node(sub);
        }
        match max {
            None if *min > 0 => {
                let body = self.here();
                self.node(sub);
                let split = self.push(Inst::Jump(0));
                self.machine.insts[split] = self.split(*greedy, body);
            }
            None => {
                let split = self.push(Inst::Jump(0));
                let body = self.here();
                self.node(sub);
                self.push(Inst::Jump(u32::try_from(split).unwrap_or(u32::MAX)));
                self.machine.insts[split] = self.split(*greedy, body);
            }
            Some(max) => {
                // x{2,4} is xx(x(x)?)?: each is left for the end.
                let mut splits = Vec::new();
                for _ in *min..*max {
                    splits.push((self.push(Inst::Jump(0)), self.here()));
                    self.node(sub);
                }
                for (split, body) in splits {
                    self.machine.insts[split] = self.split(*greedy, body);
                }
            }
        }
    }

    /// Goes on with `body` or with what follows here.
    fn split(&self, greedy: bool, body: u32) -> Inst {
        if greedy { Inst::Split(body, self.here()) } else { Inst::Split(self.here(), body) }
    }

    fn counter(&mut self, ranges: Box<[(char, char)]>, min: u32, max: Option<u32>) {
        let class = self.class(ranges);
        let words = max.unwrap_or(min) / 64 + 1;
        let offset = u32::try_from(self.machine.words).unwrap_or(u32::MAX);
        self.machine.words += words as usize;
        let index = u32::try_from(self.machine.counters.len()).unwrap_or(u32::MAX);
        self.machine.counters.push(Counter { class, min, max, offset, words });
        self.push(Inst::Count(index));
    }
}

/// The ranges of what is one character; `None` if it is more, or none.
fn single(hir: &Hir) -> Option<Box<[(char, char)]>> {
    match hir.kind() {
        HirKind::Class(class) => Some(ranges(class)),
        HirKind::Capture(capture) => single(&capture.sub),
        HirKind::Literal(literal) => {
            let mut chars = std::str::from_utf8(&literal.0).ok()?.chars();
            let first = chars.next()?;
            chars.next().is_none().then(|| Box::from([(first, first)]))
        }
        _ => None,
    }
}

fn ranges(class: &Class) -> Box<[(char, char)]> {
    match class {
        Class::Unicode(class) => class.iter().map(|range| (range.start(), range.end())).collect(),
        // Of ASCII: the translation turns Unicode off for assertions only.
        Class::Bytes(class) => class.iter().map(|r| (char::from(r.start()), char::from(r.end()))).collect(),
    }
}
