//! Room for connections: `limits.max_connections` in all, `limits.max_connections_per_address` of one address.

use parking_lot::Mutex;
use std::{collections::HashMap, net::IpAddr, sync::Arc};
use waystation_broker::Limits;

/// The connections there are, counted.
pub(crate) struct Places {
    most: u32,
    /// Of one address; loopback is exempt.
    most_of_one: u32,
    taken: Mutex<Taken>,
}

/// No larger than `most`.
#[derive(Default)]
struct Taken {
    all: u32,
    /// Without those that have none.
    by_address: HashMap<IpAddr, u32>,
}

/// Room for one connection, given back when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let (most, most_of_one) = (limits.max_connections, limits.max_connections_per_address);
        Arc::new(Self { most, most_of_one, taken: Mutex::default() })
    }

    /// Room for a connection from `address`, if there is any left.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.taken.lock();
        let here = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.all >= self.most || (here >= self.most_of_one && !address.is_loopback()) {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, here + 1);
        Some(Place { places: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all -= 1;
        match taken.by_address.get(&self.address).map_or(0, |here| here - 1) {
            0 => taken.by_address.remove(&self.address),
            left => taken.by_address.insert(self.address, left),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_its_share_and_all_together_no_more_than_there_is() {
        let limits = Limits { max_connections: 4, max_connections_per_address: 1, ..Limits::default() };
        let places = Places::new(&limits);
        let take = |address: &str| places.take(address.parse().unwrap());
        let first = take("192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none() && take("::ffff:192.0.2.1").is_none(), "it is the same, however written");
        let here = [take("127.0.0.1").unwrap(), take("127.0.0.1").unwrap(), take("::1").unwrap()];
        assert!(take("192.0.2.2").is_none() && take("127.0.0.1").is_none(), "there is no more");
        drop((first, here));
        assert!(places.taken.lock().by_address.is_empty());
        assert!(take("192.0.2.1").is_some());
    }
}
