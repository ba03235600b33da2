//! Counting the instructions of a program with valgrind's tool callgrind.
//!
//! They are the same on any machine, however busy it is, which no measured time is. The price: a program runs some fifty times
//! slower, its threads one after the other.

use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// How many programs run at once under callgrind.
const AT_ONCE: usize = 2;

/// Whether valgrind is there.
///
/// # Errors
///
/// It is not: how to get it.
pub(crate) fn check() -> Result<()> {
    let valgrind =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ensure!(
        valgrind.is_ok_and(|status| status.success()),
        "instructions are counted by valgrind, which is not installed: apt-get install valgrind"
    );
    Ok(())
}

/// Counts what happens between the beginning and the end of a function.
#[derive(Debug)]
pub(crate) struct Callgrind {
    /// The folder for what callgrind writes, one file for each call of the function.
    folder: PathBuf,
}

impl Callgrind {
    /// Writes to a folder, which is emptied.
    ///
    /// # Errors
    ///
    /// It cannot be made or emptied.
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// A command that runs the program under callgrind; arguments are added by the caller. `function` is the path of one without
    /// type parameters that is not inlined, called on one thread only. What all threads do until it returns is counted.
    pub(crate) fn command(&self, program: &Path, function: &str) -> Command {
        let mut valgrind = Command::new("valgrind");
        // glibc gives threads heaps of their own, as many as there are cores, and what one thread allocates and another frees then
        // takes now a longer search and now a shorter one: with one heap the count is the same each time.
        valgrind.env("MALLOC_ARENA_MAX", "1");
        valgrind.args(["--tool=callgrind", "--quiet"]);
        // The whole name: with a pattern callgrind sets its counters to zero and does not write them.
        valgrind.arg(format!("--zero-before={function}")).arg(format!("--dump-after={function}"));
        valgrind.arg(format!("--callgrind-out-file={}", self.folder.join("out").display()));
        valgrind.arg(program);
        valgrind
    }

    /// How many instructions one call of the function took, counted from 1.
    ///
    /// # Errors
    ///
    /// callgrind has not counted that: the program ended before, or its symbols were stripped.
    pub(crate) fn instructions(&self, call: usize) -> Result<u64> {
        let file = self.folder.join(format!("out.{call}"));
        let text = fs::read_to_string(&file)
            .with_context(|| format!("callgrind has not written {}", file.display()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
        line.and_then(|number| number.trim().parse().ok())
            .with_context(|| format!("{} has no totals", file.display()))
    }
}

/// Does `work` for each item, two at a time, and gives what it gave, in the order of the items.
///
/// # Errors
///
/// The first one, in that order. The others are done all the same.
pub(crate) fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    // Both are locked for a moment only: to take the next item, to put down a result.
    let (next, done) = (Mutex::new(items.iter().enumerate()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
                    let Some((index, item)) = taken else { return };
                    let result = work(item);
                    done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
