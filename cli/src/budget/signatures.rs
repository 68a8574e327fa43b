//! What signatures cost on the air: messages of a batch's signature, by the encoder that nodes use, for each reading in it.

use fivefold_core::profile::{Policy, Profile};
use fivefold_core::proof::batch::Members;
use fivefold_device::evidence::signature_messages;
use serde_json::{Value, json};

use super::{Budget, NoBudget, Numbering, budget};

/// Readings in a batch, as the table has them.
const BATCHES: [u64; 4] = [1, 8, 32, 64];
/// Bytes of one signature.
const SIGNATURE: usize = 64;

/// A batch's signature on the air.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Readings in the batch.
    pub readings: u64,
    /// Messages that its signature takes.
    pub messages: usize,
    /// Bytes of their frames.
    pub bytes: usize,
}

impl Cost {
    /// Bytes for each reading, rounded up to a tenth.
    pub fn each(&self) -> f64 {
        let tenths = (self.bytes * 10).div_ceil(usize::try_from(self.readings).unwrap_or(1).max(1));
        tenths as f64 / 10.0
    }
}

/// What the signature of a batch of so many consecutive readings takes under `policy`; `None` where no piece of it fits.
///
/// # Errors
/// [`NoBudget`], as for readings.
pub fn cost(policy: &Policy, numbering: Numbering, readings: u64) -> Result<Option<Cost>, NoBudget> {
    let Budget { frame, left, .. } = budget(policy, numbering)?;
    let first = u64::from(numbering.number);
    let members = (first + 1..first + readings).try_fold(Members::one(first), Members::with);
    let mut cost = Cost { readings, messages: 0, bytes: 0 };
    // The number of the batch has two bytes in CBOR, and more from 65,536 on.
    let whole = members.is_some_and(|members| {
        signature_messages(300, members, left, |len| {
            cost.messages += 1;
            cost.bytes += frame.saturating_sub(left) + len;
        })
    });
    Ok(whole.then_some(cost))
}

/// One row: the batches of [`BATCHES`] as words, and all of it for programs. `None` where nothing is sealed.
pub(super) fn row(policy: &Policy, numbering: Numbering) -> Result<Option<(Vec<String>, Value)>, NoBudget> {
    if policy.profile == Profile::DangerLinkOnly {
        return Ok(None);
    }
    let (mut words, mut values) = (Vec::new(), Vec::new());
    for readings in BATCHES {
        match cost(policy, numbering, readings)? {
            Some(cost) => {
                words.push(format!("{:.1} ({})", cost.each(), cost.messages));
                values.push(json!({"readings": readings, "messages": cost.messages, "bytes": cost.bytes}));
            }
            None => {
                words.push("-".into());
                values.push(json!({"readings": readings, "messages": null, "bytes": null}));
            }
        }
    }
    Ok(Some((words, json!(values))))
}

/// What stands in front of the columns, and below them.
pub(super) const COLUMNS: [&str; 7] = ["radio", "levels", "kid", "N=1", "N=8", "N=32", "N=64"];

/// Below the table.
pub(super) fn note() -> String {
    format!(
        "Bytes on the air for each reading, and in brackets the messages for each batch. A signature in each reading takes \
         {SIGNATURE} bytes of its payload."
    )
}
