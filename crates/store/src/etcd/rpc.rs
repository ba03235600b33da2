//! The part of etcd's gRPC API that the engine speaks: services `KV` and `Watch` of `etcdserverpb`
//! (etcd, `api/etcdserverpb/rpc.proto` and `api/mvccpb/kv.proto`).
//!
//! Messages that hold values have no `Debug`: a value may be a Secret.
//!
//! Fields that are not used are left out: protobuf skips what it does not know, and an absent field has its default. The
//! tags are those of the `.proto` files.

use futures::stream;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResponseHeader {
    /// The revision of etcd when it answered.
    #[prost(int64, tag = "3")]
    pub(super) revision: i64,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub(super) create_revision: i64,
    #[prost(int64, tag = "3")]
    pub(super) mod_revision: i64,
    /// How often the key was written since it was created.
    #[prost(int64, tag = "4")]
    pub(super) version: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    /// The first key that is not asked for; empty for only `key`.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(super) limit: i64,
    /// 0 for the present.
    #[prost(int64, tag = "4")]
    pub(super) revision: i64,
    #[prost(bool, tag = "9")]
    pub(super) count_only: bool,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub(super) kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub(super) more: bool,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
}

/// An answer of which only the header matters.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HeaderOnly {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
#[prost(skip_debug)]
pub(super) enum Operation {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    Delete(DeleteRangeRequest),
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct RequestOp {
    #[prost(oneof = "Operation", tags = "1, 2, 3")]
    pub(super) operation: Option<Operation>,
}

/// An operation's answer; only that of a range is read.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct ResponseOp {
    #[prost(message, optional, tag = "1")]
    pub(super) range: Option<RangeResponse>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Expected {
    #[prost(int64, tag = "4")]
    Version(i64),
    #[prost(int64, tag = "6")]
    ModRevision(i64),
}

/// A compare for equality.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Compare {
    /// 0: version, 2: mod revision.
    #[prost(int32, tag = "2")]
    pub(super) target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) key: Vec<u8>,
    #[prost(oneof = "Expected", tags = "4, 6")]
    pub(super) expected: Option<Expected>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(super) success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub(super) failure: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    #[prost(bool, tag = "2")]
    pub(super) succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub(super) responses: Vec<ResponseOp>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CompactionRequest {
    #[prost(int64, tag = "1")]
    pub(super) revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(super) start_revision: i64,
    /// Whether events tell what was there before.
    #[prost(bool, tag = "6")]
    pub(super) prev_kv: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct WatchProgressRequest {}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum WatchRequestUnion {
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    #[prost(message, tag = "3")]
    Progress(WatchProgressRequest),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchRequest {
    #[prost(oneof = "WatchRequestUnion", tags = "1, 3")]
    pub(super) request_union: Option<WatchRequestUnion>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    #[prost(bool, tag = "3")]
    pub(super) created: bool,
    #[prost(bool, tag = "4")]
    pub(super) canceled: bool,
    /// Not 0: the watch began before this revision, which is the oldest that is there.
    #[prost(int64, tag = "5")]
    pub(super) compact_revision: i64,
    #[prost(string, tag = "6")]
    pub(super) cancel_reason: String,
    #[prost(message, repeated, tag = "11")]
    pub(super) events: Vec<WatchEvent>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct WatchEvent {
    /// 0: put, 1: delete.
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) kv: Option<KeyValue>,
    #[prost(message, optional, tag = "3")]
    pub(super) prev_kv: Option<KeyValue>,
}

/// [`WatchEvent::kind`] of a deletion.
pub(super) const DELETE: i32 = 1;

/// The revision of an answer.
pub(super) fn revision_of(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

impl RangeRequest {
    /// For one key.
    pub(super) fn only(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }
}

impl RequestOp {
    pub(super) fn range(key: impl Into<Vec<u8>>) -> Self {
        Self { operation: Some(Operation::Range(RangeRequest::only(key))) }
    }

    pub(super) fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { operation: Some(Operation::Put(PutRequest { key: key.into(), value: value.into() })) }
    }

    pub(super) fn delete(key: impl Into<Vec<u8>>) -> Self {
        Self { operation: Some(Operation::Delete(DeleteRangeRequest { key: key.into() })) }
    }
}

impl Compare {
    pub(super) fn mod_revision(key: impl Into<Vec<u8>>, revision: i64) -> Self {
        Self { target: 2, key: key.into(), expected: Some(Expected::ModRevision(revision)) }
    }

    pub(super) fn version(key: impl Into<Vec<u8>>, version: i64) -> Self {
        Self { target: 0, key: key.into(), expected: Some(Expected::Version(version)) }
    }
}

/// A client of one member.
#[derive(Clone)]
pub(super) struct Client(tonic::client::Grpc<Channel>);

/// A watch stream in both directions. Dropping it cancels the watch at the member.
pub(super) struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Client {
    /// Over a channel to a member. Answers may be of any length: a page of large Secrets is longer than tonic's usual limit
    /// of 4 MiB, and etcd is trusted.
    pub(super) fn new(channel: Channel) -> Self {
        Self(tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX))
    }

    pub(super) async fn range(&mut self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.call("/etcdserverpb.KV/Range", request).await
    }

    pub(super) async fn put(&mut self, request: PutRequest) -> Result<HeaderOnly, Status> {
        self.call("/etcdserverpb.KV/Put", request).await
    }

    pub(super) async fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.call("/etcdserverpb.KV/Txn", request).await
    }

    pub(super) async fn compact(&mut self, request: CompactionRequest) -> Result<HeaderOnly, Status> {
        self.call("/etcdserverpb.KV/Compact", request).await
    }

    /// Begins a watch.
    pub(super) async fn watch(&mut self, create: WatchCreateRequest) -> Result<Watch, Status> {
        // Room for one request: a member that does not take it is not asked again, and nothing piles up here.
        let (requests, queued) = mpsc::channel(1);
        let create = WatchRequest { request_union: Some(WatchRequestUnion::Create(create)) };
        let queued = stream::unfold(queued, async |mut queued| Some((queued.recv().await?, queued)));
        let outgoing = stream::StreamExt::chain(stream::iter([create]), queued);
        self.0.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let request = needs_leader(Request::new(outgoing));
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        let answers = self.0.streaming(request, path, codec).await?.into_inner();
        Ok(Watch { requests, answers })
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.0.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let request = needs_leader(Request::new(request));
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        Ok(self.0.unary(request, path, codec).await?.into_inner())
    }
}

impl Watch {
    /// The next answer. Cancel-safe: giving up waiting for it loses nothing.
    pub(super) async fn message(&mut self) -> Result<Option<WatchResponse>, Status> {
        self.answers.message().await
    }

    /// Asks up to where everything was delivered, unless a request is on its way already. Does not wait.
    pub(super) fn request_progress(&self) {
        let progress = WatchRequestUnion::Progress(WatchProgressRequest {});
        // Full: it was asked. Closed: the stream of answers says why.
        let _ = self.requests.try_send(WatchRequest { request_union: Some(progress) });
    }
}

/// A member that knows no leader says so at once, instead of keeping the request until it gives up
/// (etcd, `api/v3rpc/rpctypes/md.go`).
fn needs_leader<T>(mut request: Request<T>) -> Request<T> {
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}
