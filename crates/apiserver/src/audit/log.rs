//! The queue of the audit log and the thread that writes it.
//!
//! ```text
//! requests ─► bounded queue ─► one thread ─► Sink: a rotated file, or standard output
//!     └ wait while it is full
//! ```
//!
//! A request waits for a place in the queue before it is answered (`--audit-log-mode=blocking` of kube-apiserver). A request
//! that cannot wait, because its client is gone or its watch was cut off, hands its line to a task that waits instead. The
//! number of such tasks is limited; a line beyond that is lost and counted. Faults are logged once when they begin and once
//! when they are over, not for each line.
//!
//! A thread and not a task, because writing and rotating files blocks, and one, so that lines stay in order and whole.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Lines that may wait for the thread. A line has about a kilobyte.
const QUEUE: usize = 8192;
/// Lines that may wait for a place in the queue without a request that waits with them.
const MAX_DETACHED: usize = 4096;
/// The most lines that are given to the sink at once: one system call for all of them when there is much to do.
const BATCH: usize = 512;

/// What became of lines that were to be written.
#[derive(Debug, Default)]
pub struct Written {
    /// How many are lost.
    pub lost: usize,
    /// What went wrong; nothing may be lost all the same.
    pub fault: Option<io::Error>,
}

/// Where lines go. Called from one thread, which may block.
pub trait Sink: Send + 'static {
    /// Writes lines, each with its end. A line is there whole or not at all.
    fn write(&mut self, lines: &[Vec<u8>]) -> Written;
}

/// Standard output.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stdout;

impl Sink for Stdout {
    fn write(&mut self, lines: &[Vec<u8>]) -> Written {
        use io::Write as _;
        let mut out = io::stdout().lock();
        match out.write_all(&lines.concat()).and_then(|()| out.flush()) {
            Ok(()) => Written::default(),
            Err(error) => Written { lost: lines.len(), fault: Some(error) },
        }
    }
}

enum Entry {
    Line(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Plugin {
    plugin: &'static str,
}

/// How the log fares, for the metrics; names are those of kube-apiserver (`audit/metrics.go`) where it has them.
#[derive(Debug, Clone, Default)]
struct Counters {
    events: Counter,
    errors: Family<Plugin, Counter>,
    waits: Counter,
}

impl Counters {
    fn lost(&self, lines: usize) {
        self.errors.get_or_create(&Plugin { plugin: "log" }).inc_by(lines as u64);
    }
}

/// The audit log of a server; clones are handles to the same one. The thread ends when all of them are gone and the queue is
/// written.
#[derive(Clone)]
pub struct Log {
    queue: mpsc::Sender<Entry>,
    /// Permits for lines that wait without a request.
    detached: Arc<Semaphore>,
    counters: Counters,
    /// Whether it has been logged that the queue is full; reset by the thread when it has emptied the queue.
    full: Arc<AtomicBool>,
    /// The same for lines that are lost. Both only keep the log quiet, so relaxed ordering is enough.
    losing: Arc<AtomicBool>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl Log {
    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn start(sink: impl Sink) -> io::Result<Self> {
        Self::with_room(sink, QUEUE, MAX_DETACHED)
    }

    fn with_room(sink: impl Sink, queue: usize, detached: usize) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(queue);
        let log = Self {
            queue: sender,
            detached: Arc::new(Semaphore::new(detached)),
            counters: Counters::default(),
            full: Arc::default(),
            losing: Arc::default(),
        };
        // Make the time series exist with value 0: an alert on its increase needs a first value.
        log.counters.lost(0);
        let writer = Writer {
            sink,
            queue: receiver,
            counters: log.counters.clone(),
            full: log.full.clone(),
            losing: log.losing.clone(),
            faulty: false,
        };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run())?;
        Ok(log)
    }

    /// Puts the line into the queue, once there is room. Takes it out of `line` at that moment, so that a caller whose future
    /// is dropped while it waits still has it and can [`put_detached`](Self::put_detached) it.
    pub(super) async fn put(&self, line: &mut Option<Vec<u8>>) {
        let Some(bytes) = line.take() else { return };
        match self.queue.try_send(Entry::Line(bytes)) {
            Ok(()) => {}
            Err(TrySendError::Full(Entry::Line(bytes))) => {
                // Given back before the await. `reserve` instead of `send`, which would own the line while it waits.
                *line = Some(bytes);
                self.report_full();
                let place = self.queue.reserve().await;
                let Some(bytes) = line.take() else { return };
                match place {
                    Ok(place) => place.send(Entry::Line(bytes)),
                    Err(_) => self.report_lost("its thread has ended"),
                }
            }
            Err(_) => self.report_lost("its thread has ended"),
        }
    }

    /// Puts the line into the queue without waiting for it.
    pub(super) fn put_detached(&self, line: Vec<u8>) {
        let line = match self.queue.try_send(Entry::Line(line)) {
            Ok(()) => return,
            Err(TrySendError::Full(Entry::Line(line))) => line,
            Err(_) => return self.report_lost("its thread has ended"),
        };
        self.report_full();
        // Outside a runtime (a watch that is dropped while the server shuts down) there is nothing that could wait.
        let (Ok(runtime), Ok(permit)) =
            (tokio::runtime::Handle::try_current(), self.detached.clone().try_acquire_owned())
        else {
            return self.report_lost("its queue is full");
        };
        let log = self.clone();
        runtime.spawn(async move {
            let _permit = permit;
            if log.queue.send(Entry::Line(line)).await.is_err() {
                log.report_lost("its thread has ended");
            }
        });
    }

    /// Waits until all that was put into the queue is written, or has failed.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.send(Entry::Flush(done)).await.is_ok() {
            // An error here is a thread that has ended: nothing is left that could be written.
            let _ = written.await;
        }
    }

    /// Adds the log's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let Counters { events, errors, waits } = self.counters.clone();
        // The library appends `_total` to counters.
        registry.register("apiserver_audit_event", "Audit events made", events);
        registry.register("apiserver_audit_error", "Audit events that could not be written", errors);
        registry.register(
            "fleetpass_audit_queue_full",
            "Audit events that had to wait because the queue was full",
            waits,
        );
    }

    /// Counts an event.
    pub(super) fn count(&self) {
        self.counters.events.inc();
    }

    fn report_full(&self) {
        self.counters.waits.inc();
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!("the audit log's queue is full: requests wait until it is written");
        }
    }

    fn report_lost(&self, why: &str) {
        self.counters.lost(1);
        if !self.losing.swap(true, Ordering::Relaxed) {
            tracing::error!(why, "audit events are lost");
        }
    }
}

struct Writer<S> {
    sink: S,
    queue: mpsc::Receiver<Entry>,
    counters: Counters,
    full: Arc<AtomicBool>,
    losing: Arc<AtomicBool>,
    faulty: bool,
}

impl<S: Sink> Writer<S> {
    fn run(mut self) {
        let mut entries = Vec::new();
        // 0 means that all handles are gone and the queue is empty: nothing that was queued is lost.
        while self.queue.blocking_recv_many(&mut entries, BATCH) > 0 {
            let (mut lines, mut flushes) = (Vec::new(), Vec::new());
            for entry in entries.drain(..) {
                match entry {
                    Entry::Line(line) => lines.push(line),
                    Entry::Flush(done) => flushes.push(done),
                }
            }
            self.write(&lines);
            for done in flushes {
                // An error means that nobody waits for it any longer.
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self, lines: &[Vec<u8>]) {
        if lines.is_empty() {
            return;
        }
        let Written { lost, fault } = self.sink.write(lines);
        self.counters.lost(lost);
        match fault {
            // A full disk fails for every batch: log the first failure and the recovery.
            Some(error) if !self.faulty => {
                let lost = lost > 0;
                tracing::error!(%error, lost, "the audit log cannot be written as it should be");
                self.faulty = true;
            }
            None if self.faulty => {
                tracing::info!("the audit log is written again");
                self.faulty = false;
            }
            _ => {}
        }
        // Only when all is caught up, or a queue at its limit would log "full" and "has room" with every batch.
        if self.queue.is_empty() {
            if self.full.swap(false, Ordering::Relaxed) {
                tracing::info!("the audit log's queue has room again");
            }
            self.losing.store(false, Ordering::Relaxed);
        }
    }
}

/// A sink in memory, for tests: what was written, and a gate that can be shut.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) text: Arc<parking_lot::Mutex<Vec<u8>>>,
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
    pub(crate) broken: Arc<AtomicBool>,
}

#[cfg(test)]
impl Sink for Memory {
    fn write(&mut self, lines: &[Vec<u8>]) -> Written {
        let _open = self.gate.blocking_lock();
        if self.broken.load(Ordering::Relaxed) {
            return Written { lost: lines.len(), fault: Some(io::Error::other("no space left on device")) };
        }
        self.text.lock().extend(lines.concat());
        Written::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn metrics(log: &Log) -> String {
        let mut registry = Registry::default();
        log.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    fn line(i: usize) -> Vec<u8> {
        format!("{i}\n").into_bytes()
    }

    /// A log whose thread holds one line and cannot go on, with two more in its queue, which is full.
    async fn full(memory: &Memory) -> Log {
        let log = Log::with_room(memory.clone(), 2, 1).unwrap();
        log.put(&mut Some(line(0))).await;
        // The thread has taken the first line when there is room for two more.
        let places = log.queue.reserve_many(2).await.unwrap();
        for (i, place) in places.enumerate() {
            place.send(Entry::Line(line(i + 1)));
        }
        log
    }

    #[tokio::test]
    async fn who_finds_the_queue_full_waits_and_nothing_is_lost() {
        let memory = Memory::default();
        let shut = memory.gate.clone().lock_owned().await;
        let log = full(&memory).await;
        let mut last = Some(line(3));
        assert!(log.put(&mut last).now_or_never().is_none(), "there is no room");
        // As if its client had gone while it waited: the line is still there, and can be left behind.
        log.put_detached(last.take().unwrap());
        drop(shut);
        // What was left behind has its permit until it is in the queue.
        drop(log.detached.acquire().await.unwrap());
        log.flush().await;
        let mut other = Some(line(4));
        log.put(&mut other).await;
        assert_eq!(other, None);
        log.flush().await;
        let text = String::from_utf8(memory.text.lock().clone()).unwrap();
        assert_eq!(text, "0\n1\n2\n3\n4\n");
        let metrics = metrics(&log);
        assert!(metrics.contains("apiserver_audit_error_total{plugin=\"log\"} 0"), "{metrics}");
        assert!(metrics.contains("fleetpass_audit_queue_full_total 2"), "{metrics}");
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_is_counted() {
        let memory = Memory::default();
        let shut = memory.gate.clone().lock_owned().await;
        let log = full(&memory).await;
        // One line may wait without a request, the second one is lost.
        log.put_detached(line(3));
        log.put_detached(line(4));
        let seen = metrics(&log);
        assert!(seen.contains("apiserver_audit_error_total{plugin=\"log\"} 1"), "{seen}");
        drop(shut);
        drop(log.detached.acquire().await.unwrap());
        log.flush().await;
        assert_eq!(*memory.text.lock(), b"0\n1\n2\n3\n");
    }

    #[tokio::test]
    async fn lines_that_cannot_be_written_are_counted_and_later_ones_are_written() {
        let memory = Memory::default();
        let log = Log::start(memory.clone()).unwrap();
        memory.broken.store(true, Ordering::Relaxed);
        log.put(&mut Some(line(1))).await;
        log.put(&mut Some(line(2))).await;
        log.flush().await;
        memory.broken.store(false, Ordering::Relaxed);
        log.put(&mut Some(line(3))).await;
        log.flush().await;
        assert_eq!(*memory.text.lock(), b"3\n");
        let metrics = metrics(&log);
        assert!(metrics.contains("apiserver_audit_error_total{plugin=\"log\"} 2"), "{metrics}");
    }
}
