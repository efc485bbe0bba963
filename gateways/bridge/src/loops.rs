//! What must not come round again.
//!
//! Three things stop a message that went out from coming back for ever. What came in over a bridge never goes out over
//! the same one. An MQTT 5 far side is asked not to send back what this bridge published (No Local). And between MQTT 5
//! ends each message carries two user properties: [`ORIGIN`], the server that first had it cross a bridge, which takes it
//! from no bridge again, and [`HOPS`], how many bridges it has crossed, of which there may be [`MOST_HOPS`].

use crate::{
    config::{Config, Direction, Protocol},
    route::{Routes, Way, overlap},
    url::Url,
};
use waystation_broker::Properties;
use waystation_kit::names::{HOPS, MISSED, ORIGIN};

/// Bridges a message may cross.
pub(crate) const MOST_HOPS: u32 = 16;

/// What a message says of its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp<'a> {
    /// The server that first had it cross a bridge.
    pub(crate) origin: Option<&'a str>,
    /// Bridges crossed.
    pub(crate) hops: u32,
}

/// The message has been here, or has gone far enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Round;

impl<'a> Stamp<'a> {
    /// What these user properties say.
    pub(crate) fn of(user: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut stamp = Self::default();
        for (name, value) in user {
            match name {
                ORIGIN => stamp.origin = Some(value),
                // Whatever is no number has gone far enough.
                HOPS => stamp.hops = value.parse().unwrap_or(MOST_HOPS),
                _ => {}
            }
        }
        stamp
    }

    /// What a stored message says.
    pub(crate) fn stored(properties: Option<&'a Properties>) -> Self {
        match properties {
            Some(properties) if !properties.user.is_empty() => {
                Self::of(properties.user.iter().map(|(name, value)| (&**name, &**value)))
            }
            _ => Self::default(),
        }
    }

    /// What it is to say on the far side of a bridge of server `me` to server `far`, where that is known. `by_bridge`: it
    /// came here over another bridge of `me`, which looked at it then.
    pub(crate) fn outward(self, me: &'a str, far: Option<&str>, by_bridge: bool) -> Result<Self, Round> {
        let been_here = self.origin == Some(me) && !by_bridge;
        let been_there = self.origin.is_some() && self.origin == far;
        if been_here || been_there { Err(Round) } else { self.crossed(me) }
    }

    /// What it is to say here, having come in over a bridge of server `me` from server `far`, where that is known.
    pub(crate) fn inward(self, me: &'a str, far: Option<&'a str>) -> Result<Self, Round> {
        if self.origin == Some(me) { Err(Round) } else { self.crossed(far.unwrap_or(me)) }
    }

    fn crossed(self, first: &'a str) -> Result<Self, Round> {
        if self.hops >= MOST_HOPS {
            return Err(Round);
        }
        Ok(Self { origin: self.origin.or(Some(first)), hops: self.hops + 1 })
    }
}

/// Whether a user property is written by bridges for bridges, or not to cross at all.
pub(crate) fn is_ours(name: &str) -> bool {
    name == ORIGIN || name == HOPS || name == MISSED
}

/// Two routes of a bridge over MQTT 3.1.1 of which one brings back what the other took away: the far side cannot be
/// asked not to. Gives their places in the table.
pub(crate) fn echo(config: &Config) -> Option<(usize, usize)> {
    if config.protocol == Protocol::V5 {
        return None;
    }
    let routes: Vec<Routes> = config.route.iter().map(|route| Routes::new(std::slice::from_ref(route))).collect();
    let meets = |out: &Way, into: &Way| overlap(&out.target(), into.source.as_str());
    for (out, outward) in routes.iter().enumerate().filter(|(at, _)| config.route[*at].direction == Direction::Out) {
        for (into, inward) in routes.iter().enumerate().filter(|(at, _)| config.route[*at].direction == Direction::In) {
            if outward.outward.iter().any(|way| inward.inward.iter().any(|other| meets(way, other))) {
                return Some((out, into));
            }
        }
    }
    None
}

/// Whether both go to one far side, as far as their URLs tell.
pub(crate) fn same_side(config: &Config, other: &Config) -> bool {
    let [here, there] = [config, other].map(|config| Url::parse(&config.url).ok());
    here.zip(there).is_some_and(|(here, there)| (here.host, here.port) == (there.host, there.port))
}

/// Two bridges to one far side of which one brings back, under the topic it had, what the other took away, with
/// nothing on the message to tell: one of them speaks MQTT 3.1.1. Gives the place of the first one's route.
pub(crate) fn circle(config: &Config, other: &Config) -> Option<usize> {
    if !same_side(config, other) || (config.protocol, other.protocol) == (Protocol::V5, Protocol::V5) {
        return None;
    }
    let theirs = Routes::new(&other.route);
    let round = |out: &Way, into: &Way| {
        overlap(&out.target(), into.source.as_str()) && overlap(&into.target(), out.source.as_str())
    };
    config.route.iter().position(|route| {
        let ours = Routes::new(std::slice::from_ref(route));
        ours.outward.iter().any(|out| theirs.inward.iter().any(|into| round(out, into)))
            || ours.inward.iter().any(|into| theirs.outward.iter().any(|out| round(out, into)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp<'a>(properties: &[(&'a str, &'a str)]) -> Stamp<'a> {
        Stamp::of(properties.iter().copied())
    }

    #[test]
    fn the_first_server_is_named_and_hops_are_counted() {
        let here = stamp(&[("colour", "red")]).outward("a", None, false).unwrap();
        assert_eq!(here, Stamp { origin: Some("a"), hops: 1 });
        assert_eq!(here.inward("b", None), Ok(Stamp { origin: Some("a"), hops: 2 }));
        // Without a word from the far side we are the first that know of it.
        assert_eq!(stamp(&[]).inward("b", None), Ok(Stamp { origin: Some("b"), hops: 1 }));
    }

    #[test]
    fn what_comes_back_to_its_origin_goes_no_further() {
        let round = stamp(&[(ORIGIN, "a"), (HOPS, "2")]);
        assert_eq!(round.inward("a", None), Err(Round));
        assert_eq!(round.outward("a", None, false), Err(Round));
        // Stamped here when it came in over another bridge.
        assert_eq!(stamp(&[(ORIGIN, "a"), (HOPS, "1")]).outward("a", None, true).map(|stamp| stamp.hops), Ok(2));
    }

    #[test]
    fn a_far_side_that_is_known_is_not_sent_what_it_has_sent() {
        let theirs = stamp(&[]).inward("a", Some("b")).unwrap();
        assert_eq!(theirs, Stamp { origin: Some("b"), hops: 1 });
        assert_eq!(theirs.outward("a", Some("b"), true), Err(Round));
        assert_eq!(theirs.outward("a", Some("c"), true), Ok(Stamp { origin: Some("b"), hops: 2 }));
        assert_eq!(stamp(&[]).outward("a", Some("b"), false), Ok(Stamp { origin: Some("a"), hops: 1 }));
    }

    #[test]
    fn in_any_ring_a_message_ends() {
        for servers in 1..40 {
            let names: Vec<String> = (0..servers).map(|n| n.to_string()).collect();
            // It came from elsewhere, so that no server of the ring is its origin.
            let (mut now, mut at, mut crossed) = (stamp(&[(ORIGIN, "elsewhere")]), 0, 0);
            while let Ok(next) =
                now.outward(&names[at], None, false).and_then(|now| now.inward(&names[(at + 1) % servers], None))
            {
                (now, at, crossed) = (next, (at + 1) % servers, crossed + 1);
                assert!(crossed <= MOST_HOPS, "{servers} servers");
            }
        }
    }

    #[test]
    fn a_count_that_is_none_has_gone_far_enough() {
        assert_eq!(stamp(&[(HOPS, "many")]).outward("a", None, false), Err(Round));
        assert_eq!(stamp(&[(HOPS, "-1")]).inward("a", None), Err(Round));
    }
}
