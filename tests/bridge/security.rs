//! Who the other side is, and who it takes us for.

use super::{bridge, bridge_to, connected, route, site, status};
use crate::{
    certificates::Authority,
    clients::{V5, V311, mosquitto_pub, mosquitto_sub},
    harness::{Broker, Cloud, Line, Server, eventually},
    rights::Place,
};
use std::process::Command;

/// mosquitto that wants a certificate of this authority, beside a plain port for the test itself.
fn guarded(authority: &Authority) -> (Cloud, u16) {
    let tls = fastrand::u16(10_000..30_000);
    let (ca, cert, key) = (authority.name("ca.pem"), authority.name("server.pem"), authority.name("server.key"));
    let cloud = Cloud::start_with(&format!(
        "allow_anonymous true\nlistener {tls} 127.0.0.1\ncafile {ca}\ncertfile {cert}\nkeyfile {key}\n\
         require_certificate true\nuse_identity_as_username true"
    ));
    (cloud, tls)
}

fn files(authority: &Authority, name: &str) -> String {
    let (cert, key) = (authority.name(&format!("{name}.pem")), authority.name(&format!("{name}.key")));
    format!("ca = \"{}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n", authority.name("ca.pem"))
}

#[test]
fn a_client_certificate_opens_a_cloud_of_a_private_authority() {
    let authority = Authority::new();
    authority.issue("attic", 7, &["attic.example.com"]);
    let (cloud, tls) = guarded(&authority);
    for version in [V311, V5] {
        for host in ["127.0.0.1", "localhost"] {
            let url = format!("mqtts://{host}:{tls}");
            let config = bridge_to("cloud", &url, version, &files(&authority, "attic"))
                + &route("out", "out", "")
                + &route("in", "in", "");
            let site = site(&config);
            let there = mosquitto_sub(&cloud, version, &["-t", "out", "-q", "1", "-C", "1"]);
            mosquitto_pub(&site, version, &["-t", "out", "-q", "1", "-m", "sealed"]);
            assert_eq!(there.finish(), ["sealed"], "{version} {host}");
            let here = mosquitto_sub(&site, version, &["-t", "in", "-q", "1", "-C", "1"]);
            mosquitto_pub(&cloud, version, &["-t", "in", "-q", "1", "-m", "sealed"]);
            assert_eq!(here.finish(), ["sealed"], "{version} {host}");
        }
    }
    assert!(cloud.log().contains("u'attic'"), "it was known by its certificate: {}", cloud.log());
}

#[test]
fn a_cloud_that_cannot_prove_who_it_is_gets_nothing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue("attic", 7, &[]);
    let (cloud, tls) = guarded(&authority);
    let url = format!("mqtts://127.0.0.1:{tls}");
    let wrong = files(&authority, "attic").replace(&authority.name("ca.pem"), &stranger.name("ca.pem"));
    // Another authority; the authorities of the system; the right one, but another host's name.
    let unknown =
        files(&authority, "attic").lines().filter(|line| !line.starts_with("ca ")).collect::<Vec<_>>().join("\n");
    for more in [wrong, unknown] {
        let site = Server::start_with(&(bridge_to("cloud", &url, V5, &more) + &route("out", "out", "")), &[]);
        mosquitto_pub(&site, V5, &["-t", "out", "-q", "1", "-m", "secret"]);
        eventually("the reason is told", || {
            status(&site, "cloud")["error"].as_str().is_some_and(|error| error.contains("certificate"))
        });
        let told = site.log().lines().filter(|line| line.contains("certificate")).count();
        assert_eq!(told, 1, "one clear line: {}", site.log());
        assert_eq!(status(&site, "cloud")["connected"], false);
        assert_eq!(status(&site, "cloud")["sent"], 0);
    }
    assert!(!cloud.log().contains("u'attic'"), "{}", cloud.log());
}

#[test]
fn a_cloud_without_a_certificate_of_ours_is_refused_with_a_reason() {
    let authority = Authority::new();
    let (_cloud, tls) = guarded(&authority);
    let ca = format!("ca = \"{}\"", authority.name("ca.pem"));
    let url = format!("mqtts://127.0.0.1:{tls}");
    let site = Server::start_with(&(bridge_to("cloud", &url, V5, &ca) + &route("out", "out", "")), &[]);
    eventually("the reason is told", || status(&site, "cloud")["error"].is_string());
    assert_eq!(status(&site, "cloud")["connected"], false);
}

/// mosquitto with the user `attic`, whose password is `attic!`.
fn with_password(folder: &std::path::Path) -> Cloud {
    let file = folder.join("users").display().to_string();
    let made = Command::new("mosquitto_passwd").args(["-b", "-c", &file, "attic", "attic!"]).status().unwrap();
    assert!(made.success());
    Cloud::start_with(&format!("allow_anonymous false\npassword_file {file}"))
}

#[test]
fn a_wrong_password_is_told_once_shown_and_not_tried_at_full_speed() {
    for version in [V311, V5] {
        let folder = tempfile::tempdir().unwrap();
        let cloud = with_password(folder.path());
        let line = Line::to(&cloud);
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "guess\n").unwrap();
        let more = format!("username = \"attic\"\nsecret_file = \"{}\"", secret.display());
        let config = bridge("cloud", &line, version, &more) + &route("out", "out", "");
        let site = Server::start_with(&config, &[]);
        eventually("the reason is told", || status(&site, "cloud")["error"].is_string());
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert!(line.calls() <= 2, "{} attempts in three seconds", line.calls());
        let error = status(&site, "cloud")["error"].as_str().unwrap().to_lowercase();
        assert!(["user", "password", "authori"].iter().any(|word| error.contains(word)), "{error}");
        let log = site.log();
        let told = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
        assert_eq!(told.count(), 1, "one clear line: {log}");
        assert!(!log.contains("guess"), "{log}");

        std::fs::write(&secret, "attic!\n").unwrap();
        site.signal("HUP");
        connected(&site, "cloud");
    }
}

#[test]
fn a_password_comes_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = with_password(folder.path());
    let more = "username = \"attic\"\nsecret_env = \"CLOUD_PASSWORD\"";
    let config = bridge("cloud", &cloud, V5, more) + &route("out", "out", "");
    let site = Server::try_start_in(&config, &[], &[("CLOUD_PASSWORD", "attic!")]).unwrap();
    connected(&site, "cloud");
}

#[test]
fn another_waystation_knows_the_site_by_its_user_and_gives_it_its_rights() {
    let rules = "[[rule]]\nuser = \"attic\"\nallow = [\"publish\"]\ntopics = [\"site-a/#\"]\n";
    let place = Place::with_users(&["attic"]).acl(rules);
    let cloud = place.try_start(&["--set", "auth.allow_anonymous=false"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "attic!").unwrap();
    let more = format!("username = \"attic\"\nsecret_file = \"{}\"", secret.display());
    let config = bridge("cloud", &cloud, V5, &more)
        + &route("out", "readings", "remote_prefix = \"site-a/\"")
        + &route("in", "forbidden", "");
    let site = site(&config);
    mosquitto_pub(&site, V5, &["-t", "readings", "-r", "-q", "1", "-m", "21.5"]);
    eventually("its message is taken", || status(&site, "cloud")["sent"] == 1);
    // What it may not subscribe to is told, and everything else goes on.
    eventually("the refused subscription is told", || site.log().contains("forbidden"));
    assert_eq!(status(&site, "cloud")["connected"], true);
    assert_ne!(cloud.mqtt().port(), 0);
}

#[test]
fn the_rights_at_home_hold_for_a_bridge_as_for_any_client() {
    let acl = tempfile::NamedTempFile::new().unwrap();
    let rules = "[[rule]]\nclient = \"$bridge/cloud\"\nallow = [\"subscribe\"]\ntopics = [\"sensors/#\"]\n\
                 [[rule]]\nclient = \"$bridge/cloud\"\nallow = [\"publish\"]\ntopics = [\"valves/#\"]\n\
                 [[rule]]\nclient = \"$bridge/cloud\"\ndeny = [\"publish\", \"subscribe\"]\ntopics = [\"#\"]\n\
                 [[rule]]\nallow = [\"publish\", \"subscribe\"]\ntopics = [\"#\"]\n";
    std::fs::write(acl.path(), rules).unwrap();
    let cloud = Cloud::start();
    let config = format!("[auth]\nacl_file = \"{}\"\n", acl.path().display())
        + &bridge("cloud", &cloud, V5, "")
        + &route("out", "sensors/#", "")
        + &route("out", "secrets/#", "")
        + &route("in", "#", "remote_prefix = \"site-a/\"");
    // Without the right `admin` nobody is told how it stands.
    let site = Server::start_with(&config, &[]);
    eventually("the route that may not be is told", || site.log().contains("secrets/#"));
    eventually("it is connected", || site.log().contains("connected bridge=cloud"));

    let there = mosquitto_sub(&cloud, V5, &["-t", "sensors/#", "-t", "secrets/#", "-q", "1", "-C", "1", "-F", "%t"]);
    for topic in ["secrets/a", "sensors/a"] {
        mosquitto_pub(&site, V5, &["-t", topic, "-q", "1", "-m", "x"]);
    }
    assert_eq!(there.finish(), ["sensors/a"]);
    let here = mosquitto_sub(&site, V5, &["-t", "#", "-q", "1", "-C", "1", "-F", "%t"]);
    for topic in ["site-a/doors/1", "site-a/valves/7"] {
        mosquitto_pub(&cloud, V5, &["-t", topic, "-q", "1", "-m", "open"]);
    }
    assert_eq!(here.finish(), ["valves/7"]);
}
