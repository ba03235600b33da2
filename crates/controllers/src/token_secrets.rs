//! Secrets of type `kubernetes.io/service-account-token`: they hold a token of the account that they name.
//!
//! # Flow
//! A Secret with the annotation `kubernetes.io/service-account.name` that changes comes into the queue. If it is of
//! this type and its account exists it is filled with what it lacks: the token, the CA bundle, the namespace. If its
//! account does not exist it is deleted. An account that goes takes its Secrets with it.
//! (`pkg/controller/serviceaccount/tokens_controller.go`.)
//!
//! # Guarantees
//! - No Secret is deleted before the server was asked for its account; the deletion has the Secret's UID as
//!   precondition.
//! - A token that is there is never replaced; a CA bundle that differs is.
//! - Values of Secrets are neither kept nor logged. Tokens are signed outside of the reactor.
//!
//! # Caveats
//! Such tokens never expire; the TokenRequest API gives better ones. Accounts get no Secret by themselves.

use crate::Error;
use crate::discovery::ResourceType;
use crate::live::{self, api, is_conflict};
use crate::monitor::{Event, Observer};
use crate::queue::{Backlog, Next, Queue, queue, work};
use fleetpass_token::claims::{Account, LegacyClaims};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{DeleteParams, Preconditions};
use kube::core::{ApiResource, DynamicObject};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

/// The type of these Secrets.
const TYPE: &str = "kubernetes.io/service-account-token";
/// The annotation that names the account.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// The annotation that tells the account's UID.
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Signs the tokens that live in Secrets. A trait, because keys belong to the server, which the controllers do not
/// know.
pub trait TokenIssuer: Send + Sync + 'static {
    /// The signed token that says `claims`. Called where blocking is allowed.
    ///
    /// # Errors
    /// Why it cannot be signed, without the key or the token.
    fn issue(&self, claims: &LegacyClaims) -> Result<SecretString, Box<dyn std::error::Error + Send + Sync>>;
}

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A Secret.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The Secrets of an account that went.
    Account {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The reference of an account to a Secret that went.
    Reference {
        /// Their namespace.
        namespace: String,
        /// The account.
        account: String,
        /// The Secret.
        secret: String,
    },
    /// All such Secrets: the end of an account may have been missed.
    All,
}

struct Listener {
    queue: Queue<Key>,
    /// Whether accounts were listed before. Only the observing task writes it, so relaxed ordering is enough.
    listed: AtomicBool,
}

impl Observer for Listener {
    fn observe(&self, resource: &Arc<ResourceType>, event: &Event) {
        if resource.is("", "secrets") {
            let (Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)) = event else {
                return;
            };
            // Metadata does not tell a Secret's type; the annotation is what those of this type have and few others.
            let Some(account) = annotation(&object.metadata, ACCOUNT_NAME) else { return };
            let namespace = object.metadata.namespace.clone().unwrap_or_default();
            let name = object.metadata.name.clone().unwrap_or_default();
            self.queue.add(match event {
                Event::Delete(_) => Key::Reference { namespace, account: account.into(), secret: name },
                _ => Key::Secret { namespace, name },
            });
        } else if resource.is("", "serviceaccounts") {
            match event {
                Event::Delete(object) => self.queue.add(Key::Account {
                    namespace: object.metadata.namespace.clone().unwrap_or_default(),
                    name: object.metadata.name.clone().unwrap_or_default(),
                }),
                // A later list follows a broken watch, in whose gap an account may have gone. After the first one all
                // Secrets are looked at anyway, because they are listed too.
                Event::InitDone if self.listed.swap(true, Ordering::Relaxed) => self.queue.add(Key::All),
                _ => {}
            }
        }
    }
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// Fills and removes Secrets.
pub(crate) struct Keeper {
    client: Client,
    issuer: Arc<dyn TokenIssuer>,
    root_ca: Option<String>,
    queue: Queue<Key>,
}

/// The keeper, its backlog, and what must observe the resources.
pub(crate) fn keeper(
    client: Client,
    issuer: Arc<dyn TokenIssuer>,
    root_ca: Option<String>,
) -> (Keeper, Backlog<Key>, Box<dyn Observer>) {
    let (queue, backlog) = queue();
    let listener = Listener { queue: queue.clone(), listed: AtomicBool::new(false) };
    (Keeper { client, issuer, root_ca, queue }, backlog, Box::new(listener))
}

/// Keeps Secrets until `stop`.
pub(crate) async fn run(keeper: Keeper, backlog: Backlog<Key>, stop: CancellationToken) {
    work("token-secrets", backlog, 8, stop, |key| keeper.reconcile(key)).await;
}

/// What a Secret lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Lacks {
    token: bool,
    namespace: bool,
    ca: bool,
}

/// What the `data` of a Secret lacks.
fn lacks(data: Option<&Value>, root_ca: Option<&ByteString>) -> Lacks {
    let value = |key: &str| data.and_then(|data| data.get(key)).and_then(Value::as_str).unwrap_or_default();
    let ca = root_ca.is_some_and(|bundle| json!(bundle) != *value("ca.crt"));
    Lacks { token: value("token").is_empty(), namespace: value("namespace").is_empty(), ca }
}

/// Whether `account` is the one that the Secret names; it need not tell the UID.
fn names(secret: &ObjectMeta, account: &ObjectMeta) -> bool {
    annotation(secret, ACCOUNT_UID).is_none_or(|uid| Some(uid) == account.uid.as_deref())
}

fn secrets() -> ApiResource {
    ApiResource::erase::<Secret>(&())
}

fn accounts() -> ApiResource {
    ApiResource::erase::<ServiceAccount>(&())
}

impl Keeper {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        match key {
            Key::Secret { namespace, name } => self.secret(&namespace, &name).await?,
            Key::Account { namespace, name } => self.enqueue(Some(&namespace), Some(&name)).await?,
            Key::Reference { namespace, account, secret } => {
                self.unrefer(&namespace, &account, &secret).await?
            }
            Key::All => self.enqueue(None, None).await?,
        }
        Ok(Next::Wait)
    }

    /// Puts the Secrets of an account (or all) into the queue.
    async fn enqueue(&self, namespace: Option<&str>, account: Option<&str>) -> Result<(), Error> {
        let selector = format!("type={TYPE}");
        for meta in live::list(&self.client, &secrets(), namespace, Some(&selector)).await? {
            let named = annotation(&meta, ACCOUNT_NAME);
            if named.is_some() && (account.is_none() || named == account) {
                let namespace = meta.namespace.unwrap_or_default();
                self.queue.add(Key::Secret { namespace, name: meta.name.unwrap_or_default() });
            }
        }
        Ok(())
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<(), Error> {
        let objects = api(&self.client, &secrets(), Some(namespace));
        let Some(secret) = objects.get_opt(name).await? else { return Ok(()) };
        if secret.data.get("type").and_then(Value::as_str) != Some(TYPE)
            || secret.metadata.deletion_timestamp.is_some()
        {
            return Ok(());
        }
        let Some(account_name) = annotation(&secret.metadata, ACCOUNT_NAME) else { return Ok(()) };
        let account = live::metadata(&api(&self.client, &accounts(), Some(namespace)), account_name).await?;
        let Some(account) = account.filter(|account| names(&secret.metadata, account)) else {
            // The account was asked for just now, and not found, or is another. The UID as precondition: whatever else
            // of the Secret changed meanwhile, it names an account that is gone.
            let uid = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
            return match live::delete(&objects, name, &DeleteParams::default().preconditions(uid)).await {
                // Another Secret of this name was made meanwhile, and comes by itself.
                Err(Error::Kube(error)) if is_conflict(&error) => Ok(()),
                result => result,
            };
        };
        let root_ca = self.root_ca.as_ref().map(|bundle| ByteString(bundle.clone().into_bytes()));
        let lacks = lacks(secret.data.get("data"), root_ca.as_ref());
        if lacks == Lacks::default() {
            return Ok(());
        }
        let mut data = Map::new();
        // What is there is left: somebody uses that token, and a second one would not end the first.
        if lacks.token {
            data.insert("token".into(), self.token(&account, name).await?);
        }
        if lacks.namespace {
            data.insert("namespace".into(), json!(ByteString(namespace.as_bytes().to_vec())));
        }
        if let Some(bundle) = root_ca.filter(|_| lacks.ca) {
            data.insert("ca.crt".into(), json!(bundle));
        }
        self.fill(&objects, &secret, &account, data).await
    }

    /// Writes `data` and who the account is into the Secret as it was read.
    async fn fill(
        &self,
        objects: &kube::Api<DynamicObject>,
        secret: &DynamicObject,
        account: &ObjectMeta,
        data: Map<String, Value>,
    ) -> Result<(), Error> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let annotations = json!({ACCOUNT_NAME: account.name, ACCOUNT_UID: account.uid});
        let metadata = json!({"uid": secret.metadata.uid, "resourceVersion": secret.metadata.resource_version,
            "annotations": annotations});
        match live::merge(objects, name, &json!({"metadata": metadata, "data": data})).await {
            // It changed, and comes again by itself.
            Err(Error::Kube(error)) if is_conflict(&error) => Ok(()),
            result => result.map(drop),
        }
    }

    /// A token of the account in the Secret `secret`, as a value of its data.
    async fn token(&self, account: &ObjectMeta, secret: &str) -> Result<Value, Error> {
        let account = Account {
            namespace: account.namespace.as_deref().unwrap_or_default(),
            name: account.name.as_deref().unwrap_or_default(),
            uid: account.uid.as_deref().unwrap_or_default(),
        };
        let claims = LegacyClaims::new(&account, secret);
        let issuer = self.issuer.clone();
        // A signature with RSA takes about a millisecond, during which nothing else of this thread would go on. If this
        // is dropped meanwhile, the token is signed and thrown away.
        let token = tokio::task::spawn_blocking(move || issuer.issue(&claims)).await;
        let token =
            token.map_err(|error| Error::Incomplete(format!("signing a token ended early: {error}")))?;
        let token = token.map_err(Error::Token)?;
        Ok(json!(ByteString(token.expose_secret().as_bytes().to_vec())))
    }

    /// Takes the Secret out of the account's `secrets`.
    async fn unrefer(&self, namespace: &str, account: &str, secret: &str) -> Result<(), Error> {
        let objects = api(&self.client, &accounts(), Some(namespace));
        let Some(found) = objects.get_opt(account).await? else { return Ok(()) };
        let references = found.data.get("secrets").and_then(Value::as_array).cloned().unwrap_or_default();
        // The Secret may exist anew under its name: then the reference is right again.
        let kept: Vec<_> = references.iter().filter(|reference| reference["name"] != secret).collect();
        if kept.len() == references.len()
            || live::metadata(&api(&self.client, &secrets(), Some(namespace)), secret).await?.is_some()
        {
            return Ok(());
        }
        let metadata = json!({"uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version});
        live::merge(&objects, account, &json!({"metadata": metadata, "secrets": kept})).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{Answer, server};
    use std::sync::Mutex;

    struct Plain;
    impl TokenIssuer for Plain {
        fn issue(
            &self,
            claims: &LegacyClaims,
        ) -> Result<SecretString, Box<dyn std::error::Error + Send + Sync>> {
            Ok(format!("{} in {}", claims.sub, claims.secret_name).into())
        }
    }

    #[test]
    fn what_is_there_is_not_lacking() {
        let bundle = ByteString(b"PEM".to_vec());
        let full = json!({"token": "eA==", "namespace": "eA==", "ca.crt": "UEVN"});
        assert_eq!(lacks(Some(&full), Some(&bundle)), Lacks::default());
        assert_eq!(lacks(None, Some(&bundle)), Lacks { token: true, namespace: true, ca: true });
        assert_eq!(lacks(Some(&json!({"token": "eA==", "namespace": "eA=="})), None), Lacks::default());
        let old = json!({"token": "eA==", "namespace": "eA==", "ca.crt": "T0xE"});
        assert_eq!(lacks(Some(&old), Some(&bundle)), Lacks { ca: true, ..Lacks::default() });
    }

    /// What is written for a Secret with this type, UID annotation and data, when the account has the UID `u`.
    async fn writes(kind: &str, uid: &str, data: Value, account: bool) -> Vec<(String, Value)> {
        let writes: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let log = writes.clone();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "data": data,
            "metadata": {"name": "s", "namespace": "n", "uid": "s-uid", "resourceVersion": "9",
                "annotations": {ACCOUNT_NAME: "robot", ACCOUNT_UID: uid}}});
        let client = server(move |request| match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/api/v1/namespaces/n/secrets/s") => Answer::ok(secret.clone()),
            ("GET", "/api/v1/namespaces/n/serviceaccounts/robot") if account => {
                Answer::ok(json!({"metadata": {"name": "robot", "namespace": "n", "uid": "u"}}))
            }
            ("GET", _) => Answer::not_found(),
            (method, _) => {
                log.lock().unwrap().push((method.into(), request.body.clone()));
                Answer::ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
            }
        });
        let (keeper, _backlog, _) = keeper(client, Arc::new(Plain), Some("PEM".into()));
        keeper.reconcile(Key::Secret { namespace: "n".into(), name: "s".into() }).await.unwrap();
        let writes = writes.lock().unwrap();
        writes.clone()
    }

    #[tokio::test]
    async fn a_secret_of_an_account_is_filled_as_it_was_read() {
        let writes = writes(TYPE, "", Value::Null, true).await;
        assert_eq!(writes.len(), 1);
        let (method, patch) = &writes[0];
        assert_eq!((method.as_str(), patch["metadata"]["resourceVersion"].as_str()), ("PATCH", Some("9")));
        assert_eq!(patch["metadata"]["annotations"][ACCOUNT_UID], "u");
        let token: ByteString = serde_json::from_value(patch["data"]["token"].clone()).unwrap();
        assert_eq!(token.0, b"system:serviceaccount:n:robot in s");
        assert_eq!(patch["data"]["namespace"], "bg==");
        assert_eq!(patch["data"]["ca.crt"], "UEVN");
    }

    #[tokio::test]
    async fn a_secret_without_its_account_is_deleted_and_foreign_ones_are_left() {
        for (uid, account) in [("", false), ("another", true)] {
            let writes = writes(TYPE, uid, Value::Null, account).await;
            assert_eq!(writes.len(), 1);
            assert_eq!(writes[0].0, "DELETE");
            assert_eq!(writes[0].1["preconditions"], json!({"uid": "s-uid"}));
        }
        assert!(writes("Opaque", "", Value::Null, false).await.is_empty());
        let full = json!({"token": "eA==", "namespace": "eA==", "ca.crt": "UEVN"});
        assert!(writes(TYPE, "u", full, true).await.is_empty());
    }
}
