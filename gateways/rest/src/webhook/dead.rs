//! Dead letters: what could not be delivered, published on `$dead/{name}/{topic}` and kept in session `$dead/{name}`.

use super::letter::Letter;
use crate::{routes::sessions::subscribe, state::App};
use std::{sync::Arc, time::Duration};
use waystation_broker::{
    ClientId, Credentials, Filter, Hello, Lsn, Message, Outcome, Overflow, Peer, Principal, Properties, Publish, Qos,
    Receipt, Refusal, SessionOptions, Start, Subscription, Topic, WhileAway,
};

/// What the sessions of dead letters begin with.
pub(crate) const SESSIONS: &str = "$dead/";

/// Between two attempts while the store cannot write.
const PAUSE: Duration = Duration::from_secs(1);

/// The session a webhook's dead letters are kept in.
pub(super) fn session_id(name: &str) -> Option<ClientId> {
    ClientId::new(&format!("{SESSIONS}{name}"))
}

/// How dead letters' sessions are held: for the server itself, whoever reads them.
pub(crate) fn hello(app: &App, id: ClientId) -> Hello {
    Hello {
        credentials: Credentials::Known(Principal::server()),
        start: Start::Resume,
        expiry: u32::MAX,
        while_away: WhileAway::KeepQos0,
        // A graveyard that is full must not stop the webhook.
        options: SessionOptions { overflow: Some(Overflow::DropOldest), ..SessionOptions::default() },
        ..Hello::new(Arc::clone(&app.gateway), Peer::INTERNAL, Some(id))
    }
}

/// Makes the session, if it is not there.
pub(super) async fn open(app: &App, name: &str) -> Result<Lsn, Refusal> {
    let (Some(id), Ok(filter)) = (session_id(name), Filter::parse(&format!("{SESSIONS}{name}/#"))) else {
        return Err(Refusal::InvalidClientId);
    };
    let attached = app.broker.attach(hello(app, id)).await?;
    let mut link = attached.link;
    // The server itself is refused nothing.
    let lsn = subscribe(&mut link, vec![Subscription::new(filter, Qos::ExactlyOnce)]).unwrap_or_default();
    Ok(lsn.max(attached.lsn))
}

/// Ends the session unless there is something to read in it.
pub(super) fn close(app: &App, name: &str) {
    let Some(id) = session_id(name) else { return };
    if app.broker.session(&id).is_some_and(|session| session.queued == 0) {
        app.broker.end_session(&id, waystation_broker::Reason::SessionEnded);
    }
}

/// Publishes the letter's messages as dead letters and waits until they are safe. `false`: the gateway drains before
/// that; they are to be tried again.
pub(super) async fn bury(app: &App, name: &str, letter: &Letter, reason: &str, attempts: u32) -> bool {
    if session_id(name).is_some_and(|id| app.broker.session(&id).is_none())
        && let Err(error) = open(app, name).await
    {
        // Only a server that stops refuses itself a session.
        tracing::debug!(webhook = name, %error, "no session for dead letters");
        return false;
    }
    loop {
        if let Some(lsn) = publish(app, name, letter, reason, attempts) {
            return tokio::select! {
                () = app.broker.durable(lsn) => true,
                () = app.drained() => false,
            };
        }
        // The store cannot write now. Nothing of it was kept: all of them again.
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = app.drained() => return false,
        }
    }
}

/// One burst, or `None` where the store cannot write.
fn publish(app: &App, name: &str, letter: &Letter, reason: &str, attempts: u32) -> Option<Lsn> {
    let mut publisher = app.broker.publisher(&app.gateway, Principal::server(), None);
    for kept in &letter.messages {
        let message = &kept.message;
        let Some(topic) = topic(name, message) else { continue };
        let publish = Publish {
            // A message that came with QoS 0 is worth keeping once it is an operator's business.
            qos: message.qos().max(Qos::AtLeastOnce).min(max_qos(app)),
            properties: Some(Box::new(properties(message, reason, attempts))),
            ..Publish::new(topic, message.payload(), Qos::AtLeastOnce)
        };
        if let Err(error) = publisher.stage(publish, 0) {
            tracing::error!(webhook = name, %error, "a dead letter cannot be kept and is lost");
        }
    }
    let mut receipts: Vec<Receipt> = Vec::new();
    let lsn = publisher.flush(&mut receipts);
    let down = receipts.iter().any(|receipt| receipt.outcome == Outcome::StoreUnavailable);
    (!down).then_some(lsn)
}

fn max_qos(app: &App) -> Qos {
    Qos::from_u8(app.broker.limits().max_qos).unwrap_or_default()
}

/// `$dead/{name}/{topic}`; a topic that is too long for it is found in the letter's properties only.
fn topic(name: &str, message: &Message) -> Option<Topic> {
    let whole = format!("{SESSIONS}{name}/{}", message.topic().as_str());
    Topic::parse(&whole).or_else(|_| Topic::parse(&format!("{SESSIONS}{name}"))).ok()
}

/// The message's own, and why it is here.
fn properties(message: &Message, reason: &str, attempts: u32) -> Properties {
    let mut properties = message.properties().cloned().unwrap_or_default();
    let notes = [
        ("waystation-dead-reason", reason.to_owned()),
        ("waystation-dead-attempts", attempts.to_string()),
        ("waystation-dead-id", crate::conditional::id_text(message.id())),
    ];
    properties.user.extend(notes.map(|(name, value)| (name.into(), value.into())));
    properties
}
