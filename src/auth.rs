//! The host's side of the core's two ports: who clients are, and what they may.

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::{future::Future, pin::Pin};
use waystation_broker::{Action, Authenticate, Authorize, ClientId, Credentials, Peer, Principal, Refusal};

/// The `[auth]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Whether clients may come in without saying who they are: on loopback, or wherever
    /// [`Auth::anonymous_anywhere`] lets them.
    pub allow_anonymous: bool,
    /// Whether listeners beyond loopback may be open to everybody; without it they refuse to start.
    pub anonymous_anywhere: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self { allow_anonymous: true, anonymous_anywhere: false }
    }
}

/// The rights while no users are configured: whoever may come in is anonymous, whatever name and password he shows,
/// and may do everything.
#[derive(Debug)]
pub struct Policy(RwLock<Auth>);

impl Policy {
    /// The rights a table gives.
    #[must_use]
    pub fn new(auth: Auth) -> Self {
        Self(RwLock::new(auth))
    }

    /// Puts another table in place; connected clients stay.
    pub fn replace(&self, auth: Auth) {
        *self.0.write() = auth;
    }

    fn admit(&self, who: &Credentials, peer: Peer) -> Result<Principal, Refusal> {
        if let Credentials::Known(principal) = who {
            return Ok(principal.clone());
        }
        let auth = self.0.read();
        if auth.allow_anonymous && (peer.is_loopback() || auth.anonymous_anywhere) {
            Ok(Principal::anonymous())
        } else if matches!(who, Credentials::Anonymous) {
            Err(Refusal::NotAuthorized)
        } else {
            Err(Refusal::BadCredentials)
        }
    }
}

impl Authenticate for Policy {
    fn authenticate<'a>(
        &'a self,
        who: &'a Credentials,
        peer: Peer,
    ) -> Pin<Box<dyn Future<Output = Result<Principal, Refusal>> + Send + 'a>> {
        Box::pin(std::future::ready(self.admit(who, peer)))
    }
}

impl Authorize for Policy {
    fn may(&self, who: &Principal, client: Option<&ClientId>, action: Action<'_>) -> bool {
        waystation_broker::AllowAll.may(who, client, action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Peer = Peer::direct(std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5));
    const FAR: Peer =
        Peer::direct(std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 5));

    fn admit(auth: Auth, who: &Credentials, peer: Peer) -> Result<Principal, Refusal> {
        Policy::new(auth).admit(who, peer)
    }

    #[test]
    fn without_users_any_name_on_loopback_is_anonymous() {
        let named = Credentials::Password { user: "u".into(), password: None };
        assert_eq!(admit(Auth::default(), &named, NEAR).map(|p| p.name().is_none()), Ok(true));
    }

    #[test]
    fn anonymous_clients_from_elsewhere_need_anonymous_anywhere() {
        let anywhere = Auth { anonymous_anywhere: true, ..Auth::default() };
        assert_eq!(admit(Auth::default(), &Credentials::Anonymous, FAR), Err(Refusal::NotAuthorized));
        assert!(admit(anywhere, &Credentials::Anonymous, FAR).is_ok());
    }

    #[test]
    fn nobody_comes_in_when_anonymous_clients_are_refused_and_there_are_no_users() {
        let closed = Auth { allow_anonymous: false, anonymous_anywhere: true };
        let named = Credentials::Password { user: "u".into(), password: None };
        assert_eq!(admit(closed.clone(), &Credentials::Anonymous, NEAR), Err(Refusal::NotAuthorized));
        assert_eq!(admit(closed, &named, NEAR), Err(Refusal::BadCredentials));
    }
}
