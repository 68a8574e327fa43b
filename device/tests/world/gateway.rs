//! The gateway and, behind it, the cloud: they open what comes, note it, and answer as they are told to.

use super::cloud::{Cloud, Held, Member};
use super::*;

/// How the gateway and the cloud behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Everything is answered by who should.
    Kind,
    /// The gateway acknowledges custody and hands nothing on.
    Withholding,
    /// The gateway answers with this code in its own name.
    Lying(u8),
    /// Nothing is answered.
    Silent,
    /// The cloud answers with this code.
    Code(u8),
}

/// Names a message: device, boot id, epoch, number.
pub type Name = (u16, Option<[u8; 8]>, u16, u64);

/// What arrived at the end that the policy names.
#[derive(Default)]
pub struct Ledger {
    pub readings: BTreeMap<Name, Vec<u8>>,
    pub duplicates: usize,
    /// Numbers that came twice with different content.
    pub reused: usize,
}

/// The gateway's neighbours: it knows by the registry whose short address is whose.
pub struct Registered(FixedNeighbours<16>);

impl Neighbours for Registered {
    fn by_sid(&mut self, sid: Sid) -> Option<&mut Neighbour> {
        self.0.by_sid(sid)
    }

    fn by_did(&mut self, did: Did) -> Option<&mut Neighbour> {
        self.0.by_did(did)
    }

    fn put(&mut self, neighbour: Neighbour) -> Result<(), TableFull> {
        self.0.put(neighbour)
    }

    fn registration(&self, claimed: Did, sid: Sid) -> Registration {
        if claimed == did(sid) { Registration::Registered } else { Registration::Refused }
    }
}

pub struct GatewayStation {
    pub link: Link<Registered>,
    pub mood: Mood,
    pub ledger: Ledger,
    pub control: Vec<u8>,
    pub policies: HashMap<Sid, Policy>,
    pub cloud: Cloud,
    /// What becomes of the next messages 1 to 4 of EDHOC: so many of each are lost.
    pub lost: [usize; 4],
    /// message_2, message_4: the next one is not what it was.
    pub forged: [bool; 2],
    /// EDHOC messages as they came and went.
    pub edhoc: Vec<Vec<u8>>,
    /// Devices whose contexts up to this epoch must be renewed (item 6).
    pub ordered: HashMap<Sid, Epoch>,
    numbers: Lease,
    answered: BTreeSet<(u8, Name)>,
    hashes: HashMap<(u8, Name), [u8; 32]>,
    pub plain: Vec<Vec<u8>>,
    /// Answers as they left, before E1.
    pub answers: Vec<Vec<u8>>,
    /// Requests as they came, after E1.
    pub requests: Vec<Vec<u8>>,
    boots: HashMap<Sid, BootContext>,
    /// Messages that no context opens.
    pub unknown: usize,
    pub refused: Vec<fivefold_core::error::Rejected>,
}

impl GatewayStation {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        let mut keys = LinkKeys::new();
        keys.install(1, &Key::new(KEY), 0).unwrap();
        let identity = Name154 { did: did(GATEWAY), sid: GATEWAY, pan: PAN, station: Station::Gateway };
        let mut numbers = Lease::resume(0, 1 << 20);
        numbers.extend(1 << 20);
        Self {
            link: Link::new(identity, LinkPolicy::default(), keys, Registered(FixedNeighbours::new()), seed),
            mood: Mood::Kind,
            ledger: Ledger::default(),
            control: Vec::new(),
            policies: HashMap::new(),
            cloud: Cloud::new(u64::from_be_bytes(*seed.first_chunk().unwrap())),
            lost: [0; 4],
            forged: [false; 2],
            edhoc: Vec::new(),
            ordered: HashMap::new(),
            numbers,
            answered: BTreeSet::new(),
            hashes: HashMap::new(),
            plain: Vec::new(),
            answers: Vec::new(),
            requests: Vec::new(),
            boots: HashMap::new(),
            unknown: 0,
            refused: Vec::new(),
        }
    }

    pub(super) fn enrol(&mut self, settings: &Settings, installed: bool) {
        self.policies.insert(settings.sid, settings.policy);
        let mut member = Member::default();
        if installed {
            member.contexts.push(Held::installed(settings.epoch));
        }
        self.cloud.members.insert(settings.sid, member);
    }

    pub(super) fn frame(&mut self, now: Millis, frame: &[u8]) -> Vec<Vec<u8>> {
        let mut frame = frame.to_vec();
        let (from, originator, payload, under) = match self.link.receive(now, &mut frame) {
            Ok(Heard::Deliver(d)) => {
                let retired = (d.key != KeyState::Usable).then_some(d.security.key_index);
                (d.from, d.originator, d.payload.to_vec(), retired)
            }
            Ok(_) => return vec![],
            Err(r) => {
                self.refused.push(r);
                return vec![];
            }
        };
        self.requests.push(payload.clone());
        let answer = self.request(originator, &payload);
        let Some(answer) = answer else { return vec![] };
        self.answers.push(answer.clone());
        let header = mesh::Header { hops: 14, originator: GATEWAY, destination: originator };
        let mut out = [0; 127];
        let len = match under {
            None => self.link.seal(from, Ack::Request, Some(header), &answer, &mut out).unwrap(),
            Some(index) => self.seal_in_recovery(index, from, header, &answer, &mut out),
        };
        vec![out[..len].to_vec()]
    }

    /// To a straggler, under the retired key that it spoke under.
    fn seal_in_recovery(&mut self, index: u8, to: Sid, header: mesh::Header, answer: &[u8], out: &mut [u8]) -> usize {
        let Tiny::Edhoc { rule, payload } = Tiny::parse(answer, KidLength::None).unwrap() else { panic!() };
        let to = (to, Ack::Request);
        let mut seal = |link: &mut Link<_>| link.seal_in_recovery(index, to, Some(header), (rule, payload), out);
        seal(&mut self.link).unwrap_or_else(|_| {
            let keys = self.link.keys_mut();
            let due = keys.lease_due().unwrap();
            keys.extend_lease(due);
            seal(&mut self.link).unwrap()
        })
    }

    /// Whether the next of these messages is lost.
    fn loses(&mut self, message: usize) -> bool {
        let left = &mut self.lost[message - 1];
        let lost = *left > 0;
        *left -= usize::from(lost);
        lost
    }

    fn run(&mut self, sid: Sid, payload: &[u8]) -> Option<Vec<u8>> {
        let first = payload[0] == 0xF5;
        if self.loses(if first { 1 } else { 3 }) {
            return None;
        }
        self.edhoc.push(payload.to_vec());
        let mut answer = self.cloud.edhoc(sid, self.policies[&sid].alg, payload)?;
        if self.loses(if first { 2 } else { 4 }) {
            return None;
        }
        if core::mem::take(&mut self.forged[usize::from(!first)]) {
            *answer.last_mut().unwrap() ^= 1;
        }
        self.edhoc.push(answer.clone());
        Some(emit(Tiny::Edhoc { rule: EdhocRule::ToClient, payload: &answer }))
    }

    fn request(&mut self, sid: Sid, payload: &[u8]) -> Option<Vec<u8>> {
        let policy = self.policies[&sid];
        let tiny = Tiny::parse(payload, policy.kid_length).unwrap();
        let (layers, wants, piv, bctx, kid, ciphertext) = match tiny {
            Tiny::Request { layers, wants, piv, bctx, kid, ciphertext } => (layers, wants, piv, bctx, kid, ciphertext),
            Tiny::Plain { payload, .. } => {
                self.plain.push(payload.to_vec());
                return None;
            }
            Tiny::Edhoc { rule: EdhocRule::ToServer, payload } => return self.run(sid, payload),
            other => panic!("{other:?}"),
        };
        assert_eq!(kid, (policy.kid_length == KidLength::Two).then_some(sid));
        if let Some(bctx) = bctx {
            self.boots.insert(sid, bctx);
        }
        let bctx = if policy.mode == Mode::Random { Some(self.boots[&sid]) } else { None };
        let member = &self.cloud.members[&sid];
        let ends = |epoch: Epoch| {
            let held = member.held(epoch);
            let c2 = held.e2(sid).context_for_peer(sid, epoch, bctx, policy.alg).ok();
            (epoch, c2, held.e3(sid).context_for_peer(sid, epoch, bctx, policy.alg).unwrap())
        };
        let mut scratch = [0; 128];
        let opens = |(_, c2, c3): &(Epoch, Option<Context<E2>>, Context<E3>)| match layers {
            Layers::C3 => c3.open_request(piv, ciphertext, &mut scratch).is_ok(),
            _ => c2.as_ref().unwrap().open_request(piv, ciphertext, &mut scratch).is_ok(),
        };
        // Under contexts that are gone nothing is answered.
        let Some((epoch, c2, c3)) = member.trials().into_iter().map(ends).find(opens) else {
            self.unknown += 1;
            return None;
        };
        let at = Source { sid, bctx, epoch };
        let (mut outer, mut inner) = ([0; 128], [0; 128]);
        let token = piv.value() as u8;
        let own = |me: &mut Self, plaintext: &[u8]| -> Option<Vec<u8>> {
            (wants == Wants::Answer).then(|| {
                let (piv, sealed) = me.seal(2, at, c2.as_ref().unwrap(), piv, ciphertext, plaintext);
                emit(Tiny::Answer { layers, token, piv, ciphertext: &sealed })
            })
        };
        let (piv3, ct3) = match layers {
            Layers::C3 => (piv, ciphertext.to_vec()),
            Layers::C2 => {
                let opened = c2.as_ref().unwrap().open_request(piv, ciphertext, &mut outer).unwrap();
                let reading = judge_tiny_request::<E2>(opened.plaintext()).unwrap().to_vec();
                let answers = self.note(2, at, piv.value(), ciphertext, &reading);
                return match self.mood {
                    _ if !answers => None,
                    Mood::Silent => None,
                    Mood::Withholding => own(self, &[coap::GATEWAY_TIMEOUT]),
                    Mood::Code(code) | Mood::Lying(code) => own(self, &[code]),
                    Mood::Kind => {
                        let plaintext = self.confirmation(sid);
                        own(self, &plaintext)
                    }
                };
            }
            Layers::C2OverC3 => {
                let opened = c2.as_ref().unwrap().open_request(piv, ciphertext, &mut outer).unwrap();
                match Inner::parse(opened.plaintext(), Within::Request).unwrap() {
                    Inner::Same { ct3 } => (piv, ct3.to_vec()),
                    Inner::Explicit { piv, ct3, .. } => (piv, ct3.to_vec()),
                    other => panic!("{other:?}"),
                }
            }
        };
        if self.mood == Mood::Withholding {
            return own(self, &[&[0x04, coap::GATEWAY_TIMEOUT][..], &fivefold_core::wire::control::STORED].concat());
        }
        if let Mood::Lying(code) = self.mood
            && layers == Layers::C2OverC3
        {
            return own(self, &[0x04, code]);
        }
        let opened = c3.open_request(piv3, &ct3, &mut inner).unwrap();
        let reading = judge_tiny_request::<E3>(opened.plaintext()).unwrap().to_vec();
        let answers = self.note(3, at, piv3.value(), &ct3, &reading);
        if !answers || self.mood == Mood::Silent || wants == Wants::Nothing {
            return None;
        }
        let plaintext = if let Mood::Code(code) = self.mood { vec![code] } else { self.confirmation(sid) };
        let (piv_a, sealed) = self.seal(3, at, &c3, piv3, &ct3, &plaintext);
        if layers == Layers::C3 {
            return Some(emit(Tiny::Answer { layers, token, piv: piv_a, ciphertext: &sealed }));
        }
        let inner = match piv_a {
            None => Inner::Same { ct3: &sealed },
            Some(piv) => Inner::Explicit { piv, bctx: None, ct3: &sealed },
        };
        let mut plaintext = [0; 128];
        let len = inner.emit(&mut plaintext).unwrap();
        own(self, &plaintext[..len])
    }

    /// 2.04, with what the device is to be told.
    fn confirmation(&mut self, sid: Sid) -> Vec<u8> {
        let (mut control, mut bitmap) = ([0; 80], [0; 8]);
        let member = self.cloud.members.get_mut(&sid).unwrap();
        let renew = self.ordered.get(&sid).filter(|upto| member.active() <= Some(**upto)).map(|_| 1);
        let mut payload = self.control.as_slice();
        let earlier = if payload.is_empty() { member.earlier() } else { None };
        let earlier = earlier.and_then(|(epoch, highest, bits)| {
            Some(Earlier { epoch, received: Received::of_last(highest, bits, &mut bitmap)? })
        });
        if renew.is_some() || earlier.is_some() {
            let len = Downlink { renew, earlier, ..Downlink::default() }.emit(&mut control).unwrap();
            payload = &control[..len];
        }
        let mut out = [0; 120];
        let len = Plaintext { code: coap::CHANGED, options: &[], payload }.emit(&mut out).unwrap();
        out[..len].to_vec()
    }

    /// Notes a message. Whether it may be answered: not under a draining context.
    fn note(&mut self, level: u8, at: Source, piv: u64, ciphertext: &[u8], reading: &[u8]) -> bool {
        let hash = fivefold_core::suite::sha256(&[ciphertext]);
        match self.hashes.insert((level, at.name(piv)), hash) {
            Some(before) if before == hash => self.ledger.duplicates += 1,
            Some(_) => self.ledger.reused += 1,
            None => {}
        }
        self.ledger.readings.insert(at.name(piv), reading.to_vec());
        self.cloud.members.get_mut(&at.sid).unwrap().verified(at.epoch, piv)
    }

    fn seal<L: OscoreLevel>(
        &mut self,
        level: u8,
        at: Source,
        context: &Context<L>,
        piv: PartialIv,
        ciphertext: &[u8],
        plaintext: &[u8],
    ) -> (Option<PartialIv>, Vec<u8>) {
        let (mut scratch, mut out) = ([0; 128], [0; 128]);
        let request = context.open_request(piv, ciphertext, &mut scratch).unwrap();
        let to = request.request();
        let first = self.answered.insert((level, at.name(piv.value())));
        let (number, own) = if first {
            (AnswerNumber::Unnumbered(request.unnumbered()), None)
        } else {
            let n = self.numbers.take().unwrap();
            let own = PartialIv::from_value(n.value());
            (AnswerNumber::Own(n), Some(own))
        };
        let len = context.seal_answer(&to, number, plaintext, &mut out).unwrap();
        (own, out[..len].to_vec())
    }
}

/// Where a message comes from.
#[derive(Clone, Copy)]
struct Source {
    sid: Sid,
    bctx: Option<BootContext>,
    epoch: Epoch,
}

impl Source {
    fn name(&self, piv: u64) -> Name {
        (self.sid.0, self.bctx.map(|b| b.0), self.epoch.0, piv)
    }
}

fn emit(tiny: Tiny<'_>) -> Vec<u8> {
    let mut out = [0; 160];
    let len = tiny.emit(&mut out).unwrap();
    out[..len].to_vec()
}
