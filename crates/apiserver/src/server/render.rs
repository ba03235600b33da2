//! Answers: objects and lists in the form that the client accepts: as they are, as a Table, as metadata alone; in
//! JSON or YAML (`k8s.io/apiserver/pkg/endpoints/handlers/response.go`). No I/O.

use crate::cache::{self, Head, Object};
use crate::catalog::Row;
use crate::registry::{Listed, present};
use crate::strategy::Version;
use bytes::Bytes;
use fleetpass_apimachinery::Query;
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::gvk::api_version;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_codec::negotiate::{MediaType, MetaVersion, Output, TargetKind};
use fleetpass_codec::{protobuf, yaml};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Which object stands beside the cells of a Table row (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum IncludeObject {
    /// None.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// How to answer a request for one kind.
#[derive(Clone, Copy)]
pub(super) struct Renderer<'a> {
    pub(super) row: &'a Row,
    pub(super) version: &'a Version,
    pub(super) accepted: Output,
    pub(super) include: IncludeObject,
    pub(super) now: Timestamp,
}

/// The `includeObject` of a request that wants a Table.
pub(super) fn include_object(query: &Query, accepted: Output) -> Result<IncludeObject, Status> {
    if !matches!(accepted.convert_to, Some((TargetKind::Table, _))) {
        return Ok(IncludeObject::default());
    }
    match query.get("includeObject").unwrap_or_default() {
        // As in `optionsForTransform` (`response.go`): validated only where it is used, by a Table.
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "Object" => Ok(IncludeObject::Object),
        "None" => Ok(IncludeObject::None),
        other => Err(Status::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', 'Object', \
             'None', or empty",
            go_quote(other)
        ))),
    }
}

/// A tree in the accepted encoding.
///
/// # Errors
/// 406 for a kind that protobuf does not know.
pub(super) fn encode(value: &Value, accepted: Output) -> Result<Bytes, Status> {
    Ok(match accepted.media {
        MediaType::Yaml => yaml::print(value).into(),
        MediaType::Protobuf => protobuf::encode(value)?.into(),
        MediaType::Json => {
            let mut text = if accepted.pretty {
                serde_json::to_vec_pretty(value).unwrap_or_default()
            } else {
                cache::encode(value)
            };
            text.push(b'\n');
            text.into()
        }
    })
}

impl Renderer<'_> {
    pub(super) fn api_version(&self) -> String {
        api_version(&self.row.resource.group, &self.version.name)
    }

    /// Whether the form is the stored one, whose bytes can be copied.
    pub(super) fn is_plain(&self) -> bool {
        self.accepted.media == MediaType::Json && self.accepted.convert_to.is_none() && !self.accepted.pretty
    }

    /// A stored object; JSON clients get its bytes.
    pub(super) fn stored(&self, object: &Object) -> Result<Bytes, Status> {
        // The fast path: stored bytes with a new head, nothing parsed. It must give the same bytes as the slow one below.
        if self.splices(object) {
            let mut out = Vec::new();
            let api_version = self.api_version();
            object.write(Head::Full { kind: &self.row.resource.kind, api_version: &api_version }, &mut out);
            out.push(b'\n');
            return Ok(out.into());
        }
        self.tree(&self.present(object))
    }

    /// A stored object as a tree, as far as the accepted form shows it.
    pub(super) fn present(&self, object: &Object) -> Value {
        let metadata_alone = matches!(
            self.accepted.convert_to,
            Some((TargetKind::PartialObjectMetadata | TargetKind::PartialObjectMetadataList, _))
        );
        // Decoding the rest would be most of the work. A view shows the metadata as it is.
        if metadata_alone && self.row.is_uniform(object.revision) {
            return json!({"metadata": object.metadata()});
        }
        present(self.row, &self.version.name, object)
    }

    /// An object as a tree.
    pub(super) fn tree(&self, object: &Value) -> Result<Bytes, Status> {
        let shown = self.transformed(object)?;
        encode(shown.as_ref().unwrap_or(object), self.accepted)
    }

    /// The object in the form that is wanted; `None`: as it is.
    pub(super) fn transformed(&self, object: &Value) -> Result<Option<Value>, Status> {
        Ok(Some(match self.accepted.convert_to {
            None => return Ok(None),
            Some((TargetKind::PartialObjectMetadata, version)) => partial(object, version),
            // Clients may accept the list type for a list; for one object it is refused, in Go's words.
            Some((TargetKind::PartialObjectMetadataList, _)) => {
                return Err(Status::not_acceptable(
                    "you requested PartialObjectMetadataList, but the requested object is not a list",
                ));
            }
            Some((TargetKind::Table, version)) => {
                let mut metadata = Map::new();
                // The Table of one object has that object's version; that of a list has the list's.
                let resource_version = meta::text(object, &["metadata", "resourceVersion"]);
                if !resource_version.is_empty() {
                    metadata.insert("resourceVersion".into(), resource_version.into());
                }
                self.table(version, metadata, vec![self.table_row(object, version)], true)
            }
        }))
    }

    /// A Table; watch events after the first leave out its columns.
    pub(super) fn table(
        &self,
        version: MetaVersion,
        metadata: Map<String, Value>,
        rows: Vec<Value>,
        columns: bool,
    ) -> Value {
        // `null` and not an empty list in later events: Go prints a nil slice, and kubectl keeps the columns of the first one.
        let definitions = columns.then(|| {
            let columns = self.version.columns.iter();
            columns
                .map(|c| {
                    json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description,
                        "priority": c.priority})
                })
                .collect::<Vec<Value>>()
        });
        json!({"kind": "Table", "apiVersion": version.api_version(), "metadata": metadata,
            "columnDefinitions": definitions, "rows": rows})
    }

    /// A row of a Table.
    pub(super) fn table_row(&self, object: &Value, version: MetaVersion) -> Value {
        let cells = self.row.strategy().map(|s| s.cells(object, self.now)).unwrap_or_default();
        let shown = match self.include {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => partial(object, version),
            IncludeObject::Object => object.clone(),
        };
        json!({"cells": cells, "object": shown})
    }

    /// A list without its items, and the name of the member that has them in the form that is accepted.
    ///
    /// # Errors
    /// 406 if the form is not one of lists.
    pub(super) fn list_without_items(&self, listed: &Listed) -> Result<(Value, &'static str), Status> {
        let mut metadata =
            Map::from_iter([("resourceVersion".to_string(), listed.revision.to_string().into())]);
        if !listed.continue_token.is_empty() || self.prints_continue() {
            metadata.insert("continue".into(), listed.continue_token.clone().into());
        }
        if let Some(remaining) = listed.remaining {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
        Ok(match self.accepted.convert_to {
            None => {
                let (kind, version) = (&self.row.resource.list_kind, self.api_version());
                (json!({"kind": kind, "apiVersion": version, "metadata": metadata}), "items")
            }
            Some((TargetKind::PartialObjectMetadata, _)) => {
                return Err(Status::not_acceptable(format!(
                    "you requested PartialObjectMetadata, but the requested object is a list ({})",
                    self.go_list_type()
                )));
            }
            Some((TargetKind::PartialObjectMetadataList, version)) => (
                json!({"kind": "PartialObjectMetadataList", "apiVersion": version.api_version(),
                    "metadata": metadata}),
                "items",
            ),
            Some((TargetKind::Table, version)) => (self.table(version, metadata, Vec::new(), true), "rows"),
        })
    }

    /// An item of a list as a tree, in the accepted form.
    pub(super) fn list_item(&self, object: &Object) -> Value {
        let tree = self.present(object);
        match self.accepted.convert_to {
            None => self.item(tree),
            Some((TargetKind::PartialObjectMetadata | TargetKind::PartialObjectMetadataList, version)) => {
                partial(&tree, version)
            }
            Some((TargetKind::Table, version)) => self.table_row(&tree, version),
        }
    }

    /// Appends an item of a list in compact JSON.
    pub(super) fn list_item_json(&self, object: &Object, out: &mut Vec<u8>) {
        // Decided for each object: after a change of a CRD, older objects need conversion and newer ones do not.
        let as_stored = self.row.is_uniform(object.revision);
        match self.accepted.convert_to {
            None if as_stored && self.row.resource.view.is_none() => {
                let api_version = self.item_api_version();
                object.write(self.item_head(&api_version), out);
            }
            Some((TargetKind::PartialObjectMetadataList, version)) if as_stored => {
                object.write_metadata(version.api_version(), out);
            }
            // As it has always been: the order of members is that of objects but for rows, which are none.
            Some((TargetKind::Table, _)) => {
                let _ = serde_json::to_writer(out, &self.list_item(object));
            }
            _ => out.extend(cache::encode(&self.list_item(object))),
        }
    }

    /// The API version for [`Renderer::item_head`]. Empty, and so not made, where items show none: this is asked for each of them.
    pub(super) fn item_api_version(&self) -> String {
        if self.row.resource.custom { self.api_version() } else { String::new() }
    }

    /// What stands in front of an item of a list in JSON.
    pub(super) fn item_head<'h>(&'h self, api_version: &'h str) -> Head<'h> {
        // The codec of built-in kinds leaves out the kind of items; custom resources are maps, which keep it.
        if self.row.resource.custom {
            Head::Full { kind: &self.row.resource.kind, api_version }
        } else {
            Head::Item
        }
    }

    /// Whether an object is answered with its stored text, but for the head.
    pub(super) fn splices(&self, object: &Object) -> bool {
        self.is_plain() && self.row.is_uniform(object.revision) && self.row.resource.view.is_none()
    }

    /// Lists of custom resources print an empty `continue` too (`UnstructuredList`).
    fn prints_continue(&self) -> bool {
        self.row.resource.custom && self.accepted.convert_to.is_none()
    }

    /// How Go names the type of the list in an error.
    fn go_list_type(&self) -> String {
        if self.row.resource.custom {
            return "*unstructured.UnstructuredList".into();
        }
        let group = self.row.resource.group.split('.').next().unwrap_or_default();
        let package = if group.is_empty() { "core" } else { group };
        format!("*{package}.{}", self.row.resource.list_kind)
    }

    /// Items of the lists of built-in kinds carry no kind of their own.
    fn item(&self, mut tree: Value) -> Value {
        if !self.row.resource.custom
            && let Some(members) = tree.as_object_mut()
        {
            members.remove("kind");
            members.remove("apiVersion");
        }
        tree
    }
}

/// An object's metadata alone.
pub(super) fn partial(object: &Value, version: MetaVersion) -> Value {
    json!({"kind": cache::PARTIAL, "apiVersion": version.api_version(),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({}))})
}

/// What a deletion answers for kinds that do not answer the object: a success with the object's UID.
pub(super) fn deleted(row: &Row, name: &str, object: &Value) -> Value {
    let mut details = Map::new();
    details.insert("name".into(), name.into());
    if !row.resource.group.is_empty() {
        details.insert("group".into(), row.resource.group.clone().into());
    }
    details.insert("kind".into(), row.resource.plural.clone().into());
    details.insert("uid".into(), meta::uid(object).into());
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
