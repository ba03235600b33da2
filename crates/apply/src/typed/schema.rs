//! How field management sees a schema: every node is a scalar, a list or a map, or may be any of them
//! (`k8s.io/kube-openapi/pkg/schemaconv`, which makes `structured-merge-diff` schemas of OpenAPI).

use super::validation_error::KeyError;
use crate::fieldpath::PathElement;
use crate::value::OrderedValue;
use fleetpass_schema::{ListType, Schema, Type};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// A node of a schema (`schema.TypeRef`). Copied freely: it only points into the schema, and what it may be is worked out
/// when it is looked at ([`TypeRef::atom`]), so that no second schema has to be kept for each kind.
#[derive(Clone, Copy)]
pub(crate) enum TypeRef<'a> {
    /// A node that a schema describes.
    Node {
        /// Its description.
        schema: &'a Schema,
        /// Whether it, or a node above it, keeps unknown fields.
        preserve: bool,
        /// Whether it is a whole object, with apiVersion, kind and metadata.
        object: bool,
    },
    /// Anything; objects are owned field by field, lists as a whole (`__untyped_deduced_`).
    Deduced,
    /// Anything, owned as a whole (`__untyped_atomic_`).
    Opaque,
}

/// The scalars that a node may be (`schema.Scalar`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Numeric,
    String,
    Boolean,
    Any,
}

/// What a node may be (`schema.Atom`); more than one where its schema gives no type.
pub(crate) struct Atom<'a> {
    pub(crate) scalar: Option<Scalar>,
    pub(crate) list: Option<ListAtom<'a>>,
    pub(crate) map: Option<MapAtom<'a>>,
}

/// A list: owned as a whole, or element by element.
#[derive(Clone, Copy)]
pub(crate) struct ListAtom<'a> {
    kind: &'a ListType,
    pub(crate) element: TypeRef<'a>,
}

/// A struct or map.
#[derive(Clone, Copy)]
pub(crate) struct MapAtom<'a> {
    /// Whether it is owned as a whole.
    pub(crate) atomic: bool,
    /// The type of entries that are no declared fields; `None` where there are none.
    element: Option<TypeRef<'a>>,
    fields: Option<Fields<'a>>,
}

/// The declared fields of a struct.
#[derive(Clone, Copy)]
struct Fields<'a> {
    schema: &'a Schema,
    /// See [`TypeRef::Node`].
    preserve: bool,
    /// See [`TypeRef::Node`].
    object: bool,
}

/// Which of the things that an [`Atom`] may be a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Map,
    Scalar,
    List,
}

impl<'a> TypeRef<'a> {
    /// The root of an object of this schema.
    pub(crate) fn root(schema: &'a Schema) -> Self {
        Self::Node { schema, preserve: schema.preserve_unknown_fields, object: true }
    }

    fn child(schema: &'a Schema, preserve: bool) -> Self {
        let preserve = preserve || schema.preserve_unknown_fields;
        Self::Node { schema, preserve, object: schema.embedded_resource }
    }

    /// What the node may be.
    pub(crate) fn atom(self) -> Atom<'a> {
        let (schema, preserve, object) = match self {
            Self::Node { schema, preserve, object } => (schema, preserve, object),
            Self::Deduced => {
                return Atom {
                    scalar: Some(Scalar::Any),
                    list: Some(ListAtom { kind: &ListType::Atomic, element: Self::Opaque }),
                    map: Some(MapAtom { atomic: false, element: Some(Self::Deduced), fields: None }),
                };
            }
            Self::Opaque => {
                return Atom {
                    scalar: Some(Scalar::Any),
                    list: Some(ListAtom { kind: &ListType::Atomic, element: Self::Opaque }),
                    map: Some(MapAtom { atomic: true, element: Some(Self::Opaque), fields: None }),
                };
            }
        };
        let list = || ListAtom {
            kind: &schema.list_type,
            element: schema.items.as_deref().map_or(Self::Deduced, |items| Self::child(items, preserve)),
        };
        let map = || {
            let element = match schema.additional.as_deref() {
                Some(additional) => Some(Self::child(additional, preserve)),
                // An object without declared fields takes any.
                None if preserve || (schema.properties.is_empty() && !object) => Some(Self::Deduced),
                None => None,
            };
            MapAtom { atomic: schema.atomic, element, fields: Some(Fields { schema, preserve, object }) }
        };
        // One schema may allow for several forms only if it gives no type, as for `int-or-string`.
        let mut atom = Atom { scalar: None, list: None, map: None };
        match schema.kind {
            None if !object => {
                atom = Atom { scalar: Some(Scalar::Any), list: Some(list()), map: Some(map()) };
            }
            None | Some(Type::Object) => atom.map = Some(map()),
            Some(Type::Array) => atom.list = Some(list()),
            Some(Type::Integer | Type::Number) => atom.scalar = Some(Scalar::Numeric),
            Some(Type::Boolean) => atom.scalar = Some(Scalar::Boolean),
            Some(Type::String) => {
                atom.scalar = Some(match schema.format.as_deref() {
                    None | Some("" | "byte") => Scalar::String,
                    // So that an `int-or-string` may be either, and a `date-time` is not looked into.
                    Some(_) => Scalar::Any,
                });
            }
        }
        atom
    }
}

impl<'a> Atom<'a> {
    /// The form of `value`; `None` for null, for nothing, and for what this node may not be.
    pub(crate) fn form(&self, value: Option<&Value>) -> Option<Form> {
        let form = match value? {
            Value::Null => return None,
            Value::Object(_) => Form::Map,
            Value::Array(_) => Form::List,
            _ => Form::Scalar,
        };
        self.has(form).then_some(form)
    }

    fn has(&self, form: Form) -> bool {
        match form {
            Form::Map => self.map.is_some(),
            Form::List => self.list.is_some(),
            Form::Scalar => self.scalar.is_some(),
        }
    }

    /// The form as which a value is handled: its own, or the first that the node has (in the order of `handleAtom` in
    /// structured-merge-diff's `typed/helpers.go`).
    pub(crate) fn handled_as(&self, value: Option<&Value>) -> Form {
        self.form(value).unwrap_or_else(|| {
            [Form::Map, Form::Scalar, Form::List].into_iter().find(|f| self.has(*f)).unwrap_or(Form::Scalar)
        })
    }

    /// Whether both values leave the node the same choice of forms.
    pub(crate) fn same_form(&self, a: Option<&Value>, b: Option<&Value>) -> bool {
        let forms = [Form::Map, Form::Scalar, Form::List].into_iter().filter(|f| self.has(*f)).count();
        forms == 1 || self.form(a) == self.form(b)
    }
}

impl<'a> MapAtom<'a> {
    /// The declared field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<TypeRef<'a>> {
        let Fields { schema, preserve, object } = self.fields?;
        let declared = schema.properties.get(name).map(|s| &**s);
        // A CRD's schema may leave out, or say little of, what every object has.
        if object {
            match (name, declared) {
                ("metadata", Some(metadata)) if !metadata.properties.is_empty() => {}
                ("metadata", _) => return Some(TypeRef::child(&OBJECT_META, false)),
                ("apiVersion" | "kind", None) => return Some(TypeRef::child(&STRING, false)),
                _ => {}
            }
        }
        declared.map(|declared| TypeRef::child(declared, preserve))
    }

    /// Whether this is a map of anything, without declared fields.
    pub(crate) fn free_form(&self) -> bool {
        let fields = self.fields.is_some_and(|f| f.object || !f.schema.properties.is_empty());
        !fields && matches!(self.element, Some(TypeRef::Deduced))
    }

    /// The type of an entry: a declared field's, or that of all entries.
    pub(crate) fn entry(&self, name: &str) -> Option<TypeRef<'a>> {
        self.field(name).or(self.element)
    }
}

impl ListAtom<'_> {
    /// Whether the list is owned as a whole.
    pub(crate) fn atomic(&self) -> bool {
        *self.kind == ListType::Atomic
    }

    /// How a set of fields names this element.
    pub(crate) fn path_element(&self, element: &Value) -> Result<PathElement, KeyError> {
        match self.kind {
            ListType::Atomic => Err(KeyError::Atomic),
            ListType::Map(keys) if !keys.is_empty() => self.keyed(keys, element),
            ListType::Set | ListType::Map(_) => match element {
                Value::Object(_) => Err(KeyError::MapInSet),
                Value::Array(_) => Err(KeyError::ListInSet),
                Value::Null => Err(KeyError::NullInSet),
                scalar => Ok(PathElement::Value(OrderedValue(scalar.clone()))),
            },
        }
    }

    fn keyed(&self, keys: &[String], element: &Value) -> Result<PathElement, KeyError> {
        let fields = match element {
            Value::Object(fields) => fields,
            Value::Null => return Err(KeyError::Null),
            _ => return Err(KeyError::NotAMap),
        };
        // A patch is not defaulted, but has to mean the same elements as the object, which is.
        let default = |key: &str| match self.element {
            TypeRef::Node { schema, .. } => {
                schema.properties.get(key).and_then(|field| field.default.as_ref())
            }
            _ => None,
        };
        let mut found: Vec<(String, OrderedValue)> = keys
            .iter()
            .filter_map(|key| {
                fields.get(key).or_else(|| default(key)).map(|v| (key.clone(), OrderedValue(v.clone())))
            })
            .collect();
        if found.is_empty() {
            return Err(KeyError::NoKeys(keys.to_vec()));
        }
        found.sort();
        Ok(PathElement::Key(found))
    }
}

static STRING: LazyLock<Schema> = LazyLock::new(|| scalar(Type::String));

fn scalar(kind: Type) -> Schema {
    Schema { kind: Some(kind), ..Schema::default() }
}

fn object(fields: Vec<(&str, Schema)>) -> Schema {
    let properties: BTreeMap<_, _> =
        fields.into_iter().map(|(name, schema)| (name.to_string(), Arc::new(schema))).collect();
    Schema { kind: Some(Type::Object), properties, ..Schema::default() }
}

fn list(list_type: ListType, items: Schema) -> Schema {
    Schema { kind: Some(Type::Array), items: Some(Arc::new(items)), list_type, ..Schema::default() }
}

/// `metav1.ObjectMeta`: a CRD's schema does not describe the metadata of its objects.
pub(crate) static OBJECT_META: LazyLock<Schema> = LazyLock::new(|| {
    let text = || scalar(Type::String);
    let time = || Schema { format: Some("date-time".into()), ..scalar(Type::String) };
    let strings = || Schema {
        kind: Some(Type::Object),
        additional: Some(Arc::new(scalar(Type::String))),
        ..Schema::default()
    };
    let owner = Schema {
        atomic: true,
        ..object(vec![
            ("apiVersion", text()),
            ("blockOwnerDeletion", scalar(Type::Boolean)),
            ("controller", scalar(Type::Boolean)),
            ("kind", text()),
            ("name", text()),
            ("uid", text()),
        ])
    };
    let entry = object(vec![
        ("apiVersion", text()),
        ("fieldsType", text()),
        ("fieldsV1", scalar(Type::Object)),
        ("manager", text()),
        ("operation", text()),
        ("subresource", text()),
        ("time", time()),
    ]);
    object(vec![
        ("annotations", strings()),
        ("creationTimestamp", time()),
        ("deletionGracePeriodSeconds", scalar(Type::Integer)),
        ("deletionTimestamp", time()),
        ("finalizers", list(ListType::Set, text())),
        ("generateName", text()),
        ("generation", scalar(Type::Integer)),
        ("labels", strings()),
        ("managedFields", list(ListType::Atomic, entry)),
        ("name", text()),
        ("namespace", text()),
        ("ownerReferences", list(ListType::Map(vec!["uid".into()]), owner)),
        ("resourceVersion", text()),
        ("selfLink", text()),
        ("uid", text()),
    ])
});
