//! A small world: one gateway engine over a real store, and devices made of core's own contexts.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    unreachable_pub
)]

use std::net::SocketAddr;
use std::path::PathBuf;

use fivefold_core::counter::{Counter, Lease};
use fivefold_core::e1_link::{FixedNeighbours, Identity, Link, LinkKeys, LinkPolicy, Reach, Received, Station};
use fivefold_core::e2_gateway::{E2, E2Local, E2Root, Nesting, seal_both};
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{BootContext, Did, Epoch, GatewayGroup, GatewayId, Net, Sid};
use fivefold_core::key::Key;
use fivefold_core::oscore::{AnswerNumber, Context, Id, PartialIv, RequestId, judge_answer};
use fivefold_core::profile::{Mode, Overrides, Policy, Profile};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::time::Millis;
use fivefold_core::why::{FrameId, Refusal};
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::coap::{CHANGED, Protected, Type};
use fivefold_core::wire::envelope::{Downlink, DownlinkKind, Envelope, Originator, Reply, emit_downlinks};
use fivefold_core::wire::ieee802154::{Ack, Pan};
use fivefold_core::wire::state::{
    Added, Context as Pushed, Device as Listed, NetworkKey, Part, Phase, Share, Standing, State,
};
use fivefold_core::wire::tiny::{Inner, KidLength, Layers, Tiny, Wants, Within};
use fivefold_gateway::gateway::{Capture, ClassicDone, Cloud, Gateway, Limits, Output, Setup};
use fivefold_gateway::spool::{Spool, Wrap, WrapError};
use fivefold_keep::why::{Kept, Question};
use zeroize::Zeroizing;

pub const NET: Net = Net(0x0000_0007);
pub const GROUP: GatewayGroup = GatewayGroup(1);
pub const PAN: Pan = Pan(0x4321);
pub const GATEWAY_SID: Sid = Sid(0x0001);
pub const KEY: [u8; 16] = [0xC3; 16];
pub const START: Millis = Millis(1_790_000_000_000);

/// Seals by a XOR: tests need no passphrase.
pub struct Veil;

impl Wrap for Veil {
    fn wrap(&self, _: &str, plain: &[u8]) -> Result<Vec<u8>, WrapError> {
        Ok(plain.iter().map(|b| b ^ 0x5A).collect())
    }
    fn unwrap(&self, _: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        Ok(Zeroizing::new(sealed.iter().map(|b| b ^ 0x5A).collect()))
    }
}

pub fn did(n: u8) -> Did {
    Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, n])
}

pub fn counter(n: u32) -> Counter {
    let mut lease = Lease::resume(n, u32::MAX);
    lease.extend(n + 1);
    lease.take().unwrap()
}

/// A device with all its secrets.
pub struct Device {
    pub did: Did,
    pub sid: Sid,
    pub policy: Policy,
    pub overrides: Overrides,
    pub link: Link<FixedNeighbours<4>>,
    pub root: E2Root,
    pub ms3: [u8; 32],
    pub bctx: Option<BootContext>,
    pub next: u32,
    pub renewed: Option<Epoch>,
    /// What it agreed with the gateway alone, in place of `root`.
    pub local: Option<E2Local>,
}

pub fn link_keys() -> LinkKeys {
    let mut keys = LinkKeys::new();
    keys.install(1, &Key::new(KEY), 1).unwrap();
    while let Some(due) = keys.lease_due() {
        keys.extend_lease(due);
    }
    keys
}

impl Device {
    pub fn new(n: u8, profile: Profile) -> Self {
        let sid = Sid(0x0a00 + u16::from(n));
        let identity = Identity { did: did(n), sid, pan: PAN, station: Station::Node };
        let mut link = Link::new(identity, LinkPolicy::default(), link_keys(), FixedNeighbours::new(), [n; 32]);
        link.danger_assume_synced(did(200), GATEWAY_SID, 1, 0).unwrap();
        let overrides = Overrides { danger_link_only: profile == Profile::DangerLinkOnly, danger_no_link: false };
        Self {
            did: did(n),
            sid,
            policy: Policy::new(profile),
            overrides,
            link,
            root: E2Root::new([n; 32]),
            ms3: [n ^ 0x80; 32],
            bctx: None,
            next: 0,
            renewed: None,
            local: None,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.renewed.unwrap_or(Epoch(u16::from(self.policy.mode == Mode::Persistent)))
    }

    /// It agreed a context of this epoch with the cloud.
    pub fn renew(&mut self, epoch: u16) {
        self.renewed = Some(Epoch(epoch));
        self.root = E2Root::new([0x40 ^ epoch as u8 ^ self.did.0[7]; 32]);
        self.ms3 = [0xC0 ^ epoch as u8 ^ self.did.0[7]; 32];
        self.next = 0;
    }

    /// Its newest C2 context as the cloud hands it over one by one.
    pub fn added(&self, version: u64) -> Vec<u8> {
        let secret = self.root.secret(GROUP);
        let share = Share::Primary { master_secret: secret.danger_master_secret(), master_salt: secret.master_salt() };
        emit_added(version, self.pushed(Standing::Pending, share))
    }

    pub fn pushed<'s>(&self, standing: Standing, share: Share<'s>) -> Pushed<'s> {
        Pushed { sid: self.sid, epoch: self.epoch(), alg: self.policy.alg, standing, bctx: None, share }
    }

    pub fn c2(&self) -> Context<E2> {
        if let Some(local) = &self.local {
            return local.context_for_device(self.sid, self.epoch(), None, self.policy.alg).unwrap();
        }
        self.root.secret(GROUP).context_for_device(self.sid, self.epoch(), self.bctx, self.policy.alg).unwrap()
    }

    pub fn c3(&self) -> Context<E3> {
        E3Secret::new(&self.ms3, &[3; 8])
            .unwrap()
            .context_for_device(self.sid, self.epoch(), self.bctx, self.policy.alg)
            .unwrap()
    }

    pub fn c3_at_cloud(&self) -> Context<E3> {
        E3Secret::new(&self.ms3, &[3; 8])
            .unwrap()
            .context_for_peer(self.sid, self.epoch(), self.bctx, self.policy.alg)
            .unwrap()
    }

    pub fn layers(&self) -> Layers {
        match self.policy.profile {
            Profile::ToGateway => Layers::C2,
            Profile::ToBoth => Layers::C2OverC3,
            _ => Layers::C3,
        }
    }

    /// A tiny request under the next number, as its record says.
    pub fn tiny(&mut self, payload: &[u8], wants: Wants) -> (Vec<u8>, RequestId) {
        self.tiny_as(self.layers(), payload, wants)
    }

    pub fn tiny_as(&mut self, layers: Layers, payload: &[u8], wants: Wants) -> (Vec<u8>, RequestId) {
        let n = self.next;
        self.next += 1;
        self.tiny_at(n, layers, payload, wants)
    }

    pub fn tiny_at(&self, n: u32, layers: Layers, payload: &[u8], wants: Wants) -> (Vec<u8>, RequestId) {
        let plaintext = [&[0x02, 0xFF], payload].concat();
        let (mut inner, mut out) = ([0; 200], [0; 200]);
        let (request, len) = match layers {
            Layers::C3 => self.c3().seal_request(counter(n), &plaintext, &mut out).unwrap(),
            Layers::C2 => self.c2().seal_request(counter(n), &plaintext, &mut out).unwrap(),
            Layers::C2OverC3 => {
                let both =
                    seal_both(&self.c2(), &self.c3(), counter(n), &plaintext, Nesting::Tiny, &mut inner, &mut out)
                        .unwrap();
                (both.request, both.len)
            }
        };
        (self.frame_of(layers, wants, request.piv, &out[..len]), request)
    }

    pub fn frame_of(&self, layers: Layers, wants: Wants, piv: PartialIv, ciphertext: &[u8]) -> Vec<u8> {
        let kid = (self.policy.kid_length == KidLength::Two).then_some(self.sid);
        let tiny = Tiny::Request { layers, wants, piv, bctx: self.bctx, kid, ciphertext };
        let mut frame = vec![0; tiny.emitted_len()];
        tiny.emit(&mut frame).unwrap();
        frame
    }

    /// Puts a tiny frame on the air for any gateway.
    pub fn on_air(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut frame = [0; 127];
        let len = self.link.seal(Sid::ANY_GATEWAY, Ack::None, None, payload, &mut frame).unwrap();
        while let Some(due) = self.link.keys().lease_due() {
            self.link.keys_mut().extend_lease(due);
        }
        frame[..len].to_vec()
    }

    /// Opens a frame for this device: the tiny frame in it.
    pub fn hear(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut frame = frame.to_vec();
        match self.link.receive(START, &mut frame) {
            Ok(Received::Deliver(d)) => Some(d.payload.to_vec()),
            _ => None,
        }
    }

    /// Opens the gateway's answer under C2: code and payload, or the C3 answer inside.
    pub fn open_c2(&self, to: &RequestId, tiny: &[u8]) -> C2Said {
        let Tiny::Answer { layers, token, piv, ciphertext } = Tiny::parse(tiny, KidLength::None).unwrap() else {
            panic!("no answer")
        };
        assert_eq!(token, to.piv.value() as u8);
        let mut out = [0; 200];
        let context = self.c2();
        let opened = context.open_answer(to, piv, ciphertext, &mut out).expect("opens under C2");
        match layers {
            Layers::C3 => panic!("not under C2"),
            Layers::C2 => {
                let a = judge_answer::<E2>(opened.plaintext()).unwrap();
                C2Said { code: a.code, payload: a.payload.to_vec(), c3: None, numbered: piv.is_some() }
            }
            Layers::C2OverC3 => match Inner::parse(opened.plaintext(), Within::Answer).unwrap() {
                Inner::Own { code, payload } => {
                    C2Said { code, payload: payload.to_vec(), c3: None, numbered: piv.is_some() }
                }
                inner => {
                    let answer = inner.answer(token).unwrap();
                    let (code, payload) = self.open_c3(to, answer.option.piv, answer.ciphertext);
                    C2Said { code, payload, c3: Some(answer.ciphertext.to_vec()), numbered: piv.is_some() }
                }
            },
        }
    }

    pub fn open_c3(&self, to: &RequestId, piv: Option<PartialIv>, ciphertext: &[u8]) -> (u8, Vec<u8>) {
        let mut out = [0; 200];
        let context = self.c3();
        let opened = context.open_answer(to, piv, ciphertext, &mut out).expect("opens under C3");
        let a = judge_answer::<E3>(opened.plaintext()).unwrap();
        (a.code, a.payload.to_vec())
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct C2Said {
    pub code: u8,
    pub payload: Vec<u8>,
    pub c3: Option<Vec<u8>>,
    pub numbered: bool,
}

/// A pushed state for these devices.
pub fn state(version: u64, devices: &[&Device], standing: Standing) -> Vec<u8> {
    state_with(version, devices, standing, &[NetworkKey { index: 1, key: &KEY, phase: Phase::Switch }])
}

pub fn state_with(version: u64, devices: &[&Device], standing: Standing, keys: &[NetworkKey<'_>]) -> Vec<u8> {
    let mut devices: Vec<&&Device> = devices.iter().collect();
    devices.sort_by_key(|d| d.sid);
    let listed: Vec<Listed> =
        devices.iter().map(|d| Listed { sid: d.sid, did: d.did, policy: d.policy, overrides: d.overrides }).collect();
    let secrets: Vec<_> = devices.iter().map(|d| d.root.secret(GROUP)).collect();
    let contexts: Vec<Pushed<'_>> = devices
        .iter()
        .zip(&secrets)
        .filter(|(d, _)| d.policy.profile.has_e2())
        .map(|(d, s)| Pushed {
            sid: d.sid,
            epoch: d.epoch(),
            alg: d.policy.alg,
            standing,
            bctx: None,
            share: Share::Primary { master_secret: s.danger_master_secret(), master_salt: s.master_salt() },
        })
        .collect();
    emit_state(version, &listed, &contexts, keys, &[])
}

pub fn emit_added(version: u64, context: Pushed<'_>) -> Vec<u8> {
    let mut out = vec![0; Added::LONGEST];
    let len = Added { version, net: NET, group: GROUP, context }.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

pub fn emit_state(
    version: u64,
    listed: &[Listed],
    contexts: &[Pushed<'_>],
    keys: &[NetworkKey<'_>],
    revoked: &[Did],
) -> Vec<u8> {
    emitted(&State {
        devices: List::of(listed),
        contexts: List::of(contexts),
        keys: List::of(keys),
        revoked: List::of(revoked),
        ..bare_state(version)
    })
}

/// A whole state with nothing in it.
pub fn bare_state<'s>(version: u64) -> State<'s> {
    State {
        version,
        net: NET,
        group: GROUP,
        part: Part::WHOLE,
        devices: List::default(),
        contexts: List::default(),
        keys: List::default(),
        revoked: List::default(),
        revoked_serials: List::default(),
        local: List::default(),
        classic: List::default(),
    }
}

pub fn emitted(state: &State<'_>) -> Vec<u8> {
    let mut out = vec![0; 512 * 1024];
    let len = state.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

/// What came out of the gateway.
#[derive(Default, Debug)]
pub struct Heard {
    pub air: Vec<Vec<u8>>,
    /// E1S messages, and whom the module is to send them to.
    pub messages: Vec<(Option<Did>, Vec<u8>)>,
    pub udp: Vec<(SocketAddr, Vec<u8>)>,
    pub dropped: Vec<(Code, Option<Sid>)>,
    pub expanded: Vec<Vec<u8>>,
    pub exchanges: Vec<(u64, Vec<u8>)>,
    /// For the network server: DevEUI, FPort, FRMPayload.
    pub lorawan: Vec<(Did, u8, Vec<u8>)>,
    pub classic: Vec<(u64, ClassicDone)>,
}

/// A gateway over a store in a folder of its own.
pub struct World {
    pub gateway: Gateway,
    pub spool: Spool,
    pub now: Millis,
    pub persisted: u64,
    pub boot: GatewayBoot,
    pub boots: u8,
    pub setup: fn(GatewayBoot) -> Setup,
    pub dir: tempfile::TempDir,
    /// Outputs to carry out before the process dies.
    pub fuse: Option<usize>,
    /// Why things were refused, before it is kept.
    pub refusals: Vec<Refusal>,
}

pub fn setup(boot: GatewayBoot) -> Setup {
    Setup {
        net: NET,
        gateway: GatewayId(1),
        boot,
        identity: Identity { did: did(200), sid: GATEWAY_SID, pan: PAN, station: Station::Gateway },
        policy: LinkPolicy::default(),
        seed: [9; 32],
        keys: vec![(1, Key::new(KEY))],
        coap_devices: std::collections::HashMap::new(),
        limits: Limits::default(),
        capture: Capture::Off,
        local: None,
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(setup)
    }

    pub fn with(setup: fn(GatewayBoot) -> Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let boot = GatewayBoot([1; 8]);
        let (spool, restored) = Spool::open(&dir.path().join("spool.db"), boot, Box::new(Veil)).unwrap();
        let gateway = Gateway::new(START, setup(boot), restored);
        let mut world = Self {
            gateway,
            spool,
            now: START,
            persisted: 0,
            boot,
            boots: 1,
            setup,
            dir,
            fuse: None,
            refusals: Vec::new(),
        };
        world.run();
        // Its HELLO takes frame counter 0, which the devices believe they have heard.
        world.wait(0);
        world
    }

    /// With these devices let in and heard.
    pub fn of(devices: &[&Device]) -> Self {
        let mut world = Self::new();
        world.push(&state(1, devices, Standing::Active)).unwrap();
        world.greet(devices);
        world.gateway.handle_cloud(START, Cloud::Reachable);
        world
    }

    pub fn greet(&mut self, devices: &[&Device]) {
        for d in devices {
            self.gateway.danger_assume_synced(d.did, d.sid, 1, 0).unwrap();
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("spool.db")
    }

    pub fn push(&mut self, part: &[u8]) -> Result<(), Rejected> {
        let pushed = self.gateway.handle_state(self.now, part);
        self.run();
        pushed
    }

    /// Kills it and starts it again from the store.
    pub fn restart(self) -> Self {
        let Self { gateway, spool, now, boots, setup, dir, .. } = self;
        drop((gateway, spool));
        let boots = boots + 1;
        let boot = GatewayBoot([boots; 8]);
        let (spool, restored) = Spool::open(&dir.path().join("spool.db"), boot, Box::new(Veil)).unwrap();
        let gateway = Gateway::new(now, setup(boot), restored);
        let mut world =
            Self { gateway, spool, now, persisted: 0, boot, boots, setup, dir, fuse: None, refusals: Vec::new() };
        world.run();
        world
    }

    /// Carries out what the engine wants, as the daemon does. With a fuse, the process dies when it has burnt down.
    pub fn run(&mut self) -> Heard {
        let mut heard = Heard::default();
        while !self.dead() {
            while let Some(output) = self.gateway.poll() {
                self.carry_out(output, &mut heard);
                if self.dead() {
                    return heard;
                }
            }
            self.spool.commit().unwrap();
            self.gateway.handle_durable(self.now, self.persisted);
            self.spool.note(&std::mem::take(&mut self.refusals), self.now).unwrap();
            if !self.gateway.has_output() {
                break;
            }
        }
        heard
    }

    pub fn dead(&self) -> bool {
        self.fuse == Some(0)
    }

    fn carry_out(&mut self, output: Output, heard: &mut Heard) {
        match output {
            Output::Persist(record) => {
                self.persisted += 1;
                let freed = self.spool.write(&record).unwrap();
                self.gateway.handle_freed(freed);
                if self.fuse.is_some() {
                    // As hard as it gets: each write is durable alone, and what follows it may never happen.
                    self.spool.commit().unwrap();
                }
            }
            Output::Lookup(lookup) => {
                let stored = self.spool.answer(lookup).unwrap();
                self.gateway.handle_stored(self.now, stored);
            }
            Output::Transmit(frame) => heard.air.push(frame.to_vec()),
            Output::TransmitMessage { to, message } => heard.messages.push((to, message.to_vec())),
            Output::Send { to, message } => heard.udp.push((to, message.to_vec())),
            Output::Classic { ticket, done } => heard.classic.push((ticket, done)),
            Output::Dropped { rejected, sid } => heard.dropped.push((rejected.code, sid)),
            Output::Exchange { ticket, envelope } => heard.exchanges.push((ticket, envelope.to_vec())),
            Output::Lorawan { dev_eui, f_port, payload } => heard.lorawan.push((dev_eui, f_port, payload.to_vec())),
            Output::Expanded { message, .. } => heard.expanded.push(message.to_vec()),
            Output::Explained(refusal) => self.refusals.push(*refusal),
            other => panic!("{other:?}"),
        }
        if let Some(fuse) = &mut self.fuse {
            *fuse -= 1;
        }
    }

    pub fn frame(&mut self, frame: &[u8]) -> Heard {
        self.gateway.handle_frame(self.now, &mut frame.to_vec(), Some(200));
        self.run()
    }

    pub fn message(&mut self, source: (Did, Reach), message: &[u8]) -> Heard {
        self.gateway.handle_message(self.now, source, &mut message.to_vec(), Some(-60));
        self.run()
    }

    pub fn coap(&mut self, from: SocketAddr, datagram: &[u8]) -> Heard {
        self.gateway.handle_coap(self.now, from, datagram);
        self.run()
    }

    pub fn wait(&mut self, ms: u64) -> Heard {
        self.now = self.now.plus(ms);
        self.gateway.handle_timeout(self.now);
        self.run()
    }

    /// What is kept of refusals, the newest first.
    pub fn why(&self, question: &Question) -> Vec<Kept> {
        self.spool.reader().unwrap().why(question).unwrap()
    }

    /// The newest explanation of this code, of this frame if one is given: there is one, and it says all.
    pub fn explained(&self, code: Code, frame: Option<&[u8]>) -> Kept {
        let question = Question { id: frame.map(FrameId::of), code: Some(code), sid: None, limit: 1 };
        let kept = self.why(&question).pop().unwrap_or_else(|| panic!("{code} is not explained"));
        let about = code.about();
        assert!(kept.expected.starts_with(about.expected) && kept.came.starts_with(about.came), "{kept:?}");
        assert!(!kept.reason.is_empty() && !about.check.is_empty() && !about.advice.is_empty(), "{kept:?}");
        kept
    }

    /// What lies in the spool, but for the gateway's own events.
    pub fn stored(&self) -> Vec<Vec<u8>> {
        let reader = self.spool.reader().unwrap();
        let mut all = Vec::new();
        let mut after = 0;
        while let Some(batch) = reader.batch(after, 1000, 1 << 20).unwrap() {
            after = batch.envelopes.last().unwrap().0;
            all.extend(batch.envelopes.into_iter().map(|(_, b)| b));
        }
        let is_event = |b: &Vec<u8>| Envelope::parse(b).unwrap().kind == fivefold_core::wire::envelope::Kind::Event;
        all.retain(|b| !is_event(b));
        all
    }

    /// The cloud has all, and answers those of `answers`: (seq, sid, message).
    pub fn deliver(&mut self, upto: u64, answers: &[(u64, Sid, Vec<u8>)]) -> Heard {
        let downlinks: Vec<Downlink<'_>> = answers
            .iter()
            .map(|(seq, sid, bytes)| Downlink {
                kind: DownlinkKind::Answer,
                originator: Some(Originator::Node { net: NET, sid: *sid }),
                bytes,
                seq: Some(*seq),
                expires: None,
            })
            .collect();
        let reply = Reply { durable_upto: upto, refused: List::default(), downlinks: List::of(&downlinks) };
        self.gateway.handle_uplink_reply(self.now, self.boot, &reply);
        self.run()
    }
}

impl World {
    /// The cloud's reply to a message of EDHOC: a context for this gateway, and a message for the device.
    pub fn exchanged(&mut self, ticket: u64, added: Option<&[u8]>, message: Option<(Sid, &[u8])>) -> Heard {
        let mut downlinks = Vec::new();
        if let Some(bytes) = added {
            let kind = DownlinkKind::Context;
            downlinks.push(Downlink { kind, originator: None, bytes, seq: None, expires: None });
        }
        if let Some((sid, bytes)) = message {
            let originator = Some(Originator::Node { net: NET, sid });
            let kind = DownlinkKind::Edhoc;
            downlinks.push(Downlink { kind, originator, bytes, seq: Some(ticket), expires: None });
        }
        let mut out = vec![0; 1024];
        let len = emit_downlinks(&downlinks, &mut out).unwrap();
        self.gateway.handle_exchanged(ticket, Some(&out[..len]));
        self.run()
    }
}

/// The cloud's answer to a C3 message in an envelope, without a number, or under one of its own.
pub fn cloud_answer(device: &Device, message: &[u8], number: Option<u32>, payload: &[u8]) -> Vec<u8> {
    let request = Protected::parse_request(message, fivefold_core::wire::coap::Outer::Strict).unwrap();
    let context = device.c3_at_cloud();
    let mut opened = [0; 200];
    let authentic = context.open_request(request.option.piv.unwrap(), request.ciphertext, &mut opened).unwrap();
    let to = authentic.request();
    let (n, piv) = match number {
        None => (AnswerNumber::Unnumbered(authentic.unnumbered()), None),
        Some(n) => (AnswerNumber::Own(counter(n)), Some(PartialIv::from_value(n))),
    };
    let plaintext = if payload.is_empty() { vec![CHANGED] } else { [&[CHANGED, 0xFF], payload].concat() };
    let mut sealed = [0; 200];
    let len = context.seal_answer(&to, n, &plaintext, &mut sealed).unwrap();
    let option = fivefold_core::oscore::OscoreOption { piv, kid_context: None, kid: None };
    let answer = Protected {
        kind: Type::Non,
        code: CHANGED,
        message_id: 0,
        token: request.token,
        option,
        ciphertext: &sealed[..len],
    };
    let mut out = vec![0; answer.emitted_len()];
    let len = answer.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

pub fn kid(sid: Sid) -> Id {
    Id::from(sid)
}
