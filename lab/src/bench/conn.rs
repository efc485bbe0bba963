//! One non-blocking connection: reads in bulk into a shared buffer, writes straight from where packets lie.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::ops::Range;

use anyhow::Result;
use mio::net::TcpStream;

use super::clients::Client;
use super::stream::Stream;
use super::template::Template;
use super::wire::Frame;

/// A connection in the event loop.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) stream: Stream<TcpStream>,
    /// The beginning of a packet whose end has not come; shorter than one packet.
    carry: Vec<u8>,
    /// Acknowledgements to send; bounded by what one read brings, as reading waits for it to be written.
    pub(super) out: Vec<u8>,
    written: usize,
    pub(super) writable: bool,
    pub(super) alive: bool,
}

impl Conn {
    pub(super) fn new(client: Client) -> Result<Self> {
        client.stream.socket().set_nonblocking(true)?;
        let stream = client.stream.map(TcpStream::from_std);
        Ok(Self { stream, carry: client.carry, out: Vec::new(), written: 0, writable: true, alive: true })
    }

    /// Reads what the socket has and hands over every packet, with the buffer for answers.
    pub(super) fn read(
        &mut self,
        scratch: &mut [u8],
        mut packet: impl FnMut(Frame<'_>, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        loop {
            let kept = self.carry.len();
            scratch[..kept].copy_from_slice(&self.carry);
            self.carry.clear();
            let room = scratch.len() - kept;
            let count = match self.stream.read(&mut scratch[kept..]) {
                Ok(count) => Some(count),
                // Whole packets may wait nevertheless: those that came with the last answer of the handshake.
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    self.carry.extend_from_slice(&scratch[..kept]);
                    continue;
                }
                Err(_) => Some(0),
            };
            if count == Some(0) {
                self.alive = false;
                return Ok(());
            }
            let mut bytes = &scratch[..kept + count.unwrap_or(0)];
            while let Some((frame, used)) = Frame::parse(bytes)? {
                packet(frame, &mut self.out)?;
                bytes = &bytes[used..];
            }
            self.carry.extend_from_slice(bytes);
            if count.is_none_or(|count| count < room && self.stream.short_reads_tell()) {
                return Ok(());
            }
        }
    }

    /// Whether everything handed over so far is with the kernel, bar what `pending` says.
    pub(super) fn may_begin(&self) -> bool {
        self.alive && self.writable && self.written == 0
    }

    /// Writes `pending` of the template, then the acknowledgements, as far as the socket takes them.
    pub(super) fn write(&mut self, template: Option<&Template>, pending: &mut Range<usize>) {
        while self.alive && self.writable && !(pending.start >= pending.end && self.out.is_empty()) {
            let publishes = template.map_or(&[][..], |template| template.bytes(pending.clone()));
            let answers = &self.out[self.written..];
            let result = if answers.is_empty() {
                self.stream.write(publishes)
            } else {
                self.stream.write_vectored(&[IoSlice::new(publishes), IoSlice::new(answers)])
            };
            match result {
                Ok(count) => self.advance(count, pending),
                Err(error) => self.failed(&error),
            }
        }
        if self.alive && self.writable && self.stream.holds_back() {
            self.stream.flush().unwrap_or_else(|error| self.failed(&error));
        }
    }

    fn advance(&mut self, count: usize, pending: &mut Range<usize>) {
        let publishes = count.min(pending.len());
        pending.start += publishes;
        self.written += count - publishes;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
    }

    fn failed(&mut self, error: &io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock => self.writable = false,
            ErrorKind::Interrupted => {}
            _ => self.alive = false,
        }
    }
}
