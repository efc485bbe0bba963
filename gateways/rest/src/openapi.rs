//! The description of the interface (OpenAPI 3.1), made of the annotations beside each call and of the types that are
//! read and written.

use crate::{
    problem::{Details, MEDIA_TYPE, Problem},
    query::Query,
    receipt::{Entry, Published},
    routes, wire,
};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::LazyLock};
use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::{
        ArrayBuilder, ContentBuilder, OneOfBuilder, OpenApi as Document, Ref, RefOr, Response as Described,
        ResponseBuilder, Schema,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Waystation", description = "Topics as resources, sessions read with a cursor, streams, requests and webhooks, on the same broker as MQTT and MQTT-SN."),
    paths(
        routes::topics::list,
        routes::topics::read,
        routes::topics::publish,
        routes::topics::set,
        routes::topics::clear,
        routes::messages::publish,
        routes::request::ask,
        routes::stream::open,
        routes::sessions::list,
        routes::sessions::set,
        routes::sessions::show,
        routes::sessions::end,
        routes::sessions::read::messages,
        routes::sessions::read::acknowledge,
        routes::webhooks::list,
        routes::webhooks::set,
        routes::webhooks::show,
        routes::webhooks::end,
        routes::clients::list,
        routes::clients::show,
        routes::clients::disconnect,
        routes::clients::subscriptions,
        routes::gateways::list,
        routes::gateways::switch,
        routes::gateways::bridges,
        routes::figures::drops,
        routes::figures::metrics,
        routes::healthy,
        routes::ready,
        describe,
    ),
    components(schemas(Details, wire::Incoming, Published, Entry)),
    tags(
        (name = "topics", description = "Messages and state"),
        (name = "sessions", description = "Pull with a cursor, or have it pushed"),
        (name = "webhooks", description = "Messages are POSTed to you; needs the right `admin`"),
        (name = "operators", description = "Running the place; needs the right `admin`"),
        (name = "open", description = "Needs no login"),
    ),
    security((), ("basic" = []), ("bearer" = [])),
    modifiers(&Logins, &Names),
)]
struct Interface;

/// How a client says who it is.
struct Logins;

impl Modify for Logins {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        for (name, scheme) in [("basic", HttpAuthScheme::Basic), ("bearer", HttpAuthScheme::Bearer)] {
            let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(scheme).build());
            components.add_security_scheme(name, scheme);
        }
    }
}

/// Each operation by method and path: `get_topics_topic`.
struct Names;

impl Modify for Names {
    fn modify(&self, document: &mut Document) {
        for (path, item) in &mut document.paths.paths {
            let words = path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty() && *word != "v1");
            let stem = words.collect::<Vec<_>>().join("_");
            let (get, put, post, delete) = (&mut item.get, &mut item.put, &mut item.post, &mut item.delete);
            for (method, operation) in [("get", get), ("put", put), ("post", post), ("delete", delete)] {
                if let Some(operation) = operation {
                    operation.operation_id = Some(format!("{method}_{stem}"));
                }
            }
        }
    }
}

impl IntoResponses for Problem {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let problem = ResponseBuilder::new().description("What is wrong (RFC 9457)").content(MEDIA_TYPE, content);
        BTreeMap::from([("default".to_owned(), problem.build().into())])
    }
}

/// What `POST /v1/messages` takes: one message object, or an array of them.
pub(crate) struct Orders;

impl utoipa::PartialSchema for Orders {
    fn schema() -> RefOr<Schema> {
        one_or_many("Message", "Message")
    }
}

/// What it answers: a publication, or an array of results.
pub(crate) struct Answers;

impl utoipa::PartialSchema for Answers {
    fn schema() -> RefOr<Schema> {
        one_or_many("Published", "Entry")
    }
}

fn one_or_many(one: &str, many: &str) -> RefOr<Schema> {
    let many = ArrayBuilder::new().items(Ref::from_schema_name(many));
    OneOfBuilder::new().item(Ref::from_schema_name(one)).item(many).into()
}

impl utoipa::ToSchema for Orders {}

impl utoipa::ToSchema for Answers {}

/// `GET /openapi.json`
#[utoipa::path(
    get, path = "/openapi.json", tag = "open",
    responses((status = 200, description = "This document", body = serde_json::Value), Problem)
)]
pub(crate) async fn describe(query: Query) -> Result<Response, Problem> {
    static TEXT: LazyLock<Bytes> =
        LazyLock::new(|| Interface::openapi().to_pretty_json().map(Bytes::from).unwrap_or_default());
    query.finish()?;
    Ok(([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The paths that `routes.rs` serves, as the document writes them.
    fn served() -> BTreeSet<String> {
        let source = include_str!("routes.rs");
        let paths = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
        // The empty topic and dead letters with a bare slash are answered and no calls of their own; `/` is a page.
        let own = paths.filter(|path| {
            !path.ends_with("topics/") && !path.ends_with("request/") && !path.contains("$dead") && *path != "/"
        });
        own.map(|path| path.replace("{*", "{")).collect()
    }

    #[test]
    fn every_path_that_is_served_is_described_and_no_other() {
        let described: BTreeSet<String> = Interface::openapi().paths.paths.keys().cloned().collect();
        assert_eq!(described, served());
    }
}
