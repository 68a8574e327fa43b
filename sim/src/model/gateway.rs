//! The gateway of a model: the real engine over a store that keeps what it is given, each write by itself.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use anyhow::anyhow;
use fivefold_core::e1_link::{Identity, LinkPolicy, Station};
use fivefold_core::e4_channel::{GatewayName, ProvenGateway};
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::key::Key;
use fivefold_core::proof::receipt::{GatewayBoot, Receipt, Tally};
use fivefold_core::suite::{CiphertextHash, sha256};
use fivefold_core::wire::envelope::{Envelope, Reply};
use fivefold_gateway::gateway::{
    AddedContext, AppliedState, Capture, Cloud, ContextName, Gateway, Limits, LinkKeyName, Lookup, Output, Record,
    Restored, Setup, Stored,
};
use fivefold_keep::registry;
use fivefold_keep::sign::SigningKey;

use super::{Flaw, History, RESTLESS};
use crate::family::{KEY_INDEX, NET, PAN, did, gateway_id, gateway_sid, wall};

/// Numbers of a window.
const WINDOW: u32 = 64;

/// What is durable at a gateway.
#[derive(Default)]
struct Shelf {
    envelopes: BTreeMap<u64, (GatewayBoot, Vec<u8>)>,
    last: u64,
    numbers: BTreeMap<(ContextName, u32), (u32, CiphertextHash)>,
    contexts: BTreeMap<ContextName, (u32, u32)>,
    leases: BTreeMap<LinkKeyName, u32>,
    added: BTreeMap<(Sid, Epoch), AddedContext>,
    state: Option<AppliedState>,
}

impl Shelf {
    fn put(&mut self, boot: GatewayBoot, record: Record) -> u64 {
        match record {
            Record::Accepted { context, number, hash } => {
                self.numbers.insert((context, number % WINDOW), (number, hash));
            }
            Record::Added { sid, epoch, context } => {
                self.added.insert((sid, epoch), context);
            }
            Record::AnswerLease { context, bound } => {
                let known = self.contexts.entry(context).or_default();
                known.0 = known.0.max(bound);
            }
            Record::Delivered { boot, upto } => {
                let before = self.used();
                self.envelopes.retain(|seq, (by, _)| *seq > upto || *by != boot);
                return before - self.used();
            }
            Record::Envelope { seq, bytes } => {
                self.last = seq;
                self.envelopes.insert(seq, (boot, bytes.into()));
            }
            Record::Failures { context, count } => {
                let known = self.contexts.entry(context).or_default();
                known.1 = known.1.max(count);
            }
            Record::Forgotten { context } => {
                self.numbers.retain(|(of, _), _| *of != context);
                self.contexts.remove(&context);
            }
            Record::LinkLease { key, bound } => {
                let known = self.leases.entry(key).or_default();
                *known = bound.max(*known);
            }
            Record::State(state) => {
                self.added.retain(|_, a| a.version > state.version);
                self.state = Some(state);
            }
            // Neither mode R nor a site without a cloud is modelled.
            Record::BootOpened { .. }
            | Record::Agreed(_)
            | Record::Drains { .. }
            | Record::HardenedWindow { .. }
            | Record::Unagreed { .. } => {}
        }
        0
    }

    fn used(&self) -> u64 {
        self.envelopes.values().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn answer(&self, lookup: Lookup) -> Stored {
        match lookup {
            Lookup::Boot { ticket, .. } => Stored::Boot { ticket, opened: false, bound: 0 },
            Lookup::Context(context) => {
                let numbers = self.numbers.iter().filter(|((of, _), _)| *of == context).map(|(_, (n, _))| *n).collect();
                let (bound, failures) = self.contexts.get(&context).copied().unwrap_or_default();
                Stored::Context { context, numbers, bound, failures }
            }
            Lookup::Family(family) => Stored::Family { family, boots: Vec::new() },
            Lookup::Hash { ticket, context, number } => {
                let kept = self.numbers.get(&(context, number % WINDOW)).filter(|(n, _)| *n == number);
                Stored::Hash { ticket, hash: kept.map(|(_, hash)| *hash) }
            }
        }
    }

    fn restore(&self) -> Restored {
        let mut added: Vec<_> = self.added.values().cloned().collect();
        added.sort_by_key(|a| a.version);
        Restored {
            state: self.state.clone(),
            added,
            agreed: Vec::new(),
            hardened: Vec::new(),
            link_leases: self.leases.iter().map(|(k, b)| (*k, *b)).collect(),
            link_floor: 0,
            next_seq: self.last + 1,
            spool_used: self.used(),
        }
    }

    /// Of everything but secrets, which their versions stand for.
    fn history(&self) -> History {
        let secrets = self.added.iter().map(|(k, a)| (k, a.version));
        let state = self.state.as_ref().map(|s| (s.version, s.applied));
        let envelopes: Vec<_> = self.envelopes.keys().collect();
        let all = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            self.last,
            envelopes,
            self.numbers,
            self.contexts,
            self.leases,
            secrets.collect::<Vec<_>>(),
            state
        );
        let mut history = History::of(&[all.as_bytes()]);
        self.envelopes.values().for_each(|(_, bytes)| history.add(&[bytes]));
        history
    }
}

/// What came out of a gateway.
pub(super) enum Said {
    Datagram(Vec<u8>),
    Exchange(u64, Vec<u8>),
    Frame(Vec<u8>),
}

pub(super) struct GatewayPart {
    place: usize,
    key: [u8; 16],
    pub(super) proven: ProvenGateway,
    flaw: Option<Flaw>,
    /// The epoch that was in use when it became the primary one.
    pub(super) began_at: Epoch,
    shelf: Shelf,
    engine: Option<Box<Gateway>>,
    persisted: u64,
    runs: u8,
    boot: GatewayBoot,
    pub(super) history: History,
    /// The process dies after so many steps of the move under way.
    pub(super) fuse: Option<u8>,
    /// Writes and messages of the move under way.
    pub(super) steps: u8,
    /// Envelopes that were stored: index of the network key that each came under.
    pub(super) taken: Vec<Option<u8>>,
}

impl GatewayPart {
    pub(super) fn new(place: usize, key: [u8; 16], flaw: Option<Flaw>) -> Self {
        Self {
            place,
            key,
            proven: ProvenGateway::assertion(GatewayName { net: NET, gateway: gateway_id(place) }),
            flaw,
            began_at: Epoch(1),
            shelf: Shelf::default(),
            engine: None,
            persisted: 0,
            runs: 0,
            boot: GatewayBoot([0; 8]),
            history: History::default(),
            fuse: None,
            steps: 0,
            taken: Vec::new(),
        }
    }

    pub(super) fn registered(place: usize, signing: &SigningKey, primary: bool) -> registry::Gateway {
        registry::Gateway {
            gateway: gateway_id(place),
            net: NET,
            name: format!("g{place}"),
            sid: gateway_sid(place),
            did: did(gateway_sid(place)),
            primary,
            receipt_keys: vec![signing.spki().to_vec()],
            revoked_at: None,
        }
    }

    /// Starts a process over what the store has.
    pub(super) fn start(&mut self, now: u64) -> anyhow::Result<Vec<Said>> {
        self.runs += 1;
        let seed = sha256(&[b"gateway", &[self.place as u8, self.runs]]);
        self.boot = GatewayBoot([0, 0, 0, 0, 0, 0, self.place as u8, self.runs]);
        let sid = gateway_sid(self.place);
        let setup = Setup {
            net: NET,
            gateway: gateway_id(self.place),
            boot: self.boot,
            identity: Identity { did: did(sid), sid, pan: PAN, station: Station::Gateway },
            policy: LinkPolicy::default(),
            seed,
            keys: vec![(KEY_INDEX, Key::new(self.key))],
            coap_devices: HashMap::new(),
            local: None,
            limits: Limits::default(),
            capture: Capture::Off,
        };
        self.history = self.shelf.history();
        self.history.add(&[&[self.runs], &now.to_be_bytes()]);
        let mut engine = Gateway::new(wall(now), setup, self.shelf.restore());
        engine.handle_cloud(wall(now), Cloud::Reachable);
        (self.engine, self.persisted, self.fuse) = (Some(Box::new(engine)), 0, None);
        self.carry_out(now)
    }

    pub(super) const fn is_on(&self) -> bool {
        self.engine.is_some()
    }

    pub(super) fn kill(&mut self) {
        self.engine = None;
    }

    pub(super) fn wake(&self) -> Option<u64> {
        Some(self.engine.as_ref()?.poll_timeout()?.0.saturating_sub(wall(0).0))
    }

    /// Network keys under which it takes frames.
    pub(super) fn link_keys(&self) -> Vec<u8> {
        self.engine.iter().flat_map(|e| e.link().keys().indexes()).collect()
    }

    /// Whether it has its share of a context on disk. What it began with is none of its own.
    pub(super) fn holds(&self, sid: Sid, epoch: Epoch) -> bool {
        epoch <= self.began_at || self.shelf.added.contains_key(&(sid, epoch))
    }

    pub(super) fn datagram(&mut self, now: u64, from: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<Said>> {
        self.tell(now, b"d", bytes, |e| e.handle_coap(wall(now), from, bytes))
    }

    pub(super) fn frame(&mut self, now: u64, bytes: &[u8]) -> anyhow::Result<Vec<Said>> {
        self.tell(now, b"f", bytes, |e| e.handle_frame(wall(now), &mut bytes.to_vec(), None))
    }

    pub(super) fn timeout(&mut self, now: u64) -> anyhow::Result<Vec<Said>> {
        self.tell(now, b"t", &[], |e| e.handle_timeout(wall(now)))
    }

    pub(super) fn exchanged(&mut self, now: u64, ticket: u64, reply: Option<&[u8]>) -> anyhow::Result<Vec<Said>> {
        self.tell(now, b"x", reply.unwrap_or(b"-"), |e| e.handle_exchanged(ticket, reply))
    }

    pub(super) fn state(&mut self, now: u64, part: &[u8]) -> anyhow::Result<Vec<Said>> {
        self.tell(now, b"p", part, |e| {
            let _ = e.handle_state(wall(now), part);
        })
    }

    pub(super) fn replied(&mut self, now: u64, boot: GatewayBoot, reply: &[u8]) -> anyhow::Result<Vec<Said>> {
        let parsed = Reply::parse(reply).map_err(|m| anyhow!("reply: {}", m.reason))?;
        self.tell(now, b"r", reply, |e| e.handle_uplink_reply(wall(now), boot, &parsed))
    }

    fn tell(
        &mut self,
        now: u64,
        what: &[u8],
        with: &[u8],
        tell: impl FnOnce(&mut Gateway),
    ) -> anyhow::Result<Vec<Said>> {
        self.history.add(&[what, &now.to_be_bytes(), with]);
        if let Some(engine) = &mut self.engine {
            tell(engine);
        }
        self.carry_out(now)
    }

    fn carry_out(&mut self, now: u64) -> anyhow::Result<Vec<Said>> {
        let mut said = Vec::new();
        for _ in 0..RESTLESS {
            let Some(engine) = &mut self.engine else { return Ok(said) };
            let Some(output) = engine.poll() else {
                engine.handle_durable(wall(now), self.persisted);
                if engine.has_output() {
                    continue;
                }
                return Ok(said);
            };
            let is_step = matches!(output, Output::Persist(_) | Output::Send { .. } | Output::Transmit(_));
            if is_step && self.fuse.is_some_and(|after| self.steps >= after) {
                self.kill();
                return Ok(said);
            }
            self.steps = self.steps.saturating_add(u8::from(is_step));
            match output {
                Output::Exchange { ticket, envelope } => said.push(Said::Exchange(ticket, envelope.into())),
                Output::Lookup(lookup) => engine.handle_stored(wall(now), self.shelf.answer(lookup)),
                Output::Persist(record) => {
                    self.persisted += 1;
                    if let Record::Envelope { bytes, .. } = &record
                        && let Ok(envelope) = Envelope::parse(bytes)
                    {
                        self.taken.push(envelope.key_index);
                    }
                    let lost = matches!(
                        (self.flaw, &record),
                        (Some(Flaw::ShareNotKept), Record::Added { .. })
                            | (Some(Flaw::GatewayNumbersNotLeased), Record::AnswerLease { .. })
                            | (Some(Flaw::AcceptedNotKept), Record::Accepted { .. })
                    );
                    if !lost {
                        let freed = self.shelf.put(self.boot, record);
                        engine.handle_freed(freed);
                    }
                }
                Output::Send { message, .. } => said.push(Said::Datagram(message.into())),
                Output::Transmit(frame) => said.push(Said::Frame(frame.into())),
                _ => {}
            }
        }
        anyhow::bail!("the gateway wants more and more at one moment, and never comes to rest")
    }

    /// A batch of the oldest envelopes in the store under its receipt, and the run they are of.
    pub(super) fn batch(&self, signing: &SigningKey) -> anyhow::Result<Option<(GatewayBoot, Vec<u8>)>> {
        let Some((_, (boot, _))) = self.shelf.envelopes.first_key_value() else { return Ok(None) };
        let mut tally = Tally::new(gateway_id(self.place), *boot);
        let mut body = Vec::new();
        for (_, bytes) in self.shelf.envelopes.values().take_while(|(by, _)| by == boot) {
            let envelope = Envelope::parse(bytes).map_err(|m| anyhow!("envelope: {}", m.reason))?;
            tally.add(bytes, &envelope);
            body.extend_from_slice(bytes);
        }
        let mut receipt = [0; Receipt::LONGEST];
        let len = tally.receipt().seal(signing, &mut receipt).map_err(|e| anyhow!("receipt: {e}"))?;
        body.extend_from_slice(receipt.get(..len).unwrap_or_default());
        Ok(Some((*boot, body)))
    }
}
