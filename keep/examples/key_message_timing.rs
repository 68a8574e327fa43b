//! How long a server takes to refuse an RSA key message (docs/protocol.md 12), by the cause.
//!
//! ```text
//! cargo run --release -p fivefold-keep --example key_message_timing -- [SECONDS] [--size 3072] [--broken check|decrypt]
//! ```
//!
//! All causes take turns in random order, so that whatever else the machine does hits them alike. Each is then held against
//! all others of its kind: the difference of medians, and Welch's t of the samples below the 90th percentile, as dudect
//! does it. A difference counts if it shows in both halves of the run, with a median off by more than 1 % and |t| > 5;
//! 1 % is a hundredth of one private operation, and what an attacker gets is six tries an hour. Exit 0: none. 1: there is
//! one. 2: this did not run.
//!
//! `--broken` shows that the measurement can see: a server that does not `check` anything, or does not `decrypt` anything,
//! when the message does not deserve it, is told from the good one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::RSA_PSS_SHA256;
use fivefold_core::e5_renewal::key_message::{EnrolmentKey, to_be_signed};
use fivefold_core::error::Rejected;
use fivefold_core::id::{Serial, ServerKid};
use fivefold_core::time::Millis;
use fivefold_core::wire::key_message::{Auth, Header, KeyEpoch, KeyLen, KeyLevel, RsaSize};
use fivefold_keep::key_message::{
    Chain, DRAIN_MS, Decrypt, Device, DeviceKey, KeyMessages, KeyState, Outcome, Proof, PublicRsaKey, Report,
    ServerKey, SignatureRefused, Undecryptable, VerifyPss, refusal,
};

/// Different messages of each cause.
const VARIANTS: usize = 16;
/// Runs of each cause in either half, at least.
const LEAST: usize = 100;
const HOUR_MS: u64 = 3_600_000;
const BOUND: f64 = 0.01;
const T_BOUND: f64 = 5.0;

#[derive(Clone, Copy, PartialEq)]
enum Broken {
    No,
    Check,
    Decrypt,
}

/// Does nothing with the decoy, which is the mistake that is to be seen.
struct Lazy<T: ?Sized>(Box<T>, Vec<u8>);

impl Decrypt for Lazy<dyn Decrypt> {
    fn decrypt(&self, label: &[u8], c: &[u8], m: &mut [u8; RsaSize::LONGEST]) -> Result<usize, Undecryptable> {
        if c == self.1 { Ok(0) } else { self.0.decrypt(label, c, m) }
    }
}

impl VerifyPss for Lazy<dyn VerifyPss> {
    fn size(&self) -> RsaSize {
        self.0.size()
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRefused> {
        if signature == self.1 { Ok(()) } else { self.0.verify(message, signature) }
    }
}

fn server_key(pkcs8: &[u8], broken: Broken) -> ServerKey {
    let (public, mut private, mut decoy) = ServerKey::from_pkcs8(pkcs8).unwrap().danger_into_parts();
    match broken {
        Broken::No => {}
        Broken::Check => decoy.key = Box::new(Lazy(decoy.key, decoy.signature.clone())),
        Broken::Decrypt => private = Box::new(Lazy(private, decoy.ciphertext.clone())),
    }
    ServerKey::danger_foreign(public, private, decoy).unwrap()
}

/// Makes messages, good or not, in the name of devices.
struct Forge {
    size: RsaSize,
    server: PublicRsaKey,
    to: OaepPublicEncryptingKey,
    device: KeyPair,
    other: KeyPair,
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

impl Forge {
    fn header(&self, auth: Auth, serial: Serial) -> Header {
        let (level, keylen, epoch) = (KeyLevel::E3, KeyLen::B32, KeyEpoch(5));
        Header { size: self.size, auth, serial, level, keylen, epoch, server: self.server.kid() }
    }

    fn encrypt(&self, label: &Header, m: &[u8]) -> Vec<u8> {
        let mut c = vec![0; self.size.bytes()];
        self.to.encrypt(&OAEP_SHA256_MGF1SHA256, m, &mut c, Some(&label.to_bytes())).unwrap();
        c
    }

    fn sign(&self, key: &KeyPair, header: &Header, c: &[u8]) -> Vec<u8> {
        let mut s = vec![0; self.size.bytes()];
        let message = to_be_signed(&header.to_bytes(), c).concat();
        key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), &message, &mut s).unwrap();
        s
    }

    /// With a proof that holds.
    fn proven(&self, header: &Header, c: &[u8]) -> Vec<u8> {
        let s = match header.auth {
            Auth::Mac => enrolment_key().mac(&header.to_bytes(), c).to_vec(),
            Auth::Signature => self.sign(&self.device, header, c),
        };
        [&header.to_bytes()[..], c, &s].concat()
    }

    fn good(&self, header: &Header) -> Vec<u8> {
        self.proven(header, &self.encrypt(header, &random::<48>()))
    }
}

fn enrolment_key() -> EnrolmentKey {
    EnrolmentKey::new([0x5A; 32])
}

struct Cause {
    name: &'static str,
    auth: Auth,
    reason: Rejected,
    /// Its own, so that it has a budget of its own.
    serial: Serial,
    messages: Vec<Vec<u8>>,
    /// Always at the same time: the budget stays used up.
    stands_still: bool,
    ns: Vec<f64>,
}

const START: Millis = Millis(1_790_000_000_000);

/// Every way in which a message of the right shape is refused.
fn causes(forge: &Forge, auth: Auth) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut add = |name, reason, stands_still, make: &dyn Fn(Header) -> Vec<u8>| {
        let serial = Serial([auth as u8, causes.len() as u8, 0, 0, 0, 0, 0, 0]);
        let messages = (0..VARIANTS).map(|_| make(forge.header(auth, serial))).collect();
        causes.push(Cause { name, auth, reason, serial, messages, stands_still, ns: Vec::new() });
    };
    let altered = |header: &Header, bit: usize| {
        let mut message = forge.good(header);
        message[bit] ^= 1;
        message
    };
    let proof_at = 24 + forge.size.bytes();
    add("unknown serial", refusal::SERIAL, false, &|h| forge.good(&Header { serial: Serial(random()), ..h }));
    add("policy: other key length", refusal::KEY_LENGTH, false, &|h| {
        let header = Header { keylen: KeyLen::B16, ..h };
        forge.proven(&header, &forge.encrypt(&header, &random::<32>()))
    });
    add("srv_kid of nobody", refusal::SERVER_KEY, false, &|h| forge.good(&Header { server: ServerKid([0; 4]), ..h }));
    add("S of another C", refusal::PROOF, false, &|h| altered(&h, 100));
    add("S with a bit altered", refusal::PROOF, false, &|h| altered(&h, proof_at + 30));
    if auth == Auth::Signature {
        add("S of another device", refusal::PROOF, false, &|h| {
            let c = forge.encrypt(&h, &random::<48>());
            [&h.to_bytes()[..], &c, &forge.sign(&forge.other, &h, &c)].concat()
        });
        add("S beyond the modulus", refusal::PROOF, false, &|h| {
            let mut message = forge.good(&h);
            message[proof_at..proof_at + 32].fill(0xFF);
            message
        });
    }
    add("epoch left out", refusal::EPOCH, false, &|h| forge.good(&Header { epoch: KeyEpoch(6), ..h }));
    add("epoch that is taken", refusal::OTHER_OF_EPOCH, false, &|h| forge.good(&Header { epoch: KeyEpoch(4), ..h }));
    let noise = |h: Header| forge.proven(&h, &noise_below(forge.size));
    add("six messages before", refusal::RATE, true, &noise);
    add("C is noise", refusal::CIPHERTEXT, false, &noise);
    add("C under another label", refusal::CIPHERTEXT, false, &|h| {
        forge.proven(&h, &forge.encrypt(&Header { epoch: KeyEpoch(4), ..h }, &random::<48>()))
    });
    add("C beyond the modulus", refusal::CIPHERTEXT, false, &|h| forge.proven(&h, &vec![0xFF; forge.size.bytes()]));
    add("C is 1", refusal::CIPHERTEXT, false, &|h| {
        let mut c = vec![0; forge.size.bytes()];
        *c.last_mut().unwrap() = 1;
        forge.proven(&h, &c)
    });
    let length = Rejected { reason: "M has another length than keylen says", ..refusal::CIPHERTEXT };
    add("M too short", length, false, &|h| forge.proven(&h, &forge.encrypt(&h, &random::<16>())));
    add("M too long", length, false, &|h| forge.proven(&h, &forge.encrypt(&h, &random::<64>())));
    causes
}

fn noise_below(size: RsaSize) -> Vec<u8> {
    let mut c = random::<{ RsaSize::LONGEST }>()[..size.bytes()].to_vec();
    c[0] &= 0x7F;
    c
}

/// Where the machine of this cause knows a device: all but the first.
fn enrol(server: &mut KeyMessages, device: &DeviceKey, cause: &Cause) {
    let proof = match cause.auth {
        Auth::Mac => Proof::Mac { key: enrolment_key(), size: device.size() },
        Auth::Signature => Proof::Signature(Box::new(device.clone())),
    };
    let chain = Chain::restore(vec![(KeyEpoch(4), KeyState::Active)], None);
    server.enrol(cause.serial, Device { proof, keylen: KeyLen::B32, rsa1024_until: None, chain });
}

/// Nanoseconds from message to silence.
#[expect(clippy::disallowed_methods, reason = "this is what is measured")]
fn run(server: &mut KeyMessages, cause: &Cause, round: usize) -> f64 {
    let now = if cause.stands_still { START } else { START.plus(round as u64 * HOUR_MS) };
    let message = &cause.messages[round % VARIANTS];
    let began = Instant::now();
    let outcome = black_box(server.handle_message(now, black_box(message)));
    let ns = began.elapsed().as_nanos() as f64;
    assert!(matches!(outcome, Outcome::Silence), "{}: not refused", cause.name);
    let Some(Report::Refused { reason, .. }) = server.poll_report() else { panic!("{}: no reason", cause.name) };
    assert_eq!(reason, cause.reason, "{}", cause.name);
    ns
}

fn sorted(samples: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = samples.collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// How a cause differs from all others of its kind.
#[derive(Clone, Copy)]
struct Difference {
    /// Of the median, as a part of theirs.
    part: f64,
    /// Welch's.
    t: f64,
}

impl Difference {
    fn of(own: &[f64], others: &[f64]) -> Self {
        let (own, others) = (sorted(own.iter().copied()), sorted(others.iter().copied()));
        let median = |s: &[f64]| s[s.len() / 2];
        let part = median(&own) / median(&others) - 1.0;
        let limit = others[others.len() * 9 / 10];
        let moments = |samples: &[f64]| {
            let cropped: Vec<f64> = samples.iter().copied().filter(|ns| *ns <= limit).collect();
            let n = cropped.len() as f64;
            let mean = cropped.iter().sum::<f64>() / n;
            let variance = cropped.iter().map(|ns| (ns - mean).powi(2)).sum::<f64>() / (n - 1.0);
            (mean, variance / n, n)
        };
        let ((a, va, na), (b, vb, _)) = (moments(&own), moments(&others));
        // So slow that hardly one is below the limit: no mean to speak of, and no doubt.
        let t = if na < 10.0 { f64::INFINITY } else { (a - b) / (va + vb).sqrt() };
        Self { part, t }
    }

    fn counts(self) -> bool {
        self.part.abs() > BOUND && self.t.abs() > T_BOUND
    }
}

/// Prints a line for each cause; the names of those that differ.
fn judge(causes: &[Cause], auth: Auth) -> Vec<&'static str> {
    let of_kind: Vec<&Cause> = causes.iter().filter(|c| c.auth == auth).collect();
    let mut found = Vec::new();
    for cause in &of_kind {
        let against = |part: fn(&[f64]) -> &[f64]| {
            let others = of_kind.iter().filter(|c| c.name != cause.name).flat_map(|c| part(&c.ns));
            Difference::of(part(&cause.ns), &others.copied().collect::<Vec<_>>())
        };
        let whole = against(|ns| ns);
        let halves = [against(|ns| &ns[..ns.len() / 2]), against(|ns| &ns[ns.len() / 2..])];
        let same_sign = (halves[0].part > 0.0) == (halves[1].part > 0.0);
        let differs = halves.iter().all(|half| half.counts()) && same_sign;
        let median = sorted(cause.ns.iter().copied())[cause.ns.len() / 2] / 1000.0;
        let mark = if differs { "  DIFFERS" } else { "" };
        println!("  {:26}{median:10.1} {:+8.2} % {:+8.1}{mark}", cause.name, whole.part * 100.0, whole.t);
        if differs {
            found.push(cause.name);
        }
    }
    found
}

fn usage() -> ExitCode {
    eprintln!("usage: key_message_timing [SECONDS] [--size 2048|3072] [--broken check|decrypt]");
    ExitCode::from(2)
}

#[expect(clippy::disallowed_methods, reason = "a measurement is a rim")]
fn main() -> ExitCode {
    let (mut seconds, mut size, mut broken) = (20, RsaSize::Rsa2048, Broken::No);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), arg.parse::<u64>()) {
            (_, Ok(n)) if n > 0 => seconds = n,
            ("--size", _) => match args.next().as_deref() {
                Some("2048") => size = RsaSize::Rsa2048,
                Some("3072") => size = RsaSize::Rsa3072,
                _ => return usage(),
            },
            ("--broken", _) => match args.next().as_deref() {
                Some("check") => broken = Broken::Check,
                Some("decrypt") => broken = Broken::Decrypt,
                _ => return usage(),
            },
            _ => return usage(),
        }
    }

    let (server, server_pkcs8) = ServerKey::generate(size).unwrap();
    let pair = || KeyPair::from_pkcs8(&ServerKey::generate(size).unwrap().1).unwrap();
    let encrypting = PrivateDecryptingKey::from_pkcs8(&server_pkcs8).unwrap().public_key();
    let forge = Forge {
        size,
        server: server.public().clone(),
        to: OaepPublicEncryptingKey::new(encrypting).unwrap(),
        device: pair(),
        other: pair(),
    };
    let device = {
        use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
        use aws_lc_rs::signature::KeyPair as _;
        let spki: PublicKeyX509Der<'static> = forge.device.public_key().as_der().unwrap();
        DeviceKey::from_spki(spki.as_ref()).unwrap()
    };

    let mut server = KeyMessages::new(KeyLevel::E3, DRAIN_MS);
    server.add_key(server_key(&server_pkcs8, broken)).unwrap();
    let mut causes: Vec<Cause> =
        [Auth::Signature, Auth::Mac].into_iter().flat_map(|auth| causes(&forge, auth)).collect();
    for cause in &causes {
        enrol(&mut server, &device, cause);
        if cause.stands_still {
            for message in cause.messages.iter().take(6) {
                assert!(matches!(server.handle_message(START, message), Outcome::Silence));
                let _ = server.poll_report();
            }
        }
    }

    let began = Instant::now();
    let mut order: Vec<usize> = (0..causes.len()).collect();
    let mut round = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        round += 1;
        for i in (1..order.len()).rev() {
            order.swap(i, u32::from_be_bytes(random()) as usize % (i + 1));
        }
        for &at in &order {
            let ns = run(&mut server, &causes[at], round);
            // The first rounds fill caches.
            if round > 5 {
                causes[at].ns.push(ns);
            }
        }
    }
    if round < 2 * LEAST + 5 {
        eprintln!("key_message_timing: {round} rounds in {seconds} s are too few to judge; give it more SECONDS");
        return ExitCode::from(2);
    }

    println!(
        "{} bits, {} runs of each cause: median in us, median and Welch's t against all others",
        size.bits(),
        round - 5
    );
    let mut found = Vec::new();
    for (auth, title) in [(Auth::Signature, "signed"), (Auth::Mac, "with a MAC")] {
        println!("{title}");
        found.extend(judge(&causes, auth));
    }
    if found.is_empty() {
        println!("no cause differs by more than {} %", BOUND * 100.0);
        return ExitCode::SUCCESS;
    }
    println!("told from the others by their time: {}", found.join(", "));
    ExitCode::from(1)
}
