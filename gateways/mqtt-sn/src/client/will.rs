//! Changing the will while connected, asleep or not (§6.4).

use super::{
    Client, code_of,
    held::{Answer, MAX_HELD},
};
use crate::{
    codec::{Packet, ReturnCode, WillTopic},
    outbox::Outbox,
};
use bytes::Bytes;
use waystation_broker::{Topic, Will};

impl Client {
    pub(super) fn will_topic_update(&mut self, topic: Option<WillTopic<'_>>, out: &mut Outbox) {
        let will = match topic {
            // §5.4.22: an empty one deletes topic and message.
            None => Ok(None),
            Some(new) => Topic::from_bytes(new.topic).map_err(|_| ReturnCode::InvalidTopicId).map(|topic| {
                let payload = self.will().map(|old| old.payload).unwrap_or_default();
                let stays = self.link.as_ref().is_some_and(|link| link.expiry() > 0);
                let keep_alive_s = u16::try_from(self.patience.as_secs()).unwrap_or(u16::MAX);
                Some(Will { retain: new.retain, keep_alive_s, stays, ..Will::new(topic, payload, new.qos) })
            }),
        };
        if let Err(code) = will.and_then(|will| self.set_will(will, Answer::WillTopicResp)) {
            self.send(out, &Packet::WillTopicResp(code));
        }
    }

    pub(super) fn will_message_update(&mut self, message: &[u8], out: &mut Outbox) {
        // Without a topic there is nothing the message could belong to.
        let will = self.will().ok_or(ReturnCode::NotSupported);
        let will = will.map(|will| Some(Will { payload: Bytes::copy_from_slice(message), ..will }));
        if let Err(code) = will.and_then(|will| self.set_will(will, Answer::WillMsgResp)) {
            self.send(out, &Packet::WillMsgResp(code));
        }
    }

    fn will(&self) -> Option<Will> {
        self.link.as_ref()?.will()
    }

    fn set_will(&mut self, will: Option<Will>, answer: Answer) -> Result<(), ReturnCode> {
        if self.owed.held.len() >= MAX_HELD {
            return Err(ReturnCode::Congestion);
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        let lsn = link.set_will(will).map_err(code_of)?;
        self.hold(lsn, answer);
        Ok(())
    }
}
