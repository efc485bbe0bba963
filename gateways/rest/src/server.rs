//! The gateway: what it binds, how long it serves, how it takes leave.

use crate::{
    config::Config,
    connection::{self, Way},
    front::Routes,
    places::Places,
    routes,
    state::App,
};
use std::{net::SocketAddr, pin::pin, sync::Arc};
use tokio::{sync::Semaphore, task::JoinSet};
use waystation_kit::{
    Acceptor, BindError, Command, Context, Control, Gateway, InvalidConfig, Listener, ServeError, tls::Tls,
};

/// HTTP/2 where the client can, else HTTP/1.1.
const ALPN: &[&str] = &["h2", "http/1.1"];

/// Clients that are told at the same time, by each acceptor, that there is no place; more are cut off without a word.
const TURNED_AWAY: usize = 64;

/// The REST front-end.
pub struct Rest {
    app: App,
    config: Config,
    name: Arc<str>,
    doors: Vec<Door>,
    tls: Option<Arc<Tls>>,
}

/// A listening socket, and how its clients speak.
struct Door {
    listener: Listener,
    tls: Option<Arc<Tls>>,
}

impl Gateway for Rest {
    const KIND: &'static str = "rest";
    type Config = Config;

    fn check(config: &Config) -> Result<(), InvalidConfig> {
        config.check()
    }

    fn look(config: &Config) -> Result<(), InvalidConfig> {
        config.look()
    }

    async fn bind(config: Config, cx: Context) -> Result<Self, BindError> {
        let table = format!("gateways.{}", cx.name);
        let plain = Listener::bind_all(&format!("{table}.listen"), &config.listen.0)?;
        let mut doors: Vec<Door> = plain.into_iter().map(|listener| Door { listener, tls: None }).collect();
        let mut tls = None;
        if let Some(secure) = &config.tls {
            let loaded = Arc::new(Tls::load(&format!("{table}.tls"), &secure.files(), ALPN)?);
            for listener in Listener::bind_all(&format!("{table}.tls.listen"), &secure.listen.0)? {
                doors.push(Door { listener, tls: Some(Arc::clone(&loaded)) });
            }
            tls = Some(loaded);
        }
        let app = App::new(cx.broker, cx.host, Arc::clone(&cx.name), config.clone());
        // From the ready line on, webhooks miss nothing.
        app.webhooks.open(&app).await;
        Ok(Self { app, config, name: cx.name, doors, tls })
    }

    fn listening(&self) -> Vec<(String, SocketAddr)> {
        let name = |door: &Door| if door.tls.is_some() { "rest_tls" } else { Self::KIND };
        self.doors.iter().map(|door| (name(door).to_owned(), door.listener.address())).collect()
    }

    async fn serve(self, mut control: Control<Config>) -> Result<(), ServeError> {
        let Self { app, config, name, doors, tls } = self;
        let routes = Routes::new(routes::all().with_state(app.clone()));
        let places = Places::new(app.broker.limits());
        let mut acceptors = JoinSet::new();
        for Door { listener, tls } in doors {
            let acceptor = listener.acceptor()?;
            acceptors.spawn(accept(acceptor, tls, app.clone(), routes.clone(), Arc::clone(&places)));
        }
        app.webhooks.start(&app);
        let deadline = loop {
            match control.next().await {
                Command::Drain { deadline } => break deadline,
                Command::Reload(new) => {
                    if !new.listens_like(&config) {
                        tracing::warn!(gateway = %name, "a changed `listen` takes effect at the next start");
                    }
                    if let Some((tls, files)) = tls.as_ref().zip(new.tls.as_ref()) {
                        tls.reload(&files.files());
                    }
                    app.webhooks.reload(&app, &new).await;
                    app.configure(new);
                }
            }
        };
        app.drain();
        // Each acceptor stops accepting by itself and returns when its last connection is gone.
        let gone = async { while acceptors.join_next().await.is_some() {} };
        app.webhooks.stop(deadline).await;
        if tokio::time::timeout_at(deadline, gone).await.is_err() {
            tracing::info!(gateway = %name, "some clients did not leave in time; their connections are cut");
        }
        // What is left is aborted with the sets.
        Ok(())
    }
}

async fn accept(mut acceptor: Acceptor, tls: Option<Arc<Tls>>, app: App, routes: Routes, places: Arc<Places>) {
    let mut connections = JoinSet::new();
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
    let mut drained = pin!(app.drained());
    loop {
        tokio::select! {
            biased;
            () = &mut drained => break,
            Some(_) = connections.join_next() => {}
            (stream, peer) = acceptor.accept() => {
                // Where there is no room a newcomer is turned away, as on the other roads.
                let Some(place) = places.take(peer.ip()) else {
                    // A handshake would cost more than the place that there is not.
                    if tls.is_none() && let Ok(turn) = Arc::clone(&turned_away).try_acquire_owned() {
                        connections.spawn(async move {
                            connection::turn_away(stream).await;
                            drop(turn);
                        });
                    }
                    continue;
                };
                let way = Way { peer, local: acceptor.address(), tls: tls.clone() };
                let (app, routes) = (app.clone(), routes.clone());
                connections.spawn(async move {
                    connection::serve(stream, way, app, routes).await;
                    drop(place);
                });
            }
        }
    }
    drop(acceptor);
    while connections.join_next().await.is_some() {}
}
