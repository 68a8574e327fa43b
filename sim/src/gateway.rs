//! A gateway of the village: the real engine over its real store, with a fuse between any two outputs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_core::e1_link::{Identity, LinkPolicy, Station};
use fivefold_core::e4_channel::{GatewayName, ProvenGateway};
use fivefold_core::error::Rejected;
use fivefold_core::id::{Did, GatewayId, Net, Sid};
use fivefold_core::key::Key;
use fivefold_core::proof::receipt::{GatewayBoot, Receipt, Tally};
use fivefold_core::time::Millis;
use fivefold_core::wire::envelope::{BYTES, ENVELOPES, Envelope, Reply};
use fivefold_core::wire::ieee802154::Pan;
use fivefold_gateway::gateway::{Capture, Cloud, Gateway, Limits, Output, Record, Setup};
use fivefold_gateway::spool::{Spool, SpoolReader, Wrap, WrapError};
use fivefold_keep::registry;
use fivefold_keep::sign::SigningKey;
use zeroize::Zeroizing;

use crate::dice::Dice;
use crate::family::{KEY_INDEX, NET, PAN, did, gateway_id, gateway_sid, wall};

/// Room for the receipt in a batch.
const RECEIPT_ROOM: usize = 512;

/// The store seals its secrets; here by nothing worth the name.
struct Veil;

impl Wrap for Veil {
    fn wrap(&self, _: &str, plain: &[u8]) -> Result<Vec<u8>, WrapError> {
        Ok(plain.iter().map(|b| b ^ 0x5A).collect())
    }

    fn unwrap(&self, _: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        Ok(Zeroizing::new(sealed.iter().map(|b| b ^ 0x5A).collect()))
    }
}

/// What came out of a gateway.
#[derive(Debug)]
pub enum Said {
    /// A CoAP message over UDP.
    Datagram(SocketAddr, Vec<u8>),
    /// Something was refused.
    Dropped(Rejected, Option<Sid>),
    /// A message of EDHOC to be posted to the cloud, under this ticket.
    Exchange(u64, Vec<u8>),
    /// A frame for the air.
    Frame(Vec<u8>),
    /// Something lies in the store for the cloud.
    Stored,
    /// The process died.
    WentDark,
}

/// Where a process dies: after so many outputs.
#[derive(Clone, Copy, Debug)]
pub struct Fuse {
    /// Outputs.
    pub outputs: u64,
    /// Each write of the dying process is durable alone; else those of the last group are lost with it.
    pub alone: bool,
}

struct Process {
    engine: Gateway,
    spool: Spool,
    reader: SpoolReader,
    persisted: u64,
}

/// Who a gateway is.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its network.
    pub net: Net,
    /// The PAN of that.
    pub pan: Pan,
    /// Its name in certificates.
    pub gateway: GatewayId,
    /// Its short id.
    pub sid: Sid,
    /// Its EUI-64.
    pub did: Did,
    /// Whether it is the primary of its group.
    pub primary: bool,
    /// The network's key when it was set up, and its index.
    pub key: (u8, [u8; 16]),
}

/// One gateway.
pub struct GatewayStation {
    /// Who it is.
    pub site: Site,
    path: PathBuf,
    signing: SigningKey,
    /// What its certificate says.
    pub proven: ProvenGateway,
    process: Option<Process>,
    boot: GatewayBoot,
    fuse: Option<Fuse>,
    /// Milliseconds that its clock is ahead.
    pub ahead: i64,
    /// It was taken over: what it seals is not ours to watch.
    pub is_hostile: bool,
    /// Counts its processes.
    pub run: u32,
    /// An exchange with the cloud is going on, or planned.
    pub posting: bool,
    /// Not looked at again before, however urgent it says it is.
    pub rests_until: u64,
    /// Looks in a row that came to nothing.
    pub idle: u32,
}

impl std::fmt::Debug for GatewayStation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayStation").field("gateway", &self.site.gateway).finish_non_exhaustive()
    }
}

impl GatewayStation {
    /// A gateway whose store lies in `folder`.
    pub fn new(folder: &Path, place: usize, network_key: [u8; 16]) -> anyhow::Result<Self> {
        let sid = gateway_sid(place);
        let (gateway, primary, key) = (gateway_id(place), place == 0, (KEY_INDEX, network_key));
        let (signing, _) = SigningKey::generate().map_err(|e| anyhow::anyhow!("signing key: {e}"))?;
        Ok(Self::at(folder, Site { net: NET, pan: PAN, gateway, sid, did: did(sid), primary, key }, signing))
    }

    /// The key that signs its receipts.
    pub const fn receipt_key(&self) -> &SigningKey {
        &self.signing
    }

    /// The same somewhere else, with the key for its receipts.
    pub fn at(folder: &Path, site: Site, signing: SigningKey) -> Self {
        Self {
            path: folder.join(format!("spool-{}.db", site.gateway)),
            signing,
            proven: ProvenGateway::assertion(GatewayName { net: site.net, gateway: site.gateway }),
            ahead: 0,
            is_hostile: false,
            site,
            process: None,
            boot: GatewayBoot([0; 8]),
            fuse: None,
            run: 0,
            posting: false,
            rests_until: 0,
            idle: 0,
        }
    }

    /// As the registry has it.
    pub fn registered(&self) -> registry::Gateway {
        let Site { net, gateway, sid, did, primary, .. } = self.site;
        registry::Gateway {
            gateway,
            net,
            name: format!("g{gateway}"),
            sid,
            did,
            primary,
            receipt_keys: vec![self.signing.spki().to_vec()],
            revoked_at: None,
        }
    }

    /// Starts a process over what the store has.
    pub fn start(&mut self, now: u64, dice: &mut Dice) -> anyhow::Result<Vec<Said>> {
        self.boot = GatewayBoot(dice.bytes());
        let (spool, restored) = Spool::open(&self.path, self.boot, Box::new(Veil))?;
        let Site { net, gateway, sid, did, pan, key: (index, key), .. } = self.site;
        let setup = Setup {
            net,
            gateway,
            boot: self.boot,
            identity: Identity { did, sid, pan, station: Station::Gateway },
            policy: LinkPolicy::default(),
            seed: dice.bytes(),
            keys: vec![(index, Key::new(key))],
            coap_devices: std::collections::HashMap::new(),
            limits: Limits::default(),
            capture: Capture::Off,
            local: None,
        };
        let reader = spool.reader()?;
        let engine = Gateway::new(self.clock(now), setup, restored);
        self.process = Some(Process { engine, spool, reader, persisted: 0 });
        self.run += 1;
        (self.fuse, self.posting, self.rests_until, self.idle) = (None, false, now, 0);
        self.carry_out(now)
    }

    /// The time by its clock.
    pub const fn clock(&self, now: u64) -> Millis {
        Millis(wall(now).0.saturating_add_signed(self.ahead))
    }

    /// Whether its process runs.
    pub const fn is_on(&self) -> bool {
        self.process.is_some()
    }

    /// Which run it is in.
    pub const fn boot(&self) -> GatewayBoot {
        self.boot
    }

    /// Whether the cloud's state has reached it.
    pub fn has_state(&self) -> bool {
        self.state_version() > 0
    }

    /// Which version of it is applied; 0 for none.
    pub fn state_version(&self) -> u64 {
        self.process.as_ref().map_or(0, |p| p.engine.state_version())
    }

    /// The process will die.
    pub const fn arm(&mut self, fuse: Fuse) {
        self.fuse = Some(fuse);
    }

    /// It will not.
    pub const fn spare(&mut self) {
        self.fuse = None;
    }

    /// The process dies now.
    pub fn kill(&mut self) {
        (self.process, self.fuse) = (None, None);
    }

    /// When it wants to be looked at.
    pub fn wake(&self) -> Option<u64> {
        let at = self.process.as_ref()?.engine.poll_timeout()?;
        Some(at.0.saturating_add_signed(-self.ahead).saturating_sub(wall(0).0).max(self.rests_until))
    }

    /// Hands something to the engine and carries out what it wants.
    pub fn tell(&mut self, now: u64, tell: impl FnOnce(&mut Gateway)) -> anyhow::Result<Vec<Said>> {
        let is_hostile = self.is_hostile;
        let act = || {
            if let Some(process) = &mut self.process {
                tell(&mut process.engine);
            }
            self.carry_out(now)
        };
        if is_hostile { crate::watch::unwatched(act) } else { act() }
    }

    /// A frame came.
    pub fn frame(&mut self, now: u64, frame: &[u8]) -> anyhow::Result<Vec<Said>> {
        let at = self.clock(now);
        self.tell(now, |g| g.handle_frame(at, &mut frame.to_vec(), Some(200)))
    }

    /// Whether the cloud can be reached.
    pub fn cloud(&mut self, now: u64, cloud: Cloud) -> anyhow::Result<Vec<Said>> {
        let at = self.clock(now);
        self.tell(now, |g| g.handle_cloud(at, cloud))
    }

    /// The cloud replied to a batch.
    pub fn reply(&mut self, now: u64, boot: GatewayBoot, bytes: &[u8]) -> anyhow::Result<Vec<Said>> {
        let reply = Reply::parse(bytes).map_err(|m| anyhow::anyhow!("reply: {}", m.reason))?;
        let at = self.clock(now);
        self.tell(now, |g| g.handle_uplink_reply(at, boot, &reply))
    }

    /// The oldest envelopes in the store, and the run they are of.
    pub fn stored(&self) -> anyhow::Result<Option<(GatewayBoot, Vec<Vec<u8>>)>> {
        let Some(process) = &self.process else { return Ok(None) };
        let batch = process.reader.batch(0, ENVELOPES, BYTES - RECEIPT_ROOM)?;
        Ok(batch.map(|b| (b.boot, b.envelopes.into_iter().map(|(_, e)| e).collect())))
    }

    /// A batch of these envelopes under its receipt.
    pub fn body(&self, boot: GatewayBoot, envelopes: &[Vec<u8>]) -> anyhow::Result<Vec<u8>> {
        let mut tally = Tally::new(self.site.gateway, boot);
        let mut body = Vec::new();
        for bytes in envelopes {
            let envelope = Envelope::parse(bytes).map_err(|m| anyhow::anyhow!("envelope: {}", m.reason))?;
            tally.add(bytes, &envelope);
            body.extend_from_slice(bytes);
        }
        let mut receipt = [0; Receipt::LONGEST];
        let len = tally.receipt().seal(&self.signing, &mut receipt).context("receipt")?;
        body.extend_from_slice(receipt.get(..len).unwrap_or_default());
        Ok(body)
    }

    /// As the daemon does it: the outputs of a round in order, its writes as one group.
    fn carry_out(&mut self, now: u64) -> anyhow::Result<Vec<Said>> {
        let mut said = Vec::new();
        let at = self.clock(now);
        while let Some(process) = &mut self.process {
            while let Some(output) = process.engine.poll() {
                if let Some(fuse) = &mut self.fuse {
                    if fuse.outputs == 0 {
                        self.kill();
                        said.push(Said::WentDark);
                        return Ok(said);
                    }
                    fuse.outputs -= 1;
                }
                match output {
                    Output::Dropped { rejected, sid } => said.push(Said::Dropped(rejected, sid)),
                    Output::Expanded { .. } | Output::Explained(_) => {}
                    Output::Exchange { ticket, envelope } => said.push(Said::Exchange(ticket, envelope.to_vec())),
                    Output::Lookup(lookup) => {
                        let stored = process.spool.answer(lookup)?;
                        process.engine.handle_stored(at, stored);
                    }
                    Output::Persist(record) => {
                        process.persisted += 1;
                        let freed = process.spool.write(&record)?;
                        process.engine.handle_freed(freed);
                        if matches!(record, Record::Envelope { .. }) {
                            said.push(Said::Stored);
                        }
                        if self.fuse.is_some_and(|f| f.alone) {
                            process.spool.commit()?;
                        }
                    }
                    Output::Send { to, message } => said.push(Said::Datagram(to, message.to_vec())),
                    Output::Transmit(frame) => said.push(Said::Frame(frame.to_vec())),
                    other => anyhow::bail!("an output that is new: {other:?}"),
                }
            }
            process.spool.commit()?;
            process.engine.handle_durable(at, process.persisted);
            if !process.engine.has_output() {
                break;
            }
        }
        Ok(said)
    }
}
