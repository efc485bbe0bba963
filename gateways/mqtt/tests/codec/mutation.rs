//! Fuzzing for a bounded time: the samples, damaged at random but always alike.

use waystation_mqtt::codec::{
    Sender, Version, decode, decode_connect, decode_from_server,
    samples::{MALFORMED, MAX_PACKET_SIZE, Sample, WELL_FORMED},
};

const ITERATIONS: u32 = 200_000;

/// A small generator of its own (xorshift64*), so that a failure is the same failure everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap();
        drawn % bound
    }

    fn byte(&mut self) -> u8 {
        // Values at which something changes are worth more than others.
        const EDGES: [u8; 12] = [0, 1, 2, 4, 0x23, 0x26, 0x2b, 0x7f, 0x80, 0xc0, 0xed, 0xff];
        match self.below(2) {
            0 => EDGES[self.below(EDGES.len())],
            _ => u8::try_from(self.below(256)).unwrap(),
        }
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.byte()),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ if at < bytes.len() => bytes[at] = self.byte(),
                _ => bytes.push(self.byte()),
            }
        }
    }
}

#[test]
fn damaged_packets_never_panic_and_what_is_read_can_be_written_and_read_again() {
    let mut random = Random(0x5EED_0F0F_1234_5678);
    let (mut bytes, mut again) = (Vec::new(), Vec::new());
    let (mut read, mut refused, mut short) = (0, 0, 0);
    for _ in 0..ITERATIONS {
        // The well-formed ones are fewer, and damage to them gets further.
        let table: &[Sample] = if random.below(3) == 0 { MALFORMED } else { WELL_FORMED };
        let sample = &table[random.below(table.len())];
        bytes.clear();
        bytes.extend_from_slice(sample.bytes);
        random.damage(&mut bytes);
        // Half the time the remaining length is put right, or damage would rarely get past it.
        if random.below(2) == 0 && (2..130).contains(&bytes.len()) {
            bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        }
        let version = [Version::V3_1, Version::V3_1_1, Version::V5][random.below(3)];
        let version = if random.below(4) == 0 { version } else { sample.version };
        let decode = match sample.sender {
            Sender::Client => decode,
            Sender::Server => decode_from_server,
        };
        match decode(&bytes, version, MAX_PACKET_SIZE) {
            Ok(Some((packet, used))) => {
                read += 1;
                assert!(used <= bytes.len());
                again.clear();
                packet.encode(version, &mut again).unwrap();
                let second = decode(&again, version, MAX_PACKET_SIZE).unwrap().unwrap();
                assert_eq!(second, (packet, again.len()), "{bytes:02x?}");
            }
            Ok(None) => short += 1,
            Err(error) => {
                refused += 1;
                assert!(error.reason().is_error() && !error.to_string().is_empty());
            }
        }
        let _ = decode_connect(&bytes, MAX_PACKET_SIZE);
    }
    // Or the test would look at one kind of outcome only.
    assert!(read > 10_000 && refused > 10_000 && short > 1_000, "{read} read, {refused} refused, {short} short");
}
