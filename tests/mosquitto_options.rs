//! Every option of `mosquitto_pub` and `mosquitto_sub` that concerns a broker, beside those that
//! [`mqtt_clients`](crate::mqtt_clients) uses.

use crate::{
    clients::{
        V5, V31, V311, curl, do_both, mosquitto_pub, mosquitto_pub_lines, mosquitto_sub, mosquitto_sub_to_the_end,
    },
    harness::{Server, eventually},
};
use std::time::{Duration, Instant};

#[test]
fn each_version_and_each_qos() {
    let server = Server::start();
    for version in [V31, V311, V5] {
        for qos in ["0", "1", "2"] {
            let subscriber = mosquitto_sub(&server, version, &["-t", "a/+", "-q", qos, "-C", "1", "-F", "%t %q %p"]);
            mosquitto_pub(&server, version, &["-t", "a/b", "-q", qos, "-m", "hello"]);
            assert_eq!(subscriber.finish(), [format!("a/b {qos} hello")], "{version}");
        }
    }
}

#[test]
fn retained_only_and_no_retained_and_remove_retained() {
    do_both(|server, version| {
        for topic in ["state/a", "state/b"] {
            mosquitto_pub(server, version, &["-t", topic, "-r", "-q", "1", "-m", topic]);
        }
        let mut retained =
            mosquitto_sub_to_the_end(server, version, &["-t", "state/#", "-v", "-C", "2", "--retained-only"]);
        retained.sort();
        assert_eq!(retained, ["state/a state/a", "state/b state/b"]);
        // Without stale messages: only what is published from now on.
        let fresh = mosquitto_sub(server, version, &["-t", "state/#", "-R", "-C", "1"]);
        mosquitto_pub(server, version, &["-t", "state/a", "-q", "1", "-m", "fresh"]);
        assert_eq!(fresh.finish(), ["fresh"]);
        // With -C mosquitto_sub waits for ever after its DISCONNECT; without, it goes on listening.
        let _remover = mosquitto_sub(server, version, &["-t", "state/#", "--remove-retained"]);
        for path in ["/v1/topics/state/a", "/v1/topics/state/b"] {
            eventually("they are removed", || curl(server, path, &[]).status == 404);
        }
    });
}

#[test]
fn several_topics_some_filtered_out_or_unsubscribed() {
    do_both(|server, version| {
        let arguments = ["-t", "a", "-t", "b", "-t", "c", "-T", "b", "-U", "c", "-C", "2", "-v"];
        let subscriber = mosquitto_sub(server, version, &arguments);
        for topic in ["a", "b", "c", "a"] {
            mosquitto_pub(server, version, &["-t", topic, "-q", "1", "-m", "x"]);
        }
        assert_eq!(subscriber.finish().iter().filter(|line| *line == "a x").count(), 2);
    });
}

#[test]
fn lines_files_and_repetitions() {
    do_both(|server, version| {
        let subscriber = mosquitto_sub(server, version, &["-t", "#", "-q", "2", "-C", "7"]);
        mosquitto_pub_lines(server, version, &["-t", "lines", "-q", "1"], &["one", "two", "three"]);
        let file = server.dir().join("reading.txt");
        std::fs::write(&file, "from a file").unwrap();
        mosquitto_pub(server, version, &["-t", "file", "-q", "2", "-f", &file.display().to_string()]);
        let again = ["-t", "again", "-q", "1", "-m", "tick", "--repeat", "3", "--repeat-delay", "0.01"];
        mosquitto_pub(server, version, &again);
        assert_eq!(subscriber.finish(), ["one", "two", "three", "from a file", "tick", "tick", "tick"]);
    });
}

#[test]
fn a_will_with_all_its_options() {
    do_both(|server, version| {
        let mut witness = mosquitto_sub(server, version, &["-t", "wills/+", "-q", "2", "-C", "1", "-F", "%t %q %p"]);
        let will = ["--will-topic", "wills/a", "--will-payload", "gone", "--will-qos", "1", "--will-retain"];
        mosquitto_sub(server, version, &[&["-t", "x", "-k", "30"], will.as_slice()].concat()).kill();
        witness.says("wills/a 1 gone");
        witness.finish();
        assert_eq!(curl(server, "/v1/topics/wills/a", &[]).body, "gone");
    });
}

#[test]
fn a_will_is_delayed_as_asked() {
    let server = Server::start();
    let started = Instant::now();
    let mut witness = mosquitto_sub(&server, V5, &["-t", "wills/+", "-C", "1"]);
    let will = ["--will-topic", "wills/a", "--will-payload", "gone", "-D", "will", "will-delay-interval", "1"];
    mosquitto_sub(&server, V5, &[&["-t", "x", "-i", "m", "-c", "-x", "60"], will.as_slice()].concat()).kill();
    witness.says("gone");
    assert!(started.elapsed().as_millis() >= 1_000, "{:?}", started.elapsed());
}

#[test]
fn keep_alive_holds_an_idle_connection() {
    let server = Server::start();
    // The shortest that mosquitto allows, and it pings.
    let subscribers =
        [V311, V5].map(|version| mosquitto_sub(&server, version, &["-t", "a", "-k", "5", "-q", "1", "-C", "1"]));
    std::thread::sleep(Duration::from_secs(8));
    mosquitto_pub(&server, V5, &["-t", "a", "-q", "1", "-m", "still there"]);
    for subscriber in subscribers {
        assert_eq!(subscriber.finish(), ["still there"]);
    }
}

#[test]
fn a_subscription_identifier() {
    let server = Server::start();
    let identified =
        ["-t", "a", "-q", "1", "-C", "1", "-D", "subscribe", "subscription-identifier", "5", "-F", "%S %p"];
    let subscriber = mosquitto_sub(&server, V5, &identified);
    mosquitto_pub(&server, V5, &["-t", "a", "-q", "1", "-m", "x"]);
    assert_eq!(subscriber.finish(), ["5 x"]);
}

#[test]
fn a_narrow_receive_maximum_and_a_small_maximum_packet_size() {
    let server = Server::start();
    let narrow = ["-t", "a", "-q", "2", "-C", "20", "-D", "connect", "receive-maximum", "1"];
    let subscriber = mosquitto_sub(&server, V5, &narrow);
    // With an id of its own: an assigned one would not fit into the CONNACK.
    let small = ["-i", "small", "-t", "a", "-q", "1", "-C", "20", "-D", "connect", "maximum-packet-size", "50"];
    let limited = mosquitto_sub(&server, V5, &small);
    let texts: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    let lines: Vec<&str> = texts.iter().map(String::as_str).collect();
    let long = "x".repeat(200);
    mosquitto_pub_lines(&server, V5, &["-t", "a", "-q", "2"], &lines[..10]);
    assert_eq!(curl(&server, "/v1/topics/a", &["--data", &long]).status, 200);
    mosquitto_pub_lines(&server, V5, &["-t", "a", "-q", "2"], &lines[10..]);
    assert_eq!(limited.finish(), lines, "what is too large is left out");
    let heard = subscriber.finish();
    assert_eq!((heard.len(), heard[10].len()), (20, 200));
}

#[test]
fn expiry_and_aliases_of_publications() {
    let server = Server::start();
    let subscriber = mosquitto_sub(&server, V5, &["-t", "a", "-q", "1", "-C", "3", "-F", "%E %p"]);
    let expiring = ["-t", "a", "-q", "1", "-m", "x", "-D", "publish", "message-expiry-interval", "100"];
    mosquitto_pub(&server, V5, &expiring);
    let aliased = ["-t", "a", "-q", "1", "-m", "y", "-D", "publish", "topic-alias", "3"];
    mosquitto_pub(&server, V5, &[&aliased[..], &["--repeat", "2"]].concat());
    assert_eq!(subscriber.finish(), ["100 x", " y", " y"]);
}

#[test]
fn a_client_id_by_prefix_and_a_url() {
    do_both(|server, version| {
        let subscriber = mosquitto_sub(server, version, &["-t", "a/b", "-I", "prefix-", "-C", "1"]);
        let url = format!("{}/a/b", server.url("mqtt", "mqtt"));
        mosquitto_pub(server, version, &["-L", &url, "-q", "1", "-m", "by url"]);
        assert_eq!(subscriber.finish(), ["by url"]);
    });
}

#[test]
fn two_members_of_a_group_share_the_work() {
    let server = Server::start();
    let member = || mosquitto_sub(&server, V5, &["-t", "$share/crew/jobs/#", "-q", "1", "-C", "10"]);
    let (one, two) = (member(), member());
    let all = mosquitto_sub(&server, V311, &["-t", "jobs/#", "-q", "1", "-C", "20"]);
    let texts: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    let lines: Vec<&str> = texts.iter().map(String::as_str).collect();
    mosquitto_pub_lines(&server, V5, &["-t", "jobs/wash", "-q", "1"], &lines);
    assert_eq!(all.finish(), lines);
    let mut shared = [one.finish(), two.finish()].concat();
    shared.sort_by_key(|text| text.parse::<u32>().unwrap());
    assert_eq!(shared, lines, "each job once");
}
