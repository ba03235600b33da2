//! What the server itself writes: bootstrap objects, the status of CRDs.

use super::{Registry, Scope};
use crate::catalog::Row;
use crate::strategy::{Handler, Strategy, WriteOptions};
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_codec::options::DeleteOptions;
use serde_json::Value;
use std::sync::Arc;

impl Registry {
    /// Creates, updates, or deletes and creates again (`replace`) a cluster-scoped object of a built-in kind.
    #[allow(clippy::too_many_arguments)] // one call site, and each argument is a fact of its own
    pub(crate) async fn write_own(
        &self,
        group: &str,
        plural: &str,
        name: &str,
        mut object: Value,
        exists: bool,
        replace: bool,
        user: &UserInfo,
        options: &WriteOptions,
    ) -> Result<(), Status> {
        let row = self.row(group, plural)?;
        let strategy = row.strategy().cloned().ok_or_else(Status::method_not_allowed)?;
        let scope = self.own_scope(&row, &*strategy, name, "", user, options);
        strategy.default(&mut object);
        if replace {
            self.delete(&scope, &DeleteOptions::default()).await?;
        }
        let result = if exists && !replace {
            self.update(&scope, object).await
        } else {
            self.create(&Scope { name: "", ..scope }, object).await
        };
        match result {
            Ok(_) => Ok(()),
            // Another replica was faster.
            Err(status) if status.reason == "AlreadyExists" => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Updates a subresource of a cluster-scoped object of a built-in kind.
    pub(crate) async fn update_own(
        &self,
        group: &str,
        plural: &str,
        subresource: &'static str,
        object: Value,
        user: &UserInfo,
    ) -> Result<(), Status> {
        let row = self.row(group, plural)?;
        let name = fleetpass_apimachinery::meta::name(&object).to_string();
        let version = row.resource.versions.first().map(|v| v.name.clone()).unwrap_or_default();
        let strategy = match row.subresource(subresource, &version).map(|s| &s.handler) {
            Some(Handler::Update(strategy)) => strategy.clone(),
            _ => row.strategy().cloned().ok_or_else(Status::method_not_allowed)?,
        };
        let options = WriteOptions { dry_run: false, field_manager: "kube-apiserver".into() };
        let scope = self.own_scope(&row, &*strategy, &name, subresource, user, &options);
        self.update(&scope, object).await.map(|_| ())
    }

    /// Deletes all objects of a custom kind; those with finalizers stay marked. Returns how many are left.
    pub(crate) async fn delete_all(&self, row: &Arc<Row>, user: &UserInfo) -> Result<usize, Status> {
        let Some(strategy) = row.strategy().cloned() else { return Ok(0) };
        let options = WriteOptions::default();
        let (_, objects) = self.cache.snapshot(&row.storage_prefix);
        for (_, object) in &objects {
            let (namespace, name) = object.namespace_and_name();
            let scope = Scope { namespace, ..self.own_scope(row, &*strategy, name, "", user, &options) };
            match self.delete(&scope, &DeleteOptions::default()).await {
                Ok(_) => {}
                Err(status) if status.reason == "NotFound" => {}
                Err(status) => return Err(status),
            }
        }
        Ok(self.cache.snapshot(&row.storage_prefix).1.len())
    }

    fn row(&self, group: &str, plural: &str) -> Result<Arc<Row>, Status> {
        self.catalog.kinds().get(group, plural).cloned().ok_or_else(Status::unknown_path)
    }

    fn own_scope<'a>(
        &self,
        row: &'a Row,
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
