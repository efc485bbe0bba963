//! What every request passes: its id, the rules for hosts and origins, the way to its handler, and the last touch on
//! its response.

use crate::{
    conditional::hexadecimal,
    config::Config,
    head::{Head, REQUEST_ID},
    later::{self, Later},
    media,
    problem::{self, MEDIA_TYPE, Problem},
    query::TopicPath,
    routes::topics,
    state::{App, Connection},
};
use axum::{
    Router,
    body::{Body, HttpBody},
    http::{HeaderValue, Method, Request, StatusCode, header, request::Parts},
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

const EXPOSED: &str = "ETag, Last-Modified, Retry-After, Location, Preference-Applied, X-Request-Id, Waystation-Qos, \
     Waystation-Cursor, Idempotency-Replayed";

/// What a request is answered with.
pub(crate) enum Answer {
    Now(Response),
    /// Somebody waits.
    Later(Later),
}

/// Answers a request from outside.
pub(crate) async fn door<B>(app: &App, routes: &Routes, connection: Connection, request: Request<B>) -> Answer
where
    B: HttpBody<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static,
{
    let config = app.config();
    let (mut request, body) = request.into_parts();
    let head = Head::read(&request, &config);
    let verdict =
        enter(&head).and_then(|()| head.check_host(connection.local.ip())).and_then(|()| head.check_origin(&config));
    let touch = Touch::new(&head, &config, verdict.is_ok());
    let response = match verdict {
        Err(problem) => problem.into_response(),
        Ok(()) if touch.cors.is_some() && is_preflight(&request) => preflight(),
        Ok(()) => {
            let peer = connection.peer(head.is_proxied());
            if request.method == Method::POST && request.uri.path().starts_with(TopicPath::UNDER_TOPICS) {
                // Past the router with its boxes and copies goes the one call that comes by the ten thousand a second.
                topics::post(app, peer, &request, body).await.into_response()
            } else {
                request.extensions.insert(peer);
                let Ok(response) = Box::pin(routes.call(Request::from_parts(request, Body::new(body)))).await;
                response
            }
        }
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
    cache: HeaderValue,
    /// Whether another origin might be answered otherwise.
    varies: bool,
    cors: Option<HeaderValue>,
}

impl Touch {
    fn new(head: &Head<'_>, config: &Config, is_let_in: bool) -> Self {
        Self {
            asked_for_head: head.method == Method::HEAD,
            is_nameless: is_let_in && !head.names_itself,
            id: request_id(head.id),
            cache: HeaderValue::from_static(if head.path.starts_with("/v1/topics") { "no-cache" } else { "no-store" }),
            varies: !config.cors_origins.is_empty(),
            cors: head.listed_origin(config).and_then(|origin| HeaderValue::from_str(origin).ok()),
        }
    }

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
        headers.entry(header::CACHE_CONTROL).or_insert(self.cache);
        if self.varies {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(origin) = self.cors {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
        response
    }
}

fn enter(head: &Head<'_>) -> Result<(), Problem> {
    let (path, target) = head.target();
    if path > MAX_PATH || target > MAX_TARGET {
        return Err(Problem::UriTooLong);
    }
    media::refuse_codings(head.coding)
}

/// The one it came with, if it is fit to be echoed.
pub(crate) fn request_id(given: Option<&HeaderValue>) -> HeaderValue {
    let fits = |id: &&HeaderValue| {
        !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    given.filter(fits).cloned().unwrap_or_else(|| {
        HeaderValue::from_bytes(&hexadecimal(fastrand::u64(..))).unwrap_or(HeaderValue::from_static("-"))
    })
}

fn is_preflight(request: &Parts) -> bool {
    request.method == Method::OPTIONS && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
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
