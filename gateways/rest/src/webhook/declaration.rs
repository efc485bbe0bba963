//! What a webhook is: as it is written in the file or in the body of a PUT, and as it was found to be right.

use super::{guard, schedule::Patience, signature::Secret};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use waystation_broker::{Filter, Qos, Subscription};

/// A webhook as it is written. Defaults stand with each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Webhook)]
pub struct Declaration {
    /// Its name: 1 to 64 letters, digits, `-`, `_` and `.`. In a PUT it stands in the path and may be left out.
    #[serde(default)]
    pub name: String,
    /// Where messages are POSTed: `http://` or `https://`.
    pub url: String,
    /// Which topics.
    pub filters: Vec<String>,
    /// Most QoS to deliver with; 1.
    #[serde(default = "one")]
    pub qos: u8,
    /// Signs requests: `whsec_BASE64`, or any other text taken as its bytes; "": no signature. In a PUT `None` keeps
    /// the secret there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Most messages in one request; 1 sends each as it is, more as `{"messages": [...]}`.
    #[serde(default = "single")]
    pub batch: u16,
    /// Milliseconds an attempt may take; 10,000.
    #[serde(default = "ten_seconds")]
    pub timeout_ms: u64,
    /// Attempts until a message becomes a dead letter; `None`: as many as fit into `give_up_after_s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Seconds a failing target is tried with a message before it becomes a dead letter; three days.
    #[serde(default = "three_days")]
    pub give_up_after_s: u64,
}

fn one() -> u8 {
    1
}

fn single() -> u16 {
    1
}

fn ten_seconds() -> u64 {
    10_000
}

fn three_days() -> u64 {
    3 * 24 * 3_600
}

const MOST_NAME: usize = 64;
const MOST_URL: usize = 2_048;
const MOST_SECRET: usize = 1_024;
const MOST_FILTERS: usize = 100;
const MOST_BATCH: u16 = 1_000;
const MOST_TIMEOUT_MS: u64 = 300_000;

/// A key of a declaration whose value cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The key.
    pub(crate) key: &'static str,
    /// What is wrong and what would be right.
    pub(crate) why: String,
}

/// A webhook that can work.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    pub(crate) name: Box<str>,
    pub(crate) url: Url,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) secret: Option<Secret>,
    pub(crate) batch: usize,
    pub(crate) timeout: Duration,
    pub(crate) patience: Patience,
}

impl Declaration {
    /// Whether it can work, as far as that can be told without asking anybody.
    pub(crate) fn check(&self) -> Result<Webhook, Wrong> {
        let wrong = |key, why: String| Err(Wrong { key, why });
        if !is_name(&self.name) {
            return wrong(
                "name",
                format!("`{}` is no name; 1 to {MOST_NAME} letters, digits, `-`, `_` and `.` are right", self.name),
            );
        }
        let url = url(&self.url).map_err(|why| Wrong { key: "url", why })?;
        let qos = Qos::from_u8(self.qos)
            .ok_or_else(|| Wrong { key: "qos", why: format!("{} is no QoS; 0, 1 or 2 is right", self.qos) })?;
        let subscriptions = self.subscriptions(qos)?;
        let secret = match self.secret.as_deref().unwrap_or_default() {
            "" => None,
            text if text.len() > MOST_SECRET => {
                return wrong("secret", format!("is longer than {MOST_SECRET} bytes"));
            }
            text => Some(Secret::parse(text).map_err(|why| Wrong { key: "secret", why: why.into() })?),
        };
        if !(1..=MOST_BATCH).contains(&self.batch) {
            return wrong("batch", format!("is {}; a number from 1 to {MOST_BATCH} is right", self.batch));
        }
        if !(1..=MOST_TIMEOUT_MS).contains(&self.timeout_ms) {
            return wrong(
                "timeout_ms",
                format!("is {}; milliseconds from 1 to {MOST_TIMEOUT_MS} are right", self.timeout_ms),
            );
        }
        if self.max_attempts == Some(0) {
            return wrong("max_attempts", "is 0; a number from 1 is right, or none for no such bound".into());
        }
        if self.give_up_after_s == 0 {
            return wrong("give_up_after_s", "is 0; seconds from 1 are right".into());
        }
        let patience =
            Patience { max_attempts: self.max_attempts, give_up_after: Duration::from_secs(self.give_up_after_s) };
        Ok(Webhook {
            name: self.name.as_str().into(),
            url,
            subscriptions,
            secret,
            batch: self.batch.into(),
            timeout: Duration::from_millis(self.timeout_ms),
            patience,
        })
    }

    fn subscriptions(&self, qos: Qos) -> Result<Vec<Subscription>, Wrong> {
        let wrong = |why| Err(Wrong { key: "filters", why });
        if self.filters.is_empty() || self.filters.len() > MOST_FILTERS {
            return wrong(format!("are {}; 1 to {MOST_FILTERS} are right", self.filters.len()));
        }
        let mut subscriptions = Vec::new();
        for text in &self.filters {
            let filter = match Filter::parse(text) {
                Ok(filter) => filter,
                Err(error) => return wrong(format!("`{text}` {error}")),
            };
            let topics = match text.strip_prefix("$share/") {
                Some(shared) => shared.split_once('/').map_or("", |(_, topics)| topics),
                None => text,
            };
            if topics.split('/').next() == Some("$dead") {
                return wrong(format!("`{text}` would have dead letters make more dead letters"));
            }
            subscriptions.push(Subscription::new(filter, qos));
        }
        Ok(subscriptions)
    }

    /// The URL as it may be shown: without a password.
    pub(crate) fn shown_url(&self) -> String {
        match Url::parse(&self.url) {
            Ok(mut url) if url.password().is_some() => {
                // It fails for URLs that can hold no password only.
                let _ = url.set_password(Some("********"));
                url.into()
            }
            _ => self.url.clone(),
        }
    }
}

/// Letters that mean nothing in topics, paths and client ids.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MOST_NAME).contains(&text.len()) && text.bytes().all(plain) && !text.bytes().all(|byte| byte == b'.')
}

fn url(text: &str) -> Result<Url, String> {
    if text.len() > MOST_URL {
        return Err(format!("is longer than {MOST_URL} bytes"));
    }
    let url = Url::parse(text).map_err(|error| format!("`{text}` is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("`{}` is neither http nor https", url.scheme()));
    }
    if url.fragment().is_some() {
        return Err("has a fragment (#), which no server would get to see".into());
    }
    Ok(url)
}

impl Webhook {
    /// Whether its target is an address that may not be a target, told without asking for its name's addresses.
    pub(crate) fn is_private_address(&self) -> bool {
        guard::literal(&self.url).is_some_and(|address| !guard::is_public(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declaration(json: &serde_json::Value) -> Declaration {
        let mut whole = serde_json::json!({"name": "n", "url": "https://example.com/h", "filters": ["a/#"]});
        whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let webhook = declaration(&serde_json::json!({})).check().unwrap();
        assert_eq!((webhook.batch, webhook.timeout), (1, Duration::from_secs(10)));
        assert_eq!(webhook.patience.give_up_after, Duration::from_secs(259_200));
        assert_eq!(webhook.patience.max_attempts, None);
        assert_eq!(webhook.subscriptions[0].qos, Qos::AtLeastOnce);
        assert!(webhook.secret.is_none());
    }

    #[test]
    fn impossible_values_are_named() {
        use serde_json::json;
        for (json, key) in [
            (json!({"name": ""}), "name"),
            (json!({"name": "a/b"}), "name"),
            (json!({"name": ".."}), "name"),
            (json!({"name": "a".repeat(65)}), "name"),
            (json!({"url": "alarms.example.com"}), "url"),
            (json!({"url": "ftp://example.com"}), "url"),
            (json!({"url": "https://example.com/#top"}), "url"),
            (json!({"url": "http://"}), "url"),
            (json!({"filters": []}), "filters"),
            (json!({"filters": ["a/#/b"]}), "filters"),
            (json!({"filters": ["$dead/#"]}), "filters"),
            (json!({"filters": ["$share/g/$dead/n/#"]}), "filters"),
            (json!({"qos": 3}), "qos"),
            (json!({"secret": "whsec_!"}), "secret"),
            (json!({"batch": 0}), "batch"),
            (json!({"batch": 1001}), "batch"),
            (json!({"timeout_ms": 0}), "timeout_ms"),
            (json!({"max_attempts": 0}), "max_attempts"),
            (json!({"give_up_after_s": 0}), "give_up_after_s"),
        ] {
            assert_eq!(declaration(&json).check().unwrap_err().key, key, "{json}");
        }
    }

    #[test]
    fn a_password_in_the_url_is_not_shown() {
        let shown = declaration(&serde_json::json!({"url": "https://me:secret@example.com/h"})).shown_url();
        assert_eq!(shown, "https://me:********@example.com/h");
    }
}
