//! The built-in kinds, one file each: everything that is special about a kind is in its file, and a function `resource()` that
//! gives its row for the catalog.
//!
//! Not kinds, but shared by some of them: `stored` (what rows have in common), `printers` (cells of Tables), `rbac` (roles and
//! bindings), `access_review` (the four reviews of access) and `pem`. Kinds import from these, never the other way round.

mod access_review;
pub(crate) mod certificatesigningrequests;
pub(crate) mod clusterrolebindings;
pub(crate) mod clusterroles;
pub(crate) mod configmaps;
pub mod customresourcedefinitions;
pub mod customresources;
pub(crate) mod events;
pub(crate) mod leases;
pub(crate) mod localsubjectaccessreviews;
pub(crate) mod namespaces;
pub(crate) mod nodes;
mod pem;
pub(crate) mod pods;
mod printers;
mod rbac;
pub(crate) mod resourcequotas;
pub(crate) mod rolebindings;
pub(crate) mod roles;
pub(crate) mod secrets;
pub(crate) mod self_subject_review;
pub(crate) mod selfsubjectaccessreviews;
pub(crate) mod selfsubjectrulesreviews;
pub(crate) mod serviceaccounts;
mod stored;
pub(crate) mod subjectaccessreviews;
pub(crate) mod token_request;
pub(crate) mod token_review;

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of the kinds share.

    use crate::strategy::{Action, ActionRequest, Context, WriteOptions};
    use fleetpass_apimachinery::Lister;
    use fleetpass_apimachinery::field::ErrorList;
    use fleetpass_apimachinery::meta;
    use fleetpass_apimachinery::status::Status;
    use fleetpass_apimachinery::user::UserInfo;
    use fleetpass_auth::authz::{Attributes, Authorizer, Decision, UserRules};
    use serde_json::Value;
    use std::sync::Arc;

    /// Objects as `(group, resource, object)`.
    #[derive(Default)]
    pub(super) struct Objects(pub(super) Vec<(&'static str, &'static str, Value)>);

    impl Lister for Objects {
        fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
            self.list(group, resource, namespace).into_iter().find(|o| meta::name(o) == name)
        }
        fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
            self.0
                .iter()
                .filter(|(g, r, o)| *g == group && *r == resource && meta::namespace(o) == namespace)
                .map(|(_, _, o)| Arc::new(o.clone()))
                .collect()
        }
    }

    /// Allows a user those `verb resource[/subresource] name` that are listed.
    #[derive(Default)]
    pub(crate) struct Allowed(pub(super) Vec<&'static str>);

    impl Authorizer for Allowed {
        fn authorize(&self, a: &Attributes<'_>) -> Decision {
            let asked = format!("{} {} {}", a.verb, a.resource, a.name);
            Decision {
                allowed: self.0.contains(&asked.as_str()),
                reason: String::new(),
                evaluation_error: String::new(),
            }
        }
        fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
            UserRules { incomplete: true, ..UserRules::default() }
        }
    }

    /// A cluster of objects, a user and what the user may do.
    #[derive(Default)]
    pub(super) struct World {
        pub(super) objects: Objects,
        pub(super) allowed: Allowed,
        pub(super) user: UserInfo,
    }

    impl World {
        pub(super) fn with(objects: Vec<(&'static str, &'static str, Value)>) -> Self {
            Self { objects: Objects(objects), ..Self::default() }
        }
        pub(super) fn ctx<'a>(&'a self, namespace: &'a str, name: &'a str) -> Context<'a> {
            Context {
                user: &self.user,
                now: "2026-01-02T03:04:05Z".parse().expect("a time"),
                namespace,
                name,
                version: "v1",
                dry_run: false,
                lister: &self.objects,
                authorizer: &self.allowed,
            }
        }
    }

    /// Has `action` answer a create by `user` who may do nothing else, at the time of `fleetpass_auth::testing`.
    pub(super) async fn create(
        action: &dyn Action,
        lister: &dyn Lister,
        user: &UserInfo,
        (namespace, name): (&str, &str),
        mut object: Value,
    ) -> Result<(Value, Vec<String>), Status> {
        action.default(&mut object);
        let ctx = Context {
            user,
            now: fleetpass_auth::testing::now(),
            namespace,
            name,
            version: "v1",
            dry_run: false,
            lister,
            authorizer: &Allowed::default(),
        };
        let (options, notes) = (WriteOptions::default(), crate::audit::event::Notes::default());
        action.create(ActionRequest { ctx, object, options: &options, notes: &notes }).await
    }

    pub(super) fn texts(errors: &ErrorList) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }
}
