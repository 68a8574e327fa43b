//! The SDK's Node: boots, greets its gateway, sends a reading under E1, E2 and E3, and has it confirmed by the cloud.
#![no_std]
#![no_main]

use fivefold_core::profile::Sign;
use fivefold_device::Node;
use fivefold_device::evidence::Unsigned;
use fivefold_firmware::{journey, report_size};

#[cortex_m_rt::entry]
fn main() -> ! {
    report_size("Node<1>", size_of::<Node<1>>());
    report_size("Node<4>", size_of::<Node<4>>());
    report_size("Node<8>", size_of::<Node<8>>());
    journey::run(|| Unsigned, Sign::None)
}
