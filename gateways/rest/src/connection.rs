//! One connection: TLS or not, HTTP/1 or HTTP/2, and what it may cost.

use crate::{
    farewell::{ReadPast, Unread, farewell},
    front::{self, Answer, Routes},
    http1,
    line::Line,
    problem::{MEDIA_TYPE, Problem, RETRY_AFTER},
    state::{App, Connection},
};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use waystation_kit::tls::Tls;

/// A request's head must be complete by then, or the connection is cut.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's head: the longest target and what comes with it. Header fields are at most 100: hyper's own
/// bound, which costs something for every request when it is named.
pub(crate) const MAX_HEAD: usize = 128 * 1024;

/// Requests at the same time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// HTTP/2 knows no time limit for a head; a client in the middle of one cannot answer a ping.
const PING_EVERY: Duration = Duration::from_secs(6);
const PONG_WITHIN: Duration = Duration::from_secs(4);

/// What a client that is turned away has to take the answer.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);

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
    let connection = Connection { peer: way.peer, local: way.local, encrypted: false, certified: false };
    match way.tls {
        None => speak(stream, connection, app, routes).await,
        // Boxed: what TLS needs is no part of what every connection keeps.
        Some(tls) => Box::pin(secure(&tls, stream, connection, app, routes)).await,
    }
}

async fn secure(tls: &Tls, stream: TcpStream, mut connection: Connection, app: App, routes: Routes) {
    match Box::pin(tls.accept(stream, Instant::now() + HEAD_TIMEOUT)).await {
        Ok(accepted) => {
            connection.encrypted = true;
            connection.certified = accepted.stream.get_ref().1.peer_certificates().is_some();
            speak(accepted.stream, connection, app, routes).await;
        }
        Err(error) => tracing::debug!(peer = %connection.peer, %error, "no TLS handshake"),
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
        farewell(stream, Unread::Perhaps).await;
        Ok::<_, std::io::Error>(())
    };
    // Who does not take it in time goes without.
    _ = timeout(FAREWELL, farewell).await;
}

/// Speaks whichever HTTP the client begins with.
async fn speak<S>(stream: S, connection: Connection, app: App, routes: Routes)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut line = Line::new(stream, app.traffic.clone());
    let is_http2 = tokio::select! {
        is_http2 = timeout(HEAD_TIMEOUT, line.begins_with_http2()) => is_http2,
        () = app.drained() => return,
    };
    match is_http2 {
        Ok(Ok(false)) => http1::serve(line, connection, app, routes).await,
        Ok(Ok(true)) => Box::pin(speak_http2(line, connection, app, routes)).await,
        // Gone, or silent.
        Ok(Err(_)) | Err(_) => {}
    }
}

async fn speak_http2<S>(line: Line<S>, connection: Connection, app: App, routes: Routes)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = {
        let app = app.clone();
        service_fn(move |request: hyper::Request<Incoming>| {
            let (app, routes) = (app.clone(), routes.clone());
            async move {
                let answer = front::door(&app, &routes, connection, request.map(ReadPast::new)).await;
                Ok::<_, Infallible>(match answer {
                    Answer::Now(response) => response,
                    Answer::Later(later) => later.await,
                })
            }
        })
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    let mut server = pin!(builder.serve_connection(TokioIo::new(line), service));
    let result = tokio::select! {
        result = server.as_mut() => result,
        () = app.drained() => {
            server.as_mut().graceful_shutdown();
            server.as_mut().await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %connection.peer, %error, "connection ended early");
    }
}
