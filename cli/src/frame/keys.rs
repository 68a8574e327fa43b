//! The key file of `fivefold frame decode`: network keys, neighbours and OSCORE contexts, as JSON.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use fivefold_core::e2_gateway::E2;
use fivefold_core::e3_cloud::E3;
use fivefold_core::error::Rejected;
use fivefold_core::id::{Did, Sid};
use fivefold_core::level::OscoreLevel;
use fivefold_core::oscore::{Context, Id, Params, PartialIv, RequestId};
use fivefold_core::suite::{Alg, LinkSchedule};
use fivefold_core::wire::ieee802154::SecurityLevel;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::Sender;

/// What the file opens.
pub struct Keys {
    /// Expanded network keys with their indexes.
    pub links: Vec<(u8, LinkSchedule)>,
    /// The weakest level that is accepted.
    pub minimum: SecurityLevel,
    /// Short address and EUI-64 of each neighbour; `None` when the file names none.
    pub neighbours: Option<Vec<(Sid, Did)>>,
    /// OSCORE contexts, in the order of the file.
    pub contexts: Vec<Named>,
}

/// Both ends of a context of the file.
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its algorithm.
    pub alg: Alg,
    /// ID Context.
    pub id_context: Option<Vec<u8>>,
    ends: Ends,
}

enum Ends {
    E2 { device: Box<Context<E2>>, peer: Box<Context<E2>> },
    E3 { device: Box<Context<E3>>, peer: Box<Context<E3>> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    e1: Vec<LinkKeyEntry>,
    minimum_level: Option<u8>,
    neighbours: Option<Vec<NeighbourEntry>>,
    #[serde(default)]
    oscore: Vec<ContextEntry>,
}

#[derive(Deserialize)]
struct LinkKeyEntry {
    index: u8,
    #[serde(deserialize_with = "wiped")]
    key: Zeroizing<String>,
}

#[derive(Deserialize)]
struct NeighbourEntry {
    short: String,
    eui64: String,
}

#[derive(Deserialize)]
struct ContextEntry {
    #[serde(alias = "id")]
    name: String,
    level: u8,
    alg: u8,
    #[serde(deserialize_with = "wiped")]
    master_secret: Zeroizing<String>,
    master_salt: Option<String>,
    id_context: Option<String>,
    device_id: String,
    peer_id: String,
}

impl Keys {
    /// Nothing that opens anything.
    pub fn none() -> Self {
        Self { links: Vec::new(), minimum: SecurityLevel::EncMic32, neighbours: None, contexts: Vec::new() }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// A sentence that names the file and the field.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = Zeroizing::new(
            std::fs::read(path).with_context(|| format!("cannot read the key file {}", path.display()))?,
        );
        Self::parse(&text).with_context(|| format!("in the key file {}", path.display()))
    }

    /// Reads its content.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn parse(json: &[u8]) -> anyhow::Result<Self> {
        let file: KeyFile = serde_json::from_slice(json)?;
        let minimum = match file.minimum_level {
            None | Some(5) => SecurityLevel::EncMic32,
            Some(6) => SecurityLevel::EncMic64,
            Some(other) => bail!("minimum_level is 5 or 6, not {other}"),
        };
        let links = file
            .e1
            .iter()
            .map(|entry| {
                let key = bytes(&entry.key).with_context(|| format!("key of index {}", entry.index))?;
                let key: &[u8; 16] =
                    key.as_slice().try_into().map_err(|_| anyhow!("key of index {} is not 16 bytes", entry.index))?;
                Ok((entry.index, LinkSchedule::new(key)))
            })
            .collect::<anyhow::Result<_>>()?;
        let neighbour = |n: &NeighbourEntry| Ok((n.short.parse::<Sid>()?, n.eui64.parse::<Did>()?));
        let neighbours = file.neighbours.map(|all| all.iter().map(neighbour).collect::<anyhow::Result<_>>());
        let contexts = file.oscore.iter().map(Named::of).collect::<anyhow::Result<_>>()?;
        Ok(Self { links, minimum, neighbours: neighbours.transpose().context("neighbours")?, contexts })
    }
}

impl Named {
    fn of(entry: &ContextEntry) -> anyhow::Result<Self> {
        let field = |name: &str, text: &str| {
            bytes(text).with_context(|| format!("{name} of the OSCORE context {}", entry.name))
        };
        let id = |name: &str, text: &str| {
            Id::new(&field(name, text)?).ok_or_else(|| anyhow!("{name} of {} is longer than 7 bytes", entry.name))
        };
        let alg = Alg::from_cose(entry.alg).ok_or_else(|| anyhow!("alg of {} is 10 or 11", entry.name))?;
        let secret = field("master_secret", &entry.master_secret)?;
        let salt = entry.master_salt.as_deref().map(|t| field("master_salt", t)).transpose()?.unwrap_or_default();
        let id_context = entry.id_context.as_deref().map(|t| field("id_context", t)).transpose()?;
        let (device, peer) = (id("device_id", &entry.device_id)?, id("peer_id", &entry.peer_id)?);
        if device == peer {
            bail!("device_id and peer_id of {} are equal", entry.name);
        }
        let of_device = Params {
            alg,
            master_secret: &secret,
            master_salt: &salt,
            id_context: id_context.as_ref().map(|c| c.as_slice()),
            sender_id: device,
            recipient_id: peer,
        };
        let of_peer = Params { sender_id: peer, recipient_id: device, ..of_device };
        let ends = match entry.level {
            2 => Ends::E2 { device: Box::new(Context::derive(&of_device)), peer: Box::new(Context::derive(&of_peer)) },
            3 => Ends::E3 { device: Box::new(Context::derive(&of_device)), peer: Box::new(Context::derive(&of_peer)) },
            other => bail!("level of {} is 2 or 3, not {other}", entry.name),
        };
        Ok(Self { name: entry.name.clone(), alg, id_context: id_context.map(|c| c.to_vec()), ends })
    }

    /// 2 or 3.
    pub fn level(&self) -> u8 {
        match self.ends {
            Ends::E2 { .. } => 2,
            Ends::E3 { .. } => 3,
        }
    }

    /// The OSCORE id of one side.
    pub fn id_of(&self, side: Sender) -> Id {
        match (&self.ends, side) {
            (Ends::E2 { device, .. }, Sender::Device) => device.sender_id(),
            (Ends::E2 { peer, .. }, Sender::Peer) => peer.sender_id(),
            (Ends::E3 { device, .. }, Sender::Device) => device.sender_id(),
            (Ends::E3 { peer, .. }, Sender::Peer) => peer.sender_id(),
        }
    }

    /// Opens a request that `from` sent.
    ///
    /// # Errors
    /// What a receiver would count.
    pub fn open_request(&self, from: Sender, piv: PartialIv, ciphertext: &[u8]) -> Result<Vec<u8>, Rejected> {
        fn open<L: OscoreLevel>(c: &Context<L>, piv: PartialIv, sealed: &[u8]) -> Result<Vec<u8>, Rejected> {
            let mut out = vec![0; sealed.len()];
            Ok(c.open_request(piv, sealed, &mut out)?.plaintext().to_vec())
        }
        match (&self.ends, from) {
            (Ends::E2 { peer, .. }, Sender::Device) => open(peer, piv, ciphertext),
            (Ends::E2 { device, .. }, Sender::Peer) => open(device, piv, ciphertext),
            (Ends::E3 { peer, .. }, Sender::Device) => open(peer, piv, ciphertext),
            (Ends::E3 { device, .. }, Sender::Peer) => open(device, piv, ciphertext),
        }
    }

    /// Opens an answer that `from` sent to the other side's request number `request`.
    ///
    /// # Errors
    /// What a receiver would count.
    pub fn open_answer(
        &self,
        from: Sender,
        request: PartialIv,
        piv: Option<PartialIv>,
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, Rejected> {
        fn open<L: OscoreLevel>(
            c: &Context<L>,
            request: PartialIv,
            piv: Option<PartialIv>,
            sealed: &[u8],
        ) -> Result<Vec<u8>, Rejected> {
            let mut out = vec![0; sealed.len()];
            let to = RequestId { kid: c.sender_id(), piv: request };
            Ok(c.open_answer(&to, piv, sealed, &mut out)?.plaintext().to_vec())
        }
        match (&self.ends, from) {
            (Ends::E2 { peer, .. }, Sender::Device) => open(peer, request, piv, ciphertext),
            (Ends::E2 { device, .. }, Sender::Peer) => open(device, request, piv, ciphertext),
            (Ends::E3 { peer, .. }, Sender::Device) => open(peer, request, piv, ciphertext),
            (Ends::E3 { device, .. }, Sender::Peer) => open(device, request, piv, ciphertext),
        }
    }
}

fn wiped<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}

fn bytes(text: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    Ok(Zeroizing::new(hex::decode(text).context("is not hex")?))
}
