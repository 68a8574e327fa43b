//! The same Node with a key that signs: the reading is a batch of one, and its signature is confirmed as well.
#![no_std]
#![no_main]

use fivefold_core::profile::Sign;
use fivefold_core::suite::p256::SigningKey;
use fivefold_device::Node;
use fivefold_device::evidence::{Downlink, Signing};
use fivefold_device::renewal::NoCurve;
use fivefold_firmware::scene::ascending;
use fivefold_firmware::{fail, journey, report_size};

/// Leaf hashes that it keeps.
const LEAVES: usize = 16;

#[cortex_m_rt::entry]
fn main() -> ! {
    report_size("Node<4>, 16 leaf hashes", size_of::<Node<4, NoCurve, Signing<SigningKey, LEAVES>>>());
    report_size("Node<4>, 64 leaf hashes", size_of::<Node<4, NoCurve, Signing<SigningKey>>>());
    journey::run(|| Signing::<_, LEAVES>::new(key(), Downlink::Heard), Sign::Batch)
}

#[inline(never)]
fn key() -> SigningKey {
    SigningKey::from_random(&ascending(0xA0)).unwrap_or_else(|| fail("the private key is refused"))
}
