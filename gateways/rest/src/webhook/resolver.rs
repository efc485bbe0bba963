//! Names to addresses that may be connected to, at every attempt and again for every new connection.

use super::guard::{self, PrivateTarget};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A name server that is slower than this has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a target cannot be gone to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// It may not be a target.
    #[error(transparent)]
    Private(#[from] PrivateTarget),
    /// Its name has no address, for now.
    #[error("the name {name} has no address: {why}")]
    Unknown {
        /// The name.
        name: String,
        /// What the system said.
        why: String,
    },
}

/// Resolves for the HTTP client, which connects to nothing else. Clones obey the same switch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver {
    allow_private: Arc<AtomicBool>,
}

impl Resolver {
    /// `allow_private_targets`.
    pub(crate) fn allow_private(&self, allow: bool) {
        self.allow_private.store(allow, Ordering::Release);
    }

    /// Whether this target can be gone to now.
    pub(crate) async fn check(&self, url: &Url) -> Result<(), Unreachable> {
        if let Some(address) = guard::literal(url) {
            return self.admit(&[SocketAddr::new(address, 0)]).map_err(Into::into);
        }
        self.addresses(url.host_str().unwrap_or_default()).await.map(drop)
    }

    async fn addresses(&self, name: &str) -> Result<Vec<SocketAddr>, Unreachable> {
        let unknown = |why: String| Unreachable::Unknown { name: name.to_owned(), why };
        let found = match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await {
            Err(_) => return Err(unknown("the name server does not answer".into())),
            Ok(Err(error)) => return Err(unknown(error.to_string())),
            Ok(Ok(found)) => found.collect::<Vec<_>>(),
        };
        if found.is_empty() {
            return Err(unknown("there is none".into()));
        }
        self.admit(&found)?;
        Ok(found)
    }

    fn admit(&self, addresses: &[SocketAddr]) -> Result<(), PrivateTarget> {
        if self.allow_private.load(Ordering::Acquire) {
            return Ok(());
        }
        guard::admit(addresses.iter().map(SocketAddr::ip))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let found = resolver.addresses(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_is_found_out_by_name_and_by_address() {
        let resolver = Resolver::default();
        for local in ["http://localhost:9/", "http://127.0.0.1/", "http://[::1]/", "http://0x7f.1/"] {
            let checked = resolver.check(&Url::parse(local).unwrap()).await;
            assert!(matches!(checked, Err(Unreachable::Private(_))), "{local}: {checked:?}");
        }
        resolver.clone().allow_private(true);
        assert!(resolver.check(&Url::parse("http://localhost:9/").unwrap()).await.is_ok());
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_no_private_target() {
        let checked = Resolver::default().check(&Url::parse("http://no-such-name.invalid/").unwrap()).await;
        assert!(matches!(checked, Err(Unreachable::Unknown { .. })), "{checked:?}");
    }
}
