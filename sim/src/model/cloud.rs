//! The cloud of a model: the real engine over a ledger that keeps what it is given, and can die between any two steps of a
//! request.

use std::sync::Arc;

use anyhow::anyhow;
use fivefold_cloud::book::{Book, Enrolled, LinkRotation, Maker, Remembered, Source};
use fivefold_cloud::cloud::{Agreement, Cloud, Memory, Outcome};
use fivefold_cloud::context::ContextSecrets;
use fivefold_cloud::push;
use fivefold_cloud::store::{Standing, Write};
use fivefold_core::e4_channel::ProvenGateway;
use fivefold_core::e5_renewal::{Credential, Message};
use fivefold_core::id::{Did, Epoch};
use fivefold_core::profile::Profile;
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::suite::sha256;
use fivefold_core::wire::envelope::{Downlink, DownlinkKind, Envelope, emit_downlinks};
use fivefold_keep::registry::{self, CloudIdentity, FirstContexts};
use fivefold_keep::rotation::Rotation;
use fivefold_keep::sign::{AgreementKey, SigningKey};
use fivefold_keep::vault::Vault;
use zeroize::Zeroizing;

use super::device::{Device, cloud_kid};
use super::gateway::GatewayPart;
use super::ledger::{Ledger, Rows};
use super::{Flaw, History};
use crate::family::{GROUP, Member, NET, PAN, wall};

/// What all worlds of a plan share: keys that are slow to make, and no part of any state.
pub(super) struct Common {
    pub(super) signing: SigningKey,
    vault: Vault,
    _folder: tempfile::TempDir,
}

impl Common {
    pub(super) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (signing, _) = SigningKey::generate().map_err(|e| anyhow!("{e}"))?;
        Ok(Self { signing, vault: Vault::create(folder.path())?, _folder: folder })
    }
}

pub(super) struct CloudPart {
    members: Vec<Member>,
    common: Arc<Common>,
    flaw: Option<Flaw>,
    pub(super) ledger: Ledger,
    engine: Option<Cloud<Ledger>>,
    runs: u8,
    pub(super) history: History,
    /// With a flaw: what is to be written when message_4 is out.
    late: Option<Write>,
    /// The process dies after so many steps of the move under way.
    pub(super) fuse: Option<u8>,
    /// Writes of the move under way.
    pub(super) steps: u8,
}

fn own_key() -> anyhow::Result<AgreementKey> {
    AgreementKey::from_random(&sha256(&[b"cloud"])).ok_or_else(|| anyhow!("no key"))
}

impl CloudPart {
    pub(super) fn new(members: Vec<Member>, common: Arc<Common>, flaw: Option<Flaw>) -> Self {
        let ledger = Ledger::default();
        Self {
            members,
            common,
            flaw,
            ledger,
            engine: None,
            runs: 0,
            history: History::default(),
            late: None,
            fuse: None,
            steps: 0,
        }
    }

    /// What devices know of it.
    pub(super) fn credential() -> anyhow::Result<Credential<'static>> {
        Ok(Credential::peer(cloud_kid()?, own_key()?.public_x()))
    }

    fn network() -> registry::Network {
        let (name, profile) = ("village".into(), Profile::ToBoth);
        registry::Network { net: NET, name, pan: PAN.0, profile, group: GROUP, override_words: None }
    }

    fn source(&self) -> anyhow::Result<Source> {
        let rows = self.ledger.rows();
        let renewal = |m: &Member| {
            let did = m.did();
            Ok(registry::Renewal {
                did,
                x: Device::own(m)?.public_x(),
                first: FirstContexts::Installed,
                highest: rows.highest.get(&did).copied().unwrap_or(Epoch(1)),
                agreed_at: None,
                ordered_at: rows.ordered.get(&did).copied(),
            })
        };
        let mut renewals = self.members.iter().map(renewal).collect::<anyhow::Result<Vec<_>>>()?;
        renewals.sort_by_key(|r| r.did);
        let enrolled = |m: &Member| Enrolled { device: m.registered(), secrets: Some(m.at_cloud()) };
        Ok(Source {
            version: rows.book_version,
            networks: vec![Self::network()],
            gateways: (0..2).map(|g| GatewayPart::registered(g, &self.common.signing, g == rows.primary)).collect(),
            tokens: Vec::new(),
            is_change: false,
            renewals,
            rotations: rows.rotation.iter().map(link_rotation).collect(),
            classics: Vec::new(),
            signers: Vec::new(),
            templates: Default::default(),
            receipt_signers: Vec::new(),
            devices: self.members.iter().map(enrolled).collect(),
        })
    }

    fn maker<T>(&self, now: u64, with: impl FnOnce(&Maker<'_>) -> T) -> T {
        let ledger = &self.ledger;
        let fresh_store = ledger.rows().readings.is_empty();
        let new_context = || ledger.new_context();
        with(&Maker {
            vault: Some(&self.common.vault),
            new_context: &new_context,
            fresh_store,
            restored: None,
            now: wall(now),
        })
    }

    /// Starts a process over what the store has.
    pub(super) fn start(&mut self, now: u64) -> anyhow::Result<()> {
        self.runs += 1;
        if self.flaw == Some(Flaw::OldCopyRestored) {
            let mut rows = self.ledger.rows();
            rows.contexts.retain(|_, c| c.agreed.is_none());
            rows.highest.clear();
        }
        let mut write = Write { now: wall(now), ..Write::default() };
        let (source, remembered) = (self.source()?, self.remembered());
        let book = self.maker(now, |m| m.book(source, &Book::default(), remembered, &mut write));
        self.history = self.ledger.rows().history();
        self.history.add(&[&[self.runs], &now.to_be_bytes()]);
        self.ledger.rows().commit(&write, None);
        let engine = Cloud::new(book, self.ledger.clone(), []);
        let identity = CloudIdentity { kid: cloud_kid()?, key: own_key()? };
        (self.engine, self.fuse) = (Some(engine.with_identity(identity)), None);
        Ok(())
    }

    fn remembered(&self) -> Remembered {
        let rows = self.ledger.rows();
        Remembered {
            contexts: rows.contexts.values().cloned().collect(),
            link_keys: rows.link_keys.iter().map(|(did, r)| (*did, *r)).collect(),
            link_told: rows.link_told.iter().map(|(did, (i, at))| (*did, *i, *at)).collect(),
            ..Remembered::default()
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.engine.is_some()
    }

    pub(super) fn kill(&mut self) {
        (self.engine, self.late) = (None, None);
    }

    /// Writes what a flaw put off.
    pub(super) fn catch_up(&mut self) {
        if let Some(write) = self.late.take() {
            self.ledger.rows().commit(&write, None);
        }
    }

    /// What the operator's book says changes, and the engine takes it up.
    pub(super) fn change(&mut self, now: u64, what: &[u8], change: impl FnOnce(&mut Rows)) -> anyhow::Result<()> {
        self.history.add(&[b"c", &now.to_be_bytes(), what]);
        {
            let mut rows = self.ledger.rows();
            change(&mut rows);
            rows.book_version += 1;
        }
        let Some(engine) = &self.engine else { return Ok(()) };
        let mut write = Write { now: wall(now), ..Write::default() };
        let (source, before) = (self.source()?, engine.book());
        let book = self.maker(now, |m| m.book(source, &before, Remembered::default(), &mut write));
        self.ledger.rows().commit(&write, None);
        engine.replace_book(book);
        Ok(())
    }

    /// The operator orders a device to renew.
    pub(super) fn order(&mut self, now: u64, did: Did) -> anyhow::Result<()> {
        self.change(now, b"order", |rows| {
            rows.ordered.insert(did, wall(now).0 / 1000 + 1);
        })
    }

    /// Another gateway is the primary one from now on.
    pub(super) fn succeed(&mut self, now: u64, to: usize) -> anyhow::Result<()> {
        self.change(now, b"succeed", |rows| rows.primary = to)
    }

    /// Whether an order of the operator is not carried out yet.
    pub(super) fn is_ordered(&self, did: Did) -> bool {
        let book = self.engine.as_ref().map(|e| e.book());
        book.and_then(|b| b.by_did.get(&did)?.ordered_to_renew()).is_some()
    }

    /// The engine's book.
    pub(super) fn book(&self) -> Option<Arc<Book>> {
        Some(self.engine.as_ref()?.book())
    }

    /// One step of a request: false when the process died before it.
    fn goes_on(&mut self) -> bool {
        if self.fuse.is_some_and(|after| self.steps >= after) {
            self.kill();
            return false;
        }
        self.steps = self.steps.saturating_add(1);
        true
    }

    /// A batch of a gateway; the reply, unless the process died.
    pub(super) fn batch(&mut self, now: u64, gateway: &ProvenGateway, body: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        // Signatures are drawn at random, and are no part of what happens: the envelopes before them are.
        let signed = fivefold_core::wire::envelope::Batch::new(body).map_err(|m| anyhow!("{}", m.reason))?;
        for item in signed {
            if let Ok(fivefold_core::wire::envelope::Item::Envelope(bytes, _)) = item {
                self.history.add(&[b"b", &now.to_be_bytes(), bytes]);
            }
        }
        let Some(engine) = &self.engine else { return Ok(None) };
        let mut judged =
            engine.judge(gateway, body, wall(now)).map_err(|r| anyhow!("the batch was refused: {}", r.rejected))?;
        let write = std::mem::take(&mut judged.write);
        if !self.goes_on() {
            return Ok(None);
        }
        let committed = self.ledger.rows().commit(&write, self.flaw);
        let Some(engine) = &self.engine else { return Ok(None) };
        let concluded = engine.conclude(judged, Arc::new(write), committed);
        if !concluded.write.is_empty() {
            if !self.goes_on() {
                return Ok(None);
            }
            self.ledger.rows().commit(&concluded.write, self.flaw);
        }
        let reply = self.engine.as_ref().map(|e| e.reply(concluded));
        // Sealed, and never sent: its numbers are used.
        Ok(reply.filter(|_| self.goes_on()))
    }

    /// A message of a run, as `POST /v1/edhoc` takes it; the reply, unless the process died.
    pub(super) fn exchange(
        &mut self,
        now: u64,
        gateway: &ProvenGateway,
        body: &[u8],
    ) -> anyhow::Result<Option<Vec<u8>>> {
        self.history.add(&[b"x", &now.to_be_bytes(), body]);
        let Some(engine) = &self.engine else { return Ok(None) };
        let ephemeral = sha256(&[b"ephemeral", body, &now.to_be_bytes(), &[self.runs]]);
        let exchange = engine.exchange(gateway, body, &ephemeral, wall(now));
        let exchange = exchange.map_err(|r| anyhow!("refused: {}", r.rejected))?;
        self.ledger.rows().commit(&exchange.write, None);
        let (share, message) = match exchange.outcome {
            Outcome::Agree(agreement) => match self.conclude(gateway, &agreement)? {
                Some(done) => done,
                None => return Ok(None),
            },
            Outcome::Answer(message) => (None, Some(message)),
            Outcome::Nothing => (None, None),
            Outcome::Repeat { device, context, epoch, m4 } => {
                let sealed = self.ledger.rows().contexts.get(&context.0).and_then(|c| c.sealed.clone());
                let open = |s: Vec<u8>| ContextSecrets::open(&self.common.vault, device.did, epoch, &s);
                let secrets = sealed.map(open).transpose()?;
                (secrets.and_then(|s| self.share(gateway, device.did, epoch, &s)), Some(m4))
            }
        };
        Ok(Some(reply(body, share.as_ref().map(|s| &s[..]), message.as_ref())?))
    }

    /// The book, the store, and only then message_4 (W6). `None` when the process died.
    #[expect(clippy::type_complexity, reason = "a share and a message, once")]
    fn conclude(
        &mut self,
        gateway: &ProvenGateway,
        agreement: &Agreement,
    ) -> anyhow::Result<Option<(Option<Zeroizing<Vec<u8>>>, Option<Message>)>> {
        let (did, epoch) = agreement.noted();
        if !self.goes_on() {
            return Ok(None);
        }
        let highest = self.ledger.rows().highest.get(&did).copied().unwrap_or(Epoch(1));
        if epoch <= highest {
            return Ok(Some((None, None)));
        }
        self.ledger.rows().highest.insert(did, epoch);
        if !self.goes_on() {
            return Ok(None);
        }
        let write = agreement.write(&self.common.vault)?;
        if self.flaw == Some(Flaw::AgreedTooLate) {
            self.late = Some(write);
        } else {
            self.ledger.rows().commit(&write, self.flaw);
        }
        if self.flaw == Some(Flaw::BrokenBeforeMade) {
            let mut rows = self.ledger.rows();
            for row in rows.contexts.values_mut().filter(|c| c.did == did && c.epoch < epoch) {
                row.standing = Standing::Draining;
            }
        }
        let m4 = self.engine.as_ref().and_then(|e| e.agreed(agreement));
        Ok(Some((self.share(gateway, did, epoch, agreement.secrets()), m4)))
    }

    fn share(
        &self,
        gateway: &ProvenGateway,
        did: Did,
        epoch: Epoch,
        secrets: &ContextSecrets,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let book = self.engine.as_ref()?.book();
        let known = book.gateway(gateway.name())?;
        let member = self.members.iter().find(|m| m.did() == did)?;
        // Above the first state, and in order.
        let version = 1 + self.ledger.rows().generation;
        push::added(
            version,
            &Self::network(),
            &known.registered,
            &member.registered(),
            (epoch, secrets.e2_root.as_ref()?),
        )
    }
}

fn reply(asked: &[u8], share: Option<&[u8]>, message: Option<&Message>) -> anyhow::Result<Vec<u8>> {
    let envelope = Envelope::parse(asked).map_err(|m| anyhow!("envelope: {}", m.reason))?;
    let mut downlinks = Vec::new();
    if let (Some(bytes), Some(_)) = (share, message) {
        downlinks.push(Downlink { kind: DownlinkKind::Context, originator: None, bytes, seq: None, expires: None });
    }
    if let Some(message) = message {
        let (originator, seq) = (Some(envelope.originator), Some(envelope.seq));
        let (kind, bytes) = (DownlinkKind::Edhoc, message.as_bytes());
        downlinks.push(Downlink { kind, originator, bytes, seq, expires: None });
    }
    let mut out = vec![0; 512];
    let len = emit_downlinks(&downlinks, &mut out).map_err(|e| anyhow!("reply: {e}"))?;
    out.truncate(len);
    Ok(out)
}

/// The key of a network under an index.
pub(super) const fn network_key(index: u8) -> [u8; 16] {
    [index ^ 0x30; 16]
}

fn link_rotation(rotation: &Rotation) -> LinkRotation {
    let key = |(index, phase)| registry::NetworkKey { index, phase, key: Zeroizing::new(network_key(index)) };
    LinkRotation { rotation: rotation.clone(), keys: rotation.phases().map(key).into() }
}
