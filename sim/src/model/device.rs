//! The device of a model: the real engine over flash whose power can go between any two outputs, and in a write.

use anyhow::anyhow;
use fivefold_core::e5_renewal::{Credential, PeerKid, PqMix};
use fivefold_core::id::Epoch;
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_device::renewal::{Keys, Peer, Stage};
use fivefold_device::storage::RECORD;
use fivefold_device::{ENTROPY, Entropy, Event, Node, Number, Output, Record, Slot, Slots, Storage};

use super::curve::Curve;
use super::{Flaw, History, RESTLESS};
use crate::family::{GROUP, Member};

/// An hour of silence stands for a day, in milliseconds: fair courses are shorter.
const RECOVERY: u64 = 3_600_000;

/// Two slots that outlive the power.
#[derive(Clone, Debug)]
pub(super) struct Flash {
    slots: [[u8; RECORD]; 2],
    /// So many bytes still reach them.
    power: Option<usize>,
}

impl Default for Flash {
    fn default() -> Self {
        Self { slots: [[0xFF; RECORD]; 2], power: None }
    }
}

impl Storage for Flash {
    type Error = &'static str;

    fn read(&mut self, slot: Slot, out: &mut [u8; RECORD]) -> Result<(), Self::Error> {
        let [a, b] = &self.slots;
        *out = if slot == Slot::A { *a } else { *b };
        Ok(())
    }

    fn write(&mut self, slot: Slot, bytes: &[u8; RECORD]) -> Result<(), Self::Error> {
        let reached = self.power.map_or(RECORD, |left| left.min(RECORD));
        let [a, b] = &mut self.slots;
        let place = if slot == Slot::A { a } else { b };
        place.iter_mut().zip(bytes).take(reached).for_each(|(p, b)| *p = *b);
        self.power = self.power.map(|left| left - reached);
        if reached < RECORD { Err("the power was cut") } else { Ok(()) }
    }
}

/// What came out of a device.
pub(super) enum Said {
    Datagram(Vec<u8>),
    Event(Event),
    Frame(Vec<u8>),
}

/// Where the power goes: after so many steps (writes and messages), and after so many bytes of the next write.
pub(super) type Fuse = Option<u8>;

pub(super) struct Device {
    pub(super) member: Member,
    key: [u8; 16],
    cloud: Credential<'static>,
    flaw: Option<Flaw>,
    flash: Flash,
    /// What the flash has, or with a flaw should have.
    pub(super) record: Option<Record>,
    engine: Option<Box<Node<4, Curve>>>,
    booted: u64,
    boots: u8,
    /// What it went through since it booted.
    pub(super) history: History,
    /// Steps of the last script.
    pub(super) steps: u8,
}

impl Device {
    pub(super) fn new(member: Member, key: [u8; 16], cloud: Credential<'static>, flaw: Option<Flaw>) -> Self {
        Self {
            member,
            key,
            cloud,
            flaw,
            flash: Flash::default(),
            record: None,
            engine: None,
            booted: 0,
            boots: 0,
            history: History::default(),
            steps: 0,
        }
    }

    /// The device's own key.
    pub(super) fn own(member: &Member) -> anyhow::Result<Curve> {
        let [a, b] = member.sid.to_bytes();
        Curve::from_random(&sha256(&[b"device", &[a, b]])).ok_or_else(|| anyhow!("no key"))
    }

    fn keys(&self) -> anyhow::Result<Keys<Curve>> {
        let own = Self::own(&self.member)?;
        let mix = PqMix::new(&self.member.at_cloud().root_psk, self.member.did());
        let credential = Credential::device(self.member.sid, own.public_x());
        Ok(Keys { own, credential, peer: Peer::Cloud(self.cloud.clone()), mix: Some(mix), group: GROUP })
    }

    /// Gives it power.
    pub(super) fn boot(&mut self, now: u64) -> anyhow::Result<()> {
        self.boots += 1;
        self.flash.power = None;
        let (_, record) = Slots::open(self.flash.clone()).map_err(|e| anyhow!("{e}"))?;
        let bytes: [u8; 32] = sha256(&[b"entropy", &self.member.sid.to_bytes(), &[self.boots]]);
        let more = sha256(&[b"more", &bytes]);
        let mut entropy = [0; ENTROPY];
        entropy.iter_mut().zip(bytes.iter().chain(&more).cycle()).for_each(|(to, from)| *to = *from);
        let entropy = Entropy::check(entropy).map_err(|e| anyhow!("entropy: {e}"))?;
        self.record = record.clone();
        let (mut settings, secrets) = (self.member.settings(), self.member.secrets(&self.key));
        settings.timers.recovery = RECOVERY;
        let engine = Node::boot_renewing(Millis(0), settings, &secrets, Some(self.keys()?), record, &entropy);
        self.engine = Some(Box::new(engine.map_err(|e| anyhow!("the device does not boot: {e}"))?));
        self.booted = now;
        let [a, b] = self.flash.slots;
        self.history = History::of(&[&a, &b, &[self.boots], &now.to_be_bytes()]);
        Ok(())
    }

    /// Takes it away.
    pub(super) fn cut(&mut self) {
        self.engine = None;
    }

    /// What was on its flash at another time is there again.
    pub(super) fn flash(&mut self) -> &mut Flash {
        &mut self.flash
    }

    pub(super) const fn is_on(&self) -> bool {
        self.engine.is_some()
    }

    fn uptime(&self, now: u64) -> Millis {
        Millis(now.saturating_sub(self.booted))
    }

    /// When it wants to be looked at.
    pub(super) fn wake(&self) -> Option<u64> {
        Some(self.booted.saturating_add(self.engine.as_ref()?.poll_timeout()?.0))
    }

    pub(super) fn stage(&self) -> Stage {
        self.engine.as_ref().map_or(Stage::Idle, |e| e.stage())
    }

    /// The epoch that it seals under.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.engine.as_ref().map(|e| e.epoch())
    }

    pub(super) fn waiting(&self) -> Vec<Number> {
        self.engine.iter().flat_map(|e| e.waiting()).collect()
    }

    pub(super) fn datagram(&mut self, now: u64, bytes: &[u8], fuse: Fuse) -> anyhow::Result<Vec<Said>> {
        self.history.add(&[b"d", &now.to_be_bytes(), bytes]);
        let uptime = self.uptime(now);
        self.run(uptime, fuse, |e| e.handle_datagram(uptime, bytes))
    }

    pub(super) fn frame(&mut self, now: u64, bytes: &[u8], fuse: Fuse) -> anyhow::Result<Vec<Said>> {
        self.history.add(&[b"f", &now.to_be_bytes(), bytes]);
        let uptime = self.uptime(now);
        self.run(uptime, fuse, |e| e.handle_frame(uptime, &mut bytes.to_vec()))
    }

    pub(super) fn timeout(&mut self, now: u64, fuse: Fuse) -> anyhow::Result<Vec<Said>> {
        self.history.add(&[b"t", &now.to_be_bytes()]);
        let uptime = self.uptime(now);
        self.run(uptime, fuse, |e| e.handle_timeout(uptime))
    }

    /// A reading is to be sent; it may be refused.
    pub(super) fn send(&mut self, now: u64, reading: &[u8], fuse: Fuse) -> anyhow::Result<Vec<Said>> {
        self.history.add(&[b"s", &now.to_be_bytes(), reading]);
        let uptime = self.uptime(now);
        self.run(uptime, fuse, |e| {
            let _ = e.send(uptime, reading);
        })
    }

    /// Carries out what the engine wants, until it wants nothing more or the power goes.
    fn run(&mut self, now: Millis, fuse: Fuse, tell: impl FnOnce(&mut Node<4, Curve>)) -> anyhow::Result<Vec<Said>> {
        let mut said = Vec::new();
        self.steps = 0;
        if let Some(engine) = &mut self.engine {
            tell(engine);
        }
        for _ in 0..RESTLESS {
            let Some(output) = self.engine.as_mut().and_then(|e| e.poll()) else { return Ok(said) };
            let goes = fuse.is_some_and(|after| self.steps >= after);
            match output {
                Output::Persist(record) => {
                    // Half of what was to be written: it goes to both slots, or to one.
                    self.flash.power = goes.then_some(RECORD / 2 + usize::from(self.steps % 2) * RECORD);
                    self.persist(&record)?;
                }
                Output::Datagram(message) if !goes => said.push(Said::Datagram(message.to_vec())),
                Output::Transmit(frame) if !goes => said.push(Said::Frame(frame.as_bytes().to_vec())),
                Output::Datagram(_) | Output::Transmit(_) => {}
                Output::Event(event) => {
                    said.push(Said::Event(event));
                    continue;
                }
                Output::Execute(command) => {
                    if let Some(engine) = &mut self.engine {
                        engine.command_done(now, command.id, fivefold_device::node::status::DONE);
                    }
                    continue;
                }
                _ => continue,
            }
            if goes {
                self.cut();
                return Ok(said);
            }
            self.steps = self.steps.saturating_add(1);
        }
        anyhow::bail!("the device wants more and more at one moment, and never comes to rest")
    }

    /// Writes a record, or what a flaw makes of it.
    fn persist(&mut self, record: &Record) -> anyhow::Result<()> {
        let (mut slots, before) = Slots::open(self.flash.clone()).map_err(|e| anyhow!("{e}"))?;
        let mut written = record.clone();
        if let Some(before) = before {
            match self.flaw {
                Some(Flaw::EpochNotUsedUp) => written.next_epoch = before.next_epoch.min(record.next_epoch),
                Some(Flaw::ContextNotKept) if record.epoch > before.epoch => written = before,
                Some(Flaw::NumbersNotLeased) => written.piv_bound = before.piv_bound.min(record.piv_bound),
                Some(Flaw::KeyNotKept) => {
                    let known = written.keys.map(|place| place.filter(|k| before.key(k.index).is_some()));
                    written.keys = if known == [None; 2] { before.keys } else { known };
                    if written.key(written.sending).is_none() {
                        written.sending = written.keys.iter().flatten().next().map_or(0, |k| k.index);
                    }
                }
                Some(Flaw::FramesNotLeased) => {
                    for key in written.keys.iter_mut().flatten() {
                        key.bound = before.key(key.index).map_or(0, |known| known.bound);
                    }
                }
                _ => {}
            }
        }
        let whole = slots.write(&written).is_ok();
        self.flash = slots.into_storage();
        self.flash.power = None;
        if whole {
            self.record = Some(record.clone());
        } else {
            let (_, left) = Slots::open(self.flash.clone()).map_err(|e| anyhow!("{e}"))?;
            self.record = left;
        }
        Ok(())
    }
}

/// Names the cloud in its credential.
pub(super) fn cloud_kid() -> anyhow::Result<PeerKid> {
    PeerKid::new(5).ok_or_else(|| anyhow!("no kid"))
}
