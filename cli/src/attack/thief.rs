//! The stolen gateway: the thief has its folder with the passphrase file, hence its certificate, its keys and its memory,
//! and calls the cloud with them.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{Did, Epoch, Net, Sid};
use fivefold_core::oscore::Id;
use fivefold_core::profile::{LinkClass, Profile};
use fivefold_core::proof::receipt::{GatewayBoot, Receipt, Tally};
use fivefold_core::time::Millis;
use fivefold_core::wire::envelope::{Envelope, Kind, Opened, Originator};
use fivefold_core::wire::mesh;
use fivefold_core::wire::tiny::{KidLength, Layers, Tiny};
use fivefold_keep::files;
use fivefold_keep::share::{self, CERTIFICATE_FILE, GATEWAY_FILE, GatewaySecrets, GatewaySettings};
use fivefold_keep::sign::SigningKey;
use fivefold_keep::vault::Vault;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Report;
use super::air::{self, Seen, recorded};
use super::door::Door;
use super::impersonate::{Identity, as_gateway};
use super::memory;
use super::plan::{Plan, found};

/// A request that went through the stolen gateway, with E1 taken off.
#[derive(Clone, Debug)]
pub struct Passed {
    /// Who sent it.
    pub originator: Sid,
    /// The tiny frame.
    pub tiny: Vec<u8>,
}

/// The gateway in the wrong hands.
pub struct Thief<'p> {
    plan: &'p Plan,
    folder: PathBuf,
    name: GatewayName,
    secrets: GatewaySecrets,
    /// Everything that passed, oldest first.
    pub passed: Vec<Passed>,
    seq: u64,
}

impl<'p> Thief<'p> {
    /// Opens everything in the stolen folder.
    ///
    /// # Errors
    /// The plan names no gateway, or the recording cannot be read.
    pub fn new(plan: &'p Plan) -> anyhow::Result<Self> {
        let mut thief = Self::of(plan)?;
        let eui64s: Vec<Did> = plan.stations.iter().filter_map(|s| s.eui64.parse().ok()).collect();
        for seen in recorded(&plan.recording)?.iter().filter_map(Seen::of) {
            let Some(key) = thief.secrets.network_keys.iter().find(|k| k.index == seen.key_index) else { continue };
            let Some(plain) = air::open(&seen, &key.key, &eui64s) else { continue };
            let Ok(parsed) = mesh::parse(&plain) else { continue };
            if matches!(parsed.dispatch, mesh::Dispatch::Tiny(0x19..=0x1B | 0x20..=0x37)) {
                let originator = parsed.mesh.map_or(seen.from, |m| m.originator);
                thief.passed.push(Passed { originator, tiny: parsed.rest.to_vec() });
            }
        }
        Ok(thief)
    }

    /// Opens everything in the stolen folder, and looks at no recording of the radio.
    ///
    /// # Errors
    /// The plan names no gateway, or its folder cannot be read.
    pub fn of(plan: &'p Plan) -> anyhow::Result<Self> {
        let folder = plan.gateway.clone().context("the plan names no stolen gateway")?;
        let path = folder.join(GATEWAY_FILE);
        let settings: GatewaySettings = share::read_config(&path)?;
        let (gateway, net, _) = share::gateway_identity(&path, &settings)?;
        let vault = Vault::open_folder(&folder)?;
        let secrets = GatewaySecrets::read(&vault, &folder)?;
        Ok(Self { plan, folder, name: GatewayName { net, gateway }, secrets, passed: Vec::new(), seq: 0 })
    }

    /// Its certificate and key.
    fn identity(&self) -> anyhow::Result<Identity> {
        let pem = files::read_text(&self.folder.join(CERTIFICATE_FILE))?;
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let key = PrivatePkcs8KeyDer::from(self.secrets.tls_key.to_vec());
        let chain = chain.map_err(|_| anyhow::anyhow!("the certificate cannot be read"))?;
        Ok(Identity { chain, key: PrivateKeyDer::Pkcs8(key) })
    }

    /// A batch of envelopes with a true receipt: the cloud sees a gateway of its own.
    fn batch<'e>(&mut self, mail: impl Iterator<Item = Envelope<'e>>) -> anyhow::Result<Vec<u8>> {
        let mut boot = [0; 8];
        getrandom::fill(&mut boot)?;
        let mut tally = Tally::new(self.name.gateway, GatewayBoot(boot));
        let mut body = Vec::new();
        self.seq = 0;
        for envelope in mail {
            self.seq += 1;
            let received = Millis(crate::clock::now()? * 1000);
            let envelope = Envelope { seq: self.seq, received, ..envelope };
            let mut out = vec![0; envelope.bytes.len() + 128];
            let len = envelope.emit(&mut out)?;
            out.truncate(len);
            tally.add(&out, &envelope);
            body.extend(out);
        }
        let key = SigningKey::from_pkcs8(&self.secrets.signing_key)?;
        let mut receipt = [0; Receipt::LONGEST];
        let len = tally.receipt().seal(&key, &mut receipt).map_err(|e| anyhow::anyhow!("no receipt: {e:?}"))?;
        body.extend(receipt.get(..len).unwrap_or_default());
        Ok(body)
    }

    fn post(&self, body: &[u8]) -> anyhow::Result<String> {
        let (address, host) = cloud_of(&self.plan.cloud)?;
        Ok(as_gateway(&Door::of(self.plan)?, address, &host, Some(self.identity()?), body)?.note)
    }

    /// Hands envelopes in. Says what the cloud answered.
    pub(super) fn hand_in(&mut self, mail: &[(Kind, Sid, Vec<u8>, Option<Opened>)]) -> anyhow::Result<String> {
        let net = self.name.net;
        let envelopes = mail.iter().map(|(kind, sid, bytes, opened)| Envelope {
            seq: 0,
            received: Millis(0),
            kind: *kind,
            bytes,
            originator: Originator::Node { net, sid: *sid },
            rssi: None,
            lqi: None,
            opened: *opened,
            link: LinkClass::MacCcm,
            hops: None,
            key_index: Some(1),
        });
        let body = self.batch(envelopes)?;
        self.post(&body)
    }

    /// Hands reports of classic frames in, each with the serial that it is said to be of. Says what the cloud answered.
    ///
    /// # Errors
    /// The cloud cannot be reached.
    pub fn hand_in_classic(&mut self, mail: &[(String, Vec<u8>)]) -> anyhow::Result<String> {
        let envelopes = mail.iter().map(|(serial, bytes)| Envelope {
            seq: 0,
            received: Millis(0),
            kind: Kind::Classic,
            bytes,
            originator: Originator::Classic(serial),
            rssi: None,
            lqi: None,
            opened: None,
            link: LinkClass::None,
            hops: None,
            key_index: None,
        });
        let body = self.batch(envelopes)?;
        self.post(&body)
    }

    /// The C3 message inside what passed, expanded, if the gateway can see it: L = 0 only, for nested ones are under C2.
    pub(super) fn expanded(passed: &Passed) -> Option<Vec<u8>> {
        let tiny = Tiny::parse(&passed.tiny, KidLength::None).ok()?;
        let mut out = vec![0; 256];
        let len = tiny.expand(Some(Id::from(passed.originator)), &mut out).ok()?;
        out.truncate(len);
        Some(out)
    }

    /// Number of what passed, for item 8.
    pub(super) fn item8(passed: &Passed) -> Option<Opened> {
        match Tiny::parse(&passed.tiny, KidLength::None).ok()? {
            Tiny::Request { piv, bctx, .. } => {
                Some(Opened { kid: passed.originator, piv: piv.value(), bctx, epoch: Epoch(1) })
            }
            Tiny::Plain { piv, .. } => {
                Some(Opened { kid: passed.originator, piv: piv.value(), bctx: None, epoch: Epoch(0) })
            }
            _ => None,
        }
    }

    /// The combination, as the traffic shows it.
    pub(super) fn profile(&self) -> Profile {
        let last = self.passed.iter().rev().find_map(|p| match Tiny::parse(&p.tiny, KidLength::None).ok()? {
            Tiny::Request { layers, .. } => Some(match layers {
                Layers::C2 => Profile::ToGateway,
                Layers::C3 => Profile::ToCloud,
                Layers::C2OverC3 => Profile::ToBoth,
            }),
            _ => None,
        });
        last.unwrap_or(Profile::DangerLinkOnly)
    }

    /// An envelope for `victim` as this network's honest gateway would write it around `bytes`.
    pub(super) fn envelope(
        &self,
        victim: Sid,
        bytes: Vec<u8>,
        mut opened: Opened,
    ) -> (Kind, Sid, Vec<u8>, Option<Opened>) {
        let kind = match self.profile() {
            Profile::ToGateway => Kind::GatewayOpened,
            Profile::DangerLinkOnly => Kind::DangerPlain,
            Profile::ToBoth | Profile::ToCloud => Kind::CloudTiny,
        };
        opened.kid = victim;
        let with_item8 = self.profile() != Profile::ToCloud;
        (kind, victim, bytes, with_item8.then_some(opened))
    }
}

/// Address and host name of `https://HOST:PORT`.
///
/// # Errors
/// It is none, or cannot be resolved.
pub fn cloud_of(url: &str) -> anyhow::Result<(SocketAddr, String)> {
    let rest = url.strip_prefix("https://").context("the cloud's address starts with https://")?.trim_end_matches('/');
    let (host, _) = rest.rsplit_once(':').context("the cloud's address has a port")?;
    let mut addresses = rest.to_socket_addrs().with_context(|| format!("cannot resolve {rest}"))?;
    let v4 = addresses.clone().find(SocketAddr::is_ipv4);
    Ok((v4.or(addresses.next()).context("the cloud has no address")?, host.to_owned()))
}

/// A reading of the thief's own: `forged` = 42. What C2 opens to, too: code POST, no options, payload.
pub(super) const LIE: &[u8] = b"\x81\xa2\x00\x66forged\x02\x18\x2a";

/// The same, as this combination carries it.
pub(super) fn lie(profile: Profile) -> Vec<u8> {
    match profile {
        Profile::ToGateway => [&[0x02, 0xFF], LIE].concat(),
        _ => LIE.to_vec(),
    }
}

/// `gateway-disk-memory`: everything on its disk and in its process.
///
/// # Errors
/// The plan names no gateway.
pub fn disk_and_memory(plan: &Plan) -> anyhow::Result<Report> {
    let folder = plan.gateway.as_ref().context("the plan names no stolen gateway")?;
    let needles = plan.payloads();
    let mut read = vec![false; needles.len()];
    let mut look = |bytes: &[u8]| {
        for (needle, read) in needles.iter().zip(&mut read) {
            *read = *read || found(bytes, std::slice::from_ref(needle)) > 0;
        }
    };
    let (mut places, mut searched) = (0u64, 0usize);
    let mut folders = vec![folder.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)?.filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                places += 1;
                searched += bytes.len();
                look(&bytes);
            }
        }
    }
    let disk = places;
    if let Some(pid) = plan.gateway_pid {
        let longest = needles.iter().map(Vec::len).max().unwrap_or_default();
        let image = memory::read(pid, longest, &mut look)?;
        places += image.regions;
        searched += image.bytes as usize;
    }
    let read = read.iter().filter(|r| **r).count() as u64;
    let note = format!(
        "searched {disk} files and {} memory regions ({:.1} MB) for {} readings",
        places - disk,
        searched as f64 / 1e6,
        needles.len()
    );
    Ok(Report { attempts: places, read, note, ..Report::default() })
}

/// The identity of the stolen gateway, to play the cloud with.
///
/// # Errors
/// The plan names no gateway.
pub fn identity_of(plan: &Plan) -> anyhow::Result<Identity> {
    Thief::new(plan)?.identity()
}

/// Net of the stolen gateway.
///
/// # Errors
/// Its folder cannot be read.
pub fn net_of(folder: &Path) -> anyhow::Result<Net> {
    let path = folder.join(GATEWAY_FILE);
    let settings: GatewaySettings = share::read_config(&path)?;
    Ok(share::gateway_identity(&path, &settings)?.1)
}
