//! Handshakes with certificates made on the spot.

use super::{client::ClientFiles, *};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use std::{path::PathBuf, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::sleep,
};
use tokio_rustls::TlsConnector;

/// An authority, a folder for the files it makes, and what a listener is told of them.
struct Scene {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A client's certificate and key.
struct Card {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    serial: SerialNumber,
}

impl Scene {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let scene = Self { dir: tempfile::tempdir().unwrap(), authority };
        scene.write("ca.pem", &scene.authority.pem());
        scene.new_server("localhost");
        scene
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a table says that names these files; the names without the folder.
    fn files(&self, client_ca: &str, crl: &str, use_identity: UseIdentity) -> TlsFiles {
        let path = |name: &str| match name {
            "" => String::new(),
            name => self.path(name).to_str().unwrap().to_owned(),
        };
        TlsFiles {
            cert: path("server.pem"),
            key: path("server.key"),
            client_ca: path(client_ca),
            crl: path(crl),
            use_identity,
        }
    }

    /// Gives the server a certificate for `name`.
    fn new_server(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, self.issuer()).unwrap();
        self.write("server.pem", &certificate.pem());
        self.write("server.key", &key.serialize_pem());
    }

    fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.authority
    }

    fn card(&self, serial: u64, common_name: &str, alternative: &[&str]) -> Card {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = alternative.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let serial = SerialNumber::from(serial);
        params.serial_number = Some(serial.clone());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "somebody");
        if !common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        let certificate = params.signed_by(&key, self.issuer()).unwrap().der().clone();
        Card { certificate, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(), serial }
    }

    fn revoke(&self, cards: &[&Card], until_year: i32) {
        let revoked = cards.iter().map(|card| RevokedCertParams {
            serial_number: card.serial.clone(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(until_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write("crl.pem", &params.signed_by(self.issuer()).unwrap().pem().unwrap());
    }

    /// A client that trusts the authority and knows the server as `name`.
    fn client(&self, card: Option<&Card>, alpn: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match card {
            Some(card) => builder.with_client_auth_cert(vec![card.certificate.clone()], card.key.clone_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Shakes hands in memory; the server's view of it, and a proof that the client agrees.
async fn meet(tls: &Tls, client: TlsConnector, name: &'static str) -> io::Result<Accepted<DuplexStream>> {
    let (near, far) = duplex(65_536);
    let greeting = tokio::spawn(async move {
        let mut stream = client.connect(ServerName::try_from(name).unwrap(), far).await?;
        stream.write_all(b"hello").await?;
        // What the server sends of its own accord, a ticket for the next time, comes before.
        stream.read_exact(&mut [0; 7]).await?;
        io::Result::Ok(stream)
    });
    let mut accepted = tls.accept(near, soon()).await?;
    let mut hello = [0; 5];
    accepted.stream.read_exact(&mut hello).await?;
    accepted.stream.write_all(b"welcome").await?;
    greeting.await.unwrap()?;
    Ok(accepted)
}

#[tokio::test]
async fn a_client_speaks_through_an_encrypted_stream_with_the_protocol_it_asked_for() {
    let scene = Scene::new();
    let tls = Tls::load("t", &scene.files("", "", UseIdentity::No), &["h2", "http/1.1"]).unwrap();
    let accepted = meet(&tls, scene.client(None, &["http/1.1"]), "localhost").await.unwrap();
    assert_eq!(accepted.stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(accepted.identity, None);
    meet(&tls, scene.client(None, &[]), "localhost").await.expect("a client without ALPN is taken");
    meet(&tls, scene.client(None, &["other"]), "localhost").await.expect_err("no protocol in common");
}

#[tokio::test]
async fn with_client_ca_a_client_needs_a_certificate_of_that_authority() {
    let (scene, stranger) = (Scene::new(), Scene::new());
    let tls = Tls::load("t", &scene.files("ca.pem", "", UseIdentity::No), &[]).unwrap();
    meet(&tls, scene.client(Some(&scene.card(7, "attic", &[])), &[]), "localhost").await.unwrap();
    meet(&tls, scene.client(None, &[]), "localhost").await.expect_err("no certificate");
    let foreign = stranger.card(7, "attic", &[]);
    meet(&tls, scene.client(Some(&foreign), &[]), "localhost").await.expect_err("another authority's certificate");
}

#[tokio::test]
async fn a_revoked_certificate_and_an_outdated_list_are_refused() {
    let scene = Scene::new();
    let (good, bad) = (scene.card(7, "good", &[]), scene.card(8, "bad", &[]));
    scene.revoke(&[&bad], 2999);
    let files = scene.files("ca.pem", "crl.pem", UseIdentity::No);
    let tls = Tls::load("t", &files, &[]).unwrap();
    meet(&tls, scene.client(Some(&good), &[]), "localhost").await.unwrap();
    let error = meet(&tls, scene.client(Some(&bad), &[]), "localhost").await.unwrap_err().to_string();
    assert!(error.contains("Revoked"), "{error}");
    scene.revoke(&[], 2025);
    tls.reload(&files);
    meet(&tls, scene.client(Some(&good), &[]), "localhost").await.expect_err("the list ended in 2025");
}

#[tokio::test]
async fn the_certificates_name_is_the_user_where_that_is_asked_for() {
    let scene = Scene::new();
    let common = Tls::load("t", &scene.files("ca.pem", "", UseIdentity::CommonName), &[]).unwrap();
    let alternative = Tls::load("t", &scene.files("ca.pem", "", UseIdentity::AlternativeName), &[]).unwrap();
    let both = scene.card(7, "attic", &["attic.example.com", "b.example.com"]);
    let connect = |card: &Card| scene.client(Some(card), &[]);
    let accepted = meet(&common, connect(&both), "localhost").await.unwrap();
    assert_eq!(accepted.identity.as_deref(), Some("attic"));
    let accepted = meet(&alternative, connect(&both), "localhost").await.unwrap();
    assert_eq!(accepted.identity.as_deref(), Some("attic.example.com"));
    let nameless = scene.card(8, "", &[]);
    meet(&common, connect(&nameless), "localhost").await.expect_err("no common name");
    meet(&alternative, connect(&nameless), "localhost").await.expect_err("no alternative name");
    let evil = scene.card(9, "a\nERROR all is lost", &[]);
    meet(&common, connect(&evil), "localhost").await.expect_err("a name that would forge a line of the log");
}

#[tokio::test]
async fn a_reload_serves_newcomers_with_the_new_files_and_leaves_open_streams_alone() {
    let scene = Scene::new();
    let files = scene.files("", "", UseIdentity::No);
    let tls = Tls::load("t", &files, &[]).unwrap();
    let (near, far) = duplex(65_536);
    let client = scene.client(None, &[]);
    let (old, mine) =
        tokio::join!(tls.accept(near, soon()), client.connect(ServerName::try_from("localhost").unwrap(), far));
    let (mut old, mut mine) = (old.unwrap().stream, mine.unwrap());

    scene.new_server("example.com");
    tls.reload(&files);
    meet(&tls, client.clone(), "example.com").await.expect("the new certificate");
    meet(&tls, client.clone(), "localhost").await.expect_err("the old certificate is gone");
    mine.write_all(b"still there?").await.unwrap();
    let mut heard = [0; 12];
    old.read_exact(&mut heard).await.unwrap();

    scene.write("server.pem", "nonsense");
    tls.reload(&files);
    meet(&tls, client, "example.com").await.expect("a broken file keeps what there was");
}

#[tokio::test]
async fn a_ticket_from_before_a_reload_opens_nothing() {
    let scene = Scene::new();
    let files = scene.files("", "", UseIdentity::No);
    let tls = Tls::load("t", &files, &[]).unwrap();
    let client = scene.client(None, &[]);
    let kinds = async || {
        let accepted = meet(&tls, client.clone(), "localhost").await.unwrap();
        accepted.stream.get_ref().1.handshake_kind().unwrap()
    };
    assert_eq!(kinds().await, rustls::HandshakeKind::Full);
    assert_eq!(kinds().await, rustls::HandshakeKind::Resumed);
    tls.reload(&files);
    assert_eq!(kinds().await, rustls::HandshakeKind::Full);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_given_up_at_the_deadline() {
    let scene = Scene::new();
    let tls = Tls::load("t", &scene.files("", "", UseIdentity::No), &[]).unwrap();
    let (near, _far) = duplex(64);
    let deadline = Instant::now() + Duration::from_secs(3);
    let waiting = tls.accept(near, deadline);
    let (accepted, ()) = tokio::join!(waiting, sleep(Duration::from_millis(2_900)));
    assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(Instant::now(), deadline);
}

#[test]
fn whatever_is_wrong_with_a_file_is_told_with_its_key_and_name() {
    let scene = Scene::new();
    let other = Scene::new();
    scene.write("empty.pem", "");
    scene.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n");
    let good = scene.files("ca.pem", "", UseIdentity::No);
    let path = |name: &str| scene.path(name).to_str().unwrap().to_owned();
    let cases = [
        (TlsFiles { cert: String::new(), ..good.clone() }, "t.cert", "name a PEM file"),
        (TlsFiles { cert: path("none.pem"), ..good.clone() }, "t.cert", "none.pem"),
        (TlsFiles { cert: path("empty.pem"), ..good.clone() }, "t.cert", "empty.pem holds no certificate"),
        (TlsFiles { cert: path("garbage.pem"), ..good.clone() }, "t.cert", "garbage.pem is not valid PEM"),
        (TlsFiles { key: String::new(), ..good.clone() }, "t.key", "name a PEM file"),
        (TlsFiles { key: path("none.key"), ..good.clone() }, "t.key", "No such file"),
        (TlsFiles { key: path("ca.pem"), ..good.clone() }, "t.key", "holds no private key"),
        (TlsFiles { key: other.files("", "", UseIdentity::No).key, ..good.clone() }, "t.key", "is not the private key"),
        (TlsFiles { client_ca: path("none.pem"), ..good.clone() }, "t.client_ca", "cannot read"),
        (TlsFiles { client_ca: path("server.key"), ..good.clone() }, "t.client_ca", "holds no certificate"),
        (TlsFiles { crl: path("ca.pem"), ..good.clone() }, "t.crl", "holds no revocation list"),
        (TlsFiles { client_ca: String::new(), crl: path("ca.pem"), ..good.clone() }, "t.crl", "set client_ca"),
        (
            TlsFiles { client_ca: String::new(), use_identity: UseIdentity::CommonName, ..good.clone() },
            "t.use_identity",
            "set client_ca",
        ),
    ];
    for (files, key, why) in cases {
        let error = Tls::load("t", &files, &[]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{key}: ")) && error.contains(why), "{key}, {why}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    good.look().unwrap();
}

/// A server of `scene` meets a client that goes by `files`.
async fn dialled(scene: &Scene, name: &'static str, files: &ClientFiles) -> io::Result<()> {
    let tls = Tls::load("t", &scene.files("ca.pem", "", UseIdentity::No), &["mqtt"]).unwrap();
    let client = TlsConnector::from(files.load().unwrap());
    meet(&tls, client, name).await.map(drop)
}

#[tokio::test]
async fn who_dials_out_believes_only_the_authority_it_names_and_shows_its_certificate() {
    let (scene, stranger) = (Scene::new(), Scene::new());
    let path = |scene: &Scene, name: &str| scene.path(name).to_str().unwrap().to_owned();
    let right = ClientFiles {
        ca: path(&scene, "ca.pem"),
        cert: path(&scene, "server.pem"),
        key: path(&scene, "server.key"),
        alpn: vec!["mqtt".into()],
    };
    dialled(&scene, "localhost", &right).await.unwrap();
    dialled(&scene, "elsewhere", &right).await.expect_err("another server's certificate");
    let files = ClientFiles { ca: path(&stranger, "ca.pem"), ..right.clone() };
    dialled(&scene, "localhost", &files).await.expect_err("an authority it does not know");
    let files = ClientFiles { ca: String::new(), ..right.clone() };
    dialled(&scene, "localhost", &files).await.expect_err("an authority the system does not know");
    let files = ClientFiles { cert: String::new(), key: String::new(), ..right.clone() };
    dialled(&scene, "localhost", &files).await.expect_err("no certificate to show");
    let files = ClientFiles { alpn: vec!["other".into()], ..right.clone() };
    dialled(&scene, "localhost", &files).await.expect_err("no protocol in common");
}

#[test]
fn whatever_is_wrong_with_a_file_of_who_dials_out_is_told_with_its_key() {
    let scene = Scene::new();
    let path = |name: &str| scene.path(name).to_str().unwrap().to_owned();
    scene.write("empty.pem", "");
    let right = ClientFiles { ca: path("ca.pem"), cert: path("server.pem"), key: path("server.key"), alpn: Vec::new() };
    let change = |change: fn(&mut ClientFiles, String), file: &str| {
        let mut files = right.clone();
        change(&mut files, file.to_owned());
        files.load().map(drop).unwrap_err().to_string()
    };
    for (error, key, why) in [
        (change(|files, file| files.ca = file, "/none"), "ca", "cannot read /none"),
        (change(|files, file| files.ca = file, &path("empty.pem")), "ca", "holds no certificate"),
        (change(|files, file| files.cert = file, ""), "cert", "is empty"),
        (change(|files, file| files.key = file, ""), "key", "is empty"),
        (change(|files, file| files.key = file, &path("ca.pem")), "key", "holds no private key"),
        (change(|files, name| files.alpn = vec![name], ""), "alpn", "empty"),
    ] {
        assert!(error.starts_with(&format!("{key}: ")) && error.contains(why), "{key}, {why}: {error}");
    }
}
