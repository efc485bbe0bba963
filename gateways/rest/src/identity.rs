//! Who asks, and by what name.

use crate::{problem::Problem, state::App};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use waystation_broker::{Broker, ClientId, Credentials, Peer, Principal, Refusal};

/// Whoever sent a request, authenticated.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) principal: Principal,
    pub(crate) peer: Peer,
}

impl Who {
    /// Whoever sent a request with these headers from there.
    pub(crate) async fn ask(app: &App, peer: Peer, headers: &HeaderMap) -> Result<Self, Problem> {
        let credentials = credentials(headers)?;
        let principal = app.broker.authenticate(&credentials, peer).await.map_err(|refusal| match refusal {
            Refusal::BadCredentials | Refusal::NotAuthorized => match credentials {
                Credentials::Anonymous => Problem::Unauthenticated("this server asks who you are".into()),
                _ => Problem::Unauthenticated(refusal.to_string()),
            },
            other => other.into(),
        })?;
        Ok(Self { principal, peer })
    }

    /// Whether operators' calls are open.
    pub(crate) fn may_admin(&self, broker: &Broker) -> bool {
        broker.may_admin(&self.principal, self.peer)
    }

    /// Whether `session` may be one with `overflow = "reject"`.
    pub(crate) fn may_reject(&self, broker: &Broker, session: &ClientId) -> bool {
        broker.may_reject(&self.principal, Some(session), self.peer)
    }

    /// Whether a session made by `owner` is this one's too; an anonymous one is anybody's.
    pub(crate) fn owns(&self, owner: Option<&str>) -> bool {
        owner.is_none() || owner == self.principal.name()
    }
}

impl FromRequestParts<App> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        // The door said where from. Without a door (a test of the routes alone) it is the server.
        let peer = parts.extensions.get().copied().unwrap_or(Peer::INTERNAL);
        Self::ask(app, peer, &parts.headers).await
    }
}

/// Somebody who may use what is meant for operators.
pub(crate) struct Admin(pub(crate) Who);

impl FromRequestParts<App> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let who = Who::from_request_parts(parts, app).await?;
        if who.may_admin(&app.broker) {
            Ok(Self(who))
        } else {
            Err(Problem::Forbidden("the right `admin` is needed".into()))
        }
    }
}

/// What `Authorization` says (RFC 7617, RFC 6750).
fn credentials(headers: &HeaderMap) -> Result<Credentials, Problem> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(Credentials::Anonymous) };
    if lines.next().is_some() {
        return Err(Problem::BadRequest("the header Authorization stands twice".into()));
    }
    let bad = || Problem::Unauthenticated("the header Authorization is neither well-formed Basic nor Bearer".into());
    let (scheme, rest) = line.to_str().map_err(|_| bad())?.trim().split_once(' ').ok_or_else(bad)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Credentials::Token(rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(bad());
    }
    let decoded = STANDARD.decode(rest).map_err(|_| bad())?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or_else(bad)?;
    let user = std::str::from_utf8(&decoded[..colon]).map_err(|_| bad())?.to_owned();
    Ok(Credentials::Password { user, password: Some(decoded[colon + 1..].to_vec().into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn basic_and_bearer_are_read() {
        let basic = format!("Basic {}", STANDARD.encode("anna:pass:word"));
        match credentials(&with(&[("authorization", &basic)])) {
            Ok(Credentials::Password { user, password }) => {
                assert_eq!((user.as_str(), password.as_deref()), ("anna", Some(&b"pass:word"[..])));
            }
            _ => panic!("not read"),
        }
        let bearer = credentials(&with(&[("authorization", "bearer a.b.c")]));
        assert!(matches!(bearer, Ok(Credentials::Token(token)) if token == "a.b.c"));
        for bad in ["Basic", "Basic %%%", "Basic YQ==", "Digest x"] {
            assert!(matches!(credentials(&with(&[("authorization", bad)])), Err(Problem::Unauthenticated(_))), "{bad}");
        }
    }
}
