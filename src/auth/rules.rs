//! Who may do what: rules from the ACL file or from a token, the first that matches wins.

use super::pattern::{NamePattern, TopicPattern, covers};
use crate::config::{ConfigError, Layers, words};
use serde::Deserialize;
use toml::Value;
use waystation_broker::{Action, ClientId, topic::matches};

/// A list of rules in their order. Bounded by the file or token it was read from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules(Box<[Rule]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    user: Option<NamePattern>,
    client: Option<NamePattern>,
    allow: bool,
    rights: Box<[Right]>,
    topics: Box<[TopicPattern]>,
}

/// What a rule allows or denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Right {
    /// Publish.
    Publish,
    /// Subscribe, be given messages, read state.
    Subscribe,
    /// Run the place.
    Admin,
    /// Make sessions that may refuse other people's messages.
    Reject,
}

/// A rule as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    user: Option<String>,
    client: Option<String>,
    allow: Option<Vec<Right>>,
    deny: Option<Vec<Right>>,
    topics: Option<Vec<String>>,
}

/// What is wrong with a rule: the key below it, and why.
type Wrong = (String, String);

impl Rules {
    /// Reads an ACL file's text; `name` stands for it in messages. An empty one denies everything.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let layers = Layers::default().with_text(name, text)?;
        if let Some(key) = layers.table().keys().find(|key| *key != "rule") {
            return Err(layers.error(key, words::unknown(key, ["rule"])));
        }
        let written = match layers.table().get("rule") {
            None => &Vec::new(),
            Some(Value::Array(written)) => written,
            Some(_) => return Err(layers.error("rule", "expected a list of rules, each begun by [[rule]]")),
        };
        let rules = written.iter().enumerate().map(|(index, rule)| {
            Rule::read(rule.clone()).map_err(|(key, why)| layers.error(&below(format!("rule[{index}]"), &key), why))
        });
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// Reads the rules of a token.
    pub(super) fn from_claim(claim: &serde_json::Value) -> Result<Self, String> {
        let list = claim.as_array().ok_or("is no list of rules")?;
        let rules = list.iter().enumerate().map(|(index, rule)| {
            Rule::read(rule.clone()).map_err(|(key, why)| format!("{}: {why}", below(format!("rule[{index}]"), &key)))
        });
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// What the first rule that matches says; `None` when none does.
    pub(super) fn say(&self, user: Option<&str>, client: Option<&ClientId>, action: Action<'_>) -> Option<bool> {
        let rule = self.0.iter().find(|rule| rule.speaks_of(user, client) && rule.fits(user, client, action))?;
        Some(rule.allow)
    }
}

impl Rule {
    fn read<'de, D>(written: D) -> Result<Self, Wrong>
    where
        D: serde::Deserializer<'de>,
        D::Error: std::fmt::Display,
    {
        let written: Written = serde_path_to_error::deserialize(written).map_err(|error| {
            let key = error.path().to_string();
            (
                if key == "." { String::new() } else { key },
                words::plain(error.inner().to_string().lines().next().unwrap_or_default()),
            )
        })?;
        written.try_into()
    }

    fn speaks_of(&self, user: Option<&str>, client: Option<&ClientId>) -> bool {
        let fits = |pattern: &Option<NamePattern>, name: Option<&str>| match pattern {
            None => true,
            Some(pattern) => name.is_some_and(|name| pattern.matches(name)),
        };
        fits(&self.user, user) && fits(&self.client, client.map(ClientId::as_str))
    }

    fn fits(&self, user: Option<&str>, client: Option<&ClientId>, action: Action<'_>) -> bool {
        let has = |right| self.rights.contains(&right);
        let any = |fits: &dyn Fn(&str) -> bool| {
            self.topics.iter().any(|topic| topic.of(user, client).is_some_and(|pattern| fits(&pattern)))
        };
        match action {
            Action::Publish(topic) => has(Right::Publish) && any(&|pattern| matches(pattern, topic.as_str())),
            Action::Receive(topic) => has(Right::Subscribe) && any(&|pattern| matches(pattern, topic.as_str())),
            Action::Subscribe(filter) => has(Right::Subscribe) && any(&|pattern| covers(pattern, filter.pattern())),
            Action::Admin(_) => has(Right::Admin),
            Action::Reject(_) => has(Right::Reject),
        }
    }
}

fn below(rule: String, key: &str) -> String {
    if key.is_empty() { rule } else { format!("{rule}.{key}") }
}

impl TryFrom<Written> for Rule {
    type Error = Wrong;

    fn try_from(written: Written) -> Result<Self, Wrong> {
        let name = |key: &str, name: Option<String>| match name.as_deref() {
            Some("") => Err((key.into(), "is empty and matches nobody; leave it out for everybody".into())),
            name => Ok(name.map(NamePattern::new)),
        };
        let (allow, rights) = match (written.allow, written.deny) {
            (Some(rights), None) => (true, rights),
            (None, Some(rights)) => (false, rights),
            (None, None) => return Err((String::new(), "says neither `allow` nor `deny`; give one of them".into())),
            (Some(_), Some(_)) => {
                return Err((
                    "deny".into(),
                    "stands beside `allow`; make two rules of it, the first that matches wins".into(),
                ));
            }
        };
        if rights.is_empty() {
            let key = if allow { "allow" } else { "deny" };
            return Err((key.into(), "is empty; known rights: publish, subscribe, admin, reject".into()));
        }
        let about_topics = rights.iter().any(|right| matches!(right, Right::Publish | Right::Subscribe));
        let topics = written.topics.unwrap_or_default();
        if topics.is_empty() && about_topics {
            return Err((String::new(), "names no topics; for all of them say topics = [\"#\", \"$SYS/#\"]".into()));
        }
        let topics = topics.iter().enumerate().map(|(index, text)| {
            TopicPattern::parse(text).map_err(|error| (format!("topics[{index}]"), format!("\"{text}\" {error}")))
        });
        Ok(Self {
            user: name("user", written.user)?,
            client: name("client", written.client)?,
            allow,
            rights: rights.into(),
            topics: topics.collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waystation_broker::{Filter, Peer, Topic};

    fn rules(text: &str) -> Rules {
        Rules::parse("acl.toml", text).unwrap()
    }

    fn error(text: &str) -> String {
        Rules::parse("acl.toml", text).expect_err(text).to_string()
    }

    struct Asking<'a>(&'a Rules, Option<&'a str>, Option<ClientId>);

    impl Asking<'_> {
        fn publish(&self, topic: &str) -> Option<bool> {
            self.0.say(self.1, self.2.as_ref(), Action::Publish(&Topic::parse(topic).unwrap()))
        }
        fn receive(&self, topic: &str) -> Option<bool> {
            self.0.say(self.1, self.2.as_ref(), Action::Receive(&Topic::parse(topic).unwrap()))
        }
        fn subscribe(&self, filter: &str) -> Option<bool> {
            self.0.say(self.1, self.2.as_ref(), Action::Subscribe(&Filter::parse(filter).unwrap()))
        }
        fn admin(&self) -> Option<bool> {
            self.0.say(self.1, self.2.as_ref(), Action::Admin(Peer::INTERNAL))
        }
    }

    fn ask<'a>(rules: &'a Rules, user: Option<&'a str>, client: &str) -> Asking<'a> {
        Asking(rules, user, ClientId::new(client))
    }

    #[test]
    fn the_first_rule_that_matches_wins_and_nothing_matching_says_nothing() {
        let rules = rules(
            r#"
            [[rule]]
            user = "anna"
            deny = ["publish"]
            topics = ["a/secret"]
            [[rule]]
            user = "anna"
            allow = ["publish", "subscribe"]
            topics = ["a/#"]
            [[rule]]
            user = "anna"
            deny = ["publish"]
            topics = ["a/b"]
            "#,
        );
        let anna = ask(&rules, Some("anna"), "c");
        assert_eq!(anna.publish("a/secret"), Some(false));
        assert_eq!(anna.publish("a/b"), Some(true));
        assert_eq!(anna.receive("a/secret"), Some(true));
        assert_eq!(anna.publish("b"), None);
        assert_eq!(ask(&rules, Some("ben"), "c").publish("a/b"), None);
        assert_eq!(ask(&rules, None, "c").publish("a/b"), None);
    }

    #[test]
    fn user_and_client_of_a_rule_must_both_fit() {
        let rules = rules(
            "[[rule]]\nuser = \"a*\"\nclient = \"board-*\"\nallow = [\"publish\"]\ntopics = [\"t\"]\n\
             [[rule]]\nuser = \"*\"\ndeny = [\"publish\"]\ntopics = [\"t\"]\n",
        );
        assert_eq!(ask(&rules, Some("anna"), "board-1").publish("t"), Some(true));
        assert_eq!(ask(&rules, Some("anna"), "desk-1").publish("t"), Some(false));
        assert_eq!(ask(&rules, None, "board-1").publish("t"), None, "nobody has no name that * could match");
    }

    #[test]
    fn a_wildcard_subscription_is_decided_by_the_first_pattern_that_covers_it() {
        let rules = rules(
            "[[rule]]\ndeny = [\"subscribe\"]\ntopics = [\"a/secret/#\"]\n\
             [[rule]]\nallow = [\"subscribe\"]\ntopics = [\"a/#\", \"+/%c\"]\n",
        );
        let client = ask(&rules, None, "c1");
        assert_eq!(client.subscribe("a/#"), Some(true));
        assert_eq!(client.receive("a/secret/x"), Some(false), "the narrower rule applies at delivery");
        assert_eq!(client.subscribe("a/secret/+"), Some(false));
        assert_eq!(client.subscribe("$share/g/a/+"), Some(true));
        assert_eq!(client.subscribe("+/c1"), Some(true));
        assert_eq!(client.subscribe("+/c2"), None);
        assert_eq!(client.subscribe("#"), None);
        assert_eq!(client.receive("$SYS/c1"), None, "a leading wildcard does not match $ topics");
    }

    #[test]
    fn operators_rights_ignore_topics() {
        let rules = rules("[[rule]]\nuser = \"root\"\nallow = [\"admin\", \"reject\"]\n");
        assert_eq!(ask(&rules, Some("root"), "c").admin(), Some(true));
        assert_eq!(ask(&rules, Some("anna"), "c").admin(), None);
        assert_eq!(ask(&rules, Some("root"), "c").publish("a"), None);
    }

    #[test]
    fn the_shipped_example_says_what_its_comments_say() {
        let rules = Rules::parse("acl.example.toml", include_str!("../../config/acl.example.toml")).unwrap();
        let operator = ask(&rules, Some("operator"), "c");
        assert_eq!(
            (operator.admin(), operator.subscribe("$SYS/#"), operator.publish("any")),
            (Some(true), Some(true), Some(true))
        );
        let anna = ask(&rules, Some("anna"), "phone");
        assert_eq!(anna.subscribe("house/#"), Some(true));
        assert_eq!(anna.receive("house/doors/front/code"), Some(false));
        assert_eq!(anna.receive("house/doors/front/state"), Some(true));
        assert_eq!(
            (anna.publish("people/anna/x"), anna.publish("people/ben/x"), anna.publish("house/x")),
            (Some(true), None, None)
        );
        let board = ask(&rules, None, "board-7");
        assert_eq!((board.publish("boards/board-7/t"), board.publish("boards/board-8/t")), (Some(true), None));
        assert_eq!(anna.admin(), None);
    }

    #[test]
    fn an_empty_file_is_no_rule_at_all() {
        assert_eq!(rules("# nobody\n"), Rules::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        let text =
            error("[[rule]]\nallow = [\"publish\"]\ntopics = [\"a\"]\n[[rule]]\nusr = \"x\"\nallow = [\"admin\"]\n");
        assert!(text.starts_with("acl.toml:5: rule[1].usr: unknown key; did you mean `user`?"), "{text}");
        let text = error("[[rule]]\nallow = [\"publish\",\n  \"publsh\"]\ntopics = [\"a\"]\n");
        assert!(text.starts_with("acl.toml:3: rule[0].allow[1]: ") && text.contains("`reject`"), "{text}");
        let text = error("[[rule]]\nallow = [\"publish\"]\ntopics = [\"a\",\n\"b/#/c\"]\n");
        assert!(text.starts_with("acl.toml:4: rule[0].topics[1]: \"b/#/c\" "), "{text}");
        assert!(error("[[rule]]\nuser = \"x\"\n").starts_with("acl.toml:1: rule[0]: says neither"));
        assert!(error("[[rule]]\nallow = [\"publish\"]\n").starts_with("acl.toml:1: rule[0]: names no topics"));
        assert!(
            error("[[rule]]\nallow = [\"admin\"]\ndeny = [\"reject\"]\n").starts_with("acl.toml:3: rule[0].deny: ")
        );
        assert!(error("[[rules]]\n").starts_with("acl.toml:1: rules: unknown key; did you mean `rule`?"));
        assert!(error("rule = 3\n").starts_with("acl.toml:1: rule: expected a list"));
        assert!(error("[[rule\n").starts_with("acl.toml:1: this is not TOML"));
    }

    #[test]
    fn rules_of_a_token_have_the_same_shape() {
        let claim = serde_json::json!([{ "allow": ["publish"], "topics": ["a/%u"] }]);
        let rules = Rules::from_claim(&claim).unwrap();
        assert_eq!(ask(&rules, Some("anna"), "c").publish("a/anna"), Some(true));
        assert!(Rules::from_claim(&serde_json::json!({})).is_err());
        let wrong = Rules::from_claim(&serde_json::json!([{ "allow": ["fly"] }])).unwrap_err();
        assert!(wrong.starts_with("rule[0].allow[0]: "), "{wrong}");
    }
}
