use tonic::Code;
use tower::ServiceExt;

use super::*;

#[tokio::test]
async fn an_unknown_service_is_not_found_without_a_reason_of_the_gateway() {
    let health = HealthService::new(watch::Sender::new(true).subscribe(), CancellationToken::new());
    // `service` is field 1.
    let message = [&[0, 0, 0, 0, 6, 0x0a, 4][..], b"nope"].concat();
    let request = http::Request::post("/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .body(axum::body::Body::from(message))
        .unwrap();
    let response = health.into_router().oneshot(request).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!((status.code(), status.details()), (Code::NotFound, &[][..]));
}
