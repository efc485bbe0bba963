//! Users and rights: who comes in, what he may, and what a reload changes.

use crate::{
    clients::{Program, V5, V311, curl, mosquitto},
    harness::{Ended, Server, eventually, run_in, run_with_input},
};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use std::{os::unix::fs::PermissionsExt, path::PathBuf};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use waystation_broker::Qos;
use waystation_mqtt_sn::{
    Board, BoardError, Options,
    codec::{ReturnCode, TopicRef},
};

/// Files of users and rights, and the server that was started with them.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    /// With users whose passwords are their names with a `!`.
    pub(crate) fn with_users(users: &[&str]) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        users.iter().for_each(|user| place.set_password(user, &format!("{user}!")));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn set_password(&self, user: &str, password: &str) {
        let ended = run_with_input(self.dir.path(), &["passwd", "users", user, "--stdin"], &format!("{password}\n"));
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }

    pub(crate) fn acl(self, rules: &str) -> Self {
        self.put("acl", rules);
        self
    }

    fn settings(&self) -> Vec<String> {
        let mut settings = Vec::new();
        for (key, file) in [("password_file", "users"), ("acl_file", "acl"), ("jwt.secret_file", "secret")] {
            if self.path(file).exists() {
                settings.extend(["--set".into(), format!("auth.{key}={}", self.path(file).display())]);
            }
        }
        settings
    }

    fn start(&self) -> Server {
        self.try_start(&["--set", "auth.allow_anonymous=false"]).unwrap_or_else(|ended| panic!("{ended:?}"))
    }

    pub(crate) fn try_start(&self, more: &[&str]) -> Result<Server, Ended> {
        let settings = self.settings();
        let arguments: Vec<&str> = settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Server::try_start("", &arguments)
    }
}

/// Sends `SIGHUP` and waits until the log says this once more.
fn reload(server: &Server, says: &str) {
    let before = server.log().matches(says).count();
    server.signal("HUP");
    eventually(&format!("the log says {says:?}"), || server.log().matches(says).count() > before);
}

fn login(user: &str) -> [String; 4] {
    ["-u".into(), user.into(), "-P".into(), format!("{user}!")]
}

fn client(program: &str, server: &Server, version: &str, user: &str, arguments: &[&str]) -> Program {
    Program::start(mosquitto(program, server, version).arg("-d").args(login(user)).args(arguments))
}

/// Publishes with QoS 1; all that was said.
fn publish(server: &Server, version: &str, user: &str, arguments: &[&str]) -> String {
    client("mosquitto_pub", server, version, user, &[&["-q", "1"], arguments].concat()).finish_with_debug()
}

fn subscribe(server: &Server, version: &str, user: &str, arguments: &[&str]) -> Program {
    let mut program = client("mosquitto_sub", server, version, user, arguments);
    program.says("Subscribed (mid");
    program
}

fn messages(program: Program) -> Vec<String> {
    program.finish()
}

#[test]
fn a_password_lets_its_user_in_and_a_wrong_one_nobody() {
    let server = Place::with_users(&["anna", "ben"]).start();
    for (version, refused) in [(V311, "bad user name or password"), (V5, "Bad User Name or Password")] {
        publish(&server, version, "anna", &["-t", "a", "-m", "x"]);
        for arguments in [["-u", "anna", "-P", "ben!"], ["-u", "carl", "-P", "carl!"], ["-u", "anna", "-P", ""]] {
            let program = Program::start(
                mosquitto("mosquitto_pub", &server, version).args(arguments).args(["-t", "a", "-m", "x"]),
            );
            let said = program.fails();
            assert!(said.to_lowercase().contains(&refused.to_lowercase()), "{version} {arguments:?}: {said}");
        }
        let program = Program::start(mosquitto("mosquitto_pub", &server, version).args(["-t", "a", "-m", "x"]));
        assert!(program.fails().to_lowercase().contains("not authori"), "nobody is not let in");
    }
    let wrong = curl(&server, "/v1/topics/a", &["-u", "anna:no"]);
    assert_eq!(wrong.status, 401, "{wrong:?}");
    assert_eq!(curl(&server, "/v1/topics/a", &["-u", "anna:anna!"]).status, 404);
}

#[test]
fn a_publish_without_the_right_is_told_to_mqtt_5_and_acknowledged_and_dropped_for_3() {
    let acl = "[[rule]]\nuser = \"ben\"\nallow = [\"subscribe\"]\ntopics = [\"#\"]\n\
               [[rule]]\nuser = \"anna\"\nallow = [\"publish\"]\ntopics = [\"anna/%c\"]\n";
    let server = Place::with_users(&["anna", "ben"]).acl(acl).start();
    for version in [V311, V5] {
        let witness = subscribe(&server, version, "ben", &["-t", "#", "-C", "1", "-F", "%t %p"]);
        let said = publish(&server, version, "anna", &["-i", "phone", "-t", "other", "-m", "no"]);
        assert_eq!(said.contains("Not authorized"), version == V5, "{said}");
        let other_id = publish(&server, version, "anna", &["-i", "desk", "-t", "anna/phone", "-m", "no"]);
        assert_eq!(other_id.contains("Not authorized"), version == V5, "{other_id}");
        publish(&server, version, "anna", &["-i", "phone", "-t", "anna/phone", "-m", "yes"]);
        assert_eq!(messages(witness), ["anna/phone yes"]);
    }
}

#[test]
fn a_subscription_needs_a_rule_that_covers_it_and_narrower_ones_apply_at_delivery() {
    let acl = "[[rule]]\nuser = \"root\"\nallow = [\"publish\", \"subscribe\"]\ntopics = [\"#\"]\n\
               [[rule]]\ndeny = [\"subscribe\"]\ntopics = [\"a/secret/#\"]\n\
               [[rule]]\nuser = \"anna\"\nallow = [\"subscribe\"]\ntopics = [\"a/#\"]\n";
    let server = Place::with_users(&["anna", "root"]).acl(acl).start();
    publish(&server, V5, "root", &["-t", "a/secret/kept", "-m", "hush", "-r"]);
    publish(&server, V5, "root", &["-t", "a/kept", "-m", "kept", "-r"]);
    for (version, refused) in [(V311, "128"), (V5, "135")] {
        for filter in ["#", "+/secret", "b", "a/secret/x"] {
            let said =
                client("mosquitto_sub", &server, version, "anna", &["-t", filter, "-W", "5"]).finish_with_debug();
            assert!(said.contains(&format!("Subscribed (mid: 1): {refused}")), "{version} {filter}: {said}");
        }
        let reader = subscribe(&server, version, "anna", &["-t", "a/#", "-C", "2", "-F", "%t"]);
        publish(&server, version, "root", &["-t", "a/secret/x", "-m", "hush"]);
        publish(&server, version, "root", &["-t", "a/x", "-m", "open"]);
        assert_eq!(messages(reader), ["a/kept", "a/x"]);
    }
    let read = |topic: &str, user: &str| {
        curl(&server, &format!("/v1/topics/{topic}"), &["-u", &format!("{user}:{user}!")]).status
    };
    assert_eq!(read("a/kept", "anna"), 200);
    assert_eq!(read("a/secret/kept", "anna"), 403);
    assert_eq!(read("a/secret/kept", "root"), 200);
}

#[test]
fn a_right_that_is_revoked_holds_for_what_is_retained_queued_and_live_and_a_broken_file_changes_nothing() {
    let open = "[[rule]]\nuser = \"root\"\nallow = [\"publish\", \"subscribe\"]\ntopics = [\"#\"]\n\
                [[rule]]\nuser = \"anna\"\nallow = [\"subscribe\"]\ntopics = [\"a/#\", \"b/#\"]\n";
    let place = Place::with_users(&["anna", "root"]).acl(open);
    let server = place.start();
    let sleeper = ["-i", "sleeper", "-c", "-q", "1", "-t", "a/#", "-t", "b/#"];
    client("mosquitto_sub", &server, V311, "anna", &[&sleeper, ["-E"].as_slice()].concat()).finish();
    let live = subscribe(&server, V5, "anna", &["-t", "a/#", "-t", "b/#", "-C", "2", "-F", "%t"]);
    publish(&server, V5, "root", &["-t", "a/1", "-m", "x", "-r"]);

    place.put("acl", "[[rule]]\nusr = \"x\"\n");
    reload(&server, "users and rights stay as they were");
    assert!(server.log().contains("acl:2: rule[0].usr: unknown key"), "{}", server.log());
    publish(&server, V5, "root", &["-t", "b/1", "-m", "x", "-r"]);
    assert_eq!(messages(live), ["a/1", "b/1"], "the old rules hold");

    let live = subscribe(&server, V5, "anna", &["-t", "a/#", "-t", "b/#", "-C", "3", "-F", "%t"]);
    place.put("acl", &open.replace("\"a/#\", ", ""));
    reload(&server, "configuration reloaded");
    publish(&server, V5, "root", &["-t", "a/2", "-m", "x"]);
    publish(&server, V5, "root", &["-t", "b/2", "-m", "x"]);
    // The two retained ones came before the reload.
    assert_eq!(messages(live), ["a/1", "b/1", "b/2"]);
    let again =
        client("mosquitto_sub", &server, V311, "anna", &[&sleeper, ["-C", "2", "-F", "%t"].as_slice()].concat());
    assert_eq!(messages(again), ["b/1", "b/2"], "what was queued under the old rules is asked about again");
    let fresh = client("mosquitto_sub", &server, V5, "anna", &["-t", "b/+", "-C", "1", "-F", "%t"]);
    assert_eq!(messages(fresh), ["b/1"]);
}

#[test]
fn a_user_who_is_removed_or_gets_another_password_is_disconnected_and_others_stay() {
    let place = Place::with_users(&["anna", "ben", "carl"]);
    let server = place.start();
    let anna = subscribe(&server, V5, "anna", &["-t", "a", "-C", "1"]);
    let mut ben = subscribe(&server, V5, "ben", &["-t", "a"]);
    let mut carl = subscribe(&server, V5, "carl", &["-t", "a"]);
    let users = std::fs::read_to_string(place.path("users")).unwrap();
    let without_ben: String = users.lines().filter(|l| !l.starts_with("ben:")).map(|l| format!("{l}\n")).collect();
    place.put("users", &without_ben);
    place.set_password("carl", "another");
    reload(&server, "configuration reloaded");
    for gone in [&mut ben, &mut carl] {
        gone.says("Received DISCONNECT (135)");
    }
    publish(&server, V5, "anna", &["-t", "a", "-m", "still here"]);
    assert_eq!(messages(anna), ["still here"]);
}

#[test]
fn boards_act_as_their_user_and_who_never_connects_as_nobody() {
    let place = Place::with_users(&["anna"]).acl(
        "[[rule]]\nuser = \"anna\"\nallow = [\"publish\", \"subscribe\"]\ntopics = [\"#\"]\n\
         [[rule]]\nuser = \"attic\"\nallow = [\"publish\", \"subscribe\"]\ntopics = [\"attic/%c/#\"]\n\
         [[rule]]\nallow = [\"publish\"]\ntopics = [\"k1\"]\n",
    );
    let client = "gateways.mqtt_sn.client=[{ id = \"board-7\", user = \"attic\" }]";
    let server = place.try_start(&["--set", client]).unwrap_or_else(|ended| panic!("{ended:?}"));
    let listener = subscribe(&server, V5, "anna", &["-t", "#", "-q", "1", "-C", "3", "-F", "%t %p"]);
    let refused = |result| matches!(result, Err(BoardError::Refused(ReturnCode::NotSupported)));
    let gateway = server.address("mqtt_sn");
    Runtime::new().unwrap().block_on(async {
        let mut board = Board::connect(gateway, Options::new("board-7")).await.unwrap();
        board.publish("attic/board-7/t", b"21", Qos::AtLeastOnce, false).await.unwrap();
        for topic in ["attic/board-8/t", "cellar"] {
            assert!(refused(board.publish(topic, b"x", Qos::AtLeastOnce, false).await), "{topic}");
            assert!(refused(board.publish(topic, b"x", Qos::ExactlyOnce, false).await), "{topic}");
            assert!(refused(board.subscribe(topic, Qos::AtLeastOnce).await.map(drop)), "{topic}");
        }
        board.subscribe("attic/board-7/#", Qos::AtLeastOnce).await.unwrap();
        // Another one is nobody, and so is who never connects.
        let mut other = Board::connect(gateway, Options::new("board-8")).await.unwrap();
        assert!(refused(other.publish("attic/board-8/t", b"x", Qos::AtLeastOnce, false).await));
        other.publish("k1", b"connected", Qos::AtLeastOnce, false).await.unwrap();
        for (topic, payload) in [(*b"k2", "refused"), (*b"k1", "never connected")] {
            let topic = TopicRef::Short(topic);
            Board::publish_without_connect(gateway, topic, payload.as_bytes(), false).await.unwrap();
        }
        board.disconnect().await.unwrap();
    });
    assert_eq!(messages(listener), ["attic/board-7/t 21", "k1 connected", "k1 never connected"]);
}

#[test]
fn a_session_is_its_users_alone() {
    let server = Place::with_users(&["anna", "ben"]).start();
    for (version, not_authorized) in [(V311, "not authori"), (V5, "not authorized")] {
        let id = format!("mine-{version}");
        let arguments = ["-i", &id, "-c", "-q", "1", "-t", "a", "-E"];
        client("mosquitto_sub", &server, version, "anna", &arguments).finish();
        let said = client("mosquitto_sub", &server, version, "ben", &arguments).fails();
        assert!(said.to_lowercase().contains(not_authorized), "{said}");
        client("mosquitto_sub", &server, version, "anna", &arguments).finish();
        let session = format!("/v1/sessions/{id}");
        assert_eq!(curl(&server, &session, &["-u", "ben:ben!"]).status, 403);
        assert_eq!(curl(&server, &session, &["-u", "anna:anna!"]).status, 200);
    }
}

#[test]
fn a_token_is_a_password_with_rules_and_an_end() {
    let place = Place::with_users(&[]);
    place.put("secret", "quite secret\n");
    let server = place.start();
    let token = |claims: serde_json::Value| {
        encode(&Header::default(), &claims, &EncodingKey::from_secret(b"quite secret")).unwrap()
    };
    let acl = serde_json::json!([{ "deny": ["publish"], "topics": ["a/secret"] }]);
    let good = token(serde_json::json!({ "sub": "anna", "acl": acl, "exp": get_current_timestamp() + 600 }));
    let with = |token: &str, arguments: &[&str]| {
        Program::start(
            mosquitto("mosquitto_pub", &server, V5).args(["-d", "-q", "1", "-u", "anna", "-P", token]).args(arguments),
        )
    };
    assert!(!with(&good, &["-t", "a/b", "-m", "x"]).finish_with_debug().contains("Not authorized"));
    assert!(with(&good, &["-t", "a/secret", "-m", "x"]).finish_with_debug().contains("Not authorized"));
    let over = token(serde_json::json!({ "sub": "anna", "exp": get_current_timestamp() - 1 }));
    assert!(with(&over, &["-t", "a", "-m", "x"]).fails().contains("Bad User Name or Password"));
    let bearer = |token: &str| curl(&server, "/v1/topics/a", &["-H", &format!("Authorization: Bearer {token}")]).status;
    assert_eq!((bearer(&good), bearer(&over)), (404, 401));

    let short = token(serde_json::json!({ "sub": "anna", "exp": get_current_timestamp() + 2 }));
    let mut reader =
        Program::start(mosquitto("mosquitto_sub", &server, V5).args(["-d", "-u", "anna", "-P", &short, "-t", "a"]));
    reader.says("Subscribed (mid");
    reader.says("Received DISCONNECT (160)"); // maximum connect time
}

#[test]
fn passwords_over_plain_connections_are_refused_where_tls_is_required() {
    let place = Place::with_users(&["anna"]);
    let server = place.try_start(&["--set", "auth.require_tls=true"]).unwrap_or_else(|ended| panic!("{ended:?}"));
    let said = client("mosquitto_pub", &server, V5, "anna", &["-t", "a", "-m", "x"]).fails();
    assert!(said.contains("Not authorized"), "{said}");
    Program::start(mosquitto("mosquitto_pub", &server, V5).args(["-t", "a", "-m", "x"])).finish();
}

#[test]
fn files_that_cannot_be_used_are_named_in_one_line_before_anything_is_bound() {
    let place = Place::with_users(&["anna"]);
    let refuses = |more: &[&str], code: i32, part: &str| {
        let Err(ended) = place.try_start(more) else { panic!("it started with {more:?}") };
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        assert!(ended.stderr.contains(part), "{ended:?}");
        let settings = place.settings();
        let check: Vec<&str> =
            ["check"].into_iter().chain(settings.iter().map(String::as_str)).chain(more.iter().copied()).collect();
        assert_eq!(run_in(place.dir.path(), &check, &[]).code, Some(code));
    };
    refuses(&["--set", "auth.password_file=nowhere"], 1, "nowhere: cannot be read");
    refuses(&["--set", "auth.acl_file=nowhere"], 1, "nowhere: cannot be read");
    refuses(&["--set", "auth.jwt.secret_file=nowhere"], 1, "nowhere: cannot be read");
    place.put("acl", "[[rule]]\nallow = [\"fly\"]\n");
    refuses(&[], 2, "acl:2: rule[0].allow[0]");
    place.put("acl", "");
    place.put("users", "anna\n");
    refuses(&[], 2, "users:1: auth.password_file: expected USER:HASH");
    place.put("users", "");
    refuses(&[], 1, "holds no user");
}

#[test]
fn a_listener_beyond_loopback_starts_with_users() {
    let place = Place::with_users(&["anna"]);
    let server =
        place.try_start(&["--set", "gateways.mqtt.listen=0.0.0.0:0"]).unwrap_or_else(|ended| panic!("{ended:?}"));
    assert!(server.ready_line().contains("mqtt=0.0.0.0:"));
}

#[test]
fn passwd_makes_a_file_for_its_owner_and_keeps_what_others_wrote() {
    let place = Place::with_users(&["anna"]);
    let mode = || std::fs::metadata(place.path("users")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let first = std::fs::read_to_string(place.path("users")).unwrap();
    place.put("users", &format!("# people\n{first}"));
    std::fs::set_permissions(place.path("users"), std::fs::Permissions::from_mode(0o640)).unwrap();
    place.set_password("ben", "ben!");
    let text = std::fs::read_to_string(place.path("users")).unwrap();
    assert!(text.starts_with(&format!("# people\n{first}ben:$argon2id$v=19$")), "{text}");
    assert_eq!(mode(), 0o640, "whoever could read it still can");
    let refused = |user: &str, input: &str| {
        let ended = run_with_input(place.dir.path(), &["passwd", "users", user, "--stdin"], input);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{ended:?}");
    };
    refused("a:b", "x\n");
    refused("carl", "\n");
    refused("carl", "");
    assert_eq!(std::fs::read_to_string(place.path("users")).unwrap(), text);
    let asked = run_in(place.dir.path(), &["passwd", "users", "carl"], &[]);
    assert_eq!(asked.code, Some(1), "there is nobody to ask: {asked:?}");
}
