//! Nothing but the runtime and the measuring: what the other programs' flash is compared with.
#![no_std]
#![no_main]

use fivefold_firmware::{measure, report, succeed};

#[cortex_m_rt::entry]
fn main() -> ! {
    let ((), cost) = measure(|| ());
    report("nothing", cost);
    succeed()
}
