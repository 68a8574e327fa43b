//! Classic devices into the operator's book: all that are not there yet, or none.

use std::collections::HashMap;

use anyhow::Context as _;
use fivefold_keep::registry::{ClassicDevice, ClassicKeys, ClassicSecret, Network, NewClassic};
use fivefold_waspmote::Serial;
use zeroize::Zeroizing;

use super::book::{Found, GatewayKey};
use super::rows::{Fate, Note};
use crate::clock;
use crate::operator::Operator;

/// How many devices went in, and how many were there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entered {
    /// New ones.
    pub(crate) added: usize,
    /// Those that were there.
    pub(crate) known: usize,
}

/// Enters devices that are not there yet, and gives those that are there a key where they have none. What stands in the book
/// is never replaced.
///
/// # Errors
/// The network takes no classic devices; the book or the vault fails.
pub(crate) fn enter(
    operator: &mut Operator,
    network: &Network,
    found: &[Found],
    words: Option<&str>,
    notes: &mut Vec<Note>,
) -> anyhow::Result<Entered> {
    let now = clock::now()?;
    let known: HashMap<Serial, ClassicDevice> =
        operator.registry.classic_devices()?.into_iter().map(|d| (d.serial, d)).collect();
    let mut entered = Entered::default();
    let mut new = Vec::new();
    for one in found {
        match known.get(&one.serial) {
            Some(device) => {
                entered.known += 1;
                if let Some(key) = &one.key {
                    give_key(operator, device, key, words, notes)?;
                }
            }
            None => new.push(NewClassic {
                node_id: one.node_id.clone(),
                table: one.table,
                keys: ClassicKeys { gateway: one.key.as_ref().map(secret).transpose()?, cloud: None },
                words: words.map(str::to_owned),
                ..NewClassic::plain(one.serial, network.net)
            }),
        }
    }
    let examined = operator.registry.examine_classic(&new, now, |at| format!("device {}", at + 1))?;
    let mut good = Vec::new();
    for (one, examined) in new.iter().zip(&examined) {
        match examined {
            Ok(device) => good.push((device, &one.keys)),
            Err(why) => notes.push(note("device", Fate::Refused, format!("serial {}: {why}", one.serial))),
        }
    }
    entered.added = good.len();
    if !good.is_empty() {
        operator.registry.enter_classic(&operator.vault, &good)?;
    }
    Ok(entered)
}

fn give_key(
    operator: &mut Operator,
    device: &ClassicDevice,
    key: &GatewayKey,
    words: Option<&str>,
    notes: &mut Vec<Note>,
) -> anyhow::Result<()> {
    if device.revoked_at.is_some() {
        notes.push(note(
            "device-revoked",
            Fate::Left,
            format!("serial {} is revoked here, and stays so", device.serial),
        ));
        return Ok(());
    }
    let ours = secret(key)?;
    let mut keys = operator.registry.classic_keys(&operator.vault, device)?;
    match &keys.gateway {
        Some(theirs) if theirs.bytes() == ours.bytes() => {}
        Some(_) => {
            let text = format!("serial {} has another key here, which stays", device.serial);
            notes.push(note("key-differs", Fate::Left, text));
        }
        None => {
            keys.gateway = Some(ours);
            let done = operator.registry.rekey_classic(&operator.vault, device.serial, &keys, words);
            if let Err(why) = done {
                notes.push(note("device", Fate::Refused, format!("the key of serial {}: {why}", device.serial)));
            }
        }
    }
    Ok(())
}

/// As the nodes take a text: filled with zeros. A text of hex digits is a text.
fn secret(key: &GatewayKey) -> anyhow::Result<ClassicSecret> {
    let mut bytes = Zeroizing::new(vec![0; key.bits.bytes()]);
    for (to, from) in bytes.iter_mut().zip(key.text.iter()) {
        *to = *from;
    }
    ClassicSecret::from_bytes(&bytes).context("a key of the dump")
}

fn note(reason: &'static str, fate: Fate, text: String) -> Note {
    Note { line: 0, table: "encryptionData".into(), row: None, reason, fate, text }
}
