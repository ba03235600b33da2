//! A disk in memory that can be full, fail, and lose power.
//!
//! It separates what was written, which reads see, from what is durable. As on Linux, what a failed sync did not write is
//! held for clean from then on: it is read, and no later sync writes it.

use parking_lot::Mutex;
use redb::StorageBackend;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// What a disk writes at once or not at all.
const SECTOR: usize = 512;
/// What a file system allocates at once.
const BLOCK: usize = 4096;

/// A simulated disk with one file on it. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// ENOSPC: of whatever writes; reads go on.
    NoSpace,
    /// EIO, of every operation.
    Io,
    /// EROFS: of whatever writes; reads go on.
    ReadOnly,
}

/// When operations fail.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many more operations succeed first.
    pub after: u32,
    /// How many fail then.
    pub lasting: u32,
    /// How they do.
    pub fault: Fault,
}

#[derive(Default)]
struct State {
    /// What reads see.
    live: Vec<u8>,
    /// What syncs made certain.
    durable: Vec<u8>,
    /// What was done since then.
    pending: Vec<Pending>,
    /// The blocks that have ever been written: a file has holes elsewhere.
    allocated: BTreeSet<usize>,
    /// How many blocks there are; `None`: any number.
    blocks: Option<usize>,
    random: Random,
    /// Whether each operation imagines what a power loss would leave.
    imagining: bool,
    images: Vec<Vec<u8>>,
    plan: Option<Plan>,
    failures: u32,
}

enum Pending {
    Write { offset: usize, data: Vec<u8> },
    Resize(usize),
}

/// Xorshift: not secret, only uneven, and the same in every run.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Random(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    /// Numbers of their own for each seed.
    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Self {
        Random(Random::default().0 ^ seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Fault {
    fn error(self) -> io::Error {
        // By number, as an operating system gives them.
        io::Error::from_raw_os_error(match self {
            Fault::NoSpace => 28,
            Fault::Io => 5,
            Fault::ReadOnly => 30,
        })
    }
}

impl Pending {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Pending::Resize(length) => to.resize(*length, 0),
            Pending::Write { offset, data } => write_part(to, *offset, data),
        }
    }
}

/// Behind the end of a file whose growth was lost there is nothing.
fn write_part(to: &mut [u8], offset: usize, data: &[u8]) {
    if offset < to.len() {
        let end = to.len().min(offset + data.len());
        to[offset..end].copy_from_slice(&data[..end - offset]);
    }
}

impl State {
    /// Whether an operation that is asked for now fails.
    fn begin(&mut self, writes: bool) -> io::Result<()> {
        let Some(plan) = &mut self.plan else { return Ok(()) };
        if !writes && plan.fault != Fault::Io {
            return Ok(());
        }
        if plan.after > 0 {
            plan.after -= 1;
            return Ok(());
        }
        let error = plan.fault.error();
        plan.lasting = plan.lasting.saturating_sub(1);
        if plan.lasting == 0 {
            self.plan = None;
        }
        self.failures += 1;
        Err(error)
    }

    fn imagine(&mut self) {
        if self.imagining {
            let image = self.image();
            self.images.push(image);
        }
    }

    /// A disk after a power loss: all pending operations are there, or none, or some, or parts.
    fn image(&mut self) -> Vec<u8> {
        let mut image = self.durable.clone();
        let mode = self.random.below(6);
        for pending in &self.pending {
            let mut survives = |chance| match mode {
                0 => false,
                1 => true,
                _ => self.random.below(4) < chance,
            };
            match pending {
                Pending::Resize(length) if survives(3) => image.resize(*length, 0),
                Pending::Resize(_) => {}
                Pending::Write { offset, data } => {
                    let whole = mode < 4 && survives(2);
                    for (i, sector) in data.chunks(SECTOR).enumerate() {
                        let written = if mode < 4 { whole } else { survives(2) };
                        if written {
                            write_part(&mut image, offset + i * SECTOR, sector);
                        }
                    }
                }
            }
        }
        image
    }

    /// Allocates what a write needs; how much of it there is room for.
    fn allocate(&mut self, offset: usize, length: usize) -> usize {
        let Some(blocks) = self.blocks else {
            self.allocated.extend(offset / BLOCK..(offset + length).div_ceil(BLOCK));
            return length;
        };
        for block in offset / BLOCK..(offset + length).div_ceil(BLOCK) {
            if !self.allocated.contains(&block) {
                if self.allocated.len() >= blocks {
                    return (block * BLOCK).saturating_sub(offset);
                }
                self.allocated.insert(block);
            }
        }
        length
    }

    /// A sync fails: some of what was pending has become durable, the rest is forgotten. Lengths stay pending, since a file
    /// system keeps them elsewhere.
    fn lose(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match &pending {
                Pending::Resize(_) => self.pending.push(pending),
                Pending::Write { .. } if self.random.below(2) == 0 => pending.apply(&mut self.durable),
                Pending::Write { .. } => {}
            }
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(false)?;
        let from = state.live.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(true)?;
        let length = len as usize;
        state.live.resize(length, 0);
        state.allocated.split_off(&length.div_ceil(BLOCK));
        state.pending.push(Pending::Resize(length));
        state.imagine();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        if let Err(error) = state.begin(true) {
            state.lose();
            return Err(error);
        }
        let State { pending, durable, .. } = &mut *state;
        pending.drain(..).for_each(|pending| pending.apply(durable));
        state.imagine();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(true)?;
        let offset = offset as usize;
        let room = state.allocate(offset, data.len());
        let fitting = &data[..room];
        state.live[offset..offset + room].copy_from_slice(fitting);
        state.pending.push(Pending::Write { offset, data: fitting.to_vec() });
        state.imagine();
        if room < data.len() {
            state.failures += 1;
            return Err(Fault::NoSpace.error());
        }
        Ok(())
    }
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        Disk::default()
    }

    /// Leaves room for so many bytes more; `None`: as many as anybody wants.
    #[cfg(test)]
    pub(crate) fn leave_room(&self, bytes: Option<usize>) {
        let mut state = self.0.lock();
        state.blocks = bytes.map(|bytes| state.allocated.len() + bytes / BLOCK);
    }

    /// Fails as planned, or no more.
    pub fn fail(&self, plan: Option<Plan>) {
        self.0.lock().plan = plan;
    }

    /// Whether so many bytes more can be written.
    ///
    /// # Errors
    /// They cannot.
    pub(crate) fn find_room(&self, bytes: usize) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(true)?;
        let needed = state.allocated.len() + bytes.div_ceil(BLOCK);
        match state.blocks {
            Some(blocks) if needed > blocks => Err(Fault::NoSpace.error()),
            _ => Ok(()),
        }
    }
}

/// What only the embedded engine's own tests do with a disk.
#[cfg(test)]
impl Disk {
    /// A disk with this content, all of it durable.
    pub(crate) fn with(content: Vec<u8>) -> Self {
        let allocated = (0..content.len().div_ceil(BLOCK)).collect();
        let state = State { live: content.clone(), durable: content, allocated, ..State::default() };
        Disk(Arc::new(Mutex::new(state)))
    }

    /// From now on each operation imagines what a power loss would leave.
    pub(crate) fn imagine(&self) {
        self.0.lock().imagining = true;
    }

    /// What a power loss at each operation since the last call could have left.
    pub(crate) fn images(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().images)
    }

    /// What a power loss could leave now.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.0.lock().image()
    }

    /// What is read now.
    pub(crate) fn content(&self) -> Vec<u8> {
        self.0.lock().live.clone()
    }

    /// Somebody puts another file in the place of ours.
    pub(crate) fn replace(&self, content: Vec<u8>) {
        let mut state = self.0.lock();
        state.allocated = (0..content.len().div_ceil(BLOCK)).collect();
        (state.live, state.durable) = (content.clone(), content);
        state.pending.clear();
    }

    /// How many operations have failed.
    pub(crate) fn failures(&self) -> u32 {
        self.0.lock().failures
    }
}
