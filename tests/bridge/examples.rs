//! The configuration files that docs/bridging.md shows do what it says, from both ends.

use super::{connected, figure};
use crate::{
    certificates::Authority,
    clients::{Program, curl, mosquitto_pub},
    harness::{Cloud, Server, eventually, run_in, run_with_input, write_config},
};
use std::{path::Path, process::Command};

/// A file of the repository.
fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// What the files name: certificates, and the site's password.
fn files() -> Authority {
    let authority = Authority::new();
    authority.issue("site-a", 7, &[]);
    authority.issue("app", 8, &[]);
    std::fs::write(authority.path("cloud.password"), "in the attic\n").unwrap();
    authority
}

/// The example's site, with the files and the address of this test.
fn site(authority: &Authority, port: u16) -> Server {
    let real = [
        ("broker.example.com:8883", format!("localhost:{port}")),
        ("secrets/cloud.password", authority.name("cloud.password")),
        ("ca = \"\"", format!("ca = \"{}\"", authority.name("ca.pem"))),
        ("cert = \"\"", format!("cert = \"{}\"", authority.name("site-a.pem"))),
        ("key = \"\"", format!("key = \"{}\"", authority.name("site-a.key"))),
    ];
    let config = file("config/bridge.example.toml");
    Server::start_with(&real.iter().fold(config, |config, (shown, real)| config.replace(shown, real)), &[])
}

/// A client of mosquitto at the cloud, logged in as the site's own user.
fn client(program: &str, authority: &Authority, port: u16, arguments: &[&str]) -> Program {
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program, "-h", "localhost", "-p", &port.to_string(), "-V", "mqttv5"]);
    command.args(["--cafile", &authority.name("ca.pem"), "--cert", &authority.name("app.pem")]);
    command.args(["--key", &authority.name("app.key"), "-u", "site-a", "-P", "in the attic", "-q", "1"]);
    Program::start(command.args(arguments))
}

/// All that the example promises.
fn works(site: &Server, authority: &Authority, port: u16) {
    connected(site, "cloud");
    let mut app = client("mosquitto_sub", authority, port, &["-d", "-t", "site-a/#", "-C", "1", "-F", "%t %p"]);
    app.says("Subscribed (mid");
    mosquitto_pub(site, "mqttv5", &["-t", "sensors/attic/t", "-q", "1", "-m", "21.5"]);
    assert_eq!(app.finish(), ["site-a/sensors/attic/t 21.5"]);
    client("mosquitto_pub", authority, port, &["-t", "site-a/commands/7", "-r", "-m", "open"]).finish();
    eventually("a command set there is state here", || curl(site, "/v1/topics/commands/7", &[]).body == "open");
    eventually("all was acknowledged", || figure(site, "cloud", "queued") == 0);
}

#[test]
fn the_example_with_mosquitto_as_the_cloud() {
    let authority = files();
    let users = authority.name("users");
    let made = Command::new("mosquitto_passwd").args(["-b", "-c", &users, "site-a", "in the attic"]).status().unwrap();
    assert!(made.success());
    std::fs::write(authority.path("rights"), file("examples/bridge/rights")).unwrap();
    // The harness says where it listens and where it keeps its data.
    let config = file("examples/bridge/mosquitto.conf").replace("listener 8883", "").replace("persistence true", "");
    let config = ["ca.pem", "server.pem", "server.key", "users", "rights"].iter().fold(config, |config, name| {
        config.replace(&format!("file {name}"), &format!("file {}", authority.name(name)))
    });
    let cloud = Cloud::start_with(&config);
    let port = crate::harness::Broker::mqtt(&cloud).port();
    let site = site(&authority, port);
    works(&site, &authority, port);
}

#[test]
fn the_example_with_another_waystation_as_the_cloud() {
    let authority = files();
    let folder = authority.path("");
    let made = run_with_input(&folder, &["passwd", "users", "site-a", "--stdin"], "in the attic\n");
    assert_eq!(made.code, Some(0), "{made:?}");
    std::fs::write(authority.path("acl.toml"), file("examples/bridge/acl.toml")).unwrap();
    let config = file("examples/bridge/cloud.toml").replace("0.0.0.0:8883", "127.0.0.1:0");
    let config = ["ca.pem", "server.pem", "server.key", "users", "acl.toml"]
        .iter()
        .fold(config, |config, name| config.replace(&format!("\"{name}\""), &format!("\"{}\"", authority.name(name))));
    let cloud = Server::start_with(&config, &[]);
    let port = cloud.address("mqtt_tls").port();
    let site = site(&authority, port);
    works(&site, &authority, port);
}

#[test]
fn every_table_of_the_page_is_valid() {
    let page = file("docs/bridging.md");
    let tables: Vec<&str> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert!(tables.len() >= 5, "{} tables", tables.len());
    let authority = files();
    for name in ["site-a.pem", "site-a.key"] {
        std::fs::copy(authority.path(name), authority.path(&name.replace("site-a", "device"))).unwrap();
    }
    std::fs::copy(authority.path("ca.pem"), authority.path("AmazonRootCA1.pem")).unwrap();
    for table in tables {
        write_config(&authority.path(""), table);
        let checked = run_in(&authority.path(""), &["check"], &[]);
        assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{table}");
    }
}
