//! Whether devices sign their readings, and the certificates of the keys with which they do (docs/protocol.md 11.1, 13.1).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use fivefold_core::id::Did;
use fivefold_core::profile::{Policy, Sign};
use fivefold_core::proof::possession::Possession;
use fivefold_core::suite::agreement::PublicX;
use fivefold_core::wire::enrolment::SigningRequest;
use fivefold_keep::ca::{Authority, DEVICE_DAYS};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::{Device, KeyOrigin, Registry, Replaces, Signer};
use fivefold_keep::sign::{RsaSigningKey, VerifyingKey};
use fivefold_waspmote::Serial;
use serde_json::{Value, json};

use super::enrol::not_old;
use crate::clock;
use crate::operator::Folder;
use crate::output::{Output, answer};
use crate::paper;

/// Most readings in a batch of a device that nobody answers (docs/protocol.md 13.1).
const ONE_WAY: u8 = 8;

/// Whether readings are signed, as it is typed: `none`, `batch`, or `batch:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signing {
    /// Readings in a batch, if they are signed.
    pub batch: Option<u8>,
}

impl Signing {
    /// Not at all.
    pub const NONE: Self = Self { batch: None };

    /// Into a record.
    pub fn set(self, policy: &mut Policy) {
        match self.batch {
            None => policy.sign = Sign::None,
            Some(batch) => (policy.sign, policy.batch) = (Sign::Batch, batch),
        }
    }

    /// Out of a record.
    pub fn of(policy: &Policy) -> Self {
        Self { batch: (policy.sign == Sign::Batch).then_some(policy.batch) }
    }
}

impl std::fmt::Display for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.batch {
            None => f.write_str("none"),
            Some(batch) => write!(f, "batch:{batch}"),
        }
    }
}

impl FromStr for Signing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let batch = match text.split_once(':') {
            None if text == "none" => return Ok(Self::NONE),
            None if text == "batch" => Some(32),
            Some(("batch", n)) => n.parse().ok().filter(|n| (1..=64).contains(n)),
            _ => None,
        };
        let batch = batch.ok_or("expected none, batch, or batch:N with 1 to 64 readings")?;
        Ok(Self { batch: Some(batch) })
    }
}

/// What a device's record says of signing.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Signs {
    /// Whether it signs its readings, in batches of N: none, batch (32) or batch:N [default: as its network says].
    #[arg(long, value_name = "none|batch[:N]")]
    pub sign: Option<Signing>,
    /// Nobody answers this device (no downlink): it signs at most 8 readings in a batch.
    #[arg(long)]
    pub no_downlink: bool,
}

impl Signs {
    /// What holds for a device, where `network` is what its network says.
    ///
    /// # Errors
    /// More readings in a batch than a device without downlink may sign.
    pub fn resolve(&self, network: Option<u8>) -> anyhow::Result<Signing> {
        let mut signing = self.sign.unwrap_or(Signing { batch: network });
        if self.no_downlink {
            anyhow::ensure!(
                self.sign.and_then(|s| s.batch).is_none_or(|n| n <= ONE_WAY),
                "a device without downlink signs at most {ONE_WAY} readings in a batch, for nobody can ask it for what was \
                 lost: --sign batch:{ONE_WAY}"
            );
            signing.batch = signing.batch.map(|n| n.min(ONE_WAY));
        }
        Ok(signing)
    }
}

/// Where a signing key was made, as the operator types it.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Made {
    /// The signing key lies in a secure element, which does not give it out. Your word for it stands in the evidence.
    #[arg(long, conflicts_with = "made_elsewhere")]
    secure_element: bool,
    /// The signing key was not made on the device: whoever made it may have kept it (AR-26).
    #[arg(long)]
    made_elsewhere: bool,
}

impl Made {
    pub(super) const fn origin(&self) -> KeyOrigin {
        match (self.secure_element, self.made_elsewhere) {
            (true, _) => KeyOrigin::SecureElement,
            (_, true) => KeyOrigin::Elsewhere,
            _ => KeyOrigin::Device,
        }
    }
}

/// Arguments of `fivefold device certify`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Certify {
    #[command(flatten)]
    folder: Folder,
    /// The device, by its EUI-64.
    did: Did,
    /// What it asks with: the file of `fivefold node signing-request`, or the text itself (FV1:...). `-` reads standard input.
    #[arg(long, value_name = "FILE|TEXT", required_unless_present = "make")]
    request: Option<String>,
    /// Of a hardened classic node, which can make none: make an RSA-2048 key here, write it to this file (PKCS #8, DER,
    /// readable by you alone) to be flashed, and certify it as one that was made elsewhere (AR-26).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["request", "fingerprint", "secure_element", "made_elsewhere"])]
    make: Option<PathBuf>,
    /// Refuse any request but the one with this fingerprint, as the device showed it.
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
    #[command(flatten)]
    made: Made,
    /// The key takes the place of the one that is in force, which is revoked in this moment.
    #[arg(long)]
    replace: bool,
}

/// Certifies the signing key of a device that is in the book.
///
/// # Errors
/// The request is none, too old or another device's; the proof does not hold; the key is a weak one, or has another use.
pub(super) fn certify(args: &Certify, output: Output) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.make {
        make(args, file, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let request = args.request.as_deref().unwrap_or_default();
    let bytes = if request.starts_with(fivefold_core::wire::enrolment::TEXT) {
        paper::bytes_of(request.as_bytes())?
    } else {
        paper::read(&PathBuf::from(request))?
    };
    let now = clock::now()?;
    let request = SigningRequest::parse(&bytes)?;
    not_old(request.made, now)?;
    anyhow::ensure!(
        request.did == args.did,
        "this request is of device {}, not of {}; name the device that asks",
        request.did,
        args.did
    );
    let found = request.fingerprint().to_string();
    if let Some(wanted) = &args.fingerprint {
        anyhow::ensure!(
            plain(wanted) == plain(&found),
            "the fingerprint of this request is {found}, not {wanted}: it is another device's, or was changed on its way"
        );
    }
    let mut operator = args.folder.open()?;
    let registry = &operator.registry;
    let device = registry.device(args.did)?;
    anyhow::ensure!(
        device.revoked_at.is_none(),
        "device {} is revoked: nothing of it is certified any more",
        device.did
    );
    let dh = registry.renewal(args.did)?.map(|r| r.x);
    anyhow::ensure!(
        request.x == dh,
        "device {} asks with another DH key than the book has: it was enrolled again since, or the request is not its own; let \
         it write a new one",
        device.did
    );
    prove(&request.signing, args.did, dh.as_ref())?;
    let replaces = if args.replace { Replaces::TheOneInForce } else { Replaces::Nothing };
    if let Some(why) = registry.examine_signing_key(args.did, dh, &request.signing.key, replaces)? {
        anyhow::bail!(why);
    }
    let before = registry.signer(args.did)?;
    let signer = sign(&operator.authority()?, args.did, &request.signing, args.made.origin(), now)?;
    let signer = operator.registry.enter_signer(&signer, replaces)?;
    let replaced = before.filter(|b| b.spki != signer.spki);
    let mut value = json_of(&signer);
    if let Some(object) = value.as_object_mut() {
        object.insert("did".into(), json!(args.did.to_string()));
        object.insert("fingerprint".into(), json!(found));
        object.insert("certificate".into(), json!(signer.chain));
        object.insert("replaced".into(), json!(replaced.as_ref().map(|r| r.name().to_string())));
    }
    answer(output, &value, || {
        let until = clock::text(signer.not_after);
        let mut said = format!(
            "Certified signing key {} of device {} until {until} ({}).\nIts request has the fingerprint {found}: compare it at \
             the device.",
            signer.name(),
            args.did,
            signer.origin.as_str()
        );
        if let Some(before) = replaced {
            said.push_str(&format!(
                "\nKey {} is revoked: what it signs from now on counts for nothing.",
                before.name()
            ));
        }
        if device.policy.sign == Sign::None {
            said.push_str(&format!(
                "\nIts record does not demand that it signs; let it: fivefold device set --dir {} {} --sign batch",
                args.folder.dir.display(),
                args.did
            ));
        }
        said
    });
    Ok(ExitCode::SUCCESS)
}

/// Makes the signing key of a hardened classic node, and certifies it.
fn make(args: &Certify, file: &Path, output: Output) -> anyhow::Result<()> {
    let (now, serial) = (clock::now()?, Serial::V15(args.did.0));
    let mut operator = args.folder.open()?;
    let replaces = if args.replace { Replaces::TheOneInForce } else { Replaces::Nothing };
    if let Some(why) = operator.registry.examine_classic_signer(serial, replaces)? {
        anyhow::bail!(why);
    }
    anyhow::ensure!(
        !file.exists(),
        "{} exists already, and may be the key of another node: name another file",
        file.display()
    );
    let (key, pkcs8) = RsaSigningKey::generate()?;
    let certified = operator.authority()?.certify_classic(args.did, key.spki(), now, DEVICE_DAYS)?;
    let signer = Signer::of_spki(args.did, key.spki(), KeyOrigin::Elsewhere, &certified, now);
    files::write(file, Readers::Owner, &pkcs8)?;
    operator.registry.enter_classic_signer(serial, &signer, replaces)?;
    let mut value = json_of(&signer);
    if let Some(object) = value.as_object_mut() {
        object.insert("did".into(), json!(args.did.to_string()));
        object.insert("certificate".into(), json!(signer.chain));
        object.insert("file".into(), json!(file));
    }
    answer(output, &value, || {
        format!(
            "Certified signing key {} of classic device {serial} until {} ({}).\nIts private half is in {}: flash it, and delete the \
             file. Whoever has a copy signs in the name of this device (AR-26).",
            signer.name(),
            clock::text(signer.not_after),
            signer.origin.as_str(),
            file.display()
        )
    });
    Ok(())
}

/// Revokes the signing key of a hardened classic node, and nothing else of it.
pub(super) fn revoke_classic(registry: &mut Registry, serial: Serial, output: Output) -> anyhow::Result<()> {
    let signer = registry.revoke_classic_signer(serial, clock::now()?)?;
    answer(output, &json_of(&signer), || {
        format!(
            "Revoked signing key {} of classic device {serial}: what it signs from now on proves nothing. Its readings are still \
             taken, and what witnesses saw before stays proven.",
            signer.name()
        )
    });
    Ok(())
}

/// A fingerprint without what people put into it.
pub(super) fn plain(fingerprint: &str) -> String {
    fingerprint.replace('-', "").to_lowercase()
}

/// Whether a device has the signing key that it asks with.
///
/// # Errors
/// It is no key, or the proof is another key's, another device's, or for another DH key.
pub(super) fn prove(asked: &Possession, did: Did, dh: Option<&PublicX>) -> anyhow::Result<()> {
    let key = VerifyingKey::from_spki(&asked.key.spki()).with_context(|| format!("the signing key of device {did}"))?;
    asked.verify(&key, did, dh).map_err(|_| {
        anyhow::anyhow!(
            "device {did} does not prove that the signing key is its own: the proof is another key's or another device's, or \
             the request was changed"
        )
    })
}

/// The certificate of a signing key that was examined, to be entered.
pub(super) fn sign(
    authority: &Authority,
    did: Did,
    asked: &Possession,
    origin: KeyOrigin,
    now: u64,
) -> anyhow::Result<Signer> {
    let certified = authority.certify_device(did, &asked.key, now, DEVICE_DAYS)?;
    Ok(Signer::new(did, &asked.key, origin, &certified, now))
}

/// Revokes the signing key of a device, and nothing else of it.
pub(super) fn revoke(registry: &mut Registry, did: Did, output: Output) -> anyhow::Result<()> {
    let signer = registry.revoke_signer(did, clock::now()?)?;
    let mut value = json_of(&signer);
    if let Some(object) = value.as_object_mut() {
        object.insert("did".into(), json!(did.to_string()));
    }
    answer(output, &value, || {
        format!(
            "Revoked signing key {} of device {did}: what it signs from now on proves nothing. Its readings are still taken, and \
             what witnesses saw before stays proven.\nNext, at the device: fivefold node signing-request --new",
            signer.name()
        )
    });
    Ok(())
}

/// Arguments of `fivefold device set`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Set {
    #[command(flatten)]
    folder: Folder,
    /// The device, by its EUI-64.
    did: Did,
    /// Whether it signs its readings, in batches of N: none, batch (32) or batch:N.
    #[arg(long, value_name = "none|batch[:N]")]
    sign: Signing,
}

/// Changes what the record of a device says of signing. The device has to be told by hand.
pub(super) fn set(args: &Set, output: Output) -> anyhow::Result<ExitCode> {
    let (_, mut registry) = args.folder.open_book()?;
    let mut policy = registry.device(args.did)?.policy;
    args.sign.set(&mut policy);
    let device = registry.set_policy(args.did, policy)?;
    let signer = registry.signer(args.did)?;
    let value = super::json_of(&registry, &device, registry.renewal(args.did)?.as_ref())?;
    answer(output, &value, || {
        let in_file = match args.sign.batch {
            Some(n) => format!("sign_batch = {n}"),
            None => "no line sign_batch".into(),
        };
        let missing = if args.sign.batch.is_some() && signer.is_none() {
            "\nIt has no signing key yet (AR-25). At the device: fivefold node signing-request"
        } else {
            ""
        };
        format!(
            "The record of device {} says sign = {} from now on. It must say the same at the device: {in_file} under [policy] of \
             its node.toml, then start it again.{missing}",
            args.did, args.sign
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// For a program.
pub(super) fn json_of(signer: &Signer) -> Value {
    json!({
        "key": signer.name().to_string(), "spki": hex::encode(&signer.spki), "origin": signer.origin.wire(),
        "origin_words": signer.origin.as_str(), "certified_at": signer.certified_at, "not_after": signer.not_after,
        "revoked_at": signer.revoked_at,
    })
}

/// For a person: what a device signs with.
pub(super) fn words(device: &Device, signers: &[Signer]) -> String {
    let signing = Signing::of(&device.policy);
    let demanded = match signing.batch {
        Some(n) => format!("demanded, {n} readings in a batch"),
        None => "not demanded".into(),
    };
    let (in_force, revoked): (Vec<_>, Vec<_>) = signers.iter().partition(|s| s.revoked_at.is_none());
    let key = match in_force.first() {
        Some(s) => format!("key {} {}, certified until {}", s.name(), s.origin.as_str(), clock::text(s.not_after)),
        None if signing.batch.is_some() && device.revoked_at.is_none() => "no key (AR-25)".into(),
        None => "no key".into(),
    };
    let before = revoked.iter().map(|s| {
        let at = s.revoked_at.map(clock::text).unwrap_or_default();
        format!("\n               key {} revoked {at}", s.name())
    });
    format!("{demanded}; {key}{}", before.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_of_signing_is_what_is_said_again() {
        for (text, batch) in [("none", None), ("batch:1", Some(1)), ("batch:64", Some(64))] {
            let signing: Signing = text.parse().unwrap();
            assert_eq!((signing.batch, signing.to_string().as_str()), (batch, text));
        }
        assert_eq!("batch".parse(), Ok(Signing { batch: Some(32) }));
        for text in ["", "batch:", "batch:0", "batch:65", "batch:-1", "each", "none:3"] {
            assert!(text.parse::<Signing>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_without_downlink_signs_eight_readings_at_most() {
        let signs = |sign: Option<&str>, no_downlink| Signs { sign: sign.map(|s| s.parse().unwrap()), no_downlink };
        let batch = |s: Signs, network| s.resolve(network).unwrap().batch;
        assert_eq!(batch(signs(None, false), Some(16)), Some(16), "as the network says");
        assert_eq!(batch(signs(Some("none"), false), Some(16)), None);
        assert_eq!(batch(signs(None, true), Some(16)), Some(8));
        assert_eq!(batch(signs(Some("batch:4"), true), None), Some(4));
        assert!(signs(Some("batch:9"), true).resolve(None).unwrap_err().to_string().contains("at most 8"));
    }
}
