//! A batch of 32 readings, from their leaves to the signature: what it costs a device, against known answers.
#![no_std]
#![no_main]

use fivefold_core::id::Epoch;
use fivefold_core::proof::batch::{Claim, Members, NO_PREVIOUS};
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::statement::{BlindKey, SignedLevel, Subject};
use fivefold_core::suite::p256::SigningKey;
use fivefold_device::evidence::Signing;
use fivefold_firmware::scene::{DEVICE, NUMBER, READING, ascending};
use fivefold_firmware::{Pace, begin, expect, expected, fail, measure_at, report, report_size, spin, succeed};

const READINGS: usize = 32;

#[cortex_m_rt::entry]
fn main() -> ! {
    begin();
    let ((), cost) = measure_at(Pace::Long, || spin(1_000_000));
    if cost.instructions.abs_diff(2_000_000) > 200 {
        report("spin", cost);
        fail("instructions are not counted as they are");
    }
    report_size("Signing, 16 leaf hashes", size_of::<Signing<SigningKey, 16>>());
    report_size("Signing, 64 leaf hashes", size_of::<Signing<SigningKey>>());

    let blind = BlindKey::new(ascending(0x40));
    let subject = Subject { level: SignedLevel::Cloud, did: DEVICE.0, epoch: Epoch(5), bctx: None };
    let mut leaves = [Hash([0; 32]); READINGS];
    let mut members = Members::one(NUMBER.into());
    for (piv, place) in (u64::from(NUMBER)..).zip(&mut leaves) {
        let (leaf, cost) = measure_at(Pace::Long, || subject.leaf(&blind.salt(piv), piv, READING));
        *place = leaf;
        members = members.with(piv).unwrap_or_else(|| fail("a number is refused"));
        if piv == u64::from(NUMBER) {
            report("leaf", cost);
        }
    }
    let claim = Claim { subject, number: 1, members, previous: NO_PREVIOUS };
    let (stated, cost) = measure_at(Pace::Long, || claim.over(leaves));
    let Some(stated) = stated else { fail("the leaves are not those of the claim") };
    report("root and statement", cost);
    expect("the statement", stated.as_bytes(), expected::SIGNED_STATEMENT);

    let (key, cost) = measure_at(Pace::Long, || SigningKey::from_random(&ascending(0xA0)));
    let Some(key) = key else { fail("the private key is refused") };
    report("key, from its scalar", cost);
    let (signature, cost) = measure_at(Pace::Long, || stated.sign(&key));
    let Ok(signature) = signature else { fail("nothing is signed") };
    report("sign", cost);
    expect("the signature", &signature.0, expected::SIGNED_SIGNATURE);
    succeed()
}
