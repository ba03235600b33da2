//! A library that serves Kubernetes-style APIs from a store.
//!
//! # A request's way
//!
//! ```text
//!                 server::listener, server::connection      TLS, HTTP/1.1 and HTTP/2, limits
//!                                │
//!                 server::handler                           alias → RequestInfo → authn → audit → impersonation → authz
//!                                │
//!          ┌─────────────────────┼──────────────────────┐
//!  server::nonresource    server::resource       server::documents
//!  health, discovery,     decode, options        OpenAPI
//!  OIDC, metrics                 │
//!                         registry                          one engine for all kinds; asks the kind's strategy what is
//!                                │                          special about it
//!                 ┌──────────────┴─────────────┐
//!           Store::commit (a transaction)    cache          the latest objects and recent events; lists and watches
//!                                              │
//!                                       server::render      JSON, YAML, Table, PartialObjectMetadata, protobuf
//! ```
//!
//! A kind is a row of the `catalog`: names, versions, schemas, columns and a [`strategy`]. Built-in kinds are the files of
//! [`resources`]; `definitions` adds a row for each CRD while the server runs.
//!
//! # What it does not do
//!
//! - It brings no controllers: nothing here deletes the content of a namespace or what lost its owner. They are clients,
//!   and run over [`ApiServer::client_service`] as well as over a network.
//! - It knows no command line, no files but the audit log's, and no clock but the one it is given.
//! - There are no admission webhooks, no API aggregation, no conversion webhooks; a CRD that asks for conversion by a webhook
//!   is accepted and not served.
//! - The registry knows no kind by name: what is special about a kind is in the file of that kind.
//!
//! # Example
//!
//! A server in memory, asked in process; [`ApiServer::serve`] does the same for TLS connections.
//!
//! ```
//! use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};
//! use fleetpass_apiserver::{ApiServer, ConnectionLimits, Options, RequestLimits};
//! use fleetpass_auth::authn::TokenFile;
//! use fleetpass_store::MemoryStore;
//! use fleetpass_token::claims::Lifetimes;
//! use fleetpass_token::key::{KeyKind, SigningKey};
//! use fleetpass_token::ring::KeyRing;
//! use http_body_util::{BodyExt as _, Empty};
//! use secrecy::ExposeSecret as _;
//! use std::sync::Arc;
//! use tower::ServiceExt as _;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let key = SigningKey::generate_pem(KeyKind::P256)?;
//! let options = Options {
//!     store: Arc::new(MemoryStore::default()),
//!     clock: fleetpass_api::clock::system(),
//!     key_ring: KeyRing::new(SigningKey::from_pem(key.expose_secret().as_bytes())?),
//!     issuers: vec!["https://kubernetes.default.svc".into()],
//!     api_audiences: Vec::new(),
//!     lifetimes: Lifetimes::default(),
//!     token_users: TokenFile::parse("")?,
//!     external_address: "127.0.0.1:6443".into(),
//!     jwks_uri: None,
//!     crds: Vec::new(),
//!     audit: None,
//!     limits: RequestLimits::default(),
//!     connections: ConnectionLimits::default(),
//! };
//! let server = ApiServer::start(options, tokio_util::sync::CancellationToken::new()).await?;
//!
//! let user = UserInfo { name: "root".into(), groups: vec![SYSTEM_MASTERS.into()], ..UserInfo::default() };
//! let request = http::Request::get("/api/v1/namespaces/default").body(Empty::<bytes::Bytes>::new())?;
//! let response = server.client_service(user).oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! let body = response.into_body().collect().await?.to_bytes();
//! assert!(body.starts_with(br#"{"kind":"Namespace","apiVersion":"v1","metadata":{"#));
//! # Ok(())
//! # }
//! ```

pub mod alias;
pub mod audit;
mod cache;
mod catalog;
mod definitions;
mod discovery;
mod openapi;
mod registry;
pub mod resources;
mod server;
pub mod strategy;
mod system_user;
mod work;

pub use server::body;
pub use server::tls;
pub use server::{ApiServer, ClientService, ConnectionLimits, Options, RequestLimits, StartError};
