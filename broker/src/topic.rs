//! Topic names and topic filters as types that can only be valid (MQTT 5.0 §4.7, MQTT 3.1.1 §4.7).

use std::{borrow::Borrow, fmt, sync::Arc};

/// Longest topic name or filter in bytes: an MQTT UTF-8 string carries a 16-bit length [MQTT-4.7.3-3].
pub const MAX_TOPIC_BYTES: usize = 65_535;

/// A topic name one may publish to: not empty, UTF-8, no NUL, no wildcard.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// A topic filter, with its share group when it is a shared subscription.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter {
    text: Arc<str>,
    /// Byte length of `$share/{group}/`; zero for a filter that is not shared.
    prefix: u16,
}

/// Why a text is no topic name or no filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    /// Zero length [MQTT-4.7.3-1].
    #[error("is empty")]
    Empty,
    /// More than [`MAX_TOPIC_BYTES`].
    #[error("is longer than 65535 bytes")]
    TooLong,
    /// U+0000 [MQTT-4.7.3-2].
    #[error("holds the character U+0000")]
    Nul,
    /// Not UTF-8 [MQTT-1.5.4-1].
    #[error("is not UTF-8")]
    NotUtf8,
    /// `+` or `#` in a topic name [MQTT-3.3.2-2].
    #[error("holds a wildcard (+ or #), which only filters may")]
    Wildcard,
    /// `#` not at the end, or a wildcard that shares its level [MQTT-4.7.1-1], [MQTT-4.7.1-2].
    #[error("has a wildcard that does not stand alone in its level, or a # before the end")]
    MisplacedWildcard,
    /// `$share` without a group or without a filter [MQTT-4.8.2-1], [MQTT-4.8.2-2].
    #[error("is no shared subscription of the form $share/GROUP/FILTER")]
    Share,
}

impl Topic {
    /// Checks and keeps a topic name.
    ///
    /// # Errors
    /// What rule of §4.7 the text breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidTopic> {
        check_text(text)?;
        if text.bytes().any(|b| b == b'+' || b == b'#') {
            return Err(InvalidTopic::Wildcard);
        }
        Ok(Self(text.into()))
    }

    /// Like [`Topic::parse`], for bytes from the wire.
    ///
    /// # Errors
    /// What rule of §4.7 the bytes break.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidTopic> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| InvalidTopic::NotUtf8)?)
    }

    /// The topic name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Levels between slashes; never zero.
    #[must_use]
    pub fn levels(&self) -> usize {
        levels(&self.0)
    }

    /// The topic name, to be shared.
    pub(crate) fn text(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl Filter {
    /// Checks and keeps a topic filter, shared or not.
    ///
    /// # Errors
    /// What rule of §4.7 or §4.8.2 the text breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidTopic> {
        check_text(text)?;
        let prefix = share_prefix(text)?;
        let mut levels = text[prefix..].split('/').peekable();
        while let Some(level) = levels.next() {
            let wild = level.bytes().any(|b| b == b'+' || b == b'#');
            if wild && (level.len() != 1 || (level == "#" && levels.peek().is_some())) {
                return Err(InvalidTopic::MisplacedWildcard);
            }
        }
        let prefix = u16::try_from(prefix).map_err(|_| InvalidTopic::TooLong)?;
        Ok(Self { text: text.into(), prefix })
    }

    /// The filter as it was subscribed, `$share/{group}/` included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What topics are compared with: the filter without `$share/{group}/`.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.text[usize::from(self.prefix)..]
    }

    /// The group of a shared subscription.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        match usize::from(self.prefix) {
            0 => None,
            end => Some(&self.text["$share/".len()..end - 1]),
        }
    }

    /// Whether `+` or `#` occurs.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.pattern().bytes().any(|b| b == b'+' || b == b'#')
    }

    /// Levels between slashes of the pattern; never zero.
    #[must_use]
    pub fn levels(&self) -> usize {
        levels(self.pattern())
    }

    /// Whether messages on `topic` are meant (§4.7.1, §4.7.2).
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        matches(self.pattern(), topic.as_str())
    }
}

/// The matching rules on plain text, for callers that already hold valid ones.
#[must_use]
pub fn matches(pattern: &str, topic: &str) -> bool {
    // A leading wildcard matches no topic that begins with $ [MQTT-4.7.2-1].
    if topic.starts_with('$') && !pattern.starts_with('$') {
        return false;
    }
    let mut topic = topic.split('/');
    for level in pattern.split('/') {
        match level {
            "#" => return true, // the parent level too (§4.7.1.2)
            "+" if topic.next().is_some() => {}
            "+" => return false,
            _ if topic.next() == Some(level) => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

fn check_text(text: &str) -> Result<(), InvalidTopic> {
    match text.len() {
        0 => Err(InvalidTopic::Empty),
        n if n > MAX_TOPIC_BYTES => Err(InvalidTopic::TooLong),
        _ if text.bytes().any(|b| b == 0) => Err(InvalidTopic::Nul),
        _ => Ok(()),
    }
}

/// Byte length of `$share/{group}/`, zero when the filter is not shared.
fn share_prefix(text: &str) -> Result<usize, InvalidTopic> {
    if text == "$share" {
        return Err(InvalidTopic::Share);
    }
    let Some(rest) = text.strip_prefix("$share/") else { return Ok(0) };
    let (group, pattern) = rest.split_once('/').ok_or(InvalidTopic::Share)?;
    if group.is_empty() || pattern.is_empty() || group.contains(['+', '#']) {
        return Err(InvalidTopic::Share);
    }
    Ok(text.len() - pattern.len())
}

fn levels(text: &str) -> usize {
    1 + text.bytes().filter(|b| *b == b'/').count()
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_hold_no_wildcard_no_nul_and_are_not_empty() {
        assert_eq!(Topic::parse(""), Err(InvalidTopic::Empty));
        assert_eq!(Topic::parse("a/+"), Err(InvalidTopic::Wildcard));
        assert_eq!(Topic::parse("a\0"), Err(InvalidTopic::Nul));
        assert_eq!(Topic::from_bytes(b"\xff"), Err(InvalidTopic::NotUtf8));
        assert_eq!(Topic::parse(&"a".repeat(65_536)), Err(InvalidTopic::TooLong));
        assert!(Topic::parse("/").is_ok_and(|t| t.levels() == 2));
    }

    #[test]
    fn filters_have_their_wildcards_alone_in_a_level() {
        for good in ["#", "+", "a/#", "+/b/#", "/+", "$SYS/#", "a//b", "$share/g/a/+", "$share/g//"] {
            assert!(Filter::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "a#", "#/a", "a/b+", "++", "$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a"]
        {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shared_filters_know_group_and_pattern() {
        let filter = Filter::parse("$share/g/a/#").unwrap();
        assert_eq!((filter.group(), filter.pattern(), filter.levels()), (Some("g"), "a/#", 2));
    }

    #[test]
    fn matching_follows_the_examples_of_the_specification() {
        let cases = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/b", "A/b", false),
            ("a//b", "a//b", true),
        ];
        for (pattern, topic, expected) in cases {
            assert_eq!(matches(pattern, topic), expected, "{pattern} on {topic}");
        }
    }
}
