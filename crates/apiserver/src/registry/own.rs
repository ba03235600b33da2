//! What the server itself writes: bootstrap objects, the status of CRDs.

use super::engine::Registry;
use super::scope::Scope;
use crate::catalog::Row;
use crate::strategy::{Handler, Strategy, WriteOptions};
use crate::system_user::system_user;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_codec::options::DeleteOptions;
use serde_json::Value;
use std::sync::Arc;

/// What a write of the server itself does with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnWrite {
    /// It is not there yet.
    Create,
    /// It is there and is changed.
    Update,
    /// It is there, but what has to change is immutable: it is deleted and created again.
    Replace,
}

/// The options of the server's own writes: they are owned by the field manager that a real server's are owned by.
pub(super) fn own_options() -> WriteOptions {
    WriteOptions { dry_run: false, field_manager: "kube-apiserver".into() }
}

impl Registry {
    /// Writes a cluster-scoped object of a built-in kind.
    pub(crate) async fn write_own(
        &self,
        group: &str,
        plural: &str,
        mut object: Value,
        how: OwnWrite,
    ) -> Result<(), Status> {
        let row = self.row(group, plural)?;
        let strategy = row.strategy().cloned().ok_or_else(Status::method_not_allowed)?;
        let (user, options) = (system_user(), own_options());
        let name = meta::name(&object).to_string();
        let scope = self.own_scope(&row, &*strategy, &name, "", &user, &options);
        strategy.default(&mut object);
        // Not atomic: if the server dies in between, its next start finds nothing and creates.
        if how == OwnWrite::Replace {
            self.delete(&scope, &DeleteOptions::default()).await?;
        }
        let result = match how {
            OwnWrite::Update => self.update(&scope, object).await,
            // As on the collection's path: the name of a new object is that of its body.
            OwnWrite::Create | OwnWrite::Replace => self.create(&Scope { name: "", ..scope }, object).await,
        };
        match result {
            Ok(_) => Ok(()),
            // Another replica created it first; all of them bring along the same objects.
            Err(status) if status.reason == "AlreadyExists" => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Updates a subresource of a cluster-scoped object of a built-in kind; an empty `subresource` means the object itself.
    pub(crate) async fn update_own(
        &self,
        group: &str,
        plural: &str,
        subresource: &'static str,
        object: Value,
    ) -> Result<(), Status> {
        let row = self.row(group, plural)?;
        let name = meta::name(&object).to_string();
        let version = row.resource.versions.first().map(|v| v.name.clone()).unwrap_or_default();
        let strategy = match row.subresource(subresource, &version).map(|s| &s.handler) {
            Some(Handler::Update(strategy)) => strategy.clone(),
            _ => row.strategy().cloned().ok_or_else(Status::method_not_allowed)?,
        };
        let (user, options) = (system_user(), own_options());
        let scope = self.own_scope(&row, &*strategy, &name, subresource, &user, &options);
        self.update(&scope, object).await.map(|_| ())
    }

    /// Deletes all objects of a custom kind; those with finalizers stay marked. Returns how many are left.
    pub(crate) async fn delete_all(&self, row: &Arc<Row>) -> Result<usize, Status> {
        let Some(strategy) = row.strategy().cloned() else { return Ok(0) };
        let (user, options) = (system_user(), WriteOptions::default());
        let (_, objects) = self.cache.snapshot(&row.storage_prefix);
        let objects: Vec<_> = objects.iter().map(|(_, object)| object.clone()).collect();
        let scope = self.own_scope(row, &*strategy, "", "", &user, &options);
        self.delete_listed(&scope, &objects, &DeleteOptions::default()).await?;
        Ok(self.cache.snapshot(&row.storage_prefix).1.len())
    }

    fn row(&self, group: &str, plural: &str) -> Result<Arc<Row>, Status> {
        self.catalog.kinds().get(group, plural).cloned().ok_or_else(Status::unknown_path)
    }

    pub(super) fn own_scope<'a>(
        &self,
        row: &'a Arc<Row>,
        strategy: &'a dyn Strategy,
        name: &'a str,
        subresource: &'a str,
        user: &'a UserInfo,
        options: &'a WriteOptions,
    ) -> Scope<'a> {
        Scope {
            row,
            version: &row.resource.versions[0],
            user,
            namespace: "",
            name,
            subresource,
            strategy,
            options,
            user_agent: "kube-apiserver",
            now: self.now(),
        }
    }
}
