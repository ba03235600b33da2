//! The 403 of a refused request (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`).

use super::Attributes;
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::status::{GroupResource, Status};

/// The 403 for a request that no authorizer allows. `reason` is the authorizer's, or empty.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    // Go escapes its own message, which quotes the client, but not the authorizer's reason.
    let mut why = escape_html(&forbidden_message(attributes));
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    let gr = GroupResource { group: attributes.group, resource: attributes.resource };
    Status::forbidden(gr, attributes.name, why)
}

/// Who cannot do what, where (`forbiddenMessage`).
fn forbidden_message(attributes: &Attributes<'_>) -> String {
    let (user, verb) = (go_quote(&attributes.user.name), attributes.verb);
    if !attributes.resource_request {
        return format!("User {user} cannot {verb} path {}", go_quote(attributes.path));
    }
    let resource = if attributes.subresource.is_empty() {
        go_quote(attributes.resource)
    } else {
        go_quote(&format!("{}/{}", attributes.resource, attributes.subresource))
    };
    let group = go_quote(attributes.group);
    let scope = if attributes.namespace.is_empty() {
        "at the cluster scope".to_string()
    } else {
        format!("in the namespace {}", go_quote(attributes.namespace))
    };
    format!("User {user} cannot {verb} resource {resource} in API group {group} {scope}")
}

/// Keeps the text from being taken for HTML by a browser that is shown it.
fn escape_html(text: &str) -> String {
    // The ampersand first, or the other escapes would be escaped again.
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_apimachinery::user::UserInfo;
    use serde_json::{Value, json};

    fn check(attributes: Attributes<'_>, reason: &str, message: &str, details: Value) {
        let status = forbidden(&attributes, reason).to_json();
        assert_eq!(status["message"], message);
        assert_eq!(status["details"], details);
        assert_eq!(status["code"], 403);
    }

    #[test]
    fn every_form_of_request() {
        let alice = UserInfo { name: "alice".into(), ..UserInfo::default() };
        check(
            Attributes::resource(&alice, "get", "", "secrets").in_namespace("x").named("s1"),
            "",
            r#"secrets "s1" is forbidden: User "alice" cannot get resource "secrets" in API group "" in the namespace "x""#,
            json!({"name": "s1", "kind": "secrets"}),
        );
        check(
            Attributes::resource(&alice, "list", "apps", "deployments"),
            "",
            r#"deployments.apps is forbidden: User "alice" cannot list resource "deployments" in API group "apps" at the cluster scope"#,
            json!({"group": "apps", "kind": "deployments"}),
        );
        check(
            Attributes::resource(&alice, "create", "", "serviceaccounts")
                .of_subresource("token")
                .in_namespace("x")
                .named("robot"),
            "RBAC: role.rbac.authorization.k8s.io \"r\" not found",
            r#"serviceaccounts "robot" is forbidden: User "alice" cannot create resource "serviceaccounts/token" in API group "" in the namespace "x": RBAC: role.rbac.authorization.k8s.io "r" not found"#,
            json!({"name": "robot", "kind": "serviceaccounts"}),
        );
        check(
            Attributes::path(&alice, "post", "/metrics"),
            "",
            r#"forbidden: User "alice" cannot post path "/metrics""#,
            json!({}),
        );
        check(
            Attributes::path(&alice, "get", "/<b>&"),
            "",
            r#"forbidden: User "alice" cannot get path "/&lt;b&gt;&amp;""#,
            json!({}),
        );
        // OPTIONS has no verb of its own.
        check(
            Attributes::resource(&alice, "", "", "secrets").in_namespace("x").named("s1"),
            "",
            r#"secrets "s1" is forbidden: User "alice" cannot  resource "secrets" in API group "" in the namespace "x""#,
            json!({"name": "s1", "kind": "secrets"}),
        );
    }
}
