//! What is told of each call: a span, and how long it took until its status.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use prost::Message;
use prost_types::FileDescriptorSet;

use crate::{
    proto,
    telemetry::{Instruments, RpcCall, names},
};

/// What observes calls.
pub(crate) struct CallTelemetry {
    instruments: Instruments,
    /// `package.Service/Method` of all that is served: a caller does not make names.
    methods: HashSet<Arc<str>>,
    other: Arc<str>,
}

/// A body whose end is the end of its call.
struct InstrumentedBody {
    body: axum::body::Body,
    call: Option<RpcCall>,
}

/// Begins a call's span, and ends it with the status: in the answer's head, or in its trailers.
pub(crate) async fn record_call(
    State(observer): State<Arc<CallTelemetry>>,
    mut request: Request,
    next: Next,
) -> Response {
    let call = observer.start_call(request.uri().path(), request.headers());
    request.extensions_mut().insert(call.span());
    let response = next.run(request).await;
    if let Some(code) = status(response.headers()) {
        call.end(code);
        return response;
    }
    response.map(|body| {
        let call = Some(call);
        axum::body::Body::new(InstrumentedBody { body, call })
    })
}

// === impl Observer ===

impl CallTelemetry {
    pub(crate) fn new(instruments: Instruments) -> Self {
        let reflection = ["v1", "v1alpha"].map(|version| {
            format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo").into()
        });
        Self {
            instruments,
            methods: served_methods().chain(reflection).collect(),
            other: names::OTHER.into(),
        }
    }

    fn start_call(&self, path: &str, headers: &HeaderMap) -> RpcCall {
        let method = path
            .strip_prefix('/')
            .and_then(|name| self.methods.get(name));
        let method = Arc::clone(method.unwrap_or(&self.other));
        RpcCall::begin(&self.instruments, method, headers)
    }
}

/// The methods of the protos that this crate has.
fn served_methods() -> impl Iterator<Item = Arc<str>> {
    let described = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap_or_default();
    described.file.into_iter().flat_map(|file| {
        let package = file.package().to_owned();
        file.service.into_iter().flat_map(move |service| {
            let service_name = format!("{package}.{}", service.name());
            let methods = service.method.into_iter();
            methods.map(move |method| format!("{service_name}/{}", method.name()).into())
        })
    })
}

fn status(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

// === impl Observed ===

impl Body for InstrumentedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(code) = frame.trailers_ref().and_then(status)
            && let Some(call) = self.call.take()
        {
            call.end(code);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
