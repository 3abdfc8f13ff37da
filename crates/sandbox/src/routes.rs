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

use super::auth::KeyPair;
use super::changes::{self, ChangeKind};
use super::connections::Here;
use super::errors::{Invalid, Reason, Refusal, code, json_response};
use super::execute::Presented;
use super::platform::Platform;
use super::{answer, device_list, lookups};

/// Room for 10,000 devices with addresses, several times over.
const MAX_BODY: usize = 32 * 1024 * 1024;

type Platforms = State<Arc<Platform>>;
type Body = Result<Bytes, BytesRejection>;
type Answer = Result<Response, Refusal>;

/// All paths, below `/api` and without it.
pub(super) fn router(platform: Arc<Platform>) -> Router {
    let m2m = Router::new()
        .route("/m2m/v1/session/login", post(log_in))
        .route("/m2m/v1/session/logout", post(log_out))
        .route("/m2m/v1/devices/profile/actions/serviceplan", post(esim))
        // The eSIM page prints its own address with a double slash.
        .route("/m2m/v1//devices/profile/actions/serviceplan", post(esim))
        // The 5G page says PUT in its headline and POST in its request line.
        .route(
            "/m2m/v1/devices/actions/plan",
            post(five_g_bi).put(five_g_bi),
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
        .route("/ts/v1/oauth2/token", post(token))
        .route("/ts/v1/oauth2/revoke", post(revoke))
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
            count_refusals,
        ))
        .with_state(platform)
}

async fn count_refusals(State(platform): Platforms, response: Response) -> Response {
    if let Some(Reason(reason)) = response.extensions().get() {
        platform.ledger().count_refused(reason);
    }
    response
}

/// Beyond `requests_per_minute` the gateway in front answers, whatever was asked.
async fn limit(
    State(platform): Platforms,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    platform.pass_limit()?;
    Ok(next.run(request).await)
}

async fn no_resource() -> Refusal {
    Refusal::no_resource()
}

/// A living access token, checked before the body is read.
struct Bearer;

impl FromRequestParts<Arc<Platform>> for Bearer {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        platform: &Arc<Platform>,
    ) -> Result<Self, Refusal> {
        platform.auth().check_token(&parts.headers).map(|_| Self)
    }
}

/// A living access token and a living session, which this use keeps alive.
struct Session(Presented);

impl FromRequestParts<Arc<Platform>> for Session {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        platform: &Arc<Platform>,
    ) -> Result<Self, Refusal> {
        let mut auth = platform.auth();
        let token = auth.check_token(&parts.headers)?;
        let session = auth.use_session(&parts.headers)?;
        Ok(Self(Presented { token, session }))
    }
}

async fn token(State(platform): Platforms, headers: HeaderMap, body: Body) -> Answer {
    let (pair, _) = platform.client(&headers, &body)?;
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
async fn revoke(State(platform): Platforms, headers: HeaderMap, body: Body) -> Answer {
    let (pair, value) = platform.client(&headers, &body)?;
    let missing = "Missing token parameter value";
    let value =
        value.ok_or_else(|| Refusal::oauth(StatusCode::BAD_REQUEST, "invalid_request", missing))?;
    platform.auth().revoke(&pair, &value);
    platform.ledger().count_revocation();
    Ok(StatusCode::OK.into_response())
}

impl Platform {
    /// Who calls the token endpoint, and the `token` in the form.
    fn client(
        &self,
        headers: &HeaderMap,
        body: &Body,
    ) -> Result<(KeyPair, Option<String>), Refusal> {
        let bad = |error, text| Refusal::oauth(StatusCode::BAD_REQUEST, error, text);
        let body = body.as_ref().map_err(|_| Refusal::too_large())?;
        let is_form = is(headers, "application/x-www-form-urlencoded");
        let member = |wanted| {
            url::form_urlencoded::parse(body)
                .find(|(name, _)| name == wanted)
                .filter(|_| is_form)
                .map(|(_, value)| value.into_owned())
        };
        let pair = self.auth().client(headers)?;
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
struct Login {
    username: Option<String>,
    password: Option<String>,
}

async fn log_in(State(platform): Platforms, _: Bearer, headers: HeaderMap, body: Body) -> Answer {
    let body = json_body(&headers, &body)?.map_err(Invalid::dotted)?;
    let login: Login = changes::parse(body).map_err(Invalid::dotted)?;
    let username = login.username.unwrap_or_default();
    let password = login.password.unwrap_or_default();
    let session = platform.auth().log_in(&username, &password);
    platform.ledger().count_log_in(session.is_err());
    let session = session?;
    Ok(json_response(
        StatusCode::OK,
        &json!({ "sessionToken": session }),
    ))
}

async fn log_out(State(platform): Platforms, Session(presented): Session) -> Response {
    let session = presented.session;
    platform.auth().log_out(&session);
    json_response(StatusCode::OK, &json!({ "sessionToken": session }))
}

async fn esim(
    platform: Platforms,
    session: Session,
    here: Here,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    change(platform, ChangeKind::Esim, session, here, &headers, body).await
}

async fn five_g_bi(
    platform: Platforms,
    session: Session,
    here: Here,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    change(platform, ChangeKind::FiveGBi, session, here, &headers, body).await
}

async fn change(
    State(platform): Platforms,
    kind: ChangeKind,
    Session(presented): Session,
    ConnectInfo(connection): Here,
    headers: &HeaderMap,
    body: Body,
) -> Answer {
    let asked = json_body(headers, &body)?.and_then(|body| changes::read(kind, body));
    let asked = asked.map_err(|invalid| kind.refuse(invalid))?;
    drop(body);
    let executed = platform.execute(asked, &presented).await;
    answer::write(executed, &connection)
}

async fn plans(_: Platforms, _: Session, Path(account): Path<String>) -> Answer {
    found(lookups::plans(&account).map_err(Invalid::dotted))
}

async fn list_devices(
    State(platform): Platforms,
    _: Session,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let body = json_body(&headers, &body)?.map_err(Invalid::dotted)?;
    found(device_list::list(&platform, body).map_err(Invalid::dotted))
}

async fn status_v1(_: Platforms, _: Session, Path((account, _)): Path<(String, String)>) -> Answer {
    found(lookups::status_v1(&account).map_err(Invalid::dotted))
}

async fn status_v2(
    State(platform): Platforms,
    _: Session,
    Path((account, request)): Path<(String, String)>,
) -> Answer {
    // Of the eSIM family, as the SDK's GIORestErrorResponse says.
    let status = lookups::status_v2(&platform, &account, &request);
    found(status.map_err(Invalid::three_digits))
}

fn found(found: Result<Value, Refusal>) -> Answer {
    Ok(json_response(StatusCode::OK, &found?))
}

async fn register(
    State(platform): Platforms,
    _: Session,
    Path(account): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let body = json_body(&headers, &body)?.map_err(Invalid::dotted)?;
    let registered = platform.registrations().register(&account, body);
    let service = registered.map_err(Invalid::dotted)?;
    Ok(action_result(&account, service))
}

async fn list_listeners(
    State(platform): Platforms,
    _: Session,
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
    State(platform): Platforms,
    _: Session,
    Path((account, service)): Path<(String, String)>,
) -> Answer {
    let removed = platform.registrations().deregister(&account, &service);
    let service = removed.map_err(Invalid::dotted)?;
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
    State(platform): Platforms,
    query: Result<Query<LedgerQuery>, QueryRejection>,
) -> Response {
    let identifiers = query.ok().and_then(|Query(query)| query.identifiers);
    let page = platform.page(identifiers.unwrap_or(true));
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
) -> Result<Result<&'b [u8], Invalid>, Refusal> {
    let body = body.as_ref().map_err(|_| Refusal::too_large())?;
    if is(headers, "application/json") {
        return Ok(Ok(body));
    }
    Ok(Err(Invalid::new(
        code::DESERIALIZATION,
        "The content type must be application/json",
    )))
}

fn is(headers: &HeaderMap, media: &str) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case(media))
}
