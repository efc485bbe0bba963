//! The core of Waystation: sessions, routing and the promise about messages.
//!
//! It knows no protocol and no socket. Front-ends come in by [`Broker::attach`], publish through a [`Publisher`],
//! and pull what is theirs through a [`Link`]. Every call but `attach`, `authenticate` and `durable` is synchronous,
//! in memory and short, so protocol machines call it directly and tests use the real thing.

pub mod access;
mod attach;
pub mod broker;
pub mod clock;
mod documents;
pub mod drops;
pub mod idempotency;
pub mod limits;
pub mod link;
pub mod message;
pub mod metrics;
pub mod publisher;
mod recover;
mod router;
mod session;
pub mod store;
pub mod sys;
mod timetable;
pub mod topic;
pub mod traffic;

pub use access::{Action, AllowAll, Authenticate, Authorize, ClientId, Credentials, Grant, Peer, Principal, Refusal};
pub use broker::{Audience, Backlog, Broker, Parts, SessionInfo};
pub use clock::{Clock, ManualClock, SystemClock, Time};
pub use drops::Dropped;
pub use idempotency::{Answer, Idempotency};
pub use limits::{Limits, Overflow};
pub use link::{
    Attached, Budget, Cursor, Delivery, Detach, Event, Hello, Interest, Link, Lsn, Pick, Reason, Refused,
    RetainHandling, SessionOptions, Settle, Stage, Start, Subscription, Tag, Taken, Takeover, UnknownCursor,
    UnknownTag, Watch, WhileAway,
};
pub use message::{Condition, Message, MessageId, Properties, Publish, Qos, Will};
pub use metrics::{DropCause, Metrics};
pub use publisher::{Outcome, Publisher, Receipt};
pub use store::Store;
pub use sys::Sys;
pub use topic::{Filter, InvalidTopic, Topic};
pub use traffic::Traffic;
