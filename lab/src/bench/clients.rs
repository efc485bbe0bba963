//! Connections up to the point where messages flow: CONNECT, CONNACK, SUBSCRIBE, SUBACK, blocking and in groups.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::args::{Common, Mqtt};
use super::stream::{Stream, Tls};
use super::wire::{self, Frame, Session};

/// Connections that shake hands at the same time; within every broker's listen backlog.
const GROUP: usize = 64;
/// Filters in one SUBSCRIBE.
const FILTERS_A_PACKET: usize = 500;
/// Longest wait for an answer to a handshake packet.
const ANSWER: Duration = Duration::from_secs(20);

/// Where the broker is and how to greet it.
#[derive(Debug, Clone)]
pub(super) struct Broker {
    address: SocketAddr,
    mqtt: Mqtt,
    qos: u8,
    login: Option<(String, String)>,
    tls: Option<Tls>,
    /// Tells this run's client ids and topics from another's.
    run: String,
}

/// A client ready to send and receive.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream<TcpStream>,
    /// Unacknowledged publishes the broker grants.
    pub(super) receive_maximum: u16,
    /// What was read beyond the last answer.
    pub(super) carry: Vec<u8>,
}

impl Broker {
    pub(super) fn new(common: &Common) -> Result<Self> {
        let (encrypted, host) = match common.url.split_once("://") {
            Some(("mqtt" | "tcp", host)) => (false, host),
            Some(("mqtts", host)) => (true, host),
            Some((scheme, _)) => {
                bail!("cannot measure {scheme}:// connections; use mqtt://HOST:PORT or mqtts://HOST:PORT")
            }
            None => (false, common.url.as_str()),
        };
        let host = host.trim_end_matches('/');
        let port_given = host.rsplit_once(':').is_some_and(|(name, _)| !name.contains(':') || name.ends_with(']'));
        let host = if port_given { host.to_owned() } else { format!("{host}:{}", if encrypted { 8883 } else { 1883 }) };
        let address = host
            .to_socket_addrs()
            .with_context(|| format!("cannot resolve {host} (--url)"))?
            .next()
            .with_context(|| format!("{host} has no address (--url)"))?;
        let tls = match (&common.ca, host.rsplit_once(':')) {
            (Some(ca), Some((name, _))) if encrypted => Some(Tls::new(ca, name.trim_matches(['[', ']']))?),
            _ if encrypted => bail!("mqtts:// needs the authority that signed the broker's certificate: --ca FILE"),
            _ => None,
        };
        let login = common.user.clone().zip(common.password.clone());
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let run = format!("{:x}-{:x}", std::process::id(), started.as_millis() & 0xFF_FFFF);
        Ok(Self { address, mqtt: common.mqtt, qos: common.qos, login, tls, run })
    }

    /// Where this run's subscribers are.
    pub(super) fn of_subscribers(&self, common: &Common) -> Result<Self> {
        let Some(to) = &common.to else { return Ok(self.clone()) };
        let there = Self::new(&Common { url: to.clone(), ..common.clone() }).context("of --to")?;
        Ok(Self { run: self.run.clone(), ..there })
    }

    /// The root of this run's topics.
    pub(super) fn root(&self) -> String {
        format!("bench/{}", self.run)
    }

    /// Connects one client a list of filters (which may be empty) and subscribes it to them.
    pub(super) fn open(&self, role: &str, filters: &[Vec<String>], mut step: impl FnMut(usize)) -> Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(filters.len());
        for group in filters.chunks(GROUP) {
            let first = clients.len();
            for number in first..first + group.len() {
                clients.push(
                    self.greet(&self.client_id(role, number), Session::Clean).with_context(|| {
                        format!("connection {} of {} to {}", number + 1, filters.len(), self.address)
                    })?,
                );
            }
            for client in &mut clients[first..] {
                client.welcome(self.mqtt)?;
            }
            let packets = group.iter().map(|list| list.len().div_ceil(FILTERS_A_PACKET)).max().unwrap_or(0);
            for packet in 0..packets {
                let mut asked = Vec::with_capacity(group.len());
                for (client, list) in clients[first..].iter_mut().zip(group) {
                    if let Some(part) = list.chunks(FILTERS_A_PACKET).nth(packet) {
                        client.subscribe(self.mqtt, part, self.qos)?;
                        asked.push(client);
                    }
                }
                for client in asked {
                    client.subscribed(self.mqtt)?;
                }
            }
            step(clients.len());
        }
        Ok(clients)
    }

    /// This run's client of this role and number.
    pub(super) fn client_id(&self, role: &str, number: usize) -> String {
        format!("bench-{}-{role}{number}", self.run)
    }

    /// Opens one connection and sends CONNECT.
    pub(super) fn greet(&self, client_id: &str, session: Session) -> Result<Client> {
        let stream = TcpStream::connect_timeout(&self.address, ANSWER)
            .context("cannot connect (is the broker there? is `ulimit -n` high enough?)")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let stream = match &self.tls {
            Some(tls) => tls.over(stream)?,
            None => Stream::Plain(stream),
        };
        let mut client = Client { stream, receive_maximum: u16::MAX, carry: Vec::new() };
        let mut packet = Vec::with_capacity(64);
        let login = self.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        wire::connect(&mut packet, self.mqtt, client_id, session, login);
        client.stream.write_all(&packet)?;
        Ok(client)
    }
}

impl Client {
    /// Waits for CONNACK.
    pub(super) fn welcome(&mut self, mqtt: Mqtt) -> Result<()> {
        match self.answer(wire::CONNACK, |frame| frame.connack(mqtt))? {
            Ok(receive_maximum) => self.receive_maximum = receive_maximum.max(1),
            Err(code) => bail!("the broker refuses the connection with code 0x{code:02X} (--user, --mqtt)"),
        }
        Ok(())
    }

    pub(super) fn subscribe(&mut self, mqtt: Mqtt, filters: &[String], qos: u8) -> Result<()> {
        let mut packet = Vec::new();
        wire::subscribe(&mut packet, mqtt, 1, filters, qos);
        self.stream.write_all(&packet)?;
        Ok(())
    }

    /// Waits for SUBACK.
    pub(super) fn subscribed(&mut self, mqtt: Mqtt) -> Result<()> {
        match self.answer(wire::SUBACK, |frame| frame.refused_filters(mqtt))? {
            0 => Ok(()),
            refused => bail!("the broker refuses {refused} filters of a SUBSCRIBE (its limits or rights)"),
        }
    }

    /// Waits for a packet of this kind; others are passed over.
    pub(super) fn answer<T>(&mut self, kind: u8, take: impl Fn(&Frame<'_>) -> Result<T, wire::Malformed>) -> Result<T> {
        self.answer_of(&[kind], take)
    }

    /// Waits for a packet of one of these kinds; others are passed over.
    pub(super) fn answer_of<T>(
        &mut self,
        kinds: &[u8],
        take: impl Fn(&Frame<'_>) -> Result<T, wire::Malformed>,
    ) -> Result<T> {
        let mut chunk = [0; 4_096];
        loop {
            while let Some((frame, used)) = Frame::parse(&self.carry)? {
                let taken = if kinds.contains(&frame.kind()) {
                    Some(take(&frame)?)
                } else if frame.kind() == wire::DISCONNECT {
                    bail!("the broker says DISCONNECT 0x{:02X}", frame.body.first().unwrap_or(&0));
                } else {
                    None
                };
                self.carry.drain(..used);
                if let Some(taken) = taken {
                    return Ok(taken);
                }
            }
            match self.stream.read(&mut chunk).context("the broker does not answer")? {
                0 => bail!("the broker closed the connection instead of answering"),
                count => self.carry.extend_from_slice(&chunk[..count]),
            }
        }
    }
}
