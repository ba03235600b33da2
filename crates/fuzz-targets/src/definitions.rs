//! CustomResourceDefinitions, and objects of the kinds that they define.

use crate::kinds::{NOW, in_context};
use fleetpass_apimachinery::gvk::GvkRef;
use fleetpass_apimachinery::json::{self, Numbers};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::validation::metadata;
use fleetpass_apiserver::resources::customresourcedefinitions::{self, GrantedNames, naming_conditions};
use fleetpass_apiserver::resources::customresources;
use fleetpass_apiserver::strategy::Strategy;
use fleetpass_codec::body::{FieldValidation, Format, decode_builtin, decode_custom};
use fleetpass_schema::{custom_resource, go, openapi};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static DEFINITIONS: LazyLock<Arc<dyn Strategy>> = LazyLock::new(|| {
    let resource = customresourcedefinitions::resource();
    Arc::clone(resource.strategy().expect("definitions are stored"))
});

const TARGET: GvkRef<'static> =
    GvkRef { group: "apiextensions.k8s.io", version: "v1", kind: "CustomResourceDefinition" };

/// JSON documents, separated by zero bytes: a definition, or only the schema of one; then two objects of the kind, of
/// which the second replaces the first.
pub fn definitions(data: &[u8]) {
    let mut documents = data.split(|byte| *byte == 0);
    let Some(definition) = documents.next().and_then(defined) else { return };
    let Some(definition) = accepted(definition) else { return };
    let Ok(Some(resource)) = customresources::row(&definition) else { return };
    let strategy = resource.strategy().expect("custom kinds are stored");
    let Some(version) = resource.versions.first() else { return };
    let target = GvkRef { group: &resource.group, version: &version.name, kind: &resource.kind };
    let mut old: Option<Value> = None;
    for document in documents.take(2) {
        let decoded = decode_custom(document, Format::Json, target, FieldValidation::Warn, |value, _| {
            custom_resource::decode(value, &version.schema).map_err(|e| go::Words(&e).to_string())
        });
        let Ok(decoded) = decoded else { continue };
        let mut object = decoded.value;
        if object["kind"] != *resource.kind {
            // It is refused later, and was not read by the schema.
            continue;
        }
        let mut again = object.clone();
        assert_eq!(custom_resource::decode(&mut again, &version.schema), Ok(Vec::new()));
        assert_eq!(again, object);
        strategy.default(&mut object);
        // As the registry has it of an object that exists.
        meta::metadata_mut(&mut object).insert("resourceVersion".into(), "1".into());
        let errors = in_context(&version.name, |ctx| {
            match &old {
                None => strategy.prepare_for_create(ctx, &mut object),
                Some(old) => strategy.prepare_for_update(ctx, &mut object, old),
            }
            let errors = strategy.validate(ctx, &object);
            if let Some(old) = &old {
                strategy.validate_update(ctx, &object, old);
                // What does not change is not refused for what it was.
                let metadata = metadata::validate_update(&object, &object);
                assert!(
                    !(errors.is_empty() && metadata.is_empty())
                        || strategy.validate_update(ctx, &object, &object).is_empty()
                );
            }
            strategy.warnings(ctx, &object, old.as_ref());
            errors
        });
        strategy.canonicalize(&mut object);
        assert_eq!(strategy.cells(&object, NOW).len(), version.columns.len());
        for label in &resource.selectable_fields {
            strategy.selectable_field(&object, label);
        }
        for version in &resource.versions {
            let mut shown = object.clone();
            strategy.show(&mut shown, &version.name);
            assert!(shown.is_object());
        }
        if errors.is_empty() {
            old = Some(object);
        }
    }
}

/// The definition that a document is, or whose schema it is.
fn defined(document: &[u8]) -> Option<Value> {
    let value = json::parse(document).ok()?.to_value(Numbers::Go).ok()?;
    if value["kind"] == TARGET.kind {
        return Some(value);
    }
    Some(
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": TARGET.kind, "metadata": {"name": "things.fuzz.example.com"},
        "spec": {"group": "fuzz.example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": value},
                "subresources": {"status": {}}}]}}),
    )
}

/// The definition as it is stored and established, if it is valid.
fn accepted(definition: Value) -> Option<Value> {
    let schema = openapi::find_kind(TARGET.group, TARGET.version, TARGET.kind).expect("it is built in");
    let bytes = definition.to_string().into_bytes();
    let mut object = decode_builtin(&bytes, Format::Json, TARGET, &schema, FieldValidation::Warn).ok()?.value;
    DEFINITIONS.default(&mut object);
    let errors = in_context(TARGET.version, |ctx| {
        DEFINITIONS.prepare_for_create(ctx, &mut object);
        DEFINITIONS.warnings(ctx, &object, None);
        let errors = DEFINITIONS.validate(ctx, &object);
        assert!(!errors.is_empty() || DEFINITIONS.validate_update(ctx, &object, &object).is_empty());
        errors
    });
    if !errors.is_empty() {
        return None;
    }
    if let Some(status) = naming_conditions(&object, &GrantedNames::default(), NOW) {
        object["status"] = status;
    }
    Some(object)
}
