//! Completes the status of each response, and ends the call's span, its duration and its audit with it.

use axum::{body::Body, response::Response};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;

use crate::{
    grpc::{call_audit::CallAudit, middleware::error_details::complete_status},
    telemetry::RpcCall,
};

/// Completes the status in the headers or the trailers of a response. Ends the call with it.
pub(super) fn finish_call(
    mut response: Response,
    is_change: bool,
    mut call: Option<RpcCall>,
    audit: CallAudit,
) -> Response {
    // Completed first: this is the status that the client receives.
    complete_status(response.headers_mut(), is_change);
    end_call(response.headers(), &mut call, &audit);
    response.map(|body| {
        Body::new(body.map_frame(move |frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                complete_status(&mut trailers, is_change);
                end_call(&trailers, &mut call, &audit);
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }))
    })
}

/// Ends a call if the headers or trailers have its status.
fn end_call(headers: &HeaderMap, call: &mut Option<RpcCall>, audit: &CallAudit) {
    let Some(code) = status_code(headers) else {
        return;
    };
    audit.finish(headers);
    if let Some(call) = call.take() {
        call.end(code);
    }
}

fn status_code(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
