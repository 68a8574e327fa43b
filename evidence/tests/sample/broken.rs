//! Bundles that are broken on purpose, each in one way, with the step that must refuse it.

use fivefold_core::id::{BootContext, Did, Epoch};
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::statement::{CONTEXT, Salt, SignedLevel, Statement, Subject};
use fivefold_core::proof::{KeyName, Sign1, receipt};
use fivefold_evidence::record::Revocations;
use fivefold_evidence::verify::Step;
use fivefold_keep::sign::SigningKey;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::{Authority, Batch, Device, Dice, NOW, Owned, SEEN, Village, lives, payload, seal, sign};

/// A bundle, and what a verifier must say of it: `None` if it is proven.
pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub step: Option<Step>,
}

/// Flips one bit.
pub fn flip(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 1;
}

/// Everything that is wrong in one way, of one reading of a village, and some that is right. The village is used up: what a
/// case needs in the log is there before any of them is proven.
pub fn cases(village: &mut Village, dice: &mut Dice) -> Vec<Case> {
    let n = 3 + dice.below(20);
    let (level, bctx) = match dice.below(3) {
        0 => (SignedLevel::Gateway, None),
        1 => (SignedLevel::Cloud, Some(BootContext([0xB0; 8]))),
        _ => (SignedLevel::Cloud, None),
    };
    let batch = village.batch(0, level, bctx, n, &[0]);
    let other = village.batch(1, level, bctx, n, &[1]);
    let wrong = wrong_statements(village, &batch);
    let checkpoint = village.log.publish(village.log.entries.len(), &SEEN);
    let at = dice.below(batch.pivs.len());
    let right = village.bundle_in(&batch, at, &checkpoint);
    let theirs = village.bundle_in(&other, at, &checkpoint);
    let neighbour = village.bundle_in(&batch, (at + 1) % batch.pivs.len(), &checkpoint);

    let mut all = Vec::new();
    let mut case = |name, step, edit: &mut dyn FnMut(&mut Owned)| {
        let mut bundle = right.clone();
        edit(&mut bundle);
        all.push(Case { name, bytes: bundle.bytes(), step });
    };
    case("valid", None, &mut |_| {});
    case("without receipts", None, &mut |b| b.receipts.clear());
    case("without the template", None, &mut |b| b.template = None);

    // 2 to 4: what was signed.
    case("tbs of another kind", Some(Step::Leaf), &mut |b| b.tbs[3] = b'2');
    case("tbs cut", Some(Step::Leaf), &mut |b| b.tbs.truncate(b.tbs.len() - 1));
    case("payload altered", Some(Step::Path), &mut |b| {
        let last = b.tbs.len() - 1;
        flip(&mut b.tbs, last);
    });
    case("salt altered", Some(Step::Path), &mut |b| b.salt = Salt([7; 16]));
    case("reading of a neighbour", Some(Step::Path), &mut |b| {
        (b.tbs, b.salt) = (neighbour.tbs.clone(), neighbour.salt);
    });
    case("path altered", Some(Step::Path), &mut |b| flip(&mut b.path.hashes[0].0, 5));
    case("path longer", Some(Step::Path), &mut |b| b.path.hashes.push(Hash([0; 32])));
    case("path shorter", Some(Step::Path), &mut |b| b.path.hashes.truncate(b.path.hashes.len() - 1));
    case("path of a neighbour", Some(Step::Path), &mut |b| b.path = neighbour.path.clone());
    case("index beyond the batch", Some(Step::Path), &mut |b| b.path.index = b.path.size);
    case("batch untagged", Some(Step::Statement), &mut |b| b.signed = b.signed[1..].to_vec());
    case("root altered", Some(Step::Path), &mut |b| {
        let root = position(&b.signed, &root_of(&right.signed));
        flip(&mut b.signed, root);
    });
    for (name, signed, tbs, salt, path, step) in wrong {
        case(name, Some(step), &mut |b| {
            (b.signed, b.tbs, b.salt, b.path) = (signed.clone(), tbs.clone(), salt, path.clone());
        });
    }
    case("signature altered", Some(Step::Signature), &mut |b| {
        let last = b.signed.len() - 1;
        flip(&mut b.signed, last);
    });
    case("signed by another device", Some(Step::Signature), &mut |b| {
        b.signed = reseal(&village.devices[1].key, &right.signed, CONTEXT);
    });
    case("signed as a receipt", Some(Step::Signature), &mut |b| {
        b.signed = reseal(&village.devices[0].key, &right.signed, receipt::CONTEXT);
    });
    case("batch number altered", Some(Step::Signature), &mut |b| {
        let number = position(&b.signed, &root_of(&right.signed));
        // Before the root: its head of two bytes, then the bitmap.
        let first = b.signed[..number].iter().rposition(|x| *x == 0x19).unwrap();
        b.signed[first - 1] ^= 2;
    });

    // 5: whose key it is.
    let certificate = |b: &Owned, whole: &[Vec<u8>]| Owned { chain: whole.to_vec(), ..b.clone() };
    for (name, chain) in wrong_chains(village) {
        case(name, Some(Step::Chain), &mut |b| *b = certificate(b, &chain));
    }
    case("certificate of another device", Some(Step::Signature), &mut |b| b.chain = theirs.chain.clone());
    case("certificate cut", Some(Step::Chain), &mut |b| b.chain[0] = b.chain[0][..20].to_vec());
    case("certificate's signature altered", Some(Step::Chain), &mut |b| {
        let last = b.chain[0].len() - 1;
        flip(&mut b.chain[0], last);
    });
    for (name, from, until) in [
        ("certificate ended before the witness time", NOW - 86_400, NOW + 19),
        ("certificate begins after the witness time", NOW + 31, NOW + 86_400),
    ] {
        let d = &village.devices[0];
        let uri = format!("urn:dev:mac:{}", d.did);
        let der = village.ca.certify(d.key.spki(), &[&uri], |p| lives(p, from, until));
        case(name, Some(Step::Revocation), &mut |b| b.chain = vec![der.clone()]);
    }

    // 6, 11, 8: what the log says of the device.
    case("enrolment of another device", Some(Step::Enrolment), &mut |b| b.enrolment = theirs.enrolment.clone());
    case("enrolment altered", Some(Step::Enrolment), &mut |b| *b.enrolment.0.last_mut().unwrap() = 2);
    case("enrolment proven by another entry", Some(Step::Enrolment), &mut |b| b.enrolment.1 = right.policy.1.clone());
    case("policy of another device", Some(Step::Policy), &mut |b| b.policy = theirs.policy.clone());
    case("policy proven by another entry", Some(Step::Policy), &mut |b| b.policy.1 = right.enrolment.1.clone());
    case("template altered", Some(Step::Policy), &mut |b| {
        let mut definition = village.definition.clone();
        *definition.last_mut().unwrap() ^= 1;
        b.template = Some((super::TEMPLATE, definition));
    });
    case("template of another number", Some(Step::Policy), &mut |b| b.template = Some((9, village.definition.clone())));
    if right.template.is_none() {
        case("template that the reading does not use", Some(Step::Policy), &mut |b| {
            b.template = Some((super::TEMPLATE, village.definition.clone()));
        });
    }

    // 7: the log and its witnesses.
    case("batch proven by another entry", Some(Step::Log), &mut |b| b.proof = theirs.proof.clone());
    case("proof with another index", Some(Step::Log), &mut |b| {
        let line = right.proof.lines().nth(1).unwrap().to_owned();
        b.proof = right.proof.replacen(&line, "index 0", 1);
    });
    case("proof with extra data", Some(Step::Log), &mut |b| {
        b.proof = right.proof.replacen("index", "extra AAAA\nindex", 1);
    });
    case("log's signature altered", Some(Step::Log), &mut |b| b.proof = alter_line(&right.proof, 0));
    for (name, line) in [("first", 1), ("second", 2), ("third", 3)] {
        let step = Some(Step::Witnesses);
        let name = match name {
            "first" => "first witness altered",
            "second" => "second witness altered",
            _ => "third witness altered",
        };
        case(name, step, &mut |b| b.proof = alter_line(&right.proof, line));
    }
    for (name, missing) in [("a witness is missing", 1), ("the post-quantum witness is missing", 2)] {
        let mut times = SEEN;
        times[missing] = 0;
        let fewer = village.log.publish(village.log.entries.len(), &times);
        case(name, Some(Step::Witnesses), &mut |b| b.proof = village.log.prove(batch.entry, &fewer));
    }
    case("a forked log", Some(Step::Log), &mut |b| {
        let mut fork = Village::new(200);
        fork.log.entries = village.log.entries.clone();
        fork.log.entries[0] = Hash([1; 32]);
        b.proof = fork.log.prove(batch.entry, &fork.log.publish(fork.log.entries.len(), &SEEN));
    });
    case("a fork by the log's own key", Some(Step::Witnesses), &mut |b| {
        let real = std::mem::take(&mut village.log.entries);
        village.log.entries = real.clone();
        village.log.entries[0] = Hash([1; 32]);
        let fork = village.log.publish(real.len(), &[0; 3]);
        b.proof = village.log.prove(batch.entry, &fork);
        village.log.entries = real;
    });

    // 10: revocation.
    case("revocations altered", Some(Step::Revocation), &mut |b| {
        b.revocations.0 = Revocations { number: 9, keys: vec![] }.emit().unwrap();
    });
    case("revocations from a smaller log", Some(Step::Revocation), &mut |b| {
        let older = village.log.publish(village.log.entries.len() - 1, &SEEN);
        b.revocations.1 = village.log.prove(village.lists[0].1, &older);
    });
    let key = KeyName::of(village.devices[0].key.spki());
    for (name, since, step) in [
        ("key revoked before the witness time", SEEN[1], Some(Step::Revocation)),
        ("key revoked at the witness time", SEEN[2], Some(Step::Revocation)),
        ("key revoked after the witness time", SEEN[2] + 1, None),
    ] {
        let list = Revocations { number: 1, keys: vec![(key, since)] }.emit().unwrap();
        let entry = village.log.append(b"rv", &list);
        let later = village.log.publish(village.log.entries.len(), &SEEN);
        case(name, step, &mut |b| b.revocations = (list.clone(), village.log.prove(entry, &later)));
    }
    receipts(village, &batch, at, &right, &theirs, &neighbour, &mut case);

    let whole = right.bytes();
    all.push(Case {
        name: "cut",
        bytes: whole[..whole.len() - 1 - dice.below(whole.len() - 1)].to_vec(),
        step: Some(Step::Decode),
    });
    all.push(Case { name: "a byte after it", bytes: [&whole[..], &[0]].concat(), step: Some(Step::Decode) });
    let mut eleven = whole.clone();
    eleven[0] = 0xAB;
    all.push(Case { name: "eleven items", bytes: eleven, step: Some(Step::Decode) });
    let mut version = whole;
    version[6] = b'2';
    all.push(Case { name: "another version", bytes: version, step: Some(Step::Decode) });
    all
}

/// 9: what gateways say.
fn receipts(
    village: &mut Village,
    batch: &Batch,
    at: usize,
    right: &Owned,
    theirs: &Owned,
    neighbour: &Owned,
    case: &mut impl FnMut(&'static str, Option<Step>, &mut dyn FnMut(&mut Owned)),
) {
    let step = Some(Step::Receipts);
    case("receipt of another reading", step, &mut |b| b.receipts = neighbour.receipts.clone());
    case("receipt of another device", step, &mut |b| b.receipts = theirs.receipts.clone());
    case("envelope altered", step, &mut |b| {
        let last = b.receipts[0].envelope.len() - 1;
        flip(&mut b.receipts[0].envelope, last);
    });
    case("receipt's signature altered", step, &mut |b| {
        let last = b.receipts[0].receipt.len() - 1;
        flip(&mut b.receipts[0].receipt, last);
    });
    case("receipt proven by another entry", step, &mut |b| b.receipts[0].proof = right.proof.clone());
    case("receipt's path altered", step, &mut |b| flip(&mut b.receipts[0].path.hashes[0].0, 1));
    case("receipt with the certificate of another gateway", step, &mut |b| {
        b.receipts[0].chain = village.gateways[1].chain.clone();
    });
    case("gateway certified for another network", step, &mut |b| {
        let g = &village.gateways[0];
        let own = village.issuing.certify(g.key.spki(), &[&format!("urn:gw:00000008:{}", g.id)], |_| {});
        b.receipts[0].chain[0] = own;
    });
    case("gateway certified by nobody", step, &mut |b| {
        let g = &village.gateways[0];
        let stranger = Authority::new("Village CA");
        b.receipts[0].chain =
            vec![stranger.certify(g.key.spki(), &[&format!("urn:gw:{}:{}", village.net, g.id)], |_| {})];
    });
    let key = KeyName::of(village.gateways[0].key.spki());
    let list = Revocations { number: 1, keys: vec![(key, NOW)] }.emit().unwrap();
    let entry = village.log.append(b"rv", &list);
    let later = village.log.publish(village.log.entries.len(), &SEEN);
    case("gateway's key revoked before", step, &mut |b| {
        b.revocations = (list.clone(), village.log.prove(entry, &later));
    });
    let _ = (batch, at);
}

type WrongStatement = (&'static str, Vec<u8>, Vec<u8>, Salt, fivefold_evidence::bundle::Path, Step);

/// Batches that the device really signed, and whose statement is not about the reading that is shown.
fn wrong_statements(village: &Village, batch: &Batch) -> Vec<WrongStatement> {
    let d = &village.devices[0];
    let payloads: Vec<_> = batch.pivs.iter().map(|p| payload(*p)).collect();
    let claims: [(&'static str, Subject); 4] = [
        ("statement about another device", Subject { did: Did([1; 8]), ..batch.subject }),
        ("statement about another epoch", Subject { epoch: Epoch(6), ..batch.subject }),
        ("statement about another boot", Subject { bctx: Some(BootContext([1; 8])), ..batch.subject }),
        (
            "statement about another level",
            Subject {
                level: match batch.subject.level {
                    SignedLevel::Cloud => SignedLevel::Gateway,
                    SignedLevel::Gateway => SignedLevel::Cloud,
                },
                ..batch.subject
            },
        ),
    ];
    let mut all: Vec<WrongStatement> = Vec::new();
    for (name, claimed) in claims {
        let made = sign(d, batch.subject, batch.pivs[0], &batch.pivs, &payloads, claimed);
        all.push(of(name, &made, 1, Step::Statement));
    }
    // The leaves are those of the batch, and the bitmap is another one's.
    for (name, first_piv, bitmap, step) in [
        ("a leaf missing in the bitmap", batch.pivs[0], bits(&batch.pivs[..batch.pivs.len() - 1]), Step::Statement),
        ("a leaf too many in the bitmap", batch.pivs[0], bits(&batch.pivs) | 2, Step::Statement),
        ("numbers shifted by two", batch.pivs[0] + 2, bits(&batch.pivs), Step::Statement),
    ] {
        let bytes = bitmap.to_le_bytes();
        let statement = Statement {
            subject: batch.subject,
            number: 1,
            first_piv,
            bitmap: &bytes,
            root: fivefold_core::proof::merkle::root(&batch.leaves),
            previous: Hash([0; 32]),
        };
        let made = Batch { signed: seal(&d.key, &statement, CONTEXT), ..batch.clone() };
        all.push(of(name, &made, 1, step));
    }
    // Leaves in another order, or one of them twice: the bitmap knows only one order.
    let mut leaves = batch.leaves.clone();
    leaves.swap(0, 1);
    all.push(of("leaves in another order", &reordered(d, batch, &leaves), 1, Step::Path));
    let reordered_path = reordered(d, batch, &leaves);
    let (tbs, salt) = (batch.tbs[0].clone(), batch.salts[0]);
    let path = fivefold_evidence::bundle::Path::of(&leaves, 1).unwrap();
    all.push(("leaves in another order, with their path", reordered_path.signed, tbs, salt, path, Step::Statement));
    let mut doubled = batch.leaves.clone();
    doubled[1] = doubled[0];
    let twice = reordered(d, batch, &doubled);
    let (tbs, salt) = (batch.tbs[0].clone(), batch.salts[0]);
    let path = fivefold_evidence::bundle::Path::of(&doubled, 1).unwrap();
    all.push(("a leaf twice", twice.signed, tbs, salt, path, Step::Statement));
    all
}

fn bits(pivs: &[u64]) -> u64 {
    pivs.iter().fold(0, |bits, p| bits | 1 << (p - pivs[0]))
}

fn reordered(d: &Device, batch: &Batch, leaves: &[Hash]) -> Batch {
    let bytes = bits(&batch.pivs).to_le_bytes();
    let statement = Statement {
        subject: batch.subject,
        number: 1,
        first_piv: batch.pivs[0],
        bitmap: &bytes,
        root: fivefold_core::proof::merkle::root(leaves),
        previous: Hash([0; 32]),
    };
    Batch { signed: seal(&d.key, &statement, CONTEXT), ..batch.clone() }
}

fn of(name: &'static str, made: &Batch, at: usize, step: Step) -> WrongStatement {
    let path = fivefold_evidence::bundle::Path::of(&made.leaves, at).unwrap();
    (name, made.signed.clone(), made.tbs[at].clone(), made.salts[at], path, step)
}

/// Chains for the right key that must not be taken.
fn wrong_chains(village: &Village) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let d = &village.devices[0];
    let uri = format!("urn:dev:mac:{}", d.did);
    let (spki, ca) = (d.key.spki(), &village.ca);
    let one = |der| vec![der];
    let stranger = Authority::new("Village CA");
    let usage = |u: ExtendedKeyUsagePurpose| ca.certify(spki, &[&uri], |p| p.extended_key_usages = vec![u]);
    let under = ca.below("Under", &[]);
    let third = {
        let mut p = rcgen::CertificateParams::new(Vec::new()).unwrap();
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        p.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        p.distinguished_name.push(rcgen::DnType::CommonName, "Under it");
        lives(&mut p, NOW - 86_400, NOW + 86_400);
        let key = rcgen::KeyPair::generate().unwrap();
        let der = p.signed_by(&key, &under.issuer).unwrap().der().to_vec();
        (rcgen::Issuer::new(p, key), der)
    };
    let third_leaf = Authority { issuer: third.0, der: Vec::new(), pem: String::new() }.certify(spki, &[&uri], |_| {});
    vec![
        ("certified by nobody", one(stranger.certify(spki, &[&uri], |_| {}))),
        ("certificate with clientAuth", one(usage(ExtendedKeyUsagePurpose::ClientAuth))),
        ("certificate with serverAuth", one(usage(ExtendedKeyUsagePurpose::ServerAuth))),
        (
            "certificate of an authority",
            one(ca.certify(spki, &[&uri], |p| {
                p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            })),
        ),
        (
            "certificate that may sign others",
            one(ca.certify(spki, &[&uri], |p| {
                p.key_usages.push(KeyUsagePurpose::KeyCertSign);
            })),
        ),
        (
            "certificate not for signatures",
            one(ca.certify(spki, &[&uri], |p| {
                p.key_usages = vec![KeyUsagePurpose::KeyAgreement];
            })),
        ),
        ("certificate for another name", one(ca.certify(spki, &["urn:dev:mac:acde480000000099"], |_| {}))),
        ("certificate for a name in capitals", one(ca.certify(spki, &[&uri.to_uppercase()], |_| {}))),
        ("certificate for two names", one(ca.certify(spki, &[&uri, "urn:dev:mac:acde480000000099"], |_| {}))),
        ("certificate for no name", one(ca.certify(spki, &[], |_| {}))),
        (
            "certified by the key for gateways",
            vec![village.issuing.certify(spki, &[&uri], |_| {}), village.issuing.der.clone()],
        ),
        ("certified by another device", {
            let other = &village.devices[1];
            vec![stranger.certify(spki, &[&uri], |_| {}), other.chain[0].clone()]
        }),
        ("the pinned certificate in the chain", vec![d.chain[0].clone(), ca.der.clone()]),
        ("a certificate too many", vec![d.chain[0].clone(), under.der.clone()]),
        ("more authorities than may be", vec![third_leaf, third.1, under.der.clone()]),
        ("chain in the wrong order", vec![under.certify(spki, &[&uri], |_| {}), d.chain[0].clone(), under.der.clone()]),
    ]
}

/// The same statement, signed by another key or for something else.
fn reseal(key: &SigningKey, signed: &[u8], context: &[u8]) -> Vec<u8> {
    let read = Sign1::parse(signed).unwrap();
    let mut out = vec![0; signed.len() + 8];
    let n = Sign1::seal(key, context, read.danger_payload(), &mut out).unwrap();
    out.truncate(n);
    out
}

fn root_of(signed: &[u8]) -> Hash {
    Statement::parse(Sign1::parse(signed).unwrap().danger_payload()).unwrap().root
}

fn position(bytes: &[u8], hash: &Hash) -> usize {
    bytes.windows(32).position(|w| w == hash.0).unwrap()
}

/// Another signature in line `n` of the signatures of a proof, as long and as well formed as the one before.
fn alter_line(proof: &str, n: usize) -> String {
    let line = proof.lines().filter(|l| l.starts_with('\u{2014}')).nth(n).unwrap();
    // Somewhere inside of the signature, and no padding.
    let at = line.len() - 20;
    let other = if line.as_bytes()[at] == b'A' { "B" } else { "A" };
    let altered = format!("{}{other}{}", &line[..at], &line[at + 1..]);
    proof.replacen(line, &altered, 1)
}
