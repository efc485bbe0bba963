//! The page at `/`: it shows what the calls for operators tell, and needs their rights for it.

use crate::{problem::Problem, query::Query, state::App};
use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const PAGE: &str = include_str!("dashboard/page.html");

/// Only what stands in the page runs, and it speaks to nobody but us.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let hash = |tag| STANDARD.encode(Sha256::digest(inside(tag)));
    let policy = format!(
        "default-src 'none'; connect-src 'self'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    );
    HeaderValue::from_str(&policy).ok()
});

/// What stands between a tag of the page and its end.
fn inside(tag: &str) -> &'static str {
    let rest = PAGE.split_once(&format!("<{tag}>")).map_or("", |(_, rest)| rest);
    rest.split_once(&format!("</{tag}>")).map_or("", |(inside, _)| inside)
}

/// `GET /`
pub(crate) async fn page(State(app): State<App>, query: Query) -> Result<Response, Problem> {
    query.finish()?;
    if !app.config().dashboard {
        return Err(Problem::NoRoute);
    }
    let mut response = Html(PAGE).into_response();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    // A page whose policy cannot be written is not served.
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone().ok_or(Problem::Internal)?);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_piece_and_writes_no_markup_from_data() {
        assert!(inside("script").len() > 1_000 && inside("style").len() > 500);
        for foreign in ["http://", "https://", "src=", "href=", "innerHTML", "style=", "onclick"] {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
        assert!(POLICY.is_some());
    }
}
