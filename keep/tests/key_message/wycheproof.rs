//! Project Wycheproof's OAEP and PSS sets of our sizes, through the code that the server uses.

use fivefold_core::wire::key_message::RsaSize;
use fivefold_keep::key_message::{Decrypt, DeviceKey, PrivateRsaKey, VerifyPss};
use wycheproof::{TestResult, rsa_oaep, rsa_pss_verify};

#[test]
fn every_oaep_case_gets_its_stated_verdict_with_its_label() {
    let sets =
        [(rsa_oaep::TestName::Rsa2048Sha256Mgf1Sha256, 2048), (rsa_oaep::TestName::Rsa3072Sha256Mgf1Sha256, 3072)];
    for (name, bits) in sets {
        let set = rsa_oaep::TestSet::load(name).unwrap();
        let (mut valid, mut invalid, mut labelled) = (0, 0, 0);
        for group in &set.test_groups {
            assert_eq!(group.key_size, bits);
            let key = PrivateRsaKey::from_pkcs8(&group.pkcs8).unwrap();
            for case in &group.tests {
                let mut m = [0; RsaSize::LONGEST];
                let opened = key.decrypt(&case.label, &case.ct, &mut m).ok().map(|len| &m[..len]);
                match case.result {
                    TestResult::Valid => {
                        assert_eq!(opened, Some(&case.pt[..]), "{bits}: case {}", case.tc_id);
                        valid += 1;
                    }
                    TestResult::Invalid | TestResult::Acceptable => {
                        assert_eq!(opened, None, "{bits}: case {} ({:?})", case.tc_id, case.result);
                        invalid += 1;
                    }
                }
                labelled += usize::from(!case.label.is_empty());
            }
        }
        assert_eq!(valid + invalid, set.number_of_tests);
        assert!(valid > 10 && invalid > 10 && labelled > 1, "{bits}: {valid} {invalid} {labelled}");
    }
}

#[test]
fn every_pss_case_gets_its_stated_verdict() {
    let sets = [
        (rsa_pss_verify::TestName::RsaPss2048Sha256Mgf1SaltLen32, RsaSize::Rsa2048),
        (rsa_pss_verify::TestName::RsaPss3072Sha256Mgf1SaltLen32, RsaSize::Rsa3072),
    ];
    for (name, size) in sets {
        let set = rsa_pss_verify::TestSet::load(name).unwrap();
        let (mut valid, mut invalid) = (0, 0);
        for group in &set.test_groups {
            assert_eq!(group.salt_size, 32);
            let key = DeviceKey::from_spki(&group.der).unwrap();
            assert_eq!(key.size(), size);
            for case in &group.tests {
                let verdict = key.verify(&case.msg, &case.sig).is_ok();
                assert_eq!(
                    verdict,
                    case.result == TestResult::Valid,
                    "{size:?}: case {} {:?}",
                    case.tc_id,
                    case.result
                );
                *if verdict { &mut valid } else { &mut invalid } += 1;
            }
        }
        assert_eq!(valid + invalid, set.number_of_tests);
        assert!(valid > 10 && invalid > 10, "{size:?}: {valid} {invalid}");
    }
}
