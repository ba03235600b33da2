//! Another certificate and key for a user of a kubeconfig, and nothing else changed in it.

use fleetpass_apimachinery::json::Numbers;
use fleetpass_codec::yaml;
use serde_json::Value;
use zeroize::Zeroizing;

/// Why a kubeconfig cannot be changed. Says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum EditError {
    #[error("is no kubeconfig that can be read")]
    Unreadable,
    #[error("has no such user, or the user has no certificate in it")]
    User,
    #[error(
        "holds several YAML documents, or a certificate that is spread over lines: write it anew (kubectl config view --raw --flatten)"
    )]
    Form,
}

/// The text with these values of the user's fields, base64 as they are in it. Comments, order and whatever else is in it stay:
/// the old values are replaced where they stand, and the result is read again to see that it is what was meant.
pub(super) fn replace(
    text: &str,
    user: &str,
    fields: &[(&str, &str)],
) -> Result<Zeroizing<String>, EditError> {
    let parsed = value(text)?;
    let mut wanted = parsed.clone();
    let slot = user_of(&mut wanted, user).ok_or(EditError::User)?;
    let mut edited = Zeroizing::new(text.to_owned());
    for (field, new) in fields {
        let old = slot.get_mut(*field).ok_or(EditError::User)?;
        let old = std::mem::replace(old, Value::from(*new));
        let old = old.as_str().filter(|old| !old.is_empty()).ok_or(EditError::User)?;
        edited = Zeroizing::new(edited.replace(old, new));
    }
    if value(&edited).is_ok_and(|edited| edited == wanted) {
        return Ok(edited);
    }
    // The value is folded, or another user has the same one. Printed anew it says the same, without comments; of several
    // documents all but the first would be lost.
    if text.lines().skip(1).any(|line| line.starts_with("---")) {
        return Err(EditError::Form);
    }
    let printed = Zeroizing::new(yaml::print(&wanted));
    if value(&printed).is_ok_and(|printed| printed == wanted) { Ok(printed) } else { Err(EditError::Form) }
}

fn value(text: &str) -> Result<Value, EditError> {
    let document = yaml::parse(text.as_bytes()).map_err(|_| EditError::Unreadable)?;
    document.raw.to_value(Numbers::Go).map_err(|_| EditError::Unreadable)
}

/// The fields of a user: of several of a name the first, as for kubectl.
fn user_of<'a>(config: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let users = config.get_mut("users")?.as_array_mut()?;
    users.iter_mut().find(|user| user["name"] == name)?.get_mut("user")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\napiVersion: v1\nkind: Config\nclusters: # here\n- {name: c, cluster: {server: https://a}}\n\
        users:\n- name: other\n  user:\n    token: t\n- name: agent\n  user:\n    client-certificate-data: Y2VydA==\n\
        \x20   client-key-data: \"a2V5\"\n    my-field: 007\ncurrent-context: x\n";
    const NEW: [(&str, &str); 2] = [("client-certificate-data", "bmV3"), ("client-key-data", "bmV3LWtleQ==")];

    #[test]
    fn nothing_but_the_values_changes() {
        let edited = replace(TEXT, "agent", &NEW).unwrap();
        assert_eq!(*edited, TEXT.replace("Y2VydA==", "bmV3").replace("a2V5", "bmV3LWtleQ=="));
        // JSON is YAML.
        let json = serde_json::to_string_pretty(&value(TEXT).unwrap()).unwrap();
        let edited = replace(&json, "agent", &NEW).unwrap();
        assert_eq!(*edited, json.replace("Y2VydA==", "bmV3").replace("a2V5", "bmV3LWtleQ=="));
    }

    #[test]
    fn what_cannot_be_replaced_in_place_is_printed_anew() {
        for text in [
            TEXT.replace("Y2VydA==", "\"Y2Vy\\\n      dA==\""),
            // The same certificate for another user: that one keeps it.
            TEXT.replace("token: t", "client-certificate-data: Y2VydA=="),
            // The value stands elsewhere too.
            TEXT.replace("current-context: x", "current-context: a2V5"),
        ] {
            let mut wanted = value(&text).unwrap();
            let user = user_of(&mut wanted, "agent").unwrap();
            assert_eq!(user["client-certificate-data"], "Y2VydA==", "{text}");
            for (field, new) in NEW {
                user[field] = Value::from(new);
            }
            let edited = replace(&text, "agent", &NEW).unwrap();
            assert_eq!(value(&edited).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        for (text, error) in [
            ("{", EditError::Unreadable),
            ("", EditError::User),
            ("users: []", EditError::User),
            ("users: [{name: agent}]", EditError::User),
            ("users: [{name: agent, user: {client-certificate: a, client-key: b}}]", EditError::User),
            (
                "users: [{name: agent, user: {client-certificate-data: '', client-key-data: ''}}]",
                EditError::User,
            ),
        ] {
            assert_eq!(replace(text, "agent", &NEW).unwrap_err(), error, "{text}");
        }
        let several = format!("{}---\nkind: Config\n", TEXT.replace("token: t", "client-key-data: a2V5"));
        assert_eq!(replace(&several, "agent", &NEW).unwrap_err(), EditError::Form);
    }
}
