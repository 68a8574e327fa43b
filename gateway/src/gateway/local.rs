//! # E5 at a gateway alone: keys of devices without a cloud ("C2 local")
//!
//! | | |
//! |---|---|
//! | Key held by | this gateway: its own key for EDHOC, and the contexts that come of its runs; of devices it has public keys alone |
//! | Hides       | who the device is, from everybody on the way |
//! | Proves      | the device to the gateway and the gateway to the device; that both have the new keys |
//! | Binds       | a context to a device and an epoch, which no other context of that enrolment ever has |
//! | Drops as    | `E5-01` to `E5-04`, `E5-06`, `E5-09` |
//! | Does not    | serve a device whose messages go further than this gateway: nothing of E3 can come of a run here |
//! | Spec        | docs/protocol.md 3, 5, 8.2 (W6), 11 |
//!
//! The rules of a server's runs are [`fivefold_keep::runs`], the cloud's as well. What is agreed is durable before message_4
//! leaves; what of it drains or is over is durable too, and the rest is known after a restart by the numbers that were taken.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fivefold_core::e2_gateway::{E2, E2Local};
use fivefold_core::e5_renewal::{
    Credential, Draw, ErrorMessage, Identity, LocalSecrets, Message, Offer, PeerKid, Responder, ToServer,
};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::oscore::Id;
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::wire::state::{Standing, State};
use fivefold_keep::runs::{NO_EPOCH, Offered, Runs, makes_room};
use fivefold_keep::sign::AgreementKey;
use zeroize::Zeroizing;

use super::output::AgreedContext;
use super::renewal::Back;
use super::{ContextName, Gateway, Record, Then};

/// Runs that may begin in a minute (docs/protocol.md 11).
const OFFERS: u16 = 60;
/// T_drain in milliseconds.
const DRAIN: u64 = 96 * 3_600_000;
/// How often it is looked whether something drained long enough, in milliseconds.
const LOOK: u64 = 60_000;
/// A device that does not renew is told again after so long, in milliseconds.
const SAY_AGAIN: u64 = 300_000;
const DAY: u64 = 86_400_000;
const SALT: usize = 8;

const NO_KEY: Rejected =
    Rejected::new(Code::RenewalUnknownCredential, "this device has no key to agree keys here with");

/// What a gateway that agrees keys alone starts with.
#[derive(Debug)]
pub struct Local {
    /// What names its key.
    pub kid: PeerKid,
    /// Its key.
    pub key: Arc<AgreementKey>,
    /// 32 random bytes, drawn at this start, for ephemeral keys.
    pub seed: [u8; 32],
}

/// The runs of a gateway that agrees keys alone, and what came of them.
pub(super) struct Site {
    key: Arc<AgreementKey>,
    credential: Credential<'static>,
    draw: Draw,
    /// In which minute, and how many runs began.
    offers: (u64, u16),
    peers: HashMap<Sid, Peer>,
    looked: Millis,
}

/// One device.
struct Peer {
    x: PublicX,
    runs: Runs<E2>,
    agreed: Vec<Agreed>,
    /// When it was told last that its keys are old.
    told: Option<Millis>,
}

/// A context of C2 local.
struct Agreed {
    epoch: Epoch,
    at: Millis,
    drains_since: Option<Millis>,
    /// In the store: message_4 may leave.
    durable: bool,
    made: Made,
}

/// What is sealed at rest of one.
struct Made {
    x: PublicX,
    m3: [u8; 32],
    m4: Message,
    e2: E2Local,
    /// K_blind, as the exception of K1 lets this gateway keep it: what it accepted can be proven one day.
    blind: Zeroizing<[u8; 32]>,
}

impl Made {
    fn new(x: PublicX, m3: [u8; 32], m4: Message, secrets: LocalSecrets) -> Self {
        Self { x, m3, m4, blind: Zeroizing::new(*secrets.blind.danger_bytes()), e2: secrets.e2 }
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(192));
        out.extend_from_slice(&self.x.0);
        out.extend_from_slice(&self.m3);
        out.extend_from_slice(self.blind.as_slice());
        out.push(self.m4.as_bytes().len() as u8);
        out.extend_from_slice(self.m4.as_bytes());
        out.extend_from_slice(self.e2.master_salt());
        out.extend_from_slice(self.e2.danger_master_secret());
        out
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (x, rest) = bytes.split_first_chunk::<32>()?;
        let (m3, rest) = rest.split_first_chunk::<32>()?;
        let (blind, rest) = rest.split_first_chunk::<32>()?;
        let (len, rest) = rest.split_first()?;
        let (m4, rest) = rest.split_at_checked(usize::from(*len))?;
        let (salt, secret) = rest.split_first_chunk::<SALT>()?;
        let (m4, e2) = (Message::new(m4)?, E2Local::new(secret, salt)?);
        Some(Self { x: PublicX(*x), m3: *m3, m4, e2, blind: Zeroizing::new(*blind) })
    }
}

impl Peer {
    fn new(x: PublicX) -> Self {
        Self { x, runs: Runs::default(), agreed: Vec::new(), told: None }
    }
}

impl Site {
    pub(super) fn new(local: Local, restored: &[AgreedContext]) -> Self {
        let credential = Credential::peer(local.kid, local.key.public_x());
        let mut peers: HashMap<Sid, Peer> = HashMap::new();
        for context in restored {
            // The vault vouches for the bytes: only a row of a later release is not of this form.
            let Some(made) = Made::from_bytes(&context.bytes) else { continue };
            let peer = peers.entry(context.sid).or_insert_with(|| Peer::new(made.x));
            peer.runs.spend(context.epoch);
            let AgreedContext { epoch, at, drains_since, .. } = *context;
            peer.agreed.push(Agreed { epoch, at, drains_since, durable: true, made });
        }
        let draw = Draw::new(local.seed);
        Self { key: local.key, credential, draw, offers: (0, 0), peers, looked: Millis(0) }
    }

    fn answer_offer(&mut self, now: Millis, sid: Sid, offer: &Offer<'_>) -> Result<Option<Message>, Rejected> {
        let peer = self.peers.get_mut(&sid).ok_or(NO_KEY)?;
        let offers = &mut self.offers;
        let admits = || {
            let minute = now.0 / 60_000;
            if offers.0 != minute {
                *offers = (minute, 0);
            }
            offers.1 = offers.1.saturating_add(1);
            offers.1 <= OFFERS
        };
        let place = match peer.runs.offered(offer, sid, admits, now)? {
            Offered::Again(m2) => return Ok(Some(m2)),
            Offered::New(place) => place,
        };
        let Some(ephemeral) = self.draw.key() else { return Ok(None) };
        let own = Identity { key: &*self.key, credential: &self.credential };
        let (waiting, m2) = Responder::<E2, _>::answer(offer, ephemeral, sid, &own)?;
        peer.runs.begin(waiting, place, m2, now);
        Ok(Some(m2))
    }
}

impl Gateway {
    /// A message of EDHOC that ends here.
    ///
    /// # Errors
    /// `E5-01` to `E5-04`, `E5-06`, `E5-09`.
    pub(super) fn end_run(&mut self, now: Millis, sid: Sid, back: Back, payload: &[u8]) -> Result<(), Rejected> {
        let ended = self.take_run(now, sid, back, payload);
        // RFC 9528 6.3 wants this one said; everything else is nobody's business.
        if let Err(rejected) = &ended
            && rejected.code == Code::RenewalSuite
        {
            self.answer_run(sid, back, ErrorMessage::about(rejected).to_message().as_bytes());
        }
        ended
    }

    fn take_run(&mut self, now: Millis, sid: Sid, back: Back, payload: &[u8]) -> Result<(), Rejected> {
        let site = self.site.as_mut().ok_or(NO_KEY)?;
        match ToServer::parse(payload)? {
            // Anybody can say so: it is counted, and ends nothing.
            ToServer::Error { .. } => {
                Err(Rejected::new(Code::RenewalForged, "the device says that it refused a message"))
            }
            ToServer::Offer(offer) => {
                if let Some(m2) = site.answer_offer(now, sid, &offer)? {
                    self.answer_run(sid, back, m2.as_bytes());
                }
                Ok(())
            }
            ToServer::Proof { c_r, message_3 } if c_r == Id::from(sid) => self.take_proof(now, sid, back, message_3),
            ToServer::Proof { .. } => {
                Err(Rejected::new(Code::RenewalUnknownCredential, "C_R is another device's short id"))
            }
        }
    }

    fn take_proof(&mut self, now: Millis, sid: Sid, back: Back, message_3: &[u8]) -> Result<(), Rejected> {
        let m3 = sha256(&[message_3]);
        let device = self.devices.find_mut(sid).ok_or(NO_KEY)?;
        let peer = self.site.as_mut().and_then(|s| s.peers.get_mut(&sid)).ok_or(NO_KEY)?;
        if let Some(agreed) = peer.agreed.iter().find(|a| a.made.m3 == m3) {
            let name = agreed.made.name(sid, agreed.epoch);
            if device.slot(name).is_none_or(|s| s.standing != Standing::Pending) {
                return Err(Rejected::new(Code::RenewalLate, "its context is in use, or was"));
            }
            let (m4, durable) = (agreed.made.m4, agreed.durable);
            if durable {
                self.answer_run(sid, back, m4.as_bytes());
            }
            return Ok(());
        }
        let Some((claimed, place)) = peer.runs.read(message_3, now)? else { return Ok(()) };
        let on_link = device.policy.radio.link_class().has_network_key();
        let handed = if on_link { self.pushed_keys.missed(device.link_keys) } else { None };
        let (agreed, m4) = claimed.verify_and_hand(&Credential::device(sid, peer.x), handed)?;
        let epoch = agreed.epoch().ok_or(NO_EPOCH)?;
        let made = Made::new(peer.x, m3, m4, agreed.secrets(device.policy.alg));
        peer.runs.conclude(epoch, place)?;
        let pending = peer
            .agreed
            .iter()
            .filter(|a| device.slot(a.made.name(sid, a.epoch)).is_some_and(|s| s.standing == Standing::Pending));
        let evicted = makes_room(pending.map(|a| (a.epoch, a.epoch)));
        let bytes = made.to_bytes().as_slice().into();
        let name = device.install_local(epoch, Standing::Pending, &made.e2, made.name(sid, epoch));
        if let Some(slot) = name.and_then(|name| device.slot(name)) {
            // Nobody ever spoke under it: the store knows nothing.
            slot.recall(&[], 0, 0);
        }
        device.sort();
        peer.agreed.push(Agreed { epoch, at: now, drains_since: None, durable: false, made });
        if let Some(evicted) = evicted {
            self.end_local(sid, evicted);
        }
        self.persist(Record::Agreed(AgreedContext { sid, epoch, at: now, drains_since: None, bytes }));
        self.after_persist(Then::Agreed { sid, epoch, back });
        Ok(())
    }

    /// What was agreed is in the store.
    pub(super) fn agreed(&mut self, sid: Sid, epoch: Epoch, back: Back) {
        let Some(peer) = self.site.as_mut().and_then(|s| s.peers.get_mut(&sid)) else { return };
        peer.runs.concluded();
        let Some(agreed) = peer.agreed.iter_mut().find(|a| a.epoch == epoch) else { return };
        agreed.durable = true;
        let m4 = agreed.made.m4;
        self.answer_run(sid, back, m4.as_bytes());
    }

    /// Takes up what a state says of devices that agree keys here: those that are new, and the end of those that are gone or
    /// were enrolled again. Contexts that stay are among `named` then.
    pub(super) fn apply_local(&mut self, parts: &[State<'_>], named: &mut HashSet<ContextName>) {
        let Some(site) = &mut self.site else { return };
        let keys: HashMap<Sid, PublicX> = parts
            .iter()
            .flat_map(|p| p.local.iter())
            .filter(|l| self.devices.contains(l.sid))
            .map(|l| (l.sid, l.x))
            .collect();
        let is_over = |(sid, peer): (&Sid, &Peer)| (keys.get(sid) != Some(&peer.x)).then_some(*sid);
        let over: Vec<Sid> = site.peers.iter().filter_map(is_over).collect();
        let mut ended = Vec::new();
        for sid in over {
            if let Some(peer) = site.peers.remove(&sid) {
                ended.extend(peer.agreed.iter().map(|a| (sid, a.epoch)));
            }
        }
        for (sid, x) in keys {
            let peer = site.peers.entry(sid).or_insert_with(|| Peer::new(x));
            let Some(device) = self.devices.find_mut(sid) else { continue };
            for Agreed { epoch, drains_since, made, .. } in &peer.agreed {
                let standing = if drains_since.is_some() { Standing::Draining } else { Standing::Pending };
                named.extend(device.install_local(*epoch, standing, &made.e2, made.name(sid, *epoch)));
            }
        }
        for (sid, epoch) in ended {
            self.persist(Record::Unagreed { sid, epoch });
        }
    }

    /// A newer context of a device is in use: what that ends, and what drains from now on, is written.
    pub(super) fn settle_local(&mut self, now: Millis, sid: Sid) {
        let Some(device) = self.devices.find_mut(sid) else { return };
        let Some(peer) = self.site.as_mut().and_then(|s| s.peers.get_mut(&sid)) else { return };
        let (mut over, mut drains) = (Vec::new(), Vec::new());
        for agreed in &mut peer.agreed {
            match device.slot(agreed.made.name(sid, agreed.epoch)).map(|s| s.standing) {
                None => over.push(agreed.epoch),
                Some(Standing::Draining) if agreed.drains_since.is_none() => {
                    agreed.drains_since = Some(now);
                    drains.push(agreed.epoch);
                }
                Some(_) => {}
            }
        }
        peer.told = None;
        for epoch in drains {
            self.persist(Record::Drains { sid, epoch, since: now });
        }
        for epoch in over {
            self.end_local(sid, epoch);
        }
    }

    /// Erases what drained long enough (docs/protocol.md 3, K5).
    pub(super) fn expire_local(&mut self, now: Millis) {
        let Some(site) = self.site.as_mut().filter(|s| now.since(s.looked) >= LOOK) else { return };
        site.looked = now;
        let mut over = Vec::new();
        for (sid, peer) in &mut site.peers {
            peer.runs.expire(now);
            let drained = |a: &&Agreed| a.drains_since.is_some_and(|since| now.since(since) >= DRAIN);
            over.extend(peer.agreed.iter().filter(drained).map(|a| (*sid, a.epoch)));
        }
        for (sid, epoch) in over {
            self.end_local(sid, epoch);
        }
    }

    /// A context is gone for ever.
    fn end_local(&mut self, sid: Sid, epoch: Epoch) {
        let Some(peer) = self.site.as_mut().and_then(|s| s.peers.get_mut(&sid)) else { return };
        let Some(at) = peer.agreed.iter().position(|a| a.epoch == epoch) else { return };
        let context = peer.agreed.remove(at).made.name(sid, epoch);
        if let Some(device) = self.devices.find_mut(sid) {
            device.slots.retain(|s| s.name != context);
        }
        self.persist(Record::Unagreed { sid, epoch });
        self.persist(Record::Forgotten { context });
    }

    /// When the oldest context was agreed that does not drain; `None` where this gateway agreed none.
    pub fn oldest_agreed(&self) -> Option<Millis> {
        let agreed = self.site.iter().flat_map(|site| site.peers.values()).flat_map(|peer| &peer.agreed);
        agreed.filter(|a| a.drains_since.is_none()).map(|a| a.at).min()
    }

    /// Whether a device is to be told that its keys are as old as T_renew: this gateway has a clock.
    pub(super) fn is_old_local(&mut self, now: Millis, sid: Sid) -> bool {
        let Some(device) = self.devices.find_mut(sid) else { return false };
        let limit = u64::from(device.policy.renew_days) * DAY;
        let Some(peer) = self.site.as_mut().and_then(|s| s.peers.get_mut(&sid)) else { return false };
        let active = peer
            .agreed
            .iter()
            .find(|a| device.slot(a.made.name(sid, a.epoch)).is_some_and(|s| s.standing == Standing::Active));
        active.is_some_and(|a| now.since(a.at) >= limit) && peer.told.is_none_or(|at| now.since(at) >= SAY_AGAIN)
    }

    /// It was told.
    pub(super) fn told_local(&mut self, now: Millis, sid: Sid) {
        if let Some(peer) = self.site.as_mut().and_then(|s| s.peers.get_mut(&sid)) {
            peer.told = Some(now);
        }
    }
}

impl Made {
    fn name(&self, sid: Sid, epoch: Epoch) -> ContextName {
        let (sid, epoch) = (sid.to_bytes(), epoch.0.to_be_bytes());
        let parts = [self.e2.master_salt(), self.e2.danger_master_secret()];
        ContextName(super::output::first8(&[b"fivefold c2 local name", &sid, &epoch, parts[0], parts[1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_rest_comes_back_and_a_piece_of_it_is_nothing() {
        for len in [16, 32] {
            let e2 = E2Local::new(&vec![3; len], &[4; 8]).unwrap();
            let m4 = Message::new(&[5; 9]).unwrap();
            let made = Made { x: PublicX([1; 32]), m3: [2; 32], m4, e2, blind: Zeroizing::new([6; 32]) };
            let bytes = made.to_bytes();
            let back = Made::from_bytes(&bytes).unwrap();
            assert_eq!((back.x, back.m3, back.m4), (made.x, made.m3, made.m4));
            assert_eq!(back.e2.danger_master_secret(), made.e2.danger_master_secret());
            assert_eq!((back.to_bytes(), back.name(Sid(1), Epoch(2))), (bytes.clone(), made.name(Sid(1), Epoch(2))));
            for cut in (0..bytes.len()).filter(|cut| *cut + 16 != bytes.len()) {
                assert!(Made::from_bytes(&bytes[..cut]).is_none(), "{cut}");
            }
        }
    }
}
