//! Receipts: what gateways say of when they heard a reading. A claim of the gateway, and never more.

use fivefold_core::id::BootContext;
use fivefold_core::proof::Sign1;
use fivefold_core::proof::merkle::{Hash, verify_inclusion};
use fivefold_core::proof::receipt::{CONTEXT, Receipt};
use fivefold_core::proof::statement::SignedLevel;
use fivefold_core::wire::cbor::Malformed;
use fivefold_core::wire::coap::{Outer, PAYLOAD_MARKER, POST, Protected};
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};
use serde::Serialize;

use super::{Refused, Step, Tbs, Verifier};
use crate::bundle::{Bundle, Heard};
use crate::chain::Whom;
use crate::der::{self, NotDer};
use crate::log::EntryKind;
use crate::logged;
use crate::record::{Enrolment, Revocations};

/// A gateway that says it heard the reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeardBy {
    /// Which gateway, 8 hex digits.
    pub gateway: String,
    /// Its network, 8 hex digits.
    pub net: String,
    /// When it says it did, Unix milliseconds.
    pub at_ms: u64,
    /// Its receipt was in the log before this time, Unix seconds.
    pub logged_before: u64,
}

/// Checks every receipt of the bundle.
pub(super) fn check(
    bundle: &Bundle<'_>,
    tbs: &Tbs<'_>,
    enrolment: &Enrolment<'_>,
    list: &Revocations,
    by: &Verifier<'_>,
) -> Result<Vec<HeardBy>, Refused> {
    let each =
        |heard: &Heard<'_>| one(heard, tbs, enrolment, list, by).map_err(|reason| Step::Receipts.refused(reason));
    bundle.receipts.iter().map(each).collect()
}

fn one(
    heard: &Heard<'_>,
    tbs: &Tbs<'_>,
    enrolment: &Enrolment<'_>,
    list: &Revocations,
    by: &Verifier<'_>,
) -> Result<HeardBy, String> {
    let signed = Sign1::parse(heard.receipt).map_err(|e| e.reason)?;
    let receipt = Receipt::parse(signed.danger_payload()).map_err(|e| e.reason)?;
    let path = &heard.path;
    verify_inclusion(&Hash::of_leaf([heard.envelope]), path.index, path.size, &path.hashes, &receipt.root)
        .map_err(|e| e.reason)?;
    if path.size != receipt.count {
        return Err("the receipt is over another number of envelopes".into());
    }
    let envelope = about(heard.envelope, tbs, enrolment).map_err(|e| e.reason)?;

    let whom = Whom::Gateway(enrolment.net, receipt.gateway);
    let first = heard.chain.first().copied().unwrap_or_default();
    let spki = der::spki_of(first).map_err(|NotDer| "the certificate of the gateway cannot be read")?;
    by.signed(heard.receipt, spki, CONTEXT)?;
    let certified = by.certified(&heard.chain, whom)?;
    let place = logged::check(EntryKind::Receipt, heard.receipt, heard.proof, by).map_err(|e| e.into_reason())?;
    if !certified.covers(place.time) {
        return Err("a certificate of the gateway was not valid when witnesses saw the receipt".into());
    }
    if list.since(signed.header.key).is_some_and(|since| since <= place.time) {
        return Err("the key of the gateway was revoked before witnesses saw the receipt".into());
    }
    Ok(HeardBy {
        gateway: receipt.gateway.to_string(),
        net: enrolment.net.to_string(),
        at_ms: envelope.received.0,
        logged_before: place.time,
    })
}

/// Whether an envelope holds the message in which a reading came, for whoever puts bundles together: one that does not would
/// refuse the bundle. `tbs` is what was signed of the reading, `enrolment` the record of its device.
pub fn is_about(envelope: &[u8], tbs: &[u8], enrolment: &[u8]) -> bool {
    let about = || about(envelope, &Tbs::parse(tbs)?, &Enrolment::parse(enrolment)?).map(drop);
    about().is_ok()
}

/// The envelope holds the message in which this reading came.
fn about<'e>(envelope: &'e [u8], tbs: &Tbs<'_>, enrolment: &Enrolment<'_>) -> Result<Envelope<'e>, Malformed> {
    let envelope = Envelope::parse(envelope)?;
    names(&envelope, tbs, enrolment).map_err(Malformed::new)?;
    Ok(envelope)
}

fn names(envelope: &Envelope<'_>, tbs: &Tbs<'_>, enrolment: &Enrolment<'_>) -> Result<(), &'static str> {
    let from = Originator::Node { net: enrolment.net, sid: enrolment.sid };
    if envelope.originator != from {
        return Err("the envelope came from another device");
    }
    let subject = tbs.subject;
    let (kid, piv, bctx) = match (subject.level, envelope.kind) {
        (SignedLevel::Cloud, Kind::CloudTiny | Kind::CloudCoap) => {
            let outer = if envelope.kind == Kind::CloudCoap { Outer::StockClient } else { Outer::Strict };
            let message = Protected::parse_request(envelope.bytes, outer).map_err(|e| e.reason)?;
            let option = message.option;
            let kid = option.kid.unwrap_or_default().to_vec();
            let piv = option.piv.map(|p| p.value());
            let bctx = option.kid_context.map(<[u8; 8]>::try_from).transpose();
            let bctx = bctx.map_err(|_| "the message in the envelope names no boot of ours")?.map(BootContext);
            (kid, piv, bctx)
        }
        (SignedLevel::Gateway, Kind::GatewayOpened) => {
            let opened = envelope.opened.ok_or("the envelope does not say which message it was")?;
            if opened.epoch != subject.epoch {
                return Err("the message in the envelope is of another epoch");
            }
            if envelope.bytes.strip_prefix(&[POST, PAYLOAD_MARKER]) != Some(tbs.payload) {
                return Err("the gateway opened another payload");
            }
            (opened.kid.to_bytes().to_vec(), Some(opened.piv), opened.bctx)
        }
        _ => return Err("the envelope is of another kind than the reading"),
    };
    if kid != enrolment.sid.to_bytes() {
        return Err("the message in the envelope is of another device");
    }
    if piv != Some(tbs.piv) {
        return Err("the message in the envelope has another number");
    }
    if bctx != subject.bctx {
        return Err("the message in the envelope is of another boot");
    }
    Ok(())
}
