//! Accepting, HTTP/1.1, and taking leave.

use crate::{
    config::Config,
    front, routes,
    state::{App, Connection},
};
use axum::{Router, extract::Request, middleware};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet};
use waystation_kit::{Acceptor, BindError, Command, Context, Control, Gateway, InvalidConfig, Listener, ServeError};

/// A request's head must be complete by then, or the connection is cut.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The REST front-end.
pub struct Rest {
    app: App,
    listen: waystation_kit::Listen,
    name: Arc<str>,
    listeners: Vec<Listener>,
}

impl Gateway for Rest {
    const KIND: &'static str = "rest";
    type Config = Config;

    fn check(config: &Config) -> Result<(), InvalidConfig> {
        config.check()
    }

    async fn bind(config: Config, cx: Context) -> Result<Self, BindError> {
        let listeners = Listener::bind_all(&format!("gateways.{}.listen", cx.name), &config.listen.0)?;
        let listen = config.listen.clone();
        let app = App::new(cx.broker, Arc::clone(&cx.name), config);
        Ok(Self { app, listen, name: cx.name, listeners })
    }

    fn listening(&self) -> Vec<(String, SocketAddr)> {
        self.listeners.iter().map(|listener| (Self::KIND.to_owned(), listener.address())).collect()
    }

    async fn serve(self, mut control: Control<Config>) -> Result<(), ServeError> {
        let Self { app, listen, name, listeners } = self;
        let router = router(app.clone());
        let most = usize::try_from(app.broker.limits().max_connections).unwrap_or(usize::MAX);
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let mut acceptors = JoinSet::new();
        for listener in listeners {
            let acceptor = listener.acceptor()?;
            acceptors.spawn(accept(acceptor, app.clone(), router.clone(), Arc::clone(&places)));
        }
        let deadline = loop {
            match control.next().await {
                Command::Drain { deadline } => break deadline,
                Command::Reload(config) => {
                    if config.listen != listen {
                        tracing::warn!(gateway = %name, "a changed `listen` takes effect at the next start");
                    }
                    app.configure(config);
                }
            }
        };
        app.drain();
        // Each acceptor stops accepting by itself and returns when its last connection is gone.
        let gone = async { while acceptors.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline, gone).await.is_err() {
            tracing::info!(gateway = %name, "some clients did not leave in time; their connections are cut");
        }
        // What is left is aborted with the sets.
        Ok(())
    }
}

/// All routes, behind the door.
fn router(app: App) -> Router {
    routes::all().layer(middleware::from_fn_with_state(app.clone(), front::door)).with_state(app)
}

async fn accept(mut acceptor: Acceptor, app: App, router: Router, places: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    let mut drained = pin!(app.drained());
    loop {
        tokio::select! {
            biased;
            () = &mut drained => break,
            Some(_) = connections.join_next() => {}
            (stream, peer) = acceptor.accept() => {
                // At `limits.max_connections` a newcomer is turned away, as on the other roads.
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let connection = Connection { peer, local: acceptor.address() };
                let (app, router) = (app.clone(), router.clone());
                connections.spawn(async move {
                    serve(stream, connection, app, router).await;
                    drop(place);
                });
            }
        }
    }
    drop(acceptor);
    while connections.join_next().await.is_some() {}
}

async fn serve(stream: std::net::TcpStream, connection: Connection, app: App, router: Router) {
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "connection could not be registered"),
    };
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection);
        hyper::service::Service::call(&router, request)
    });
    let server = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut server = pin!(server);
    let mut drained = pin!(app.drained());
    let result = tokio::select! {
        result = &mut server => result,
        () = &mut drained => {
            server.as_mut().graceful_shutdown();
            server.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %connection.peer, %error, "connection ended early");
    }
}
