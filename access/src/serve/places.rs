//! So many of something at once, and so many of them for one address: nobody takes all.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;

/// Bits of an IPv6 address that a network is given as a whole; what follows its users choose.
const IPV6_NETWORK: u128 = !((1 << 64) - 1);

/// So many of something at once, and so many of them for one address: nobody takes all.
#[derive(Debug)]
pub struct Places {
    /// What is counted, for people.
    what: &'static str,
    limit: usize,
    per_peer: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// One of them, until it is dropped.
#[must_use]
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    peer: Option<IpAddr>,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// For anybody.
    All(&'static str, usize),
    /// For this address.
    Peer(&'static str, usize),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(what, limit) => write!(f, "there are {limit} {what}, the limit"),
            Self::Peer(what, limit) => {
                write!(f, "this address has {limit} {what}, the limit of one address")
            }
        }
    }
}

impl Places {
    /// None of them taken. What is counted is named for people, in the plural.
    #[must_use]
    pub fn new(what: &'static str, limit: usize, per_peer: usize) -> Arc<Self> {
        Arc::new(Self { what, limit, per_peer, taken: Mutex::default() })
    }

    /// A place for an address, or for whoever has none. An IPv6 address counts with its whole network (/64).
    ///
    /// # Errors
    /// If there is no room.
    pub fn take(self: &Arc<Self>, peer: Option<IpAddr>) -> Result<Place, Full> {
        let peer = peer.map(network);
        let mut taken = self.taken.lock();
        if taken.all >= self.limit {
            return Err(Full::All(self.what, self.limit));
        }
        if let Some(peer) = peer {
            let of_peer = taken.by_peer.get(&peer).copied().unwrap_or_default();
            if of_peer >= self.per_peer {
                return Err(Full::Peer(self.what, self.per_peer));
            }
            taken.by_peer.insert(peer, of_peer + 1);
        }
        taken.all += 1;
        Ok(Place { places: Arc::clone(self), peer })
    }
}

/// What counts as one address: of IPv6, a whole network (/64).
#[must_use]
pub fn network(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() & IPV6_NETWORK).into(),
        v4 => v4,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all -= 1;
        if let Some(peer) = self.peer
            && let Some(of_peer) = taken.by_peer.get_mut(&peer)
        {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.by_peer.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_its_part_and_no_more() {
        let places = Places::new("seats", 3, 2);
        let addr = |text: &str| Some(text.parse().unwrap());
        let first = places.take(addr("2001:db8::1")).unwrap();
        let _second = places.take(addr("2001:db8::2:2")).unwrap();
        assert_eq!(places.take(addr("2001:db8::3")).unwrap_err(), Full::Peer("seats", 2));
        let other = places.take(addr("2001:db8:0:1::1")).unwrap();
        assert_eq!(places.take(addr("10.0.0.1")).unwrap_err(), Full::All("seats", 3));
        drop(other);
        let mapped = places.take(addr("::ffff:10.0.0.1")).unwrap();
        drop(first);
        let v4 = places.take(addr("10.0.0.1")).unwrap();
        assert_eq!(places.taken.lock().by_peer.len(), 2, "a mapped address is the same");
        drop((mapped, v4, _second));
        let taken = places.taken.lock();
        assert_eq!((taken.all, taken.by_peer.len()), (0, 0));
    }
}
