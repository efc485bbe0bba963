use super::*;
use crate::auth::{Jwt, set_password};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use waystation_broker::{Filter, Time, Topic};

fn near() -> Peer {
    Peer::direct("127.0.0.1:5".parse().unwrap())
}

fn far() -> Peer {
    Peer::direct("192.0.2.1:5".parse().unwrap())
}

fn named(user: &str, password: &str) -> Credentials {
    Credentials::Password { user: user.into(), password: Some(password.to_owned().into()) }
}

/// Files in a folder of their own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn users(&self, users: &[(&str, &str)]) -> String {
        let text = users
            .iter()
            .fold(String::new(), |text, (user, password)| set_password(&text, user, password.as_bytes()).unwrap());
        self.put("users", text)
    }
}

fn policy(auth: Auth) -> Policy {
    Policy::read(auth).unwrap()
}

async fn admit(auth: Auth, who: &Credentials, peer: Peer) -> Result<Option<String>, Refusal> {
    policy(auth).authenticate(who, peer).await.map(|who| who.name().map(str::to_owned))
}

fn publish(policy: &Policy, who: &Principal, topic: &str) -> bool {
    policy.may(who, None, Action::Publish(&Topic::parse(topic).unwrap()))
}

#[tokio::test]
async fn without_users_any_name_on_loopback_is_anonymous() {
    assert_eq!(admit(Auth::default(), &named("u", "p"), near()).await, Ok(None));
    assert_eq!(admit(Auth::default(), &Credentials::Token("x".into()), near()).await, Ok(None));
    assert_eq!(admit(Auth::default(), &Credentials::Vouched("cn".into()), far()).await, Ok(Some("cn".into())));
}

#[tokio::test]
async fn anonymous_clients_from_elsewhere_need_anonymous_anywhere_or_a_certificate() {
    let anywhere = Auth { anonymous_anywhere: true, ..Auth::default() };
    assert_eq!(admit(Auth::default(), &Credentials::Anonymous, far()).await, Err(Refusal::NotAuthorized));
    assert_eq!(admit(Auth::default(), &Credentials::Anonymous, far().encrypted()).await, Err(Refusal::NotAuthorized));
    assert_eq!(admit(Auth::default(), &Credentials::Anonymous, far().certified()).await, Ok(None));
    assert_eq!(admit(anywhere, &Credentials::Anonymous, far()).await, Ok(None));
}

#[tokio::test]
async fn nobody_comes_in_when_anonymous_clients_are_refused_and_there_are_no_users() {
    let closed = Auth { allow_anonymous: false, anonymous_anywhere: true, ..Auth::default() };
    assert_eq!(admit(closed.clone(), &Credentials::Anonymous, near()).await, Err(Refusal::NotAuthorized));
    assert_eq!(admit(closed, &named("u", "p"), near()).await, Err(Refusal::BadCredentials));
}

#[tokio::test]
async fn with_users_a_name_needs_its_password() {
    let place = Place::new();
    let auth = Auth { password_file: place.users(&[("anna", "secret")]), ..Auth::default() };
    let policy = policy(auth);
    let anna = policy.authenticate(&named("anna", "secret"), far()).await.unwrap();
    assert_eq!(anna.name(), Some("anna"));
    assert_eq!(policy.authenticate(&named("anna", "secret"), far()).await, Ok(anna), "remembered, and the same");
    for (user, password) in [("anna", "Secret"), ("anna", ""), ("ben", "secret"), ("", "secret")] {
        let refused = policy.authenticate(&named(user, password), near()).await;
        assert_eq!(refused, Err(Refusal::BadCredentials), "{user} {password}");
    }
    let without = Credentials::Password { user: "anna".into(), password: None };
    assert_eq!(policy.authenticate(&without, near()).await, Err(Refusal::BadCredentials));
    assert!(policy.authenticate(&Credentials::Anonymous, near()).await.is_ok(), "on loopback, unless switched off");
}

#[tokio::test]
async fn passwords_over_plain_connections_are_refused_where_tls_is_required() {
    let place = Place::new();
    let auth = Auth { password_file: place.users(&[("anna", "x")]), require_tls: true, ..Auth::default() };
    let policy = policy(auth);
    for who in [named("anna", "x"), Credentials::Token("a.b.c".into())] {
        assert_eq!(policy.authenticate(&who, near()).await, Err(Refusal::EncryptionRequired));
    }
    assert!(policy.authenticate(&named("anna", "x"), near().encrypted()).await.is_ok());
    assert!(policy.authenticate(&Credentials::Anonymous, near()).await.is_ok(), "there is nothing to read along");
}

#[test]
fn running_the_place_is_for_this_machine_until_there_are_users() {
    let may = |policy: &Policy, peer| policy.may(&Principal::anonymous(), None, Action::Admin(peer));
    let open = policy(Auth { anonymous_anywhere: true, ..Auth::default() });
    assert!(may(&open, near()) && may(&open, Peer::INTERNAL));
    assert!(!may(&open, far()));
    assert!(!may(&open, Peer::proxied("127.0.0.1:5".parse().unwrap())));
    let place = Place::new();
    let auth = Auth { password_file: place.users(&[("root", "x")]), ..Auth::default() };
    let root = Principal::user("root", None);
    assert!(!policy(auth.clone()).may(&root, None, Action::Admin(near())), "users, and no rule that says so");
    let acl_file = place.put("acl", "[[rule]]\nuser = \"root\"\nallow = [\"admin\"]\n");
    let ruled = policy(Auth { acl_file, ..auth });
    assert!(ruled.may(&root, None, Action::Admin(far())));
    assert!(!ruled.may(&root, None, Action::Reject(near())));
    assert!(!may(&ruled, near()));
}

#[test]
fn an_empty_acl_file_denies_everything_and_none_allows_topics() {
    let place = Place::new();
    let (anna, filter) = (Principal::user("anna", None), Filter::parse("a").unwrap());
    let open = policy(Auth::default());
    assert!(publish(&open, &anna, "a") && open.may(&anna, None, Action::Subscribe(&filter)));
    let closed = policy(Auth { acl_file: place.put("acl", "# nothing yet\n"), ..Auth::default() });
    assert!(!publish(&closed, &anna, "a") && !closed.may(&anna, None, Action::Subscribe(&filter)));
}

#[test]
fn files_that_are_not_there_or_hold_nothing_are_named() {
    let place = Place::new();
    let error = |auth: Auth| match Policy::read(auth) {
        Ok(_) => panic!("taken"),
        Err(error) => error.to_string(),
    };
    let text = error(Auth { password_file: "/nowhere/users".into(), ..Auth::default() });
    assert!(text.starts_with("/nowhere/users: cannot be read: ") && text.ends_with("(auth.password_file)"), "{text}");
    assert!(error(Auth { password_file: place.put("empty", ""), ..Auth::default() }).contains("holds no user"));
    assert!(error(Auth { acl_file: "/nowhere/acl".into(), ..Auth::default() }).ends_with("(auth.acl_file)"));
    let jwt = |jwt| error(Auth { jwt, ..Auth::default() });
    let secret_file = place.put("secret", "\n");
    assert!(jwt(Jwt { secret_file, ..Jwt::default() }).contains("is empty"));
    let public_key_file = place.put("pem", "no key");
    assert!(jwt(Jwt { public_key_file, ..Jwt::default() }).contains("holds no public key"));
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_who_is_gone_from_a_good_one_is_not_admitted_any_more() {
    let place = Place::new();
    let auth = Auth { password_file: place.users(&[("anna", "a"), ("ben", "b"), ("carl", "c")]), ..Auth::default() };
    let policy = policy(auth.clone());
    let mut people = Vec::new();
    for (user, password) in [("anna", "a"), ("ben", "b"), ("carl", "c")] {
        people.push(policy.authenticate(&named(user, password), far()).await.unwrap());
    }
    let text = std::fs::read_to_string(&auth.password_file).unwrap();
    place.put("users", "anna\n");
    assert!(policy.reload(auth.clone()).unwrap_err().to_string().contains(":1: auth.password_file: expected"));
    assert!(people.iter().all(|who| policy.still_admits(who, far())));
    // Ben is gone, Carl has another password.
    let without_ben: String = text.lines().filter(|line| !line.starts_with("ben:")).map(|l| format!("{l}\n")).collect();
    place.put("users", set_password(&without_ben, "carl", b"other").unwrap());
    policy.reload(auth).unwrap();
    let admitted: Vec<bool> = people.iter().map(|who| policy.still_admits(who, far())).collect();
    assert_eq!(admitted, [true, false, false]);
    assert_eq!(policy.authenticate(&named("ben", "b"), far()).await, Err(Refusal::BadCredentials), "not remembered");
    assert!(policy.authenticate(&named("carl", "other"), far()).await.is_ok());
    assert!(!policy.still_admits(&Principal::anonymous(), far()) && policy.still_admits(&people[0], near()));
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    sign(Algorithm::HS256, &EncodingKey::from_secret(b"top secret"), claims)
}

fn with_secret(place: &Place) -> Auth {
    let jwt = Jwt { secret_file: place.put("secret", "top secret\n"), ..Jwt::default() };
    Auth { jwt, ..Auth::default() }
}

/// Seconds since the epoch, some time from now.
fn soon(seconds: i64) -> i64 {
    i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap() + seconds
}

#[tokio::test]
async fn a_token_names_its_user_and_its_end() {
    let place = Place::new();
    let policy = policy(with_secret(&place));
    let end = soon(60);
    let token = hs256(&json!({ "sub": "anna", "exp": end }));
    let who = policy.authenticate(&Credentials::Token(token.clone()), far()).await.unwrap();
    assert_eq!(who.name(), Some("anna"));
    assert_eq!(who.expires(), Some(Time(u64::try_from(end).unwrap() * 1_000)));
    let as_password = policy.authenticate(&named("whatever", &token), far()).await.unwrap();
    assert_eq!(as_password.name(), Some("anna"), "the token says who it is");
    assert!(policy.still_admits(&who, far()));
    let endless = policy.authenticate(&Credentials::Token(hs256(&json!({ "sub": "anna" }))), far()).await.unwrap();
    assert_eq!(endless.expires(), None);
}

#[tokio::test]
async fn a_token_that_is_over_forged_or_for_others_is_refused() {
    let place = Place::new();
    let auth = with_secret(&place);
    let strict = Auth { jwt: Jwt { audience: "broker".into(), ..auth.jwt.clone() }, ..auth.clone() };
    let (policy, strict) = (policy(auth), policy(strict));
    let good = json!({ "sub": "anna", "exp": soon(60), "aud": ["x", "broker"] });
    let refused = [
        hs256(&json!({ "sub": "anna", "exp": soon(-1) })),
        hs256(&json!({ "sub": "anna", "nbf": soon(60) })),
        hs256(&json!({ "user": "anna" })),
        hs256(&json!({ "sub": "" })),
        hs256(&json!({ "sub": "anna", "acl": [{ "allow": ["fly"] }] })),
        sign(Algorithm::HS256, &EncodingKey::from_secret(b"other"), &good),
        sign(Algorithm::HS512, &EncodingKey::from_secret(b"top secret"), &good),
        format!("{}.", &hs256(&good)[..hs256(&good).rfind('.').unwrap()]),
        "no token".to_owned(),
    ];
    for token in refused {
        let answer = policy.authenticate(&Credentials::Token(token.clone()), near()).await;
        assert_eq!(answer, Err(Refusal::BadCredentials), "{token}");
    }
    assert!(strict.authenticate(&Credentials::Token(hs256(&good)), far()).await.is_ok());
    for claims in [json!({ "sub": "anna" }), json!({ "sub": "anna", "aud": "others" })] {
        assert!(strict.authenticate(&Credentials::Token(hs256(&claims)), far()).await.is_err(), "{claims}");
    }
}

#[tokio::test]
async fn the_rules_of_a_token_come_before_those_of_the_file() {
    let place = Place::new();
    let acl_file = place.put("acl", "[[rule]]\nallow = [\"publish\"]\ntopics = [\"a/#\"]\n");
    let policy = policy(Auth { acl_file, ..with_secret(&place) });
    let acl = json!([
        { "deny": ["publish"], "topics": ["a/secret"] },
        { "allow": ["publish"], "topics": ["own/%u"] },
        { "user": "ben", "allow": ["publish"], "topics": ["#"] },
    ]);
    let token = Credentials::Token(hs256(&json!({ "sub": "anna", "acl": acl })));
    let anna = policy.authenticate(&token, far()).await.unwrap();
    let may: Vec<bool> =
        ["a/b", "a/secret", "own/anna", "own/ben"].iter().map(|topic| publish(&policy, &anna, topic)).collect();
    assert_eq!(may, [true, false, true, false]);
    let plain = policy.authenticate(&Credentials::Token(hs256(&json!({ "sub": "anna" }))), far()).await.unwrap();
    assert!(publish(&policy, &plain, "a/secret"));
}

#[tokio::test]
async fn another_key_ends_what_tokens_of_the_old_one_began() {
    let place = Place::new();
    let auth = with_secret(&place);
    let policy = policy(auth.clone());
    let who = policy.authenticate(&Credentials::Token(hs256(&json!({ "sub": "anna" }))), far()).await.unwrap();
    policy.reload(auth.clone()).unwrap();
    assert!(policy.still_admits(&who, far()));
    place.put("secret", "another");
    policy.reload(auth).unwrap();
    assert!(!policy.still_admits(&who, far()));
}

#[tokio::test]
async fn public_keys_of_all_three_kinds_are_told_by_what_they_are() {
    for (algorithm, private, public) in [
        (Algorithm::RS256, include_str!("keys/rsa.pem"), include_str!("keys/rsa.pub.pem")),
        (Algorithm::ES256, include_str!("keys/p256.pem"), include_str!("keys/p256.pub.pem")),
        (Algorithm::EdDSA, include_str!("keys/ed25519.pem"), include_str!("keys/ed25519.pub.pem")),
    ] {
        let place = Place::new();
        let jwt = Jwt { public_key_file: place.put("key", public), user_claim: "name".into(), ..Jwt::default() };
        let policy = policy(Auth { jwt, ..Auth::default() });
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(private.as_bytes()),
            Algorithm::ES256 => EncodingKey::from_ec_pem(private.as_bytes()),
            _ => EncodingKey::from_ed_pem(private.as_bytes()),
        };
        let claims = json!({ "name": "anna" });
        let good = Credentials::Token(sign(algorithm, &key.unwrap(), &claims));
        assert_eq!(policy.authenticate(&good, far()).await.map(|who| who.name() == Some("anna")), Ok(true));
        // The public key is public: it must not be taken for a secret.
        let forged = sign(Algorithm::HS256, &EncodingKey::from_secret(public.as_bytes()), &claims);
        assert_eq!(policy.authenticate(&Credentials::Token(forged), far()).await, Err(Refusal::BadCredentials));
    }
}

#[test]
fn a_key_of_a_curve_that_es256_does_not_know_is_refused() {
    let place = Place::new();
    let jwt = Jwt { public_key_file: place.put("key", include_str!("keys/p384.pub.pem")), ..Jwt::default() };
    assert!(Policy::read(Auth { jwt, ..Auth::default() }).is_err());
}
