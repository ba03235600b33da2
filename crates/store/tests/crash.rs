//! A process that dies in the middle of its writes loses nothing that it answered, and leaves no
//! half transaction behind.
//!
//! The parent starts this very program again as the writer, kills it with SIGKILL at a random
//! moment, opens the data directory, and compares it with what the writer had printed. All rounds
//! share one directory, so later rounds work on what earlier crashes left.

use fleetpass_store::{EmbeddedOptions, EmbeddedStore, Entry, Listing, OpenError, Store, Txn};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

const DIRECTORY: &str = "FLEETPASS_CRASH_TEST_DIRECTORY";
const ROUNDS: u64 = 200;
const WRITERS: usize = 8;

/// Not a test of its own: what [`acknowledged_writes_survive_sigkill`] starts and kills.
#[test]
#[ignore = "the writer that the crash test starts"]
fn writer() {
    let directory = std::env::var_os(DIRECTORY).expect("the crash test says where to write");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(open(Path::new(&directory)).await.expect("the store opens"));
        say("ready");
        let writers: Vec<_> = (0..WRITERS).map(|w| tokio::spawn(write(store.clone(), w))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

/// Every transaction adds a line to the log, so that each revision has one, and writes a counter
/// twice. Every fifth one also removes and re-creates a key.
async fn write(store: Arc<EmbeddedStore>, writer: usize) {
    let [left, right] = ["left", "right"].map(|side| format!("/pair/{writer}/{side}"));
    let mut revision = 0;
    let mut n = 0_u64;
    if let Some(entry) = store.get(&left).await.unwrap() {
        revision = entry.mod_revision;
        n = number(&entry);
    }
    loop {
        n += 1;
        let value = n.to_string();
        let mut txn = Txn::update(left.clone(), value.clone(), revision)
            .and(Txn::create(format!("/log/{writer}/{n:08}"), value.clone()))
            .and(Txn::put(right.clone(), value.clone()));
        txn = match n % 5 {
            0 => txn.and(Txn::remove(format!("/fifth/{writer}"))),
            _ => txn.and(Txn::put(format!("/fifth/{writer}"), value)),
        };
        revision = store.commit(txn).await.expect("nobody else writes these keys");
        say(&format!("{writer} {n} {revision}"));
    }
}

/// One line to the parent, in one piece.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).expect("the parent listens");
}

async fn open(directory: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(EmbeddedOptions::new(directory)).await
}

fn number(entry: &Entry) -> u64 {
    std::str::from_utf8(&entry.value).unwrap().parse().unwrap()
}

/// What the writer was told: for each of its transactions the revision.
type Acknowledged = BTreeMap<(usize, u64), u64>;

#[test]
fn acknowledged_writes_survive_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Not secret, only uneven; the same moments in every run.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut acknowledged = Acknowledged::new();
    for round in 0..ROUNDS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Most rounds die while writing, some while opening (the first ones while creating).
        let while_opening = round < 10 || round % 10 == 0;
        let pause =
            Duration::from_micros(if while_opening { random % 12_000 } else { 5_000 + random % 35_000 });
        crash(&data, while_opening, pause, &mut acknowledged);
        runtime.block_on(async {
            let store = open(&data).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
            check(&store.list("").await.unwrap(), &acknowledged);
            store.close().await;
        });
    }
    assert!(acknowledged.len() as u64 > ROUNDS, "the writers hardly wrote: {}", acknowledged.len());
}

/// Starts the writer, kills it after `pause`, and notes what it had acknowledged.
fn crash(data: &Path, while_opening: bool, pause: Duration, acknowledged: &mut Acknowledged) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture", "--quiet"])
        .env(DIRECTORY, data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (ready, is_ready) = mpsc::channel();
    // Reads until the kill closes the pipe; a line that the kill cut has no end, and is not counted.
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        let mut out = out;
        let mut line = String::new();
        while out.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            match line.trim_end() {
                "ready" => drop(ready.send(())),
                acknowledgement => lines.push(acknowledgement.to_owned()),
            }
            line.clear();
        }
        lines
    });
    if !while_opening {
        is_ready.recv_timeout(Duration::from_secs(60)).expect("the writer opens the store");
    }
    std::thread::sleep(pause);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "the writer ended before it was killed: {status}");
    for line in reader.join().unwrap() {
        let numbers: Vec<u64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
        // The test harness prints lines of its own.
        if let [writer, n, revision] = numbers[..] {
            acknowledged.insert((writer as usize, n), revision);
        }
    }
}

/// Everything acknowledged is there, everything there is whole, and the revisions have no gap.
fn check(listing: &Listing, acknowledged: &Acknowledged) {
    let entries: BTreeMap<&str, &Entry> = listing.entries.iter().map(|e| (&*e.key, e)).collect();
    for (&(writer, n), &revision) in acknowledged {
        let key = format!("/log/{writer}/{n:08}");
        let entry = entries.get(&*key).unwrap_or_else(|| panic!("{key} was acknowledged and is lost"));
        assert_eq!((entry.create_revision, entry.mod_revision), (revision, revision), "{key}");
        assert_eq!(number(entry), n);
    }
    // Each commit wrote one line of the log: they account for every revision up to the store's.
    let log = listing.entries.iter().filter(|e| e.key.starts_with("/log/"));
    let revisions: BTreeSet<u64> = log.map(|e| e.mod_revision).collect();
    assert!(revisions.into_iter().eq(1..=listing.revision), "revisions up to {}", listing.revision);
    for writer in 0..WRITERS {
        let Some(left) = entries.get(&*format!("/pair/{writer}/left")) else { continue };
        let n = number(left);
        let right = entries[&*format!("/pair/{writer}/right")];
        let last = entries[&*format!("/log/{writer}/{n:08}")];
        for whole in [right, last] {
            assert_eq!(
                (&whole.value, whole.mod_revision),
                (&left.value, left.mod_revision),
                "half a transaction"
            );
        }
        assert!(!entries.contains_key(&*format!("/log/{writer}/{:08}", n + 1)), "half a transaction");
        match entries.get(&*format!("/fifth/{writer}")) {
            None => assert_eq!(n % 5, 0, "half a transaction"),
            Some(fifth) => {
                assert_eq!((number(fifth), fifth.mod_revision), (n, left.mod_revision), "half a transaction");
            }
        }
    }
}
