//! Frames of others: loops die, retransmissions pass, answers find their way down, network keys change under way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod world;

use fivefold_core::e1_link::{FixedNeighbours, Identity, Link, LinkKeys, LinkPolicy, Received, Station};
use fivefold_core::error::Code;
use fivefold_core::id::Sid;
use fivefold_core::key::Key;
use fivefold_core::profile::Profile;
use fivefold_core::time::Millis;
use fivefold_core::wire::control::{Downlink, LinkKey};
use fivefold_core::wire::ieee802154::Ack;
use fivefold_core::wire::mesh::Header;
use fivefold_core::wire::state::Phase;
use fivefold_device::{Entropy, Event, Relay, RelayOutput};
use world::*;

const CHILD: Sid = Sid(0x0a30);
const UP: Header = Header { hops: 5, originator: CHILD, destination: Sid::ANY_GATEWAY };

/// A station with nothing above its link, synced with a relay by an honest HELLO.
struct Station0 {
    link: Link<FixedNeighbours<16>>,
    sid: Sid,
}

impl Station0 {
    fn new(sid: Sid, station: Station) -> Self {
        let mut keys = LinkKeys::new();
        keys.install(1, &Key::new(KEY), 0).unwrap();
        let identity = Identity { did: did(sid), sid, pan: PAN, station };
        let link = Link::new(identity, LinkPolicy::default(), keys, FixedNeighbours::new(), [sid.0 as u8; 32]);
        let mut this = Self { link, sid };
        let write = this.link.keys().lease_due().unwrap();
        this.link.keys_mut().extend_lease(write);
        this
    }

    fn frame(&mut self, to: Sid, mesh: Header, payload: &[u8]) -> Vec<u8> {
        let mut out = [0; 127];
        let len = self.link.seal(to, Ack::Request, Some(mesh), payload, &mut out).unwrap();
        out[..len].to_vec()
    }
}

struct Bench {
    relay: Relay,
    stations: Vec<Station0>,
    now: Millis,
    out: Vec<Vec<u8>>,
    records: usize,
}

const RELAY: Sid = Sid(0x0a20);

impl Bench {
    fn new() -> Self {
        let mut s = settings(RELAY, Profile::ToCloud);
        s.ways.children.push((Sid(0x0a44), CHILD)).unwrap();
        let entropy = Entropy::check(core::array::from_fn(|n| (n * 5) as u8)).unwrap();
        let relay = Relay::boot(Millis(0), &s, &secrets(RELAY, s.epoch), None, &entropy).unwrap();
        let stations = vec![
            Station0::new(GATEWAY, Station::Gateway),
            Station0::new(CHILD, Station::Node),
            Station0::new(Sid(0x0a31), Station::Node),
        ];
        let mut bench = Self { relay, stations, now: Millis(0), out: Vec::new(), records: 0 };
        bench.run(12_000);
        bench
    }

    fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(output) = self.relay.poll() {
            match output {
                RelayOutput::Transmit(frame) => frames.push(frame.as_bytes().to_vec()),
                RelayOutput::Persist(_) => self.records += 1,
                _ => {}
            }
        }
        frames
    }

    /// HELLOs go round until all are synced.
    fn run(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        while self.now < end {
            self.relay.handle_timeout(self.now);
            for frame in self.poll() {
                for station in &mut self.stations {
                    let _ = station.link.receive(self.now, &mut frame.clone());
                }
            }
            let mut out = [0; 127];
            for n in 0..self.stations.len() {
                while let Some(c) = self.stations[n].link.poll_control(self.now, &mut out) {
                    self.relay.handle_frame(self.now, &mut out[..c.len].to_vec());
                }
            }
            self.now = self.now.plus(10);
        }
        assert!(self.poll().is_empty());
    }

    /// A frame for the relay; what it sends on.
    fn forward(&mut self, from: usize, mesh: Header, payload: &[u8]) -> Vec<Vec<u8>> {
        let mut frame = self.stations[from].frame(RELAY, mesh, payload);
        self.now = self.now.plus(10);
        self.relay.handle_frame(self.now, &mut frame);
        let frames = self.poll();
        self.out.extend(frames.clone());
        frames
    }

    fn count(&self, code: Code) -> u32 {
        self.relay.tally().of(code)
    }
}

#[test]
fn a_loop_dies_and_a_retransmission_passes() {
    let mut bench = Bench::new();
    assert_eq!(bench.forward(1, UP, b"\x22 reading").len(), 1);
    assert_eq!(bench.forward(1, UP, b"\x22 reading").len(), 1, "the same way: sent again by its originator");
    assert!(bench.forward(1, Header { hops: 3, ..UP }, b"\x22 reading").is_empty(), "fewer hops: it went round");
    assert!(bench.forward(2, UP, b"\x22 reading").is_empty(), "another neighbour: it came along a second way");
    assert_eq!(bench.count(Code::LinkHopLimit), 2);
    assert_eq!(bench.forward(2, UP, b"\x22 another").len(), 1);
}

#[test]
fn the_last_hop_ends_at_the_relay() {
    let mut bench = Bench::new();
    assert!(bench.forward(1, Header { hops: 1, ..UP }, b"\x22 reading").is_empty());
    assert_eq!(bench.count(Code::LinkHopLimit), 1);
}

#[test]
fn a_hop_less_and_the_relays_own_address() {
    let mut bench = Bench::new();
    let mut frame = bench.forward(1, UP, b"\x22 reading").remove(0);
    match bench.stations[0].link.receive(bench.now, &mut frame).unwrap() {
        Received::Deliver(d) => {
            assert_eq!((d.from, d.originator, d.payload), (RELAY, CHILD, &b"\x22 reading"[..]));
            assert_eq!(d.mesh.unwrap().hops, 4);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_foreign_frame_makes_the_relay_send_nothing() {
    let mut bench = Bench::new();
    let frame = bench.stations[1].frame(RELAY, UP, b"\x22 reading");
    for at in 0..frame.len() {
        let mut bad = frame.clone();
        bad[at] ^= 1;
        bench.relay.handle_frame(bench.now, &mut bad);
        let end = frame.len() - 2;
        let mut bad = frame.clone();
        bad[at] ^= 1;
        // With a check sequence that fits, it is E1 that refuses.
        let _ = fivefold_core::wire::ieee802154::append_fcs(&mut bad, end);
        if at < end {
            bench.relay.handle_frame(bench.now, &mut bad);
        }
    }
    assert!(bench.poll().is_empty());
    assert!(bench.count(Code::LinkForged) > 20 && bench.count(Code::LinkMalformed) > 20);
    let mut good = frame;
    bench.relay.handle_frame(bench.now, &mut good.clone());
    assert_eq!(bench.poll().len(), 1);
    let before = bench.count(Code::LinkReplayed);
    bench.relay.handle_frame(bench.now, &mut good);
    assert_eq!(bench.count(Code::LinkReplayed), before + 1);
}

#[test]
fn an_answer_goes_down_the_way_that_the_last_frame_came() {
    let mut bench = Bench::new();
    let to_grandchild = Header { hops: 9, originator: GATEWAY, destination: Sid(0x0a40) };
    assert!(bench.forward(0, to_grandchild, b"\x01\x00 nobody knows").is_empty());
    assert_eq!(bench.count(Code::LinkNeighbourUnknown), 1);
    bench.forward(2, Header { originator: Sid(0x0a40), ..UP }, b"\x22 reading");
    let mut down = bench.forward(0, to_grandchild, b"\x01\x00 an answer").remove(0);
    assert!(
        matches!(bench.stations[2].link.receive(bench.now, &mut down), Ok(Received::Forward(f)) if f.from == RELAY)
    );
    // Ten minutes later that is forgotten; a configured child is not.
    bench.now = bench.now.plus(601_000);
    assert!(bench.forward(0, to_grandchild, b"\x01\x00 too late").is_empty());
    let configured = Header { destination: Sid(0x0a44), ..to_grandchild };
    let mut down = bench.forward(0, configured, b"\x01\x00 by table").remove(0);
    assert!(bench.stations[1].link.receive(bench.now, &mut down).is_ok());
    // A neighbour needs no table.
    let near = Header { destination: bench.stations[2].sid, ..to_grandchild };
    assert_eq!(bench.forward(0, near, b"\x01\x00 next door").len(), 1);
}

#[test]
fn a_relay_takes_nothing_for_itself() {
    let mut bench = Bench::new();
    assert!(
        bench.forward(0, Header { hops: 9, originator: GATEWAY, destination: RELAY }, b"\x01\x00 for you").is_empty()
    );
    assert_eq!(bench.count(Code::LinkNotOurs), 1);
    assert!(bench.records >= 1);
}

#[test]
fn a_network_key_is_installed_switched_to_and_retired_in_three_phases() {
    let mut world = World::row(30, &[Profile::ToCloud]);
    world.run(8_000);
    let tell = |world: &mut World, phase, key: Option<&[u8; 16]>| {
        let mut out = [0; 40];
        let link_key = Some(LinkKey { index: 2, key, phase });
        let len = Downlink { link_key, ..Downlink::default() }.emit(&mut out).unwrap();
        world.gateway.control = out[..len].to_vec();
        world.read(0, 1).unwrap();
        world.run(500);
        world.gateway.control.clear();
        world.run(5_000);
    };
    let sending = |world: &World| world.devices[0].node.mesh().unwrap().link().keys().sending();
    let new = [0x77; 16];
    tell(&mut world, Phase::Distribute, Some(&new));
    assert_eq!(sending(&world), Some(1), "receive only");
    world.gateway.link.keys_mut().install(2, &Key::new(new), 0).unwrap();
    // What is durable survives the next boot.
    world.reboot(0);
    world.run(20_000);
    assert_eq!(world.devices[0].node.mesh().unwrap().link().keys().indexes().count(), 2);
    tell(&mut world, Phase::Switch, None);
    assert_eq!(sending(&world), Some(2));
    let mut out = [0; 40];
    let retire = Some(LinkKey { index: 1, key: None, phase: Phase::Retire });
    let len = Downlink { link_key: retire, ..Downlink::default() }.emit(&mut out).unwrap();
    world.gateway.control = out[..len].to_vec();
    let number = world.read(0, 2).unwrap();
    world.run(500);
    world.gateway.control.clear();
    assert!(world.devices[0].delivered().contains(&number), "sent and answered under the new key");
    world.run(5_000);
    assert_eq!(world.devices[0].node.mesh().unwrap().link().keys().indexes().collect::<Vec<_>>(), [2]);
    assert!(world.devices[0].events.contains(&Event::LinkKeys));
    // The retired one is in the device's share, and does not come back with it.
    world.reboot(0);
    let keys = world.devices[0].node.mesh().unwrap().link().keys();
    assert_eq!((keys.indexes().collect::<Vec<_>>(), keys.sending()), (vec![2], Some(2)));
    assert_eq!(world.repeated_counters, 0);
}

#[test]
fn the_key_before_is_given_up_seven_days_after_the_switch_however_often_the_power_went() {
    const DAY: u64 = 86_400_000;
    let mut world = World::row(31, &[Profile::ToCloud]);
    world.run(8_000);
    let new = [0x77; 16];
    world.gateway.link.keys_mut().install(2, &Key::new(new), 0).unwrap();
    for (phase, key) in [(Phase::Distribute, Some(&new)), (Phase::Switch, None)] {
        let mut out = [0; 40];
        let link_key = Some(LinkKey { index: 2, key, phase });
        let len = Downlink { link_key, ..Downlink::default() }.emit(&mut out).unwrap();
        world.gateway.control = out[..len].to_vec();
        world.read(0, 1).unwrap();
        world.run(500);
        world.gateway.control.clear();
        world.run(5_000);
    }
    let held = |world: &World| world.devices[0].node.mesh().unwrap().link().keys().indexes().count();
    let wait = |world: &mut World, ms| {
        world.now = world.now.plus(ms);
        world.run(5_000);
    };
    wait(&mut world, 6 * DAY);
    assert_eq!(held(&world), 2);
    world.reboot(0);
    wait(&mut world, 6 * DAY);
    assert_eq!(held(&world), 2, "by uptime: it starts again");
    wait(&mut world, DAY + 60_000);
    assert_eq!(held(&world), 1);
    assert_eq!(world.devices[0].node.mesh().unwrap().link().keys().sending(), Some(2));
    assert_eq!(world.repeated_counters, 0);
}
