//! # E5 at the cloud: runs of EDHOC
//!
//! | | |
//! |---|---|
//! | Key held by | the cloud: its own key for EDHOC; of devices it has public keys alone |
//! | Hides       | who the device is, from everybody but the gateway that names it |
//! | Proves      | the device to the cloud and the cloud to the device; that both have the new keys |
//! | Binds       | a context to a device and an epoch, which no other context ever has |
//! | Drops as    | `E5-01` to `E5-04`, `E5-06`, `E5-09`; `E3-08`, `E4-02` of envelopes; `T-01` |
//! | Does not    | answer what it refuses, but for a wrong cipher suite; keep a run over a restart |
//! | Spec        | docs/protocol.md 8.2 (W6), 11 |
//!
//! A request goes through [`Cloud::exchange`]. Where a proof holds, an [`Agreement`] comes out: its epoch is to be noted in
//! the operator's book, then what [`Agreement::write`] gives is to be committed, and only then [`Cloud::agreed`] takes the
//! context in use and message_4 may go out. A crash in between spends an epoch, and the device begins another run.

use std::sync::Arc;

use fivefold_core::counter::Lease;
use fivefold_core::e4_channel::ProvenGateway;
use fivefold_core::e5_renewal::{Credential, ErrorMessage, HandedKey, Identity, Message, Offer, Responder, ToServer};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Did, Epoch, Sid};
use fivefold_core::oscore::{Id, NUMBER_LIMIT};
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};
use fivefold_keep::registry::CloudIdentity;
use fivefold_keep::runs::{NO_EPOCH, Offered, Place, makes_room};
use fivefold_keep::sign::AgreementKey;
use fivefold_keep::vault::{Vault, VaultError};

use super::{BatchRefused, Cloud, Memory};
use crate::accepted::ContextId;
use crate::book::{Ctx, Device, again, keys};
use crate::context::ContextSecrets;
use crate::store::{self, AgreedBy, CountKey, Recent, Standing, Write};

/// Runs that may begin in a minute by one gateway.
pub const OFFERS_OF_GATEWAY: u16 = 60;

/// What became of a request.
#[derive(Debug)]
pub struct Exchange {
    /// What was refused, to be counted.
    pub write: Write,
    /// What is to be done.
    pub outcome: Outcome,
}

/// What is to be done about a request.
#[derive(Debug)]
pub enum Outcome {
    /// A proof holds.
    Agree(Box<Agreement>),
    /// This goes back.
    Answer(Message),
    /// Nothing goes back.
    Nothing,
    /// A message_3 came again: the same message_4 goes back, behind the gateway's share of that context, if it has one.
    Repeat {
        /// The device.
        device: Arc<Device>,
        /// The context.
        context: ContextId,
        /// Its epoch.
        epoch: Epoch,
        /// message_4.
        m4: Message,
    },
}

/// A context that both sides have, as soon as it is durable and message_4 has arrived.
pub struct Agreement {
    device: Arc<Device>,
    epoch: Epoch,
    secrets: ContextSecrets,
    by: AgreedBy,
    row: ContextId,
    evicted: Option<ContextId>,
    /// Index of the network key that message_4 hands to the device, where it is not durable yet that it got it.
    handed: Option<u8>,
}

impl std::fmt::Debug for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Agreement({}, epoch {})", self.device.did, self.epoch)
    }
}

impl Drop for Agreement {
    fn drop(&mut self) {
        self.device.live().runs.concluded();
    }
}

impl Agreement {
    /// What is to be noted in the operator's book before anything else.
    pub fn noted(&self) -> (Did, Epoch) {
        (self.device.did, self.epoch)
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Its epoch.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When message_3 was verified.
    pub const fn at(&self) -> Millis {
        self.by.at
    }

    /// Its secrets, to derive a gateway's share from.
    pub const fn secrets(&self) -> &ContextSecrets {
        &self.secrets
    }

    /// What makes it durable (W6).
    ///
    /// # Errors
    /// The vault has no randomness.
    pub fn write(&self, vault: &Vault) -> Result<Write, VaultError> {
        let mut ctx = self.context();
        ctx.sealed = Some(self.secrets.seal(vault, self.device.did, self.epoch)?);
        Ok(Write {
            now: self.by.at,
            contexts: vec![ctx.row(&self.device, self.device.level())],
            dropped: self.evicted.into_iter().collect(),
            new_generation: self.device.policy.profile.has_e2(),
            link_told: self.handed.map(|index| (self.device.did, index)).into_iter().collect(),
            ..Write::default()
        })
    }

    fn context(&self) -> Ctx {
        Ctx {
            id: self.row,
            epoch: self.epoch,
            bctx: None,
            standing: Standing::Pending,
            since: self.by.at,
            written: true,
            keys: keys(&self.device, &self.secrets, self.epoch),
            blind: self.secrets.blind.as_ref().map(again),
            recent: Some(Recent::default()),
            lease: Lease::resume(0, NUMBER_LIMIT),
            failures: 0,
            sealed: None,
            agreed: Some(self.by),
            unsaid: false,
            restored: None,
        }
    }
}

/// The cloud's own key.
pub(super) struct Own {
    identity: CloudIdentity,
    credential: Credential<'static>,
}

impl Own {
    pub(super) fn new(identity: CloudIdentity) -> Self {
        let credential = Credential::peer(identity.kid, identity.key.public_x());
        Self { identity, credential }
    }

    fn identity(&self) -> Identity<'_, AgreementKey> {
        Identity { key: &self.identity.key, credential: &self.credential }
    }
}

/// One request on its way through.
struct Request<'a> {
    gateway: &'a ProvenGateway,
    sid: Sid,
    now: Millis,
}

const NO_KEY: Rejected = Rejected::new(Code::RenewalUnknownCredential, "this device has no key for renewal");
const UNKNOWN: Rejected =
    Rejected::new(Code::RenewalUnknownCredential, "no device has this short id, or it is revoked");

impl<M: Memory> Cloud<M> {
    /// Takes one envelope of kind 3 that a gateway posted. `ephemeral` is 32 random bytes, for this call alone.
    ///
    /// # Errors
    /// [`BatchRefused`] when it is no such envelope (T-01), or of another network (E4-02), or the gateway is not registered
    /// (E4-01).
    pub fn exchange(
        &self,
        gateway: &ProvenGateway,
        body: &[u8],
        ephemeral: &[u8; 32],
        now: Millis,
    ) -> Result<Exchange, BatchRefused> {
        let refused = |rejected: Rejected, sid| BatchRefused { rejected, key: key(gateway, rejected.code, sid) };
        let book = self.book.load();
        if book.gateway(gateway.name()).is_none() {
            let stranger = Rejected::new(Code::ChannelRefused, "this gateway is not registered, or revoked");
            return Err(refused(stranger, None));
        }
        let envelope = Envelope::parse(body).map_err(|m| refused(m.counted(Code::TinyMalformed), None))?;
        let sid = match envelope.originator {
            Originator::Node { net, sid } if net == gateway.net() => sid,
            Originator::Node { .. } => {
                return Err(refused(Rejected::new(Code::ChannelWrongNet, "an envelope of another network"), None));
            }
            Originator::Classic(_) => return Err(refused(UNKNOWN, None)),
        };
        if envelope.kind != Kind::Edhoc {
            return Err(refused(Rejected::new(Code::TinyMalformed, "only EDHOC is taken here"), Some(sid)));
        }
        let device = book.devices.get(&(gateway.net(), sid)).cloned();
        drop(book);
        let request = Request { gateway, sid, now };
        let outcome = device.ok_or(UNKNOWN).and_then(|device| {
            if !envelope.link.is_e1() && !device.overrides.danger_no_link {
                return Err(Rejected::new(Code::CloudLevelMissing, "E1 is missing"));
            }
            self.run(&request, device, envelope.bytes, ephemeral)
        });
        let mut write = Write { now, ..Write::default() };
        let outcome = outcome.unwrap_or_else(|rejected| {
            tracing::debug!(net = %gateway.net(), %sid, gateway = %gateway.gateway(), %rejected, "refused");
            write.refuse(key(gateway, rejected.code, Some(sid)), rejected);
            // RFC 9528 6.3 wants this one said; everything else is nobody's business.
            match rejected.code {
                Code::RenewalSuite => Outcome::Answer(ErrorMessage::about(&rejected).to_message()),
                _ => Outcome::Nothing,
            }
        });
        Ok(Exchange { write, outcome })
    }

    fn run(
        &self,
        request: &Request<'_>,
        device: Arc<Device>,
        payload: &[u8],
        ephemeral: &[u8; 32],
    ) -> Result<Outcome, Rejected> {
        let own = self.own.as_ref().ok_or(NO_KEY)?;
        let credential = Credential::device(device.sid, device.key.ok_or(NO_KEY)?);
        match ToServer::parse(payload)? {
            ToServer::Error { error, .. } => {
                // Anybody can say so: it is counted, and ends nothing.
                tracing::info!(did = %device.did, ?error, "an EDHOC error, not authenticated");
                Err(Rejected::new(Code::RenewalForged, "the device says that it refused a message"))
            }
            ToServer::Offer(offer) => self.answer_offer(request, &device, own, &offer, ephemeral),
            ToServer::Proof { c_r, message_3 } if c_r == Id::from(request.sid) => {
                self.take_proof(request, device, &credential, message_3)
            }
            ToServer::Proof { .. } => {
                Err(Rejected::new(Code::RenewalUnknownCredential, "C_R is another device's short id"))
            }
        }
    }

    fn answer_offer(
        &self,
        request: &Request<'_>,
        device: &Device,
        own: &Own,
        offer: &Offer<'_>,
        ephemeral: &[u8; 32],
    ) -> Result<Outcome, Rejected> {
        let admits = || self.admits_offer(request);
        let place = match device.live().runs.offered(offer, request.sid, admits, request.now)? {
            Offered::Again(m2) => return Ok(Outcome::Answer(m2)),
            Offered::New(place) => place,
        };
        // All but one of 2^32 are a key; for that one the device asks again.
        let Some(ephemeral) = AgreementKey::from_random(ephemeral) else { return Ok(Outcome::Nothing) };
        let (waiting, m2) = Responder::answer(offer, ephemeral, request.sid, &own.identity())?;
        device.live().runs.begin(waiting, place, m2, request.now);
        Ok(Outcome::Answer(m2))
    }

    fn admits_offer(&self, request: &Request<'_>) -> bool {
        let minute = request.now.0 / 60_000;
        let mut heard = self.heard();
        let known = heard.entry(request.gateway.gateway()).or_default();
        if known.offers.0 != minute {
            known.offers = (minute, 0);
        }
        known.offers.1 = known.offers.1.saturating_add(1);
        known.offers.1 <= OFFERS_OF_GATEWAY
    }

    fn take_proof(
        &self,
        request: &Request<'_>,
        device: Arc<Device>,
        credential: &Credential<'_>,
        message_3: &[u8],
    ) -> Result<Outcome, Rejected> {
        let m3 = sha256(&[message_3]);
        let (claimed, place) = {
            let mut live = device.live();
            let made = live.contexts.iter().find(|c| c.agreed.is_some_and(|a| a.m3 == m3));
            if let Some((ctx, by)) = made.and_then(|c| Some((c, c.agreed?))) {
                if ctx.standing != Standing::Pending {
                    return Err(Rejected::new(Code::RenewalLate, "its context is in use, or was"));
                }
                let (context, epoch) = (ctx.id, ctx.epoch);
                drop(live);
                return Ok(Outcome::Repeat { device, context, epoch, m4: by.m4 });
            }
            match live.runs.read(message_3, request.now)? {
                Some(read) => read,
                None => return Ok(Outcome::Nothing),
            }
        };
        let handed = self.missed(&device);
        let (agreed, m4) = claimed.verify_and_hand(credential, handed)?;
        let handed = agreed.handed().map(|key| key.told().index).filter(|index| !self.was_given(&device, *index));
        let epoch = agreed.epoch().ok_or(NO_EPOCH)?;
        let secrets = agreed.secrets(device.policy.alg, device.mix.as_ref());
        let secrets = ContextSecrets::agreed(secrets, device.policy.profile);
        let evicted = conclude(&device, epoch, place)?;
        let by = AgreedBy { at: request.now, m3, m4 };
        let row = self.memory.new_context();
        Ok(Outcome::Agree(Box::new(Agreement { device, epoch, secrets, by, row, evicted, handed })))
    }

    /// The network key for a straggler: nobody else would give it to one whose readings pass no gateway (4.3).
    fn missed(&self, device: &Device) -> Option<HandedKey> {
        let book = self.book.load();
        let rotation =
            book.rotations.get(&device.net).filter(|_| device.policy.radio.link_class().has_network_key())?;
        rotation.missed(device.link_keys().map(|said| said.keys))
    }

    fn was_given(&self, device: &Device, index: u8) -> bool {
        let told = device.live().link_told;
        self.book.load().rotations.get(&device.net).is_some_and(|rotation| rotation.was_given(index, told))
    }

    /// The operator's book has a greater epoch of this device: what was agreed is void. To be counted.
    pub fn superseded(&self, gateway: &ProvenGateway, agreement: &Agreement) -> Write {
        let mut write = Write { now: agreement.by.at, ..Write::default() };
        write.count(key(gateway, Code::RenewalLate, Some(agreement.device.sid)));
        write
    }

    /// Takes a context in use whose [`Agreement::write`] is durable, and gives message_4; `None` if the device was revoked in
    /// the meantime.
    pub fn agreed(&self, agreement: &Agreement) -> Option<Message> {
        let device = &agreement.device;
        let mut live = device.live();
        live.contexts.retain(|c| Some(c.id) != agreement.evicted);
        let at = live.contexts.iter().position(|c| c.epoch < agreement.epoch).unwrap_or(live.contexts.len());
        live.contexts.insert(at, agreement.context());
        live.link_told = agreement.handed.map(|index| (index, agreement.by.at)).or(live.link_told);
        drop(live);
        tracing::info!(did = %device.did, epoch = %agreement.epoch, "a context was agreed");
        self.book.load().by_did.contains_key(&device.did).then_some(agreement.by.m4)
    }
}

/// Judges the epoch of a proof that holds, and spends it. Says which pending context makes room.
fn conclude(device: &Device, epoch: Epoch, place: Place) -> Result<Option<ContextId>, Rejected> {
    let mut live = device.live();
    if let Some(highest) = live.contexts.iter().map(|c| c.epoch).max() {
        live.runs.spend(highest);
    }
    let concluded = live.runs.conclude(epoch, place);
    if concluded.is_err_and(|refused| refused.code == Code::RenewalEpochNotGreater) {
        tracing::error!(did = %device.did, %epoch, "an epoch that is not greater: it lost its state, or there are two");
    }
    concluded?;
    Ok(makes_room(live.contexts.iter().filter(|c| c.standing == Standing::Pending).map(|c| (c.epoch, c.id))))
}

fn key(gateway: &ProvenGateway, code: Code, sid: Option<Sid>) -> CountKey {
    let (net, gateway) = (Some(gateway.net()), Some(gateway.gateway()));
    CountKey { code, net, gateway, sid, place: store::Place::Cloud }
}
