//! Selectors of labels and fields.

use crate::refusal::check_refusal;
use fleetpass_apimachinery::{FieldSelector, LabelSelector};

/// The text of a label selector, and of a field selector.
pub fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    labels(text);
    fields(text);
}

fn labels(text: &str) {
    let selector = match LabelSelector::parse(text) {
        Ok(selector) => selector,
        // Each value that is none is refused with the rule for values, which is some 200 bytes long.
        Err(error) => return check_refusal(&error, 15 * text.len()),
    };
    let printed = selector.to_string();
    let again = LabelSelector::parse(&printed).unwrap_or_else(|e| panic!("{printed}: {e}"));
    assert_eq!(again, selector, "{printed}");
    assert_eq!(selector.is_empty(), selector.requirements().is_empty());
    let keys: Vec<&str> = selector.requirements().iter().map(|r| r.key.as_str()).collect();
    assert!(keys.is_sorted());
    // An object that has of each label the first value that is asked for, one without labels, one with other values.
    let asked = |key: &str| {
        let of_key = selector.requirements().iter().find(|r| r.key == key)?;
        of_key.values.first().map(String::as_str)
    };
    let labels = [asked(keys.first().unwrap_or(&"a")), None, Some("5"), Some("")];
    for value in labels {
        assert_eq!(selector.matches(|_| value), again.matches(|_| value));
    }
    if selector.is_empty() {
        assert!(selector.matches(|_| None));
    }
}

fn fields(text: &str) {
    let selector = match FieldSelector::parse(text) {
        Ok(selector) => selector,
        Err(error) => return check_refusal(&error, text.len()),
    };
    let printed = selector.to_string();
    let again = FieldSelector::parse(&printed).unwrap_or_else(|e| panic!("{printed}: {e}"));
    let sorted = |selector: &FieldSelector| {
        let mut terms = selector.terms().to_vec();
        terms.sort_by(|a, b| (&a.field, &a.value, a.equal).cmp(&(&b.field, &b.value, b.equal)));
        terms
    };
    assert_eq!(sorted(&again), sorted(&selector), "{printed}");
    for term in selector.terms() {
        let required = selector.required_value(&term.field);
        assert!(required.is_some() || !term.equal);
        // Nothing is selected whose field has another value than the required one.
        if let Some(required) = required {
            assert!(!selector.matches(|field| if field == term.field {
                format!("{required}x")
            } else {
                String::new()
            }));
        }
    }
    assert_eq!(selector.is_empty(), selector.terms().is_empty());
}
