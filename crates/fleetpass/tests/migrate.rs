//! `fleetpass migrate` as a user runs it, between data directories.

use fleetpass_store::migrate::MARK;
use fleetpass_store::{EmbeddedOptions, EmbeddedStore, Encryption, KeyRing, Listing, Store as _, Txn};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn fleetpass(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleetpass"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn migrate(from: &Path, to: &Path, flags: &[&str]) -> Result<String, String> {
    let (from, to) = (format!("embedded:{}", from.display()), format!("embedded:{}", to.display()));
    let output = fleetpass(&[&["migrate", "--from", &from, "--to", &to], flags].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    match output.status.code() {
        Some(0) => Ok(text(output.stdout)),
        Some(1) => Err(text(output.stderr)),
        other => panic!("{other:?}: {}", text(output.stderr)),
    }
}

async fn open(directory: &Path) -> EmbeddedStore {
    let mut options = EmbeddedOptions::new(directory.join("store"));
    let keys = KeyRing::load_or_create(&directory.join("encryption.key")).unwrap();
    options.encryption = Some(Encryption { keys, prefixes: vec!["/registry/secrets/".into()] });
    EmbeddedStore::open(options).await.unwrap()
}

async fn content(directory: &Path) -> Listing {
    let store = open(directory).await;
    let listing = store.list("").await.unwrap();
    store.close().await;
    listing
}

/// A hub that has run once.
fn hub(work: &Path) -> PathBuf {
    let state = work.join("state").to_str().unwrap().to_owned();
    let up = ["up", "--data-dir", &state, "--clusters", "1", "--port", "0", "--exit-when-ready"];
    assert!(fleetpass(&up).status.success());
    Path::new(&state).join("hub")
}

#[tokio::test]
async fn a_hub_moves_with_its_keys_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let from = hub(dir.path());
    let to = dir.path().join("moved");
    let told = migrate(&from, &to, &[]).unwrap();
    assert!(told.contains("SHA-256") && told.contains("has no pki/"), "{told}");
    assert_eq!(fs::read(from.join("encryption.key")).unwrap(), fs::read(to.join("encryption.key")).unwrap());
    let (before, after) = (content(&from).await, content(&to).await);
    let pairs = |listing: &Listing| -> Vec<_> {
        listing.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
    };
    assert_eq!(pairs(&before), pairs(&after));
    assert!(after.entries.iter().all(|entry| entry.mod_revision > before.revision));
    let secret = |entry: &&fleetpass_store::Entry| entry.key.starts_with("/registry/secrets/");
    let secret = after.entries.iter().find(secret).expect("the sample's token");
    let token = serde_json::from_slice::<serde_json::Value>(&secret.value).unwrap()["data"]["token"].clone();
    let stored = fs::read(to.join("store/store.redb")).unwrap();
    let token = token.as_str().unwrap().as_bytes();
    assert!(!stored.windows(token.len()).any(|window| window == token), "Secrets stay sealed");

    let error = migrate(&from, &to, &[]).unwrap_err();
    assert!(error.contains("is not empty") && error.contains("nothing is written over"), "{error}");
    // The same keys only.
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    KeyRing::load_or_create(&other.join("encryption.key")).unwrap();
    let error = migrate(&from, &other, &[]).unwrap_err();
    assert!(error.contains("other keys") && error.contains("encryption.key"), "{error}");
    // Another process has it.
    let held = open(&from).await;
    let error = migrate(&from, &dir.path().join("free"), &[]).unwrap_err();
    assert!(error.contains("in use by another process"), "{error}");
    held.close().await;
    for (from, words) in [(dir.path().join("nothing"), "holds no store"), (to.clone(), "are the same")] {
        let error = migrate(&from, &to, &[]).unwrap_err();
        assert!(
            error.starts_with("error: ") && error.lines().count() == 1 && error.contains(words),
            "{error}"
        );
    }
}

#[tokio::test]
async fn no_hub_starts_on_what_an_interrupted_migration_left() {
    let dir = tempfile::tempdir().unwrap();
    let from = hub(dir.path());
    let to = dir.path().join("moved");
    fs::create_dir(&to).unwrap();
    fs::copy(from.join("encryption.key"), to.join("encryption.key")).unwrap();
    let store = open(&to).await;
    let mark = r#"{"version":1,"sourceRevision":1,"entries":1,"sha256":"of something else"}"#;
    store.commit(Txn::put(MARK, mark)).await.unwrap();
    store.commit(Txn::put("/registry/secrets/ns/half", "{}")).await.unwrap();
    store.close().await;

    let started = fleetpass(&["hub", "--data-dir", to.to_str().unwrap(), "--secure-port", "0"]);
    let error = String::from_utf8(started.stderr).unwrap();
    assert_eq!(started.status.code(), Some(1), "{error}");
    assert!(error.contains("fleetpass migrate"), "{error}");
    let error = migrate(&from, &to, &[]).unwrap_err();
    assert!(error.contains("another source") && error.contains("--discard-unfinished"), "{error}");
    let told = migrate(&from, &to, &["--discard-unfinished"]).unwrap();
    assert!(told.contains("compared"), "{told}");
    let after = content(&to).await;
    assert!(after.entries.iter().all(|entry| &*entry.key != MARK && !entry.key.ends_with("/half")));
    assert_eq!(after.entries.len(), content(&from).await.entries.len());
}
