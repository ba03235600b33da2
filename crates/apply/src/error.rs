//! Why a patch is refused.

use crate::fieldpath::{Path, Set};
use crate::kind::{PatchKind, UnsupportedMediaType};
use crate::limit::{Telling, and_more};
use crate::managed_fields::{ManagedFieldsError, Owner};
use crate::strategic::StrategicError;
use crate::typed::{ValidationError, ValidationErrors};
use crate::value::Found;
use crate::words::{GoWords, PatchPart, Words};
use fleetpass_apimachinery::gvk::GroupVersionKind;
use std::ops::ControlFlow;

/// Why a patch is refused. What a server answers then is its own affair: nothing here knows of HTTP.
///
/// The message may show values of the body or of the object, for the client that sent the one and may change the other. It
/// is not for logs: the object may be a Secret. `Debug` shows no values.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", self.message(&GoWords))]
pub enum Error {
    /// The media type of the body.
    UnsupportedMediaType(UnsupportedMediaType),
    /// A kind of patch that [`patch`](crate::patch) does not do: apply, for which more must be known.
    UnsupportedKind(PatchKind),
    /// The body is no document at all.
    Malformed {
        /// What kind of patch it should have been.
        kind: PatchKind,
        /// Whether it was read while unknown and repeated fields were looked for too.
        validated: bool,
        /// The decoder's message.
        why: String,
    },
    /// The body names a member of an object twice, and whoever sent it wants that refused.
    DuplicateFields {
        /// The decoder's message.
        why: String,
    },
    /// The body is a document, but not a patch of this kind.
    NotAPatch {
        /// What kind of patch it should have been.
        kind: PatchKind,
        /// As in [`Error::Malformed`].
        validated: bool,
        /// The part that has the wrong type.
        part: PatchPart,
        /// What stands there.
        found: Found,
    },
    /// A JSON patch has more operations than may be spent on one request.
    TooManyOperations {
        /// How many it has.
        found: usize,
        /// How many it may have.
        max: usize,
    },
    /// An operation of a JSON patch does not apply to the object: there is no such place, a test fails, there is no such
    /// operation.
    DoesNotApply {
        /// Its position, from 0.
        operation: usize,
    },
    /// The operations of a JSON patch would copy too much, or nest the object too deeply.
    GrowsTooMuch,
    /// A strategic merge patch that cannot be merged.
    Strategic(StrategicError),
    /// The configuration to apply is of another kind or version.
    WrongKind(GroupVersionKind),
    /// The configuration to apply says who owns its fields; that is for the server to say.
    ManagedFieldsGiven,
    /// The `managedFields` of the stored object cannot be read.
    ManagedFields(ManagedFieldsError),
    /// Others own what would be changed.
    Conflicts(Conflicts),
    /// The configuration to apply, or the stored object, does not fit its schema.
    DoesNotFit(Box<Misfit>),
    /// The stored object, which nobody owns so far, does not fit its schema.
    Untracked(Box<Misfit>),
    /// Configuration and stored object fit their schema, but cannot be merged.
    Unmergeable(ValidationError),
}

/// A field that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who.
    pub owner: Owner,
    /// The field.
    pub path: Path,
}

/// Fields that others own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct Conflicts {
    /// The first hundred, or fewer if their paths are long, sorted by owner; never empty.
    pub conflicts: Vec<Conflict>,
    /// How many there are besides.
    pub more: usize,
}

/// An object that does not fit its schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Misfit {
    /// Which of the objects that a write is about.
    pub which: MisfitObject,
    /// Its namespace, or empty.
    pub namespace: String,
    /// Its name, or empty.
    pub name: String,
    /// The kind that it should be.
    pub kind: GroupVersionKind,
    /// What is wrong with it.
    pub errors: ValidationErrors,
}

/// Which of the objects that a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MisfitObject {
    /// The configuration that is applied.
    Configuration,
    /// The object that it is applied to.
    Live,
    /// The object after an update.
    UpdateNew,
    /// The object before an update.
    UpdateOld,
}

impl From<UnsupportedMediaType> for Error {
    fn from(error: UnsupportedMediaType) -> Self {
        Self::UnsupportedMediaType(error)
    }
}

impl Error {
    /// The message, with these words about values and types. [`Display`](std::fmt::Display) uses [`GoWords`].
    pub fn message(&self, words: &dyn Words) -> String {
        match self {
            Self::UnsupportedMediaType(error) => error.to_string(),
            Self::UnsupportedKind(kind) => format!("{}: unimplemented patch type", kind.media_type()),
            Self::Malformed { kind, validated, why } => malformed(*kind, *validated, why),
            Self::DuplicateFields { why } => format!("error strict decoding YAML: {why}"),
            Self::NotAPatch { kind, validated, part, found } => match kind {
                // The library that reads it says no more, and null is no object to anybody.
                PatchKind::Merge if !validated || found.0.is_null() => NOT_A_MERGE_PATCH.to_string(),
                PatchKind::Apply => {
                    let why = words.not_a_patch(&found.0, part, *validated);
                    malformed(
                        *kind,
                        *validated,
                        &format!("error unmarshaling JSON: while decoding JSON: {why}"),
                    )
                }
                PatchKind::Json | PatchKind::Merge | PatchKind::Strategic => {
                    malformed(*kind, *validated, &words.not_a_patch(&found.0, part, *validated))
                }
            },
            Self::TooManyOperations { found, max } => {
                format!("The allowed maximum operations in a JSON patch is {max}, got {found}")
            }
            Self::DoesNotApply { operation } => format!("operation {operation} of the patch does not apply"),
            Self::GrowsTooMuch => "the patch makes the object too large or nests it too deeply".to_string(),
            Self::Strategic(error) => error.message(words),
            Self::WrongKind(GroupVersionKind { group, version, kind }) => {
                format!("invalid object type: {group}/{version}, Kind={kind}")
            }
            Self::ManagedFieldsGiven => "metadata.managedFields must be nil".to_string(),
            Self::ManagedFields(error) => format!("failed to decode managed fields: {error}"),
            Self::Conflicts(conflicts) => conflicts.message(),
            Self::DoesNotFit(misfit) => misfit.message(words),
            Self::Untracked(misfit) => {
                format!("failed to create manager for existing fields: {}", misfit.message(words))
            }
            Self::Unmergeable(error) => format!("failed to merge config: {}", error.message(words)),
        }
    }
}

/// What `json-patch.v4` says of every merge patch that it cannot read.
const NOT_A_MERGE_PATCH: &str = "Invalid JSON Patch";

/// A body that cannot be read as a patch: kube-apiserver says less where it does not look for unknown fields, and says
/// it differently for each kind (`k8s.io/apiserver/pkg/endpoints/handlers/patch.go`).
fn malformed(kind: PatchKind, validated: bool, why: &str) -> String {
    match kind {
        PatchKind::Json | PatchKind::Merge if validated => format!("error decoding patch: {why}"),
        PatchKind::Merge => NOT_A_MERGE_PATCH.to_string(),
        PatchKind::Json | PatchKind::Strategic => why.to_string(),
        PatchKind::Apply => format!("error decoding YAML: {why}"),
    }
}

impl Conflicts {
    /// The conflicts about these fields of each owner.
    pub(crate) fn of(contested: &[(Owner, Set)]) -> Self {
        let mut conflicts = Vec::new();
        let mut telling = Telling::new();
        for (owner, fields) in contested {
            // Ended by the walk itself, so that the paths that are not told are not made either.
            let _ = fields.visit(&mut Path::root(), &mut |path| {
                if telling.is_over() {
                    return ControlFlow::Break(());
                }
                telling.tell(path.to_string().len());
                conflicts.push(Conflict { owner: owner.clone(), path: path.clone() });
                ControlFlow::Continue(())
            });
        }
        let all: usize = contested.iter().map(|(_, fields)| fields.len()).sum();
        let more = all - conflicts.len();
        Self { conflicts, more }
    }

    /// As `merge/conflict.go` of structured-merge-diff and `NewConflictError` word it.
    fn message(&self) -> String {
        if let ([Conflict { owner, path }], 0) = (self.conflicts.as_slice(), self.more) {
            return format!("Apply failed with 1 conflict: conflict with {owner}: {path}");
        }
        let mut lines = Vec::new();
        let mut last = None;
        for Conflict { owner, path } in &self.conflicts {
            // One heading for all conflicts with an owner, which follow each other.
            if last != Some(owner) {
                lines.push(format!("conflicts with {owner}:"));
                last = Some(owner);
            }
            lines.push(format!("- {path}"));
        }
        if self.more > 0 {
            lines.push(and_more(self.more));
        }
        let all = self.conflicts.len() + self.more;
        format!("Apply failed with {all} conflicts: {}", lines.join("\n"))
    }
}

impl Misfit {
    fn message(&self, words: &dyn Words) -> String {
        let Self { which, namespace, name, kind, errors } = self;
        let GroupVersionKind { group, version, kind } = kind;
        let object = format!("{namespace}/{name}; {group}/{version}, Kind={kind}");
        let errors = errors.message(words);
        match which {
            MisfitObject::Configuration => {
                format!("failed to create typed patch object ({object}): {errors}")
            }
            MisfitObject::Live => format!("failed to create typed live object ({object}): {errors}"),
            MisfitObject::UpdateNew => {
                format!("failed to convert new object ({object}) to smd typed: {errors}")
            }
            MisfitObject::UpdateOld => {
                format!("failed to convert live object ({object}) to smd typed: {errors}")
            }
        }
    }
}
