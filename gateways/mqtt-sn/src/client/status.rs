//! What others may know of a board: `$SYS/broker/mqtt_sn/clients/{id}/state`.

use super::{Client, State};
use waystation_broker::Time;

/// Where a board stands, and when it is next expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Where it stands.
    pub standing: Standing,
    /// Asleep: when it will have slept as long as it said.
    pub next_wake: Option<Time>,
}

/// Where a board stands (§6.14, figure 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Connected.
    Active,
    /// It sleeps.
    Asleep,
    /// It sleeps, and fetches what waits.
    Awake,
    /// It was not heard of for too long.
    Lost,
    /// It said goodbye, or was sent away.
    Disconnected,
}

impl Standing {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Asleep => "asleep",
            Self::Awake => "awake",
            Self::Lost => "lost",
            Self::Disconnected => "disconnected",
        }
    }
}

impl Client {
    /// Where the board stands; `None` while it was not let in.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.id.as_ref()?;
        let (standing, next_wake) = match self.state {
            State::Active => (Standing::Active, None),
            State::Asleep => (Standing::Asleep, self.next_wake),
            State::Awake => (Standing::Awake, None),
            State::Lost => (Standing::Lost, None),
            // It is about to begin anew.
            State::Gone if self.opening.is_some() => return None,
            State::Gone => (Standing::Disconnected, None),
        };
        Some(Status { standing, next_wake })
    }
}
