//! Dead letters of webhooks: tried until they are kept.

use super::letter::Letter;
use crate::state::App;
use std::time::Duration;
use waystation_kit::dead::DeadLetters;

/// Between two attempts while the store cannot write.
const PAUSE: Duration = Duration::from_secs(1);

/// Those of a webhook.
pub(super) fn letters(app: &App, name: &str) -> DeadLetters {
    DeadLetters::of(&app.broker, &app.gateway, name)
}

/// Publishes the letter's messages as dead letters and waits until they are safe. `false`: the gateway drains before
/// that; they are to be tried again.
pub(super) async fn bury(app: &App, name: &str, letter: &Letter, reason: &str, attempts: u32) -> bool {
    let dead = letters(app, name);
    if !dead.is_open()
        && let Err(error) = dead.open().await
    {
        // Only a server that stops refuses itself a session.
        tracing::debug!(webhook = name, %error, "no session for dead letters");
        return false;
    }
    loop {
        let messages = letter.messages.iter().map(|kept| (&kept.message, reason));
        if let Ok(lsn) = dead.publish(messages, attempts) {
            return tokio::select! {
                () = app.broker.durable(lsn) => true,
                () = app.drained() => false,
            };
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = app.drained() => return false,
        }
    }
}
