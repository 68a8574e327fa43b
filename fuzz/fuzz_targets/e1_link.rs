//! A station of E1 that hears arbitrary bytes, and arbitrary plaintexts that a holder of the network key sealed.
#![no_main]

use fivefold_core::e1_link::{
    Control, FixedNeighbours, Identity, LONGEST_CONTROL, Link, LinkKeys, LinkPolicy, Reach, Received, Station,
};
use fivefold_core::id::{Did, Sid};
use fivefold_core::key::Key;
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::{Ack, Pan};
use libfuzzer_sys::fuzz_target;

const ME: Sid = Sid(1);
const OTHER: Sid = Sid(2);

fn did(sid: Sid) -> Did {
    let [a, b] = sid.to_bytes();
    Did([0xAC, 0, 0, 0, 0, 0, a, b])
}

fn station(sid: Sid, station: Station) -> Link<FixedNeighbours<4>> {
    let mut keys = LinkKeys::new();
    keys.install(1, &Key::new([7; 16]), 0).expect("index 1 is free");
    let identity = Identity { did: did(sid), sid, pan: Pan(7), station };
    let mut link = Link::new(identity, LinkPolicy::default(), keys, FixedNeighbours::new(), [sid.0 as u8; 32]);
    while let Some(write) = link.keys().lease_due() {
        link.keys_mut().extend_lease(write);
    }
    link
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(control) = Control::parse(bytes) {
        assert_eq!(control.emit(&mut [0; LONGEST_CONTROL]), bytes);
    }
    for role in [Station::Gateway, Station::Node] {
        let mut me = station(ME, role);
        me.danger_assume_synced(did(OTHER), OTHER, 1, 0).expect("the table is empty");
        assert!(me.receive(Millis(0), &mut bytes.to_vec()).is_err(), "nobody knows the key but us");
        assert!(me.receive_checked(Millis(0), &mut bytes.to_vec()).is_err(), "nobody knows the key but us");
        assert!(
            me.e1s_open(Millis(0), (did(OTHER), Reach::Us), &mut bytes.to_vec()).is_err(),
            "nobody knows the key but us"
        );

        let mut other = station(OTHER, Station::Node);
        let mut frame = [0; 127];
        if let Ok(len) = other.seal(ME, Ack::Request, None, bytes, &mut frame) {
            if let Ok(Received::Forward(forwarded)) = me.receive(Millis(1), &mut frame[..len]) {
                assert!(forwarded.mesh.hops > 0);
            }
            assert!(me.receive(Millis(2), &mut frame[..len]).is_err(), "once is enough");
        }
        let mut message = [0; 127];
        if let Ok(len) = other.e1s_seal(None, bytes, &mut message) {
            let _ = me.e1s_open(Millis(3), (did(OTHER), Reach::Us), &mut message[..len]);
        }
        while me.poll_control(Millis(4_000), &mut frame).is_some() {}
    }
});
