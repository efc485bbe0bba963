//! One connection: TLS or not, HTTP/1.1 or HTTP/2, and what it may cost.

use crate::{
    counted::Counted,
    front::{self, Routes},
    problem::{MEDIA_TYPE, Problem, RETRY_AFTER},
    state::{App, Connection},
};
use axum::body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use waystation_kit::tls::Tls;

/// A request's head must be complete by then, or the connection is cut.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's head: the longest target and what comes with it.
const MAX_HEAD: usize = 128 * 1024;

/// Header fields of a request.
const MAX_HEADERS: usize = 100;

/// Requests at the same time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// HTTP/2 knows no time limit for a head; a client in the middle of one cannot answer a ping.
const PING_EVERY: Duration = Duration::from_secs(6);
const PONG_WITHIN: Duration = Duration::from_secs(4);

/// What a client that is turned away has to take the answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a client came.
pub(crate) struct Way {
    pub(crate) peer: SocketAddr,
    /// The address we listen on.
    pub(crate) local: SocketAddr,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// Serves a client until it goes, or the gateway drains.
pub(crate) async fn serve(stream: std::net::TcpStream, way: Way, app: App, routes: Routes) {
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "connection could not be registered"),
    };
    let mut connection = Connection { peer: way.peer, local: way.local, encrypted: false, certified: false };
    let Some(tls) = way.tls else { return speak(stream, connection, app, routes).await };
    match tls.accept(stream, Instant::now() + HEAD_TIMEOUT).await {
        Ok(accepted) => {
            connection.encrypted = true;
            connection.certified = accepted.stream.get_ref().1.peer_certificates().is_some();
            Box::pin(speak(accepted.stream, connection, app, routes)).await;
        }
        Err(error) => tracing::debug!(peer = %way.peer, %error, "no TLS handshake"),
    }
}

/// Tells a client for whom there is no place to come back later, whatever it asks.
pub(crate) async fn turn_away(stream: std::net::TcpStream) {
    let Ok(mut stream) = TcpStream::from_std(stream) else { return };
    let problem = Problem::Busy("limits.max_connections is reached".into());
    let body = serde_json::to_string(&problem.details()).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 {}\r\ncontent-type: {MEDIA_TYPE}\r\nretry-after: {RETRY_AFTER}\r\ncache-control: no-store\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        problem.status(),
        body.len()
    );
    let farewell = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closed on a request that nobody read, the connection would be reset under the answer.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    // Who does not take it in time goes without.
    _ = timeout(FAREWELL, farewell).await;
}

async fn speak<S>(stream: S, connection: Connection, app: App, routes: Routes)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let service = {
        let (asked, app) = (Arc::clone(&asked), app.clone());
        service_fn(move |request: hyper::Request<Incoming>| {
            asked.store(true, Relaxed);
            let (app, routes) = (app.clone(), routes.clone());
            async move { Ok::<_, Infallible>(front::door(&app, &routes, connection, request.map(Body::new)).await) }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    let stream = TokioIo::new(Counted::new(stream, app.traffic.clone()));
    let mut server = pin!(builder.serve_connection(stream, service));
    let result = {
        let mut drained = pin!(app.drained());
        // Whether it is HTTP/2 shows in the first bytes, for which nobody else counts the seconds.
        let mut silence = pin!(sleep(HEAD_TIMEOUT));
        let mut listening = true;
        loop {
            tokio::select! {
                result = server.as_mut() => break result,
                () = &mut drained => {
                    server.as_mut().graceful_shutdown();
                    break server.as_mut().await;
                }
                () = &mut silence, if listening => {
                    if !asked.load(Relaxed) {
                        return;
                    }
                    listening = false;
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %connection.peer, %error, "connection ended early");
    }
}
