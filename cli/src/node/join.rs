//! `fivefold node join`: a software node makes its key, asks to be enrolled, and takes what it is granted
//! (docs/protocol.md 11.1).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use fivefold_core::e5_renewal::enrolment::AuthorityKey;
use fivefold_core::id::{Did, Sid};
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::wire::enrolment::Request;
use fivefold_core::wire::serial::Kind;
use fivefold_device::enrolment::{Enrolment, Granted};
use fivefold_keep::ca;
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::draw_key;
use fivefold_keep::share::{NODE_FILE, NodeLink, NodeSecrets, NodeShare, PeerKey, SECRETS_FILE, SIGNING_KEY_FILE};
use fivefold_keep::sign::AgreementKey;
use fivefold_keep::vault::{VAULT_FILE, Vault, random};
use serde_json::json;
use zeroize::Zeroizing;

use super::signing_request;
use crate::clock;
use crate::device::spoken;
use crate::output::{Output, answer};
use crate::paper::{self, Qr};
use crate::serial::{Deadline, Line, Place, in_short};

/// Sealed file with the key of a node that is not enrolled yet.
pub(crate) const IDENTITY_FILE: &str = "identity.sealed";

/// How long a node that has its answer stays on the line, for an operator who did not hear it.
const LINGER: Duration = Duration::from_secs(5);

/// `fivefold node join`.
#[derive(Debug, clap::Args)]
#[group(id = "way", required = true, multiple = true, args = ["request_file", "request_qr", "answer_file", "serial"])]
pub(super) struct Args {
    /// The node's folder: made if it is not there. Its key is made in it and stays.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Its EUI-64; drawn if not given. It stays what it is once the key is made.
    #[arg(long)]
    did: Option<Did>,
    /// Certificate of the operator's CA, ca.pem: answers of any other operator are refused.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Write what it asks with here, for `fivefold device enrol`. No secret.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["answer_file", "serial"])]
    request_file: Option<PathBuf>,
    /// Show what it asks with as a QR code.
    #[arg(long, conflicts_with_all = ["answer_file", "serial"])]
    request_qr: bool,
    /// Make a signing key too, and ask for its certificate with the same request. Once made, it is asked for each time.
    #[arg(long, conflicts_with = "answer_file")]
    sign: bool,
    #[command(flatten)]
    kind: signing_request::Kind,
    /// Take the answer of `fivefold device enrol`, as a file, or the text of its QR code. `-` reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "serial")]
    answer_file: Option<PathBuf>,
    #[command(flatten)]
    line: Place,
    /// UDP address of its radio (ZEP), or of its CoAP socket where the radio is `ip`.
    #[arg(long, value_name = "ADDR")]
    bind: Option<SocketAddr>,
    /// A radio that hears it; of an `ip` node, the gateway's CoAP address. Repeat for each.
    #[arg(long, value_name = "ADDR")]
    air: Vec<SocketAddr>,
    /// Short address to send uplink to; 0000 is any gateway in reach. Repeat for more, best first.
    #[arg(long = "parent", value_name = "SID", default_values_t = [Sid::ANY_GATEWAY])]
    parents: Vec<Sid>,
}

/// Who the node is, before it is enrolled.
struct Identity {
    did: Did,
    scalar: Zeroizing<[u8; 32]>,
    operator: Option<AuthorityKey>,
}

impl Identity {
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let operator = self.operator.as_ref().map_or(&[][..], |o| &o.0);
        Zeroizing::new([&self.did.0, self.scalar.as_slice(), operator].concat())
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (did, rest) = bytes.split_first_chunk()?;
        let (scalar, operator) = rest.split_first_chunk()?;
        let operator = match operator {
            [] => None,
            key => Some(AuthorityKey(key.try_into().ok()?)),
        };
        Some(Self { did: Did(*did), scalar: Zeroizing::new(*scalar), operator })
    }

    fn key(&self) -> anyhow::Result<AgreementKey> {
        AgreementKey::from_random(&self.scalar).with_context(|| format!("{IDENTITY_FILE} holds no key"))
    }

    fn enrolment(&self) -> anyhow::Result<Enrolment<AgreementKey>> {
        Ok(Enrolment::new(self.did, self.key()?, self.operator))
    }
}

/// A node's folder before it is enrolled.
struct Folder<'a> {
    dir: &'a Path,
    vault: Vault,
    identity: Identity,
}

/// Opens the folder; makes it, and the key in it, if there is none.
fn open<'a>(args: &'a Args) -> anyhow::Result<Folder<'a>> {
    let (dir, sealed) = (args.dir.as_path(), args.dir.join(IDENTITY_FILE));
    let shown = dir.display();
    if dir.join(NODE_FILE).exists() && dir.join(SECRETS_FILE).exists() {
        // What was granted is whole: nothing else is left of an answer that was cut short.
        files::remove(&sealed)?;
        bail!(
            "{shown} is enrolled already; run it: fivefold node run --dir {shown}. To make new keys, name a new folder, with \
             --did to keep the EUI-64"
        );
    }
    let operator = args.ca_file.as_deref().map(authority).transpose()?;
    if sealed.exists() {
        let vault = Vault::open_folder(dir)?;
        let identity = Identity::from_bytes(&vault.open_file(&sealed)?);
        let mut identity = identity.with_context(|| format!("{} is not of this version", sealed.display()))?;
        ensure!(
            args.did.is_none_or(|did| did == identity.did),
            "the key in {shown} was made for {}; leave out --did, or name a new folder",
            identity.did
        );
        ensure!(
            operator.is_none() || identity.operator.is_none() || operator == identity.operator,
            "{shown} takes the answer of another operator's CA; leave out --ca-file, or name a new folder"
        );
        if identity.operator.is_none() && operator.is_some() {
            identity.operator = operator;
            vault.seal_file(&sealed, &identity.to_bytes())?;
        }
        return Ok(Folder { dir, vault, identity });
    }
    ensure!(
        args.answer_file.is_none(),
        "{shown} has no key yet, so no answer is for it; first: fivefold node join --dir {shown} --request-file FILE"
    );
    let in_use = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(|e| is_foreign(&e))));
    ensure!(!in_use, "{shown} is not empty; name a new folder, for nothing is overwritten");
    let did = match args.did {
        Some(did) => did,
        None => {
            let mut did = *random::<8>()?;
            did[0] = (did[0] | 0x02) & !0x01; // locally administered, individual
            Did(did)
        }
    };
    files::create_folder(dir)?;
    // A power cut may have left a vault with nothing in it.
    let vault = if dir.join(VAULT_FILE).exists() { Vault::open_folder(dir)? } else { Vault::create(dir)? };
    let identity = Identity { did, scalar: draw_key()?.1, operator };
    vault.seal_file(&sealed, &identity.to_bytes())?;
    Ok(Folder { dir, vault, identity })
}

fn is_foreign(entry: &std::fs::DirEntry) -> bool {
    let ours = [VAULT_FILE, fivefold_keep::vault::PASSPHRASE_FILE].map(std::ffi::OsString::from);
    !ours.contains(&entry.file_name())
}

fn authority(file: &Path) -> anyhow::Result<AuthorityKey> {
    let shown = file.display().to_string();
    let spki = ca::spki_of(&files::read_text(file)?).with_context(|| shown.clone())?;
    AuthorityKey::from_spki(&spki).with_context(|| format!("{shown}: its key is not on P-256"))
}

pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<()> {
    let takes = args.answer_file.is_some() || args.line.serial.is_some();
    if takes {
        ensure!(
            args.bind.is_some() && !args.air.is_empty(),
            "say where its radio is, and who hears it: --bind ADDR --air ADDR (as its gateway's --air and --radio)"
        );
    }
    let folder = open(args)?;
    let mut enrolment = folder.identity.enrolment()?;
    if args.sign || args.dir.join(SIGNING_KEY_FILE).exists() {
        let key = signing_request::of(&folder.vault, folder.dir, false, args.kind)?;
        enrolment = enrolment.with_signing_key(&key, key.public())?;
    }
    let now = clock::now()?;
    let request = enrolment.request(Some(now));
    let fingerprint = Request::parse(&request)?.fingerprint().to_string();
    if let Some(file) = &args.answer_file {
        let letter = paper::read(file)?;
        let granted = enrolment.accept(&letter).with_context(|| file.display().to_string())?;
        return settle(&folder, &granted, args, output);
    }
    if let Some(path) = &args.line.serial {
        let mut line = Line::open(path, args.line.baud)?;
        let until = Deadline::after(Duration::from_secs(args.line.wait.into()));
        let granted = over(&mut line, until, &enrolment, &request, |granted| write(&folder, granted, args))?;
        told(&folder, &granted, output);
        return Ok(());
    }
    if let Some(file) = &args.request_file {
        files::write(file, Readers::Everybody, paper::text(&request).as_bytes())?;
    }
    let text = paper::text(&request);
    let code = if args.request_qr { Some(Qr::of(&text)?) } else { None };
    let did = folder.identity.did;
    let value = json!({
        "did": did.to_string(), "folder": folder.dir, "fingerprint": fingerprint, "request": text,
        "request_file": args.request_file, "qr_version": code.as_ref().map(Qr::version),
    });
    answer(output, &value, || {
        let mut said = format!(
            "Node {did} has a key of its own in {}, which stays there.\nIts request has the fingerprint {fingerprint}.",
            folder.dir.display()
        );
        if let Some(file) = &args.request_file {
            let file = file.display();
            said.push_str(&format!(
                "\n\nIt is in {file}, good for 7 days and no secret: carry it to the operator.\n\
                 There: fivefold device enrol --dir FARM --net NAME {file} --answer-file FILE"
            ));
        }
        if let Some(code) = &code {
            said.push_str(&format!("\n\n{}", code.lines()));
        }
        said
    });
    Ok(())
}

/// The device's end of the line: says its request when it is asked, and what became of the answer once that is durable.
fn over(
    line: &mut Line,
    until: Deadline,
    enrolment: &Enrolment<AgreementKey>,
    request: &[u8],
    write: impl Fn(&Granted) -> anyhow::Result<()>,
) -> anyhow::Result<Granted> {
    while let Some((kind, body)) = line.hear(until)? {
        match kind {
            Kind::Ask => line.say(Kind::Request, request)?,
            Kind::Answer => match enrolment.accept(&body) {
                Ok(granted) => {
                    write(&granted)?;
                    line.say(Kind::Stored, b"")?;
                    // Until the operator heard it, or is gone.
                    while let Ok(Some((kind, _))) = line.hear(Deadline::after(LINGER)) {
                        match kind {
                            Kind::Answer => line.say(Kind::Stored, b"")?,
                            Kind::Stored => break,
                            _ => {}
                        }
                    }
                    return Ok(granted);
                }
                Err(rejected) => {
                    line.say(Kind::Refused, in_short(&rejected.to_string()))?;
                    bail!("the answer is refused: {rejected}");
                }
            },
            Kind::Refused => bail!("the operator refuses: {}", spoken(&body)),
            Kind::Request | Kind::Stored => {}
        }
    }
    bail!("no answer came over the line; type the same command again, here and at the operator")
}

fn settle(folder: &Folder<'_>, granted: &Granted, args: &Args, output: Output) -> anyhow::Result<()> {
    write(folder, granted, args)?;
    told(folder, granted, output);
    Ok(())
}

/// Makes what was granted durable, and the key with it. Without contexts: it agrees its first ones.
fn write(folder: &Folder<'_>, granted: &Granted, args: &Args) -> anyhow::Result<()> {
    let bind = args.bind.context("--bind is missing")?;
    let share = NodeShare {
        did: granted.did,
        sid: granted.sid,
        net: granted.net,
        pan: granted.pan,
        group: granted.group,
        epoch: granted.epoch,
        policy: granted.policy,
        overrides: granted.overrides,
        link: NodeLink { bind, air: args.air.clone(), parents: args.parents.iter().map(Sid::to_string).collect() },
        cloud: Some(PeerKey { kid: granted.cloud_kid, x: granted.cloud_x }),
        gateway: None,
        secrets: NodeSecrets {
            key_index: granted.key_index,
            network_key: granted.network_key.clone(),
            e3: None,
            e2_root: None,
            root_psk: granted.root_psk.clone(),
            dh_key: Some(folder.identity.scalar.clone()),
            blind: None,
        },
    };
    share.write_under(&folder.vault, folder.dir)?;
    Ok(files::remove(&folder.dir.join(IDENTITY_FILE))?)
}

fn told(folder: &Folder<'_>, granted: &Granted, output: Output) {
    let value = json!({
        "did": granted.did.to_string(), "sid": granted.sid.to_string(), "net": granted.net.to_string(),
        "levels": granted.policy.profile.as_str(), "epoch": granted.epoch.0, "folder": folder.dir,
    });
    answer(output, &value, || {
        format!(
            "Enrolled as {} in network {} ({}). It agrees its first keys with the cloud when it starts.\n\n\
             Next: fivefold node run --dir {}",
            granted.sid,
            granted.net,
            granted.policy.profile.as_str(),
            folder.dir.display()
        )
    });
}
