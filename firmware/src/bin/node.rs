//! The SDK's Node: boots, greets its gateway, sends a reading under E1, E2 and E3, and has it confirmed by the cloud.
#![no_std]
#![no_main]

use fivefold_core::time::Millis;
use fivefold_device::storage::Slots;
use fivefold_device::{Event, Node, Output};
use fivefold_firmware::engines::{self, Air, NODE, Pages, ROW};
use fivefold_firmware::scene::{self, FRAME, Station2};
use fivefold_firmware::{Cost, begin, fail, measure, report, report_size, succeed};

/// Messages in the outbox.
const MESSAGES: usize = 4;
/// Milliseconds between two looks at the clock.
const STEP: u64 = 50;

#[cortex_m_rt::entry]
fn main() -> ! {
    begin();
    report_size("Node<1>", size_of::<Node<1>>());
    report_size("Node<4>", size_of::<Node<4>>());
    report_size("Node<8>", size_of::<Node<8>>());
    let Ok((mut slots, record)) = Slots::open(Pages::blank()) else { fail("the pages cannot be read") };
    let (settings, secrets, entropy) = (engines::settings(NODE), engines::secrets(), engines::entropy());
    let mut node = None;
    let ((), cost) = measure(|| node = Node::<MESSAGES>::boot(Millis(0), settings, &secrets, record, &entropy).ok());
    report("boot", cost);
    let Some(node) = &mut node else { fail("the node does not boot") };
    drop(secrets);

    let mut gateway = scene::gateway();
    let (mut air, mut answer): (Air, Air) = ([0; FRAME], [0; FRAME]);
    let (mut now, mut sent, mut synced) = (Millis(0), None, false);
    let (mut deepest, mut slowest) = (0, 0);
    loop {
        node.handle_timeout(now);
        loop {
            let (output, cost) = measure(|| node.poll());
            note(&mut deepest, &mut slowest, cost);
            match output {
                None => break,
                Some(Output::Persist(record)) if slots.write(&record).is_ok() => {}
                Some(Output::Event(Event::Synced(..))) => synced = true,
                Some(Output::Event(Event::Sent { .. })) => {}
                Some(Output::Event(Event::Delivered { number, .. })) if Some(number) == sent => {
                    report("poll, longest", Cost { instructions: slowest, stack: deepest });
                    succeed()
                }
                Some(Output::Transmit(frame)) => {
                    if let Some(len) = engines::gateway(&mut gateway, now, frame.as_bytes(), &mut answer) {
                        let ((), cost) = measure(|| node.handle_frame(now, &mut answer[..len]));
                        report("answer", cost);
                    }
                    greet(&mut gateway, now, &mut air, node);
                }
                Some(Output::Dropped(refused)) => engines::unexpected("the node refuses a frame", refused),
                Some(_) => fail("the node wants something else"),
            }
        }
        greet(&mut gateway, now, &mut air, node);
        if synced && sent.is_none() {
            let (number, cost) = measure(|| node.send(now, ROW));
            report("send", cost);
            sent = number.ok();
            if sent.is_none() {
                fail("the node does not take the reading");
            }
        }
        now = now.plus(STEP);
        if now > Millis(60_000) {
            fail("a minute, and the reading is not delivered");
        }
    }
}

fn greet(gateway: &mut Station2, now: Millis, air: &mut Air, node: &mut Node<MESSAGES>) {
    engines::speak(gateway, now, air, |frame| node.handle_frame(now, frame));
}

fn note(deepest: &mut u32, slowest: &mut u32, cost: Cost) {
    *deepest = cost.stack.max(*deepest);
    *slowest = cost.instructions.max(*slowest);
}
