//! The host's side of the core's two ports: who clients are, and what they may.
//!
//! [`Auth`] is the table `[auth]`; [`Policy`] is what its files say. Users come from a password file, from tokens, or
//! by a name their gateway vouches for; rights from the rules of a token, then from those of the ACL file.

mod doorman;
mod file;
mod pattern;
mod policy;
mod rules;
mod token;
mod users;

pub use file::FileError;
pub use policy::Policy;
pub use token::Jwt;
pub use users::{set_password, set_password_in};

use rules::Rules;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The `[auth]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Whether clients may come in without saying who they are: on loopback, or wherever
    /// [`Auth::anonymous_anywhere`] lets them.
    pub allow_anonymous: bool,
    /// Whether listeners beyond loopback may be open to everybody; without it they refuse to start.
    pub anonymous_anywhere: bool,
    /// File of users and the hashes of their passwords; empty: none.
    pub password_file: String,
    /// File of rules; empty: whoever is in may publish and subscribe.
    pub acl_file: String,
    /// Whether passwords and tokens are taken over TLS only.
    pub require_tls: bool,
    /// `[auth.jwt]`.
    pub jwt: Jwt,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            allow_anonymous: true,
            anonymous_anywhere: false,
            password_file: String::new(),
            acl_file: String::new(),
            require_tls: false,
            jwt: Jwt::default(),
        }
    }
}

impl Auth {
    /// Whether anybody has a name here. Without users every name and password is taken as anonymous.
    #[must_use]
    pub fn has_users(&self) -> bool {
        !self.password_file.is_empty() || self.jwt.is_on()
    }

    /// What the types cannot say: the offending key, relative to the table, and what would be right.
    ///
    /// # Errors
    /// Values that do not go together.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let jwt = &self.jwt;
        if !jwt.secret_file.is_empty() && !jwt.public_key_file.is_empty() {
            return Err(("jwt.public_key_file", "stands beside secret_file; give one key, or the other".into()));
        }
        if !jwt.audience.is_empty() && !jwt.is_on() {
            return Err(("jwt.audience", "has no effect without a key; give secret_file or public_key_file".into()));
        }
        for (key, value) in [("jwt.user_claim", &jwt.user_claim), ("jwt.acl_claim", &jwt.acl_claim)] {
            if value.is_empty() {
                return Err((key, "is empty; give the name of a claim".into()));
            }
        }
        Ok(())
    }
}

/// How somebody proved to be a user; the grant of a [`waystation_broker::Principal`].
enum Login {
    /// With a password of this hash.
    Password { hash: Box<str> },
    /// With a token of this issue, which brought these rules.
    Token { issue: Arc<()>, rules: Rules },
}
