//! `fleetpass migrate`: moves a hub's objects to another store.
//!
//! Only objects are moved. The keys that seal Secrets stay the same: an embedded target gets a copy of their file.
//! Certificates and signing keys (`pki/`) are the operator's to copy.

use crate::args::{Location, MigrateArgs};
use crate::console::{Console, Step};
use crate::files::{self, Access, Fault};
use crate::pki::Authority;
use crate::settings::EtcdServers;
use crate::signals::stop_on_signal;
use crate::storage::AUTHORITY;
use anyhow::Context as _;
use fleetpass_api::clock;
use fleetpass_store::migrate::{self, MigrateError, Options, Progress, Target, Unfinished};
use fleetpass_store::{EmbeddedOptions, EmbeddedStore, Encryption, EtcdStore, KeyRing};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For how long it is seen that nobody writes to an etcd that is copied. A hub whose controllers are elected renews its Lease every
/// 2 seconds.
const QUIET: Duration = Duration::from_secs(6);
/// What is sealed, as in the hub.
const SEALED: &str = "/registry/secrets/";

/// Moves the objects.
///
/// # Errors
///
/// A store cannot be opened, the target is not empty, the source is in use, or what was copied is not the same. What is in
/// the source is never changed.
pub(crate) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    if let (Location::Etcd(_), Location::Etcd(_)) = (&args.from, &args.to) {
        anyhow::bail!(
            "--from and --to are both etcd: etcdctl snapshot copies one; here one of them is embedded"
        );
    }
    anyhow::ensure!(args.from != args.to, "--from and --to are the same");
    if let Location::Embedded(directory) = &args.from
        && !EmbeddedStore::is_in(&directory.join("store"))
    {
        return Err(Fault::new(
            &directory.join("store"),
            "holds no store",
            "give the data directory of a hub",
        )
        .into());
    }
    // Before any store is opened or made: without the keys nothing can be copied.
    let key_file = key_file(&args)?;
    let source = open(&args, &args.from, key_file.as_deref()).await.context("--from")?;
    // May be dropped anywhere: once something was written, the mark in the target says that it is not complete.
    let result = tokio::select! {
        result = to_target(&args, &*source.store, key_file.as_deref()) => result,
        () = stop.cancelled() => Err(anyhow::anyhow!("interrupted: run it again, and it goes on where it stopped")),
    };
    source.store.close().await;
    result
}

async fn to_target(args: &MigrateArgs, source: &dyn Target, key_file: Option<&Path>) -> anyhow::Result<()> {
    if let (Location::Embedded(directory), Some(keys)) = (&args.to, key_file) {
        copy_keys(keys, directory)?;
    }
    let target = open(args, &args.to, key_file).await.context("--to")?;
    let console = Console::new();
    console.line(&format!("{} → {}\n", args.from, args.to));
    let options = Options {
        unfinished: if args.discard_unfinished { Unfinished::Discard } else { Unfinished::Resume },
        quiet: match args.from {
            // It is locked.
            Location::Embedded(_) => Duration::ZERO,
            Location::Etcd(_) => QUIET,
        },
    };
    let mut shown = ProgressDisplay { console, step: Some(console.step("reading the source")) };
    let result =
        migrate::migrate(source, &*target.store, options, &mut |progress| shown.progress(progress)).await;
    drop(shown.step.take());
    // Before the target is closed, and only if all was copied.
    let noted = match (&result, &target.notes) {
        (Ok(_), Some(notes)) => leave_authority(&args.from, notes).await,
        _ => Ok(()),
    };
    target.store.close().await;
    let report = result.map_err(|error| explained(&error, args))?;
    noted?;
    console.done("compared", &format!("{} entries, SHA-256 {}", report.entries, report.digest));
    console.done("revision", &format!("{}, was {}", report.target, report.source));
    console.line(&format!("\nNothing was changed in {}; start no hub on its objects any more.", args.from));
    if let Location::Embedded(directory) = &args.to
        && !directory.join("pki").exists()
    {
        console.line(&format!(
            "{} has no pki/: copy that of the hub, or a new authority and signing key are made and all tokens end.",
            directory.display()
        ));
    }
    Ok(())
}

/// The file with the keys that seal Secrets; none if there is none and nothing is to be sealed.
fn key_file(args: &MigrateArgs) -> anyhow::Result<Option<PathBuf>> {
    let usual = match (&args.from, &args.to) {
        (Location::Embedded(directory), _) | (_, Location::Embedded(directory)) => {
            Some(directory.join("encryption.key"))
        }
        (Location::Etcd(_), Location::Etcd(_)) => None,
    };
    match args.encryption_key_file.clone().or(usual) {
        Some(file) if file.exists() => Ok(Some(file)),
        Some(file) if args.encrypt_secrets || args.encryption_key_file.is_some() => {
            let remedy = "name the file with --encryption-key-file, or give --encrypt-secrets=false";
            Err(Fault::new(&file, "does not exist", remedy).into())
        }
        _ => Ok(None),
    }
}

/// Puts the keys where the hub of an embedded store looks for them.
fn copy_keys(from: &Path, directory: &Path) -> anyhow::Result<()> {
    let keys = files::read_required(from, Access::OwnerOnly)?;
    let to = directory.join("encryption.key");
    match files::read(&to, Access::OwnerOnly)? {
        Some(present) if *present == *keys => {}
        Some(_) => {
            let problem = format!("has other keys than {}", from.display());
            let remedy = "move it away, or name the right file with --encryption-key-file";
            return Err(Fault::new(&to, problem, remedy).into());
        }
        None => {
            files::create_directory(directory)?;
            files::write(&to, &keys)?;
        }
    }
    Ok(())
}

/// A store of either kind.
struct Opened {
    store: Box<dyn Target>,
    /// Where hubs on etcd leave notes for each other.
    notes: Option<EtcdStore>,
}

async fn open(args: &MigrateArgs, location: &Location, key_file: Option<&Path>) -> anyhow::Result<Opened> {
    let prefixes = if args.encrypt_secrets { vec![SEALED.to_owned()] } else { Vec::new() };
    let keys = key_file.map(KeyRing::load).transpose()?;
    let encryption = keys.map(|keys| Encryption { keys, prefixes });
    match location {
        Location::Embedded(directory) => {
            files::create_directory(directory)?;
            let mut options = EmbeddedOptions::new(directory.join("store"));
            options.encryption = encryption;
            Ok(Opened { store: Box::new(EmbeddedStore::open(options).await?), notes: None })
        }
        Location::Etcd(servers) => {
            let servers = EtcdServers {
                servers: servers.clone(),
                prefix: args.etcd_prefix.clone(),
                ca_file: args.etcd_cafile.clone(),
                client_files: args.etcd_certfile.clone().zip(args.etcd_keyfile.clone()),
                compaction_interval: None,
            };
            let store = EtcdStore::open(servers.options(encryption)?).await?;
            Ok(Opened { store: Box::new(store.clone()), notes: Some(store) })
        }
    }
}

/// Tells hubs on etcd whose objects these are: one with another authority, or with none, does not start on them.
async fn leave_authority(from: &Location, notes: &EtcdStore) -> anyhow::Result<()> {
    let Location::Embedded(directory) = from else { return Ok(()) };
    let pki = directory.join("pki");
    // Only an authority that is there: opening a missing one would make it.
    if pki.join("ca.key").exists() {
        let authority = Authority::open(&pki, "hub", clock::system().now())?;
        notes.set_note(AUTHORITY, &authority.key_id()).await.context("--to")?;
    }
    Ok(())
}

/// What happened, and what an operator can do about it.
fn explained(error: &MigrateError, args: &MigrateArgs) -> anyhow::Error {
    let remedy = match error {
        MigrateError::SourceUnfinished => "complete that migration first",
        MigrateError::NotEmpty { .. } => "nothing is written over: empty it or choose another",
        MigrateError::OtherSource | MigrateError::OtherVersion | MigrateError::Foreign { .. } => {
            "with --discard-unfinished it is emptied and filled anew"
        }
        MigrateError::SourceChanged => "stop all hubs, and run it again",
        MigrateError::Different { .. } => "run it again with --discard-unfinished",
        _ => "run it again, and it goes on where it stopped",
    };
    anyhow::anyhow!("{} was not moved to {}: {error}; {remedy}", args.from, args.to)
}

/// What the user sees.
struct ProgressDisplay {
    console: Console,
    step: Option<Step>,
}

impl ProgressDisplay {
    fn progress(&mut self, progress: Progress) {
        match progress {
            Progress::Read { entries, revision } => {
                self.done("read", &format!("{entries} entries at revision {revision}"));
                self.now("looking at the target");
            }
            Progress::Waiting => self.now("seeing that nobody writes to the source"),
            Progress::Marked { present: 0 } => {}
            Progress::Marked { present } => {
                self.done("continued", &format!("{present} entries were there already"))
            }
            Progress::Raising { now, to } => self.now(&format!("raising the revision: {now} of {to}")),
            Progress::Copying { done, of } if done == of => self.done("copied", &format!("{of} entries")),
            Progress::Copying { done, of } => self.now(&format!("copying: {done} of {of} entries")),
            Progress::Comparing => self.now("comparing"),
        }
    }

    fn done(&mut self, what: &str, detail: &str) {
        match self.step.take() {
            Some(step) => step.done(what, detail),
            None => self.console.done(what, detail),
        }
    }

    fn now(&mut self, doing: &str) {
        match &self.step {
            Some(step) => step.now(doing),
            None => self.step = Some(self.console.step(doing)),
        }
    }
}
