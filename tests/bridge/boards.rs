//! Through everything: a board that speaks MQTT-SN over UDP, and a cloud that never heard of it.

use super::{bridge, connected, route};
use crate::{
    clients::{V5, V311, curl, mosquitto_pub, mosquitto_sub},
    harness::{Cloud, PATIENCE, Server, eventually},
};
use tokio::time::timeout;
use waystation_broker::Qos;
use waystation_mqtt_sn::{Board, Options};

#[test]
fn a_boards_reading_reaches_the_cloud_and_a_command_set_there_reaches_the_sleeping_board() {
    for version in [V311, V5] {
        let cloud = Cloud::start();
        let config = bridge("cloud", &cloud, version, "")
            + &route("out", "sensors/#", "remote_prefix = \"site-a/\"")
            + &route("in", "valves/#", "remote_prefix = \"site-a/\"");
        // Set while nobody of the site was there.
        mosquitto_pub(&cloud, version, &["-t", "site-a/valves/7/limit", "-r", "-q", "1", "-m", "80"]);
        let site = Server::start_with(&config, &[]);
        connected(&site, "cloud");
        let app = mosquitto_sub(&cloud, version, &["-t", "site-a/#", "-q", "1", "-R", "-C", "1", "-F", "%t %p"]);
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let receive = async |board: &mut Board| {
                let message = timeout(PATIENCE, board.receive()).await.expect("a message in time").unwrap();
                (message.topic, String::from_utf8(message.payload.to_vec()).unwrap())
            };
            let mut board = Board::connect(site.address("mqtt_sn"), Options::new("valve-7")).await.unwrap();
            board.publish("sensors/7/pressure", b"21.5", Qos::AtLeastOnce, false).await.unwrap();
            eventually("the state set before is here", || curl(&site, "/v1/topics/valves/7/limit", &[]).body == "80");
            board.subscribe("valves/7/+", Qos::AtLeastOnce).await.unwrap();
            assert_eq!(receive(&mut board).await, ("valves/7/limit".into(), "80".into()), "{version}");
            board.sleep(600).await.unwrap();

            mosquitto_pub(&cloud, version, &["-t", "site-a/valves/7/command", "-r", "-q", "1", "-m", "open"]);
            eventually("the command waits for the board", || {
                curl(&site, "/v1/sessions/valve-7", &[]).json()["queued"] == 1
            });
            board.wake().await.unwrap();
            assert_eq!(receive(&mut board).await, ("valves/7/command".into(), "open".into()), "{version}");
        });
        assert_eq!(app.finish(), ["site-a/sensors/7/pressure 21.5"], "{version}");
    }
}
