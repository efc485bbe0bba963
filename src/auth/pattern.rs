//! What stands in rules: names with `*`, and topics with `+`, `#`, `%u` and `%c`.

use std::borrow::Cow;
use waystation_broker::{ClientId, Filter, InvalidTopic};

/// A user name or client id, in which `*` stands for any characters, also none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamePattern(Box<str>);

impl NamePattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        // `split` gives at least one part.
        let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            // The earliest place leaves most for the others.
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

/// The topics a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicPattern {
    text: Box<str>,
    names_user: bool,
    names_client: bool,
}

impl TopicPattern {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidTopic> {
        let filter = Filter::parse(text)?;
        if filter.group().is_some() {
            return Err(InvalidTopic::Share);
        }
        Ok(Self { text: text.into(), names_user: text.contains("%u"), names_client: text.contains("%c") })
    }

    /// The pattern for this user and client; `None` when it never matches for them.
    pub(super) fn of(&self, user: Option<&str>, client: Option<&ClientId>) -> Option<Cow<'_, str>> {
        if !self.names_user && !self.names_client {
            return Some(Cow::Borrowed(&self.text));
        }
        let user = if self.names_user { Some(usable(user?)?) } else { None };
        let client = if self.names_client { Some(usable(client?.as_str())?) } else { None };
        let mut text = String::with_capacity(self.text.len() + 32);
        let mut rest = &*self.text;
        while let Some(at) = rest.find('%') {
            let (name, used) = match rest.as_bytes().get(at + 1) {
                Some(b'u') => (user.unwrap_or_default(), 2),
                Some(b'c') => (client.unwrap_or_default(), 2),
                _ => ("%", 1),
            };
            text.push_str(&rest[..at]);
            text.push_str(name);
            rest = &rest[at + used..];
        }
        text.push_str(rest);
        // A name must not open the server's own topics to whoever may choose his name.
        (self.text.starts_with('$') || !text.starts_with('$')).then_some(Cow::Owned(text))
    }
}

/// A name that may stand in a topic: with one of these it would be a pattern, or more levels than the rule says.
fn usable(name: &str) -> Option<&str> {
    (!name.is_empty() && !name.contains(['+', '#', '/'])).then_some(name)
}

/// Whether `pattern` matches every topic that `filter` matches (§4.7; a leading wildcard matches no topic that begins
/// with `$`).
pub(super) fn covers(pattern: &str, filter: &str) -> bool {
    // There is no empty topic, hence no parent of the first level that # could match beside its children.
    let filter = match filter {
        "#" => "+/#",
        "/#" => "/+/#",
        filter => filter,
    };
    if filter.starts_with('$') && !pattern.starts_with('$') {
        return false;
    }
    let mut wanted = filter.split('/');
    for level in pattern.split('/') {
        match (level, wanted.next()) {
            ("#", _) => return true, // the parent level too (§4.7.1.2)
            ("+", Some(level)) if level != "#" => {}
            (level, Some(wanted)) if level == wanted && level != "#" => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use waystation_broker::Topic;

    fn name(pattern: &str, name: &str) -> bool {
        NamePattern::new(pattern).matches(name)
    }

    #[test]
    fn a_star_in_a_name_stands_for_any_characters() {
        for (pattern, yes) in [
            ("anna", "anna"),
            ("*", "anna"),
            ("*", ""),
            ("board-*", "board-"),
            ("board-*", "board-7"),
            ("*-7", "board-7"),
            ("b*d-*7", "board-17"),
            ("a*b*a", "aba"),
            ("a*a*", "aa"),
        ] {
            assert!(name(pattern, yes), "{pattern} on {yes}");
        }
        for (pattern, no) in
            [("anna", "Anna"), ("anna", "annabel"), ("board-*", "bard-7"), ("a*a", "a"), ("*-7", "7"), ("a*b*c", "acb")]
        {
            assert!(!name(pattern, no), "{pattern} on {no}");
        }
    }

    fn of(pattern: &str, user: Option<&str>, client: Option<&str>) -> Option<String> {
        let client = client.and_then(ClientId::new);
        let pattern = TopicPattern::parse(pattern).unwrap();
        pattern.of(user, client.as_ref()).map(Cow::into_owned)
    }

    #[test]
    fn user_and_client_are_put_into_a_pattern() {
        assert_eq!(of("%u/%c/#", Some("anna"), Some("b1")).as_deref(), Some("anna/b1/#"));
        assert_eq!(of("x-%u/100%/%x", Some("anna"), None).as_deref(), Some("x-anna/100%/%x"));
        assert_eq!(of("a/+", None, None).as_deref(), Some("a/+"));
    }

    #[test]
    fn names_that_would_change_a_pattern_never_match_it() {
        for bad in ["+", "#", "a/b", "a+", ""] {
            assert_eq!(of("home/%u", Some(bad), None), None, "{bad}");
        }
        assert_eq!(of("home/%c", Some("anna"), None), None);
        assert_eq!(of("home/%u", None, Some("c")), None);
        assert_eq!(of("home/%c", Some("+"), Some("c")).as_deref(), Some("home/c"), "only the name that is used counts");
        assert_eq!(of("%u/#", Some("$SYS"), None), None);
        assert_eq!(of("a/%u", Some("%c"), Some("c")).as_deref(), Some("a/%c"), "a name is not looked into again");
    }

    #[test]
    fn what_is_no_filter_is_no_pattern() {
        for bad in ["", "a/#/b", "a+", "$share/g/a"] {
            assert!(TopicPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_covers_what_it_matches_whole() {
        for (pattern, filter) in [
            ("#", "#"),
            ("#", "+/a/#"),
            ("a/#", "a"),
            ("a/#", "a/+/b"),
            ("a/+", "a/b"),
            ("+/+", "a/+"),
            ("+/#", "#"),
            ("/+/#", "/#"),
            ("+/+/#", "/#"),
            ("$SYS/#", "$SYS/+/x"),
        ] {
            assert!(covers(pattern, filter), "{pattern} covers {filter}");
        }
        for (pattern, filter) in [
            ("#", "$SYS/#"),
            ("+/x", "$SYS/x"),
            ("a/+", "a/#"),
            ("a/+/#", "a/#"),
            ("a/b", "a/+"),
            ("+", "#"),
            ("a", "a/b"),
            ("a/b", "a"),
            ("$SYS/#", "#"),
        ] {
            assert!(!covers(pattern, filter), "{pattern} does not cover {filter}");
        }
    }

    fn filters() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => Just("a"), 2 => Just("b"), 1 => Just(""), 1 => Just("$s"), 3 => Just("+")];
        (prop::collection::vec(level, 1..=3), any::<bool>()).prop_filter_map("a filter", |(mut levels, open)| {
            if open {
                if levels.len() == 3 {
                    levels.pop();
                }
                levels.push("#");
            }
            let text = if levels == [""] { "#".to_owned() } else { levels.join("/") };
            Filter::parse(&text).ok().map(|_| text)
        })
    }

    /// Every topic of up to four levels; `z` stands for all the names that no filter holds.
    fn topics() -> Vec<Topic> {
        let levels = ["a", "b", "", "$s", "z"];
        let mut all: Vec<String> = levels.iter().map(ToString::to_string).collect();
        let mut last = all.clone();
        for _ in 1..4 {
            last = last.iter().flat_map(|t| levels.iter().map(move |level| format!("{t}/{level}"))).collect();
            all.extend(last.iter().cloned());
        }
        all.iter().filter_map(|text| Topic::parse(text).ok()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn covering_is_matching_every_topic(pattern in filters(), filter in filters()) {
            let matches = |text: &str, topic: &Topic| Filter::parse(text).unwrap().matches(topic);
            let brute = topics().iter().all(|topic| !matches(&filter, topic) || matches(&pattern, topic));
            prop_assert_eq!(covers(&pattern, &filter), brute, "{} covers {}", pattern, filter);
        }

        #[test]
        fn stars_match_like_a_search_from_every_place(pattern in "[ab*]{0,6}", name in "[ab]{0,8}") {
            fn brute(pattern: &[u8], name: &[u8]) -> bool {
                match pattern.split_first() {
                    None => name.is_empty(),
                    Some((b'*', rest)) => (0..=name.len()).any(|at| brute(rest, &name[at..])),
                    Some((byte, rest)) => name.first() == Some(byte) && brute(rest, &name[1..]),
                }
            }
            prop_assert_eq!(NamePattern::new(&pattern).matches(&name), brute(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
