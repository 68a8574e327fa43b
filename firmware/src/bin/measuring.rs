//! What the numbers are held to: calls whose instructions and stack are known.
#![no_std]
#![no_main]

use fivefold_firmware::{GAP, begin, fail, measure, report, spin, succeed};

#[cortex_m_rt::entry]
fn main() -> ! {
    begin();
    let ((), cost) = measure(|| ());
    if cost.instructions != 0 || cost.stack != GAP as u32 {
        fail("a call of nothing costs something");
    }
    for rounds in [1_000, 100_000] {
        let ((), cost) = measure(|| spin(rounds));
        // The call, the return and the constant are a handful.
        if cost.instructions.abs_diff(2 * rounds) > 12 {
            report("spin", cost);
            fail("instructions are not counted as they are");
        }
    }
    let ((), cost) = measure(|| {
        let mut room = [0_u8; 1024];
        core::hint::black_box(&mut room);
    });
    if !(1024..1024 + 2 * GAP as u32).contains(&cost.stack) {
        report("room", cost);
        fail("stack is not measured as it is");
    }
    succeed()
}
