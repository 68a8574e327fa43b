//! `fivefold budget`: bytes that an application has in one frame, by radio and combination (docs/protocol.md 6.4).
//!
//! Nothing is added up: a message of every length is sealed by the encoders that nodes use, under throwaway keys, until one
//! does not fit any more.

pub mod signatures;

use std::process::ExitCode;

use anyhow::anyhow;
use fivefold_core::counter::{Counter, Lease};
use fivefold_core::e1_link::{E1, FixedNeighbours, Identity, Link, LinkKeys, LinkPolicy, Station};
use fivefold_core::e2_gateway::{E2, E2Secret, Nesting, seal_both};
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::error::SealError;
use fivefold_core::id::{BootContext, Did, Epoch, Sid};
use fivefold_core::key::Key;
use fivefold_core::oscore::{Context, PartialIv};
use fivefold_core::profile::{KidLength, Mode, Overrides, Policy, Profile, Radio};
use fivefold_core::suite::MicLen;
use fivefold_core::wire::coap::{PAYLOAD_MARKER, POST};
use fivefold_core::wire::ieee802154::{Ack, MAX_FRAME, Pan, SecurityLevel};
use fivefold_core::wire::mesh;
use fivefold_core::wire::tiny::{LORAWAN_DR0, Layers, Tiny, Wants};
use serde::Serialize;
use serde_json::json;

use crate::output::{Output, answer, table};

/// Radios that send tiny frames, whose frames have a largest size.
const RADIOS: [Radio; 5] = [Radio::Ieee802154, Radio::Ieee802154Mic32, Radio::Xbee, Radio::Digimesh, Radio::Lorawan];
const SID: Sid = Sid(0x0A17);
/// No message is longer, sealed or not.
const BUFFER: usize = 256;
/// What an XBee 802.15.4 and an XBee DigiMesh module carry.
const XBEE: usize = 100;
const DIGIMESH: usize = 73;

/// Arguments of `fivefold budget`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// One radio: 802.15.4, 802.15.4-mic32, xbee, digimesh or lorawan; all without this.
    #[arg(long)]
    radio: Option<Radio>,
    /// One combination: e1+e2+e4, e1+e3+e4, e1+e2+e3+e4 or e1; all without this.
    #[arg(long, value_parser = profile, value_name = "LEVELS")]
    levels: Option<Profile>,
    /// Bytes of the kid in the frame: K of the device's record [default: 2 on xbee and digimesh, else 0].
    #[arg(long, value_parser = kid_length, value_name = "0|2")]
    kid_length: Option<KidLength>,
    /// Bytes of the message's number: 1 up to number 255, 2 up to 65,535, 3 beyond.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3), value_name = "1..3")]
    piv_length: u8,
    /// With the boot id in the frame, as devices in mode R send it now and then.
    #[arg(long)]
    boot_id: bool,
    /// What a batch's signature takes on the air for each reading in it, for batches of 1, 8, 32 and 64.
    #[arg(long)]
    signatures: bool,
}

/// Bytes of one full frame, from the outside in. They add up to `frame`, the radio's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// The largest frame of the radio.
    pub frame: usize,
    /// Header, security header, integrity code and check sequence of E1.
    pub e1: usize,
    /// Mesh header.
    pub mesh: usize,
    /// RuleID, number, boot id and kid.
    pub tiny: usize,
    /// Tag of E2 and what stands in front inside.
    pub e2: usize,
    /// Tag of E3 and what stands in front inside.
    pub e3: usize,
    /// For the application.
    pub left: usize,
}

/// How the messages are numbered and named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// The number of the message: its bytes count.
    pub number: u32,
    /// With the boot id, if any.
    pub boot: Option<BootContext>,
}

impl Numbering {
    /// As docs/protocol.md 6.4 counts: a number of two bytes and no boot id.
    pub const TYPICAL: Self = Self { number: 0x012C, boot: None };
}

/// Why there is no budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBudget {
    /// The record is refused.
    #[error("{0}")]
    Refused(&'static str),
    /// Datagrams of IP and 3GPP have no such limit, and the radio's own encryption is no E1.
    #[error("this radio has no frames of ours; expected 802.15.4, 802.15.4-mic32, xbee, digimesh or lorawan")]
    NoFrames,
}

/// What is left in one frame under `policy`.
///
/// # Errors
/// [`NoBudget`].
pub fn budget(policy: &Policy, numbering: Numbering) -> Result<Budget, NoBudget> {
    if !RADIOS.contains(&policy.radio) {
        return Err(NoBudget::NoFrames);
    }
    let allowed = Overrides { danger_link_only: true, danger_no_link: false };
    policy.validate(allowed).map_err(|invalid| NoBudget::Refused(invalid.reason))?;
    let mut fullest = None;
    for len in 1..BUFFER {
        match Sizes::of(policy, numbering, len) {
            Ok(sizes) => fullest = Some(sizes),
            Err(_) => break,
        }
    }
    fullest.map(|sizes| sizes.budget()).ok_or(NoBudget::NoFrames)
}

/// What an 802.15.4 mesh under the default record leaves, for the demo's table. `None` only if nothing could be sealed.
pub fn left_in_mesh(profile: Profile) -> Option<u64> {
    budget(&Policy::new(profile), Numbering::TYPICAL).ok().and_then(|b| u64::try_from(b.left).ok())
}

/// Lengths of one message that fits.
struct Sizes {
    payload: usize,
    /// Of C3, or what stands for it.
    inner: usize,
    /// Of everything sealed for OSCORE.
    outer: usize,
    tiny: usize,
    mesh: usize,
    sent: usize,
    profile: Profile,
}

impl Sizes {
    fn of(policy: &Policy, numbering: Numbering, payload: usize) -> Result<Self, SealError> {
        let mut plaintext = vec![POST, PAYLOAD_MARKER];
        plaintext.resize(2 + payload, 0x5A);
        let (mut sealed, mut wrapped) = ([0; 2 * BUFFER], [0; 2 * BUFFER]);
        let piv = PartialIv::from_value(numbering.number);
        let bctx = numbering.boot;
        let kid = (policy.kid_length == KidLength::Two).then_some(SID);
        let n = number(numbering.number)?;
        let (c2, c3) = (gateway_end(policy, bctx)?, cloud_end(policy, bctx)?);
        let (layers, inner, outer) = match policy.profile {
            Profile::ToGateway => {
                let (_, len) = c2.seal_request(n, &plaintext, &mut sealed)?;
                (Some(Layers::C2), payload, len)
            }
            Profile::ToCloud => {
                let (_, len) = c3.seal_request(n, &plaintext, &mut sealed)?;
                (Some(Layers::C3), len, len)
            }
            Profile::ToBoth => {
                let both = seal_both(&c2, &c3, n, &plaintext, Nesting::Tiny, &mut wrapped, &mut sealed)?;
                (Some(Layers::C2OverC3), both.ct3.1.saturating_sub(both.ct3.0), both.len)
            }
            Profile::DangerLinkOnly => (None, payload, payload),
        };
        let message = match layers {
            Some(layers) => {
                let ciphertext = sealed.get(..outer).ok_or(SealError::TooLong)?;
                Tiny::Request { layers, wants: Wants::Answer, piv, bctx, kid, ciphertext }
            }
            None => Tiny::Plain { piv, kid, payload: plaintext.get(2..).unwrap_or_default() },
        };
        let mut emitted = [0; BUFFER];
        let tiny = message.emit(&mut emitted)?;
        let bytes = emitted.get(..tiny).ok_or(SealError::TooLong)?;
        let (mesh, sent) = on_air(policy.radio, bytes)?;
        if sent > largest(policy.radio) {
            return Err(SealError::TooLong);
        }
        // On LoRaWAN the RuleID is the FPort, which its own header carries.
        let tiny = if policy.radio == Radio::Lorawan { tiny.saturating_sub(1) } else { tiny };
        Ok(Self { payload, inner, outer, tiny, mesh, sent, profile: policy.profile })
    }

    fn budget(&self) -> Budget {
        let e3 = if self.profile.has_e3() { self.inner.saturating_sub(self.payload) } else { 0 };
        Budget {
            frame: self.sent,
            e1: self.sent.saturating_sub(self.mesh + self.tiny),
            mesh: self.mesh,
            tiny: self.tiny.saturating_sub(self.outer),
            e2: self.outer.saturating_sub(self.payload + e3),
            e3,
            left: self.payload,
        }
    }
}

/// Seals `tiny` for the radio; length of the mesh header in it, and of all.
fn on_air(radio: Radio, tiny: &[u8]) -> Result<(usize, usize), SealError> {
    let level = match radio.mic() {
        Some(MicLen::M4) => SecurityLevel::EncMic32,
        Some(MicLen::M8) => SecurityLevel::EncMic64,
        None => return Ok((0, tiny.len().saturating_sub(1))),
    };
    let mut keys = LinkKeys::new();
    keys.install(1, &Key::<E1, 16>::new([0; 16]), 0).map_err(|_| SealError::LeaseSpent)?;
    let identity = Identity { did: Did([2; 8]), sid: SID, pan: Pan(0x4321), station: Station::Node };
    let policy = LinkPolicy { minimum: level, sending: level, ..LinkPolicy::default() };
    let mut link = Link::<FixedNeighbours<1>>::new(identity, policy, keys, FixedNeighbours::new(), [0; 32]);
    if let Some(write) = link.keys().lease_due() {
        link.keys_mut().extend_lease(write);
    }
    let mut out = [0; 2 * BUFFER];
    if matches!(radio, Radio::Ieee802154 | Radio::Ieee802154Mic32) {
        let header = mesh::Header { hops: 5, originator: SID, destination: Sid::ANY_GATEWAY };
        let sent = link.seal(Sid(1), Ack::Request, Some(header), tiny, &mut out)?;
        return Ok((mesh::HEADER, sent));
    }
    // XBee modules find their way themselves.
    Ok((0, link.e1s_seal(None, tiny, &mut out)?))
}

const fn largest(radio: Radio) -> usize {
    match radio {
        Radio::Xbee => XBEE,
        Radio::Digimesh => DIGIMESH,
        Radio::Lorawan => LORAWAN_DR0,
        _ => MAX_FRAME,
    }
}

fn number(value: u32) -> Result<Counter, SealError> {
    let mut lease = Lease::resume(value, value.saturating_add(1));
    lease.extend(value.saturating_add(1));
    Ok(lease.take()?)
}

fn gateway_end(policy: &Policy, bctx: Option<BootContext>) -> Result<Context<E2>, SealError> {
    let secret = E2Secret::new([2; 32], [2; 8]);
    secret.context_for_device(SID, Epoch(1), bctx, policy.alg).map_err(|_| SealError::LeaseSpent)
}

fn cloud_end(policy: &Policy, bctx: Option<BootContext>) -> Result<Context<E3>, SealError> {
    let secret = E3Secret::new(&[3; 32], &[3; 8]).ok_or(SealError::LeaseSpent)?;
    secret.context_for_device(SID, Epoch(1), bctx, policy.alg).map_err(|_| SealError::LeaseSpent)
}

fn profile(text: &str) -> Result<Profile, String> {
    let found =
        Profile::ALL.into_iter().find(|p| p.as_str() == text || (text == "e1" && *p == Profile::DangerLinkOnly));
    found.ok_or_else(|| "expected e1+e2+e4, e1+e3+e4, e1+e2+e3+e4 or e1".into())
}

fn kid_length(text: &str) -> Result<KidLength, String> {
    match text {
        "0" => Ok(KidLength::None),
        "2" => Ok(KidLength::Two),
        _ => Err("expected 0 or 2".into()),
    }
}

/// K as docs/protocol.md 6.4 counts it: an XBee tells the gateway no short address.
const fn usual_kid_length(radio: Radio) -> KidLength {
    match radio {
        Radio::Xbee | Radio::Digimesh => KidLength::Two,
        _ => KidLength::None,
    }
}

/// Runs the command. Exits 1 when the one combination that was asked for is not allowed.
///
/// # Errors
/// A radio without frames of ours.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let number = 1_u32 << (8 * (u32::from(args.piv_length) - 1));
    let boot = args.boot_id.then_some(BootContext([0xB0; 8]));
    let radios = args.radio.map_or(RADIOS.to_vec(), |r| vec![r]);
    let profiles = args.levels.map_or(Profile::ALL.to_vec(), |p| vec![p]);
    if args.signatures {
        return signed(args, &radios, &profiles, Numbering { number, boot }, output);
    }
    let mut rows = table(&["radio", "levels", "kid", "frame", "E1", "mesh", "tiny", "E2", "E3", "left"]);
    let (mut values, mut refused) = (Vec::new(), None);
    for radio in radios {
        for profile in &profiles {
            let kid_length = args.kid_length.unwrap_or(usual_kid_length(radio));
            let mode = if args.boot_id { Mode::Random } else { Mode::Persistent };
            let policy = Policy { radio, kid_length, mode, ..Policy::new(*profile) };
            let kid = if kid_length == KidLength::Two { 2 } else { 0 };
            let insecure = *profile == Profile::DangerLinkOnly;
            let levels = if insecure { "e1 (INSECURE)" } else { profile.as_str() };
            let head = [radio.as_str().to_owned(), levels.to_owned(), kid.to_string()];
            let named = json!({
                "radio": radio.as_str(), "levels": profile.as_str(), "insecure": insecure, "kid_length": kid,
            });
            match budget(&policy, Numbering { number, boot }) {
                Ok(b) => {
                    let counts = [b.frame, b.e1, b.mesh, b.tiny, b.e2, b.e3, b.left].map(|n| n.to_string());
                    rows.add_row(head.into_iter().chain(counts));
                    values.push(merged(named, &json!(b)));
                }
                Err(NoBudget::Refused(reason)) => {
                    let dashes = std::iter::repeat_n("-".to_owned(), 7);
                    rows.add_row(head.into_iter().chain(dashes));
                    values.push(merged(named, &json!({ "left": null, "refused": reason })));
                    refused = Some(reason);
                }
                Err(NoBudget::NoFrames) => return Err(anyhow!("{radio}: {}", NoBudget::NoFrames)),
            }
        }
    }
    let only = values.len() == 1;
    let value = json!({ "piv_length": args.piv_length, "boot_id": args.boot_id, "budgets": values });
    answer(output, &value, || match refused {
        Some(reason) => format!("{rows}\n\n-: not allowed: {reason}."),
        None => rows.to_string(),
    });
    Ok(if only && refused.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The table of `--signatures`.
fn signed(
    args: &Args,
    radios: &[Radio],
    profiles: &[Profile],
    numbering: Numbering,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let mut rows = table(&signatures::COLUMNS);
    let mut values = Vec::new();
    for radio in radios.iter().copied() {
        for profile in profiles {
            let kid_length = args.kid_length.unwrap_or(usual_kid_length(radio));
            let mode = if args.boot_id { Mode::Random } else { Mode::Persistent };
            let policy = Policy { radio, kid_length, mode, ..Policy::new(*profile) };
            let kid = if kid_length == KidLength::Two { 2 } else { 0 };
            let row = signatures::row(&policy, numbering).map_err(|e| anyhow!("{radio}: {e}"))?;
            // E1 alone has no messages that could be signed.
            let Some((words, batches)) = row else { continue };
            rows.add_row(
                [radio.as_str().to_owned(), profile.as_str().to_owned(), kid.to_string()].into_iter().chain(words),
            );
            values.push(json!({
                "radio": radio.as_str(), "levels": profile.as_str(), "kid_length": kid, "batches": batches,
            }));
        }
    }
    let value = json!({ "piv_length": args.piv_length, "boot_id": args.boot_id, "signatures": values });
    answer(output, &value, || format!("{rows}\n\n{}", signatures::note()));
    Ok(ExitCode::SUCCESS)
}

fn merged(mut named: serde_json::Value, more: &serde_json::Value) -> serde_json::Value {
    if let (Some(all), Some(more)) = (named.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    named
}
