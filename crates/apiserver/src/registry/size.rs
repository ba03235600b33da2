//! How large a stored object may be. Kubernetes has the bound from etcd (`--max-request-bytes`); we have it with all stores, or one
//! client could grow an object by a body with each patch, and everybody who lists or watches it would pay.

use super::conversion::to_stored;
use crate::cache::encode_for_storage;
use crate::catalog::Row;
use bytes::Bytes;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use serde_json::Value;

/// How many bytes of JSON: etcd's 1.5 MiB for a request, less what the key and the conditions of the transaction take there.
pub(super) const MAX_STORED: usize = 1536 * 1024 - 2048;

/// The text under which `object` is stored. If it is too large, it is stored without its managed fields where those are not what
/// the write is about (`forgets_owners`): who writes it without owning it is better off than if nobody can
/// (`isTooLargeError` in `k8s.io/apiserver/pkg/endpoints/handlers`: `create.go`, `update.go`, `patch.go`).
///
/// `before` is the number of bytes that are stored now. An object from before there was this bound may stay or shrink, so that
/// it can be mended and its finalizers removed.
///
/// # Errors
/// 500 in etcd's words, which kube-apiserver passes on.
pub(super) fn stored_text(
    row: &Row,
    object: &mut Value,
    before: usize,
    forgets_owners: bool,
) -> Result<Bytes, Status> {
    bounded(object, before, forgets_owners, |object| encode_for_storage(&to_stored(row, object)))
}

fn bounded(
    object: &mut Value,
    before: usize,
    forgets_owners: bool,
    encode: impl Fn(&Value) -> Bytes,
) -> Result<Bytes, Status> {
    let fits = |text: &Bytes| text.len() <= MAX_STORED.max(before);
    let mut text = encode(object);
    if !fits(&text) && forgets_owners && meta::metadata_mut(object).remove("managedFields").is_some() {
        text = encode(object);
    }
    if fits(&text) { Ok(text) } else { Err(Status::plain_error("etcdserver: request is too large")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sized(data: usize, owners: usize) -> Value {
        let mut object = json!({"metadata": {"name": "a"}, "data": {"x": "x".repeat(data)}});
        if owners > 0 {
            object["metadata"]["managedFields"] = json!([{"manager": "m".repeat(owners)}]);
        }
        object
    }

    /// The number of bytes that are stored of the object, and whether it has managed fields; or the refusal.
    fn stored(
        mut object: Value,
        before: usize,
        forgets_owners: bool,
    ) -> Result<(usize, bool), (u16, String)> {
        let text = bounded(&mut object, before, forgets_owners, encode_for_storage)
            .map_err(|status| (status.code, status.message))?;
        assert_eq!(text, encode_for_storage(&object));
        Ok((text.len(), object["metadata"].get("managedFields").is_some()))
    }

    #[test]
    fn objects_are_bounded() {
        let refused = Err((500, "etcdserver: request is too large".to_string()));
        let around = encode_for_storage(&sized(0, 0)).len();
        let most = MAX_STORED - around;
        assert_eq!(stored(sized(most, 0), 0, true), Ok((MAX_STORED, false)));
        assert_eq!(stored(sized(most + 1, 0), 0, true), refused);
        // With the owners of its fields it is too large, without them it is not.
        assert_eq!(stored(sized(most - 100, 100), 0, true), Ok((MAX_STORED - 100, false)));
        assert_eq!(stored(sized(most - 100, 100), 0, false), refused);
        assert!(matches!(stored(sized(most - 1000, 100), 0, true), Ok((_, true))));
        // One that is too large already may stay and shrink, not grow.
        let before = MAX_STORED + 5000;
        assert_eq!(stored(sized(most + 5000, 0), before, true), Ok((before, false)));
        assert_eq!(stored(sized(most + 4000, 0), before, true), Ok((before - 1000, false)));
        assert_eq!(stored(sized(most + 5001, 0), before, true), refused);
    }
}
