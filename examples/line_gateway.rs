//! A whole front-end of one's own: lines over TCP (`pub TOPIC TEXT`, `sub FILTER`), beside the ones Waystation has.
//!
//! ```text
//! cargo run --example line_gateway
//! nc 127.0.0.1 1885
//! sub sensors/#
//! ```

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use std::net::{SocketAddr, TcpStream};
use tokio::{task::JoinSet, time::timeout_at};
use tokio_util::codec::{Framed, LinesCodec};
use waystation::{Config, Layers, Server};
use waystation_broker::{
    Budget, ClientId, Detach, Event, Filter, Hello, Interest, Link, Peer, Pick, Publish, Qos, Subscription, Taken,
};
use waystation_kit::{BindError, Command, Context, Control, Gateway, Listen, Listener, ServeError};

struct Line {
    listener: Listener,
    cx: Context,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LineConfig {
    listen: Listen,
}

impl Default for LineConfig {
    fn default() -> Self {
        Self { listen: Listen(vec![([127, 0, 0, 1], 1885).into()]) }
    }
}

impl Gateway for Line {
    const KIND: &'static str = "line";
    type Config = LineConfig;

    async fn bind(config: LineConfig, cx: Context) -> Result<Self, BindError> {
        // One address is enough for an example.
        let listener = Listener::bind("gateways.line.listen", config.listen.0[0])?;
        Ok(Self { listener, cx })
    }

    fn listening(&self) -> Vec<(String, SocketAddr)> {
        vec![(Self::KIND.into(), self.listener.address())]
    }

    async fn serve(self, mut control: Control<LineConfig>) -> Result<(), ServeError> {
        let mut acceptor = self.listener.acceptor()?;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                (stream, peer) = acceptor.accept() => {
                    connections.spawn(converse(stream, peer, self.cx.clone()));
                }
                Some(_) = connections.join_next() => {}
                command = control.next() => if let Command::Drain { deadline } = command {
                    connections.abort_all(); // lines hold nothing that a farewell would save
                    let all_gone = async { while connections.join_next().await.is_some() {} };
                    let _ = timeout_at(deadline, all_gone).await;
                    return Ok(());
                }
            }
        }
    }
}

/// One client, from its first line to its last.
async fn converse(stream: TcpStream, peer: SocketAddr, cx: Context) -> Option<()> {
    let stream = tokio::net::TcpStream::from_std(stream).ok()?;
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(65_536));
    let hello = Hello::new(cx.name, Peer::direct(peer), Some(ClientId::assigned()));
    let mut link = match cx.broker.attach(hello).await {
        Ok(attached) => attached.link,
        Err(refusal) => return lines.send(format!("no: {refusal}")).await.ok(),
    };
    let mut out = Vec::new();
    loop {
        let may_read = link.publisher().has_room();
        tokio::select! {
            line = lines.next(), if may_read => match line {
                Some(Ok(line)) => lines.send(obey(&line, &mut link)).await.ok()?,
                _ => break,
            },
            event = link.event(Interest::Everything) => match event {
                Event::Deliverable => {
                    // The visitor runs under the session's lock: copy, and write afterwards.
                    link.take(Pick::Unsent, Budget { messages: 64, bytes: 65_536 }, |delivery| {
                        let text = String::from_utf8_lossy(delivery.message.payload());
                        out.push(format!("msg {} {text}", delivery.message.topic()));
                        Taken::Sent
                    });
                    for line in out.drain(..) {
                        lines.feed(line).await.ok()?;
                    }
                    SinkExt::<String>::flush(&mut lines).await.ok()?;
                }
                Event::Durable(_) | Event::Room => {}
                Event::Detached(reason) => return lines.send(format!("bye: {reason:?}")).await.ok(),
            }
        }
    }
    link.detach(Detach::Clean);
    Some(())
}

fn obey(line: &str, link: &mut Link) -> String {
    let mut words = line.splitn(3, ' ');
    let done = match (words.next(), words.next(), words.next()) {
        (Some("pub"), Some(topic), text) => publish(topic, text.unwrap_or_default(), link),
        (Some("sub"), Some(filter), None) => subscribe(filter, link),
        _ => Err("pub TOPIC TEXT | sub FILTER".into()),
    };
    done.map_or_else(|why| format!("no: {why}"), |()| "ok".into())
}

fn publish(topic: &str, text: &str, link: &mut Link) -> Result<(), String> {
    let topic = link.publisher().topic(topic.as_bytes()).map_err(|error| error.to_string())?;
    let message = Publish::new(topic, text.as_bytes(), Qos::AtMostOnce);
    link.publisher().stage(message, 0).map_err(|error| error.to_string())?;
    link.publisher().flush(&mut Vec::new()); // QoS 1 would answer from the receipts, once they are durable
    Ok(())
}

fn subscribe(filter: &str, link: &mut Link) -> Result<(), String> {
    let filter = Filter::parse(filter).map_err(|error| error.to_string())?;
    let mut granted = Vec::new();
    link.subscribe(&[Subscription::new(filter, Qos::AtMostOnce)], &mut granted);
    granted.into_iter().try_for_each(|result| result.map(drop)).map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = waystation::gateways::registry().with::<Line>();
    let arguments: Vec<String> = std::env::args().skip(1).collect(); // as in gateways.line.listen=127.0.0.1:0
    let config = Config::read(&registry, &Layers::gather(None, &arguments)?)?;
    let server = Server::start_with(registry, config).await?;
    eprintln!("{}", server.ready_line());
    tokio::signal::ctrl_c().await?;
    server.stop().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::any::Any;
    use tokio::io::AsyncReadExt;
    use waystation_kit::contract::{Subject, holds};

    struct Tested;

    impl Subject for Tested {
        type Gateway = Line;

        fn config(listen: Listen) -> LineConfig {
            LineConfig { listen }
        }

        async fn client(address: SocketAddr) -> Box<dyn Any> {
            let mut lines = dial(address).await;
            lines.send("sub a").await.unwrap();
            assert_eq!(lines.next().await.unwrap().unwrap(), "ok");
            Box::new(lines)
        }

        async fn is_gone(client: Box<dyn Any>) -> bool {
            let lines = client.downcast::<Lines>().unwrap();
            let mut stream = lines.into_inner();
            matches!(stream.read_to_end(&mut Vec::new()).await, Ok(_) | Err(_))
        }
    }

    type Lines = Framed<tokio::net::TcpStream, LinesCodec>;

    async fn dial(address: SocketAddr) -> Lines {
        Framed::new(tokio::net::TcpStream::connect(address).await.unwrap(), LinesCodec::new())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_keeps_the_contract() {
        holds::<Tested>().await;
    }
}
