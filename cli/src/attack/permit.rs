//! The operator's word that a deployment of his own may be attacked: which addresses, by which attacks, until when; signed
//! with the key of his CA. Whoever has no such key permits nothing, and a permit of one deployment is none of another's.
//!
//! A file of TOML. Its last line is the signature, over every byte before it: what is read was signed.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use fivefold_core::proof::{Sign as _, Verify as _};
use fivefold_keep::ca::{SpkiHash, spki_of};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::format;
use fivefold_keep::share::CA_FILE;
use fivefold_keep::sign::{SigningKey, VerifyingKey};
use fivefold_keep::vault::random;
use serde::{Deserialize, Serialize};

use super::each;

/// File name in the operator's folder.
pub const PERMIT_FILE: &str = "range-permit.toml";
/// How long a permit is valid at most.
pub const LONGEST: u64 = 7 * 86_400;
/// Addresses at most.
const MOST: usize = 4_096;
/// Bytes at most.
const LONGEST_FILE: usize = 256 * 1024;
/// What is signed begins so: the key of the CA signs other things as well.
const DOMAIN: &[u8] = b"fivefold range permit 1\0";
/// Begins the last line.
const SIGNATURE: &str = "signature = \"";

/// A permit whose signature is good and whose time is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    body: Body,
}

/// What stands in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// SHA-256 of the public key of the deployment's CA.
    deployment: String,
    /// When it ends, Unix seconds.
    not_after: u64,
    /// 128 random bits: no two permits are one.
    nonce: String,
    /// Names of attacks.
    attacks: BTreeSet<String>,
    /// Addresses that may be spoken to.
    addresses: BTreeSet<SocketAddr>,
}

impl Permit {
    /// Signs a permit and writes it.
    ///
    /// # Errors
    /// It would permit too much, or the file cannot be written.
    pub fn write(
        path: &Path,
        key: &SigningKey,
        addresses: BTreeSet<SocketAddr>,
        attacks: BTreeSet<String>,
        (now, not_after): (u64, u64),
    ) -> anyhow::Result<Self> {
        let nonce = hex::encode(random::<16>()?.as_slice());
        let body = Body { deployment: SpkiHash::of(key.spki()).to_string(), not_after, nonce, attacks, addresses };
        body.check(now)?;
        let text =
            format!("# What `fivefold range run` may do, by the word of the operator.\n{}", toml::to_string(&body)?);
        let signature = key.sign(&[DOMAIN, text.as_bytes()]).context("the permit cannot be signed")?;
        let whole = format!("{text}{SIGNATURE}{}\"\n", hex::encode(signature.0));
        files::write(path, Readers::Everybody, whole.as_bytes())?;
        Ok(Self { body })
    }

    /// Reads a permit: `ca` is the certificate of the deployment's CA, PEM.
    ///
    /// # Errors
    /// One sentence: it is no permit, of another deployment, altered, or its time is over.
    pub fn read(path: &Path, ca: &Path, now: u64) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = files::read_text(path).with_context(|| {
            format!("no permit can be read at {shown}; make one with: fivefold range permit --until DAY")
        })?;
        let ca = files::read_text(ca)?;
        Self::parse(&text, &ca, now).with_context(|| format!("the permit {shown} permits nothing"))
    }

    fn parse(text: &str, ca: &str, now: u64) -> anyhow::Result<Self> {
        ensure!(text.len() <= LONGEST_FILE, "it is longer than a permit can be");
        let at = text.rfind(SIGNATURE).context("it is not signed")?;
        let (body, signature) = text.split_at(at);
        let signature = signature.trim_end().strip_prefix(SIGNATURE).and_then(|s| s.strip_suffix('"'));
        let signature = signature.and_then(|s| hex::decode(s).ok()).context("its last line is no signature")?;
        let spki = spki_of(ca)?;
        let key = VerifyingKey::from_spki(&spki)?;
        ensure!(
            key.verify(&[DOMAIN, body.as_bytes()], &signature).is_ok(),
            "this deployment's operator did not sign it, or it was altered"
        );
        let body: Body = format::from_toml("it", body)?;
        ensure!(body.deployment == SpkiHash::of(&spki).to_string(), "it is of another deployment");
        body.check(now)?;
        Ok(Self { body })
    }

    /// Whether an address may be spoken to: one that stands in it, and no other.
    pub fn allows(&self, address: SocketAddr) -> bool {
        self.body.addresses.contains(&address)
    }

    /// Whether an attack may be tried.
    pub fn admits(&self, attack: &str) -> bool {
        self.body.attacks.contains(attack)
    }

    /// All that may be spoken to.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.body.addresses.iter().copied()
    }

    /// All attacks that may be tried.
    pub fn attacks(&self) -> impl Iterator<Item = &str> {
        self.body.attacks.iter().map(String::as_str)
    }

    /// When it ends, Unix seconds.
    pub const fn not_after(&self) -> u64 {
        self.body.not_after
    }

    /// What names it.
    pub fn nonce(&self) -> &str {
        &self.body.nonce
    }
}

impl Body {
    fn check(&self, now: u64) -> anyhow::Result<()> {
        ensure!(now <= self.not_after, "its time ended at {}", crate::clock::text(self.not_after));
        ensure!(
            self.not_after - now <= LONGEST,
            "it would be valid for more than 7 days, until {}",
            crate::clock::text(self.not_after)
        );
        ensure!(!self.addresses.is_empty() && !self.attacks.is_empty(), "it names no address, or no attack");
        ensure!(self.addresses.len() <= MOST, "it names more than {MOST} addresses");
        if let Some(unknown) = self.attacks.iter().find(|name| each::named(name).is_none()) {
            bail!("no attack is called {unknown}; see: fivefold range list");
        }
        match self.addresses.iter().find(|address| !is_one_party(address)) {
            Some(many) => bail!("{many} is no address of one party"),
            None => Ok(()),
        }
    }
}

/// Whether this is the address of one party: no broadcast, no group, nothing that stands for all.
fn is_one_party(address: &SocketAddr) -> bool {
    let is_one = match address.ip() {
        // The last number of a network of 256, whatever the mask really is: it is where broadcasts go.
        IpAddr::V4(ip) => !ip.is_broadcast() && (ip.is_loopback() || ip.octets()[3] != 255),
        IpAddr::V6(_) => true,
    };
    is_one && address.port() != 0 && !address.ip().is_multicast() && !address.ip().is_unspecified()
}

/// The CA of an operator's folder.
pub fn ca_of(dir: &Path) -> std::path::PathBuf {
    dir.join(CA_FILE)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use fivefold_keep::ca::Authority;

    pub(crate) const NOW: u64 = 1_800_000_000;

    /// A CA's certificate and key, in a folder.
    pub(crate) fn operator(folder: &Path) -> SigningKey {
        let (authority, key) = Authority::create("test").unwrap();
        std::fs::write(ca_of(folder), authority.certificate()).unwrap();
        SigningKey::from_pkcs8(&key).unwrap()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn addresses(all: &[&str]) -> BTreeSet<SocketAddr> {
        all.iter().map(|a| a.parse().unwrap()).collect()
    }

    fn made(folder: &Path, all: &[&str], until: u64) -> anyhow::Result<Permit> {
        let key = operator(folder);
        Permit::write(&folder.join("p"), &key, addresses(all), set(&["recorder-flips"]), (NOW, until))
    }

    #[test]
    fn a_permit_permits_what_it_names_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let written = made(at, &["127.0.0.1:5000", "192.0.2.7:9"], NOW + 60).unwrap();
        let permit = Permit::read(&at.join("p"), &ca_of(at), NOW + 60).unwrap();
        assert_eq!(permit, written);
        assert!(permit.allows("127.0.0.1:5000".parse().unwrap()) && permit.allows("192.0.2.7:9".parse().unwrap()));
        for other in ["127.0.0.1:5001", "127.0.0.2:5000", "192.0.2.7:10", "[::1]:5000"] {
            assert!(!permit.allows(other.parse().unwrap()), "{other}");
        }
        assert!(permit.admits("recorder-flips") && !permit.admits("recorder-reads"));
    }

    #[test]
    fn a_permit_that_is_over_foreign_or_altered_permits_nothing() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = folder.path();
        made(at, &["127.0.0.1:5000"], NOW + 60).unwrap();
        operator(other.path());
        let path = at.join("p");
        let wrong = |ca: &Path, now| format!("{:#}", Permit::read(&path, &ca_of(ca), now).unwrap_err());
        assert!(wrong(at, NOW + 61).contains("its time ended"), "{}", wrong(at, NOW + 61));
        assert!(wrong(other.path(), NOW).contains("did not sign it"));
        let text = std::fs::read_to_string(&path).unwrap();
        // A digit of the port, the day, an attack more, one less, a second signature, none: every byte counts.
        let mut altered: Vec<String> = (0..text.len() - 1)
            .map(|i| {
                let mut bytes = text.clone().into_bytes();
                bytes[i] ^= 1;
                String::from_utf8(bytes).unwrap()
            })
            .collect();
        altered.push(text.replace("5000", "5001"));
        altered.push(text.lines().filter(|l| !l.starts_with("signature")).collect::<Vec<_>>().join("\n"));
        altered.push(format!("{text}addresses = [\"127.0.0.1:1\"]\n"));
        for altered in altered.iter().chain([&String::new(), &"x".repeat(LONGEST_FILE + 1)]) {
            std::fs::write(&path, altered).unwrap();
            assert!(Permit::read(&path, &ca_of(at), NOW).is_err(), "{altered}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(wrong(at, NOW).contains("fivefold range permit"));
    }

    #[test]
    fn nobody_signs_a_permit_for_everybody_or_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let all =
            ["0.0.0.0:1", "255.255.255.255:1", "192.0.2.255:1", "224.0.0.1:1", "[::]:1", "[ff02::1]:1", "127.0.0.1:0"];
        for address in all {
            let wrong = made(folder.path(), &[address], NOW + 60).unwrap_err().to_string();
            assert!(wrong.contains("no address of one party"), "{address}: {wrong}");
        }
        let wrong = made(folder.path(), &["127.0.0.1:1"], NOW + LONGEST + 1).unwrap_err().to_string();
        assert!(wrong.contains("7 days"), "{wrong}");
        assert!(made(folder.path(), &["127.0.0.1:1"], NOW + LONGEST).is_ok());
        assert!(made(folder.path(), &[], NOW + 60).is_err());
        let key = operator(folder.path());
        let none = Permit::write(
            &folder.path().join("p"),
            &key,
            addresses(&["127.0.0.1:1"]),
            set(&["no-such"]),
            (NOW, NOW + 60),
        );
        assert!(none.unwrap_err().to_string().contains("no-such"));
    }
}
