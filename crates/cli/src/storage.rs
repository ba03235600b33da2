//! Where a control plane keeps its objects: in its data directory, or on an etcd that it may share with others.

use crate::files::{self, Access, Fault};
use crate::pki::Authority;
use crate::settings::{EtcdServers, Settings, Storage};
use anyhow::{Context as _, bail};
use fleetpass_api::clock;
use fleetpass_store::{
    EmbeddedOptions, EmbeddedStore, Encryption, EtcdOptions, EtcdStore, EtcdTls, KeyRing, OpenError, Store,
};
use std::path::Path;
use std::sync::Arc;

/// A store that was opened.
pub(crate) struct Opened {
    /// The store.
    pub(crate) store: Arc<dyn Store>,
    /// Whether there were objects before.
    pub(crate) continued: bool,
    /// If replicas may share the store: where they leave notes for each other.
    notes: Option<EtcdStore>,
}

/// The note with the key of the certificate authority.
pub(crate) const AUTHORITY: &str = "authority";
/// The note with the key that signs tokens.
const SIGNING_KEY: &str = "signing-key";

/// Opens the store that the settings name.
///
/// # Errors
///
/// The data directory or etcd cannot be used; the error says what to do. What was there has not been changed.
pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Opened> {
    let key_file = settings.directory.join("encryption.key");
    match &settings.storage {
        Storage::Embedded => {
            let directory = settings.directory.join("store");
            // Asked before the store is opened, which makes it. A start that failed may have left the directory without it.
            let continued = EmbeddedStore::is_in(&directory);
            let store = open_embedded(settings, &directory, &key_file).await?;
            Ok(Opened { store: Arc::new(store), continued, notes: None })
        }
        Storage::Etcd(servers) => open_etcd(settings, servers, &key_file).await,
    }
}

async fn open_etcd(settings: &Settings, servers: &EtcdServers, key_file: &Path) -> anyhow::Result<Opened> {
    let embedded = settings.directory.join("store");
    if embedded.exists() {
        bail!(
            "--etcd-servers: the data directory has objects of its own in {}, which would not be seen; name another \
             --data-dir, or move the folder away",
            embedded.display()
        );
    }
    // First without keys, so that none are made for a store whose keys are elsewhere.
    let probe = EtcdStore::open(servers.options(None)?).await?;
    let shared = probe.note(AUTHORITY).await.context("etcd")?.is_some();
    probe.close().await;
    if shared && !settings.directory.join("pki/ca.key").exists() {
        bail!(
            "the etcd at {} holds the objects of a hub whose keys are not in {directory}: copy encryption.key, \
             pki/ca.crt, pki/ca.key and pki/sa.key from that hub's data directory to this one",
            servers.servers.join(","),
            directory = settings.directory.display(),
        );
    }
    // The directory has the keys even though the objects are elsewhere.
    files::create_directory(&settings.directory)?;
    let keys = match key_file.exists() || settings.encrypt_secrets {
        true => Some(load_keys(key_file)?),
        false => None,
    };
    let encryption = keys.map(|keys| Encryption { keys, prefixes: sealed(settings) });
    let store = EtcdStore::open(servers.options(encryption)?).await?;
    Ok(Opened { store: Arc::new(store.clone()), continued: shared, notes: Some(store) })
}

impl Opened {
    /// Sees that this replica and the others have the same certificate authority and know each other's signing keys;
    /// the first one leaves its own as notes.
    ///
    /// # Errors
    ///
    /// They differ: clients of one would not trust the other, or tokens of one would not be good at the other.
    pub(crate) async fn agree(
        &self,
        authority: &Authority,
        signs: &str,
        verifies: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        let Some(notes) = &self.notes else { return Ok(()) };
        let ours = authority.key_id();
        // Read, then written, without a compare: of two replicas that start for the first time in the same moment the later
        // note stays, and the other replica says so at its next start.
        match notes.note(AUTHORITY).await? {
            None => notes.set_note(AUTHORITY, &ours).await?,
            Some(theirs) if theirs == ours => {}
            Some(theirs) => bail!(
                "another hub on this etcd has another certificate authority (key {theirs}, here {ours}): copy pki/ca.crt \
                 and pki/ca.key from its data directory to this one"
            ),
        }
        match notes.note(SIGNING_KEY).await? {
            Some(theirs) if theirs == signs => Ok(()),
            Some(theirs) if !verifies(&theirs) => bail!(
                "another hub on this etcd signs tokens with the key {theirs}, which this one does not know: copy \
                 pki/sa.key from its data directory to this one, or name its public key with \
                 --service-account-key-file"
            ),
            // A new key: to be rolled out to the replicas one by one, each with the old one as a further key.
            _ => Ok(notes.set_note(SIGNING_KEY, signs).await?),
        }
    }
}

impl EtcdServers {
    /// How the engine is told about it.
    pub(crate) fn options(&self, encryption: Option<Encryption>) -> anyhow::Result<EtcdOptions> {
        let identity = match &self.client_files {
            Some((certificate, key)) => {
                let certificate =
                    files::read_required(certificate, Access::Given).context("--etcd-certfile")?;
                let key = files::read_required(key, Access::Given).context("--etcd-keyfile")?;
                Some((certificate.to_vec(), key))
            }
            None => None,
        };
        let ca = self.ca_file.as_ref().map(|path| files::read_required(path, Access::Given));
        let ca = ca.transpose().context("--etcd-cafile")?;
        Ok(EtcdOptions {
            servers: self.servers.clone(),
            prefix: self.prefix.clone(),
            tls: ca.map(|ca| EtcdTls { ca: ca.to_vec(), identity }),
            encryption,
            compaction_interval: self.compaction_interval,
        })
    }
}

/// The prefixes of what is sealed. Without any, nothing new is sealed, and what was sealed before still opens.
fn sealed(settings: &Settings) -> Vec<String> {
    if settings.encrypt_secrets { vec!["/registry/secrets/".to_owned()] } else { Vec::new() }
}

async fn open_embedded(
    settings: &Settings,
    directory: &Path,
    key_file: &Path,
) -> anyhow::Result<EmbeddedStore> {
    files::create_directory(&settings.directory)?;
    let options = |keys: Option<KeyRing>| {
        let mut options = EmbeddedOptions::new(directory);
        options.encryption = keys.map(|keys| Encryption { keys, prefixes: sealed(settings) });
        let clock = clock::system();
        options.clock = Some(Arc::new(move || u64::try_from(clock.now().as_second()).unwrap_or(0)));
        options
    };
    let keys = if key_file.exists() {
        Some(load_keys(key_file)?)
    } else if settings.encrypt_secrets {
        if directory.exists() {
            // A new key must not hide that the old one was lost: sealed values have to say so first.
            EmbeddedStore::open(options(None))
                .await
                .map_err(|error| lost_key(error, key_file))?
                .close()
                .await;
        }
        Some(load_keys(key_file)?)
    } else {
        None
    };
    Ok(EmbeddedStore::open(options(keys)).await?)
}

fn load_keys(path: &Path) -> Result<KeyRing, OpenError> {
    KeyRing::load_or_create(path)
}

fn lost_key(error: OpenError, key_file: &Path) -> anyhow::Error {
    match error {
        OpenError::MissingKey { .. } => {
            let remedy = "restore it from a backup: without its keys the Secrets cannot be read";
            Fault::new(key_file, "is missing although the store holds encrypted Secrets", remedy).into()
        }
        other => other.into(),
    }
}
