use super::handler::Reply;
use super::resource::Call;
use crate::status::Status;
use crate::strategy::ScalePaths;
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
pub(super) async fn serve(
    _: &Call<'_>,
    _: &Arc<ScalePaths>,
    _: impl Future<Output = Result<Bytes, Status>> + Send,
) -> Result<Reply, Status> {
    Err(Status::new(501, "NotImplemented", "scale is not served yet"))
}
