//! One side as a server that is asked: every request of the agent goes through here, so there is one place that bounds what
//! a server may send, and one that notes what came.

use super::{
    Side,
    call::Call,
    cause::{Cause, brief, retry_after},
};
use crate::health::Health;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header, response};
use http_body_util::{BodyExt as _, Full};
use kube::{Client, client::Body, core::Status};
use secrecy::{ExposeSecret as _, SecretSlice};
use serde::de::IgnoredAny;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// The largest object: what a server stores is at most 1.5 MiB (etcd's limit of a request, which Kubernetes keeps), and a
/// little more as JSON.
pub(crate) const OBJECT_BYTES: usize = 4 << 20;
/// The largest answer to a TokenRequest. A token goes into a header of every request; servers take 64 KiB of headers at best.
pub(crate) const TOKEN_BYTES: usize = 64 << 10;
/// The largest page of a list. One that is larger is asked for in smaller pages.
pub(crate) const PAGE_BYTES: usize = 8 << 20;
/// As much of an error as is read. It is said in a few lines.
const ERROR_BYTES: usize = 64 << 10;
/// Answers up to this are read side by side.
const SMALL_BYTES: usize = 64 << 10;
/// As many larger ones of a side as are read at a time, so that all answers together are bounded, too.
const LARGE_AT_A_TIME: usize = 8;

/// One of the two servers.
pub(crate) struct Peer {
    side: Side,
    client: Client,
    /// How long an exchange may take, but for the body of a watch.
    timeout: Duration,
    health: Arc<Health>,
    large: Semaphore,
}

/// What came instead of what was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is about the server or such calls. It has been noted.
    Cause(Cause),
    /// It is about the object, or the revision.
    Status(Box<Status>),
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::Cause(cause)
    }
}

impl Peer {
    pub(crate) fn new(side: Side, client: Client, timeout: Duration, health: Arc<Health>) -> Self {
        Self { side, client, timeout, health, large: Semaphore::new(LARGE_AT_A_TIME) }
    }

    /// What is known of it.
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Sends a request, and reads the answer, which may have so many bytes; notes what came.
    pub(crate) async fn call<T>(
        &self,
        call: &Call,
        request: Request<Vec<u8>>,
        limit: usize,
        read: impl FnOnce(&[u8]) -> Result<T, &'static str>,
    ) -> Result<T, Failure> {
        let result = self.ask(call, request, limit, read).await;
        self.note(call, &result);
        result
    }

    /// [`call`](Self::call) without the note: for who wants to try something else first.
    pub(crate) async fn ask<T>(
        &self,
        call: &Call,
        request: Request<Vec<u8>>,
        limit: usize,
        read: impl FnOnce(&[u8]) -> Result<T, &'static str>,
    ) -> Result<T, Failure> {
        let exchange = async {
            let response = self.send(call, request.map(Body::from)).await?;
            Ok::<_, Failure>(self.read(response.into_body(), limit).await?)
        };
        let answer = self.in_time(exchange).await?;
        // Wiped when it is dropped: it may hold a token.
        let answer = SecretSlice::from(answer);
        read(answer.expose_secret()).map_err(|what| Cause::Junk(what).into())
    }

    /// Begins a watch: its body is read by the caller, who also notes what comes of it. A failure to begin is noted.
    pub(crate) async fn open(&self, call: &Call, request: Request<Vec<u8>>) -> Result<Body, Failure> {
        let opened = self.in_time(self.send(call, request.map(Body::from))).await;
        if opened.is_err() {
            self.note(call, &opened);
        }
        Ok(opened?.into_body())
    }

    /// Notes what came of a call.
    pub(crate) fn note<T>(&self, call: &Call, result: &Result<T, Failure>) {
        match result {
            Ok(_) | Err(Failure::Status(_)) => self.health.answered(self.side, call),
            Err(Failure::Cause(cause)) => self.health.failed(self.side, call, cause),
        }
    }

    /// A client for everything else that kube can do but watch, with the same bounds and notes: an answer is passed on once
    /// all of it is there. What it is refused is for its user to say: it is nothing that all accounts need.
    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let peer = self.clone();
        let namespace = self.client.default_namespace().to_owned();
        let service = tower::service_fn(move |request: Request<Body>| {
            let peer = peer.clone();
            async move { peer.pass(request).await }
        });
        Client::new(service, namespace)
    }

    async fn pass(&self, request: Request<Body>) -> Result<Response<Full<Bytes>>, Cause> {
        let call = Call::of(request.method(), request.uri().path(), request.uri().query()).optional();
        self.health.may_ask(self.side, &call)?;
        let exchange = async {
            let response = self.client.send(request).await.map_err(|error| Cause::of_error(&error))?;
            let (parts, body) = refuse_redirect(response)?.into_parts();
            let limit = if parts.status.is_success() { OBJECT_BYTES } else { ERROR_BYTES };
            let body = self.read(body, limit).await?;
            Ok::<_, Cause>((parts, body))
        };
        let passed = match tokio::time::timeout(self.timeout, exchange).await {
            Ok(passed) => passed,
            Err(_) => Err(Cause::Silence(self.timeout)),
        };
        let result = match &passed {
            Ok((parts, body)) if parts.status.is_success() => {
                match serde_json::from_slice::<IgnoredAny>(body) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(Failure::Cause(Cause::Junk("it is not JSON"))),
                }
            }
            Ok((parts, body)) => Err(refusal(&call, parts, body)),
            Err(cause) => Err(Failure::Cause(cause.clone())),
        };
        self.note(&call, &result);
        let (parts, body) = passed?;
        Ok(Response::from_parts(parts, Full::new(Bytes::from(body))))
    }

    async fn in_time<T>(&self, exchange: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(Cause::Silence(self.timeout).into()),
        }
    }

    /// The answer, if it is a good one, with its body unread.
    async fn send(&self, call: &Call, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let response = self.client.send(request).await.map_err(|error| Cause::of_error(&error))?;
        let response = refuse_redirect(response)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        // One that is too long is as good as none: the code says what there is to do.
        let body = match self.read(body, ERROR_BYTES).await {
            Ok(body) => body,
            Err(Cause::TooLarge(_)) => Vec::new(),
            Err(cause) => return Err(cause.into()),
        };
        Err(refusal(call, &parts, &body))
    }

    async fn read(&self, mut body: Body, limit: usize) -> Result<Vec<u8>, Cause> {
        let mut answer = Vec::new();
        let mut permit = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Cause::of_error(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > limit - answer.len() {
                return Err(Cause::TooLarge(
                    format!("an answer of more than {} KiB is not read", limit >> 10).into(),
                ));
            }
            if answer.len() + data.len() > SMALL_BYTES && permit.is_none() {
                // It is never closed.
                permit = self.large.acquire().await.ok();
            }
            answer.extend_from_slice(&data);
        }
        Ok(answer)
    }
}

/// kube follows no redirect either, but takes it for a good answer.
fn refuse_redirect(response: Response<Body>) -> Result<Response<Body>, Cause> {
    if !response.status().is_redirection() {
        return Ok(response);
    }
    let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
    // What follows a question mark may be secret.
    let to = brief(to.split('?').next().unwrap_or_default());
    Err(Cause::Redirect { code: response.status().as_u16(), to })
}

/// What an answer means that is not a good one.
fn refusal(call: &Call, parts: &response::Parts, body: &[u8]) -> Failure {
    let code = parts.status.as_u16();
    let status = serde_json::from_slice::<Status>(body).ok().map(|status| status.with_code(code));
    let known = status.is_some();
    // A proxy's page, or a path that is not served: the code alone counts.
    let status = status.unwrap_or_else(|| {
        let reason = StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason());
        Status::failure("", reason.unwrap_or_default()).with_code(code)
    });
    let suggested = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    let suggested = (suggested > 0).then(|| Duration::from_secs(suggested.into()));
    let wait =
        retry_after(&parts.headers).or(suggested.map(|wait| wait.min(super::cause::LONGEST_RETRY_AFTER)));
    match Cause::of_status(call, &status, wait) {
        Some(cause) => cause.into(),
        None if known || call.is_optional() => Failure::Status(Box::new(status)),
        // Something in between answered, not the API.
        None => {
            Cause::Answer { code, reason: status.reason, message: String::new(), retry_after: wait }.into()
        }
    }
}
