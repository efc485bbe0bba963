//! The examples for REST apps do what they say.

use crate::{
    clients::{Program, V311, curl, mosquitto_pub_lines, node},
    harness::{Server, eventually},
};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rest").join(name)
}

/// An example in Python, with nothing but what Python brings.
fn python(name: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Program {
    let mut command = Command::new("python3");
    Program::start(command.envs(environment.iter().copied()).arg("-uBI").arg(example(name)).args(arguments))
}

#[test]
fn the_app_that_pulls_counts_every_message_once_however_it_ends() {
    let server = Server::start();
    let (url, database) = (server.url("http", "rest"), server.dir().join("meters.db"));
    let app = |more: &[&str]| {
        let arguments = ["--url", &url, "--database", database.to_str().unwrap(), "--filter", "meters/#"];
        python("pull.py", &[], &[&arguments, more].concat())
    };
    assert!(app(&["--until-empty"]).finish().is_empty());
    for _ in 0..3 {
        for topic in ["meters/0", "meters/1"] {
            mosquitto_pub_lines(&server, V311, &["-t", topic, "-q", "1"], &["0.5"; 10]);
        }
        let mut pulling = app(&[]);
        pulling.says("messages");
        // In the middle of whatever it does.
        pulling.kill();
    }
    let said = app(&["--until-empty"]).finish();
    assert_eq!(said[said.len() - 2..], ["meters/0: 15 in 30", "meters/1: 15 in 30"]);
}

#[test]
fn the_app_that_is_called_takes_what_is_signed_and_nothing_else() {
    let server = Server::start_with("[gateways.rest]\nallow_private_targets = true\n", &[]);
    let mut app = python("receiver.py", &[("SECRET", SECRET)], &["--port", "0"]);
    app.says("listening on ");
    let url = app.lines()[0].strip_prefix("listening on ").unwrap().to_owned();
    for (name, secret) in [("signed", SECRET), ("forged", "whsec_AAAA")] {
        let hook = json!({"url": url, "filters": [format!("house/{name}/alarm")], "secret": secret}).to_string();
        assert_eq!(curl(&server, &format!("/v1/webhooks/{name}"), &["-X", "PUT", "--data", &hook]).status, 201);
        assert_eq!(curl(&server, &format!("/v1/topics/house/{name}/alarm"), &["--data", "smoke"]).status, 200);
    }
    app.says("house/signed/alarm: smoke");
    eventually("the forgery is refused", || curl(&server, "/v1/webhooks/forged", &[]).json()["dead"] == 1);
    assert_eq!(app.lines().len(), 2, "{:?}", app.lines());
}

#[test]
fn the_page_shows_topics_as_they_change() {
    let browser = std::env::var("WAYSTATION_TEST_CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
    if browser.is_empty() {
        // scripts/test --fast does without a browser.
        return;
    }
    let folder = example("");
    let mut page = node("page.js", &[&browser, folder.to_str().unwrap()]);
    page.says("http://localhost");
    let origin = page.lines()[0].clone();
    let server = Server::start_with(&format!("[gateways.rest]\ncors_origins = [\"{origin}\"]\n"), &[]);
    assert_eq!(curl(&server, "/v1/topics/house/light", &["-X", "PUT", "--data", "on"]).status, 200);
    page.hears(&format!("{} house/#", server.url("http", "rest")));
    page.says("rows: house/light=on");
    assert_eq!(curl(&server, "/v1/topics/house/light", &["--data", "<b>off</b>"]).status, 200);
    page.says("rows: house/light=<b>off</b>");
    assert_eq!(curl(&server, "/v1/topics/house/door", &["--data", "open"]).status, 200);
    page.says("house/door=open");
}
