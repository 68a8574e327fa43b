//! Classic devices (Waspmote, Plug & Sense!): entered by the serial that they print, with the keys that are in their sketches.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_core::id::{Did, Sid};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::{
    ClassicDevice, ClassicKeyKind, ClassicKeys, ClassicProfile, ClassicSecret, NewClassic, Registry,
};
use fivefold_waspmote::{KeyBits, Serial, Table, Weak};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::clock;
use crate::operator::{Operator, node_folder};
use crate::output::{Output, answer};

/// What stands behind everything that belongs to a network with classic devices.
pub(crate) const MARK: &str = "classic";

/// A classic device to be.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(super) struct New {
    /// Enter a classic device (Waspmote, Plug & Sense!) by its serial: 16 hex digits, or a decimal number on v12. Without
    /// one, those of --csv.
    #[arg(
        long,
        value_name = "SERIAL",
        num_args = 0..=1,
        conflicts_with_all = [
            "did", "mode", "alg", "kid_length", "ack_every", "radio", "danger_no_link", "bind", "air", "parents", "aiocoap",
            "first_contexts", "sign", "no_downlink",
        ]
    )]
    pub(super) classic: Option<Option<Serial>>,
    /// Classic: many at once, from a CSV file with a head, readable by you alone since it holds keys: serial, and net, sid,
    /// node_id, table, dev_eui, hardened (yes, no), gateway_key, gateway_key_bits, cloud_key, cloud_key_bits, danger_weak_key
    /// where they differ from what is typed here.
    #[arg(
        long,
        value_name = "FILE",
        requires = "classic",
        conflicts_with_all = ["sid", "node_id", "dev_eui", "gateway_key_file", "cloud_key_file"]
    )]
    pub(super) csv: Option<PathBuf>,
    /// With --csv: enter the good rows although others are refused.
    #[arg(long, requires = "csv")]
    pub(super) skip_bad: bool,
    /// Classic: the name that the node has, up to 16 characters.
    #[arg(long, value_name = "ID", requires = "classic")]
    node_id: Option<String>,
    /// Classic: its sensor table, where it is not that of its hardware: default, agriculture, water or v12.
    #[arg(long, value_name = "TABLE", requires = "classic", value_parser = table)]
    pub(super) table: Option<Table>,
    /// Classic: its DevEUI, where its frames come by LoRaWAN.
    #[arg(long, value_name = "EUI", requires = "classic")]
    dev_eui: Option<Did>,
    /// Classic: it speaks the hardened profile; its other frames count for nothing.
    #[arg(long, requires = "classic")]
    pub(super) hardened: bool,
    #[command(flatten)]
    pub(super) keys: Keys,
}

/// Keys of a classic device. They come from files, since what is typed stays in the shell's history.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(super) struct Keys {
    /// Classic: file with its key for the gateway (E2), readable by you alone: the text as it stands in the sketch and in
    /// Meshlium, or all of it in hex digits.
    #[arg(long, value_name = "FILE", requires = "gateway_key_bits")]
    gateway_key_file: Option<PathBuf>,
    /// Classic: size of that key, as in the sketch.
    #[arg(long, value_name = "128|192|256", value_parser = key_bits)]
    pub(super) gateway_key_bits: Option<KeyBits>,
    /// Classic: file with its key for the cloud (E3), in the same form. Gateways never get it.
    #[arg(long, value_name = "FILE", requires = "cloud_key_bits")]
    cloud_key_file: Option<PathBuf>,
    /// Classic: size of that key.
    #[arg(long, value_name = "128|192|256", value_parser = key_bits)]
    pub(super) cloud_key_bits: Option<KeyBits>,
    /// Classic: takes a key that is zero, short or in a dictionary, which anybody can guess. Your words are kept.
    #[arg(long, value_name = "WORDS")]
    pub(super) danger_weak_key: Option<String>,
}

pub(super) fn table(text: &str) -> Result<Table, String> {
    Table::from_word(text).ok_or_else(|| "expected default, agriculture, water or v12".into())
}

pub(super) fn key_bits(text: &str) -> Result<KeyBits, String> {
    text.parse().ok().and_then(KeyBits::from_bits).ok_or_else(|| "expected 128, 192 or 256".into())
}

impl Keys {
    fn is_given(&self) -> bool {
        let files = self.gateway_key_file.is_some() || self.cloud_key_file.is_some();
        files || self.gateway_key_bits.is_some() || self.cloud_key_bits.is_some() || self.danger_weak_key.is_some()
    }

    fn read(&self) -> anyhow::Result<ClassicKeys> {
        Ok(ClassicKeys {
            gateway: read_key("gateway", self.gateway_key_file.as_deref(), self.gateway_key_bits)?,
            cloud: read_key("cloud", self.cloud_key_file.as_deref(), self.cloud_key_bits)?,
        })
    }
}

fn read_key(of: &str, file: Option<&Path>, bits: Option<KeyBits>) -> anyhow::Result<Option<ClassicSecret>> {
    anyhow::ensure!(file.is_some() == bits.is_some(), "--{of}-key-file and --{of}-key-bits go together");
    let (Some(file), Some(bits)) = (file, bits) else { return Ok(None) };
    let text = files::read_private(file)?;
    ClassicSecret::read(&text, bits).map(Some).with_context(|| format!("{} holds no key", file.display()))
}

impl New {
    /// Nothing of a classic device may be said of another one.
    pub(super) fn refuse_alone(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.classic.is_some() || !self.keys.is_given(),
            "these keys are for classic devices: add --classic SERIAL"
        );
        anyhow::ensure!(
            self.classic.is_none_or(|serial| serial.is_some() != self.csv.is_some()),
            "name one classic device, --classic SERIAL, or a file of many, --classic --csv FILE"
        );
        Ok(())
    }
}

/// Enters it.
pub(super) fn add(
    operator: &mut Operator,
    (serial, new): (Serial, &New),
    (net, sid): (&str, Option<Sid>),
    output: Output,
) -> anyhow::Result<()> {
    let network = operator.registry.network(net)?;
    let entry = NewClassic {
        serial,
        sid,
        net: network.net,
        node_id: new.node_id.clone(),
        table: new.table,
        dev_eui: new.dev_eui,
        profile: if new.hardened { ClassicProfile::Hardened } else { ClassicProfile::Classic },
        keys: new.keys.read()?,
        words: new.keys.danger_weak_key.clone(),
    };
    let device = operator.registry.add_classic(&operator.vault, &entry, clock::now()?)?;
    let shares = sharers(operator, &device, entry.keys)?;
    answer(output, &with_sharers(&device, shares.as_deref()), || {
        format!(
            "Entered classic device {} in network {net} as {} ({}).\n{}{}\n\nNext: point it at a gateway of this network: \
             docs/operate.md, \"Point a classic fleet at Fivefold\".",
            device.serial,
            device.sid,
            protection(&device),
            warning(&device),
            shared(shares.as_deref()),
        )
    });
    Ok(())
}

/// Who else has a key of this device (AR-07).
fn sharers(operator: &Operator, device: &ClassicDevice, keys: ClassicKeys) -> anyhow::Result<Option<String>> {
    let entry = NewClassic { keys, ..NewClassic::plain(device.serial, device.net) };
    let place = |_| device.serial.to_string();
    Ok(operator.registry.classic_key_sharers(&operator.vault, &[entry], place)?.pop().flatten())
}

fn with_sharers(device: &ClassicDevice, sharers: Option<&str>) -> Value {
    let mut value = json_of(device);
    if let (Some(object), Some(who)) = (value.as_object_mut(), sharers) {
        object.insert("key_shared_with".into(), json!(who));
    }
    value
}

fn shared(sharers: Option<&str>) -> String {
    sharers.map_or(String::new(), |who| {
        format!(
            "\nAR-07: {who} has a key of it too: whoever takes one of these nodes is all of them. Give each its own."
        )
    })
}

/// Arguments of `fivefold device set-keys`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SetKeys {
    #[command(flatten)]
    folder: crate::operator::Folder,
    /// Its serial.
    serial: Serial,
    #[command(flatten)]
    keys: Keys,
}

/// Gives a classic device other keys; without any it has none.
pub(super) fn set_keys(args: &SetKeys, output: Output) -> anyhow::Result<()> {
    let mut operator = args.folder.open()?;
    let keys = args.keys.read()?;
    let words = args.keys.danger_weak_key.as_deref();
    let device = operator.registry.rekey_classic(&operator.vault, args.serial, &keys, words)?;
    let shares = sharers(&operator, &device, keys)?;
    answer(output, &with_sharers(&device, shares.as_deref()), || {
        format!(
            "Classic device {} now has: {}.\n{}{}",
            device.serial,
            protection(&device),
            warning(&device),
            shared(shares.as_deref())
        )
    });
    Ok(())
}

/// Arguments of `fivefold device rename`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Rename {
    #[command(flatten)]
    folder: crate::operator::Folder,
    /// Its serial.
    serial: Serial,
    /// The node id that it has now, up to 16 characters.
    node_id: String,
}

/// Enters the node id that a classic device has now.
pub(super) fn rename(args: &Rename, output: Output) -> anyhow::Result<()> {
    let (_, mut registry) = args.folder.open_book()?;
    let device = registry.rename_classic(args.serial, &args.node_id)?;
    answer(output, &json_of(&device), || format!("Classic device {} is called {}.", device.serial, args.node_id));
    Ok(())
}

/// Arguments of `fivefold device harden`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Harden {
    #[command(flatten)]
    folder: crate::operator::Folder,
    /// Its serial: 16 hex digits, since v12 has no room for the profile.
    serial: Serial,
    /// Whom the key is for: the primary gateway of its network, or the cloud, past every gateway.
    #[arg(long, value_enum, default_value = "gateway")]
    peer: Holder,
    /// Where the key goes, as a C header for its sketch, readable by you alone; otherwise nodes/SERIAL/hardened.h, or
    /// hardened-cloud.h, in the operator's folder.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Who holds the other copy of a key of the hardened profile.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Holder {
    Cloud,
    Gateway,
}

/// Draws a key, and writes it for the sketch.
pub(super) fn harden(args: &Harden, output: Output) -> anyhow::Result<()> {
    let mut operator = args.folder.open()?;
    let (name, whom, word) = match args.peer {
        Holder::Cloud => ("hardened-cloud.h", "the cloud", "cloud"),
        Holder::Gateway => ("hardened.h", "the primary gateway of its network", "gateway"),
    };
    let file = args.out.clone().unwrap_or_else(|| node_folder(&operator.dir, &args.serial.to_string()).join(name));
    let (book, vault, now) = (&mut operator.registry, &operator.vault, clock::now()?);
    let (device, key) = match args.peer {
        Holder::Cloud => book.harden_classic_to_cloud(vault, args.serial, now)?,
        Holder::Gateway => book.harden_classic(vault, args.serial, now)?,
    };
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        files::create_folder(folder)?;
    }
    let bytes: Zeroizing<String> = Zeroizing::new(key.key.iter().map(|byte| format!("0x{byte:02x},")).collect());
    let header = Zeroizing::new(format!(
        "/* Key of the hardened profile of node {}, for ff_install. Flash it once, then delete this file. */\n\
         #include <stdint.h>\n\
         static const uint32_t ff_{word}_key_epoch = {};\n\
         static const uint8_t ff_{word}_key[32] = {{{}}};\n",
        device.serial,
        key.epoch,
        bytes.as_str()
    ));
    files::write(&file, Readers::Owner, header.as_bytes())?;
    let mut value = json_of(&device);
    if let Some(object) = value.as_object_mut() {
        object.insert("epoch".into(), json!(key.epoch));
        object.insert("file".into(), json!(file));
    }
    answer(output, &value, || {
        format!(
            "Drew key {} for classic device {} and {whom}. It is in {}: give it to ff_install in the node's sketch \
             (FF_{}), flash, and delete the file.\nFrom now on only its hardened frames are readings.",
            key.epoch,
            device.serial,
            file.display(),
            word.to_uppercase()
        )
    });
    Ok(())
}

/// Revokes it.
pub(super) fn revoke(registry: &mut Registry, serial: Serial, output: Output) -> anyhow::Result<()> {
    let device = registry.revoke_classic(serial, clock::now()?)?;
    answer(output, &json_of(&device), || {
        format!("Revoked classic device {serial}: what comes under its serial is a stranger's from now on (CL-07).")
    });
    Ok(())
}

/// Shows it.
pub(super) fn show(d: &ClassicDevice, output: Output) {
    answer(output, &json_of(d), || {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        format!(
            "device {} ({MARK}, {})\n  sid          {}\n  network      {}\n  node id      {}\n  sensors      {}\n  \
             DevEUI       {}\n  protection   {}\n  added        {}\n  state        {}\n\n{}",
            d.serial,
            d.serial.generation().as_str(),
            d.sid,
            d.net,
            or_none(d.node_id.clone()),
            d.table.map_or("as its hardware", Table::as_str),
            or_none(d.dev_eui.map(|eui| eui.to_string())),
            protection(d),
            clock::text(d.added_at),
            state(d),
            warning(d),
        )
    });
}

/// A row of `device list`.
pub(super) fn row(d: &ClassicDevice) -> [String; 8] {
    [
        d.serial.to_string(),
        d.sid.to_string(),
        d.net.to_string(),
        format!("{MARK}: {}", protection(d)),
        "-".into(),
        "-".into(),
        "-".into(),
        state(d),
    ]
}

fn state(d: &ClassicDevice) -> String {
    d.revoked_at.map_or("active".into(), |at| format!("revoked {}", clock::text(at)))
}

/// What protects its frames, in words.
fn protection(d: &ClassicDevice) -> String {
    let key = |whom: &str, key: Option<ClassicKeyKind>| {
        key.map(|k| {
            let weak = k.weakness.map_or(String::new(), |w| format!(", {}", w.as_str()));
            format!("AES-{} for the {whom}{weak}", k.bits.bits())
        })
    };
    let keys: Vec<_> = [key("gateway", d.gateway_key), key("cloud", d.cloud_key)].into_iter().flatten().collect();
    match (d.profile, keys.is_empty()) {
        (ClassicProfile::Hardened, _) => "hardened".into(),
        (ClassicProfile::Classic, true) => "in clear".into(),
        (ClassicProfile::Classic, false) => keys.join("; "),
    }
}

fn warning(d: &ClassicDevice) -> &'static str {
    let weak = [d.gateway_key, d.cloud_key].iter().flatten().filter_map(|k| k.weakness).min();
    match (d.profile, weak) {
        (_, Some(Weak::Zero | Weak::Short | Weak::Dictionary)) => {
            "INSECURE: its key can be guessed (CL-13), and nothing proves who sent its frames (AR-10)."
        }
        (ClassicProfile::Hardened, _) => {
            "Its classic frames count for nothing; hardened ones are proven, by this serial's key alone."
        }
        _ => "Nothing proves who sent its frames (AR-10): readings are shown as legacy or plain.",
    }
}

pub(super) fn json_of(d: &ClassicDevice) -> Value {
    let key = |key: Option<ClassicKeyKind>| {
        key.map(|k| json!({ "bits": k.bits.bits(), "weakness": k.weakness.map(Weak::as_str) }))
    };
    json!({
        "classic": true, "serial": d.serial.to_string(), "generation": d.serial.generation().as_str(),
        "did": d.did.to_string(), "sid": d.sid.to_string(), "net": d.net.to_string(), "levels": MARK,
        "node_id": d.node_id, "table": d.table.map(Table::as_str), "dev_eui": d.dev_eui.map(|eui| eui.to_string()),
        "hardened": d.profile == ClassicProfile::Hardened, "gateway_key": key(d.gateway_key),
        "cloud_key": key(d.cloud_key), "added_at": d.added_at, "revoked_at": d.revoked_at,
        "insecure": d.profile == ClassicProfile::Classic, "override": d.words,
    })
}

/// Which device is meant: an EUI-64, or the serial of a classic one. 16 hex digits may be either.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    /// 16 hex digits.
    Did(Did),
    /// A serial of v12.
    Serial(Serial),
}

impl Which {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let serial = || text.parse().map(Self::Serial);
        text.parse().map(Self::Did).or_else(|_| serial()).map_err(|_| {
            "expected an EUI-64 (16 hex digits), or the serial of a classic device (16 hex digits, or a decimal number)".into()
        })
    }

    /// Which kind of device that is.
    ///
    /// # Errors
    /// A serial that is not in the book.
    pub(super) fn resolve(self, registry: &Registry) -> anyhow::Result<Kind> {
        Ok(match self {
            Self::Serial(serial) => Kind::Classic(Box::new(registry.classic_device(serial)?)),
            Self::Did(did) => match registry.known_classic(Serial::V15(did.0))? {
                Some(device) => Kind::Classic(Box::new(device)),
                None => Kind::Modern(did),
            },
        })
    }
}

/// A device of either kind.
pub(super) enum Kind {
    /// A Waspmote, as it stands in the book.
    Classic(Box<ClassicDevice>),
    /// One of ours, if it is in the book.
    Modern(Did),
}
