//! EDHOC from the device's side (V18): offers, proves, is confirmed, and derives what the run gives.
#![no_std]
#![no_main]

use fivefold_core::e3_cloud::E3;
use fivefold_core::e5_renewal::{Announce, Credential, Identity, Initiator, PeerKid, PqMix, WaitM2, WaitM4};
use fivefold_core::id::Epoch;
use fivefold_core::suite::Alg;
use fivefold_core::suite::agreement::{Agree, PublicX};
use fivefold_core::suite::p256::AgreementKey;
use fivefold_firmware::scene::{DEVICE, ascending};
use fivefold_firmware::{Pace, begin, expect, expected, fail, measure_at, report, report_size, spin, succeed};

/// The public key of a credential as it was stored at enrolment.
fn public_x(credential: &[u8]) -> PublicX {
    match credential.last_chunk() {
        Some(x) => PublicX(*x),
        None => fail("a credential is shorter than its key"),
    }
}

fn key(first: u8) -> AgreementKey {
    AgreementKey::from_random(&ascending(first)).unwrap_or_else(|| fail("a private key is refused"))
}

#[cortex_m_rt::entry]
fn main() -> ! {
    begin();
    let ((), cost) = measure_at(Pace::Long, || spin(1_000_000));
    if cost.instructions.abs_diff(2_000_000) > 200 {
        report("spin", cost);
        fail("instructions are not counted as they are");
    }
    report_size("Initiator, waiting for message_2", size_of::<Initiator<E3, WaitM2<AgreementKey>>>());
    report_size("Initiator, waiting for message_4", size_of::<Initiator<E3, WaitM4>>());

    let device = Credential::device(DEVICE.1, public_x(expected::V18_CREDENTIAL_DEVICE));
    let cloud = match PeerKid::new(0) {
        Some(kid) => Credential::peer(kid, public_x(expected::V18_CREDENTIAL_CLOUD)),
        None => fail("a kid is refused"),
    };
    let own_key = key(0x80);
    let own = Identity { key: &own_key, credential: &device };

    let (offered, cost) =
        measure_at(Pace::Long, || Initiator::<E3, _>::offer(key(0xC0), DEVICE.1, Epoch(5), Announce::Nothing));
    let Ok((waiting, message_1)) = offered else { fail("the offer is refused") };
    expect("message_1", message_1.as_bytes(), expected::V18_MESSAGE_1);
    report("offer", cost);

    let (proven, cost) = measure_at(Pace::Long, || waiting.handle_message_2(expected::V18_MESSAGE_2, &own, &cloud));
    let Ok((waiting, message_3)) = proven else { fail("message_2 is refused") };
    expect("message_3", message_3.as_bytes(), expected::V18_MESSAGE_3);
    report("handle_message_2", cost);

    let (agreed, cost) = measure_at(Pace::Long, || waiting.handle_message_4(expected::V18_MESSAGE_4));
    let Ok(agreed) = agreed else { fail("message_4 is refused") };
    report("handle_message_4", cost);

    let (secrets, cost) =
        measure_at(Pace::Long, || agreed.secrets(Alg::AesCcm16_64_256, Some(&PqMix::new(&ascending(0x60), DEVICE.0))));
    expect("MS3", secrets.e3.danger_master_secret(), expected::V18_MS3);
    expect("K_e2root", secrets.e2_root.danger_bytes(), expected::V18_E2_ROOT);
    report("secrets", cost);
    succeed()
}
