//! What every request passes: its id, the rules for hosts and origins, the way to its handler, and the last touch on
//! its response.

use crate::{
    identity::Head,
    later::{self, Later},
    media,
    problem::{self, MEDIA_TYPE, Problem},
    query::TopicPath,
    routes::topics,
    state::{App, Connection},
};
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;

/// All routes, ready to be called.
pub(crate) type Routes = TowerToHyperService<Router>;

/// Longest path; a longer topic goes in a body or a query.
const MAX_PATH: usize = 32 * 1024;

/// Longest request target.
const MAX_TARGET: usize = 60 * 1024;

/// Longest request id that is echoed.
const MAX_REQUEST_ID: usize = 128;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const EXPOSED: &str = "ETag, Last-Modified, Retry-After, Location, Preference-Applied, X-Request-Id, Waystation-Qos, \
     Waystation-Cursor, Idempotency-Replayed";

/// What a request is answered with.
pub(crate) enum Answer {
    Now(Response),
    /// Somebody waits.
    Later(Later),
}

/// Answers a request from outside.
pub(crate) async fn door(app: &App, routes: &Routes, connection: Connection, request: Request) -> Answer {
    let config = app.config();
    let (cors, verdict) = {
        let local = connection.local.ip();
        let head = Head { method: request.method(), uri: request.uri(), headers: request.headers(), local };
        let cors = head.listed_origin(&config).and_then(|origin| HeaderValue::from_str(origin).ok());
        (cors, enter(&head).and_then(|()| head.check_host(&config)).and_then(|()| head.check_origin(&config)))
    };
    let touch = Touch {
        asked_for_head: request.method() == Method::HEAD,
        is_nameless: verdict.is_ok() && !request.headers().contains_key(header::AUTHORIZATION),
        id: request_id(request.headers()),
        cache: if request.uri().path().starts_with("/v1/topics") { "no-cache" } else { "no-store" },
        cors,
    };
    let response = match verdict {
        Err(problem) => problem.into_response(),
        Ok(()) if touch.cors.is_some() && is_preflight(&request) => preflight(),
        Ok(()) => inside(app, routes, connection, request).await,
    };
    match later::taken(&response) {
        None => Answer::Now(touch.finish(app, response)),
        Some(later) => {
            let app = app.clone();
            Answer::Later(Box::pin(async move { touch.finish(&app, later.await) }))
        }
    }
}

/// What every response gets, as its request had it.
struct Touch {
    asked_for_head: bool,
    /// It said no name.
    is_nameless: bool,
    id: HeaderValue,
    cache: &'static str,
    cors: Option<HeaderValue>,
}

impl Touch {
    fn finish(self, app: &App, response: Response) -> Response {
        let mut response = as_problem(response);
        if self.is_nameless && response.status() == StatusCode::FORBIDDEN && app.broker.knows_users() {
            // A name might change the answer (RFC 9110 §11.6.1).
            problem::challenge(response.headers_mut());
        }
        if self.asked_for_head && response.headers().get(header::CONTENT_LENGTH).is_none_or(|length| length == "0") {
            // Nothing is said rather than the length of what GET would not give (RFC 9110 §8.6).
            response.headers_mut().remove(header::CONTENT_LENGTH);
            *response.body_mut() = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
        }
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, self.id);
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(self.cache));
        }
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = self.cors {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
        response
    }
}

/// Past the router with its boxes and copies goes the one call that comes by the ten thousand a second.
async fn inside(app: &App, routes: &Routes, connection: Connection, mut request: Request) -> Response {
    if request.method() == Method::POST && request.uri().path().starts_with(TopicPath::UNDER_TOPICS) {
        // Boxed: a connection that waits for something else keeps no room for this.
        return Box::pin(topics::post(app, Some(connection), request)).await.into_response();
    }
    request.extensions_mut().insert(connection);
    let Ok(response) = routes.call(request).await;
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
        .unwrap_or_else(|| {
            let mut id = [0; 32];
            for (place, byte) in id.chunks_exact_mut(2).zip(fastrand::u128(..).to_be_bytes()) {
                place.copy_from_slice(&[hexadecimal(byte >> 4), hexadecimal(byte & 15)]);
            }
            HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("-"))
        })
}

fn hexadecimal(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
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
