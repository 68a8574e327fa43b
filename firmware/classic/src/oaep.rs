//! EME-OAEP (RFC 8017 7.1.1 step 2) with SHA-256 and MGF1-SHA-256: padding, no RSA. The number that comes out goes through
//! the public operation of whatever library the sketch links.

use fivefold_core::suite::{HASH, sha256};

/// Bytes of the modulus, and of what is encoded.
pub const K: usize = 256;
/// Bytes of the randomness.
pub const SEED: usize = HASH;

/// 00 ‖ seed, masked ‖ SHA-256(label) 00 .. 00 01 message, masked. `None` if the message is longer than 190 bytes.
pub fn encode(label: &[u8], message: &[u8], seed: &[u8; SEED], out: &mut [u8; K]) -> Option<()> {
    *out = [0; K];
    let (head, block) = out.split_first_chunk_mut::<{ 1 + SEED }>()?;
    let [_zero, seed_slot @ ..] = head;
    let (label_slot, rest) = block.split_first_chunk_mut::<HASH>()?;
    *label_slot = sha256(&[label]);
    let at = rest.len().checked_sub(message.len()).filter(|&at| at > 0)?;
    *rest.get_mut(at - 1)? = 1;
    rest.get_mut(at..)?.copy_from_slice(message);
    mask(block, seed);
    *seed_slot = *seed;
    mask(seed_slot, block);
    Some(())
}

/// Mixes MGF1(seed) into the bytes (RFC 8017 B.2.1).
fn mask(bytes: &mut [u8], seed: &[u8]) {
    for (counter, chunk) in (0_u32..).zip(bytes.chunks_mut(HASH)) {
        let mask = sha256(&[seed, &counter.to_be_bytes()]);
        chunk.iter_mut().zip(mask).for_each(|(byte, other)| *byte ^= other);
    }
}
