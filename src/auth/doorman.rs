//! Password checks that cost the server no more than it can spare: a few at a time, a short line before them, and
//! none at all for who was checked a moment ago.

use super::users::{self, Users};
use aws_lc_rs::{
    hmac::{self, HMAC_SHA256},
    rand::SystemRandom,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::spawn_blocking};
use waystation_broker::{Peer, Principal, Refusal};

/// How long after its last use a password that was right counts as right without being hashed: a client that polls
/// costs one hash, not one a poll. Reading the password file anew forgets them all.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Most passwords remembered; at it all are forgotten, which costs a hash each. Only right ones get here.
const MAX_REMEMBERED: usize = 10_000;
/// Most checks that wait for their turn; more are told that the server is busy. The last of
/// them comes to his turn within seconds, before `connect_timeout_ms` is over.
const MAX_WAITING: usize = 256;
/// Most of them from one address (one /64 of IPv6), so that one alone cannot keep the others out.
const MAX_WAITING_OF_ONE: usize = 64;

/// Whoever checks passwords.
pub(super) struct Doorman {
    /// Half of the cores: a flood of logins leaves the others to those who are in.
    turns: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    /// What passwords are remembered under: nobody can tell from outside what collides.
    key: hmac::Key,
}

/// Passwords that were right a moment ago.
#[derive(Default)]
pub(super) struct Remembered(Mutex<HashMap<Mark, (Principal, Instant)>>);

/// A keyed hash of user and password.
type Mark = [u8; 32];

#[derive(Default)]
struct Waiting {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Doorman {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let key = hmac::Key::generate(HMAC_SHA256, &SystemRandom::new())
            .expect("the system's source of random numbers works: TLS would not either");
        Self { turns: Arc::new(Semaphore::new((cores / 2).max(1))), waiting: Mutex::default(), key }
    }

    /// Who this is. Takes as long for unknown names as for known ones.
    pub(super) async fn check(
        &self,
        users: &Users,
        remembered: &Remembered,
        (user, password): (&str, &Bytes),
        peer: Peer,
    ) -> Result<Principal, Refusal> {
        let mark = self.mark(user, password);
        if let Some(who) = remembered.get(&mark, Instant::now()) {
            return Ok(who);
        }
        let place = self.queue(peer).ok_or(Refusal::ServerBusy)?;
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| Refusal::ServerUnavailable)?;
        drop(place);
        // The same client may have come twice at once.
        if let Some(who) = remembered.get(&mark, Instant::now()) {
            return Ok(who);
        }
        let (hash, who) = users.challenge(user);
        let password = password.clone();
        let fits = spawn_blocking(move || {
            let fits = users::fits(&password, &hash);
            // The turn ends with the work, also if nobody waits for it any more.
            drop(turn);
            fits
        });
        let fits = fits.await.map_err(|_| Refusal::ServerUnavailable)?;
        let who = who.filter(|_| fits).ok_or(Refusal::BadCredentials)?;
        remembered.put(mark, who.clone(), Instant::now());
        Ok(who)
    }

    fn mark(&self, user: &str, password: &[u8]) -> Mark {
        let mut context = hmac::Context::with_key(&self.key);
        // The length keeps "ab" + "c" and "a" + "bc" apart.
        context.update(&(user.len() as u64).to_le_bytes());
        context.update(user.as_bytes());
        context.update(password);
        let mut mark = [0; 32];
        mark.copy_from_slice(context.sign().as_ref());
        mark
    }

    fn queue(&self, peer: Peer) -> Option<Place<'_>> {
        let address = peer.address().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |address| network(address.ip()));
        let mut waiting = self.waiting.lock();
        let here = waiting.by_address.get(&address).copied().unwrap_or(0);
        if waiting.all >= MAX_WAITING || here >= MAX_WAITING_OF_ONE {
            return None;
        }
        waiting.all += 1;
        waiting.by_address.insert(address, here + 1);
        Some(Place { doorman: self, address })
    }
}

/// A place in the line, given back when dropped.
struct Place<'a> {
    doorman: &'a Doorman,
    address: IpAddr,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.doorman.waiting.lock();
        waiting.all -= 1;
        let left = waiting.by_address.get(&self.address).map_or(0, |here| here - 1);
        match left {
            0 => waiting.by_address.remove(&self.address),
            left => waiting.by_address.insert(self.address, left),
        };
    }
}

impl Remembered {
    fn get(&self, mark: &Mark, now: Instant) -> Option<Principal> {
        let mut known = self.0.lock();
        let (who, used) = known.get_mut(mark).filter(|(_, used)| now.duration_since(*used) < REMEMBERED)?;
        *used = now;
        Some(who.clone())
    }

    fn put(&self, mark: Mark, who: Principal, now: Instant) {
        let mut known = self.0.lock();
        if known.len() >= MAX_REMEMBERED {
            known.retain(|_, (_, used)| now.duration_since(*used) < REMEMBERED);
        }
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(mark, (who, now));
    }
}

/// Who has one IPv6 address usually has the whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::direct(address.parse().unwrap())
    }

    #[test]
    fn one_address_cannot_fill_the_line_and_the_line_has_an_end() {
        let doorman = Doorman::new();
        let one: Vec<_> = std::iter::from_fn(|| doorman.queue(peer("[2001:db8::1]:1"))).collect();
        assert_eq!(one.len(), MAX_WAITING_OF_ONE);
        assert!(doorman.queue(peer("[2001:db8::2]:1")).is_none(), "the same /64");
        assert!(doorman.queue(peer("192.0.2.1:1")).is_some());
        let others: Vec<_> = (0..=255u8).map_while(|last| doorman.queue(peer(&format!("192.0.2.{last}:1")))).collect();
        assert_eq!(one.len() + others.len(), MAX_WAITING);
        drop((one, others));
        assert!(doorman.queue(peer("[2001:db8::1]:1")).is_some());
        assert_eq!(doorman.waiting.lock().by_address.len(), 0);
    }

    #[test]
    fn a_mark_tells_users_and_passwords_apart() {
        let (doorman, other) = (Doorman::new(), Doorman::new());
        assert_eq!(doorman.mark("a", b"b"), doorman.mark("a", b"b"));
        assert_ne!(doorman.mark("ab", b"c"), doorman.mark("a", b"bc"));
        assert_ne!(doorman.mark("a", b"b"), other.mark("a", b"b"));
    }

    #[test]
    fn a_right_password_is_remembered_until_it_was_not_used_for_a_while() {
        let remembered = Remembered::default();
        let mut now = Instant::now();
        remembered.put([1; 32], Principal::user("anna", None), now);
        for _ in 0..3 {
            now += REMEMBERED - Duration::from_secs(1);
            assert!(remembered.get(&[1; 32], now).is_some());
        }
        assert!(remembered.get(&[1; 32], now + REMEMBERED).is_none());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let remembered = Remembered::default();
        let now = Instant::now();
        for index in 0..=MAX_REMEMBERED as u64 {
            let mut mark = [0; 32];
            mark[..8].copy_from_slice(&index.to_le_bytes());
            remembered.put(mark, Principal::anonymous(), now);
        }
        assert!(remembered.0.lock().len() <= MAX_REMEMBERED);
    }
}
