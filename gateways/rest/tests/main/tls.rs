//! The second listener: TLS, with certificates that are read again.

use crate::harness::{LONG, serve_with};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Client};
use std::path::Path;
use waystation_broker::Limits;
use waystation_kit::Listen;
use waystation_rest::Config;

/// Writes a fresh certificate for `localhost`; gives a client that trusts this one only.
fn certify(dir: &Path) -> Client {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    let trusted = Certificate::from_pem(certificate.pem().as_bytes()).unwrap();
    Client::builder().no_proxy().timeout(LONG).tls_certs_only([trusted]).build().unwrap()
}

#[tokio::test]
async fn https_is_served_and_its_certificates_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let old = certify(dir.path());
    let file = |name| dir.path().join(name).display().to_string();
    let tls = format!("[tls]\nlisten = \"127.0.0.1:0\"\ncert = {:?}\nkey = {:?}\n", file("cert.pem"), file("key.pem"));
    let config: Config = toml::from_str(&tls).unwrap();
    let server = serve_with(Limits::default(), config.clone()).await;
    let url = format!("https://localhost:{}/healthz", server.secure.unwrap().port());
    assert_eq!(old.get(&url).send().await.unwrap().status(), 200);

    let new = certify(dir.path());
    assert!(new.get(&url).send().await.is_err(), "not read yet");
    let config = Config { listen: Listen(vec![([127, 0, 0, 1], 0).into()]), ..config };
    server.running.reload(toml::Table::try_from(config).unwrap()).await.unwrap();
    let reread = async {
        while new.get(&url).send().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, reread).await.unwrap();
    server.drain().await;
}
