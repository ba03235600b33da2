//! `TokenReview` (authentication.k8s.io/v1): is this token good, and whose is it?
//! (`pkg/registry/authentication/tokenreview/storage.go`)
//!
//! The registry has authorized the request, checked its content type and query options, decoded and defaulted the
//! body, emptied `metadata.namespace`, and set `metadata.managedFields`; all other metadata comes back as it was sent,
//! except what only a server sets.

use crate::strategy::{Action, ActionRequest, Backing, Resource, Version};
use async_trait::async_trait;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_auth::authn::{AuthenticationRequest, Authenticator, Unauthenticated};
use fleetpass_schema::Schema;
use serde_json::{Map, Value};
use std::sync::Arc;

const GROUP: &str = "authentication.k8s.io";

struct TokenReview {
    authenticator: Arc<Authenticator>,
    /// Whether requests without credentials are let in as `system:anonymous`.
    anonymous: bool,
}

/// The action. `anonymous` says whether requests without credentials pass as `system:anonymous`: a token that begins
/// with a space counts as none, and is then reviewed as that user.
pub(crate) fn action(authenticator: Arc<Authenticator>, anonymous: bool) -> Arc<dyn Action> {
    Arc::new(TokenReview { authenticator, anonymous })
}

/// The row of the kind.
pub(crate) fn resource(schema: Arc<Schema>, authenticator: Arc<Authenticator>, anonymous: bool) -> Resource {
    review_row("TokenReview", schema, action(authenticator, anonymous))
}

/// A cluster-wide kind of this group that can only be created.
pub(super) fn review_row(kind: &str, schema: Arc<Schema>, action: Arc<dyn Action>) -> Resource {
    let singular = kind.to_lowercase();
    Resource {
        group: GROUP.into(),
        plural: format!("{singular}s"),
        singular,
        kind: kind.into(),
        list_kind: String::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: false,
        verbs: vec!["create".into()],
        versions: vec![Version {
            name: "v1".into(),
            schema: schema.into(),
            columns: Arc::default(),
            deprecation: None,
        }],
        storage_version: "v1".into(),
        selectable_fields: Vec::new(),
        backing: Backing::Virtual(action),
        subresources: Vec::new(),
        delete_returns_object: false,
        view: None,
        custom: false,
        uniform_since: 0,
    }
}

/// `value` as an object; anything else is replaced by an empty one.
pub(super) fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made an object")
}

/// The member `key` of `parent` as an object.
pub(super) fn member<'a>(parent: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    object(object(parent).entry(key).or_insert(Value::Null))
}

/// A list of strings; empty if absent.
pub(super) fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|item| item.as_str().unwrap_or_default().into()).collect()
}

#[async_trait]
impl Action for TokenReview {
    async fn create(&self, request: ActionRequest<'_>) -> Result<(Value, Vec<String>), Status> {
        let ActionRequest { ctx, object: mut review, .. } = request;
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        // Through the same authenticator as a request with this token, so that a review cannot judge otherwise than
        // the server does.
        let header = format!("Bearer {token}");
        let requested = strings(&review["spec"]["audiences"]);
        // Without audiences the question is whether the token is good for this server.
        let audiences = if requested.is_empty() { self.authenticator.api_audiences() } else { &requested };
        // The warnings and audit annotations of this credential are for its own requests, not for this one.
        let outcome = match self.authenticator.authenticate(&AuthenticationRequest {
            authorization: Some(header.as_bytes()),
            certificate: None,
            audiences: Some(audiences),
            now: ctx.now,
            lister: ctx.lister,
        }) {
            Ok(found) => Ok(Some((found.user, found.audiences))),
            Err(Unauthenticated::NoCredentials { .. }) => {
                Ok(self.anonymous.then(|| (UserInfo::anonymous(), audiences.to_vec())))
            }
            Err(Unauthenticated::Invalid(error)) => Err(error),
        };

        let top = object(&mut review);
        top.insert("apiVersion".into(), format!("{GROUP}/v1").into());
        top.insert("kind".into(), "TokenReview".into());
        let metadata = member(&mut review, "metadata");
        for key in ["creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "selfLink", "uid"]
        {
            metadata.remove(key);
        }
        // What the client sent as status stays where nothing is found out, as on the real server.
        let status = member(&mut review, "status");
        // Absent is false. A client must never get back a `true` that it sent itself.
        status.remove("authenticated");
        match outcome {
            Ok(Some((user, audiences))) => {
                status.insert("authenticated".into(), true.into());
                status.insert("user".into(), user.to_json());
                status.remove("audiences");
                if !audiences.is_empty() {
                    status.insert("audiences".into(), audiences.into());
                }
            }
            Ok(None) => {}
            // A bad token is an answer, not a failure of the request: 201, with the reason in the status.
            Err(error) => {
                status.insert("error".into(), error.into());
            }
        }
        status.entry("user").or_insert_with(|| Value::Object(Map::new()));
        Ok((review, Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::create;
    use super::*;
    use crate::resources::token_request;
    use fleetpass_auth::testing::{API, Objects, accounts, authenticator};
    use serde_json::json;

    async fn review(action: &dyn Action, body: Value) -> Result<Value, Status> {
        let found = create(action, &Objects::sample(), &UserInfo::default(), ("", ""), body).await;
        found.map(|(answer, warnings)| {
            assert!(warnings.is_empty());
            answer
        })
    }

    #[tokio::test]
    async fn reviews_as_the_server_does() {
        let accounts = accounts();
        let action = action(authenticator(&accounts), true);
        let issuer = token_request::action(accounts);
        let body = json!({"spec": {"audiences": ["vault", "db", API]}});
        let lister = Objects::sample();
        let (answer, _) =
            create(&*issuer, &lister, &UserInfo::default(), ("ns", "robot"), body).await.unwrap();
        let token = answer["status"]["token"].as_str().unwrap();
        let id = "authentication.kubernetes.io/credential-id";
        let alice =
            json!({"username": "alice", "uid": "alice-uid", "groups": ["devs", "system:authenticated"]});
        let anonymous = json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]});
        for (token, audiences, expected) in [
            ("alicetoken", vec![], json!({"authenticated": true, "user": alice, "audiences": [API]})),
            ("alicetoken", vec!["vault"], json!({"user": {}, "error": "invalid bearer token"})),
            (" alicetoken", vec![], json!({"authenticated": true, "user": anonymous, "audiences": [API]})),
            (" x", vec!["vault"], json!({"authenticated": true, "user": anonymous, "audiences": ["vault"]})),
            ("garbage", vec![], json!({"user": {}, "error": "invalid bearer token"})),
            (
                &format!("{token}AAAA"),
                vec![],
                json!({"user": {}, "error": "[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]"}),
            ),
            (
                token,
                vec!["other"],
                json!({"user": {}, "error": format!("[invalid bearer token, token audiences [\"vault\" \"db\" \"{API}\"] is invalid for the target audiences [\"other\"]]")}),
            ),
            (&format!("{token}\n"), vec!["db", "other", "vault"], json!({"audiences": ["db", "vault"]})),
        ] {
            let answer =
                review(&*action, json!({"spec": {"token": token, "audiences": audiences}})).await.unwrap();
            let mut status = answer["status"].clone();
            if let Some(found) = status["user"]["extra"].get(id) {
                assert!(found[0].as_str().unwrap().starts_with("JTI="));
                assert_eq!(status["user"]["groups"][2], "system:authenticated");
                status = json!({"audiences": status["audiences"]});
            }
            assert_eq!(status, expected, "{token} for {audiences:?}");
        }
    }

    #[tokio::test]
    async fn keeps_metadata_and_what_it_does_not_find_out() {
        let action = action(authenticator(&accounts()), true);
        let sent = json!({
            "metadata": {"name": "x", "labels": {"a": "b"}, "uid": "u", "creationTimestamp": "2001-02-03T04:05:06Z"},
            "spec": {"token": "garbage"},
            "status": {"authenticated": true, "user": {"username": "root"}},
        });
        assert_eq!(
            review(&*action, sent).await.unwrap(),
            json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "metadata": {"name": "x", "labels": {"a": "b"}},
                "spec": {"token": "garbage"},
                "status": {"user": {"username": "root"}, "error": "invalid bearer token"},
            })
        );
        for body in [json!({}), json!({"spec": {"token": ""}})] {
            let status = review(&*action, body).await.unwrap_err();
            assert_eq!(status, Status::bad_request("token is required for TokenReview in authentication"));
        }
    }
}
