//! Which topics cross, and what they are called on the other side.
//!
//! Local topic = local prefix + t, remote topic = remote prefix + t, and t matches the route's filter. Of routes that
//! overlap the first decides.

use crate::config::{Direction, Retain, Route};
use waystation_broker::{Filter, Qos, topic, topic::MAX_TOPIC_BYTES};

/// All routes of a bridge, in the order of its table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// From here to the far side.
    pub(crate) outward: Vec<Way>,
    /// From the far side to here.
    pub(crate) inward: Vec<Way>,
}

/// One route in one direction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// What is subscribed to on the side that messages come from: that side's prefix and the filter.
    pub(crate) source: Filter,
    /// The filter on t.
    filter: Box<str>,
    from: Box<str>,
    to: Box<str>,
    /// Most QoS to carry.
    pub(crate) qos: Qos,
    /// Whether the retain flag stays.
    pub(crate) keep_retain: bool,
}

/// A topic that has no name on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoWay {
    /// No route is meant for it.
    #[error("no route is meant for it")]
    NotMeant,
    /// It would be longer than a topic may be, or empty.
    #[error("it would have no topic name that MQTT allows")]
    NoName,
}

impl Routes {
    /// The routes of a table that was checked; those that are not right are left out.
    pub(crate) fn new(table: &[Route]) -> Self {
        let mut routes = Self::default();
        for route in table {
            if route.direction != Direction::In {
                routes.outward.extend(Way::new(route, &route.local_prefix, &route.remote_prefix));
            }
            if route.direction != Direction::Out {
                routes.inward.extend(Way::new(route, &route.remote_prefix, &route.local_prefix));
            }
        }
        routes
    }
}

impl Way {
    fn new(route: &Route, from: &str, to: &str) -> Option<Self> {
        Some(Self {
            source: Filter::parse(&format!("{from}{}", route.filter)).ok()?,
            filter: route.filter.as_str().into(),
            from: from.into(),
            to: to.into(),
            qos: Qos::from_u8(route.qos)?,
            keep_retain: route.retain == Retain::Keep,
        })
    }

    /// The filter of what its messages are called on the other side.
    pub(crate) fn target(&self) -> String {
        format!("{}{}", self.to, self.filter)
    }

    /// Writes into `name` what a topic is called on the other side.
    fn rename(&self, topic: &str, name: &mut String) -> Result<(), NoWay> {
        let t = topic.strip_prefix(&*self.from).ok_or(NoWay::NotMeant)?;
        if !topic::matches(&self.filter, t) {
            return Err(NoWay::NotMeant);
        }
        name.clear();
        if !(1..=MAX_TOPIC_BYTES).contains(&(self.to.len() + t.len())) {
            return Err(NoWay::NoName);
        }
        name.push_str(&self.to);
        name.push_str(t);
        // What is the server's own stays on its side.
        if is_own(name) { Err(NoWay::NotMeant) } else { Ok(()) }
    }
}

/// Finds the first of `ways` that is meant for a topic, and writes into `name` what it is called on the other side.
pub(crate) fn find<'a>(ways: &'a [Way], topic: &str, name: &mut String) -> Result<&'a Way, NoWay> {
    if is_own(topic) {
        return Err(NoWay::NotMeant);
    }
    for way in ways {
        match way.rename(topic, name) {
            Ok(()) => return Ok(way),
            Err(NoWay::NotMeant) => {}
            Err(NoWay::NoName) => return Err(NoWay::NoName),
        }
    }
    Err(NoWay::NotMeant)
}

/// What a broker says of itself or keeps for itself, ours or the far one. Other topics that begin with `$` may be
/// anything (`$aws/things/...`).
pub(crate) fn is_own(topic: &str) -> bool {
    ["$SYS", "$share", "$dead", "$reply"]
        .iter()
        .any(|own| topic.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Whether some topic matches both filters.
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('/').peekable(), b.split('/').peekable());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            // The parent level too (§4.7.1.2).
            (Some("#"), _) | (_, Some("#")) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn both(filter: &str, local_prefix: &str, remote_prefix: &str) -> Routes {
        Routes::new(&[Route {
            direction: Direction::Both,
            filter: filter.into(),
            qos: 1,
            retain: Retain::Keep,
            local_prefix: local_prefix.into(),
            remote_prefix: remote_prefix.into(),
        }])
    }

    fn renamed(ways: &[Way], topic: &str) -> Result<String, NoWay> {
        let mut name = String::new();
        find(ways, topic, &mut name).map(|_| name)
    }

    #[test]
    fn prefixes_are_taken_off_on_one_side_and_put_on_at_the_other() {
        let routes = both("sensors/#", "", "site-a/");
        assert_eq!(renamed(&routes.outward, "sensors/1/t"), Ok("site-a/sensors/1/t".into()));
        assert_eq!(renamed(&routes.outward, "sensors"), Ok("site-a/sensors".into()));
        assert_eq!(renamed(&routes.inward, "site-a/sensors/1/t"), Ok("sensors/1/t".into()));
        assert_eq!(routes.outward[0].source.as_str(), "sensors/#");
        assert_eq!(routes.inward[0].source.as_str(), "site-a/sensors/#");
        assert_eq!(renamed(&routes.outward, "actors/1"), Err(NoWay::NotMeant));
        let routes = both("+/state", "house/", "a/b/");
        assert_eq!(renamed(&routes.outward, "house/lamp/state"), Ok("a/b/lamp/state".into()));
        assert_eq!(renamed(&routes.outward, "house/lamp/level"), Err(NoWay::NotMeant));
    }

    #[test]
    fn the_level_above_a_prefix_matches_the_subscription_and_has_no_name() {
        // `site-a/#` is sent `site-a` too.
        let routes = both("#", "", "site-a/");
        assert!(topic::matches(routes.inward[0].source.as_str(), "site-a"));
        assert_eq!(renamed(&routes.inward, "site-a"), Err(NoWay::NotMeant));
        assert_eq!(renamed(&routes.inward, "site-a/"), Err(NoWay::NoName));
    }

    #[test]
    fn what_a_broker_says_of_itself_never_crosses() {
        let routes = both("#", "", "site-a/");
        assert_eq!(renamed(&routes.outward, "$SYS/broker/uptime"), Err(NoWay::NotMeant));
        assert_eq!(renamed(&routes.inward, "site-a/$SYS/broker/uptime"), Err(NoWay::NotMeant));
        assert_eq!(renamed(&routes.inward, "site-a/$dead/x"), Err(NoWay::NotMeant));
        let routes = both("x/#", "", "$SYS/");
        assert_eq!(renamed(&routes.outward, "x/1"), Err(NoWay::NotMeant));
        assert_eq!(renamed(&routes.inward, "$SYS/x/1"), Err(NoWay::NotMeant));
        let routes = both("update", "shadow/", "$aws/things/a/shadow/");
        assert_eq!(renamed(&routes.outward, "shadow/update"), Ok("$aws/things/a/shadow/update".into()));
    }

    #[test]
    fn of_routes_that_overlap_the_first_decides() {
        let mut routes = both("a/#", "", "1/");
        routes.outward.append(&mut both("#", "", "2/").outward);
        assert_eq!(renamed(&routes.outward, "a/b"), Ok("1/a/b".into()));
        assert_eq!(renamed(&routes.outward, "b"), Ok("2/b".into()));
    }

    #[test]
    fn a_name_that_would_be_too_long_is_none() {
        let routes = both("#", "", "site-a/");
        let most = "x".repeat(MAX_TOPIC_BYTES - "site-a/".len());
        assert!(renamed(&routes.outward, &most).is_ok());
        assert_eq!(renamed(&routes.outward, &format!("{most}x")), Err(NoWay::NoName));
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof!["[a-c]{0,2}", Just("$x".to_owned())]
    }

    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/"))
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![4 => level(), 1 => Just("+".to_owned())];
        (prop::collection::vec(level, 0..4), any::<bool>()).prop_filter_map("empty", |(mut levels, all)| {
            if all {
                levels.push("#".into());
            }
            let filter = levels.join("/");
            (!filter.is_empty()).then_some(filter)
        })
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same_topic(filter in filter(), local in topic(), remote in topic(), topic in topic()) {
            let (local, remote) = (format!("{local}/"), format!("{remote}/"));
            let routes = both(&filter, &local, &remote);
            let topic = format!("{local}{topic}");
            match renamed(&routes.outward, &topic) {
                Ok(name) => {
                    prop_assert!(topic::matches(routes.outward[0].source.as_str(), &topic));
                    prop_assert!(topic::matches(routes.inward[0].source.as_str(), &name));
                    prop_assert_eq!(renamed(&routes.inward, &name), Ok(topic));
                }
                Err(_) => prop_assert!(!topic::matches(&filter, &topic[local.len()..])),
            }
        }

        #[test]
        fn filters_that_share_a_topic_overlap(a in filter(), b in filter(), topic in topic()) {
            if topic::matches(&a, &topic) && topic::matches(&b, &topic) {
                prop_assert!(overlap(&a, &b) && overlap(&b, &a));
            }
        }
    }
}
