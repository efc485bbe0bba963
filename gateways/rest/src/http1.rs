//! HTTP/1. hyper speaks it, with two exceptions: while a reader waits there is no hyper (its buffers are some 16 KiB),
//! and what hyper cannot even read is refused with problem details like everything else.

mod exchange;
mod held;

use crate::{
    farewell::{Unread, farewell},
    front::{self, Answer, Routes},
    head::REQUEST_ID,
    line::Line,
    problem::Problem,
    state::{App, Connection},
};
use axum::{
    http::{Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use exchange::{Aside, Checked, Exchange, Given, Terms};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};

use crate::connection::{FAREWELL, HEAD_TIMEOUT, MAX_HEAD};

/// Serves a client until it goes, or the gateway drains.
pub(crate) async fn serve<S>(mut line: Line<S>, connection: Connection, app: App, routes: Routes)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        // Boxed, and gone while a reader waits.
        let stretch = Box::pin(stretch(line, connection, app.clone(), routes.clone())).await;
        let Some((rest, aside)) = stretch else { return };
        let Some(rest) = held::answer(rest, aside, &app).await else { return };
        line = rest;
    }
}

/// How hyper's part came to its end.
enum End {
    /// A reader is to wait.
    Aside(Aside),
    /// Everything is said.
    Over(hyper::Result<()>),
    /// A head did not come in time.
    Late,
}

/// Lets hyper speak until a reader is to wait; `None`: the connection is over.
async fn stretch<S>(line: Line<S>, connection: Connection, app: App, routes: Routes) -> Option<(Line<S>, Aside)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let exchange = Arc::new(Exchange::new());
    let desk = Arc::new(Desk { exchange: Arc::clone(&exchange), connection, app: app.clone(), routes });
    let service = service_fn(move |request: Request<Incoming>| {
        let desk = Arc::clone(&desk);
        // Noted before hyper goes on: what it writes from here on is an answer.
        let (request, terms) = desk.exchange.asked(request);
        async move { Ok::<_, Infallible>(desk.serve(request, terms).await) }
    });
    let mut builder = http1::Builder::new();
    // The time for a head is kept here, by one timer a connection that is hardly ever touched.
    // Who closes its side behind its request still wants the answer; only who is to wait is gone with that.
    builder.max_buf_size(MAX_HEAD).header_read_timeout(None).half_close(true);
    let stream = TokioIo::new(Checked::new(line, Arc::clone(&exchange)));
    let mut server = builder.serve_connection(stream, service);
    let mut drained = pin!(app.drained());
    let mut draining = false;
    let mut clock = pin!(sleep_until(Instant::now() + HEAD_TIMEOUT));
    let end = poll_fn(|cx| {
        if !draining && drained.as_mut().poll(cx).is_ready() {
            draining = true;
            Pin::new(&mut server).graceful_shutdown();
        }
        if let Poll::Ready(result) = Pin::new(&mut server).poll(cx) {
            return Poll::Ready(End::Over(result));
        }
        if let Some(aside) = exchange.aside() {
            return Poll::Ready(End::Aside(aside));
        }
        while clock.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = exchange.quiet_since().unwrap_or(now) + HEAD_TIMEOUT;
            if due <= now {
                return Poll::Ready(End::Late);
            }
            clock.as_mut().reset(due);
        }
        Poll::Pending
    });
    let end = end.await;
    let parts = server.into_parts();
    let Checked { mut line, refused, .. } = parts.io.into_inner();
    match end {
        End::Late => None,
        End::Aside(aside) => {
            line.put_back(&parts.read_buf);
            Some((line, aside))
        }
        End::Over(result) => {
            if let Some(status) = refused {
                refuse(&mut line, status).await;
            }
            if let Err(error) = result {
                tracing::debug!(peer = %connection.peer, %error, "connection ended early");
            }
            let unread = if refused.is_some() { Unread::Perhaps } else { exchange.unread() };
            farewell(line, unread).await;
            None
        }
    }
}

/// Where a connection's requests are served.
struct Desk {
    exchange: Arc<Exchange>,
    connection: Connection,
    app: App,
    routes: Routes,
}

impl Desk {
    async fn serve(&self, request: Request<Given>, terms: Option<Terms>) -> Response {
        let response = match front::door(&self.app, &self.routes, self.connection, request).await {
            Answer::Now(response) => response,
            Answer::Later(later) => match terms.filter(|_| self.exchange.unread() == Unread::Nothing) {
                Some(terms) => {
                    self.exchange.put_aside(Aside { later, terms });
                    // hyper is let go of, and this with it.
                    pending().await
                }
                None => later.await,
            },
        };
        self.exchange.answered(response)
    }
}

/// Says what hyper would have said, as a problem.
async fn refuse<S: AsyncWrite + Unpin>(line: &mut Line<S>, status: StatusCode) {
    let response = Problem::of_status(status).into_response();
    let (mut head, body) = response.into_parts();
    head.headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    head.headers.insert(REQUEST_ID, front::request_id(None));
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { return };
    let mut out = Vec::new();
    held::write_head(&mut out, &head, Terms::CLOSING, Some(body.len() as u64));
    out.extend_from_slice(&body);
    // Who does not take it goes without.
    _ = timeout(FAREWELL, line.write_all(&out)).await;
}
