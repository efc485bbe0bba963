//! The scenarios over HTTP: publishing, handing over to a waiting reader, and readers that only wait.
//!
//! Requests are encoded once and sent as they are, answers are looked at for their status and their length only.

mod answer;
mod floor;
mod handover;
mod held;
mod publish;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::args::Common;
use answer::Answer;

pub(super) use floor::run as floor;
pub(super) use handover::run as handover;
pub(super) use held::run as held;
pub(super) use publish::{bulk, single};

/// Longest wait for a connection, and for the answer to a request that is not held.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where an HTTP server is and how to greet it.
#[derive(Debug, Clone)]
struct Target {
    address: SocketAddr,
    /// The lines of a request's head that are always the same.
    headers: String,
}

impl Target {
    fn new(url: &str, common: &Common) -> Result<Self> {
        let Some(host) = url.strip_prefix("http://") else { bail!("cannot measure {url}; use http://HOST:PORT") };
        let host = host.trim_end_matches('/');
        let address = host
            .to_socket_addrs()
            .with_context(|| format!("cannot resolve {host}; http://HOST:PORT is right"))?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        let mut headers = format!("Host: {host}\r\n");
        if let Some((user, password)) = common.user.as_ref().zip(common.password.as_ref()) {
            let login = STANDARD.encode(format!("{user}:{password}"));
            headers.push_str(&format!("Authorization: Basic {login}\r\n"));
        }
        Ok(Self { address, headers })
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)
            .context("cannot connect (is the server there? is `ulimit -n` high enough?)")?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A request; `more` are further lines of its head, each with its line end.
    fn request(&self, method: &str, path: &str, more: &str, body: &[u8]) -> Vec<u8> {
        let length = match body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\n{}{more}{length}\r\n", self.headers).into_bytes();
        request.extend_from_slice(body);
        request
    }

    /// One request and its whole answer, on a connection that is waited on.
    fn ask(stream: &mut TcpStream, request: &[u8]) -> Result<Reply> {
        stream.write_all(request)?;
        let (mut bytes, mut chunk) = (Vec::new(), [0; 16_384]);
        loop {
            if let Some(Answer { status, head, length }) = Answer::parse(&bytes)? {
                let (head, body) = (head.to_owned(), bytes[head.len()..length].to_vec());
                return Ok(Reply { status, head, body });
            }
            match stream.read(&mut chunk).context("the server does not answer")? {
                0 => bail!("the server closed the connection instead of answering"),
                count => bytes.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

/// An answer that was waited for.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}
