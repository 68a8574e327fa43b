//! A node of the village: the real engine over model flash that can be torn.

use anyhow::anyhow;
use fivefold_core::error::Rejected;
use fivefold_core::time::Millis;
use fivefold_device::evidence::Signing;
use fivefold_device::node::status;
use fivefold_device::renewal::Keys;
use fivefold_device::storage::RECORD;
use fivefold_device::{
    ENTROPY, Entropy, Event, Node, Number, Output, Secrets, SendRefused, Settings, Slot, Slots, Storage,
};
use fivefold_keep::device_key::DeviceSigningKey;
use fivefold_keep::sign::AgreementKey;

use crate::dice::Dice;
use crate::family::Member;
use crate::watch::Name;

/// The engine of a node that may renew and may sign.
pub type Engine = Node<8, AgreementKey, Option<Signing<DeviceSigningKey>>>;

/// What no node wants done at one moment.
const RESTLESS: u32 = 10_000;

/// Whose node it is: who it is, and what it was given when it was installed.
pub trait Owner {
    /// Who it is and what it does.
    fn settings(&self) -> Settings;
    /// Its secrets, with the network key it was given.
    fn secrets(&self, network_key: &[u8; 16]) -> Secrets;
    /// What it renews its contexts with, if it does.
    fn keys(&self) -> Option<Keys<AgreementKey>> {
        None
    }
    /// What it signs its readings with, if it does.
    fn signing(&self) -> anyhow::Result<Option<Signing<DeviceSigningKey>>> {
        Ok(None)
    }
}

impl Owner for Member {
    fn settings(&self) -> Settings {
        Self::settings(self)
    }

    fn secrets(&self, network_key: &[u8; 16]) -> Secrets {
        Self::secrets(self, network_key)
    }

    fn signing(&self) -> anyhow::Result<Option<Signing<DeviceSigningKey>>> {
        Self::signing(self)
    }
}

/// Two slots that outlive the power, and a cut in the middle of the next write.
#[derive(Clone, Debug)]
pub struct Flash {
    slots: [[u8; RECORD]; 2],
    /// So many bytes of the next write still reach it.
    power: Option<usize>,
    /// It is broken: it says that it wrote, and did not.
    pub lies: bool,
}

impl Default for Flash {
    fn default() -> Self {
        Self { slots: [[0xFF; RECORD]; 2], power: None, lies: false }
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
        if self.lies {
            return Ok(());
        }
        let reached = self.power.take();
        let [a, b] = &mut self.slots;
        let place = if slot == Slot::A { a } else { b };
        place.iter_mut().zip(bytes).take(reached.unwrap_or(RECORD)).for_each(|(p, b)| *p = *b);
        if reached.is_some() { Err("the power was cut") } else { Ok(()) }
    }
}

/// What came out of a node.
#[derive(Debug)]
pub enum Said {
    /// A CoAP message for the gateway.
    Datagram(Vec<u8>),
    /// Something was refused.
    Dropped(Rejected),
    /// It tells something.
    Event(Event),
    /// It carried a command out.
    Executed(u64),
    /// A frame for the air.
    Frame(Vec<u8>),
    /// The power went.
    WentDark,
}

/// Where the power goes: after so many outputs; if the next one is a write, so many bytes of it are written.
#[derive(Clone, Copy, Debug)]
pub struct Fuse {
    /// Outputs.
    pub outputs: u64,
    /// Bytes, at most all.
    pub torn: usize,
}

/// One node.
#[derive(Debug)]
pub struct NodeStation<M = Member> {
    /// Who it is.
    pub member: M,
    network_key: [u8; 16],
    /// `None` only while a write is being torn.
    slots: Option<Slots<Flash>>,
    engine: Option<Engine>,
    booted: u64,
    /// The boot id of mode R.
    pub bctx: Option<[u8; 8]>,
    /// Boots so far.
    pub boots: u32,
    /// Numbers of the readings that it took since it booted.
    pub taken: Vec<Number>,
    /// Numbers of the messages that it held when its power went last.
    pub forgot: Vec<Number>,
    fuse: Option<Fuse>,
    /// Not looked at again before, however urgent it says it is.
    pub rests_until: u64,
    /// Looks in a row that came to nothing.
    pub idle: u32,
}

impl<M: Owner> NodeStation<M> {
    /// A new node that was never switched on.
    pub fn new(member: M, network_key: [u8; 16]) -> anyhow::Result<Self> {
        let slots = open(Flash::default())?;
        Ok(Self {
            member,
            network_key,
            slots: Some(slots.0),
            engine: None,
            booted: 0,
            bctx: None,
            boots: 0,
            taken: Vec::new(),
            forgot: Vec::new(),
            fuse: None,
            rests_until: 0,
            idle: 0,
        })
    }

    /// Switches it on.
    pub fn boot(&mut self, now: u64, dice: &mut Dice) -> anyhow::Result<()> {
        let flash = self.slots.take().map(Slots::into_storage).unwrap_or_default();
        let (slots, record) = open(flash)?;
        self.slots = Some(slots);
        let bytes: [u8; ENTROPY] = dice.bytes();
        let settings = self.member.settings();
        let sid = settings.sid;
        self.bctx = bytes.first_chunk().copied().filter(|_| settings.epoch.0 == 0);
        let entropy = Entropy::check(bytes).map_err(|e| anyhow!("entropy: {e}"))?;
        let secrets = self.member.secrets(&self.network_key);
        let with = (self.member.keys(), self.member.signing()?);
        let engine = Node::boot_signing(Millis(0), settings, &secrets, with, record, &entropy)
            .map_err(|e| anyhow!("node {sid} does not boot: {e}"))?;
        self.engine = Some(engine);
        (self.booted, self.fuse, self.rests_until, self.idle) = (now, None, now, 0);
        self.boots += 1;
        self.taken.clear();
        Ok(())
    }

    /// Whether it has power.
    pub const fn is_on(&self) -> bool {
        self.engine.is_some()
    }

    /// The power will go.
    pub fn arm(&mut self, fuse: Fuse) {
        self.fuse = Some(fuse);
    }

    /// The power goes now.
    pub fn cut(&mut self) {
        self.forgot = self.waiting();
        (self.engine, self.fuse) = (None, None);
    }

    /// Nothing will happen to its power.
    pub fn spare(&mut self) {
        self.fuse = None;
    }

    /// Numbers of messages that it holds.
    pub fn waiting(&self) -> Vec<Number> {
        self.engine.iter().flat_map(Node::waiting).collect()
    }

    /// The engine, while it has power.
    pub const fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// Its clock jumps ahead.
    pub const fn jump(&mut self, ms: u64) {
        self.booted = self.booted.saturating_sub(ms);
    }

    /// From now on its flash says that it wrote, and does not.
    pub fn break_flash(&mut self) {
        if let Some(slots) = self.slots.take() {
            let flash = Flash { lies: true, ..slots.into_storage() };
            self.slots = open(flash).ok().map(|(slots, _)| slots);
        }
    }

    /// When it wants to be looked at.
    pub fn wake(&self) -> Option<u64> {
        let at = self.engine.as_ref()?.poll_timeout()?;
        Some(self.booted.saturating_add(at.0).max(self.rests_until))
    }

    fn uptime(&self, now: u64) -> Millis {
        Millis(now.saturating_sub(self.booted))
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: u64) -> anyhow::Result<Vec<Said>> {
        let uptime = self.uptime(now);
        if let Some(engine) = &mut self.engine {
            engine.handle_timeout(uptime);
        }
        self.run(now)
    }

    /// A frame came.
    pub fn frame(&mut self, now: u64, frame: &[u8]) -> anyhow::Result<Vec<Said>> {
        let uptime = self.uptime(now);
        if let Some(engine) = &mut self.engine {
            engine.handle_frame(uptime, &mut frame.to_vec());
        }
        self.run(now)
    }

    /// A datagram came.
    pub fn datagram(&mut self, now: u64, datagram: &[u8]) -> anyhow::Result<Vec<Said>> {
        let uptime = self.uptime(now);
        if let Some(engine) = &mut self.engine {
            engine.handle_datagram(uptime, datagram);
        }
        self.run(now)
    }

    /// A reading is to be sent. `None` without power.
    pub fn send(&mut self, now: u64, reading: &[u8]) -> Option<Result<Number, SendRefused>> {
        let uptime = self.uptime(now);
        let sent = self.engine.as_mut().map(|engine| engine.send(uptime, reading));
        self.taken.extend(sent.and_then(Result::ok));
        sent
    }

    /// Carries out what the engine wants, until it wants nothing more or the power goes.
    pub fn run(&mut self, now: u64) -> anyhow::Result<Vec<Said>> {
        let uptime = self.uptime(now);
        let mut said = Vec::new();
        let mut outputs = 0u32;
        while let Some(output) = self.engine.as_mut().and_then(Node::poll) {
            outputs += 1;
            anyhow::ensure!(
                outputs < RESTLESS,
                "{} wants more and more at one moment, and never comes to rest",
                self.member.settings().sid
            );
            if let Some(fuse) = &mut self.fuse {
                if fuse.outputs == 0 {
                    let torn = fuse.torn;
                    if let Output::Persist(record) = &output {
                        let mut flash = self.slots.take().map(Slots::into_storage).unwrap_or_default();
                        flash.power = Some(torn);
                        let (mut slots, _) = open(flash)?;
                        // That it fails is the point.
                        let _ = slots.write(record);
                        self.slots = Some(slots);
                    }
                    self.cut();
                    said.push(Said::WentDark);
                    break;
                }
                fuse.outputs -= 1;
            }
            match output {
                Output::Datagram(message) => said.push(Said::Datagram(message.to_vec())),
                Output::Dropped(rejected) => said.push(Said::Dropped(rejected)),
                Output::Event(event) => said.push(Said::Event(event)),
                Output::Execute(command) => {
                    said.push(Said::Executed(command.id));
                    if let Some(engine) = &mut self.engine {
                        engine.command_done(uptime, command.id, status::DONE);
                    }
                }
                Output::Persist(record) => {
                    let slots = self.slots.as_mut().ok_or_else(|| anyhow!("no flash"))?;
                    slots.write(&record).map_err(|e| anyhow!("flash: {e}"))?;
                }
                Output::Transmit(frame) => said.push(Said::Frame(frame.as_bytes().to_vec())),
                other => return Err(anyhow!("an output that is new: {other:?}")),
            }
        }
        Ok(said)
    }
}

fn open(flash: Flash) -> anyhow::Result<(Slots<Flash>, Option<fivefold_device::Record>)> {
    Slots::open(flash).map_err(|e| anyhow!("{e}"))
}

impl NodeStation {
    /// What a message of it is called.
    pub fn name(&self, number: Number) -> Name {
        (self.member.sid, number.epoch, self.bctx, number.value.into())
    }
}
