//! A gateway with two radios: each device is reached by its own, and nothing of one goes out by the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{Device, GATEWAY_SID, World, cloud_answer, did, state};
use fivefold_core::e1_link::{Air, FixedNeighbours, Identity, Link, LinkPolicy, Reach, Received, Station};
use fivefold_core::error::Code;
use fivefold_core::id::Sid;
use fivefold_core::profile::{LinkClass, Profile, Radio};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::wire::envelope::Envelope;
use fivefold_core::wire::mesh::Header;
use fivefold_core::wire::state::Standing;
use fivefold_core::wire::tiny::Wants;
use fivefold_gateway::gateway::{Cloud, Setup};

const E1S: LinkPolicy = LinkPolicy {
    minimum: fivefold_core::wire::ieee802154::SecurityLevel::EncMic64,
    sending: fivefold_core::wire::ieee802154::SecurityLevel::EncMic64,
    air: Air::E1s { longest: 100 },
};

fn both(boot: GatewayBoot) -> Setup {
    Setup { policy: LinkPolicy { air: Air::Both { longest: 100 }, ..LinkPolicy::default() }, ..common::setup(boot) }
}

/// A device with an XBee module.
fn on_xbee(n: u8) -> Device {
    let mut device = Device::new(n, Profile::ToCloud);
    device.policy.radio = Radio::Xbee;
    let identity = Identity { did: device.did, sid: device.sid, pan: common::PAN, station: Station::Node };
    device.link = Link::new(identity, E1S, common::link_keys(), FixedNeighbours::new(), [n; 32]);
    device.link.danger_assume_synced(did(200), GATEWAY_SID, 1, 0).unwrap();
    device
}

fn world(devices: &[&Device]) -> World {
    let mut world = World::with(both);
    world.push(&state(1, devices, Standing::Active)).unwrap();
    world.greet(devices);
    world.gateway.handle_cloud(world.now, Cloud::Reachable);
    world
}

#[test]
fn a_hello_goes_out_by_both_radios_and_an_answer_by_the_one_of_the_device() {
    let (mut by_frame, mut by_message) = (Device::new(1, Profile::ToCloud), on_xbee(2));
    let mut world = world(&[&by_frame, &by_message]);
    let greeted = world.wait(10_000);
    assert_eq!((greeted.air.len(), greeted.messages.len()), (1, 1), "{greeted:?}");
    assert_eq!(greeted.messages[0].0, None, "to everybody");
    let (tiny, _) = by_message.tiny(&[0x81, 0x01], Wants::Answer);
    let mut message = [0; 127];
    let len = by_message.link.seal(GATEWAY_SID, fivefold_core::wire::ieee802154::Ack::None, None, &tiny, &mut message);
    let heard = world.message((by_message.did, Reach::Us), &message[..len.unwrap()]);
    assert!(heard.dropped.is_empty(), "{:?}", heard.dropped);
    let (tiny, _) = by_frame.tiny(&[0x81, 0x01], Wants::Answer);
    let frame = by_frame.on_air(&tiny);
    let heard = world.frame(&frame);
    assert!(heard.dropped.is_empty(), "{:?}", heard.dropped);
    let stored = world.stored();
    let envelopes: Vec<_> = stored.iter().map(|bytes| Envelope::parse(bytes).unwrap()).collect();
    let of = |sid: Sid| {
        let is = |e: &&Envelope<'_>| {
            e.originator == (fivefold_core::wire::envelope::Originator::Node { net: common::NET, sid })
        };
        envelopes.iter().find(is).unwrap()
    };
    let (message, frame) = (of(by_message.sid), of(by_frame.sid));
    assert_eq!((message.link, message.rssi), (LinkClass::E1s, Some(-60)));
    assert_eq!((frame.link, frame.rssi), (LinkClass::MacCcm, None));
    let answers = [(message, &by_message), (frame, &by_frame)];
    let answers: Vec<_> = answers.iter().map(|(e, d)| (e.seq, d.sid, cloud_answer(d, e.bytes, None, &[]))).collect();
    let upto = envelopes.iter().map(|e| e.seq).max().unwrap();
    let heard = world.deliver(upto, &answers);
    assert_eq!((heard.air.len(), heard.messages.len()), (1, 1), "{heard:?}");
    let (to, answer) = &heard.messages[0];
    assert_eq!(*to, Some(by_message.did));
    let mut answer = answer.clone();
    let received = by_message.link.e1s_open(world.now, (did(200), Reach::Us), &mut answer).unwrap();
    assert!(matches!(received, Received::Deliver(d) if d.mesh.is_none() && d.originator == GATEWAY_SID));
    assert!(by_frame.hear(&heard.air[0]).is_some());
}

#[test]
fn a_message_brought_under_another_address_or_twice_is_nothing() {
    let mut device = on_xbee(2);
    let other = on_xbee(3);
    let mut world = world(&[&device, &other]);
    world.wait(2_000);
    let (tiny, _) = device.tiny(&[0x81, 0x01], Wants::Answer);
    let mut message = [0; 127];
    let len = device.link.e1s_seal(None, &tiny, &mut message).unwrap();
    let message = &message[..len];
    assert_eq!(world.message((other.did, Reach::Us), message).dropped[0].0, Code::LinkForged);
    assert_eq!(world.message((did(77), Reach::Us), message).dropped[0].0, Code::LinkNeighbourUnknown);
    assert!(world.message((device.did, Reach::Everybody), message).dropped.is_empty(), "a gateway takes both");
    assert_eq!(world.message((device.did, Reach::Us), message).dropped[0].0, Code::LinkReplayed);
    let elsewhere = Header { hops: 3, originator: device.sid, destination: other.sid };
    let mut message = [0; 127];
    let len = device.link.e1s_seal(Some(elsewhere), &tiny, &mut message).unwrap();
    assert_eq!(world.message((device.did, Reach::Everybody), &message[..len]).dropped[0].0, Code::LinkNotOurs);
}
