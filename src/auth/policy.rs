//! The two ports of the core: letting in, and deciding on rights.

use super::{
    Auth, FileError, Login,
    doorman::{Doorman, Remembered},
    file,
    rules::Rules,
    token::{self, Tokens},
    users::Users,
};
use bytes::Bytes;
use parking_lot::RwLock;
use std::{future::Future, pin::Pin, sync::Arc};
use waystation_broker::{Action, Authenticate, Authorize, ClientId, Credentials, Peer, Principal, Refusal};

/// Who clients are and what they may, as `[auth]` and its files say.
pub struct Policy {
    /// Replaced whole. Held for a decision, never over an await.
    table: RwLock<Arc<Table>>,
    doorman: Doorman,
}

/// What was read last.
struct Table {
    auth: Auth,
    users: Option<Users>,
    remembered: Remembered,
    tokens: Option<Tokens>,
    /// `None`: there is no ACL file.
    rules: Option<Rules>,
}

impl Policy {
    /// Reads the files that `auth` names.
    ///
    /// # Errors
    /// A file that is unreadable, empty or wrong.
    pub fn read(auth: Auth) -> Result<Self, FileError> {
        Ok(Self { table: RwLock::new(Arc::new(Table::read(auth, None)?)), doorman: Doorman::new() })
    }

    /// Reads the files anew; tell the broker afterwards ([`waystation_broker::Broker::policy_changed`]).
    ///
    /// # Errors
    /// A file that is unreadable, empty or wrong; then everything stays as it was.
    pub fn reload(&self, auth: Auth) -> Result<(), FileError> {
        let before = self.table.read().clone();
        let table = Table::read(auth, Some(&before))?;
        *self.table.write() = Arc::new(table);
        Ok(())
    }

    async fn admit(&self, who: &Credentials, peer: Peer) -> Result<Principal, Refusal> {
        let table = self.table.read().clone();
        match who {
            Credentials::Known(principal) => Ok(principal.clone()),
            Credentials::Vouched(name) => Ok(Principal::user(name, None)),
            Credentials::Anonymous => table.admit_nobody(peer).ok_or(Refusal::NotAuthorized),
            _ if table.auth.require_tls && !peer.is_encrypted() => Err(Refusal::EncryptionRequired),
            _ if !table.auth.has_users() => table.admit_nobody(peer).ok_or(Refusal::BadCredentials),
            Credentials::Token(token) => table.admit_token(token),
            Credentials::Password { user, password } => {
                let password = password.as_ref().ok_or(Refusal::BadCredentials)?;
                self.admit_password(&table, user, password, peer).await
            }
        }
    }

    async fn admit_password(
        &self,
        table: &Table,
        user: &str,
        password: &Bytes,
        peer: Peer,
    ) -> Result<Principal, Refusal> {
        let text = std::str::from_utf8(password).ok();
        if let Some(token) = text.filter(|text| table.tokens.is_some() && token::is_shaped_like_one(text)) {
            return table.admit_token(token);
        }
        let users = table.users.as_ref().ok_or(Refusal::BadCredentials)?;
        self.doorman.check(users, &table.remembered, (user, password), peer).await
    }
}

impl Table {
    fn read(auth: Auth, before: Option<&Self>) -> Result<Self, FileError> {
        let users = match auth.password_file.as_str() {
            "" => None,
            name => Some(Users::read(name, before.and_then(|before| before.users.as_ref()))?),
        };
        let rules = match auth.acl_file.as_str() {
            "" => None,
            name => Some(Rules::parse(name, &file::read_text(name, "auth.acl_file")?)?),
        };
        let tokens = Tokens::read(&auth.jwt, before.and_then(|before| before.tokens.as_ref()))?;
        Ok(Self { auth, users, remembered: Remembered::default(), tokens, rules })
    }

    /// Somebody without a name, if he may be here.
    fn admit_nobody(&self, peer: Peer) -> Option<Principal> {
        let here = peer.is_loopback() || peer.is_certified() || self.auth.anonymous_anywhere;
        (self.auth.allow_anonymous && here).then(Principal::anonymous)
    }

    fn admit_token(&self, token: &str) -> Result<Principal, Refusal> {
        let tokens = self.tokens.as_ref().ok_or(Refusal::BadCredentials)?;
        tokens.check(token).map_err(|why| {
            tracing::info!(why, "token refused");
            Refusal::BadCredentials
        })
    }

    fn still_admits(&self, who: &Principal, peer: Peer) -> bool {
        let Some(name) = who.name() else { return self.admit_nobody(peer).is_some() };
        match login(who) {
            Some(Login::Password { hash }) => self.users.as_ref().is_some_and(|users| users.has(name, hash)),
            Some(Login::Token { issue, .. }) => self.tokens.as_ref().is_some_and(|tokens| tokens.is_of(issue)),
            // Whoever vouched for him answers for him.
            None => true,
        }
    }

    fn may(&self, who: &Principal, client: Option<&ClientId>, action: Action<'_>) -> bool {
        let of_token = match login(who) {
            Some(Login::Token { rules, .. }) => rules.say(who.name(), client, action),
            _ => None,
        };
        let of_file = || self.rules.as_ref().and_then(|rules| rules.say(who.name(), client, action));
        of_token.or_else(of_file).unwrap_or_else(|| match action {
            Action::Publish(_) | Action::Subscribe(_) | Action::Receive(_) => self.rules.is_none(),
            Action::Admin(peer) | Action::Reject(peer) => !self.auth.has_users() && peer.is_local(),
        })
    }
}

fn login(who: &Principal) -> Option<&Login> {
    who.grant()?.downcast_ref()
}

impl Authenticate for Policy {
    fn authenticate<'a>(
        &'a self,
        who: &'a Credentials,
        peer: Peer,
    ) -> Pin<Box<dyn Future<Output = Result<Principal, Refusal>> + Send + 'a>> {
        Box::pin(self.admit(who, peer))
    }

    fn still_admits(&self, who: &Principal, peer: Peer) -> bool {
        self.table.read().still_admits(who, peer)
    }

    fn knows_users(&self) -> bool {
        self.table.read().auth.has_users()
    }
}

impl Authorize for Policy {
    fn may(&self, who: &Principal, client: Option<&ClientId>, action: Action<'_>) -> bool {
        self.table.read().may(who, client, action)
    }
}

#[cfg(test)]
mod tests;
