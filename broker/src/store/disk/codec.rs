//! How records look on disk: `version | body | CRC32C`, the sum taken over the key as well, so that a value that
//! strayed under another key is noticed. Numbers are LEB128, texts carry their length. Damaged bytes give
//! [`Damaged`], never a panic.

use crate::{
    access::{ClientId, Policy, Principal},
    clock::Time,
    idempotency::{Answer, Idempotency},
    limits::Overflow,
    link::{RetainHandling, SessionOptions, Subscription, Tag, WhileAway},
    message::{Head, Message, MessageId, Origin, Properties, Qos, Will},
    store::{Counts, Placed},
    topic::{Filter, Topic},
};
use bytes::Bytes;
use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

/// Stands before every record. A newer one is refused, an older one would be read by its own rules.
pub(super) const VERSION: u8 = 1;
const CHECKSUM: usize = 4;

/// These bytes are no record under this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record is damaged")]
pub(super) struct Damaged;

/// What a session is, as far as it does not change from message to message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionHead {
    pub(super) client: ClientId,
    pub(super) owner: Option<Box<str>>,
    pub(super) expiry: u32,
    pub(super) options: SessionOptions,
    pub(super) while_away: WhileAway,
}

/// A place in a queue.
#[derive(Debug, Clone)]
pub(super) struct QueueEntry {
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) identifiers: Box<[NonZeroU32]>,
    pub(super) group: Option<Filter>,
    pub(super) body: Body,
}

/// Where the message is.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// Right here: this queue alone holds it.
    Inline(Message),
    /// Under its number, once for all queues; this many bytes count for it.
    Shared(MessageId, u64),
}

/// What can be told of a place without its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outline {
    /// It was queued for a shared subscription.
    pub(super) grouped: bool,
    /// The message's number, if several queues share it.
    pub(super) message: Option<MessageId>,
    /// What it counts for.
    pub(super) cost: u64,
}

/// Closes a record: what was written since `Writer::record` began gets its checksum.
pub(super) struct Writer(Vec<u8>);

/// Room for nearly every record, so that it does not move while it grows.
const ROOM: usize = 1_000;

impl Writer {
    pub(super) fn record() -> Self {
        let mut bytes = Vec::with_capacity(ROOM);
        bytes.push(VERSION);
        Self(bytes)
    }

    pub(super) fn seal(mut self, key: &[u8]) -> Vec<u8> {
        let sum = checksum(key, &self.0);
        self.0.extend_from_slice(&sum.to_le_bytes());
        self.0
    }

    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn number(&mut self, mut value: u64) {
        loop {
            let low = (value & 0x7F).to_le_bytes()[0];
            value >>= 7;
            if value == 0 {
                return self.0.push(low);
            }
            self.0.push(low | 0x80);
        }
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn text(&mut self, value: Option<&str>) {
        self.option(value, |w, text| w.bytes(text.as_bytes()));
    }

    pub(super) fn time(&mut self, value: Option<Time>) {
        self.option(value, |w, at| w.number(at.0));
    }

    fn properties(&mut self, value: Option<&Properties>) {
        self.option(value, |w, p| {
            w.byte(u8::from(p.payload_is_utf8));
            w.text(p.content_type.as_deref());
            w.text(p.response_topic.as_deref());
            w.option(p.correlation_data.as_deref(), Self::bytes);
            w.number(p.user.len() as u64);
            for (name, value) in &p.user {
                w.bytes(name.as_bytes());
                w.bytes(value.as_bytes());
            }
        });
    }

    pub(super) fn message(&mut self, message: &Message) {
        self.bytes(message.topic().as_str().as_bytes());
        self.number(message.id().0);
        self.number(message.time().0);
        self.time(message.expires());
        let own = message.head().origin.principal.is_server();
        self.byte(message.qos() as u8 | u8::from(message.retain()) << 2 | u8::from(own) << 3);
        self.text(message.publisher().map(ClientId::as_str));
        self.text(message.publisher_user());
        self.properties(message.properties());
        self.bytes(message.payload());
    }

    pub(super) fn entry(&mut self, place: &Placed, message: &Message, shared: bool) {
        self.byte(place.qos as u8 | u8::from(place.retain) << 2 | u8::from(shared) << 3);
        self.number(place.identifiers.len() as u64);
        for id in &place.identifiers {
            self.number(id.get().into());
        }
        self.text(place.shared.as_ref().map(Filter::as_str));
        if shared {
            self.number(message.id().0);
            self.number(message.cost() as u64);
        } else {
            self.message(message);
        }
    }

    pub(super) fn head(&mut self, head: &SessionHead) {
        self.bytes(head.client.as_str().as_bytes());
        self.text(head.owner.as_deref());
        self.number(head.expiry.into());
        self.option(head.options.max_queued_messages, |w, n| w.number(n.into()));
        let overflow = match head.options.overflow {
            None => 0,
            Some(Overflow::DropOldest) => 1,
            Some(Overflow::DropNewest) => 2,
            Some(Overflow::Reject) => 3,
        };
        // A bound of bytes of its own was unknown to the first records: a bit says that one follows.
        self.byte(overflow | u8::from(head.options.max_queued_bytes.is_some()) << 2);
        if let Some(bytes) = head.options.max_queued_bytes {
            self.number(bytes);
        }
        self.byte(u8::from(head.while_away == WhileAway::KeepQos0));
    }

    pub(super) fn subscription(&mut self, subscription: &Subscription) {
        self.byte(
            subscription.qos as u8
                | u8::from(subscription.no_local) << 2
                | u8::from(subscription.retain_as_published) << 3
                | match subscription.retain_handling {
                    RetainHandling::Send => 0,
                    RetainHandling::SendIfNew => 1 << 4,
                    RetainHandling::DoNotSend => 2 << 4,
                },
        );
        self.option(subscription.identifier, |w, id| w.number(id.get().into()));
    }

    pub(super) fn will(&mut self, will: &Will) {
        self.bytes(will.topic.as_str().as_bytes());
        self.bytes(&will.payload);
        self.byte(will.qos as u8 | u8::from(will.retain) << 2 | u8::from(will.stays) << 3);
        self.number(will.delay_s.into());
        self.number(will.keep_alive_s.into());
        self.option(will.expiry, |w, s| w.number(s.into()));
        self.properties(will.properties.as_deref());
    }

    pub(super) fn answer(&mut self, answer: &Answer) {
        self.text(answer.user.as_deref());
        self.bytes(answer.idempotency.key.as_bytes());
        self.0.extend_from_slice(&answer.idempotency.request);
        self.number(answer.id.0);
        self.number(answer.matched.into());
        self.number(answer.until.0);
    }

    pub(super) fn counts(&mut self, counts: Counts) {
        self.number(counts.missed);
        self.number(counts.dropped);
    }

    pub(super) fn sent(&mut self, tag: Tag, received: bool) {
        self.number(tag.0.get().into());
        self.byte(u8::from(received));
    }
}

/// Takes a record apart, from the front.
pub(super) struct Reader<'a>(&'a [u8]);

type Read<T> = Result<T, Damaged>;

impl<'a> Reader<'a> {
    /// The body of a record that is whole.
    pub(super) fn open(key: &[u8], record: &'a [u8]) -> Read<Self> {
        let (content, sum) = record.split_last_chunk::<CHECKSUM>().ok_or(Damaged)?;
        if checksum(key, content) != u32::from_le_bytes(*sum) {
            return Err(Damaged);
        }
        match content.split_first() {
            Some((&VERSION, body)) => Ok(Self(body)),
            _ => Err(Damaged),
        }
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        let (first, rest) = self.0.split_first().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn number(&mut self) -> Read<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7F);
            if part.leading_zeros() < shift {
                return Err(Damaged);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damaged)
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Read<T> {
        T::try_from(self.number()?).map_err(|_| Damaged)
    }

    fn flag(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged),
        }
    }

    pub(super) fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.small()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn str(&mut self) -> Read<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Damaged)
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    fn text(&mut self) -> Read<Option<&'a str>> {
        self.option(Self::str)
    }

    pub(super) fn time(&mut self) -> Read<Option<Time>> {
        self.option(|r| r.number().map(Time))
    }

    fn topic(&mut self) -> Read<Topic> {
        Topic::from_bytes(self.bytes()?).map_err(|_| Damaged)
    }

    fn properties(&mut self) -> Read<Option<Box<Properties>>> {
        self.option(|r| {
            let mut p = Properties {
                payload_is_utf8: r.flag()?,
                content_type: r.text()?.map(Into::into),
                response_topic: r.text()?.map(Into::into),
                correlation_data: r.option(Self::bytes)?.map(Into::into),
                user: Vec::new(),
            };
            for _ in 0..r.number()? {
                p.user.push((r.str()?.into(), r.str()?.into()));
            }
            Ok(Box::new(p))
        })
    }

    pub(super) fn message(&mut self) -> Read<Message> {
        let topic = self.topic()?;
        let (id, time) = (MessageId(self.number()?), Time(self.number()?));
        let expires = self.time()?;
        let flags = self.byte()?;
        let client = self.text()?.map(|id| ClientId::new(id).ok_or(Damaged)).transpose()?;
        let user = self.text()?;
        let principal = match user {
            Some(user) => Principal::user(user, None),
            None if flags & 8 != 0 => Principal::server(),
            None => Principal::anonymous(),
        };
        let properties = self.properties()?;
        let head = Head {
            topic,
            // Sessions have other numbers after a start; No Local is decided before a message is kept.
            origin: Arc::new(Origin { client, principal, session: 0 }),
            id,
            time,
            expires,
            properties,
            qos: qos(flags)?,
            retain: flags & 4 != 0,
            policy: Policy::BEFORE,
        };
        Ok(Message::new(head, self.bytes()?))
    }

    pub(super) fn entry(&mut self) -> Read<QueueEntry> {
        let flags = self.byte()?;
        let mut identifiers = Vec::new();
        for _ in 0..self.number()? {
            identifiers.push(NonZeroU32::new(self.small()?).ok_or(Damaged)?);
        }
        let group = self.text()?.map(|filter| Filter::parse(filter).map_err(|_| Damaged)).transpose()?;
        let body = match flags & 8 {
            0 => Body::Inline(self.message()?),
            _ => Body::Shared(MessageId(self.number()?), self.number()?),
        };
        Ok(QueueEntry { qos: qos(flags)?, retain: flags & 4 != 0, identifiers: identifiers.into(), group, body })
    }

    /// The same place as [`Reader::entry`] reads, without making anything of it.
    pub(super) fn outline(&mut self) -> Read<Outline> {
        let flags = self.byte()?;
        for _ in 0..self.number()? {
            self.number()?;
        }
        let grouped = self.text()?.is_some();
        let (message, cost) = match flags & 8 {
            0 => (None, self.message_cost()?),
            _ => (Some(MessageId(self.number()?)), self.number()?),
        };
        Ok(Outline { grouped, message, cost })
    }

    /// [`Message::cost`] of the message that [`Reader::message`] reads.
    fn message_cost(&mut self) -> Read<u64> {
        let topic = self.bytes()?.len();
        let _numbers = (self.number()?, self.number()?, self.time()?, self.byte()?);
        let _names = (self.text()?, self.text()?);
        let properties = self.option(|r| {
            r.flag()?;
            let texts = [r.text()?, r.text()?].into_iter().flatten().map(str::len).sum::<usize>();
            let data = r.option(Self::bytes)?.map_or(0, <[u8]>::len);
            let mut user = 0;
            for _ in 0..r.number()? {
                user += r.bytes()?.len() + r.bytes()?.len() + Properties::PAIR;
            }
            Ok(texts + data + user)
        })?;
        Ok((topic + properties.unwrap_or(0) + self.bytes()?.len()) as u64)
    }

    pub(super) fn head(&mut self) -> Read<SessionHead> {
        Ok(SessionHead {
            client: ClientId::new(self.str()?).ok_or(Damaged)?,
            owner: self.text()?.map(Into::into),
            expiry: self.small()?,
            options: self.options()?,
            while_away: if self.flag()? { WhileAway::KeepQos0 } else { WhileAway::DropQos0 },
        })
    }

    fn options(&mut self) -> Read<SessionOptions> {
        let max_queued_messages = self.option(Self::small)?;
        let flags = self.byte()?;
        let overflow = match flags & 3 {
            0 => None,
            1 => Some(Overflow::DropOldest),
            2 => Some(Overflow::DropNewest),
            _ => Some(Overflow::Reject),
        };
        let max_queued_bytes = match flags >> 2 {
            0 => None,
            1 => Some(self.number()?),
            _ => return Err(Damaged),
        };
        Ok(SessionOptions { max_queued_messages, max_queued_bytes, overflow })
    }

    pub(super) fn subscription(&mut self, filter: Filter) -> Read<Subscription> {
        let flags = self.byte()?;
        Ok(Subscription {
            filter,
            qos: qos(flags)?,
            no_local: flags & 4 != 0,
            retain_as_published: flags & 8 != 0,
            retain_handling: match flags >> 4 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(Damaged),
            },
            identifier: self.option(|r| NonZeroU32::new(r.small()?).ok_or(Damaged))?,
        })
    }

    pub(super) fn will(&mut self) -> Read<Will> {
        let (topic, payload, flags) = (self.topic()?, Bytes::copy_from_slice(self.bytes()?), self.byte()?);
        Ok(Will {
            topic,
            payload,
            qos: qos(flags)?,
            retain: flags & 4 != 0,
            delay_s: self.small()?,
            keep_alive_s: self.small()?,
            expiry: self.option(Self::small)?,
            properties: self.properties()?,
            stays: flags & 8 != 0,
        })
    }

    pub(super) fn answer(&mut self) -> Read<Answer> {
        let (user, key) = (self.text()?.map(Into::into), self.str()?.into());
        let (request, rest) = self.0.split_first_chunk::<32>().ok_or(Damaged)?;
        self.0 = rest;
        Ok(Answer {
            user,
            idempotency: Idempotency { key, request: *request },
            id: MessageId(self.number()?),
            matched: self.small()?,
            until: Time(self.number()?),
        })
    }

    pub(super) fn counts(&mut self) -> Read<Counts> {
        Ok(Counts { missed: self.number()?, dropped: self.number()? })
    }

    pub(super) fn sent(&mut self) -> Read<(Tag, bool)> {
        let tag = NonZeroU16::new(self.small()?).ok_or(Damaged)?;
        Ok((Tag(tag), self.flag()?))
    }
}

fn qos(flags: u8) -> Read<Qos> {
    Qos::from_u8(flags & 3).ok_or(Damaged)
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Box<str>> {
        "[a-z/ü]{0,12}".prop_map(Into::into)
    }

    fn properties() -> impl Strategy<Value = Option<Box<Properties>>> {
        let parts = (
            any::<bool>(),
            prop::option::of(text()),
            prop::option::of(text()),
            prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            prop::collection::vec((text(), text()), 0..3),
        );
        prop::option::of(parts.prop_map(|(payload_is_utf8, content_type, response_topic, data, user)| {
            let correlation_data = data.map(Into::into);
            Box::new(Properties { payload_is_utf8, content_type, response_topic, correlation_data, user })
        }))
    }

    prop_compose! {
        fn message()(
            topic in "[a-z]{1,5}(/[a-z]{0,5}){0,3}", id: u64, time: u64, expires: Option<u64>, qos in 0u8..3, retain: bool,
            client in prop::option::of("[a-z]{1,9}"), user in prop::option::of(text()), properties in properties(),
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) -> Message {
            let principal = user.map_or_else(Principal::anonymous, |user| Principal::user(&user, None));
            let origin = Origin { client: client.and_then(|id| ClientId::new(&id)), principal, session: 0 };
            let head = Head {
                topic: Topic::parse(&topic).unwrap(), origin: Arc::new(origin), id: MessageId(id), time: Time(time),
                expires: expires.map(Time), properties, qos: Qos::from_u8(qos).unwrap(), retain, policy: Policy::BEFORE,
            };
            Message::new(head, &payload)
        }
    }

    fn same(a: &Message, b: &Message) -> bool {
        format!("{:?}", a.head()) == format!("{:?}", b.head()) && a.payload() == b.payload()
    }

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_was(message in message(), key in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut w = Writer::record();
            w.message(&message);
            let bytes = w.seal(&key);
            let mut r = Reader::open(&key, &bytes).unwrap();
            let again = r.message().unwrap();
            prop_assert!(same(&message, &again));
        }

        #[test]
        fn a_place_comes_back_as_it_was(
            message in message(), qos in 0u8..3, retain: bool, shared: bool, grouped: bool, ids in prop::collection::vec(1u32.., 0..4),
        ) {
            let place = Placed {
                session: crate::store::SessionKey(1), cursor: crate::Cursor(2), qos: Qos::from_u8(qos).unwrap(), retain,
                identifiers: ids.iter().filter_map(|id| NonZeroU32::new(*id)).collect(),
                shared: grouped.then(|| Filter::parse("$share/g/a/#").unwrap()),
            };
            let mut w = Writer::record();
            w.entry(&place, &message, shared);
            let bytes = w.seal(b"k");
            let mut r = Reader::open(b"k", &bytes).unwrap();
            let again = r.entry().unwrap();
            let outline = Outline { grouped, message: shared.then_some(message.id()), cost: message.cost() as u64 };
            prop_assert_eq!(Reader::open(b"k", &bytes).unwrap().outline(), Ok(outline));
            prop_assert_eq!((again.qos, again.retain, &again.identifiers), (place.qos, retain, &place.identifiers));
            prop_assert_eq!(again.group, place.shared);
            match again.body {
                Body::Inline(m) => prop_assert!(!shared && same(&m, &message)),
                Body::Shared(id, cost) => prop_assert!(shared && id == message.id() && cost == message.cost() as u64),
            }
        }

        #[test]
        fn a_will_comes_back_as_it_was(
            message in message(), delay_s: u32, keep_alive_s: u16, expiry: Option<u32>, properties in properties(), stays: bool,
        ) {
            let will = Will {
                topic: message.topic().clone(), payload: Bytes::copy_from_slice(message.payload()), qos: message.qos(),
                retain: message.retain(), delay_s, keep_alive_s, expiry, properties, stays,
            };
            let mut w = Writer::record();
            w.will(&will);
            let bytes = w.seal(b"");
            prop_assert_eq!(Reader::open(b"", &bytes).unwrap().will(), Ok(will));
        }

        #[test]
        fn sessions_and_subscriptions_come_back_as_they_were(
            owner in prop::option::of(text()), expiry: u32, max_queued_messages: Option<u32>, max_queued_bytes: Option<u64>, overflow in 0u8..4, keep: bool,
            qos in 0u8..3, no_local: bool, retain_as_published: bool, handling in 0u8..3, id: Option<u32>,
        ) {
            let overflow = [None, Some(Overflow::DropOldest), Some(Overflow::DropNewest), Some(Overflow::Reject)][usize::from(overflow)];
            let head = SessionHead {
                client: ClientId::new("c").unwrap(), owner, expiry,
                options: SessionOptions { max_queued_messages, max_queued_bytes, overflow },
                while_away: if keep { WhileAway::KeepQos0 } else { WhileAway::DropQos0 },
            };
            let handling = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend][usize::from(handling)];
            let subscription = Subscription {
                filter: Filter::parse("a/+/#").unwrap(), qos: Qos::from_u8(qos).unwrap(), no_local, retain_as_published,
                retain_handling: handling, identifier: id.and_then(NonZeroU32::new),
            };
            let mut w = Writer::record();
            w.head(&head);
            w.subscription(&subscription);
            let bytes = w.seal(b"");
            let mut r = Reader::open(b"", &bytes).unwrap();
            prop_assert_eq!(r.head(), Ok(head));
            prop_assert_eq!(r.subscription(subscription.filter.clone()), Ok(subscription));
        }

        #[test]
        fn an_answer_comes_back_as_it_was(
            user in prop::option::of(text()), key in text(), request: [u8; 32], id: u64, matched: u32, until: u64,
        ) {
            let idempotency = Idempotency { key, request };
            let answer = Answer { user, idempotency, id: MessageId(id), matched, until: Time(until) };
            let mut w = Writer::record();
            w.answer(&answer);
            let bytes = w.seal(b"");
            prop_assert_eq!(Reader::open(b"", &bytes).unwrap().answer(), Ok(answer));
        }

        /// One flipped bit anywhere, or bytes that were never a record: told, and no panic.
        #[test]
        fn damage_is_noticed(message in message(), at: prop::sample::Index, bit in 0u8..8) {
            let mut w = Writer::record();
            w.message(&message);
            let mut bytes = w.seal(b"key");
            prop_assert!(Reader::open(b"other key", &bytes).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Reader::open(b"key", &bytes).is_err());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            // Behind a checksum that fits: what a hostile disk could do at worst.
            let mut w = Writer::record();
            w.0.extend_from_slice(&bytes);
            let record = w.seal(b"");
            let open = || Reader::open(b"", &record).unwrap();
            let _ = (open().message(), open().entry(), open().head(), open().will(), open().sent(), open().time(), open().answer(), open().counts(), open().outline());
            let _ = open().subscription(Filter::parse("a").unwrap());
            let _ = Reader::open(b"", &bytes);
        }
    }
}
