//! E1 alone: a device seals a reading, a relay passes it on, the device opens the answer.
#![no_std]
#![no_main]

use fivefold_firmware::scene::{self, FRAME, READING};
use fivefold_firmware::{begin, expect, expected, fail, measure, report, report_size, succeed};

#[cortex_m_rt::entry]
fn main() -> ! {
    begin();
    let (mut device, mut relay) = (scene::device(), scene::relay());
    report_size("Link", size_of_val(&device));
    let (mut out, mut onward, mut answer) = ([0; FRAME], [0; FRAME], [0; FRAME]);
    let (len, cost) = measure(|| scene::seal_plain(&mut device, READING, &mut out));
    expect("the sealed frame", &out[..len], expected::E1_SEALED);
    report("seal", cost);

    let (len, cost) = measure(|| scene::pass_on(&mut relay, &mut out[..len], &mut onward));
    expect("the relayed frame", &onward[..len], expected::E1_ONWARD);
    report("relay", cost);

    let answer = &mut answer[..expected::E1_ANSWER.len()];
    answer.copy_from_slice(expected::E1_ANSWER);
    let (opened, cost) = measure(|| scene::open_frame(&mut device, answer).len() as u8);
    if opened != 11 {
        fail("the opened answer");
    }
    report("open", cost);
    succeed()
}
