//! A whole deployment in memory: an operator's CA, devices and gateways with certificates, batches, receipts, a log with
//! three witnesses, and bundles of all that. For tests, benchmarks and `examples/bundles.rs`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, unreachable_pub)]

pub mod broken;

use std::time::Duration;

use fivefold_core::id::{BootContext, Did, Epoch, GatewayId, Net, Sid};
use fivefold_core::oscore::{OscoreOption, PartialIv};
use fivefold_core::profile::{LinkClass, Policy, Profile};
use fivefold_core::proof::merkle::{Hash, prove_inclusion, root};
use fivefold_core::proof::receipt::{GatewayBoot, Tally};
use fivefold_core::proof::statement::{BlindKey, CONTEXT, Salt, SignedLevel, Statement, Subject};
use fivefold_core::proof::{KeyName, Sign1};
use fivefold_core::reading::template::Column;
use fivefold_core::reading::{Definition, Reading};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{POST, Protected, Token, Type};
use fivefold_core::wire::envelope::{Envelope, Kind, Opened, Originator};
use fivefold_evidence::bundle::{self, Bundle, Heard, Logged, Path, Timestamp};
use fivefold_evidence::checkpoint::{Checkpoint, LogKey, Signed};
use fivefold_evidence::cosignature::CosigningKey;
use fivefold_evidence::note;
use fivefold_evidence::record::{Configured, Enrolment, Made, Revocations};
use fivefold_evidence::tlog_proof::TlogProof;
use fivefold_evidence::trust::{self, Trust};
use fivefold_keep::sign::SigningKey;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SubjectPublicKeyInfo, date_time_ymd,
};

/// When everything happens, Unix seconds.
pub const NOW: u64 = 1_790_000_000;
/// When the three witnesses cosign the checkpoint of a batch.
pub const SEEN: [u64; 3] = [NOW + 20, NOW + 10, NOW + 30];
/// The template of level meters.
pub const TEMPLATE: u64 = 3;

/// Numbers that look random and are the same again with the same seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// A CA, or a key that it lets certify.
pub struct Authority {
    pub issuer: Issuer<'static, KeyPair>,
    pub der: Vec<u8>,
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2055, 1, 1));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().to_vec(), certificate.pem());
        Self { issuer: Issuer::new(params, key), der, pem }
    }

    /// A key under it that may certify, with these usages alone.
    pub fn below(&self, name: &str, usages: &[ExtendedKeyUsagePurpose]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = usages.to_vec();
        (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2055, 1, 1));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (der, pem) = (certificate.der().to_vec(), certificate.pem());
        Self { issuer: Issuer::new(params, key), der, pem }
    }

    /// Certifies a key for these URIs; `edit` changes the rest.
    pub fn certify(&self, spki: &[u8], uris: &[&str], edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Fivefold");
        params.subject_alt_names = uris.iter().map(|u| SanType::URI((*u).try_into().unwrap())).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        lives(&mut params, NOW - 86_400, NOW + 365 * 86_400);
        edit(&mut params);
        let key = SubjectPublicKeyInfo::from_der(spki).unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }
}

/// Sets from when until when a certificate is valid, Unix seconds.
pub fn lives(params: &mut CertificateParams, from: u64, until: u64) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(until);
}

/// A log with its witnesses.
pub struct Log {
    pub key: LogKey,
    pub witnesses: Vec<CosigningKey>,
    pub entries: Vec<Hash>,
}

impl Log {
    pub fn new(origin: &str, seed: u8) -> Self {
        let cosigning = |name: &str, kind, n| CosigningKey::from_seed(name, kind, &[n; 32].into()).unwrap();
        Self {
            key: LogKey::from_seed(origin, &[seed; 32].into()).unwrap(),
            witnesses: vec![
                cosigning("witness.example/one", note::Kind::Witness, seed + 1),
                cosigning("witness.example/two", note::Kind::Witness, seed + 2),
                cosigning("witness.example/three", note::Kind::WitnessPq, seed + 3),
            ],
            entries: Vec::new(),
        }
    }

    pub fn append(&mut self, kind: &[u8; 2], record: &[u8]) -> usize {
        let entry = [&kind[..], &sha256(&[record])].concat();
        self.entries.push(Hash::of_leaf([&entry]));
        self.entries.len() - 1
    }

    pub fn head(&self, size: usize) -> Checkpoint {
        Checkpoint {
            origin: self.key.vkey().name().into(),
            size: size as u64,
            root: root(&self.entries[..size]),
            extensions: Vec::new(),
        }
    }

    /// A checkpoint over the first entries, cosigned by the witnesses whose time is not 0.
    pub fn publish(&self, size: usize, times: &[u64]) -> Signed {
        let head = self.head(size);
        let mut signed = self.key.danger_sign(&head).unwrap();
        for (witness, at) in self.witnesses.iter().zip(times).filter(|(_, at)| **at > 0) {
            signed.add(witness.danger_cosign(*at, &head).unwrap()).unwrap();
        }
        signed
    }

    /// Proof of one entry in a checkpoint of this log.
    pub fn prove(&self, index: usize, checkpoint: &Signed) -> String {
        let size = checkpoint.unverified().size as usize;
        let path = prove_inclusion(&self.entries[..size], index).unwrap().as_slice().to_vec();
        TlogProof { extra: None, index: index as u64, path, checkpoint: checkpoint.clone() }.to_string()
    }
}

/// A device with its signing key.
pub struct Device {
    pub did: Did,
    pub sid: Sid,
    pub key: SigningKey,
    pub blind: BlindKey,
    pub chain: Vec<Vec<u8>>,
    pub enrolment: Vec<u8>,
    pub configured: Vec<u8>,
    /// Where the two records stand.
    pub entries: [usize; 2],
}

/// A gateway with its key for receipts.
pub struct Gateway {
    pub id: GatewayId,
    pub key: SigningKey,
    pub chain: Vec<Vec<u8>>,
}

/// A batch of one device, as the cloud knows it.
#[derive(Clone)]
pub struct Batch {
    pub device: usize,
    pub subject: Subject,
    pub tbs: Vec<Vec<u8>>,
    pub salts: Vec<Salt>,
    pub pivs: Vec<u64>,
    pub leaves: Vec<Hash>,
    pub signed: Vec<u8>,
    pub entry: usize,
    pub heard: Vec<Received>,
}

/// A batch of envelopes at a gateway.
#[derive(Clone)]
pub struct Received {
    pub gateway: usize,
    pub envelopes: Vec<Vec<u8>>,
    pub receipt: Vec<u8>,
    pub entry: usize,
}

/// The deployment.
pub struct Village {
    pub ca: Authority,
    pub issuing: Authority,
    pub log: Log,
    pub net: Net,
    pub devices: Vec<Device>,
    pub gateways: Vec<Gateway>,
    pub definition: Vec<u8>,
    pub lists: Vec<(Revocations, usize)>,
}

impl Village {
    /// With two devices and two gateways; `seed` makes the log's keys.
    pub fn new(seed: u8) -> Self {
        let ca = Authority::new("Village CA");
        let issuing = ca.below("Gateway issuer", &[ExtendedKeyUsagePurpose::ClientAuth]);
        let spki = x509_spki(&ca.der);
        let origin = format!("fivefold.{}/log", hex::encode(&sha256(&[&spki])[..4]));
        let columns = [Column { name: "level", unit: Some("m") }, Column { name: "battery", unit: Some("V") }];
        let mut definition = vec![0; 64];
        let n = Definition::emit(TEMPLATE, &columns, &mut definition).unwrap();
        definition.truncate(n);
        let mut village = Self {
            ca,
            issuing,
            log: Log::new(&origin, seed),
            net: Net(7),
            devices: Vec::new(),
            gateways: Vec::new(),
            definition,
            lists: Vec::new(),
        };
        village.revoke(Vec::new());
        for n in 1..=2 {
            village.enrol(n);
            village.join(n);
        }
        village
    }

    pub fn enrol(&mut self, n: u8) {
        let did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, n]);
        let (key, _) = SigningKey::generate().unwrap();
        let chain = vec![self.ca.certify(key.spki(), &[&format!("urn:dev:mac:{did}")], |_| {})];
        let sid = Sid(0x0A00 + u16::from(n));
        let enrolment = Enrolment { did, net: self.net, sid, spki: key.spki(), made: Made::OnDevice }.emit().unwrap();
        let mut policy = [0; Policy::LONGEST];
        let len = Policy::new(Profile::ToCloud).emit(&mut policy).unwrap();
        let templates = vec![(TEMPLATE, sha256(&[&self.definition]))];
        let configured = Configured { did, policy: &policy[..len], templates }.emit().unwrap();
        let entries = [self.log.append(b"en", &enrolment), self.log.append(b"cf", &configured)];
        let blind = BlindKey::new([n; 32]);
        self.devices.push(Device { did, sid, key, blind, chain, enrolment, configured, entries });
    }

    pub fn join(&mut self, n: u8) {
        let id = GatewayId(0xA0 + u32::from(n));
        let (key, _) = SigningKey::generate().unwrap();
        let uri = format!("urn:gw:{}:{id}", self.net);
        let own = self.issuing.certify(key.spki(), &[&uri], |p| {
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        self.gateways.push(Gateway { id, key, chain: vec![own, self.issuing.der.clone()] });
    }

    /// The next list of revoked keys.
    pub fn revoke(&mut self, mut keys: Vec<(KeyName, u64)>) {
        keys.sort();
        let list = Revocations { number: self.lists.len() as u64, keys };
        let entry = self.log.append(b"rv", &list.emit().unwrap());
        self.lists.push((list, entry));
    }

    /// A batch of readings of a device, heard by these gateways. Odd numbers are left out, as if they were of other kinds.
    pub fn batch(
        &mut self,
        device: usize,
        level: SignedLevel,
        bctx: Option<BootContext>,
        n: usize,
        by: &[usize],
    ) -> Batch {
        let d = &self.devices[device];
        let subject = Subject { level, did: d.did, epoch: Epoch(5), bctx };
        let first = 300;
        let pivs: Vec<u64> = (0..n as u64).map(|i| first + 2 * i).filter(|p| p - first < 64).collect();
        let payloads: Vec<Vec<u8>> = pivs.iter().map(|p| payload(*p)).collect();
        let mut batch = sign(d, subject, first, &pivs, &payloads, subject);
        batch.device = device;
        batch.entry = self.log.append(b"b1", &batch.signed);
        for at in by {
            let heard = self.receive(*at, &batch, &payloads);
            batch.heard.push(heard);
        }
        batch
    }

    fn receive(&mut self, gateway: usize, batch: &Batch, payloads: &[Vec<u8>]) -> Received {
        let (g, d) = (&self.gateways[gateway], &self.devices[batch.device]);
        let boot = GatewayBoot([9; 8]);
        let mut tally = Tally::new(g.id, boot);
        let mut envelopes = Vec::new();
        for (i, piv) in batch.pivs.iter().enumerate() {
            let bytes = envelope(self.net, d.sid, &batch.subject, *piv, &payloads[i], i as u64);
            tally.add(&bytes, &Envelope::parse(&bytes).unwrap());
            envelopes.push(bytes);
        }
        let mut receipt = vec![0; fivefold_core::proof::receipt::Receipt::LONGEST];
        let n = tally.receipt().seal(&g.key, &mut receipt).unwrap();
        receipt.truncate(n);
        let entry = self.log.append(b"g1", &receipt);
        Received { gateway, envelopes, receipt, entry }
    }

    /// What a stranger pins: all three witnesses are needed, one of them by ML-DSA-44.
    pub fn trust_text(&self) -> String {
        let keys: Vec<_> = self.log.witnesses.iter().map(|w| w.vkey().clone()).collect();
        trust::write(std::slice::from_ref(&self.ca.pem), self.log.key.vkey(), &keys, (3, 1), &[]).unwrap()
    }

    pub fn trust(&self) -> Trust {
        self.trust_text().parse().unwrap()
    }

    /// The bundle of reading number `at` of a batch, in a checkpoint of all that is in the log.
    pub fn bundle(&self, batch: &Batch, at: usize) -> Owned {
        let checkpoint = self.log.publish(self.log.entries.len(), &SEEN);
        self.bundle_in(batch, at, &checkpoint)
    }

    pub fn bundle_in(&self, batch: &Batch, at: usize, checkpoint: &Signed) -> Owned {
        let d = &self.devices[batch.device];
        let prove = |entry| self.log.prove(entry, checkpoint);
        let size = checkpoint.unverified().size as usize;
        let (list, rv) = self.lists.iter().rfind(|(_, entry)| *entry < size).unwrap();
        let has_row = batch.pivs[at].is_multiple_of(4);
        let heard = batch.heard.iter().map(|h| OwnedHeard {
            receipt: h.receipt.clone(),
            envelope: h.envelopes[at].clone(),
            path: Path::of(&h.envelopes.iter().map(|e| Hash::of_leaf([e])).collect::<Vec<_>>(), at).unwrap(),
            proof: prove(h.entry),
            chain: self.gateways[h.gateway].chain.clone(),
        });
        Owned {
            tbs: batch.tbs[at].clone(),
            salt: batch.salts[at],
            path: Path::of(&batch.leaves, at).unwrap(),
            signed: batch.signed.clone(),
            chain: d.chain.clone(),
            enrolment: (d.enrolment.clone(), prove(d.entries[0])),
            proof: prove(batch.entry),
            template: has_row.then(|| (TEMPLATE, self.definition.clone())),
            receipts: heard.collect(),
            revocations: (list.emit().unwrap(), prove(*rv)),
            policy: (d.configured.clone(), prove(d.entries[1])),
            timestamps: Vec::new(),
        }
    }
}

/// Signs a batch: leaves about `subject`, the statement about `claimed`.
pub fn sign(
    d: &Device,
    subject: Subject,
    first_piv: u64,
    pivs: &[u64],
    payloads: &[Vec<u8>],
    claimed: Subject,
) -> Batch {
    let mut tbs = Vec::new();
    for (piv, payload) in pivs.iter().zip(payloads) {
        let mut out = vec![0; payload.len() + 64];
        let n = subject.emit_tbs(*piv, payload, &mut out).unwrap();
        out.truncate(n);
        tbs.push(out);
    }
    let salts: Vec<Salt> = pivs.iter().map(|p| d.blind.salt(*p)).collect();
    let leaves: Vec<Hash> = salts.iter().zip(&tbs).map(|(s, t)| Hash::of_leaf([&s.0, t])).collect();
    let bits = pivs.iter().fold(0u64, |bits, p| bits | 1 << (p - first_piv));
    let bitmap = bits.to_le_bytes();
    let statement = Statement {
        subject: claimed,
        number: 1,
        first_piv,
        bitmap: &bitmap[..(8 - bits.leading_zeros() as usize / 8).max(1)],
        root: root(&leaves),
        previous: Hash([0; 32]),
    };
    let signed = seal(&d.key, &statement, CONTEXT);
    Batch { device: 0, subject, tbs, salts, pivs: pivs.to_vec(), leaves, signed, entry: 0, heard: Vec::new() }
}

pub fn seal(key: &SigningKey, statement: &Statement<'_>, context: &[u8]) -> Vec<u8> {
    let mut payload = [0; Statement::LONGEST];
    let n = statement.emit(&mut payload).unwrap();
    let mut out = vec![0; n + Sign1::OVERHEAD];
    let n = Sign1::seal(key, context, &payload[..n], &mut out).unwrap();
    out.truncate(n);
    out
}

/// A reading: every fourth is a row of the template, the others are SenML.
pub fn payload(piv: u64) -> Vec<u8> {
    let mut out = vec![0; 64];
    let n = if piv.is_multiple_of(4) {
        use fivefold_core::reading::{Number, Template, Value};
        let value = |x| Some(Value::Number(Number::Float(x)));
        Template::emit(TEMPLATE, &[value(12.0 + piv as f64 / 8.0), value(3.25)], &mut out).unwrap()
    } else {
        let mut reading = Reading::new(&mut out);
        reading.measure("level", "m", 12.0 + piv as f64 / 8.0).unwrap();
        reading.finish().unwrap().len()
    };
    out.truncate(n);
    out
}

/// The envelope in which a reading came to a gateway.
pub fn envelope(net: Net, sid: Sid, subject: &Subject, piv: u64, payload: &[u8], seq: u64) -> Vec<u8> {
    let kid = sid.to_bytes();
    let mut message = vec![0; payload.len() + 100];
    let (kind, n) = match subject.level {
        SignedLevel::Cloud => {
            let ciphertext = [payload, &[0xEE; 9]].concat();
            let message_out = Protected {
                kind: Type::Non,
                code: POST,
                message_id: 7,
                token: Token::new(&[1, 2]).unwrap(),
                option: OscoreOption {
                    piv: Some(PartialIv::from_value(piv as u32)),
                    kid_context: subject.bctx.as_ref().map(|b| &b.0[..]),
                    kid: Some(&kid),
                },
                ciphertext: &ciphertext,
            };
            (Kind::CloudTiny, message_out.emit(&mut message).unwrap())
        }
        SignedLevel::Gateway => {
            message[..2].copy_from_slice(&[POST, 0xFF]);
            message[2..2 + payload.len()].copy_from_slice(payload);
            (Kind::GatewayOpened, 2 + payload.len())
        }
    };
    let opened = Opened { kid: sid, piv, bctx: subject.bctx, epoch: subject.epoch };
    let envelope = Envelope {
        seq,
        received: Millis(NOW * 1000 + seq * 60_000),
        kind,
        bytes: &message[..n],
        originator: Originator::Node { net, sid },
        rssi: Some(-70),
        lqi: None,
        opened: (kind == Kind::GatewayOpened).then_some(opened),
        link: LinkClass::MacCcm,
        hops: Some(3),
        key_index: Some(1),
    };
    let mut out = vec![0; n + 150];
    let n = envelope.emit(&mut out).unwrap();
    out.truncate(n);
    out
}

/// SubjectPublicKeyInfo of a certificate.
pub fn x509_spki(der: &[u8]) -> Vec<u8> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    X509Certificate::from_der(der).unwrap().1.public_key().raw.to_vec()
}

/// A token, certificates, revocation lists.
pub type OwnedStamp = (Vec<u8>, Vec<Vec<u8>>, Vec<Vec<u8>>);

/// A bundle that owns its bytes, to be altered.
#[derive(Clone)]
pub struct Owned {
    pub tbs: Vec<u8>,
    pub salt: Salt,
    pub path: Path,
    pub signed: Vec<u8>,
    pub chain: Vec<Vec<u8>>,
    pub enrolment: (Vec<u8>, String),
    pub proof: String,
    pub template: Option<(u64, Vec<u8>)>,
    pub receipts: Vec<OwnedHeard>,
    pub revocations: (Vec<u8>, String),
    pub policy: (Vec<u8>, String),
    pub timestamps: Vec<OwnedStamp>,
}

#[derive(Clone)]
pub struct OwnedHeard {
    pub receipt: Vec<u8>,
    pub envelope: Vec<u8>,
    pub path: Path,
    pub proof: String,
    pub chain: Vec<Vec<u8>>,
}

impl Owned {
    pub fn bytes(&self) -> Vec<u8> {
        let logged = |l: &'_ (Vec<u8>, String)| -> (Vec<u8>, String) { l.clone() };
        let (en, rv, cf) = (logged(&self.enrolment), logged(&self.revocations), logged(&self.policy));
        fn slices(list: &[Vec<u8>]) -> Vec<&[u8]> {
            list.iter().map(Vec::as_slice).collect()
        }
        let bundle = Bundle {
            tbs: &self.tbs,
            salt: self.salt,
            path: self.path.clone(),
            signed: &self.signed,
            chain: slices(&self.chain),
            enrolment: Logged { record: &en.0, proof: &en.1 },
            proof: &self.proof,
            template: self.template.as_ref().map(|(id, definition)| bundle::Definition { id: *id, definition }),
            receipts: self
                .receipts
                .iter()
                .map(|h| Heard {
                    receipt: &h.receipt,
                    envelope: &h.envelope,
                    path: h.path.clone(),
                    proof: &h.proof,
                    chain: slices(&h.chain),
                })
                .collect(),
            revocations: Logged { record: &rv.0, proof: &rv.1 },
            policy: Logged { record: &cf.0, proof: &cf.1 },
            timestamps: self
                .timestamps
                .iter()
                .map(|(token, chain, lists)| Timestamp { token, chain: slices(chain), lists: slices(lists) })
                .collect(),
        };
        bundle.emit().unwrap()
    }
}
