//! Streams without a session: retained first, then live.

use crate::{
    identity::Who,
    later::later,
    problem::Problem,
    push::{Form, Pump, Settling},
    query::Query,
    readers::{Held, Shared},
    state::App,
    wire::{self, Reader},
};
use axum::{
    extract::State,
    http::{HeaderMap, Method},
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use waystation_broker::{Credentials, Cursor, Filter, Hello, Subscription};

/// `GET /v1/stream`
#[utoipa::path(
    get, path = "/v1/stream", tag = "topics",
    params(("filter" = Vec<String>, Query, description = "Topic filter; repeatable"), ("qos" = Option<u8>, Query, description = "Most QoS, 0 unless given", maximum = 2)),
    responses((status = 200, description = "A stream", content((String = "text/event-stream"), (wire::Outgoing = "application/x-ndjson"))), Problem)
)]
pub(crate) async fn open(
    State(app): State<App>,
    who: Who,
    method: Method,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let qos = wire::qos(query.parsed("qos", "0, 1 or 2")?.unwrap_or(0)).map_err(Problem::BadQuery)?;
    let filters = query.all("filter");
    query.finish()?;
    if filters.is_empty() {
        return Err(Problem::BadQuery("`filter` is missing; `filter=a/%23` is one".into()));
    }
    let form = Form::demanded(&headers)?;
    let mut wanted = Vec::with_capacity(filters.len());
    for filter in &filters {
        wanted.push(Subscription::new(Filter::parse(filter)?, qos));
    }
    let link = unnamed(&app, &who, &wanted).await?;
    if method == Method::HEAD {
        // What GET would be refused, HEAD is refused.
        return Ok(form.head().into_response());
    }
    let reader = Reader::new(&who, &app.broker);
    let pump = Pump { app, link, form, reader, position: Cursor::default(), settling: Settling::BySending };
    Ok(later(async move { Ok(pump.into_response()) }))
}

/// A link on a session that nobody else can see and that ends with it, subscribed to all of `wanted`.
pub(crate) async fn unnamed(app: &App, who: &Who, wanted: &[Subscription]) -> Result<Held, Problem> {
    let hello = Hello {
        credentials: Credentials::Known(who.principal.clone()),
        ..Hello::new(Arc::clone(&app.gateway), who.peer, None)
    };
    let mut link = app.broker.attach(hello).await?.link;
    let mut granted = Vec::new();
    link.subscribe(wanted, &mut granted);
    granted.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(Shared::new(link))
}
