//! The cloud's half of renewal, small: docs/protocol.md 11, its table row by row.

use super::*;

/// A curve that is fast and protects nothing: powers of 3 modulo 2^61 - 1. The protocol around it is the real one.
#[derive(Debug)]
pub struct Toy(u64);

const PRIME: u64 = (1 << 61) - 1;

fn power(base: u64, mut exponent: u64) -> u64 {
    let times = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(PRIME)) as u64;
    let (mut base, mut result) = (base % PRIME, 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, base);
        }
        (base, exponent) = (times(base, base), exponent >> 1);
    }
    result
}

fn wide(n: u64) -> [u8; 32] {
    let mut out = [0; 32];
    out[24..].copy_from_slice(&n.to_be_bytes());
    out
}

impl Agree for Toy {
    fn from_random(random: &[u8; 32]) -> Option<Self> {
        let n = u64::from_be_bytes(*random.first_chunk().unwrap()) % (PRIME - 1);
        (n > 1).then_some(Self(n))
    }

    fn public_x(&self) -> PublicX {
        PublicX(wide(power(3, self.0)))
    }

    fn agree(&self, peer: &PublicX) -> Result<SharedX, PointRefused> {
        let (zeros, peer) = peer.0.split_last_chunk().unwrap();
        let peer = u64::from_be_bytes(*peer);
        if zeros != [0; 24] || !(2..PRIME).contains(&peer) {
            return Err(PointRefused);
        }
        Ok(SharedX::new(wide(power(peer, self.0))))
    }
}

pub const GROUP: GatewayGroup = GatewayGroup(3);
pub const PSK: [u8; 32] = [9; 32];

fn cloud_key() -> Toy {
    Toy(0xC10D)
}

fn device_key(sid: Sid) -> Toy {
    Toy(0xDE00 + u64::from(sid.0))
}

/// What a device renews with.
pub fn keys(sid: Sid) -> Keys<Toy> {
    let own = device_key(sid);
    Keys {
        credential: Credential::device(sid, own.public_x()),
        own,
        peer: Peer::Cloud(Credential::peer(PeerKid::new(1).unwrap(), cloud_key().public_x())),
        mix: Some(PqMix::new(&PSK, did(sid))),
        group: GROUP,
    }
}

/// What a context is made of.
pub enum Made {
    Installed,
    Agreed(StoredContext),
}

/// A context at the cloud.
pub struct Held {
    pub epoch: Epoch,
    pub standing: Standing,
    made: Made,
    /// Numbers that came.
    pub came: BTreeSet<u64>,
    /// Something came while it drained, and item 10 did not say so yet.
    unsaid: bool,
}

impl Held {
    pub fn installed(epoch: Epoch) -> Self {
        Self { epoch, standing: Standing::Active, made: Made::Installed, came: BTreeSet::new(), unsaid: false }
    }

    pub fn e2(&self, sid: Sid) -> E2Secret {
        match &self.made {
            Made::Installed => super::e2(sid, self.epoch),
            Made::Agreed(context) => context.e2_root().unwrap().secret(GROUP),
        }
    }

    pub fn blind(&self, sid: Sid) -> BlindKey {
        match &self.made {
            Made::Installed => super::blind(sid, self.epoch),
            Made::Agreed(context) => context.blind(),
        }
    }

    pub fn e3(&self, sid: Sid) -> E3Secret {
        match &self.made {
            Made::Installed => super::e3(sid, self.epoch),
            Made::Agreed(context) => context.e3().unwrap(),
        }
    }
}

struct Session {
    m1: Vec<u8>,
    m2: Vec<u8>,
    order: usize,
    responder: Option<Responder<E3, WaitM3<Toy>>>,
}

#[derive(Default)]
pub struct Member {
    pub contexts: Vec<Held>,
    sessions: Vec<Session>,
    /// message_3 that made each context, the message_4 to it, and the place of its message_1.
    made: Vec<(Vec<u8>, Vec<u8>, Epoch, usize)>,
    /// message_1 so far.
    pub offers: usize,
}

pub struct Cloud {
    pub members: HashMap<Sid, Member>,
    random: u64,
    /// E5-06: nobody in these tests is a clone.
    pub clones: usize,
    /// E5-09.
    pub late: usize,
    /// The network key that message_4 hands over.
    pub handed: Option<HandedKey>,
}

impl Cloud {
    pub fn new(seed: u64) -> Self {
        Self { members: HashMap::new(), random: seed, clones: 0, late: 0, handed: None }
    }

    /// The payload of a RuleID 10, and that of the RuleID 11 to it.
    pub fn edhoc(&mut self, sid: Sid, alg: Alg, payload: &[u8]) -> Option<Vec<u8>> {
        let own = cloud_key();
        let credential = Credential::peer(PeerKid::new(1).unwrap(), own.public_x());
        let own = Identity { key: &own, credential: &credential };
        let member = self.members.get_mut(&sid)?;
        match ToServer::parse(payload).unwrap() {
            ToServer::Offer(offer) => {
                if let Some(same) = member.sessions.iter().find(|s| s.m1 == payload) {
                    return Some(same.m2.clone());
                }
                self.random += 1;
                let seed = fivefold_core::suite::sha256(&[&self.random.to_be_bytes()]);
                let ephemeral = Toy::from_random(&seed).unwrap();
                let (responder, m2) = Responder::answer(&offer, ephemeral, sid, &own).unwrap();
                member.offers += 1;
                let m2 = m2.as_bytes().to_vec();
                let (order, responder) = (member.offers, Some(responder));
                member.sessions.push(Session { m1: payload.to_vec(), m2: m2.clone(), order, responder });
                Some(m2)
            }
            ToServer::Proof { message_3, .. } => {
                if let Some((_, m4, ..)) = member.made.iter().find(|(m3, ..)| m3 == payload) {
                    return Some(m4.clone());
                }
                let read = member.sessions.iter_mut().rev().find_map(|session| {
                    match session.responder.take()?.handle_message_3(message_3) {
                        Ok(read) => Some((session.order, read)),
                        Err(refused) => {
                            session.responder = refused.session;
                            None
                        }
                    }
                });
                let (order, read) = read?;
                let device = Credential::device(sid, device_key(sid).public_x());
                assert_eq!(read.id_cred_i(), device.kid());
                let (agreed, m4) = read.verify_and_hand(&device, self.handed.clone()).unwrap();
                let epoch = agreed.epoch().unwrap();
                if member.contexts.iter().any(|c| c.epoch >= epoch) {
                    let newer = member.made.iter().any(|(.., other, at)| *other >= epoch && *at > order);
                    if newer {
                        self.late += 1
                    } else {
                        self.clones += 1
                    }
                    return None;
                }
                let secrets = agreed.secrets(alg, Some(&PqMix::new(&PSK, did(sid))));
                let made = Made::Agreed(StoredContext::new(&secrets));
                let pending = |c: &Held| c.standing == Standing::Pending;
                if member.contexts.iter().filter(|c| pending(c)).count() == 8 {
                    let lowest = member.contexts.iter().position(pending).unwrap();
                    member.contexts.remove(lowest);
                }
                let (standing, came) = (Standing::Pending, BTreeSet::new());
                member.contexts.push(Held { epoch, standing, made, came, unsaid: false });
                let m4 = m4.as_bytes().to_vec();
                member.made.push((payload.to_vec(), m4.clone(), epoch, order));
                Some(m4)
            }
            ToServer::Error { .. } => None,
        }
    }
}

impl Member {
    /// Contexts in the order of trials: active, newest pending first, draining.
    pub fn trials(&self) -> Vec<Epoch> {
        let rank =
            |c: &&Held| (c.standing == Standing::Draining, c.standing == Standing::Pending, u16::MAX - c.epoch.0);
        let mut all: Vec<&Held> = self.contexts.iter().collect();
        all.sort_by_key(rank);
        all.iter().map(|c| c.epoch).collect()
    }

    pub fn held(&self, epoch: Epoch) -> &Held {
        self.contexts.iter().find(|c| c.epoch == epoch).unwrap()
    }

    /// A message verified under this epoch. Whether it may be answered.
    pub fn verified(&mut self, epoch: Epoch, number: u64) -> bool {
        let held = self.contexts.iter_mut().find(|c| c.epoch == epoch).unwrap();
        held.came.insert(number);
        held.unsaid |= held.standing == Standing::Draining;
        if held.standing == Standing::Pending {
            held.standing = Standing::Active;
            for other in self.contexts.iter_mut().filter(|c| c.epoch < epoch && c.standing != Standing::Draining) {
                other.standing = Standing::Draining;
                other.unsaid = !other.came.is_empty();
            }
        }
        self.held(epoch).standing == Standing::Active
    }

    pub fn active(&self) -> Option<Epoch> {
        self.contexts.iter().find(|c| c.standing == Standing::Active).map(|c| c.epoch)
    }

    /// Item 10: what came under a draining epoch since it was said last, one epoch at a time.
    pub fn earlier(&mut self) -> Option<(Epoch, u64, u64)> {
        let held = self.contexts.iter_mut().find(|c| c.unsaid)?;
        held.unsaid = false;
        let highest = *held.came.last()?;
        let bits = held.came.iter().filter(|n| highest - **n < 64).fold(0u64, |b, n| b | 1 << (highest - n));
        Some((held.epoch, highest, bits))
    }
}
