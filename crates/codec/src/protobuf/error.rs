//! What can go wrong with protobuf, in kube-apiserver's words.
//!
//! A variant for each message, because clients see the text.

use fleetpass_apimachinery::status::Status;
use std::borrow::Cow;

/// Why bytes are not the object that they should be, in kube-apiserver's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are none.
    #[error("empty data")]
    EmptyData,
    /// They do not begin with `k8s\0`.
    #[error("provided data does not appear to be a protobuf message, expected prefix {PREFIX_IN_GO}")]
    NoPrefix,
    /// Nothing follows the prefix.
    #[error("empty body")]
    EmptyBody,
    /// They end too early.
    #[error("unexpected EOF")]
    UnexpectedEof,
    /// A number of more than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// A length with the sign bit set.
    #[error("proto: negative length found during unmarshaling")]
    NegativeLength,
    /// A group ends that has not begun, in an entry of a map.
    #[error("proto: unexpected end of group")]
    EndOfGroup,
    /// A group ends that has not begun.
    #[error("proto: {message}: wiretype end group for non-group")]
    EndGroupOutside {
        /// The Go type of the message.
        message: &'static str,
    },
    /// A field number that is not positive.
    #[error("proto: {message}: illegal tag {number} (wire type {wire})")]
    IllegalTag {
        /// The Go type of the message.
        message: &'static str,
        /// The field number.
        number: i32,
        /// The number and the wire type, as written.
        wire: u64,
    },
    /// A wire type that does not exist.
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    /// A wire type that the field does not have.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WrongWireType {
        /// The wire type.
        wire: u8,
        /// The Go name of the field.
        field: Cow<'static, str>,
    },
    /// A kind without a message: a custom resource, or one that is not served.
    #[error(
        "object {0} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    NotMarshalable(String),
    /// Nested more deeply than what is kept.
    #[error("exceeded max depth")]
    TooDeep,
    /// A field that should hold JSON does not.
    #[error("{0}")]
    Json(String),
    /// An infinite number, or none.
    #[error("json: unsupported value")]
    NotFinite,
    /// A time that JSON cannot say.
    #[error("Time.MarshalJSON: year outside of range [0,9999]")]
    Year,
    /// A number or string that is neither.
    #[error("impossible IntOrString.Type")]
    IntOrString,
}

/// The prefix as Go prints a list of bytes.
const PREFIX_IN_GO: &str = "[107 56 115 0]";

/// Why an answer has no protobuf form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A kind without a message: a Table, a custom resource. Holds its Go type.
    #[error(
        "object {0} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    NotMarshalable(String),
    /// A value of another type than its field: the object was not decoded by its schema.
    #[error("{message}.{field} does not fit its protobuf field")]
    Unfit {
        /// The Go type of the message.
        message: &'static str,
        /// The field's JSON name; empty if the message itself does not fit.
        field: &'static str,
    },
}

impl From<EncodeError> for Status {
    /// 406 for kinds without a message (`errNotMarshalable`), else 500.
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::NotMarshalable(_) => Status::not_acceptable(error.to_string()),
            EncodeError::Unfit { .. } => Status::internal(error),
        }
    }
}
