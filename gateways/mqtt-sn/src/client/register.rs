//! The board asks for topic ids (§6.5). The other direction is part of [`super::deliver`].

use super::Client;
use crate::{
    codec::{Packet, ReturnCode},
    outbox::Outbox,
};
use waystation_broker::Topic;

impl Client {
    pub(super) fn register(&mut self, msg_id: u16, name: &[u8], out: &mut Outbox) {
        let (topic_id, code) = match Topic::from_bytes(name) {
            Ok(topic) => (self.topics.id_for(&topic), ReturnCode::Accepted),
            Err(_) => (0x0000, ReturnCode::InvalidTopicId),
        };
        self.send(out, &Packet::RegAck { topic_id, msg_id, code });
    }
}
