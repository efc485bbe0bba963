//! Floods of HTTP/2 frames, written by hand: one client's are nobody else's trouble.

use crate::harness::{Server, serve};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET /healthz` of localhost (RFC 7541): three fields of the static table and two literals.
const GET: &[u8] = b"\x82\x86\x04\x08/healthz\x01\x09localhost";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Sends all of it unless it is cut off, or not read from for a while; then what kinds of frames came.
async fn flood(server: &Server, frames: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let write = async {
        writer.write_all(PREFACE).await?;
        writer.write_all(&frame(SETTINGS, 0, 0, b"")).await?;
        for frame in frames {
            timeout(Duration::from_secs(1), writer.write_all(&frame)).await??;
        }
        Ok::<_, std::io::Error>(())
    };
    drop(write.await);
    let mut heard = Vec::new();
    // Until it is closed, or nothing more comes.
    while let Ok(Ok(1..)) = timeout(Duration::from_secs(2), reader.read_buf(&mut heard)).await {}
    let (mut kinds, mut at) = (Vec::new(), 0);
    while let Some(head) = heard.get(at..at + 9) {
        kinds.push(head[3]);
        at += 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    }
    kinds
}

#[tokio::test]
async fn a_request_is_answered() {
    let server = serve().await;
    let kinds = flood(&server, std::iter::once(frame(HEADERS, END_STREAM | END_HEADERS, 1, GET))).await;
    assert!(kinds.contains(&HEADERS) && kinds.contains(&DATA), "{kinds:?}");
    server.drain().await;
}

#[tokio::test]
async fn an_http2_client_that_floods_is_cut_off_and_others_are_served() {
    let server = serve().await;
    let odd = || (0..50_000_u32).map(|number| number * 2 + 1);
    let resets = odd().map(|stream| {
        let cancel = 8_u32.to_be_bytes();
        [frame(HEADERS, END_STREAM | END_HEADERS, stream, GET), frame(RESET, 0, stream, &cancel)].concat()
    });
    let kinds = flood(&server, resets).await;
    assert!(kinds.contains(&GO_AWAY), "resets: {kinds:?}");

    let start = std::iter::once(frame(HEADERS, END_STREAM, 1, GET));
    let endless = start.chain((0..20_000).map(|_| frame(CONTINUATION, 0, 1, &b"\x00\x01a\x01b".repeat(1_000))));
    let kinds = flood(&server, endless).await;
    assert!(kinds.contains(&GO_AWAY) && !kinds.contains(&DATA), "continuations: {kinds:?}");

    let open = odd().map(|stream| frame(HEADERS, END_HEADERS, stream, GET));
    let kinds = flood(&server, open.take(2_000)).await;
    assert!(kinds.contains(&RESET) || kinds.contains(&GO_AWAY), "streams: {kinds:?}");

    // Each of these has to be answered: who does not read the answers is not read from.
    for (kind, payload) in [(SETTINGS, &b""[..]), (PING, &[0; 8])] {
        drop(flood(&server, (0..200_000).map(|_| frame(kind, 0, 0, payload).repeat(10))).await);
    }
    assert_eq!(server.get("/healthz").await.status(), 200);
    server.drain().await;
}
