//! `fivefold node signing-request`: an enrolled node makes its signing key, and asks for its certificate.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_core::proof::possession::Possession;
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::wire::enrolment::SigningRequest;
use fivefold_keep::device_key::{DeviceAlg, DeviceSigningKey};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::share::{NODE_FILE, NodeShare, make_signing_key, signing_key};
use fivefold_keep::sign::AgreementKey;
use fivefold_keep::vault::Vault;
use serde_json::json;

use super::join::IDENTITY_FILE;
use crate::clock;
use crate::output::{Output, answer};
use crate::paper::{self, Qr};

/// `fivefold node signing-request`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The node's folder. Its signing key is made in it, unless it has one, and stays.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Write what it asks with here, for `fivefold device certify`. No secret.
    #[arg(long, value_name = "FILE")]
    request_file: Option<PathBuf>,
    /// Show what it asks with as a QR code.
    #[arg(long)]
    request_qr: bool,
    /// Make a new key in the place of the one that it has: what it signs with it counts once that is certified.
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    kind: Kind,
}

/// Of which kind a signing key is.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(skip)]
pub(super) struct Kind {
    /// Let the signing key be one of Ed25519, not of ECDSA on P-256.
    #[arg(long)]
    ed25519: bool,
}

pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<()> {
    let (dir, shown) = (args.dir.as_path(), args.dir.display());
    anyhow::ensure!(
        dir.join(NODE_FILE).exists() || !dir.join(IDENTITY_FILE).exists(),
        "{shown} waits to be enrolled, and asks for both at once: fivefold node join --dir {shown} --sign --request-file FILE"
    );
    let share = NodeShare::read(dir)?;
    let key = of(&Vault::open_folder(dir)?, dir, args.new, args.kind)?;
    let x = share.secrets.dh_key.as_ref().map(|scalar| {
        let own = AgreementKey::from_random(scalar);
        own.map(|own| own.public_x()).context("secrets.sealed: the key for renewal is none; enrol the device again")
    });
    let x = x.transpose()?;
    let signing = Possession::prove(&key, key.public(), share.did, x.as_ref())?;
    let request = SigningRequest { did: share.did, x, made: Some(clock::now()?), signing };
    let mut bytes = vec![0; SigningRequest::LONGEST];
    let len = request.emit(&mut bytes)?;
    bytes.truncate(len);
    let text = paper::text(&bytes);
    if let Some(file) = &args.request_file {
        files::write(file, Readers::Everybody, text.as_bytes())?;
    }
    let code = if args.request_qr { Some(Qr::of(&text)?) } else { None };
    let fingerprint = request.fingerprint().to_string();
    let value = json!({
        "did": share.did.to_string(), "key": fivefold_core::proof::Sign::key_name(&key).to_string(), "request": text,
        "fingerprint": fingerprint, "request_file": args.request_file, "qr_version": code.as_ref().map(Qr::version),
    });
    answer(output, &value, || {
        let mut said = format!(
            "Node {} has a signing key of its own in {shown}, which stays there.\nIts request has the fingerprint {fingerprint}.",
            share.did
        );
        let asked = match &args.request_file {
            Some(file) => file.display().to_string(),
            None => format!("'{text}'"),
        };
        said.push_str(&format!(
            "\n\nIt is good for 7 days and no secret: carry it to the operator.\n\
             There: fivefold device certify --dir FARM {} --request {asked}",
            share.did
        ));
        if let Some(code) = &code {
            said.push_str(&format!("\n\n{}", code.lines()));
        }
        said
    });
    Ok(())
}

/// The signing key in a node's folder; made, where there is none or another one is wanted.
pub(super) fn of(vault: &Vault, dir: &Path, anew: bool, kind: Kind) -> anyhow::Result<DeviceSigningKey> {
    let wanted = if kind.ed25519 { DeviceAlg::Ed25519 } else { DeviceAlg::P256 };
    if !anew && let Some(key) = signing_key(vault, dir)? {
        anyhow::ensure!(
            !kind.ed25519 || key.kind() == wanted,
            "{} has a signing key already, of ECDSA on P-256; to make one of Ed25519 in its place: fivefold node signing-request --dir \
             {0} --new --ed25519",
            dir.display()
        );
        return Ok(key);
    }
    Ok(make_signing_key(vault, dir, wanted)?)
}
