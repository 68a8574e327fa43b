//! A cloud without sockets, and devices and gateways built from core that talk to it.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

pub mod classic;
pub mod older;
pub mod runs;
pub mod signer;

use std::collections::HashMap;
use std::path::PathBuf;

use fivefold_cloud::accepted::flag;
use fivefold_cloud::book::{Book, Enrolled, LinkRotation, Maker, Remembered, Secrets, Source, Templates};
use fivefold_cloud::cloud::{BatchRefused, Cloud};
use fivefold_cloud::embedded::Embedded;
use fivefold_cloud::store::{Place, Query, ReadingRow, Store, Write};
use fivefold_core::counter::Lease;
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::e4_channel::{GatewayName, ProvenGateway};
use fivefold_core::e5_renewal::PeerKid;
use fivefold_core::error::Code;
use fivefold_core::id::{BootContext, Did, Epoch, GatewayGroup, GatewayId, Net, Sid};
use fivefold_core::oscore::{Context, OscoreOption, PartialIv, Plaintext, RequestId};
use fivefold_core::profile::{LinkClass, Mode, Overrides, Policy, Profile};
use fivefold_core::proof::receipt::{GatewayBoot, Receipt, Tally};
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::time::Millis;
use fivefold_core::why::FrameId;
use fivefold_core::wire::coap::{self, Outer, Protected, Token, Type};
use fivefold_core::wire::envelope::{Downlink, Envelope, Kind, Opened, Originator, Reply};
use fivefold_keep::registry;
use fivefold_keep::registry::CloudIdentity;
use fivefold_keep::sign::{AgreementKey, SigningKey};
use fivefold_keep::vault::Vault;
use fivefold_keep::why::{Kept, Question};
use zeroize::Zeroizing;

pub const NET: Net = Net(7);
pub const NOW: Millis = Millis(1_790_000_000_000);
/// `[{n: "temp", u: "Cel", v: 21.5}]`.
pub const READING: &[u8] = b"\x81\xA3\x00\x64temp\x01\x63Cel\x02\xF9\x4D\x60";

pub struct World {
    pub cloud: Cloud<Embedded>,
    pub gateway: Gateway,
    pub second: Gateway,
    pub now: Millis,
    pub path: PathBuf,
    pub source: SourceParts,
    /// Seals contexts, where a test wants them to outlive a restart.
    pub vault: Option<Vault>,
    pub folder: tempfile::TempDir,
}

/// What a registry would hold.
#[derive(Clone, Default)]
pub struct SourceParts {
    pub devices: Vec<registry::Device>,
    pub gateways: Vec<registry::Gateway>,
    pub networks: Vec<registry::Network>,
    pub renewals: Vec<registry::Renewal>,
    pub rotation: Option<registry::Rotation>,
    pub classics: Vec<classic::Classic>,
    pub signers: Vec<registry::Signer>,
    pub templates: Vec<registry::RegisteredTemplate>,
    pub receipt_signers: Vec<registry::ReceiptSigner>,
}

/// The key of a rotation under this index.
pub const fn network_key(index: u8) -> [u8; 16] {
    [index; 16]
}

impl SourceParts {
    pub fn source(&self, version: u64) -> Source {
        let devices = self.devices.iter().map(|d| Enrolled {
            secrets: Some(Secrets {
                ms3: Zeroizing::new(ms3(d)),
                salt3: [5; 8],
                e2_root: Zeroizing::new([6; 32]),
                blind: Zeroizing::new([7; 32]),
                root_psk: Zeroizing::new([9; 32]),
            }),
            device: d.clone(),
        });
        Source {
            version,
            networks: self.networks.clone(),
            gateways: self.gateways.clone(),
            tokens: Vec::new(),
            devices: devices.collect(),
            is_change: false,
            renewals: self.renewals.clone(),
            rotations: self.rotation.iter().map(link_rotation).collect(),
            classics: self.classics.iter().map(classic::Classic::source).collect(),
            signers: self.signers.clone(),
            templates: Templates::of(self.templates.clone()),
            receipt_signers: self.receipt_signers.clone(),
        }
    }
}

fn link_rotation(rotation: &registry::Rotation) -> LinkRotation {
    let keys = rotation.phases().map(|(index, phase)| registry::NetworkKey {
        index,
        phase,
        key: Zeroizing::new(network_key(index)),
    });
    LinkRotation { rotation: rotation.clone(), keys: keys.into() }
}

fn ms3(d: &registry::Device) -> Vec<u8> {
    let mut ms3 = vec![d.epoch.0 as u8; d.policy.alg.key_len()];
    ms3[..8].copy_from_slice(&d.did.0);
    ms3
}

pub struct Gateway {
    pub proven: ProvenGateway,
    pub key: SigningKey,
    pub boot: GatewayBoot,
    pub seq: u64,
}

impl Gateway {
    pub fn new(net: Net, id: u32) -> Self {
        let (key, _) = SigningKey::generate().unwrap();
        let name = GatewayName { net, gateway: GatewayId(id) };
        Self { proven: ProvenGateway::assertion(name), key, boot: GatewayBoot([id as u8; 8]), seq: 0 }
    }

    pub fn registered(&self) -> registry::Gateway {
        registry::Gateway {
            gateway: self.proven.gateway(),
            net: self.proven.net(),
            name: format!("g{}", self.proven.gateway()),
            sid: Sid(self.proven.gateway().0 as u16),
            did: Did([0xA0 + self.proven.gateway().0 as u8; 8]),
            primary: true,
            receipt_keys: vec![self.key.spki().to_vec()],
            revoked_at: None,
        }
    }

    /// A batch of these envelopes with its receipt. Envelopes whose number is 0 get the next one.
    pub fn batch(&mut self, envelopes: &[Envelope<'_>]) -> Vec<u8> {
        let mut body = Vec::new();
        let mut tally = Tally::new(self.proven.gateway(), self.boot);
        for envelope in envelopes {
            let mut envelope = *envelope;
            if envelope.seq == 0 {
                self.seq += 1;
                envelope.seq = self.seq;
            }
            let mut out = vec![0; envelope.bytes.len() + 128];
            let len = envelope.emit(&mut out).unwrap();
            tally.add(&out[..len], &envelope);
            body.extend_from_slice(&out[..len]);
        }
        let mut out = [0; Receipt::LONGEST];
        let len = tally.receipt().seal(&self.key, &mut out).unwrap();
        body.extend_from_slice(&out[..len]);
        body
    }
}

pub fn device(sid: u16, profile: Profile, mode: Mode) -> registry::Device {
    let mut policy = Policy::new(profile);
    policy.mode = mode;
    let danger = profile == Profile::DangerLinkOnly;
    registry::Device {
        did: Did([0x11, 0, 0, 0, 0, 0, (sid >> 8) as u8, sid as u8]),
        sid: Sid(sid),
        net: NET,
        policy,
        overrides: Overrides { danger_link_only: danger, danger_no_link: false },
        words: None,
        epoch: Epoch(1),
        enrolled_at: 1,
        revoked_at: None,
    }
}

/// A node's end of C3.
pub struct Node {
    pub sid: Sid,
    pub context: Context<E3>,
    pub lease: Lease,
    pub bctx: Option<BootContext>,
}

/// What a node sent.
#[derive(Clone)]
pub struct Sent {
    pub message: Vec<u8>,
    pub request: RequestId,
    pub sid: Sid,
}

impl Node {
    pub fn of(d: &registry::Device) -> Self {
        let secret = E3Secret::new(&ms3(d), &[5; 8]).unwrap();
        let context = secret.context_for_device(d.sid, d.epoch, None, d.policy.alg).unwrap();
        Self { sid: d.sid, context, lease: lease(0), bctx: None }
    }

    pub fn boot(d: &registry::Device, boot: u8) -> Self {
        let secret = E3Secret::bootstrap(&[9; 32], d.did);
        let bctx = Some(BootContext([boot; 8]));
        let context = secret.context_for_device(d.sid, Epoch(0), bctx, d.policy.alg).unwrap();
        Self { sid: d.sid, context, lease: lease(0), bctx }
    }

    pub fn at(mut self, next: u32) -> Self {
        self.lease = lease(next);
        self
    }

    pub fn send(&mut self, payload: &[u8]) -> Sent {
        self.seal(Plaintext { code: coap::POST, options: &[], payload })
    }

    pub fn seal(&mut self, plaintext: Plaintext<'_>) -> Sent {
        let mut plain = vec![0; plaintext.emitted_len()];
        plaintext.emit(&mut plain).unwrap();
        let mut out = vec![0; plain.len() + 8];
        let n = self.lease.take().unwrap();
        let (request, len) = self.context.seal_request(n, &plain, &mut out).unwrap();
        let kid = self.sid.to_bytes();
        let message = Protected {
            kind: Type::Con,
            code: coap::POST,
            message_id: 1,
            token: Token::from(7),
            option: OscoreOption {
                piv: Some(request.piv),
                kid_context: self.bctx.as_ref().map(|b| &b.0[..]),
                kid: Some(&kid),
            },
            ciphertext: &out[..len],
        };
        Sent { message: emit(&message), request, sid: self.sid }
    }

    /// Opens an answer: code, payload, and its own number.
    pub fn open(&self, to: &Sent, answer: &[u8]) -> (u8, Vec<u8>, Option<PartialIv>) {
        let message = Protected::parse_answer(answer).unwrap();
        let mut out = vec![0; 1024];
        let opened = self
            .context
            .open_answer(&to.request, message.option.piv, message.ciphertext, &mut out)
            .expect("the answer opens");
        let plain = Plaintext::parse(opened.plaintext()).unwrap();
        (plain.code, plain.payload.to_vec(), message.option.piv)
    }
}

pub fn emit(message: &Protected<'_>) -> Vec<u8> {
    let mut bytes = vec![0; message.emitted_len()];
    let len = message.emit(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn lease(next: u32) -> Lease {
    let mut lease = Lease::resume(next, 1 << 20);
    lease.extend(1 << 20);
    lease
}

impl Sent {
    /// What an explanation calls it.
    pub fn name(&self) -> String {
        let message = Protected::parse_request(&self.message, Outer::Strict).unwrap();
        FrameId::of(message.ciphertext).to_string()
    }

    pub fn envelope(&self) -> Envelope<'_> {
        Envelope {
            seq: 0,
            received: NOW,
            kind: Kind::CloudTiny,
            bytes: &self.message,
            originator: Originator::Node { net: NET, sid: self.sid },
            rssi: Some(-70),
            lqi: Some(200),
            opened: None,
            link: LinkClass::MacCcm,
            hops: Some(3),
            key_index: Some(1),
        }
    }
}

/// An envelope of kind 2 or 7.
pub fn word(kind: Kind, sid: Sid, piv: u64, bytes: &[u8]) -> Envelope<'_> {
    Envelope {
        seq: 0,
        received: NOW,
        kind,
        bytes,
        originator: Originator::Node { net: NET, sid },
        rssi: None,
        lqi: None,
        opened: Some(Opened {
            kid: sid,
            piv,
            bctx: None,
            epoch: if kind == Kind::DangerPlain { Epoch(0) } else { Epoch(1) },
        }),
        link: LinkClass::MacCcm,
        hops: None,
        key_index: Some(1),
    }
}

/// A reply with what it borrowed.
pub struct Answers {
    pub upto: u64,
    pub refused: Vec<(u64, Code)>,
    pub answers: Vec<Vec<u8>>,
}

impl World {
    pub fn new(devices: Vec<registry::Device>) -> Self {
        Self::open(devices, Vec::new(), None, tempfile::tempdir().unwrap())
    }

    /// With a vault, and devices that renew.
    pub fn renewing(devices: Vec<registry::Device>, renewals: Vec<registry::Renewal>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        Self::open(devices, renewals, Some(vault), folder)
    }

    fn open(
        devices: Vec<registry::Device>,
        renewals: Vec<registry::Renewal>,
        vault: Option<Vault>,
        folder: tempfile::TempDir,
    ) -> Self {
        let path = folder.path().join("readings.db");
        let (gateway, second) = (Gateway::new(NET, 1), Gateway::new(NET, 2));
        let source = SourceParts {
            devices,
            gateways: vec![gateway.registered(), second.registered()],
            networks: vec![registry::Network {
                net: NET,
                name: "n".into(),
                pan: 0x4321,
                profile: Profile::ToCloud,
                group: GatewayGroup(7),
                override_words: None,
            }],
            renewals,
            rotation: None,
            classics: Vec::new(),
            signers: Vec::new(),
            templates: Vec::new(),
            receipt_signers: Vec::new(),
        };
        let cloud = start(&path, &source, vault.as_ref(), NOW);
        cloud.pushed(gateway.proven.gateway(), 1);
        Self { cloud, gateway, second, now: NOW, path, source, vault, folder }
    }

    /// The process ends and starts again.
    pub fn restart(self) -> Self {
        self.stopped(|_| ())
    }

    /// The same; meanwhile something is done with its store.
    pub fn stopped(mut self, meanwhile: impl FnOnce(&std::path::Path)) -> Self {
        drop(self.cloud);
        meanwhile(&self.path);
        self.cloud = start(&self.path, &self.source, self.vault.as_ref(), self.now);
        self.cloud.pushed(self.gateway.proven.gateway(), 1);
        self
    }

    pub fn enrol_again(&mut self, sid: u16) -> registry::Device {
        let device = self.source.devices.iter_mut().find(|d| d.sid == Sid(sid)).unwrap();
        device.epoch = Epoch(device.epoch.0 + 1);
        let device = device.clone();
        self.reload();
        device
    }

    pub fn reload(&mut self) {
        let mut write = Write::default();
        let memory = self.cloud.memory();
        let maker = Maker {
            vault: self.vault.as_ref(),
            new_context: &|| memory.store().new_context(),
            fresh_store: false,
            restored: memory.read(|r| r.restored()).unwrap(),
            now: self.now,
        };
        let before = self.cloud.book();
        let book = maker.book(self.source.source(before.version + 1), &before, Remembered::default(), &mut write);
        memory.store().commit_now(write).unwrap();
        self.cloud.replace_book(book);
    }

    pub fn post(&mut self, envelopes: &[Envelope<'_>]) -> Answers {
        let body = self.gateway.batch(envelopes);
        self.post_body(&body).unwrap()
    }

    pub fn post_second(&mut self, envelopes: &[Envelope<'_>]) -> Answers {
        let body = self.second.batch(envelopes);
        post(&self.cloud, &self.second.proven, &body, self.now).unwrap()
    }

    pub fn post_body(&self, body: &[u8]) -> Result<Answers, BatchRefused> {
        post(&self.cloud, &self.gateway.proven, body, self.now)
    }

    pub fn readings(&self) -> Vec<ReadingRow> {
        let all = Query { limit: 10_000, ..Query::default() };
        self.cloud.memory().read(|r| r.readings(&all)).unwrap()
    }

    pub fn ledger(&self) -> Vec<ReadingRow> {
        self.cloud.memory().read(|r| r.ledger()).unwrap()
    }

    /// How often each code was counted; each of them is explained.
    pub fn counts(&self) -> HashMap<Code, u64> {
        let mut counts = HashMap::new();
        for row in self.cloud.memory().read(|r| r.counts()).unwrap() {
            if row.key.place == Place::Cloud {
                *counts.entry(row.key.code).or_default() += row.count;
                // Explanations are kept for a week.
                if self.now.since(row.last) < 6 * 24 * 3_600_000 {
                    self.explained(row.key.code);
                }
            }
        }
        counts
    }

    /// What is kept of refusals, the newest first.
    pub fn why(&self, question: &Question) -> Vec<Kept> {
        self.cloud.memory().read(|r| r.why(question)).unwrap()
    }

    /// The newest explanation of this code: there is one, and it says all.
    pub fn explained(&self, code: Code) -> Kept {
        let question = Question { code: Some(code), limit: 1, ..Question::default() };
        let kept = self.why(&question).pop().unwrap_or_else(|| panic!("{code} is not explained"));
        let about = code.about();
        assert!(kept.expected.starts_with(about.expected) && kept.came.starts_with(about.came), "{kept:?}");
        assert!(!kept.reason.is_empty() && !about.check.is_empty() && !about.advice.is_empty(), "{kept:?}");
        kept
    }

    pub fn count(&self, code: Code) -> u64 {
        self.counts().get(&code).copied().unwrap_or(0)
    }
}

/// The scalar of the cloud's key.
pub const CLOUD: [u8; 32] = [0x51; 32];

pub fn start(path: &std::path::Path, source: &SourceParts, vault: Option<&Vault>, now: Millis) -> Cloud<Embedded> {
    let memory = Embedded::new(Store::open(path).unwrap());
    let mut write = Write::default();
    let maker = Maker {
        vault,
        new_context: &|| memory.store().new_context(),
        fresh_store: memory.store().was_empty(),
        restored: memory.read(|r| r.restored()).unwrap(),
        now,
    };
    let book = maker.book(source.source(1), &Book::default(), memory.remembered().unwrap(), &mut write);
    memory.store().commit_now(write).unwrap();
    let pushed = memory.read(|r| r.pushed()).unwrap();
    let key = AgreementKey::from_random(&CLOUD).unwrap();
    Cloud::new(book, memory, pushed).with_identity(CloudIdentity { kid: PeerKid::new(5).unwrap(), key })
}

pub fn post(
    cloud: &Cloud<Embedded>,
    gateway: &ProvenGateway,
    body: &[u8],
    now: Millis,
) -> Result<Answers, BatchRefused> {
    let store = cloud.memory().store();
    let judged = match cloud.judge(gateway, body, now) {
        Ok(judged) => judged,
        Err(refused) => {
            let mut write = Write { now, ..Write::default() };
            write.refuse(refused.key, refused.rejected);
            store.commit_now(write).unwrap();
            return Err(refused);
        }
    };
    let mut judged = judged;
    let write = std::sync::Arc::new(std::mem::take(&mut judged.write));
    let committed = store.commit_now((*write).clone()).unwrap();
    let concluded = cloud.conclude(judged, write, committed);
    if !concluded.write.is_empty() {
        store.commit_now((*concluded.write).clone()).unwrap();
    }
    let reply = cloud.reply(concluded);
    let reply = Reply::parse(&reply).unwrap();
    Ok(Answers {
        upto: reply.durable_upto,
        refused: reply.refused.iter().map(|r| (r.seq, r.code)).collect(),
        answers: reply.downlinks.iter().map(|d: Downlink<'_>| d.bytes.to_vec()).collect(),
    })
}

pub fn is_hidden(row: &ReadingRow) -> bool {
    row.flags & flag::HIDDEN != 0
}
