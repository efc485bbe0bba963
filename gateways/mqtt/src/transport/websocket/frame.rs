//! WebSocket frames (RFC 6455 §5) as a server meets them. MQTT takes the payload of binary frames as one stream of
//! bytes, however it was cut ([MQTT-6.0.0-2]), so frames are taken apart in place, and none is ever put together.

/// Bytes of the longest message, all its frames together: the longest MQTT packet. What is longer is not MQTT; how
/// much of it is kept in memory is for the MQTT decoder's limits to say.
const LONGEST_MESSAGE: u64 = 268_435_460;

/// Most payload of a control frame (RFC 6455 §5.5).
const MOST_CONTROL: usize = 125;

/// Two bytes, a length of eight, a mask of four.
const LONGEST_HEADER: usize = 14;

/// What stands in a frame (RFC 6455 §11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

impl Opcode {
    fn parse(bits: u8) -> Option<Self> {
        [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong]
            .into_iter()
            .find(|opcode| *opcode as u8 == bits)
    }
}

/// Why a connection is closed (RFC 6455 §7.4.1).
pub(super) mod status {
    pub(in super::super) const NORMAL: u16 = 1000;
    pub(in super::super) const PROTOCOL_ERROR: u16 = 1002;
    pub(in super::super) const UNSUPPORTED_DATA: u16 = 1003;
    pub(in super::super) const TOO_LARGE: u16 = 1009;
}

/// A client that broke the rules, and the status it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(super) struct Violation {
    pub(super) status: u16,
    why: &'static str,
}

impl Violation {
    const fn protocol(why: &'static str) -> Self {
        Self { status: status::PROTOCOL_ERROR, why }
    }
}

/// A control frame, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control<'a> {
    /// To be answered with the same payload.
    Ping(&'a [u8]),
    /// The client says goodbye; to be answered with the same payload. Nothing after it counts.
    Close(&'a [u8]),
}

/// Takes a client's frames apart.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// A header that is not whole yet.
    header: [u8; LONGEST_HEADER],
    have: u8,
    /// The frame under way.
    frame: Option<Frame>,
    /// Payload of a control frame that is not whole yet; at most [`MOST_CONTROL`].
    control: Vec<u8>,
    /// Bytes of the message under way; `None` between messages.
    message: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    last: bool,
    left: u64,
    mask: [u8; 4],
}

impl Reader {
    /// Takes what came: leaves the data of binary frames at the front of `bytes`, unmasked, and gives its length.
    /// Control frames go to `said` as they are met; after one it answers `false` to, the rest is left alone.
    ///
    /// # Errors
    /// The client broke the rules: nothing of `bytes` counts.
    pub(super) fn take(
        &mut self,
        bytes: &mut [u8],
        mut said: impl FnMut(Control<'_>) -> bool,
    ) -> Result<usize, Violation> {
        let (mut at, mut data) = (0, 0);
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => {
                    let (used, frame) = self.read_header(&bytes[at..])?;
                    at += used;
                    let Some(frame) = frame else { return Ok(data) };
                    frame
                }
            };
            let here = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len() - at);
            let payload = &mut bytes[at..at + here];
            unmask(payload, &mut frame.mask);
            frame.left -= here as u64;
            match frame.opcode {
                Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                    bytes.copy_within(at..at + here, data);
                    data += here;
                    if frame.left == 0 && frame.last {
                        self.message = None;
                    }
                }
                Opcode::Close | Opcode::Ping | Opcode::Pong => {
                    self.control.extend_from_slice(payload);
                    if frame.left == 0 && !self.end_control(frame.opcode, &mut said)? {
                        return Ok(data);
                    }
                }
            }
            at += here;
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(data);
            }
        }
    }

    /// Reads a header, or keeps what there is of it; gives how many bytes it took.
    fn read_header(&mut self, bytes: &[u8]) -> Result<(usize, Option<Frame>), Violation> {
        let mut used = 0;
        loop {
            let have = usize::from(self.have);
            let needed = header_length(&self.header[..have]);
            if have == needed {
                self.have = 0;
                return Ok((used, Some(self.parse_header()?)));
            }
            let here = (needed - have).min(bytes.len() - used);
            if here == 0 {
                return Ok((used, None));
            }
            self.header[have..have + here].copy_from_slice(&bytes[used..used + here]);
            used += here;
            // At most 14.
            self.have += u8::try_from(here).unwrap_or(0);
        }
    }

    fn parse_header(&mut self) -> Result<Frame, Violation> {
        let [first, second, rest @ ..] = self.header;
        if first & 0x70 != 0 {
            return Err(Violation::protocol("a frame has reserved bits set"));
        }
        if second & 0x80 == 0 {
            return Err(Violation::protocol("a frame is not masked"));
        }
        let opcode = Opcode::parse(first & 0x0F).ok_or(Violation::protocol("a frame has a reserved opcode"))?;
        let last = first & 0x80 != 0;
        let (length, mask) = match (second & 0x7F, rest) {
            (126, [a, b, m0, m1, m2, m3, ..]) => (u16::from_be_bytes([a, b]).into(), [m0, m1, m2, m3]),
            (127, [a, b, c, d, e, f, g, h, mask @ ..]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), mask),
            (length, [m0, m1, m2, m3, ..]) => (length.into(), [m0, m1, m2, m3]),
        };
        let so_far = match (opcode, self.message) {
            (Opcode::Text, _) => {
                // [MQTT-6.0.0-1]
                return Err(Violation { status: status::UNSUPPORTED_DATA, why: "a text frame; MQTT is binary" });
            }
            (Opcode::Binary, None) => 0,
            (Opcode::Continuation, Some(so_far)) => so_far,
            (Opcode::Binary, Some(_)) => return Err(Violation::protocol("a message begins inside another")),
            (Opcode::Continuation, None) => return Err(Violation::protocol("a message is continued that never began")),
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {
                if !last || length > MOST_CONTROL as u64 {
                    return Err(Violation::protocol("a control frame is fragmented or longer than 125 bytes"));
                }
                return Ok(Frame { opcode, last, left: length, mask });
            }
        };
        if length > LONGEST_MESSAGE - so_far {
            return Err(Violation { status: status::TOO_LARGE, why: "a message is longer than any MQTT packet" });
        }
        self.message = Some(so_far + length);
        Ok(Frame { opcode, last, left: length, mask })
    }

    /// A control frame is whole. `false`: it was the last that counts.
    fn end_control(&mut self, opcode: Opcode, said: &mut impl FnMut(Control<'_>) -> bool) -> Result<bool, Violation> {
        let payload = std::mem::take(&mut self.control);
        match opcode {
            Opcode::Ping => Ok(said(Control::Ping(&payload))),
            // RFC 6455 §5.5.1: a status takes two bytes.
            Opcode::Close if payload.len() == 1 => Err(Violation::protocol("a close frame with half a status")),
            Opcode::Close => Ok(said(Control::Close(&payload))),
            _ => Ok(true),
        }
    }
}

/// How long the header is that begins so; more of it may make it longer.
fn header_length(begun: &[u8]) -> usize {
    match begun.get(1) {
        // Without a mask it is refused whatever follows.
        None | Some(0..=0x7F) => 2,
        Some(0xFE) => 2 + 2 + 4,
        Some(0xFF) => LONGEST_HEADER,
        Some(_) => 2 + 4,
    }
}

/// RFC 6455 §5.3; `mask` is left as the next byte of the frame needs it.
fn unmask(payload: &mut [u8], mask: &mut [u8; 4]) {
    let key = *mask;
    for four in payload.chunks_mut(4) {
        for (byte, key) in four.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
    mask.rotate_left(payload.len() % 4);
}

/// The header of a whole binary message of ours; a server does not mask.
pub(super) fn binary_header(length: usize) -> Header {
    let mut header = Header { bytes: [0; 10], length: 2 };
    header.bytes[0] = 0x80 | Opcode::Binary as u8;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..=125), _) => header.bytes[1] = length,
        (_, Ok(length)) => {
            header.bytes[1] = 126;
            header.bytes[2..4].copy_from_slice(&length.to_be_bytes());
            header.length = 4;
        }
        _ => {
            header.bytes[1] = 127;
            header.bytes[2..].copy_from_slice(&(length as u64).to_be_bytes());
            header.length = 10;
        }
    }
    header
}

/// A frame's header on its way out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Header {
    bytes: [u8; 10],
    length: u8,
}

impl std::ops::Deref for Header {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// A control frame of ours; what does not fit into one is cut off.
pub(super) fn control(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(MOST_CONTROL)];
    let mut frame = vec![0x80 | opcode as u8, u8::try_from(payload.len()).unwrap_or(0)];
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    /// A client's frame.
    fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            length @ 126..=65_535 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// What a reader makes of bytes that come in pieces of these sizes: data, and control frames as text.
    fn read(bytes: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<String>), Violation> {
        let (mut reader, mut data, mut controls) = (Reader::default(), Vec::new(), Vec::new());
        let mut rest = bytes.to_vec();
        let mut cuts = cuts.iter().copied().cycle();
        while !rest.is_empty() {
            let size = cuts.next().unwrap_or(rest.len()).clamp(1, rest.len());
            let mut piece: Vec<u8> = rest.drain(..size).collect();
            let length = reader.take(&mut piece, |control| {
                controls.push(format!("{control:?}"));
                !matches!(control, Control::Close(_))
            })?;
            data.extend(&piece[..length]);
        }
        Ok((data, controls))
    }

    proptest! {
        #[test]
        fn data_is_one_stream_however_it_was_framed_and_cut(
            parts in vec((vec(any::<u8>(), 0..300), any::<[u8; 4]>(), any::<bool>()), 0..8),
            cuts in vec(1_usize..50, 1..10),
        ) {
            let (mut bytes, mut sent, mut open) = (Vec::new(), Vec::new(), false);
            for (payload, mask, last) in &parts {
                let opcode = if open { Opcode::Continuation } else { Opcode::Binary };
                bytes.extend(frame((u8::from(*last) << 7) | opcode as u8, payload, *mask));
                // A control frame may stand between the frames of a message.
                bytes.extend(frame(0x80 | Opcode::Ping as u8, b"hi", *mask));
                sent.extend(payload);
                open = !last;
            }
            let (data, controls) = read(&bytes, &cuts).unwrap();
            prop_assert_eq!(data, sent);
            prop_assert_eq!(controls.len(), parts.len());
        }

        #[test]
        fn no_bytes_make_it_panic_or_give_more_than_came(bytes in vec(any::<u8>(), 0..200), cuts in vec(1_usize..20, 1..5)) {
            if let Ok((data, _)) = read(&bytes, &cuts) {
                prop_assert!(data.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn all_three_ways_to_write_a_length_are_read_and_written() {
        for length in [0, 125, 126, 65_535, 65_536, 200_000] {
            let payload = vec![7; length];
            let (data, _) = read(&frame(0x82, &payload, [1, 2, 3, 4]), &[1_000]).unwrap();
            assert_eq!(data.len(), length);
            let header = binary_header(length);
            let mut masked = header.to_vec();
            masked[1] |= 0x80;
            assert_eq!(masked, frame(0x82, &payload, [0; 4])[..header.len()]);
        }
    }

    #[test]
    fn what_breaks_the_rules_is_refused_with_its_status() {
        let mask = [0; 4];
        let huge = [&[0x82, 0xFF][..], &u64::MAX.to_be_bytes(), &mask].concat();
        let unmasked = vec![0x82, 0x01, 0x00];
        let cases = [
            (frame(0x81, b"text", mask), status::UNSUPPORTED_DATA),
            (unmasked, status::PROTOCOL_ERROR),
            (huge, status::TOO_LARGE),
            (frame(0xC2, b"", mask), status::PROTOCOL_ERROR),
            (frame(0x83, b"", mask), status::PROTOCOL_ERROR),
            (frame(0x80, b"", mask), status::PROTOCOL_ERROR),
            ([frame(0x02, b"a", mask), frame(0x82, b"b", mask)].concat(), status::PROTOCOL_ERROR),
            (frame(0x09, b"", mask), status::PROTOCOL_ERROR),
            (frame(0x89, &[0; 126], mask), status::PROTOCOL_ERROR),
            (frame(0x88, &[3], mask), status::PROTOCOL_ERROR),
        ];
        for (bytes, expected) in cases {
            let got = read(&bytes, &[usize::MAX]).map_err(|violation| violation.status);
            assert_eq!(got, Err(expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn nothing_after_a_close_counts() {
        let bytes = [frame(0x82, b"a", [9; 4]), frame(0x88, &[3, 232], [9; 4]), frame(0x82, b"b", [9; 4])].concat();
        let (data, controls) = read(&bytes, &[usize::MAX]).unwrap();
        assert_eq!((data.as_slice(), controls), (&b"a"[..], vec!["Close([3, 232])".to_owned()]));
    }

    #[test]
    fn an_idle_reader_is_small() {
        assert!(size_of::<Reader>() <= 88, "{}", size_of::<Reader>());
    }
}
