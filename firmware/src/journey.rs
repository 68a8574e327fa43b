//! A node's first minute: it boots, greets its gateway, sends a reading under E1, E2 and E3, and has it confirmed by the cloud.
//! One that signs has its signature confirmed as well.

use fivefold_core::profile::Sign;
use fivefold_core::proof::statement::BlindKey;
use fivefold_core::time::Millis;
use fivefold_device::evidence::Evidence;
use fivefold_device::renewal::NoCurve;
use fivefold_device::storage::Slots;
use fivefold_device::{Event, Node, Output};

use crate::engines::{self, Air, NODE, Pages, ROW};
use crate::scene::{self, FRAME, Station2, ascending};
use crate::{Cost, begin, fail, measure, report, succeed};

/// Messages in the outbox.
const MESSAGES: usize = 4;
/// Milliseconds between two looks at the clock.
const STEP: u64 = 50;

/// Runs it, and ends the program. `evidence` is made where the node is put together: each move is one more copy on the stack.
#[inline(always)]
pub fn run<E: Evidence>(evidence: impl FnOnce() -> E, sign: Sign) -> ! {
    begin();
    let Ok((mut slots, record)) = Slots::open(Pages::blank()) else { fail("the pages cannot be read") };
    let (mut settings, mut secrets, entropy) = (engines::settings(NODE), engines::secrets(), engines::entropy());
    (settings.policy.sign, settings.policy.batch) = (sign, 1);
    secrets.blind = (sign == Sign::Batch).then(|| BlindKey::new(ascending(0x40)));
    let mut node = None;
    let ((), cost) = measure(|| {
        let with = (None, evidence());
        let started = Node::<MESSAGES, NoCurve, E>::boot_signing(Millis(0), settings, &secrets, with, record, &entropy);
        node = started.ok();
    });
    report("boot", cost);
    let Some(node) = &mut node else { fail("the node does not boot") };
    drop(secrets);

    let mut gateway = scene::gateway();
    let (mut air, mut answer): (Air, Air) = ([0; FRAME], [0; FRAME]);
    let (mut now, mut sent, mut synced) = (Millis(0), None, false);
    let (mut deepest, mut slowest) = (0, 0);
    let mut signed = sign == Sign::None;
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
                Some(Output::Event(Event::BatchSigned { number: 1, readings: 1 })) => signed = true,
                Some(Output::Event(Event::Delivered { .. })) => {
                    if sent.is_some() && signed && node.waiting().next().is_none() {
                        report("poll, longest", Cost { instructions: slowest, stack: deepest });
                        succeed()
                    }
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

fn greet<E: Evidence>(gateway: &mut Station2, now: Millis, air: &mut Air, node: &mut Node<MESSAGES, NoCurve, E>) {
    engines::speak(gateway, now, air, |frame| node.handle_frame(now, frame));
}

fn note(deepest: &mut u32, slowest: &mut u32, cost: Cost) {
    *deepest = cost.stack.max(*deepest);
    *slowest = cost.instructions.max(*slowest);
}
