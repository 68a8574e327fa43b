//! The end of the demo: a reading is proven to a stranger. The gauge of the dam signs its readings, two witnesses that are
//! processes of their own have seen them in the log, and a bundle is verified where there is no network; then one byte of it is
//! altered. What the stolen gateway invented has no evidence, although the cloud stored it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fivefold_core::reading::{Item, Number, Payload, Value as Measured};
use fivefold_evidence::bundle::Bundles;
use fivefold_keep::files::{self, Readers};
use fivefold_keep::share::{self, CLOUD_FILE, CloudLog, CloudSettings, CloudWitness, OneOrMore};
use serde::Serialize;
use serde_json::Value;

use super::processes::{Process, free_tcp};
use super::siege::Siege;
use super::village::{GAUGE, Network, Village, strings, text};

/// How long the last batch may take to be signed, logged and cosigned.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds between two heads of the log.
const HEAD_EVERY_S: u16 = 3;
/// What the stolen gateway says that a sensor measured.
const LIE: &str = "forged";

/// Two witnesses of the village's log, and what stands for them in a trust file.
#[derive(Debug)]
pub struct Witnesses {
    /// The daemons.
    pub processes: Vec<Process>,
    /// Keys, two of each.
    vkeys: Vec<String>,
    /// Key of the log.
    log: String,
}

impl Witnesses {
    /// None that is known here.
    pub const fn unknown() -> Self {
        Self { processes: Vec::new(), vkeys: Vec::new(), log: String::new() }
    }

    /// Makes two witnesses, starts them, and tells the cloud, which is not running yet, where they are.
    ///
    /// # Errors
    /// One cannot be made or started, or the cloud's config cannot be written.
    pub fn start(root: &Path, dir: &Path, logs: &Path) -> anyhow::Result<Self> {
        let log = say(&["log", "show", "--dir", &text(dir)])?;
        let log = log.get("vkey").and_then(Value::as_str).context("the log has no key")?.to_owned();
        let (mut processes, mut vkeys, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for (n, address) in free_tcp(2)?.into_iter().enumerate() {
            let folder = text(&root.join(format!("witness-{}", n + 1)));
            let name = format!("witness.example/w{}", n + 1);
            let made = say(&["log", "witness", "--dir", &folder, "--name", &name])?;
            let own: Vec<String> = made
                .get("vkeys")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|k| Some(k.as_str()?.to_owned()))
                .collect();
            let listen = ["--log", &log, "--insecure-http", &address.to_string()];
            let arguments = strings(&[&["-o", "json", "log", "witness", "--dir", &folder][..], &listen].concat());
            processes.push(Process::start(logs, &format!("witness {}", n + 1), arguments)?);
            known.push(CloudWitness { url: format!("http://{address}"), vkey: OneOrMore::More(own.clone()), ca: None });
            vkeys.extend(own);
        }
        let path = dir.join("cloud").join(CLOUD_FILE);
        let mut settings: CloudSettings = share::read_config(&path)?;
        settings.log = CloudLog { head_every_s: HEAD_EVERY_S, witnesses: known, ..settings.log };
        share::write_config(&path, crate::init::CLOUD_HEADING, &settings)?;
        Ok(Self { processes, vkeys, log })
    }
}

/// Lets a node that was just enrolled sign: it makes its key, and the operator certifies it.
///
/// # Errors
/// Either refuses.
pub fn certify(dir: &Path, node: &Path, did: &str) -> anyhow::Result<()> {
    let asked = say(&["node", "signing-request", "--dir", &text(node)])?;
    let request = asked.get("request").and_then(Value::as_str).context("no request")?;
    say(&["device", "certify", "--dir", &text(dir), did, "--request", request])?;
    Ok(())
}

/// What became of the evidence.
#[derive(Clone, Debug, Serialize)]
pub struct Proven {
    /// The gauge.
    pub device: String,
    /// Readings that a stranger has proof of.
    pub readings: usize,
    /// The newest of them, in metres.
    pub level: f64,
    /// Witnesses who have seen it.
    pub witnesses: usize,
    /// Before when it existed, Unix seconds.
    pub existed_before: Option<u64>,
    /// Gateways that say they heard it.
    pub heard: Vec<Heard>,
    /// What is not proven.
    pub not_proven: Vec<String>,
    /// How the network was cut while it was verified.
    pub cut: Cut,
    /// What the verifier said of the bundle with one byte altered.
    pub altered: Altered,
    /// The stolen gateway's invention, if it made one in the name of a device that signs.
    pub invented: Option<Invented>,
    /// Seconds that all of it took.
    pub seconds: f32,
}

/// What a gateway says: its claim, and no more.
#[derive(Clone, Debug, Serialize)]
pub struct Heard {
    /// Which gateway.
    pub gateway: String,
    /// When it says it heard it, Unix seconds.
    pub at: u64,
}

/// How the network was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// The verifier ran in a network namespace of its own, with no device in it.
    Namespace,
    /// Nobody listened any more: every process of the village had ended.
    NobodyListens,
    /// It was not: namespaces are not allowed here, and everything is to be left running.
    NotCut,
}

/// A bundle with one byte altered.
#[derive(Clone, Debug, Serialize)]
pub struct Altered {
    /// Which byte.
    pub at: usize,
    /// Whether it was refused.
    pub refused: bool,
    /// At which step.
    pub step: String,
    /// Why.
    pub reason: String,
}

/// A reading that the stolen gateway made up, and the cloud stored by its word.
#[derive(Clone, Debug, Serialize)]
pub struct Invented {
    /// In whose name.
    pub device: String,
    /// How the cloud says that it is proven.
    pub proof: String,
    /// Readings of that device that it signed itself.
    pub signed: usize,
    /// Bundles for what was invented.
    pub bundles: usize,
}

impl Proven {
    /// Whether all came out as it must.
    pub fn is_whole(&self) -> bool {
        let invented = self.invented.as_ref();
        self.readings > 0
            && self.witnesses >= 2
            && !self.heard.is_empty()
            && self.altered.refused
            && invented.is_none_or(|i| i.bundles == 0 && i.proof != "signed" && i.signed > 0)
    }
}

/// What was fetched of the cloud while it ran.
#[derive(Debug)]
pub struct Fetched {
    device: String,
    trust: PathBuf,
    bundles: PathBuf,
    invented: Option<Invented>,
    took: Duration,
}

/// Fetches the evidence of the gauge, and looks for some of what the stolen gateway invented.
///
/// # Errors
/// The cloud does not answer, or has no evidence.
#[expect(clippy::disallowed_methods, reason = "the demo waits for real processes")]
pub fn fetch(siege: &Siege<'_>) -> anyhow::Result<Fetched> {
    let began = Instant::now();
    let rows = siege.rows()?;
    let village = &*siege.village;
    let folder = village.dir.join("evidence");
    files::create_folder(&folder)?;
    let (trust, bundles, token) = (folder.join("trust.toml"), folder.join("level.evb"), folder.join("token"));
    files::write(&token, Readers::Owner, village.token.as_bytes())?;
    let dir = text(&village.dir);
    let mut words = strings(&["evidence", "trust", "--dir", &dir, "--log", &village.witnesses.log, "--need", "2"]);
    village.witnesses.vkeys.iter().for_each(|key| words.extend(["--witness".into(), key.clone()]));
    words.extend(["--out".into(), text(&trust)]);
    say(&words.iter().map(String::as_str).collect::<Vec<_>>())?;

    let export = |device: &str, (from, to): (u64, u64), out: &Path| -> anyhow::Result<usize> {
        let (from, to) = (crate::clock::text(from), crate::clock::text(to));
        let ask = ["evidence", "export", "--dir", &dir, "--token-file", &text(&token), "--device", device];
        let more = ["--from", &from, "--to", &to, "--out", &text(out)];
        let (code, answer) = run(&[&ask[..], &more].concat(), Cut::NotCut)?;
        anyhow::ensure!(matches!(code, Some(0 | 1)), "no evidence can be fetched: {answer}");
        Ok(answer.get("readings").and_then(Value::as_u64).map_or(0, |n| n as usize))
    };
    let device = signer_of(village, GAUGE)?;
    let always = (0, crate::clock::now()? + 86_400);
    while export(&device, always, &bundles)? == 0 {
        anyhow::ensure!(began.elapsed() < PATIENCE, "no batch of the gauge is signed, logged and cosigned");
        std::thread::sleep(Duration::from_millis(500));
    }
    let lie = folder.join("lie.evb");
    let invented = invented(&rows, village, |device, second| {
        // What was not proven leaves no file.
        let bytes = if export(device, (second, second + 1), &lie)? > 0 { std::fs::read(&lie)? } else { Vec::new() };
        Ok(Bundles::new(&bytes).map_or(0, |all| all.flatten().filter(|b| holds(b.tbs, LIE.as_bytes())).count()))
    })?;
    Ok(Fetched { device, trust, bundles, invented, took: began.elapsed() })
}

/// Verifies what was fetched with the network cut, and once more with one byte of it altered.
///
/// # Errors
/// The verifier cannot be started, or does not find the evidence proven.
#[expect(clippy::disallowed_methods, reason = "the demo shows how long it takes")]
pub fn prove(fetched: Fetched, cut: Cut) -> anyhow::Result<Proven> {
    let began = Instant::now();
    let Fetched { device, trust, bundles, invented, took } = fetched;
    let verify = |file: &Path| run(&["evidence", "verify", &text(file), "--trust", &text(&trust)], cut);
    let (code, answers) = verify(&bundles)?;
    let answers: Vec<Value> = answers.as_array().cloned().unwrap_or_else(|| vec![answers]);
    let proven: Vec<&Value> = answers.iter().filter(|a| a["verdict"] == "proven").collect();
    anyhow::ensure!(code == Some(0) && !proven.is_empty(), "the evidence of the gauge is not proven: {answers:?}");
    let payload = |answer: &Value| hex::decode(answer["payload"].as_str().unwrap_or_default()).unwrap_or_default();
    let mut levels = proven.iter().rev().filter_map(|answer| Some((level_in(&payload(answer))?, *answer)));
    let (level, last) = levels.next().context("no level of the water is proven")?;
    let texts = |field: &str| -> Vec<String> {
        last[field].as_array().into_iter().flatten().filter_map(|t| Some(t.as_str()?.to_owned())).collect()
    };
    let claim = |claim: &Value| {
        Some(Heard { gateway: claim["gateway"].as_str()?.to_owned(), at: claim["at_ms"].as_u64()? / 1000 })
    };
    let heard = last["heard"].as_array().into_iter().flatten().filter_map(claim).collect();
    let altered = altered(&bundles, &payload(last), verify)?;
    Ok(Proven {
        device,
        readings: proven.len(),
        level,
        witnesses: last["witnesses"].as_array().map_or(0, Vec::len),
        existed_before: last["existed_before"].as_u64(),
        heard,
        not_proven: texts("not_proven"),
        cut,
        altered,
        invented,
        seconds: (took + began.elapsed()).as_secs_f32(),
    })
}

/// The device of a network that signs.
fn signer_of(village: &Village, network: &str) -> anyhow::Result<String> {
    let network = village.networks.iter().find(|n| n.name == network).context("no such network")?;
    let node = network.nodes.get(Network::SIGNER).context("no such node")?;
    Ok(node.did.to_string())
}

/// One bit of a byte of the last bundle's reading is turned over.
fn altered(
    bundles: &Path,
    payload: &[u8],
    verify: impl Fn(&Path) -> anyhow::Result<(Option<i32>, Value)>,
) -> anyhow::Result<Altered> {
    let mut bytes = std::fs::read(bundles)?;
    let last = bytes.windows(payload.len().max(1)).rposition(|w| w == payload);
    let at = last.context("the reading does not stand in its bundle")? + payload.len() / 2;
    *bytes.get_mut(at).context("no such byte")? ^= 1;
    let file = bundles.with_file_name("altered.evb");
    files::write(&file, Readers::Everybody, &bytes)?;
    let (code, answers) = verify(&file)?;
    let refused = answers.as_array().into_iter().flatten().find(|a| a["verdict"] != "proven");
    let word = |field: &str| refused.and_then(|r| r[field].as_str()).unwrap_or_default().to_owned();
    let is_refused = refused.is_some() && matches!(code, Some(1 | 2));
    Ok(Altered { at, refused: is_refused, step: word("step"), reason: word("reason") })
}

/// A reading that the stolen gateway of a network made up in the name of a device that signs, and what evidence there is.
fn invented(
    rows: &[Value],
    village: &Village,
    bundles_of: impl Fn(&str, u64) -> anyhow::Result<usize>,
) -> anyhow::Result<Option<Invented>> {
    let device = signer_of(village, Network::ROBBED)?;
    let of_device = |row: &&Value| row["device"].as_str() == Some(&device);
    let is_lie = |row: &&Value| row["payload"].as_str().is_some_and(|p| p.contains(&hex::encode(LIE)));
    let lies: Vec<&Value> = rows.iter().filter(of_device).filter(is_lie).collect();
    let Some(lie) = lies.last() else { return Ok(None) };
    let at = lie["ingested_ms"].as_u64().context("a reading without a time")?;
    let others: Vec<&Value> = rows.iter().filter(of_device).filter(|r| !is_lie(r)).collect();
    let signed = others.iter().filter(|r| r["proof"] == "signed").count();
    let bundles = bundles_of(&device, at / 1000)?;
    Ok(Some(Invented { device, proof: lie["proof"].as_str().unwrap_or("?").to_owned(), signed, bundles }))
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len().max(1)).any(|w| w == part)
}

/// `level` of a SenML pack of the gauge.
fn level_in(payload: &[u8]) -> Option<f64> {
    let Ok(Payload::Sequence(items)) = Payload::parse(payload) else { return None };
    let packs = items.filter_map(|item| if let Item::Senml(pack) = item { Some(pack) } else { None });
    let mut records = packs.flat_map(|pack| pack.records());
    records.find_map(|record| match record.value {
        Some(Measured::Number(Number::Float(level))) if record.name == "level" => Some(level),
        _ => None,
    })
}

/// How the network can be cut for one command: by `unshare`, where this user may (user and network namespace).
pub fn is_namespace_allowed() -> bool {
    let tried = Command::new("unshare").args(["-r", "-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Runs a command of ours, and returns its exit code and its answer: one value, or lines of them as an array.
fn run(arguments: &[&str], cut: Cut) -> anyhow::Result<(Option<i32>, Value)> {
    let own = std::env::current_exe()?;
    let mut command = match cut {
        Cut::Namespace => {
            let mut command = Command::new("unshare");
            command.args(["-r", "-n"]).arg(own);
            command
        }
        Cut::NobodyListens | Cut::NotCut => Command::new(own),
    };
    let done = command.args(["-o", "json"]).args(arguments).stdin(Stdio::null()).output()?;
    let values = serde_json::Deserializer::from_slice(&done.stdout).into_iter::<Value>();
    let mut values: Vec<Value> = values.filter_map(Result::ok).collect();
    let is_verdict = |v: &Value| v.get("verdict").is_some();
    let value = match values.as_slice() {
        [] => Value::String(String::from_utf8_lossy(&done.stderr).lines().last().unwrap_or_default().to_owned()),
        [one] if !is_verdict(one) => values.remove(0),
        _ => Value::Array(values),
    };
    Ok((done.status.code(), value))
}

/// The same, where nothing but success will do.
fn say(arguments: &[&str]) -> anyhow::Result<Value> {
    let (code, value) = run(arguments, Cut::NotCut)?;
    anyhow::ensure!(code == Some(0), "fivefold {}: {value}", arguments.get(..2).unwrap_or_default().join(" "));
    Ok(value)
}

/// In a few lines.
pub fn words(proven: &Proven) -> String {
    let before = proven.existed_before.map_or("?".into(), crate::clock::text);
    let cut = match proven.cut {
        Cut::Namespace => "in a network namespace with nothing in it",
        Cut::NobodyListens => "with every process of the village ended",
        Cut::NotCut => "with the network NOT cut, for namespaces are not allowed here",
    };
    let altered = &proven.altered;
    let mut lines = vec![
        format!("The water level of the dam, proven to a stranger in {:.1} s:", proven.seconds),
        format!("  evidence     {} readings of {}, the last one {:.2} m", proven.readings, proven.device, proven.level),
        format!("  witnesses    {} have seen it, and it existed before {before}", proven.witnesses),
        match proven.heard.as_slice() {
            [] => "  heard        by NO GATEWAY".into(),
            heard => {
                let by = |h: &Heard| format!("gateway {} at {}", h.gateway, crate::clock::text(h.at));
                format!("  heard        by {} (its claim)", heard.iter().map(by).collect::<Vec<_>>().join(", "))
            }
        },
        format!("  verified     {cut}"),
        if altered.refused {
            format!("  one bit off  byte {} altered: refused at step {} ({})", altered.at, altered.step, altered.reason)
        } else {
            format!("  one bit off  byte {} altered: NOT REFUSED", altered.at)
        },
    ];
    if let Some(lie) = &proven.invented {
        let found =
            if lie.bundles == 0 { "it has no evidence".into() } else { format!("it has EVIDENCE ({})", lie.bundles) };
        lines.push(format!(
            "  invented     the stolen gateway's reading in the name of {} is stored by its word ({}): {found};\n  {:<12} {} readings \
             of that device are signed",
            lie.device, lie.proof, "", lie.signed
        ));
    }
    let not = proven.not_proven.iter().map(|what| format!("  not proven   {what}"));
    lines.into_iter().chain(not).collect::<Vec<_>>().join("\n")
}
