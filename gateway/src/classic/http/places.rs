//! Who may be connected, and how much one address may ask: counted, without a socket or a clock.
//!
//! Nobody has to be known to reach this listener, so what one address can take away from others is bounded: places, and requests
//! a minute. Where all places are taken, the one goes that has kept the listener waiting the longest.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use fivefold_core::time::Millis;

/// Addresses that are remembered, at most: above it those that nothing came from lately are forgotten.
const ADDRESSES: usize = 10_000;
/// Milliseconds after which an address without connections has its whole share again.
const MINUTE: u64 = 60_000;

/// What bounds the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address; of IPv6, of one /64.
    pub connections_per_address: usize,
    /// Requests a minute of one address.
    pub requests_a_minute: u32,
}

/// One connection's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

/// What a new connection comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It has a place.
    Taken(Place),
    /// It has a place, and this one loses its own.
    InPlaceOf(Place, Place),
    /// Its address has all the places that one may have.
    AddressFull,
    /// All places are taken, by connections whose requests are being answered.
    Full,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Its request is with the engine.
    Answered,
    /// The listener waits for it.
    Awaited,
}

#[derive(Debug)]
struct Address {
    open: usize,
    left: f64,
    at: Millis,
}

/// The places of a listener.
#[derive(Debug)]
pub struct Places {
    bounds: Bounds,
    open: BTreeMap<Place, (IpAddr, Doing)>,
    addresses: HashMap<IpAddr, Address>,
    next: u64,
}

impl Places {
    /// All of them free.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, open: BTreeMap::new(), addresses: HashMap::new(), next: 0 }
    }

    /// Somebody connects.
    pub fn enter(&mut self, from: IpAddr, now: Millis) -> Entry {
        let from = whole(from);
        if self.address(from, now).open >= self.bounds.connections_per_address {
            return Entry::AddressFull;
        }
        let loser = if self.open.len() < self.bounds.connections {
            None
        } else {
            let awaited = self.open.iter().find(|(_, (_, doing))| *doing == Doing::Awaited);
            let Some((&loser, _)) = awaited else { return Entry::Full };
            self.leave(loser);
            Some(loser)
        };
        let place = Place(self.next);
        self.next += 1;
        self.address(from, now).open += 1;
        self.open.insert(place, (from, Doing::Awaited));
        loser.map_or(Entry::Taken(place), |loser| Entry::InPlaceOf(place, loser))
    }

    /// Its request goes to the engine. Whether the address may ask that much.
    pub fn asks(&mut self, place: Place, now: Millis) -> bool {
        let bounds = self.bounds;
        let Some((from, doing)) = self.open.get_mut(&place) else { return false };
        let from = *from;
        *doing = Doing::Answered;
        let address = self.address(from, now);
        let full = f64::from(bounds.requests_a_minute);
        address.left = (address.left + now.since(address.at) as f64 / MINUTE as f64 * full).min(full);
        address.at = now;
        let may = address.left >= 1.0;
        if may {
            address.left -= 1.0;
        }
        may
    }

    /// Its request is answered: a place whose request comes slowly is one that was taken anew.
    pub fn answered(&mut self, place: Place) {
        if let Some((_, doing)) = self.open.get_mut(&place) {
            *doing = Doing::Awaited;
        }
    }

    /// It is gone.
    pub fn leave(&mut self, place: Place) {
        if let Some((from, _)) = self.open.remove(&place)
            && let Some(address) = self.addresses.get_mut(&from)
        {
            address.open = address.open.saturating_sub(1);
        }
    }

    /// How many are connected.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    fn address(&mut self, from: IpAddr, now: Millis) -> &mut Address {
        if self.addresses.len() >= ADDRESSES {
            self.addresses.retain(|_, a| a.open > 0 || now.since(a.at) < MINUTE);
        }
        if self.addresses.len() >= ADDRESSES {
            // So many at once: what each had left is forgotten, rather than remembered without bound.
            self.addresses.retain(|_, a| a.open > 0);
        }
        let left = f64::from(self.bounds.requests_a_minute);
        self.addresses.entry(from).or_insert(Address { open: 0, left, at: now })
    }
}

/// What counts as one address: whoever has an address of IPv6 has its /64.
fn whole(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { connections: 3, connections_per_address: 2, requests_a_minute: 60 };
    const NOW: Millis = Millis(1_000_000);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn taken(entry: Entry) -> Place {
        match entry {
            Entry::Taken(place) | Entry::InPlaceOf(place, _) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_address_has_so_many_places_and_gets_them_back() {
        let mut p = Places::new(BOUNDS);
        let first = taken(p.enter(ip("192.0.2.1"), NOW));
        taken(p.enter(ip("192.0.2.1"), NOW));
        assert_eq!(p.enter(ip("192.0.2.1"), NOW), Entry::AddressFull);
        assert_eq!(p.enter(ip("::ffff:192.0.2.1"), NOW), Entry::AddressFull, "the same, written as IPv6");
        p.leave(first);
        taken(p.enter(ip("192.0.2.1"), NOW));
        assert_eq!(p.open(), 2);
    }

    #[test]
    fn a_whole_64_of_ipv6_is_one_address() {
        let mut p = Places::new(BOUNDS);
        taken(p.enter(ip("2001:db8::1"), NOW));
        taken(p.enter(ip("2001:db8::2"), NOW));
        assert_eq!(p.enter(ip("2001:db8::3"), NOW), Entry::AddressFull);
        taken(p.enter(ip("2001:db8:0:1::3"), NOW));
    }

    #[test]
    fn where_all_places_are_taken_the_one_that_waits_longest_goes() {
        let mut p = Places::new(BOUNDS);
        let oldest = taken(p.enter(ip("192.0.2.1"), NOW));
        let second = taken(p.enter(ip("192.0.2.2"), NOW));
        taken(p.enter(ip("192.0.2.3"), NOW));
        assert!(p.asks(oldest, NOW), "with the engine, it keeps its place");
        assert!(matches!(p.enter(ip("192.0.2.4"), NOW), Entry::InPlaceOf(_, loser) if loser == second));
        assert_eq!(p.open(), 3);
    }

    #[test]
    fn where_all_are_being_answered_a_new_one_is_turned_away() {
        let mut p = Places::new(BOUNDS);
        for from in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            let place = taken(p.enter(ip(from), NOW));
            assert!(p.asks(place, NOW));
        }
        assert_eq!(p.enter(ip("192.0.2.4"), NOW), Entry::Full);
    }

    #[test]
    fn an_address_may_ask_so_often_a_minute_over_all_its_connections() {
        let mut p = Places::new(BOUNDS);
        for _ in 0..60 {
            let place = taken(p.enter(ip("192.0.2.1"), NOW));
            assert!(p.asks(place, NOW));
            p.leave(place);
        }
        let place = taken(p.enter(ip("192.0.2.1"), NOW));
        assert!(!p.asks(place, NOW));
        let other = taken(p.enter(ip("192.0.2.2"), NOW));
        assert!(p.asks(other, NOW), "another address is not touched by it");
        p.answered(place);
        assert!(p.asks(place, NOW.plus(1_000)), "one a second comes back");
        assert!(!p.asks(place, NOW.plus(1_000)));
    }

    #[test]
    fn addresses_without_end_do_not_fill_the_memory() {
        let mut p = Places::new(Bounds { connections: 10, ..BOUNDS });
        for n in 0..30_000u32 {
            let place = taken(p.enter(IpAddr::from(n.to_be_bytes()), NOW));
            p.leave(place);
        }
        assert!(p.addresses.len() <= ADDRESSES);
    }
}
