//! Every error of the gateway, and how it is told (RFC 9457).

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use waystation_broker::{InvalidTopic, MessageId, Refusal, Refused};

/// The media type of problem details.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// Seconds after which a refused client may try again.
pub(crate) const RETRY_AFTER: &str = "1";

/// Longest detail, in bytes, beside the mark of its being cut.
const MOST_DETAIL: usize = 512;

/// What went wrong. The text, where there is one, is for the reader of this one response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Something in the request's head is not understood.
    BadRequest(String),
    /// A query parameter is unknown, repeated or impossible.
    BadQuery(String),
    /// A topic or filter breaks MQTT's rules.
    BadTopic(String),
    /// The body is not what this call takes.
    BadBody(String),
    /// A cursor that is malformed, of another session, or was never handed out.
    BadCursor,
    /// No credentials, or wrong ones.
    Unauthenticated(String),
    /// Known, but not allowed.
    Forbidden(String),
    /// A page of another site asks, and it is not listed.
    CrossOrigin(String),
    /// No such path.
    NoRoute,
    /// The topic has no retained message.
    NoState,
    /// No such session.
    NoSession,
    /// No such client is connected.
    NoClient,
    /// No such gateway.
    NoGateway,
    /// No such webhook.
    NoWebhook,
    /// The path does not take this method.
    MethodNotAllowed,
    /// None of the media types asked for is served here.
    NotAcceptable(String),
    /// The client was too slow with its body.
    RequestTimeout,
    /// A client of another gateway holds the session.
    SessionInUse,
    /// The gateway that carries the request is to be switched off.
    OwnGateway,
    /// A gateway could not open what it needs.
    CannotStart(String),
    /// The webhook stands in the configuration file.
    WebhookOfFile,
    /// `If-Match` or `If-None-Match` does not hold.
    PreconditionFailed(Option<MessageId>),
    /// A message or a body is over its bound.
    TooLarge(String),
    /// The request target is over its bound.
    UriTooLong,
    /// The request's header fields are over their bounds.
    HeadTooLarge,
    /// The body's media type is not taken here.
    UnsupportedMediaType(String),
    /// The idempotency key was used for another request.
    KeyReused,
    /// The `Host` is none of ours.
    Misdirected(String),
    /// A queue that matches is full and chose to refuse.
    QuotaExceeded(String),
    /// The server has too much to do.
    Busy(String),
    /// The server stops.
    Stopping,
    /// A request reached nobody who could answer.
    NobodyListens,
    /// A request was not answered in time.
    NoReply,
    /// The store cannot write.
    StoreFull,
    /// Our mistake.
    Internal,
    /// A status somebody below us chose.
    Other(StatusCode),
}

/// The body of a problem response, and of a failed entry of `POST /v1/messages`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Details {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    pub(crate) detail: String,
}

impl Problem {
    /// The stable last part of `type`, and the status.
    fn kind(&self) -> (&'static str, StatusCode) {
        match self {
            Self::BadRequest(_) => ("bad-request", StatusCode::BAD_REQUEST),
            Self::BadQuery(_) => ("bad-query", StatusCode::BAD_REQUEST),
            Self::BadTopic(_) => ("bad-topic", StatusCode::BAD_REQUEST),
            Self::BadBody(_) => ("bad-body", StatusCode::BAD_REQUEST),
            Self::BadCursor => ("bad-cursor", StatusCode::BAD_REQUEST),
            Self::Unauthenticated(_) => ("unauthenticated", StatusCode::UNAUTHORIZED),
            Self::Forbidden(_) => ("forbidden", StatusCode::FORBIDDEN),
            Self::CrossOrigin(_) => ("cross-origin", StatusCode::FORBIDDEN),
            Self::NoRoute => ("no-route", StatusCode::NOT_FOUND),
            Self::NoState => ("no-state", StatusCode::NOT_FOUND),
            Self::NoSession => ("no-session", StatusCode::NOT_FOUND),
            Self::NoClient => ("no-client", StatusCode::NOT_FOUND),
            Self::NoGateway => ("no-gateway", StatusCode::NOT_FOUND),
            Self::NoWebhook => ("no-webhook", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::NotAcceptable(_) => ("not-acceptable", StatusCode::NOT_ACCEPTABLE),
            Self::RequestTimeout => ("request-timeout", StatusCode::REQUEST_TIMEOUT),
            Self::SessionInUse => ("session-in-use", StatusCode::CONFLICT),
            Self::OwnGateway => ("own-gateway", StatusCode::CONFLICT),
            Self::CannotStart(_) => ("cannot-start", StatusCode::CONFLICT),
            Self::WebhookOfFile => ("webhook-of-file", StatusCode::CONFLICT),
            Self::PreconditionFailed(_) => ("precondition-failed", StatusCode::PRECONDITION_FAILED),
            Self::TooLarge(_) => ("too-large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UriTooLong => ("uri-too-long", StatusCode::URI_TOO_LONG),
            Self::HeadTooLarge => ("head-too-large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::UnsupportedMediaType(_) => ("unsupported-media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::KeyReused => ("key-reused", StatusCode::UNPROCESSABLE_ENTITY),
            Self::Misdirected(_) => ("misdirected", StatusCode::MISDIRECTED_REQUEST),
            Self::QuotaExceeded(_) => ("quota-exceeded", StatusCode::TOO_MANY_REQUESTS),
            Self::Busy(_) => ("busy", StatusCode::SERVICE_UNAVAILABLE),
            Self::Stopping => ("stopping", StatusCode::SERVICE_UNAVAILABLE),
            Self::NobodyListens => ("nobody-listens", StatusCode::SERVICE_UNAVAILABLE),
            Self::NoReply => ("no-reply", StatusCode::GATEWAY_TIMEOUT),
            Self::StoreFull => ("store-full", StatusCode::INSUFFICIENT_STORAGE),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Other(status) => ("other", *status),
        }
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        self.kind().1
    }

    fn title(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "The request is malformed",
            Self::BadQuery(_) => "A query parameter is wrong",
            Self::BadTopic(_) => "The topic or filter is not valid",
            Self::BadBody(_) => "The body is not valid",
            Self::BadCursor => "The cursor is not one of this session",
            Self::Unauthenticated(_) => "Authentication is needed",
            Self::Forbidden(_) => "Not allowed",
            Self::CrossOrigin(_) => "Not allowed from this page",
            Self::NoRoute => "There is nothing at this path",
            Self::NoState => "The topic has no retained message",
            Self::NoSession => "There is no such session",
            Self::NoClient => "No such client is connected",
            Self::NoGateway => "There is no such gateway",
            Self::NoWebhook => "There is no such webhook",
            Self::MethodNotAllowed => "The path does not take this method",
            Self::NotAcceptable(_) => "None of the accepted media types is served here",
            Self::RequestTimeout => "The body came too slowly",
            Self::SessionInUse => "The session is in use",
            Self::OwnGateway => "This gateway carries the request",
            Self::CannotStart(_) => "The gateway cannot start",
            Self::WebhookOfFile => "The webhook stands in the configuration file",
            Self::PreconditionFailed(_) => "The state is another",
            Self::TooLarge(_) => "Too large",
            Self::UriTooLong => "The request target is too long",
            Self::HeadTooLarge => "The header fields are too large",
            Self::UnsupportedMediaType(_) => "The media type is not taken here",
            Self::KeyReused => "The idempotency key belongs to another request",
            Self::Misdirected(_) => "This server does not answer to that name",
            Self::QuotaExceeded(_) => "A quota is used up",
            Self::Busy(_) => "The server is busy",
            Self::Stopping => "The server is stopping",
            Self::NobodyListens => "Nobody listens",
            Self::NoReply => "There was no reply in time",
            Self::StoreFull => "The store cannot write",
            Self::Internal => "Internal error",
            Self::Other(status) => status.canonical_reason().unwrap_or("Error"),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::BadRequest(text)
            | Self::BadQuery(text)
            | Self::BadTopic(text)
            | Self::BadBody(text)
            | Self::Unauthenticated(text)
            | Self::Forbidden(text)
            | Self::CrossOrigin(text)
            | Self::NotAcceptable(text)
            | Self::TooLarge(text)
            | Self::UnsupportedMediaType(text)
            | Self::Misdirected(text)
            | Self::QuotaExceeded(text)
            | Self::CannotStart(text)
            | Self::Busy(text) => text.clone(),
            Self::BadCursor => {
                "the cursor is malformed, belongs to another session, or was never handed out; read without `after` to \
                 start from the acknowledged position"
                    .into()
            }
            Self::NoRoute => "the interface is below /v1".into(),
            Self::NoState => "nothing is retained on this topic; PUT sets its state".into(),
            Self::NoSession => "make it with PUT /v1/sessions/{id}; it may have expired".into(),
            Self::NoClient => {
                "GET /v1/clients lists who is; sessions whose client is away are below /v1/sessions".into()
            }
            Self::NoGateway => "GET /v1/gateways lists those of the configuration".into(),
            Self::OwnGateway => "switch it off by another road, or in the configuration".into(),
            Self::MethodNotAllowed => "the header Allow names the methods that are".into(),
            Self::NoWebhook => "make it with PUT /v1/webhooks/{name}".into(),
            Self::WebhookOfFile => "change it there, below gateways.rest.webhook, and reload with SIGHUP".into(),
            Self::RequestTimeout => "the connection is closed; send the request again".into(),
            Self::SessionInUse => "a client of another gateway is connected under this id; \
                 a read with takeover=true takes the session over"
                .into(),
            Self::PreconditionFailed(Some(_)) => "the header ETag names the state there is".into(),
            Self::PreconditionFailed(None) => "the topic has no retained message".into(),
            Self::UriTooLong => {
                "use POST /v1/messages, or GET /v1/topics?topic=T, for topics over 32 KiB of path".into()
            }
            Self::HeadTooLarge => "at most 100 header fields, together at most 128 KiB, are right".into(),
            Self::KeyReused => {
                "in the last ten minutes another request came with this key; a new request needs a new key".into()
            }
            Self::Stopping => "try again in a moment".into(),
            Self::NobodyListens => "nobody is subscribed to the topic; the request was not sent".into(),
            Self::NoReply => "the request was sent; raise `timeout` if its answer takes longer".into(),
            Self::StoreFull => "the data folder is full or failing; nothing was stored".into(),
            Self::Internal => "the server made a mistake; its log may tell more".into(),
            Self::Other(status) => status.canonical_reason().unwrap_or("no more is known").to_lowercase(),
        }
    }

    /// The problem as data.
    pub(crate) fn details(&self) -> Details {
        let (name, status) = self.kind();
        Details {
            kind: format!("urn:waystation:problem:{name}"),
            title: self.title().into(),
            status: status.as_u16(),
            detail: shortened(self.detail()),
        }
    }

    /// For a status that was answered without problem details.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::BAD_REQUEST => Self::BadRequest("this is no HTTP request as RFC 9112 has it".into()),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::HeadTooLarge,
            StatusCode::NOT_FOUND => Self::NoRoute,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::URI_TOO_LONG => Self::UriTooLong,
            StatusCode::INTERNAL_SERVER_ERROR => Self::Internal,
            other => Self::Other(other),
        }
    }
}

/// A detail may quote what the client sent, which is as long as the client likes.
fn shortened(mut detail: String) -> String {
    if detail.len() > MOST_DETAIL {
        detail.truncate(detail.floor_char_boundary(MOST_DETAIL));
        detail.push('…');
    }
    detail
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.details()).unwrap_or_default();
        let mut response = (self.status(), [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Unauthenticated(_) => challenge(headers),
            Self::QuotaExceeded(_) | Self::Busy(_) | Self::Stopping => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
            }
            Self::PreconditionFailed(Some(current)) => {
                headers.insert(header::ETAG, crate::conditional::etag(current));
            }
            // What is left of the body is not read: the connection cannot be used again (RFC 9110 §15.5.9).
            Self::RequestTimeout => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// Asks for a name, in both ways it may be said.
pub(crate) fn challenge(headers: &mut HeaderMap) {
    let basic = HeaderValue::from_static("Basic realm=\"waystation\", charset=\"UTF-8\"");
    headers.append(header::WWW_AUTHENTICATE, basic);
    headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"waystation\""));
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotAuthorized => Self::Forbidden("the rights do not allow this topic or filter".into()),
            Refused::TooLarge => Self::TooLarge(refused.to_string()),
            Refused::QuotaExceeded => Self::QuotaExceeded(refused.to_string()),
            Refused::Fenced => Self::SessionInUse,
            Refused::TooManyLevels => Self::BadTopic(refused.to_string()),
            Refused::QosNotSupported
            | Refused::RetainNotSupported
            | Refused::WildcardsNotSupported
            | Refused::SharedNotSupported => Self::BadRequest(refused.to_string()),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::BadCredentials => Self::Unauthenticated(refusal.to_string()),
            Refusal::NotAuthorized => Self::Forbidden("the session belongs to another user".into()),
            Refusal::WillRefused | Refusal::EncryptionRequired => Self::Forbidden(refusal.to_string()),
            Refusal::InvalidClientId => Self::BadRequest(refusal.to_string()),
            Refusal::ServerBusy => Self::Busy(refusal.to_string()),
            Refusal::ServerUnavailable => Self::Stopping,
            Refusal::StoreUnavailable => Self::StoreFull,
            Refusal::NoSession => Self::NoSession,
            Refusal::InUse => Self::SessionInUse,
        }
    }
}

impl From<InvalidTopic> for Problem {
    fn from(invalid: InvalidTopic) -> Self {
        Self::BadTopic(format!("it {invalid}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sent_is_quoted_within_bounds() {
        let detail =
            Problem::BadQuery(format!("`{}` is no parameter of this call", "é".repeat(30_000))).details().detail;
        assert!(detail.starts_with("`éé") && detail.ends_with("é…"), "{detail}");
        assert!(detail.len() <= MOST_DETAIL + '…'.len_utf8(), "{}", detail.len());
    }

    #[test]
    fn a_problem_names_its_type_title_status_and_detail() {
        let response = Problem::BadTopic("it is empty".into()).into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        let json = serde_json::to_value(Problem::BadTopic("it is empty".into()).details()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "urn:waystation:problem:bad-topic",
                "title": "The topic or filter is not valid",
                "status": 400,
                "detail": "it is empty",
            })
        );
    }

    #[test]
    fn a_refused_login_is_challenged_both_ways() {
        let response = Problem::Unauthenticated("who?".into()).into_response();
        let challenges: Vec<_> = response.headers().get_all(header::WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges.len(), 2);
        assert!(challenges[0].to_str().unwrap().starts_with("Basic "));
        assert!(challenges[1].to_str().unwrap().starts_with("Bearer "));
    }

    #[test]
    fn who_is_turned_away_for_now_is_told_when_to_come_back() {
        for problem in [Problem::QuotaExceeded(String::new()), Problem::Busy(String::new()), Problem::Stopping] {
            assert!(problem.into_response().headers().contains_key(header::RETRY_AFTER));
        }
        assert!(!Problem::StoreFull.into_response().headers().contains_key(header::RETRY_AFTER));
    }

    /// The names of all types, as `kind` has them.
    fn all() -> Vec<&'static str> {
        let source = include_str!("problem.rs").split("fn kind(").nth(1).unwrap_or_default();
        let source = source.split("\n    }\n").next().unwrap_or_default();
        source.lines().filter_map(|line| Some(line.split_once("=> (\"")?.1.split_once('"')?.0)).collect()
    }

    #[test]
    fn every_type_is_in_the_page_of_problems_and_no_other() {
        let page = include_str!("../../../docs/problems.md");
        let names = all();
        let described: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert!(names.len() > 30);
        let sorted = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names
        };
        assert_eq!(sorted(described), sorted(names));
    }

    #[test]
    fn every_type_has_a_test_through_http() {
        let tests = [
            include_str!("../tests/main/abuse.rs"),
            include_str!("../tests/main/admin.rs"),
            include_str!("../tests/main/door.rs"),
            include_str!("../tests/main/idempotency.rs"),
            include_str!("../tests/main/messages.rs"),
            include_str!("../tests/main/overload.rs"),
            include_str!("../tests/main/request.rs"),
            include_str!("../tests/main/sessions.rs"),
            include_str!("../tests/main/topics.rs"),
            include_str!("../tests/main/webhooks.rs"),
        ];
        let is_tested = |name: &str| {
            tests.iter().any(|text| text.contains(&format!("\"{name}\"")) || text.contains(&format!("problem:{name}")))
        };
        let mut untested = all();
        // Nothing a request contains makes one of these two.
        untested.retain(|name| !["internal", "other"].contains(name) && !is_tested(name));
        assert_eq!(untested, [""; 0]);
    }
}
