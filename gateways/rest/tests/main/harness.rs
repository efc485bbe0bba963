//! A gateway that serves, and a client for it.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;
use waystation_broker::{Action, Authorize, Broker, ClientId, Limits, ManualClock, Parts, Principal};
use waystation_kit::{Bound, Host, Listen, Registry, Running, contract::Scene};
use waystation_rest::{Config, Rest};

/// Longer than anything here may take.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) broker: Broker,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) address: SocketAddr,
    /// Where TLS is spoken, if it is.
    pub(crate) secure: Option<SocketAddr>,
    client: reqwest::Client,
    pub(crate) running: Running,
    /// Keeps the loops.
    _scene: Scene,
}

pub(crate) async fn serve() -> Server {
    serve_with(Limits::default(), Config::default()).await
}

pub(crate) async fn serve_with(limits: Limits, config: Config) -> Server {
    start(limits, config, None).await
}

pub(crate) async fn serve_on(host: Arc<dyn Host>) -> Server {
    start(Limits::default(), Config::default(), Some(host)).await
}

/// Everybody may come in and do everything, but operators' calls need a client on this machine.
struct Local;

impl Authorize for Local {
    fn may(&self, _: &Principal, _: Option<&ClientId>, action: Action<'_>) -> bool {
        match action {
            Action::Admin(peer) | Action::Reject(peer) => peer.is_local(),
            _ => true,
        }
    }
}

async fn start(limits: Limits, config: Config, host: Option<Arc<dyn Host>>) -> Server {
    let clock = Arc::new(ManualClock::default());
    let parts = Parts { authorize: Arc::new(Local), ..Parts::in_memory(limits, clock.clone()) };
    serve_parts(parts, clock, config, host).await
}

pub(crate) async fn serve_parts(
    parts: Parts,
    clock: Arc<ManualClock>,
    config: Config,
    host: Option<Arc<dyn Host>>,
) -> Server {
    let broker = Broker::new(parts);
    let mut scene = Scene::with_broker("rest", broker.clone());
    if let Some(host) = host {
        scene.cx.host = host;
    }
    let config = Config { listen: Listen(vec![([127, 0, 0, 1], 0).into()]), ..config };
    let registry = Registry::default().with::<Rest>();
    let table = toml::Table::try_from(config).unwrap();
    let bound: Box<dyn Bound> = registry.kind("rest").unwrap().bind(table, scene.cx.clone()).await.unwrap();
    let address = bound.listening()[0].1;
    let secure = bound.listening().iter().find(|(name, _)| name == "rest_tls").map(|(_, address)| *address);
    let running = bound.start();
    let client = reqwest::Client::builder().timeout(LONG).no_proxy().build().unwrap();
    Server { broker, clock, address, secure, client, running, _scene: scene }
}

impl Server {
    pub(crate) fn ask(&self, method: Method, target: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{target}", self.address))
    }

    pub(crate) async fn get(&self, target: &str) -> Response {
        self.ask(Method::GET, target).send().await.unwrap()
    }

    pub(crate) async fn post(&self, target: &str, body: &str) -> Response {
        self.ask(Method::POST, target).body(body.to_owned()).send().await.unwrap()
    }

    pub(crate) async fn put(&self, target: &str, body: &str) -> Response {
        self.ask(Method::PUT, target).body(body.to_owned()).send().await.unwrap()
    }

    /// Ends the gateway within its deadline.
    pub(crate) async fn drain(self) {
        self.running.drain(Instant::now() + Duration::from_secs(5)).await;
        tokio::time::timeout(LONG, self.running.task).await.unwrap().unwrap().unwrap();
    }

    /// Waits until somebody waits: as many clients are attached as said.
    pub(crate) async fn attached(&self, count: u32) {
        let reached = async {
            while self.broker.connected() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, reached).await.unwrap();
    }
}

pub(crate) fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

pub(crate) async fn json(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// Checks that an error is told as RFC 9457 says.
pub(crate) async fn problem(response: Response, status: u16, kind: &str) {
    assert_eq!(response.status(), status);
    assert_eq!(header(&response, "content-type"), "application/problem+json");
    let body = json(response).await;
    assert_eq!(body["status"], status);
    assert_eq!(body["type"], format!("urn:waystation:problem:{kind}"));
    assert!(body["title"].is_string() && body["detail"].is_string());
}
