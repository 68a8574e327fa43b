//! Nothing but the runtime and the measuring: what the other programs' flash is compared with.
#![no_std]
#![no_main]

use fivefold_firmware::{begin, measure, report, succeed};

#[cortex_m_rt::entry]
fn main() -> ! {
    begin();
    let ((), cost) = measure(|| ());
    report("nothing", cost);
    succeed()
}
