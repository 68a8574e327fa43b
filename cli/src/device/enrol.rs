//! `fivefold device enrol`: devices that made their own key (docs/protocol.md 11.1).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use fivefold_core::e5_renewal::PeerKid;
use fivefold_core::e5_renewal::enrolment::{AuthorityKey, answer as seal};
use fivefold_core::id::{Did, Sid};
use fivefold_core::profile::{Mode, Sign};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::wire::enrolment::{Answer, Grant, Request};
use fivefold_core::wire::serial::Kind;
use fivefold_keep::ca::Authority;
use fivefold_keep::files::{self, Readers};
use fivefold_keep::imported;
use fivefold_keep::registry::{
    Device, DeviceKey, DeviceSecrets, FirstContexts, Network, NetworkKey, NewDevice, Replaces, can_renew, draw_key,
};
use fivefold_keep::sign::SigningKey;
use serde_json::json;

use super::{Record, bulk, json_of, network_key, signing};
use crate::clock;
use crate::operator::{Folder, Operator};
use crate::output::{Output, answer};
use crate::paper::{self, Qr};
use crate::serial::{Deadline, Line, Place, in_short};

/// How old a request may be, where its device has a clock.
const LONGEST_AGE_S: u64 = 7 * 86_400;
/// How far its clock may be ahead.
const AHEAD_S: u64 = 3600;
/// What nobody answers on a line is said again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// Arguments of `fivefold device enrol`.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "asked", required = true, multiple = false, args = ["request", "serial", "csv"])]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) folder: Folder,
    /// The network that it joins; in a CSV file, of the rows that name none.
    #[arg(long, required_unless_present = "csv")]
    pub(super) net: Option<String>,
    /// What the device asks with, as a file: of `fivefold node join --request-file`, or text off its screen. `-` reads
    /// standard input.
    request: Option<PathBuf>,
    #[command(flatten)]
    line: Place,
    /// Many at once, from a CSV file with a head: did and key (or request), and net, sid, alg, kid_length, ack_every, radio,
    /// danger_no_link where they differ from what is typed here.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sid", "again", "fingerprint", "answer_file", "qr"])]
    pub(super) csv: Option<PathBuf>,
    /// With --csv: write the answers here, one row for each device.
    #[arg(long, value_name = "FILE", requires = "csv", required_unless_present_any = ["request", "serial"])]
    pub(super) answers_file: Option<PathBuf>,
    /// With --csv: enrol the good rows although others are refused.
    #[arg(long, requires = "csv")]
    pub(super) skip_bad: bool,
    /// Write the answer to this file. It is sealed for the device: whoever carries it opens nothing.
    #[arg(long, value_name = "FILE")]
    answer_file: Option<PathBuf>,
    /// Show the answer as a QR code.
    #[arg(long)]
    qr: bool,
    /// Refuse any request but the one with this fingerprint, as the device showed it.
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
    /// Short id, 4 hex digits; the next free one if not given.
    #[arg(long)]
    sid: Option<Sid>,
    #[command(flatten)]
    pub(super) record: Record,
    /// The device is known and made new keys: after a repair, or when it lost its state.
    #[arg(long, conflicts_with = "sid")]
    again: bool,
    #[command(flatten)]
    pub(super) made: signing::Made,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// A known device has a new key.
    Again,
    /// It is new.
    New,
    /// The same request was answered before.
    Repeated,
}

/// What every answer is made with.
pub(super) struct Desk {
    /// Certifies signing keys.
    pub(super) ca: Authority,
    signer: SigningKey,
    authority: AuthorityKey,
    cloud_kid: PeerKid,
    cloud_x: PublicX,
}

impl Desk {
    /// With the CA's key and the cloud's.
    ///
    /// # Errors
    /// The CA's key is not here.
    pub(super) fn open(operator: &mut Operator) -> anyhow::Result<Self> {
        let signer = operator.signer()?;
        let authority =
            AuthorityKey::from_spki(signer.spki()).context("the key of the operator's CA is not on P-256")?;
        let cloud = operator.registry.cloud_identity(&operator.vault)?;
        Ok(Self { ca: operator.authority()?, signer, authority, cloud_kid: cloud.kid, cloud_x: cloud.key.public_x() })
    }

    /// The answer for a device in the book.
    ///
    /// # Errors
    /// No randomness.
    pub(super) fn answer(
        &self,
        request: &Request,
        device: &Device,
        secrets: &DeviceSecrets,
        (network, key): (&Network, &NetworkKey),
    ) -> anyhow::Result<Vec<u8>> {
        let grant = Grant {
            net: device.net,
            sid: device.sid,
            pan: network.pan,
            group: network.group,
            epoch: device.epoch,
            policy: device.policy,
            overrides: device.overrides,
            cloud_kid: self.cloud_kid,
            cloud_x: self.cloud_x,
            key_index: key.index,
            network_key: &key.key,
            root_psk: &secrets.root_psk,
        };
        let mut out = vec![0; Answer::LONGEST];
        let len = seal(request, &grant, (&self.signer, &self.authority), draw_key()?.0, &mut out)?;
        out.truncate(len);
        Ok(out)
    }
}

/// A request, if it is one, not too old, and its key is no weak one.
///
/// # Errors
/// One sentence.
pub(super) fn check(bytes: &[u8], now: u64) -> anyhow::Result<Request> {
    let request = Request::parse(bytes)?;
    not_old(request.made, now)?;
    check_did(request.did)?;
    imported::examine(request.x, request.did)?;
    if let Some(signing) = &request.signing {
        signing::prove(signing, request.did, Some(&request.x))?;
    }
    Ok(request)
}

/// Whether a request was written in the last days, where its device has a clock.
///
/// # Errors
/// One sentence.
pub(super) fn not_old(made: Option<u64>, now: u64) -> anyhow::Result<()> {
    if let Some(made) = made {
        let when = clock::text(made);
        anyhow::ensure!(
            made.saturating_add(LONGEST_AGE_S) >= now,
            "this request was written on {when}, more than 7 days ago; let the device write a new one"
        );
        anyhow::ensure!(
            made <= now.saturating_add(AHEAD_S),
            "this request says that it was written on {when}, which is yet to come; set the clock of the device, or of \
             this machine"
        );
    }
    Ok(())
}

/// An EUI-64 that one device can have.
pub(super) fn check_did(did: Did) -> anyhow::Result<()> {
    let is_one = did.0.first().is_some_and(|b| b & 1 == 0) && did.0 != [0; 8];
    anyhow::ensure!(is_one, "{did} is the EUI-64 of no single device: it names a group, or is zero");
    Ok(())
}

pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    if let Some(csv) = &args.csv {
        return bulk::run(args, csv, output);
    }
    anyhow::ensure!(
        args.line.serial.is_some() || args.answer_file.is_some() || args.qr,
        "say how the answer goes to the device: --answer-file FILE, --qr, or both"
    );
    let mut operator = args.folder.open()?;
    let desk = Desk::open(&mut operator)?;
    if let Some(path) = &args.line.serial {
        let mut line = Line::open(path, args.line.baud)?;
        let until = Deadline::after(Duration::from_secs(args.line.wait.into()));
        let (enrolled, letter) = over(&mut line, until, |bytes| enrol(&mut operator, &desk, bytes, args))?;
        say(&operator, &enrolled, &letter, args, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = args.request.as_deref().context("name the request of the device")?;
    let bytes = paper::read(path)?;
    let shown = path.display().to_string();
    let (enrolled, letter) = enrol(&mut operator, &desk, &bytes, args).context(shown)?;
    say(&operator, &enrolled, &letter, args, output)?;
    Ok(ExitCode::SUCCESS)
}

struct Enrolled {
    device: Device,
    request: Request,
    done: Done,
}

/// Enters the device that asks, and makes its answer. The book is durable before the answer is there.
fn enrol(operator: &mut Operator, desk: &Desk, bytes: &[u8], args: &Args) -> anyhow::Result<(Enrolled, Vec<u8>)> {
    let now = clock::now()?;
    let request = check(bytes, now)?;
    if let Some(wanted) = &args.fingerprint {
        let found = request.fingerprint().to_string();
        anyhow::ensure!(
            signing::plain(wanted) == signing::plain(&found),
            "the fingerprint of this request is {found}, not {wanted}: it is another device's, or was changed on its way"
        );
    }
    let network = operator.registry.network(args.net.as_deref().unwrap_or_default())?;
    // A device that lost its state brings another signing key too.
    let replaces = if args.again { Replaces::TheOneInForce } else { Replaces::Nothing };
    if let Some(asked) = &request.signing
        && let Some(why) = operator.registry.examine_signing_key(request.did, Some(request.x), &asked.key, replaces)?
    {
        anyhow::bail!(why);
    }
    let (device, secrets, done) = enter(operator, &request, &network, args, now)?;
    if let Some(asked) = &request.signing {
        let signer = signing::sign(&desk.ca, device.did, asked, args.made.origin(), now)?;
        operator.registry.enter_signer(&signer, replaces)?;
    }
    let key = network_key(operator, &network)?;
    let letter = desk.answer(&request, &device, &secrets, (&network, &key))?;
    Ok((Enrolled { device, request, done }, letter))
}

fn enter(
    operator: &mut Operator,
    request: &Request,
    network: &Network,
    args: &Args,
    now: u64,
) -> anyhow::Result<(Device, DeviceSecrets, Done)> {
    let (did, vault) = (request.did, &operator.vault);
    let key = DeviceKey { x: request.x, first: FirstContexts::Agreed };
    let book = &mut operator.registry;
    let Some(known) = book.known_device(did)? else {
        anyhow::ensure!(!args.again, "there is no device {did} yet; leave out --again");
        let signing = book.network_signing(network.net)?;
        let (policy, overrides, words) = args.record.of((network, signing), Mode::Persistent)?;
        anyhow::ensure!(
            can_renew(&policy),
            "network {} has E1 alone: there is nothing to agree; make the device's share with: fivefold device add",
            network.name
        );
        let key = Some(key);
        let new = NewDevice { did: Some(did), sid: args.sid, net: network.net, policy, overrides, words, key };
        let (device, secrets) = book.add_device(vault, &new, now)?;
        return Ok((device, secrets, Done::New));
    };
    anyhow::ensure!(known.revoked_at.is_none(), "device {did} is revoked; give it another EUI-64 to enrol it anew");
    anyhow::ensure!(
        known.net == network.net,
        "device {did} is in network {}, not in {}; revoke it there first",
        known.net,
        network.name
    );
    let renewal = book.renewal(did)?;
    if args.again {
        anyhow::ensure!(
            renewal.is_none_or(|r| r.x != request.x),
            "device {did} has this key already; with --again it brings a new one, so let it make new keys"
        );
        let (device, secrets) = book.enrol_again(vault, did, Some(&key), now)?;
        return Ok((device, secrets, Done::Again));
    }
    match renewal {
        Some(r) if r.x != request.x || r.first != FirstContexts::Agreed => anyhow::bail!(
            "device {did} exists already (sid {}), with another key; if it made new keys after a repair, add --again",
            known.sid
        ),
        None => anyhow::bail!("device {did} exists already (sid {}), without a key; add --again", known.sid),
        Some(r) if r.highest >= known.epoch => anyhow::bail!(
            "this request was used: device {did} has agreed its keys already; if it lost them, let it make new ones and add \
             --again"
        ),
        Some(_) => {}
    }
    anyhow::ensure!(
        args.sid.is_none_or(|sid| sid == known.sid),
        "device {did} was enrolled as {} already; leave out --sid to get its answer once more",
        known.sid
    );
    let signing = book.network_signing(network.net)?;
    let (policy, overrides, _) = args.record.of((network, signing), Mode::Persistent)?;
    anyhow::ensure!(
        (policy, overrides) == (known.policy, known.overrides),
        "device {did} was enrolled with other options before; type the same ones to get its answer again (see: fivefold \
         device show {did})"
    );
    let secrets = book.secrets(vault, &known)?;
    Ok((known, secrets, Done::Repeated))
}

/// Request and answer over a line: the device is entered once its request is there, and has the answer when it says so.
fn over(
    line: &mut Line,
    until: Deadline,
    mut enrol: impl FnMut(&[u8]) -> anyhow::Result<(Enrolled, Vec<u8>)>,
) -> anyhow::Result<(Enrolled, Vec<u8>)> {
    let mut asked: Option<(Vec<u8>, Enrolled, Vec<u8>)> = None;
    while !until.is_over() {
        match &asked {
            None => line.say(Kind::Ask, b"")?,
            Some((_, _, letter)) => line.say(Kind::Answer, letter)?,
        }
        let again = Deadline::after(AGAIN.min(until.left()));
        while let Some((kind, body)) = line.hear(again)? {
            match kind {
                // It began anew, perhaps, but it must not be another one.
                Kind::Request if asked.as_ref().is_some_and(|(before, ..)| *before == body) => {}
                Kind::Request if asked.is_some() => {
                    anyhow::bail!("another device answers on this line now; begin again")
                }
                Kind::Request => match enrol(&body) {
                    Ok((enrolled, letter)) => {
                        asked = Some((body, enrolled, letter));
                        break;
                    }
                    Err(refused) => {
                        line.say(Kind::Refused, in_short(&format!("{refused:#}")))?;
                        return Err(refused);
                    }
                },
                Kind::Stored => {
                    if let Some((_, enrolled, letter)) = asked {
                        line.say(Kind::Stored, b"")?;
                        return Ok((enrolled, letter));
                    }
                }
                Kind::Refused => anyhow::bail!("the device refuses: {}", spoken(&body)),
                // An echo of what we say.
                Kind::Ask | Kind::Answer => {}
            }
        }
    }
    match asked {
        None => anyhow::bail!("no device asks on this line; is it connected, and waiting to be enrolled?"),
        Some((_, enrolled, _)) => anyhow::bail!(
            "device {} is in the book, and did not say that it has the answer; type the same command again",
            enrolled.device.did
        ),
    }
}

/// Words of the other end, made harmless to a terminal.
pub(crate) fn spoken(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn say(operator: &Operator, enrolled: &Enrolled, letter: &[u8], args: &Args, output: Output) -> anyhow::Result<()> {
    let Enrolled { device, request, done } = enrolled;
    if let Some(file) = &args.answer_file {
        files::write(file, Readers::Everybody, paper::text(letter).as_bytes())?;
    }
    let text = paper::text(letter);
    let code = if args.qr { Some(Qr::of(&text)?) } else { None };
    let fingerprint = request.fingerprint().to_string();
    let signer = operator.registry.signer(device.did)?;
    let mut value = json_of(&operator.registry, device, operator.registry.renewal(device.did)?.as_ref())?;
    if let Some(object) = value.as_object_mut() {
        object.insert("fingerprint".into(), json!(fingerprint));
        object.insert("repeated".into(), json!(*done == Done::Repeated));
        object.insert("answer".into(), json!(text));
        object.insert("answer_file".into(), json!(args.answer_file));
        object.insert("qr_version".into(), json!(code.as_ref().map(Qr::version)));
    }
    answer(output, &value, || {
        let did = device.did;
        let what = match done {
            Done::New => format!("Enrolled device {did} as {} ({})", device.sid, device.policy.profile.as_str()),
            Done::Again => format!("Enrolled device {did} again as {}, from epoch {}", device.sid, device.epoch),
            Done::Repeated => format!("Device {did} was enrolled as {} before; this is its answer again", device.sid),
        };
        let mut said = format!("{what}.\nIts request has the fingerprint {fingerprint}: compare it at the device.");
        match (&signer, device.policy.sign) {
            (Some(s), _) => said.push_str(&format!("\nIt signs with key {} ({}).", s.name(), s.origin.as_str())),
            (None, Sign::Batch) => said.push_str(
                "\nIt must sign its readings and has no signing key yet (AR-25). At the device: fivefold node signing-request",
            ),
            (None, Sign::None) => {}
        }
        if args.line.serial.is_some() {
            said.push_str("\nIt has its answer, and agrees its first keys with the cloud when it starts.");
        }
        if let Some(file) = &args.answer_file {
            let file = file.display();
            said.push_str(&format!(
                "\n\nIts answer is in {file}, sealed for it alone: carry it to the device.\n\
                 There: fivefold node join --dir DIR --answer-file {file} --bind ADDR --air GATEWAY"
            ));
        }
        if let Some(code) = &code {
            said.push_str(&format!(
                "\n\nIts answer, sealed for it alone (QR version {}):\n\n{}",
                code.version(),
                code.lines()
            ));
        }
        said
    });
    Ok(())
}
