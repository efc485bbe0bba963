//! A client's stream, plain or encrypted, over the socket that the event loop watches.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

/// Bytes in, bytes out.
#[derive(Debug)]
pub(super) enum Stream<S: Read + Write> {
    Plain(S),
    Tls(Box<StreamOwned<ClientConnection, S>>),
}

/// How to encrypt, and whom to expect.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Trusts the authorities in a PEM file, for a server called `name`.
    pub(super) fn new(ca: &str, name: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).with_context(|| format!("cannot read {ca} (--ca)"))? {
            roots.add(certificate.with_context(|| format!("{ca} is not valid PEM (--ca)"))?)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).with_context(|| format!("{name} is no host (--url)"))?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// Encrypts what goes over `socket`; hands are shaken with the first write or read.
    pub(super) fn over<S: Read + Write>(&self, socket: S) -> Result<Stream<S>> {
        let client = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(client, socket))))
    }
}

impl<S: Read + Write> Stream<S> {
    pub(super) fn socket(&self) -> &S {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    pub(super) fn socket_mut(&mut self) -> &mut S {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.sock,
        }
    }

    /// The same stream over another kind of socket.
    pub(super) fn map<T: Read + Write>(self, change: impl FnOnce(S) -> T) -> Stream<T> {
        match self {
            Self::Plain(socket) => Stream::Plain(change(socket)),
            Self::Tls(stream) => {
                let StreamOwned { conn, sock } = *stream;
                Stream::Tls(Box::new(StreamOwned::new(conn, change(sock))))
            }
        }
    }

    /// A read that did not fill its buffer tells that the socket has no more; of an encrypted one, only an error does.
    pub(super) fn short_reads_tell(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Bytes that were written here and have not gone to the socket.
    pub(super) fn holds_back(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.conn.wants_write())
    }
}

impl<S: Read + Write> Read for Stream<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buf),
            Self::Tls(stream) => stream.read(buf),
        }
    }
}

impl<S: Read + Write> Write for Stream<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(buf),
            Self::Tls(stream) => stream.write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(bufs),
            Self::Tls(stream) => stream.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
