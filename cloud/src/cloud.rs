//! # The cloud's engine
//!
//! | | |
//! |---|---|
//! | Key held by | the cloud: C3 of every device |
//! | Hides       | nothing here; readings are stored as they were opened |
//! | Proves      | by which seal each reading came: the node's own, or a gateway's word |
//! | Binds       | a reading to (network, device, level, epoch, boot, number), once |
//! | Drops as    | `E3-01` to `E3-14`, `E4-02`, `E4-03`, `E4-06`, `EV-01`, `T-01`; `E2-05` to `E2-08` of gateways' words |
//! | Does not    | read clocks, write disks, hold sockets: [`ingest`](crate::ingest) carries out what comes out here |
//! | Spec        | docs/protocol.md 5, 8, 9, 10 |
//!
//! A batch goes through three steps. [`Cloud::judge`] opens it, in parallel with others, and says what is to be written.
//! Once that is durable, [`Cloud::conclude`] takes note of what the ledger said, and may want one more write (numbers for
//! answers, W1). After that [`Cloud::reply`] seals the answers. A crash in between loses the answers and nothing else: the
//! gateway sends the batch again, and what was stored is found to be.

mod answer;
mod classic;
mod due;
mod evidence;
mod judge;
mod renewal;
mod watch;
mod why;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use fivefold_core::e4_channel::ProvenGateway;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{BootContext, Did, GatewayId, Net, Serial, Sid};
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::receipt::{GatewayBoot, Receipt, Tally};
use fivefold_core::proof::{Sign1, Verify as _};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::why::{Detail, FrameId, Value};
use fivefold_core::wire::envelope::{Batch, Envelope, Item};
use fivefold_core::wire::key_message::{KeyEpoch, KeyLevel};
use fivefold_keep::registry::CloudIdentity;

use crate::accepted::ContextId;
use crate::accepted::signed::{BatchName, Claim};
use crate::book::Book;
use crate::classic::history::Glimpse;
use crate::key_desk::{Answer, Asked};
use crate::store::{
    BatchPast, CommandRow, Committed, CountKey, Kept, LinkReport, Orphan, PartRow, Place, ReceiptRow, Recent,
    SequenceVerdict, Verdict, Write,
};

use answer::Pending;
pub use due::RenewalSettings;
pub(crate) use evidence::PATIENCE;
#[cfg(feature = "server")]
pub(crate) use judge::holds_reading;
pub use renewal::{Agreement, Exchange, OFFERS_OF_GATEWAY, Outcome};

/// Hashes of envelopes that are remembered of one gateway run, to tell a repeat from other content under its number.
const REMEMBERED: usize = 4096;
/// A gateway's clock may be ahead by this much, in milliseconds (E4-06).
const CLOCK_OFF: u64 = 60_000;

/// What the engine asks of the past. The embedded store answers from its indexes.
pub trait Memory: Send + Sync {
    /// A row for a context that is not written yet.
    fn new_context(&self) -> ContextId;

    /// What a context last received.
    fn recent(&self, context: ContextId) -> Recent;

    /// Messages of a device that nothing opened, since `oldest`.
    fn orphans(&self, net: Net, sid: Sid, oldest: Millis) -> Vec<Orphan>;

    /// The last frames of a classic device, with the numbers under which they are stored, ascending.
    fn classic_history(&self, did: Did) -> Vec<(u64, Glimpse)> {
        let _ = did;
        Vec::new()
    }

    /// The row of a context for classic frames, if it was written.
    fn classic_context(&self, did: Did, boot: BootContext) -> Option<ContextId> {
        let _ = (did, boot);
        None
    }

    /// What is known that a device's claim of a signed batch may be about; `None` where that cannot be told now.
    fn batch_past(&self, net: Net, claim: &Claim) -> Option<BatchPast> {
        let _ = (net, claim);
        None
    }

    /// The last part of each signature of a device whose parts are all here, while there is no claim of its batch.
    fn unclaimed_parts(&self, did: Did) -> Vec<PartRow> {
        let _ = did;
        Vec::new()
    }

    /// The signature of a batch whose parts are all here, of this level or else of any: its bytes.
    fn batch_parts(&self, did: Did, batch: BatchName, level: Option<u8>) -> Option<Vec<u8>> {
        let _ = (did, batch, level);
        None
    }
}

/// A key of a classic device that a frame was sealed under: whose, what for, and which.
pub type Used = (Serial, KeyLevel, KeyEpoch);

/// What a gateway said of itself last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// When it said so.
    pub at: Millis,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Bytes in its spool.
    pub spool_used: u64,
    /// Bytes that its spool takes at most.
    pub spool_max: u64,
}

/// What the engine keeps of one gateway.
#[derive(Debug, Default)]
struct Heard {
    boot: Option<GatewayBoot>,
    // Number and hash of envelopes that are durable.
    envelopes: VecDeque<(u64, [u8; 8])>,
    health: Option<Health>,
    last: Option<Millis>,
    pushed: u64,
    // In which minute, and how many runs of EDHOC began by it.
    offers: (u64, u16),
    // The same of devices that were ordered to renew.
    orders: (u64, u16),
    // The same of key messages of classic devices.
    key_messages: (u64, u16),
}

/// The engine.
pub struct Cloud<M> {
    book: ArcSwap<Book>,
    memory: M,
    heard: Mutex<HashMap<GatewayId, Heard>>,
    watch: Mutex<watch::Watch>,
    own: Option<renewal::Own>,
    renewals: RenewalSettings,
}

impl<M> std::fmt::Debug for Cloud<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud").field("devices", &self.book.load().devices.len()).finish_non_exhaustive()
    }
}

/// A batch that was opened: what to write, and what to answer once it is durable.
#[derive(Debug)]
pub struct Judged {
    /// To be committed; then hand it and the outcome to [`Cloud::conclude`].
    pub write: Write,
    gateway: ProvenGateway,
    // One for each accepted row.
    pending: Vec<Pending>,
    refused: Vec<(u64, Code)>,
    upto: u64,
    boot: Option<GatewayBoot>,
    hashes: Vec<(u64, [u8; 8])>,
    classics: Vec<classic::Remembered>,
    /// Classic devices of which it has frames with numbers of their own.
    numbered: Vec<Arc<crate::book::ClassicDevice>>,
    /// Key messages of classic devices, to be answered behind the batch.
    asked: Vec<Asked>,
    /// Keys that frames of it take into use.
    used: Vec<Used>,
    now: Millis,
}

/// A batch that was refused as a whole (HTTP 400), with what to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRefused {
    /// Why.
    pub rejected: Rejected,
    /// Under what to count it.
    pub key: CountKey,
}

/// A batch that is durable, with its answers still to be sealed.
#[derive(Debug)]
pub struct Concluded {
    /// To be committed before [`Cloud::reply`] is called, unless it is empty.
    pub write: Arc<Write>,
    verdicts: Vec<Verdict>,
    written: Arc<Write>,
    judged: Judged,
    found: Vec<evidence::Found>,
    /// What goes back to classic nodes for their key messages.
    pub key_answers: Vec<Answer>,
}

impl<M: Memory> Cloud<M> {
    /// With this book; `pushed` says which version of its state each gateway was pushed in earlier runs.
    pub fn new(book: Book, memory: M, pushed: impl IntoIterator<Item = (GatewayId, u64)>) -> Self {
        let heard = pushed.into_iter().map(|(gw, pushed)| (gw, Heard { pushed, ..Heard::default() })).collect();
        Self {
            book: ArcSwap::from_pointee(book),
            memory,
            heard: Mutex::new(heard),
            watch: Mutex::new(watch::Watch::default()),
            own: None,
            renewals: RenewalSettings::default(),
        }
    }

    /// With other settings of renewal.
    #[must_use]
    pub const fn with_renewals(mut self, settings: RenewalSettings) -> Self {
        self.renewals = settings;
        self
    }

    /// With the cloud's key for EDHOC; without it no device can renew.
    #[must_use]
    pub fn with_identity(mut self, identity: CloudIdentity) -> Self {
        self.own = Some(renewal::Own::new(identity));
        self
    }

    /// The book in use.
    pub fn book(&self) -> Arc<Book> {
        self.book.load_full()
    }

    /// From now on, `book`.
    pub fn replace_book(&self, book: Book) {
        self.book.store(Arc::new(book));
    }

    /// What answers for the past.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    fn heard(&self) -> MutexGuard<'_, HashMap<GatewayId, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a gateway said of itself last, and when it was heard last.
    pub fn health(&self, gateway: GatewayId) -> (Option<Health>, Option<Millis>) {
        self.heard().get(&gateway).map_or((None, None), |h| (h.health, h.last))
    }

    /// Takes note that a gateway will be pushed `version` of its state; durable before.
    pub fn pushed(&self, gateway: GatewayId, version: u64) {
        let mut heard = self.heard();
        let known = heard.entry(gateway).or_default();
        known.pushed = known.pushed.max(version);
    }

    /// The version of its state that a gateway was pushed last, if any.
    pub fn pushed_version(&self, gateway: GatewayId) -> Option<u64> {
        self.heard().get(&gateway).map(|h| h.pushed).filter(|v| *v > 0)
    }

    /// Opens the batch that `gateway` posted. Nothing is stored and nothing is answered yet.
    ///
    /// # Errors
    /// [`BatchRefused`] when it has another form or its receipt does not hold (T-01, EV-01), or the gateway is not
    /// registered (E4-01).
    pub fn judge(&self, gateway: &ProvenGateway, body: &[u8], now: Millis) -> Result<Judged, BatchRefused> {
        let book = self.book.load();
        let refused = |rejected: Rejected| BatchRefused {
            rejected,
            key: CountKey {
                code: rejected.code,
                net: Some(gateway.net()),
                gateway: Some(gateway.gateway()),
                sid: None,
                place: Place::Cloud,
            },
        };
        let known = book
            .gateway(gateway.name())
            .ok_or(refused(Rejected::new(Code::ChannelRefused, "this gateway is not registered, or revoked")))?;
        let malformed = |m: fivefold_core::reading::Malformed| refused(m.counted(Code::TinyMalformed));
        let mut envelopes = Vec::new();
        let mut cose = &[][..];
        for item in Batch::new(body).map_err(malformed)? {
            match item.map_err(malformed)? {
                Item::Envelope(bytes, envelope) => envelopes.push((bytes, envelope)),
                Item::Receipt(bytes) => cose = bytes,
            }
        }
        let receipt = self.check_receipt(gateway, known, cose, &envelopes).map_err(refused)?;

        let mut judged = Judged {
            write: Write { now, ..Write::default() },
            gateway: gateway.clone(),
            pending: Vec::with_capacity(envelopes.len()),
            refused: Vec::new(),
            upto: 0,
            boot: (receipt.count > 0).then_some(receipt.boot),
            hashes: Vec::with_capacity(envelopes.len()),
            classics: Vec::new(),
            numbered: Vec::new(),
            asked: Vec::new(),
            used: Vec::new(),
            now,
        };
        if receipt.count > 0 {
            judged.write.receipt = Some(ReceiptRow {
                net: gateway.net(),
                gateway: gateway.gateway(),
                boot: receipt.boot,
                first: receipt.first_seq,
                count: receipt.count,
                root: receipt.root,
                at: now,
                cose: cose.to_vec(),
            });
        }
        let seen = self.numbers(&mut judged, receipt.boot, &envelopes);
        let ahead = envelopes.iter().map(|(_, e)| e.received.since(now)).max().unwrap_or(0);
        if ahead > CLOCK_OFF {
            let detail = Detail::new(Value::Seconds(CLOCK_OFF / 1000), Value::Seconds(ahead / 1000));
            judged.count(Code::GatewayClockOff, None);
            let id = FrameId::of_event(Code::GatewayClockOff, now, None);
            judged.explain(id, Code::GatewayClockOff, detail, None);
        }
        for (index, ((bytes, envelope), seen)) in envelopes.iter().zip(seen).enumerate() {
            judged.upto = judged.upto.max(envelope.seq);
            let accepted = judged.write.accepted.len();
            self.judge_envelope(&book, &mut judged, bytes, envelope, seen);
            // What it made others of, that waited for it, came in envelopes of their own.
            if judged.write.accepted.get(accepted).is_some_and(|a| a.row().salt.is_some()) {
                judged.write.hearing.kept.push(Kept { accepted, index, envelope: bytes.to_vec() });
            }
        }
        if !judged.write.hearing.kept.is_empty() {
            judged.write.hearing.leaves = envelopes.iter().map(|(bytes, _)| Hash::of_leaf([bytes])).collect();
        }
        Ok(judged)
    }

    fn check_receipt(
        &self,
        gateway: &ProvenGateway,
        known: &crate::book::KnownGateway,
        cose: &[u8],
        envelopes: &[(&[u8], Envelope<'_>)],
    ) -> Result<Receipt, Rejected> {
        const OTHER: Rejected =
            Rejected::new(Code::EvidenceSignature, "the receipt does not fit what stands before it");
        // The run that it names decides what it must say; the signature is checked over what it says.
        let sign1 = Sign1::parse(cose).map_err(|m| m.counted(Code::EvidenceSignature))?;
        let claimed = Receipt::parse(sign1.danger_payload()).map_err(|m| m.counted(Code::EvidenceSignature))?;
        let key = known.keys.iter().find(|k| k.key_name() == sign1.header.key);
        let key = key.ok_or(Rejected::new(Code::EvidenceSignature, "the receipt is signed by another key"))?;
        let mut tally = Tally::new(gateway.gateway(), claimed.boot);
        envelopes.iter().for_each(|(bytes, envelope)| tally.add(bytes, envelope));
        let signed = Receipt::open(cose, key)?;
        if signed == tally.receipt() { Ok(signed) } else { Err(OTHER) }
    }

    /// Looks at the numbers of a batch: they go up by one, and what was here before is the same (E4-03). Says of each
    /// envelope whether it was here before.
    fn numbers(&self, judged: &mut Judged, boot: GatewayBoot, envelopes: &[(&[u8], Envelope<'_>)]) -> Vec<bool> {
        let mut heard = self.heard();
        let known = heard.entry(judged.gateway.gateway()).or_default();
        known.last = Some(judged.now);
        if known.boot != Some(boot) && !envelopes.is_empty() {
            known.boot = Some(boot);
            known.envelopes.clear();
        }
        let mut gap = false;
        let mut different = false;
        let mut previous: Option<u64> = None;
        let seen = envelopes
            .iter()
            .map(|(bytes, envelope)| {
                gap |= previous.is_some_and(|p| p.checked_add(1) != Some(envelope.seq));
                previous = Some(envelope.seq);
                let hash = first8(bytes);
                judged.hashes.push((envelope.seq, hash));
                let at = known.envelopes.binary_search_by_key(&envelope.seq, |(seq, _)| *seq).ok();
                let earlier = at.and_then(|i| known.envelopes.get(i)).map(|(_, earlier)| *earlier);
                different |= earlier.is_some_and(|earlier| earlier != hash);
                earlier == Some(hash)
            })
            .collect();
        drop(heard);
        if gap || different {
            judged.count(Code::ChannelSequence, None);
        }
        seen
    }

    /// Takes note of what the ledger said of a batch; `written` is what was taken out of [`Judged::write`].
    pub fn conclude(&self, judged: Judged, written: Arc<Write>, committed: Committed) -> Concluded {
        let mut write = Write { now: judged.now, ..Write::default() };
        if committed.sequence != SequenceVerdict::Different {
            let mut heard = self.heard();
            let known = heard.entry(judged.gateway.gateway()).or_default();
            if known.boot == judged.boot {
                for &(seq, hash) in &judged.hashes {
                    if known.envelopes.back().is_none_or(|(last, _)| *last < seq) {
                        known.envelopes.push_back((seq, hash));
                    }
                }
                while known.envelopes.len() > REMEMBERED {
                    known.envelopes.pop_front();
                }
            }
        }
        for (did, keys) in &written.link_keys {
            if let Some(device) = self.book.load().by_did.get(did) {
                let mut live = device.live();
                live.link_keys = Some(LinkReport::after(live.link_keys, *keys, judged.now));
            }
        }
        for (pending, (accepted, verdict)) in
            judged.pending.iter().zip(written.accepted.iter().zip(&committed.verdicts))
        {
            self.note(pending, accepted.row(), *verdict, &mut write);
        }
        self.heard_classic(&judged, &written);
        let found = self.weigh(&judged, &written, &committed, &mut write);
        let (verdicts, key_answers) = (committed.verdicts, Vec::new());
        Concluded { write: Arc::new(write), verdicts, written, judged, found, key_answers }
    }

    /// Queues a command for a device, to be sent in its next answers. Commit what comes back; then call
    /// [`Cloud::commanded`].
    ///
    /// # Errors
    /// Why this device takes no commands.
    pub fn command(&self, did: Did, op: u64, args: Vec<u8>, now: Millis) -> Result<CommandRow, NoCommand> {
        let device = self.book.load().by_did.get(&did).cloned().ok_or(NoCommand::UnknownDevice)?;
        if device.level() < 3 {
            return Err(NoCommand::NoE3);
        }
        let mut live = device.live();
        if live.commands.len() >= 16 {
            return Err(NoCommand::TooMany);
        }
        live.last_command += 1;
        Ok(CommandRow { did, id: live.last_command, op, args, at: now })
    }

    /// Takes note that a command is durable: it goes out with the next answers.
    pub fn commanded(&self, command: CommandRow) {
        if let Some(device) = self.book.load().by_did.get(&command.did) {
            device.live().commands.push(command);
        }
    }
}

/// Why a device takes no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCommand {
    /// Its answers come from its gateway, or from nobody.
    #[error("this device has no E3: the cloud has no protected way to it")]
    NoE3,
    /// Sixteen are waiting for a result.
    #[error("sixteen commands wait for this device already; wait for their results")]
    TooMany,
    /// Not in the registry, or revoked.
    #[error("no such device")]
    UnknownDevice,
}

impl Judged {
    /// What is left to do for keys of classic devices once [`Judged::write`] is durable: messages to be answered, and keys
    /// that are in use from now on.
    pub fn take_keys(&mut self) -> (Vec<Asked>, Vec<Used>) {
        (std::mem::take(&mut self.asked), std::mem::take(&mut self.used))
    }

    fn key(&self, code: Code, sid: Option<Sid>) -> CountKey {
        let (net, gateway) = (Some(self.gateway.net()), Some(self.gateway.gateway()));
        CountKey { code, net, gateway, sid, place: Place::Cloud }
    }

    fn count(&mut self, code: Code, sid: Option<Sid>) {
        let key = self.key(code, sid);
        self.write.count(key);
    }
}

fn first8(bytes: &[u8]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = sha256(&[bytes]);
    [a, b, c, d, e, f, g, h]
}
