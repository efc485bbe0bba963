//! A server inside another program: start it, publish, subscribe, stop it; no socket in between.
//!
//! ```text
//! cargo run --example embed
//! ```

use waystation::{Config, Server};
use waystation_broker::{
    Budget, ClientId, Detach, Event, Filter, Hello, Interest, Peer, Pick, Principal, Publish, Qos, Settle,
    Subscription, Taken, Topic,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The same file, the same keys as for the program; here on ports that the system picks.
    let config = Config::from_toml(
        r#"
        [gateways.mqtt]
        listen = "127.0.0.1:0"
        [gateways.mqtt_sn]
        listen = "127.0.0.1:0"
        [gateways.rest]
        listen = "127.0.0.1:0"
        "#,
    )?;
    let server = Server::start(config).await?;
    eprintln!("{}", server.ready_line());
    let broker = server.broker();

    // A client of its own, without a protocol.
    let hello = Hello::new("embedded".into(), Peer::INTERNAL, ClientId::new("display"));
    let mut link = broker.attach(hello).await?.link;
    let filter = Filter::parse("house/#")?;
    link.subscribe(&[Subscription::new(filter, Qos::AtLeastOnce)], &mut Vec::new());

    let mut publisher = broker.publisher(&"embedded".into(), Principal::anonymous(), None);
    publisher.stage(Publish::new(Topic::parse("house/kitchen")?, b"21.5", Qos::AtLeastOnce), 0)?;
    let mut receipts = Vec::new();
    let position = publisher.flush(&mut receipts);
    broker.durable(position).await;
    eprintln!("published: {:?}", receipts[0].outcome);

    while link.event(Interest::Everything).await != Event::Deliverable {}
    let mut answers = Vec::new();
    link.take(Pick::Unsent, Budget { messages: 10, bytes: 65_536 }, |delivery| {
        let text = String::from_utf8_lossy(delivery.message.payload());
        eprintln!("received: {} = {text}", delivery.message.topic());
        answers.extend(delivery.tag.map(|tag| (tag, Settle::Done)));
        Taken::Sent
    });
    link.settle(&answers, &mut Vec::new());
    link.detach(Detach::Clean);

    server.stop().await;
    Ok(())
}
