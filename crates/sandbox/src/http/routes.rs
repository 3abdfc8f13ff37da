//! The paths of the platform and what answers at each.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth::AppCredentials;
use crate::errors::{ErrorReason, ErrorResponse, ValidationError, code, json_response};
use crate::execute::RequestCredentials;
use crate::http::connections::RequestConnection;
use crate::http::{change_response, device_list, lookups};
use crate::json_body::{self, OperationKind};
use crate::platform::Platform;

/// Room for 10,000 devices with addresses, several times over.
const MAX_BODY: usize = 32 * 1024 * 1024;

type PlatformState = State<Arc<Platform>>;
type Body = Result<Bytes, BytesRejection>;
type HandlerResult = Result<Response, ErrorResponse>;

/// All paths, below `/api` and without it.
pub(crate) fn router(platform: Arc<Platform>) -> Router {
    let m2m = Router::new()
        .route("/m2m/v1/session/login", post(login))
        .route("/m2m/v1/session/logout", post(logout))
        .route(
            "/m2m/v1/devices/profile/actions/serviceplan",
            post(change_esim_plan),
        )
        // The eSIM page prints its own address with a double slash.
        .route(
            "/m2m/v1//devices/profile/actions/serviceplan",
            post(change_esim_plan),
        )
        // The 5G page says PUT in its headline and POST in its request line.
        .route(
            "/m2m/v1/devices/actions/plan",
            post(change_five_g_bi_plan).put(change_five_g_bi_plan),
        )
        .route(
            "/m2m/v1/callbacks/{account}",
            post(register).get(list_listeners),
        )
        .route(
            "/m2m/v1/callbacks/{account}/name/{service}",
            delete(deregister),
        )
        .route("/m2m/v1/plans/{account}", get(plans))
        .route("/m2m/v1/devices/actions/list", post(list_devices))
        .route(
            "/m2m/v1/accounts/{account}/requests/{request}/status",
            get(status_v1),
        )
        .route(
            "/m2m/v2/accounts/{account}/requests/{request}/status",
            get(status_v2),
        )
        .method_not_allowed_fallback(no_resource)
        .route_layer(from_fn_with_state(Arc::clone(&platform), limit));
    let api = Router::new()
        .route("/ts/v1/oauth2/token", post(issue_token))
        .route("/ts/v1/oauth2/revoke", post(revoke_token))
        .route("/sandbox/ledger", get(ledger))
        .method_not_allowed_fallback(no_resource)
        .merge(m2m);
    Router::new()
        .nest("/api", api.clone())
        .merge(api)
        .fallback(no_resource)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(map_response_with_state(
            Arc::clone(&platform),
            count_rejections,
        ))
        .with_state(platform)
}

async fn count_rejections(State(platform): PlatformState, response: Response) -> Response {
    if let Some(ErrorReason(reason)) = response.extensions().get() {
        platform.ledger().count_rejection(reason);
    }
    response
}

/// Beyond `requests_per_minute` the gateway in front answers, whatever was asked.
async fn limit(
    State(platform): PlatformState,
    request: Request,
    next: Next,
) -> Result<Response, ErrorResponse> {
    platform.check_rate_limit()?;
    Ok(next.run(request).await)
}

async fn no_resource() -> ErrorResponse {
    ErrorResponse::no_resource()
}

/// A living access token, checked before the body is read.
struct TokenAuth;

impl FromRequestParts<Arc<Platform>> for TokenAuth {
    type Rejection = ErrorResponse;

    async fn from_request_parts(
        parts: &mut Parts,
        platform: &Arc<Platform>,
    ) -> Result<Self, ErrorResponse> {
        platform.auth().check_token(&parts.headers).map(|_| Self)
    }
}

/// A living access token and a living session, which this use keeps alive.
struct SessionAuth(RequestCredentials);

impl FromRequestParts<Arc<Platform>> for SessionAuth {
    type Rejection = ErrorResponse;

    async fn from_request_parts(
        parts: &mut Parts,
        platform: &Arc<Platform>,
    ) -> Result<Self, ErrorResponse> {
        let mut auth = platform.auth();
        let token = auth.check_token(&parts.headers)?;
        let session = auth.use_session(&parts.headers)?;
        Ok(Self(RequestCredentials { token, session }))
    }
}

async fn issue_token(
    State(platform): PlatformState,
    headers: HeaderMap,
    body: Body,
) -> HandlerResult {
    let (pair, _) = platform.authenticate_app(&headers, &body)?;
    let issued = platform.auth().issue(pair);
    platform.ledger().count_token_request();
    Ok(json_response(
        StatusCode::OK,
        &json!({
            "access_token": issued.value,
            "scope": "am_application_scope default",
            "token_type": "Bearer",
            "expires_in": issued.expires_in,
        }),
    ))
}

/// Ends a token: the next token request is answered with another.
async fn revoke_token(
    State(platform): PlatformState,
    headers: HeaderMap,
    body: Body,
) -> HandlerResult {
    let (pair, value) = platform.authenticate_app(&headers, &body)?;
    let missing = "Missing token parameter value";
    let value = value
        .ok_or_else(|| ErrorResponse::oauth(StatusCode::BAD_REQUEST, "invalid_request", missing))?;
    platform.auth().revoke(&pair, &value);
    platform.ledger().count_revocation();
    Ok(StatusCode::OK.into_response())
}

impl Platform {
    /// Who calls the token endpoint, and the `token` in the form.
    fn authenticate_app(
        &self,
        headers: &HeaderMap,
        body: &Body,
    ) -> Result<(AppCredentials, Option<String>), ErrorResponse> {
        let bad = |error, text| ErrorResponse::oauth(StatusCode::BAD_REQUEST, error, text);
        let body = body.as_ref().map_err(|_| ErrorResponse::too_large())?;
        let is_form = has_content_type(headers, "application/x-www-form-urlencoded");
        let member = |wanted| {
            url::form_urlencoded::parse(body)
                .find(|(name, _)| name == wanted)
                .filter(|_| is_form)
                .map(|(_, value)| value.into_owned())
        };
        let pair = self.auth().authenticate_app(headers)?;
        match member("grant_type").as_deref() {
            Some("client_credentials") => Ok((pair, member("token"))),
            Some(_) => Err(bad(
                "unsupported_grant_type",
                "Unsupported grant_type value",
            )),
            None => Err(bad("invalid_request", "Missing grant_type parameter value")),
        }
    }
}

#[derive(Deserialize)]
struct LoginBody {
    username: Option<String>,
    password: Option<String>,
}

async fn login(
    State(platform): PlatformState,
    _: TokenAuth,
    headers: HeaderMap,
    body: Body,
) -> HandlerResult {
    let body = json_body(&headers, &body)?.map_err(ValidationError::into_dotted_response)?;
    let login: LoginBody =
        json_body::parse_json(body).map_err(ValidationError::into_dotted_response)?;
    let username = login.username.unwrap_or_default();
    let password = login.password.unwrap_or_default();
    let session = platform.auth().login(&username, &password);
    platform.ledger().count_login(session.is_err());
    let session = session?;
    Ok(json_response(
        StatusCode::OK,
        &json!({ "sessionToken": session }),
    ))
}

async fn logout(State(platform): PlatformState, SessionAuth(presented): SessionAuth) -> Response {
    let session = presented.session;
    platform.auth().logout(&session);
    json_response(StatusCode::OK, &json!({ "sessionToken": session }))
}

async fn change_esim_plan(
    platform: PlatformState,
    session: SessionAuth,
    here: RequestConnection,
    headers: HeaderMap,
    body: Body,
) -> HandlerResult {
    change_plan(
        platform,
        OperationKind::EsimPlan,
        session,
        here,
        &headers,
        body,
    )
    .await
}

async fn change_five_g_bi_plan(
    platform: PlatformState,
    session: SessionAuth,
    here: RequestConnection,
    headers: HeaderMap,
    body: Body,
) -> HandlerResult {
    change_plan(
        platform,
        OperationKind::FiveGBiPlan,
        session,
        here,
        &headers,
        body,
    )
    .await
}

async fn change_plan(
    State(platform): PlatformState,
    kind: OperationKind,
    SessionAuth(presented): SessionAuth,
    ConnectInfo(connection): RequestConnection,
    headers: &HeaderMap,
    body: Body,
) -> HandlerResult {
    let asked = json_body(headers, &body)?.and_then(|body| json_body::parse_change(kind, body));
    let asked = asked.map_err(|invalid| kind.error_response(invalid))?;
    drop(body);
    let executed = platform.execute(asked, &presented).await;
    change_response::render(executed, &connection)
}

async fn plans(_: PlatformState, _: SessionAuth, Path(account): Path<String>) -> HandlerResult {
    found(lookups::plans(&account).map_err(ValidationError::into_dotted_response))
}

async fn list_devices(
    State(platform): PlatformState,
    _: SessionAuth,
    headers: HeaderMap,
    body: Body,
) -> HandlerResult {
    let body = json_body(&headers, &body)?.map_err(ValidationError::into_dotted_response)?;
    found(device_list::list(&platform, body).map_err(ValidationError::into_dotted_response))
}

async fn status_v1(
    _: PlatformState,
    _: SessionAuth,
    Path((account, _)): Path<(String, String)>,
) -> HandlerResult {
    found(lookups::status_v1(&account).map_err(ValidationError::into_dotted_response))
}

async fn status_v2(
    State(platform): PlatformState,
    _: SessionAuth,
    Path((account, request)): Path<(String, String)>,
) -> HandlerResult {
    // Of the eSIM family, as the SDK's GIORestErrorResponse says.
    let status = lookups::status_v2(&platform, &account, &request);
    found(status.map_err(ValidationError::into_numeric_response))
}

fn found(found: Result<Value, ErrorResponse>) -> HandlerResult {
    Ok(json_response(StatusCode::OK, &found?))
}

async fn register(
    State(platform): PlatformState,
    _: SessionAuth,
    Path(account): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> HandlerResult {
    let body = json_body(&headers, &body)?.map_err(ValidationError::into_dotted_response)?;
    let registered = platform.registrations().register(&account, body);
    let service = registered.map_err(ValidationError::into_dotted_response)?;
    Ok(action_result(&account, service))
}

async fn list_listeners(
    State(platform): PlatformState,
    _: SessionAuth,
    Path(account): Path<String>,
) -> Response {
    let listeners = platform.registrations().list(&account);
    if listeners.is_empty() {
        // As measured: no empty array, but no body at all.
        return StatusCode::OK.into_response();
    }
    json_response(StatusCode::OK, &json!(listeners))
}

async fn deregister(
    State(platform): PlatformState,
    _: SessionAuth,
    Path((account, service)): Path<(String, String)>,
) -> HandlerResult {
    let removed = platform.registrations().deregister(&account, &service);
    let service = removed.map_err(ValidationError::into_dotted_response)?;
    Ok(action_result(&account, service))
}

/// The reply to both calls: `serviceName`, although the request says `name`.
fn action_result(account: &str, service: &str) -> Response {
    json_response(
        StatusCode::OK,
        &json!({ "accountName": account, "serviceName": service }),
    )
}

#[derive(Deserialize)]
struct LedgerQuery {
    identifiers: Option<bool>,
}

async fn ledger(
    State(platform): PlatformState,
    query: Result<Query<LedgerQuery>, QueryRejection>,
) -> Response {
    let identifiers = query.ok().and_then(|Query(query)| query.identifiers);
    let page = platform.ledger_report(identifiers.unwrap_or(true));
    match serde_json::to_vec(&page) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The bytes of a JSON body. Too large is refused alike everywhere; what is not
/// said to be JSON, in the shape of the endpoint.
fn json_body<'b>(
    headers: &HeaderMap,
    body: &'b Body,
) -> Result<Result<&'b [u8], ValidationError>, ErrorResponse> {
    let body = body.as_ref().map_err(|_| ErrorResponse::too_large())?;
    if has_content_type(headers, "application/json") {
        return Ok(Ok(body));
    }
    Ok(Err(ValidationError::new(
        code::DESERIALIZATION,
        "The content type must be application/json",
    )))
}

fn has_content_type(headers: &HeaderMap, media: &str) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case(media))
}
