//! What every request passes: its id, the rules for hosts and origins, and the last touch on its response.

use crate::{
    identity::Head,
    media,
    problem::{MEDIA_TYPE, Problem},
    state::{App, Connection},
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::net::Ipv4Addr;

/// Longest path; a longer topic goes in a body or a query.
const MAX_PATH: usize = 32 * 1024;

/// Longest request target.
const MAX_TARGET: usize = 60 * 1024;

/// Longest request id that is echoed.
const MAX_REQUEST_ID: usize = 128;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const EXPOSED: &str = "ETag, Last-Modified, Retry-After, Location, Preference-Applied, X-Request-Id, Waystation-Qos, \
     Waystation-Cursor, Idempotency-Replayed";

/// The outermost layer.
pub(crate) async fn door(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let config = app.config();
    let id = request_id(request.headers());
    let no_store = !request.uri().path().starts_with("/v1/topics");
    // Without a connection (a test of the router alone) the strict rule holds.
    let local = request.extensions().get::<Connection>().map_or(Ipv4Addr::LOCALHOST.into(), |c| c.local.ip());
    let (cors, verdict) = {
        let head = Head { method: request.method(), uri: request.uri(), headers: request.headers(), local };
        let cors = head.listed_origin(&config).and_then(|origin| HeaderValue::from_str(origin).ok());
        (cors, enter(&head).and_then(|()| head.check_host(&config)).and_then(|()| head.check_origin(&config)))
    };
    // Handlers and logs see the id too.
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = match verdict {
        Err(problem) => problem.into_response(),
        Ok(()) if cors.is_some() && is_preflight(&request) => preflight(),
        Ok(()) => as_problem(next.run(request).await),
    };
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if !headers.contains_key(header::CACHE_CONTROL) {
        let value = if no_store { "no-store" } else { "no-cache" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = cors {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}

fn enter(head: &Head<'_>) -> Result<(), Problem> {
    let (path, query) = (head.uri.path().len(), head.uri.query().map_or(0, |query| query.len() + 1));
    if path > MAX_PATH || path + query > MAX_TARGET {
        return Err(Problem::UriTooLong);
    }
    media::refuse_codings(head.headers)
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(REQUEST_ID)
        .filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.as_bytes().iter().all(u8::is_ascii_graphic))
        .cloned()
        .or_else(|| HeaderValue::from_str(&format!("{:032x}", fastrand::u128(..))).ok())
        .unwrap_or(HeaderValue::from_static("-"))
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, DELETE"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, If-Match, If-None-Match, Prefer, Last-Event-ID, X-Request-Id, Idempotency-Key",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// An error that is not told as a problem (the router's own 404 and 405) becomes one, with its headers (`Allow`).
fn as_problem(response: Response) -> Response {
    let status = response.status();
    let told = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE);
    if told || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let mut problem = Problem::of_status(status).into_response();
    if let Some(allow) = response.headers().get(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allow.clone());
    }
    problem
}
