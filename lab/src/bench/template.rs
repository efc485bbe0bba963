//! PUBLISH packets encoded once and patched for every message.

use std::ops::Range;

use super::args::Mqtt;
use super::wire::{self, Places};

/// Bytes at the start of every payload: publisher (4), sequence (4), nanoseconds since the run began (8), big endian.
pub(super) const STAMP: usize = 16;

/// One write at most; larger ones only fill the kernel's buffer without saving a call worth having.
pub(super) const LARGEST_WRITE: usize = 65_536;

/// Frames in a ring; a burst is a piece of it, sent from where it lies.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    places: Vec<Places>,
    /// Where each frame begins, and the end of the last.
    starts: Vec<usize>,
    cursor: usize,
}

impl Template {
    /// At least `burst` frames, and each of `topics` equally often.
    pub(super) fn new(mqtt: Mqtt, qos: u8, size: usize, topics: &[String], burst: usize) -> Self {
        let payload = vec![b'x'; size.max(STAMP)];
        let mut template = Self { bytes: Vec::new(), places: Vec::new(), starts: vec![0], cursor: 0 };
        for _ in 0..burst.max(1).div_ceil(topics.len().max(1)) {
            for topic in topics {
                let first = wire::PUBLISH | (qos << 1);
                template.places.push(wire::publish(&mut template.bytes, mqtt, first, topic, &payload));
                template.starts.push(template.bytes.len());
            }
        }
        template
    }

    /// Stamps up to `count` frames, the first with sequence `first`, and says how many, and which bytes they are.
    pub(super) fn stamp(&mut self, publisher: u32, first: u32, count: usize, now: u64) -> (u32, Range<usize>) {
        let start = self.starts[self.cursor];
        let mut sequence = first;
        for _ in 0..count.min(self.places.len() - self.cursor) {
            if sequence > first && self.starts[self.cursor + 1] - start > LARGEST_WRITE {
                break;
            }
            let places = self.places[self.cursor];
            if let Some(id) = places.id {
                self.bytes[id..id + 2].copy_from_slice(&packet_id(sequence).to_be_bytes());
            }
            let stamp = u128::from(publisher) << 96 | u128::from(sequence) << 64 | u128::from(now);
            self.bytes[places.payload..places.payload + STAMP].copy_from_slice(&stamp.to_be_bytes());
            self.cursor += 1;
            sequence += 1;
        }
        let end = self.starts[self.cursor];
        if self.cursor == self.places.len() {
            self.cursor = 0;
        }
        (sequence - first, start..end)
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// The longest frame's length.
    pub(super) fn longest(&self) -> usize {
        self.starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }
}

/// Who sent a message, as which, and when.
pub(super) fn read_stamp(payload: &[u8]) -> Option<(u32, u32, u64)> {
    let bytes: &[u8; STAMP] = payload.first_chunk()?;
    let [a, b, c, d, e, f, g, h, time @ ..] = *bytes;
    Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]), u64::from_be_bytes(time)))
}

/// Identifiers run from 1 to 65,535 and around; far fewer are in flight, so none is used twice at a time.
pub(super) fn packet_id(sequence: u32) -> u16 {
    u16::try_from(sequence % 65_535 + 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::super::wire::Frame;
    use super::*;

    fn topics(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("t/{n}")).collect()
    }

    #[test]
    fn every_message_has_its_own_sequence_and_packet_id() {
        let mut template = Template::new(Mqtt::V3, 1, 64, &topics(1), 10);
        let mut seen = Vec::new();
        let mut next = 65_530;
        while next < 65_540 {
            let (count, range) = template.stamp(7, next, 4, 99);
            let mut bytes = template.bytes(range);
            while let Some((frame, used)) = Frame::parse(bytes).unwrap() {
                let publish = frame.publish(Mqtt::V3).unwrap();
                let (publisher, sequence, time) = read_stamp(publish.payload).unwrap();
                assert_eq!((publisher, time, publish.payload.len()), (7, 99, 64));
                seen.push((sequence, publish.id));
                bytes = &bytes[used..];
            }
            assert!(bytes.is_empty());
            next += count;
        }
        let sequences: Vec<u32> = seen.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(sequences, (65_530..next).collect::<Vec<_>>());
        assert_eq!(seen.iter().find(|(sequence, _)| *sequence == 65_534).unwrap().1, 65_535);
        assert_eq!(seen.iter().find(|(sequence, _)| *sequence == 65_535).unwrap().1, 1);
    }

    #[test]
    fn a_burst_ends_with_the_ring_and_starts_over() {
        let mut template = Template::new(Mqtt::V5, 0, 32, &topics(3), 4);
        assert_eq!(template.stamp(0, 0, 5, 0).0, 5);
        assert_eq!(template.stamp(0, 5, 5, 0).0, 1);
        assert_eq!(template.stamp(0, 6, 5, 0).1.start, 0);
    }

    #[test]
    fn a_burst_is_no_longer_than_the_largest_write_unless_one_frame_is() {
        let mut template = Template::new(Mqtt::V3, 0, 40_000, &topics(1), 8);
        assert_eq!(template.stamp(0, 0, 8, 0).0, 1);
        let mut template = Template::new(Mqtt::V3, 0, 100_000, &topics(1), 8);
        assert_eq!(template.stamp(0, 0, 8, 0).0, 1);
        let mut template = Template::new(Mqtt::V3, 0, 256, &topics(1), 1_000);
        let (count, range) = template.stamp(0, 0, 1_000, 0);
        assert!(range.len() <= LARGEST_WRITE && count > 200);
    }
}
