//! Boards by DTLS: with pre-shared keys, with certificates, and with neither.

use crate::{Server, server_with, soon};
use dimpl::{Dtls, DtlsCertificate, Output, PskResolver};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Instant};
use tokio::net::UdpSocket;
use waystation_broker::ClientId;
use waystation_kit::Listen;
use waystation_mqtt_sn::{Config, config};

const CONNACK: [u8; 3] = [3, 0x05, 0];
const CONNECT: [u8; 7] = [7, 0x04, 0b0000_0100, 1, 0, 60, b'b'];

/// A board that shakes hands.
struct Secured {
    socket: UdpSocket,
    dtls: Dtls,
}

struct Key(Vec<u8>);

impl PskResolver for Key {
    fn resolve(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

impl Secured {
    async fn with_key(host: &str, gateway: SocketAddr, identity: &str, key: &[u8]) -> Option<Self> {
        let terms = dimpl::Config::builder().with_psk_client(identity.into(), Arc::new(Key(key.to_vec())));
        let dtls = Dtls::new_12_psk(Arc::new(terms.build().unwrap()), Instant::now());
        Self::open(host, gateway, dtls).await
    }

    async fn with_certificate(gateway: SocketAddr, own: DtlsCertificate) -> Option<Self> {
        let dtls = Dtls::new_12(Arc::new(dimpl::Config::default()), own, Instant::now());
        Self::open("127.0.0.1", gateway, dtls).await
    }

    /// `None`: the handshake fails.
    async fn open(host: &str, gateway: SocketAddr, mut dtls: Dtls) -> Option<Self> {
        let socket = UdpSocket::bind(format!("{host}:0")).await.unwrap();
        socket.connect(gateway).await.unwrap();
        dtls.set_active(true);
        let mut board = Self { socket, dtls };
        board.dtls.handle_timeout(Instant::now()).unwrap();
        board.until(|output| matches!(output, Output::Connected).then_some(())).await.map(|()| board)
    }

    /// Goes on until `wanted` is seen; `None`: the connection is over, or nothing comes for a second.
    async fn until<T>(&mut self, mut wanted: impl FnMut(&Output<'_>) -> Option<T>) -> Option<T> {
        let (mut room, mut datagram) = (vec![0; 32_768], vec![0; 65_536]);
        loop {
            loop {
                let output = self.dtls.poll_output(&mut room);
                if let Some(found) = wanted(&output) {
                    return Some(found);
                }
                match output {
                    Output::Packet(record) => drop(self.socket.send(record).await),
                    Output::Timeout(_) => break,
                    Output::CloseNotify => return None,
                    _ => {}
                }
            }
            let second = std::time::Duration::from_secs(1);
            let length = tokio::time::timeout(second, self.socket.recv(&mut datagram)).await.ok()?.ok()?;
            self.dtls.handle_timeout(Instant::now()).ok()?;
            self.dtls.handle_packet(&datagram[..length]).ok()?;
        }
    }

    async fn asks(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.dtls.send_application_data(message).ok()?;
        let heard = |output: &Output<'_>| match output {
            Output::ApplicationData(message) => Some(message.to_vec()),
            _ => None,
        };
        soon(self.until(heard)).await
    }
}

async fn secured(dtls: config::Dtls) -> (Server, SocketAddr) {
    let listen = Listen(vec![([127, 0, 0, 1], 0).into()]);
    let server = server_with(Config { dtls: Some(config::Dtls { listen, ..dtls }), ..Config::default() }).await;
    let address = server.listening.iter().find(|(name, _)| name == "mqtt_sn_dtls").unwrap().1;
    (server, address)
}

async fn with_keys(folder: &Path) -> (Server, SocketAddr) {
    let psk_file = folder.join("keys");
    fs::write(&psk_file, "board-7:00112233445566778899aabbccddeeff\nother:ff\n").unwrap();
    secured(config::Dtls { psk_file: psk_file.to_str().unwrap().into(), ..Default::default() }).await
}

const KEY: [u8; 16] = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF];

#[tokio::test(flavor = "multi_thread")]
async fn a_board_with_a_key_is_let_in_and_one_without_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (server, gateway) = with_keys(folder.path()).await;
    let mut board = Secured::with_key("127.0.0.1", gateway, "board-7", &KEY).await.expect("a handshake");
    assert_eq!(board.asks(&CONNECT).await, Some(CONNACK.to_vec()));
    let session = server.scene.cx.broker.session(&ClientId::new("b").unwrap()).unwrap();
    assert!(session.peer.is_some_and(|peer| peer.is_certified()));
    for (identity, key) in [("board-7", &[1; 16][..]), ("nobody", &KEY)] {
        assert!(Secured::with_key("127.0.0.1", gateway, identity, key).await.is_none());
    }
    // What comes in the clear is nobody's.
    let plain = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    plain.send_to(&CONNECT, gateway).await.unwrap();
    assert_eq!(board.asks(&[2, 0x16]).await, Some(vec![2, 0x17]));
    assert_eq!(server.scene.cx.broker.traffic(&"mqtt_sn".into()).violations(), 3, "all three are counted");
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_is_found_again_by_its_identity_and_by_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let (server, gateway) = with_keys(folder.path()).await;
    let mut board = Secured::with_key("127.0.0.1", gateway, "board-7", &KEY).await.expect("a handshake");
    assert_eq!(board.asks(&CONNECT).await, Some(CONNACK.to_vec()));
    let ping = [3, 0x16, b'b'];
    let mut other = Secured::with_key("127.0.0.1", gateway, "other", &[0xFF]).await.expect("a handshake");
    assert_eq!(other.asks(&ping).await, Some(vec![2, 0x18]));
    let mut moved = Secured::with_key("127.0.0.2", gateway, "board-7", &KEY).await.expect("a handshake");
    assert_eq!(moved.asks(&ping).await, Some(vec![2, 0x17]));
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_with_a_certificate_of_the_authority_is_let_in_and_another_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        (Issuer::new(params, key), pem)
    };
    let signed = |name: &str, issuer: &Issuer<'_, KeyPair>| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, issuer).unwrap(), key)
    };
    let ((ours, pem), (theirs, _)) = (authority("ours"), authority("theirs"));
    let (certificate, key) = signed("gateway", &ours);
    let file = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).to_str().unwrap().to_owned()
    };
    let (cert, key) = (file("cert", &certificate.pem()), file("key", &key.serialize_pem()));
    let client_ca = file("ca", &pem);
    let (server, gateway) = secured(config::Dtls { cert, key, client_ca, ..Default::default() }).await;
    for (issuer, let_in) in [(&ours, true), (&theirs, false)] {
        let (certificate, key) = signed("attic", issuer);
        let own = DtlsCertificate { certificate: certificate.der().to_vec(), private_key: key.serialize_der() };
        let answer = match Secured::with_certificate(gateway, own).await {
            Some(mut board) => board.asks(&CONNECT).await,
            None => None,
        };
        assert_eq!(answer.is_some_and(|answer| answer == CONNACK), let_in);
    }
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_records_end_no_connection_and_are_not_answered_at_length() {
    let folder = tempfile::tempdir().unwrap();
    let (server, gateway) = with_keys(folder.path()).await;
    let mut board = Secured::with_key("127.0.0.1", gateway, "board-7", &KEY).await.expect("a handshake");
    assert_eq!(board.asks(&CONNECT).await, Some(CONNACK.to_vec()));
    // As from the board's own address, which anybody can put on a datagram: application data, an alert, a handshake,
    // nonsense; encrypted with no key, and in the clear.
    for kind in [20, 21, 22, 23, 99] {
        for epoch in [0, 1] {
            let mut record = vec![kind, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 200, 0, 24];
            record.resize(13 + 24, 2);
            board.socket.send(&record).await.unwrap();
            board.socket.send(&record[..20]).await.unwrap();
        }
    }
    assert_eq!(board.asks(&[2, 0x16]).await, Some(vec![2, 0x17]));
    // RFC 6347 §4.2.1: before the cookie comes back a hello is answered with no more than it has.
    let forged = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let hello = first_flight();
    forged.send_to(&hello, gateway).await.unwrap();
    let mut answer = [0; 2_048];
    assert!(soon(forged.recv(&mut answer)).await.unwrap() <= hello.len());
    server.end();
}

/// What a client says first.
fn first_flight() -> Vec<u8> {
    let terms = dimpl::Config::builder().with_psk_client(b"board-7".to_vec(), Arc::new(Key(KEY.to_vec())));
    let mut dtls = Dtls::new_12_psk(Arc::new(terms.build().unwrap()), Instant::now());
    dtls.set_active(true);
    dtls.handle_timeout(Instant::now()).unwrap();
    let mut room = vec![0; 32_768];
    loop {
        if let Output::Packet(record) = dtls.poll_output(&mut room) {
            return record.to_vec();
        }
    }
}
