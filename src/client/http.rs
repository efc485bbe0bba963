//! REST: publish with a POST a message; read a stream, or a session by long-polling.

use super::tls;
use crate::{
    cli::{PubArgs, Road, SubArgs},
    command::subscribe::Printer,
};
use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures_util::StreamExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use std::{ops::ControlFlow, time::Duration};
use tokio::sync::mpsc;

/// What may stand unencoded in a topic's path; the slash separates its levels.
const TOPIC: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What may stand unencoded in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Seconds a read is held; below what proxies cut at.
const WAIT_S: u64 = 30;

/// Longest line of a stream. One message of the largest packet, as base64 in JSON.
const MAX_LINE: usize = 512 * 1024 * 1024;

pub(crate) async fn publish(
    base: &Url,
    args: &PubArgs,
    mut payloads: mpsc::Receiver<std::io::Result<Bytes>>,
) -> anyhow::Result<()> {
    let client = client(base, &args.road)?;
    while let Some(payload) = payloads.recv().await {
        let payload = payload.context("standard input")?;
        let request = if survives_a_path(&args.topic) {
            let topic = utf8_percent_encode(&args.topic, TOPIC);
            let url = join(base, &format!("v1/topics/{topic}?qos={}&retain={}", args.qos, args.retain))?;
            client.post(url).body(payload)
        } else {
            let message = serde_json::json!({
                "topic": args.topic, "payload_base64": BASE64.encode(&payload), "qos": args.qos, "retain": args.retain,
            });
            let url = join(base, "v1/messages")?;
            client.post(url).header("content-type", "application/json").body(message.to_string())
        };
        let answer = checked(send(request, &args.road, base).await?, "the message").await?;
        // The rest of the answer, so that the connection can be used again.
        answer.bytes().await.with_context(|| base.to_string())?;
    }
    Ok(())
}

pub(crate) async fn subscribe(base: &Url, args: &SubArgs, printer: &mut Printer) -> anyhow::Result<()> {
    let client = client(base, &args.road)?;
    match &args.road.id {
        Some(id) => poll_session(&client, base, args, id, printer).await,
        None => read_stream(&client, base, args, printer).await,
    }
}

async fn read_stream(client: &Client, base: &Url, args: &SubArgs, printer: &mut Printer) -> anyhow::Result<()> {
    let filter = utf8_percent_encode(&args.filter, QUERY);
    let url = join(base, &format!("v1/stream?filter={filter}&qos={}", args.qos))?;
    let request = client.get(url).header("accept", "application/x-ndjson");
    let mut chunks = checked(send(request, &args.road, base).await?, "the subscription").await?.bytes_stream();
    let mut waiting = Vec::new();
    while let Some(chunk) = chunks.next().await {
        waiting.extend_from_slice(&chunk.with_context(|| base.to_string())?);
        let mut used = 0;
        while let Some(length) = waiting[used..].iter().position(|byte| *byte == b'\n') {
            let line = waiting[used..used + length].trim_ascii();
            used += length + 1;
            // An empty line keeps the connection open and says nothing; a line may also tell of missed messages.
            if line.is_empty() {
                continue;
            }
            let Ok(message) = serde_json::from_slice::<Received>(line) else { continue };
            if message.print(printer)?.is_break() {
                return Ok(());
            }
        }
        waiting.drain(..used);
        if waiting.len() > MAX_LINE {
            bail!("{base}: a line of more than {MAX_LINE} bytes");
        }
    }
    bail!("{base}: the server ended the stream")
}

async fn poll_session(
    client: &Client,
    base: &Url,
    args: &SubArgs,
    id: &str,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let path = format!("v1/sessions/{}", utf8_percent_encode(id, QUERY));
    let wanted = serde_json::json!({ "subscriptions": [{ "filter": args.filter, "qos": args.qos }] });
    let request = client.put(join(base, &path)?).header("content-type", "application/json").body(wanted.to_string());
    checked(send(request, &args.road, base).await?, "the session").await?;
    let mut after = None::<String>;
    loop {
        let cursor = after.as_deref().map_or_else(String::new, |c| format!("&after={}", utf8_percent_encode(c, QUERY)));
        let request = client.get(join(base, &format!("{path}/messages?wait={WAIT_S}{cursor}"))?);
        let answer = checked(send(request, &args.road, base).await?, "the read").await?;
        if answer.status() == StatusCode::NO_CONTENT {
            continue;
        }
        let page: Page =
            serde_json::from_slice(&answer.bytes().await?).with_context(|| format!("{base}: the answer"))?;
        after = Some(page.cursor);
        for message in page.messages {
            let cursor = message.cursor.clone();
            if message.print(printer)?.is_break() {
                // What was printed is done with; what came after it stays for the next read.
                if let Some(cursor) = cursor {
                    let ack = serde_json::json!({ "cursor": cursor }).to_string();
                    let request = client.post(join(base, &format!("{path}/ack"))?);
                    let request = request.header("content-type", "application/json").body(ack);
                    checked(send(request, &args.road, base).await?, "the acknowledgement").await?;
                }
                return Ok(());
            }
        }
    }
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<Received>,
    cursor: String,
}

#[derive(Deserialize)]
struct Received {
    topic: String,
    cursor: Option<String>,
    payload: Option<String>,
    payload_base64: Option<String>,
}

impl Received {
    fn print(self, printer: &mut Printer) -> anyhow::Result<ControlFlow<()>> {
        match (self.payload, self.payload_base64) {
            (Some(text), _) => printer.print(&self.topic, text.as_bytes()),
            (None, Some(text)) => printer.print(&self.topic, &BASE64.decode(text).context("payload_base64")?),
            (None, None) => printer.print(&self.topic, b""),
        }
    }
}

fn client(base: &Url, road: &Road) -> anyhow::Result<Client> {
    builder(base, road)?.build().context("cannot set up HTTP")
}

/// HTTP to `base`, with the certificates of the command line if that is encrypted.
pub(super) fn builder(base: &Url, road: &Road) -> anyhow::Result<ClientBuilder> {
    let builder = Client::builder().connect_timeout(Duration::from_secs(10));
    Ok(match base.scheme() {
        "https" => builder.tls_backend_preconfigured(tls::config(road)?),
        _ => builder,
    })
}

async fn send(request: RequestBuilder, road: &Road, base: &Url) -> anyhow::Result<Response> {
    let request = match &road.user {
        Some(user) => request.basic_auth(user, road.password.as_ref()),
        None => request,
    };
    // The base alone: a URL in an error would repeat the whole query.
    request.send().await.map_err(reqwest::Error::without_url).with_context(|| base.to_string())
}

/// The answer if it is a good one, else what the server had against it (RFC 9457).
async fn checked(answer: Response, what: &str) -> anyhow::Result<Response> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Problem {
        title: String,
        detail: String,
    }
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let problem: Problem = serde_json::from_slice(&answer.bytes().await.unwrap_or_default()).unwrap_or_default();
    let said = if problem.detail.is_empty() { problem.title } else { problem.detail };
    bail!("the server refused {what}: {status} {said}")
}

/// Browsers and libraries rewrite levels of one or two dots, so these topics cannot be a path.
fn survives_a_path(topic: &str) -> bool {
    !topic.split('/').any(|level| level == "." || level == "..") && topic.len() < 10_000
}

fn join(base: &Url, path: &str) -> anyhow::Result<Url> {
    let root = base.as_str().split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    format!("{root}/{path}").parse().with_context(|| format!("{root}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_encoded_level_by_level() {
        assert_eq!(utf8_percent_encode("a b/ü//%?#", TOPIC).to_string(), "a%20b/%C3%BC//%25%3F%23");
        assert!(survives_a_path("a/.b/..c"));
        assert!(!survives_a_path("a/../b"));
    }

    #[test]
    fn paths_go_below_the_base() {
        let base = |text: &str| text.parse::<Url>().unwrap();
        assert_eq!(join(&base("http://h:1"), "v1/x//y").unwrap().as_str(), "http://h:1/v1/x//y");
        assert_eq!(join(&base("http://h/below/"), "v1/x").unwrap().as_str(), "http://h/below/v1/x");
    }
}
