//! The other side: a small MQTT-SN client, for `waystation pub` and `waystation sub` and for tests. One request at a
//! time, repeated until answered (§6.13); messages that come meanwhile are kept and acknowledged.

use crate::codec::{
    Connect, Packet, Publish, PublishQos, ReturnCode, Subscribe, TopicName, TopicRef, WillTopic, decode, encode,
};
use bytes::Bytes;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    net::SocketAddr,
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};
use waystation_broker::Qos;

/// Messages kept until [`Board::receive`] asks for them; beyond it QoS 0 is dropped and the rest not acknowledged,
/// so that the gateway sends it again.
const MAX_KEPT: usize = 1_024;

/// QoS 2 message ids remembered until their PUBREL.
const MAX_OPEN: usize = 1_024;

/// How a board connects.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name.
    pub client_id: String,
    /// Whether its session ends with the connection.
    pub clean_session: bool,
    /// Seconds; zero switches keep alive off.
    pub keep_alive_s: u16,
    /// Published if the board is lost: topic, message, QoS, retain.
    pub will: Option<(String, Bytes, Qos, bool)>,
    /// Time until a request is sent again.
    pub retry_interval: Duration,
    /// How often it is sent again.
    pub retry_count: u32,
}

impl Options {
    /// A clean session with a minute of keep alive.
    #[must_use]
    pub fn new(client_id: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            clean_session: true,
            keep_alive_s: 60,
            will: None,
            retry_interval: Duration::from_secs(5),
            retry_count: 3,
        }
    }
}

/// A message for the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The topic name, or the predefined id as a number when its name was not given by [`Board::knows`].
    pub topic: String,
    /// The message itself.
    pub payload: Bytes,
    /// QoS it came with.
    pub qos: Qos,
    /// Whether it is the topic's state.
    pub retain: bool,
}

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No answer.
    #[error("the gateway does not answer")]
    NoAnswer,
    /// The gateway said no.
    #[error("the gateway refuses: {0}")]
    Refused(ReturnCode),
    /// The gateway said goodbye.
    #[error("the gateway has ended the connection")]
    Disconnected,
    /// More than a datagram holds, or no UTF-8.
    #[error("the message is too long for MQTT-SN")]
    TooLong,
}

/// A connected client.
#[derive(Debug)]
pub struct Board {
    socket: UdpSocket,
    options: Options,
    ids: HashMap<String, u16>,
    /// Names by what PUBLISH says; the gateway bounds it.
    names: HashMap<TopicRef, String>,
    inbox: VecDeque<Received>,
    /// QoS 2 messages received and not released.
    open: HashSet<u16>,
    last_msg_id: u16,
    last_sent: Instant,
    buffer: Vec<u8>,
}

impl Board {
    /// Connects, with the conversation about the will if there is one.
    ///
    /// # Errors
    /// See [`BoardError`].
    pub async fn connect(gateway: SocketAddr, options: Options) -> Result<Self, BoardError> {
        let mut board = Self::open(gateway, options).await?;
        let connect = Packet::Connect(Connect {
            will: board.options.will.is_some(),
            clean_session: board.options.clean_session,
            protocol_id: 1,
            duration_s: board.options.keep_alive_s,
            client_id: &board.options.client_id.clone().into_bytes(),
        });
        let mut request = encoded(&connect)?;
        loop {
            let step = board
                .exchange(&request, |packet| match packet {
                    Packet::ConnAck(code) => Some(Step::Done(*code)),
                    Packet::WillTopicReq => Some(Step::Topic),
                    Packet::WillMsgReq => Some(Step::Message),
                    _ => None,
                })
                .await?;
            let will = board.options.will.as_ref();
            request = match (step, will) {
                (Step::Done(code), _) => return accepted(code).map(|()| board),
                (Step::Topic, None) => encoded(&Packet::WillTopic(None))?,
                (Step::Topic, Some((topic, _, qos, retain))) => {
                    let topic = topic.as_bytes();
                    encoded(&Packet::WillTopic(Some(WillTopic { qos: *qos, retain: *retain, topic })))?
                }
                (Step::Message, will) => encoded(&Packet::WillMsg(will.map_or(&[], |(_, message, ..)| message)))?,
            };
        }
    }

    async fn open(gateway: SocketAddr, options: Options) -> Result<Self, BoardError> {
        let any: SocketAddr = match gateway {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(gateway).await?;
        Ok(Self {
            socket,
            options,
            ids: HashMap::new(),
            names: HashMap::new(),
            inbox: VecDeque::new(),
            open: HashSet::new(),
            last_msg_id: 0,
            last_sent: Instant::now(),
            buffer: vec![0; 65_535],
        })
    }

    /// Publishes with QoS -1: no connection, no answer. The topic is a predefined id or a short name.
    ///
    /// # Errors
    /// See [`BoardError`].
    pub async fn publish_without_connect(
        gateway: SocketAddr,
        topic: TopicRef,
        payload: &[u8],
        retain: bool,
    ) -> Result<(), BoardError> {
        let board = Self::open(gateway, Options::new("-")).await?;
        let qos = PublishQos::MinusOne;
        let packet = encoded(&Packet::Publish(Publish { dup: false, qos, retain, topic, msg_id: 0, payload }))?;
        board.socket.send(&packet).await?;
        Ok(())
    }

    /// Tells the board a predefined topic.
    pub fn knows(&mut self, id: u16, topic: &str) {
        self.names.insert(TopicRef::Predefined(id), topic.to_owned());
    }

    /// Publishes to a topic name, and registers it before the first time. Returns when the gateway has acknowledged
    /// what the QoS asks for.
    ///
    /// # Errors
    /// See [`BoardError`].
    pub async fn publish(&mut self, topic: &str, payload: &[u8], qos: Qos, retain: bool) -> Result<(), BoardError> {
        let topic = self.reference(topic).await?;
        self.publish_to(topic, payload, qos, retain).await
    }

    /// Publishes to a topic by its id or short name.
    ///
    /// # Errors
    /// See [`BoardError`].
    pub async fn publish_to(
        &mut self,
        topic: TopicRef,
        payload: &[u8],
        qos: Qos,
        retain: bool,
    ) -> Result<(), BoardError> {
        let msg_id = if qos == Qos::AtMostOnce { 0 } else { self.msg_id() };
        let publish = Publish { dup: false, qos: PublishQos::Mqtt(qos), retain, topic, msg_id, payload };
        let request = encoded(&Packet::Publish(publish))?;
        if qos == Qos::AtMostOnce {
            return self.send(&request).await;
        }
        let code = self
            .exchange(&request, |packet| match *packet {
                Packet::PubAck { msg_id: id, code, .. } if id == msg_id => Some(code),
                Packet::PubRec { msg_id: id } if id == msg_id && qos == Qos::ExactlyOnce => Some(ReturnCode::Accepted),
                _ => None,
            })
            .await?;
        accepted(code)?;
        if qos == Qos::ExactlyOnce {
            let release = encoded(&Packet::PubRel { msg_id })?;
            self.exchange(&release, |packet| (*packet == Packet::PubComp { msg_id }).then_some(())).await?;
        }
        Ok(())
    }

    /// Subscribes to a topic name or filter; gives the QoS granted.
    ///
    /// # Errors
    /// See [`BoardError`].
    pub async fn subscribe(&mut self, filter: &str, qos: Qos) -> Result<Qos, BoardError> {
        let msg_id = self.msg_id();
        let topic = TopicName::Name(filter.as_bytes());
        let request = encoded(&Packet::Subscribe(Subscribe { dup: false, qos, msg_id, topic }))?;
        let ack = self
            .exchange(&request, |packet| match packet {
                Packet::SubAck(ack) if ack.msg_id == msg_id => Some(*ack),
                _ => None,
            })
            .await?;
        accepted(ack.code)?;
        if ack.topic_id != 0 {
            self.names.insert(TopicRef::Normal(ack.topic_id), filter.to_owned());
            self.ids.insert(filter.to_owned(), ack.topic_id);
        }
        Ok(ack.qos)
    }

    /// The next message. Keeps the connection alive while it waits. Cancel-safe.
    ///
    /// # Errors
    /// See [`BoardError`].
    pub async fn receive(&mut self) -> Result<Received, BoardError> {
        let interval = Duration::from_secs(self.options.keep_alive_s.into()) / 2;
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Ok(message);
            }
            let ping_at = (!interval.is_zero()).then(|| self.last_sent + interval);
            if self.read_until(ping_at, &mut |_| None::<()>).await?.is_none() {
                let ping = encoded(&Packet::PingReq { client_id: b"" })?;
                self.exchange(&ping, |packet| (*packet == Packet::PingResp).then_some(())).await?;
            }
        }
    }

    /// Goes to sleep for so many seconds; messages wait at the gateway until [`Board::wake`].
    ///
    /// # Errors
    /// See [`BoardError`].
    pub async fn sleep(&mut self, duration_s: u16) -> Result<(), BoardError> {
        let request = encoded(&Packet::Disconnect { duration_s: Some(duration_s) })?;
        self.exchange(&request, |packet| matches!(packet, Packet::Disconnect { .. }).then_some(())).await
    }

    /// Fetches what waits, and sleeps on: the messages are then there for [`Board::receive`].
    ///
    /// # Errors
    /// See [`BoardError`].
    pub async fn wake(&mut self) -> Result<(), BoardError> {
        let id = self.options.client_id.clone();
        let request = encoded(&Packet::PingReq { client_id: id.as_bytes() })?;
        self.exchange(&request, |packet| (*packet == Packet::PingResp).then_some(())).await
    }

    /// Says goodbye.
    ///
    /// # Errors
    /// See [`BoardError`].
    pub async fn disconnect(mut self) -> Result<(), BoardError> {
        let request = encoded(&Packet::Disconnect { duration_s: None })?;
        self.exchange(&request, |packet| matches!(packet, Packet::Disconnect { .. }).then_some(())).await
    }

    async fn reference(&mut self, topic: &str) -> Result<TopicRef, BoardError> {
        if let Ok(short) = <[u8; 2]>::try_from(topic.as_bytes()) {
            return Ok(TopicRef::Short(short));
        }
        if let Some(id) = self.ids.get(topic) {
            return Ok(TopicRef::Normal(*id));
        }
        let msg_id = self.msg_id();
        let request = encoded(&Packet::Register { topic_id: 0, msg_id, name: topic.as_bytes() })?;
        let (id, code) = self
            .exchange(&request, |packet| match *packet {
                Packet::RegAck { topic_id, msg_id: id, code } if id == msg_id => Some((topic_id, code)),
                _ => None,
            })
            .await?;
        accepted(code)?;
        self.ids.insert(topic.to_owned(), id);
        self.names.insert(TopicRef::Normal(id), topic.to_owned());
        Ok(TopicRef::Normal(id))
    }

    /// Sends a request until `answer` recognises its answer.
    async fn exchange<T>(
        &mut self,
        request: &[u8],
        mut answer: impl FnMut(&Packet<'_>) -> Option<T>,
    ) -> Result<T, BoardError> {
        for _ in 0..=self.options.retry_count {
            self.send(request).await?;
            let deadline = Instant::now() + self.options.retry_interval;
            while let Some(read) = self.read_until(Some(deadline), &mut answer).await? {
                if let Some(value) = read.answer {
                    return Ok(value);
                }
            }
        }
        Err(BoardError::NoAnswer)
    }

    /// One datagram; `None` when the deadline passed.
    async fn read_until<T>(
        &mut self,
        deadline: Option<Instant>,
        answer: &mut impl FnMut(&Packet<'_>) -> Option<T>,
    ) -> Result<Option<Read<T>>, BoardError> {
        let length = match deadline {
            None => self.socket.recv(&mut self.buffer).await?,
            Some(deadline) => match timeout_at(deadline, self.socket.recv(&mut self.buffer)).await {
                Ok(length) => length?,
                Err(_) => return Ok(None),
            },
        };
        let datagram = Bytes::copy_from_slice(&self.buffer[..length]);
        let Ok(packet) = decode(&datagram) else { return Ok(Some(Read { answer: None })) };
        let found = answer(&packet);
        if found.is_none() {
            self.obey(&packet).await?;
        }
        Ok(Some(Read { answer: found }))
    }

    /// What the gateway says of itself.
    async fn obey(&mut self, packet: &Packet<'_>) -> Result<(), BoardError> {
        let reply = match *packet {
            Packet::Register { topic_id, msg_id, name } => {
                let name = String::from_utf8_lossy(name).into_owned();
                self.names.insert(TopicRef::Normal(topic_id), name);
                Packet::RegAck { topic_id, msg_id, code: ReturnCode::Accepted }
            }
            Packet::Publish(publish) => match self.accept(&publish) {
                Some(reply) => reply,
                None => return Ok(()),
            },
            Packet::PubRel { msg_id } => {
                self.open.remove(&msg_id);
                Packet::PubComp { msg_id }
            }
            Packet::PingReq { .. } => Packet::PingResp,
            Packet::Disconnect { .. } => return Err(BoardError::Disconnected),
            _ => return Ok(()),
        };
        let reply = encoded(&reply)?;
        self.send(&reply).await
    }

    fn accept(&mut self, publish: &Publish<'_>) -> Option<Packet<'static>> {
        let PublishQos::Mqtt(qos) = publish.qos else { return None };
        let (topic_id, msg_id) = (publish.topic.raw(), publish.msg_id);
        let topic = match (publish.topic, self.names.get(&publish.topic)) {
            (_, Some(name)) => name.clone(),
            (TopicRef::Short(name), None) => String::from_utf8_lossy(&name).into_owned(),
            (TopicRef::Predefined(id), None) => id.to_string(),
            (TopicRef::Normal(_), None) => {
                return Some(Packet::PubAck { topic_id, msg_id, code: ReturnCode::InvalidTopicId });
            }
        };
        let repeated = qos == Qos::ExactlyOnce && self.open.contains(&msg_id);
        if !repeated {
            if self.inbox.len() >= MAX_KEPT || self.open.len() >= MAX_OPEN {
                return None;
            }
            let payload = Bytes::copy_from_slice(publish.payload);
            self.inbox.push_back(Received { topic, payload, qos, retain: publish.retain });
        }
        match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce => Some(Packet::PubAck { topic_id, msg_id, code: ReturnCode::Accepted }),
            Qos::ExactlyOnce => {
                self.open.insert(msg_id);
                Some(Packet::PubRec { msg_id })
            }
        }
    }

    async fn send(&mut self, datagram: &[u8]) -> Result<(), BoardError> {
        self.socket.send(datagram).await?;
        self.last_sent = Instant::now();
        Ok(())
    }

    fn msg_id(&mut self) -> u16 {
        self.last_msg_id = self.last_msg_id.checked_add(1).unwrap_or(1);
        self.last_msg_id
    }
}

/// A datagram came; whether it was the answer.
struct Read<T> {
    answer: Option<T>,
}

enum Step {
    Done(ReturnCode),
    Topic,
    Message,
}

fn encoded(packet: &Packet<'_>) -> Result<Vec<u8>, BoardError> {
    let mut bytes = Vec::new();
    encode(packet, &mut bytes).map_err(|_| BoardError::TooLong)?;
    Ok(bytes)
}

fn accepted(code: ReturnCode) -> Result<(), BoardError> {
    if code == ReturnCode::Accepted { Ok(()) } else { Err(BoardError::Refused(code)) }
}
