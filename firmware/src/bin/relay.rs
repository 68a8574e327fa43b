//! The SDK's Relay: boots, greets a device and a gateway, and passes on a frame between them.
#![no_std]
#![no_main]

use fivefold_core::e1_link::Received;
use fivefold_core::time::Millis;
use fivefold_device::storage::Slots;
use fivefold_device::{Relay, RelayOutput};
use fivefold_firmware::engines::{self, Air, NODE, Pages, ROW};
use fivefold_firmware::scene::{self, FRAME, GATEWAY, RELAY, Station2};
use fivefold_firmware::{begin, expect, fail, measure, report, report_size, succeed};

/// Milliseconds between two looks at the clock.
const STEP: u64 = 50;

#[cortex_m_rt::entry]
fn main() -> ! {
    begin();
    report_size("Relay", size_of::<Relay>());
    let Ok((mut slots, record)) = Slots::open(Pages::blank()) else { fail("the pages cannot be read") };
    let (settings, secrets, entropy) = (engines::settings(RELAY), engines::secrets(), engines::entropy());
    let mut relay = None;
    let ((), cost) = measure(|| relay = Relay::boot(Millis(0), &settings, &secrets, record, &entropy).ok());
    report("boot", cost);
    let Some(relay) = &mut relay else { fail("the relay does not boot") };

    let (mut device, mut gateway) = (scene::greeting(NODE), scene::gateway());
    let mut air: Air = [0; FRAME];
    let (mut now, mut sent) = (Millis(0), false);
    let (mut to_device, mut to_gateway) = (None, None);
    loop {
        relay.handle_timeout(now);
        let (output, cost) = measure(|| relay.poll());
        match output {
            None => now = now.plus(STEP),
            Some(RelayOutput::Persist(record)) if slots.write(&record).is_ok() => {}
            Some(RelayOutput::Synced(_, GATEWAY)) => to_gateway = Some(now),
            Some(RelayOutput::Synced(..)) => to_device = Some(now),
            Some(RelayOutput::Transmit(frame)) => {
                if sent {
                    arrives(&mut gateway, now, &mut air, frame.as_bytes());
                    report("seal again", cost);
                    succeed()
                }
                for station in [&mut device, &mut gateway] {
                    hear(station, now, &mut air, frame.as_bytes());
                }
            }
            Some(RelayOutput::Dropped(refused)) => engines::unexpected("the relay refuses a frame", refused),
            Some(_) => fail("the relay wants something else"),
        }
        for station in [&mut device, &mut gateway] {
            engines::speak(station, now, &mut air, |frame| relay.handle_frame(now, frame));
        }
        // Both proved themselves to the relay; what it has to prove to them takes a second.
        if let (Some(a), Some(b)) = (to_device, to_gateway)
            && now > a.max(b).plus(2_000)
            && !sent
        {
            let len = scene::seal_plain(&mut device, ROW, &mut air);
            let ((), cost) = measure(|| relay.handle_frame(now, &mut air[..len]));
            report("open", cost);
            sent = true;
        }
        if now > Millis(60_000) {
            fail("a minute, and nothing is passed on");
        }
    }
}

fn hear(station: &mut Station2, now: Millis, air: &mut Air, frame: &[u8]) {
    let air = &mut air[..frame.len()];
    air.copy_from_slice(frame);
    // A HELLO to the other station is refused here, as it must be.
    let _ = station.receive(now, air);
}

fn arrives(gateway: &mut Station2, now: Millis, air: &mut Air, frame: &[u8]) {
    let air = &mut air[..frame.len()];
    air.copy_from_slice(frame);
    match gateway.receive(now, air) {
        Ok(Received::Deliver(d)) if d.from == RELAY.1 && d.originator == NODE.1 => {
            // Before it stand the RuleID and the number.
            expect("what arrives at the gateway", d.payload.get(3..).unwrap_or_default(), ROW);
        }
        Ok(_) => fail("the gateway has no datagram of the device by way of the relay"),
        Err(refused) => engines::unexpected("the gateway refuses a frame", refused),
    }
}
