//! What a village needs to convince strangers: an operator's CA, a log over what its cloud stored, and two witnesses. Bundles
//! come out of the cloud's own code.

use fivefold_cloud::evidence::export;
use fivefold_cloud::log::{Events, Logging, Serving, WitnessConfig};
use fivefold_cloud::store::Write;
use fivefold_core::id::Did;
use fivefold_core::time::Millis;
use fivefold_evidence::bundle::Bundles;
use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::cosignature::CosigningKey;
use fivefold_evidence::note::Kind;
use fivefold_evidence::trust;
use fivefold_keep::ca::{Authority, SpkiHash, chain_der, spki_of};
use fivefold_keep::registry::{ReceiptCertificate, ReceiptSigner};
use zeroize::Zeroizing;

use crate::World;
use crate::cloud::CloudStation;
use crate::family::wall;
use crate::world::folder;

/// Days for which keys are certified.
const DAYS: u32 = 90;
/// Seconds between the cosignatures of the two witnesses.
const BETWEEN: u64 = 7;

/// The operator of a village, and who watches him.
#[derive(Debug)]
pub struct Deployment {
    authority: Authority,
    logging: Logging,
    witnesses: [CosigningKey; 2],
    /// What a stranger believes: the CA, the log, both witnesses, one of which signs with ML-DSA-44.
    pub trust: String,
    _folder: tempfile::TempDir,
}

impl Deployment {
    /// Certifies the keys of a village that has come to its end, and logs what its cloud stored.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn over(world: &mut World) -> anyhow::Result<Self> {
        let (authority, _) = Authority::create("village")?;
        let from = wall(0).0 / 1000 - 60;
        for signer in world.cloud.signers() {
            signer.chain = authority.certify_classic(signer.did, &signer.spki, from, DAYS)?.chain;
        }
        for gateway in &world.gateways {
            let (name, spki) = (gateway.proven.name(), gateway.receipt_key().spki().to_vec());
            let certified = authority.certify_receipts(name, &spki, from, DAYS)?;
            let (not_before, not_after) = (certified.not_before, certified.not_after);
            let certificates = vec![ReceiptCertificate { not_before, not_after, chain: chain_der(&certified.chain) }];
            let gateway = name.gateway;
            world.cloud.receipt_signers.push(ReceiptSigner { gateway, spki, certificates, revoked_at: None });
        }
        restart(world)?;
        let ca = authority.certificate().to_owned();
        let seed = |n: u8| Zeroizing::new([n; 32]);
        let hash = SpkiHash::of(&spki_of(&ca)?);
        let origin = format!("fivefold.{}/log", hex::encode(hash.0.get(..4).unwrap_or_default()));
        let witnesses = [
            CosigningKey::from_seed("witness.example/one", Kind::Witness, &seed(1))?,
            CosigningKey::from_seed("witness.example/two", Kind::WitnessPq, &seed(2))?,
        ];
        let keys = witnesses.each_ref().map(|w| w.vkey().clone());
        // Nobody is asked over a network: they cosign in `publish`.
        let config = |key| WitnessConfig { url: "http://127.0.0.1:1".into(), keys: vec![key], ca: None };
        let configs = keys.clone().map(config);
        let folder = folder()?;
        let memory = engine(&world.cloud)?.memory();
        let key = LogKey::from_seed(&origin, &seed(3))?;
        let logging = Logging::open(folder.path(), key, &configs, Serving::ToNobody, memory)?;
        let trust = trust::write(&[ca], logging.log().vkey(), &keys, (2, 1), &[])?;
        Ok(Self { authority, logging, witnesses, trust, _folder: folder })
    }

    /// Whoever certifies for the village.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Writes what waits into the log, and shows a head that both witnesses cosigned, the first of them at this Unix second.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn publish(&self, cloud: &CloudStation, at: u64) -> anyhow::Result<()> {
        self.logging.write(engine(cloud)?.memory())?;
        let mut signed = self.logging.log().sign()?;
        let head = signed.unverified().clone();
        for (witness, at) in self.witnesses.iter().zip([at, at + BETWEEN]) {
            signed.add(witness.danger_cosign(at, &head)?)?;
        }
        self.logging.log().show(&signed)?;
        Ok(())
    }

    /// Bundles of all readings of a device that can have one.
    ///
    /// # Errors
    /// When the cloud's own code finds none to be had.
    pub fn export(&self, cloud: &CloudStation, did: Did) -> anyhow::Result<Vec<Vec<u8>>> {
        let engine = engine(cloud)?;
        let book = engine.book();
        let all = |r: &_| Ok(export(r, &book, &self.logging, did, Millis(0), Millis(i64::MAX as u64)));
        let bundles = engine.memory().read(all)??.bundles;
        if bundles.is_empty() {
            return Ok(Vec::new());
        }
        let each = Bundles::new(&bundles).map_err(|e| anyhow::anyhow!("bundles: {}", e.reason))?;
        each.map(|b| Ok(b.map_err(|e| anyhow::anyhow!("a bundle: {}", e.reason))?.emit()?)).collect()
    }

    /// Revokes the signing keys of a device as of this Unix second; the log says so with the next head.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn revoke(&self, world: &mut World, did: Did, since: u64) -> anyhow::Result<()> {
        world.cloud.signers().filter(|s| s.did == did).for_each(|s| s.revoked_at = Some(since));
        restart(world)
    }
}

/// Another process reads the book again, and queues for the log what is new in it, as the service does.
fn restart(world: &mut World) -> anyhow::Result<()> {
    world.cloud.kill();
    world.cloud.start(world.now)?;
    let engine = engine(&world.cloud)?;
    let events = Events::of(&engine.memory().read(|r| r.log_records())?);
    let mut write = Write { now: wall(world.now), ..Write::default() };
    write.log.records = events.news(&engine.book(), None);
    engine.memory().store().commit_now(write)?;
    Ok(())
}

fn engine(cloud: &CloudStation) -> anyhow::Result<&fivefold_cloud::cloud::Cloud<fivefold_cloud::embedded::Embedded>> {
    cloud.engine().ok_or_else(|| anyhow::anyhow!("the cloud is not running"))
}
