//! Signed things: COSE_Sign1, receipts of gateways, statements, and Merkle proofs. What parses is emitted as it was.
#![no_main]

use fivefold_core::proof::Sign1;
use fivefold_core::proof::merkle::{Hash, verify_consistency, verify_inclusion};
use fivefold_core::proof::receipt::Receipt;
use fivefold_core::proof::statement::Statement;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 4096];
    if let Ok(signed) = Sign1::parse(bytes) {
        let _ = Receipt::parse(signed.danger_payload());
    }
    if let Ok(receipt) = Receipt::parse(bytes) {
        let len = receipt.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
    }
    if let Ok(statement) = Statement::parse(bytes) {
        let len = statement.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
        let _ = statement.leaves();
    }
    let [index, size, rest @ ..] = bytes else { return };
    let hashes: Vec<Hash> = rest.chunks_exact(32).map(|c| Hash(c.try_into().expect("32 bytes"))).collect();
    let [root, proof @ ..] = hashes.as_slice() else { return };
    let (index, size) = (u64::from(*index), u64::from(*size));
    let _ = verify_inclusion(root, index, size, proof, root);
    let _ = verify_consistency(index, root, size, root, proof);
});
