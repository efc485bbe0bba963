//! The hub against the real broker: what a sender whose address may be a lie can make it say, and remember.

use super::*;
use crate::{
    codec::{Connect, encapsulate, encode, samples::GOOD},
    config::Config,
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::{collections::HashMap, net::SocketAddr, time::Duration};
use waystation_broker::{Clock, Limits, ManualClock, Parts};

const MOST: u32 = 4;

/// A hub, and how much was said between it and each address since that was last connected.
struct Scene {
    clock: Arc<ManualClock>,
    hub: Hub,
    said: HashMap<Address, usize>,
    heard: HashMap<Address, usize>,
}

/// What happens to the hub.
#[derive(Debug, Clone)]
enum Step {
    Says(u8, Option<u8>, Vec<u8>),
    Passes(u16),
}

impl Scene {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let limits = Limits { max_connections: MOST, ..Limits::default() };
        let broker = Broker::new(Parts::in_memory(limits, clock.clone()));
        let hub = Hub::new(broker, Arc::new(Settings::new("mqtt_sn".into(), &Config::default())));
        Self { clock, hub, said: HashMap::new(), heard: HashMap::new() }
    }

    fn obey(&mut self, step: &Step) {
        let connected = self.connected();
        match step {
            Step::Says(port, node, message) => {
                let mut datagram = Vec::new();
                if let Some(node) = node {
                    encapsulate(0, &[*node], &mut datagram).unwrap();
                }
                datagram.extend_from_slice(message);
                let from = Address::direct(0, ([192, 0, 2, 1], 5_000 + u16::from(*port)).into());
                self.hub.datagram(self.clock.now(), &from, &Way::Plain, &datagram);
                *self.said.entry(board(from.from, &datagram)).or_default() += datagram.len();
            }
            Step::Passes(seconds) => {
                self.clock.advance(Duration::from_secs((*seconds).into()));
                self.hub.touched = self.hub.peers.iter_mut().map(|peer| peer.key()).collect();
            }
        }
        self.hub.look_after(self.clock.now());
        for (to, datagram) in self.hub.outbox.of_socket(0) {
            let to = board(to, datagram);
            if connected.contains(&to) {
                continue;
            }
            assert!(matches!(step, Step::Says(..)), "{to} hears {datagram:02x?} unasked");
            let heard = self.heard.entry(to.clone()).or_default();
            *heard += datagram.len();
            let said = self.said.get(&to).copied().unwrap_or_default();
            assert!(*heard <= said, "{to} said {said} octets and hears {heard}, {datagram:02x?} the last");
        }
        self.hub.outbox.clear();
        for address in self.connected() {
            self.said.remove(&address);
            self.heard.remove(&address);
        }
        assert!(self.hub.peers.len() <= MOST as usize);
    }

    fn connected(&mut self) -> Vec<Address> {
        let all = self.hub.peers.iter_mut().map(|peer| &peer.client);
        all.filter(|client| client.is_in()).map(|client| client.address().clone()).collect()
    }
}

/// Whose datagram it is, by the address it came from or goes to.
fn board(from: SocketAddr, datagram: &[u8]) -> Address {
    let node = match decode(datagram) {
        Ok(Packet::Encapsulated { node, .. }) => Some(node.into()),
        _ => None,
    };
    Address { node, ..Address::direct(0, from) }
}

fn step() -> impl Strategy<Value = Step> {
    let sample = || select(GOOD).prop_map(|(_, bytes, _)| bytes.to_vec());
    let connect = (any::<[bool; 2]>(), 0_u16..40, "[ab]").prop_map(|([will, clean_session], duration_s, id)| {
        let mut bytes = Vec::new();
        let connect = Connect { will, clean_session, protocol_id: 1, duration_s, client_id: id.as_bytes() };
        encode(&Packet::Connect(connect), &mut bytes).unwrap();
        bytes
    });
    let message = prop_oneof![
        4 => connect,
        8 => sample(),
        2 => (sample(), any::<proptest::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, octet)| {
            let at = at.index(bytes.len());
            bytes[at] = octet;
            bytes
        }),
        1 => vec(any::<u8>(), 0..12),
    ];
    prop_oneof![
        9 => (0_u8..4, proptest::option::weighted(0.3, 0_u8..2), message).prop_map(|(port, node, message)| Step::Says(port, node, message)),
        1 => (1_u16..30).prop_map(Step::Passes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_address_that_is_not_connected_hears_no_more_than_it_said(steps in vec(step(), 1..60)) {
        let mut scene = Scene::new();
        steps.iter().for_each(|step| scene.obey(step));
        // Who never got in is forgotten.
        scene.obey(&Step::Passes(u16::MAX));
        let connected = scene.connected().len();
        prop_assert_eq!(scene.hub.peers.len(), connected);
    }
}
