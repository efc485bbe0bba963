//! What the specifications demand of a server, checked byte by byte on a socket. `docs/conformance.md` says which
//! statement is shown where; what both versions share goes through the same test.

mod connect;
mod delivery;
mod flow;
mod properties;
mod publish;
mod retained;
mod sessions;
mod shared;
mod subscribe;
mod table;
mod topics;
mod wills;

use crate::harness::Server;
use waystation_mqtt::codec::Version;

/// Every version that is spoken today.
const BOTH: [Version; 2] = [Version::V3_1_1, Version::V5];

/// Runs a check with both versions, each on a server of its own.
fn both(check: impl Fn(&Server, Version)) {
    for version in BOTH {
        eprintln!("with {version:?}");
        check(&Server::start(), version);
    }
}
