//! `fivefold device key-messages`: a hardened classic node that draws its next keys itself (docs/protocol.md 12).

use std::path::PathBuf;

use fivefold_core::wire::key_message::{KeyLevel, RsaSize};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::key_message::PublicRsaKey;
use fivefold_keep::registry::NodeEnrolment;
use fivefold_waspmote::Serial;
use serde_json::json;
use zeroize::Zeroizing;

use super::classic::{Holder, json_of};
use crate::clock;
use crate::node::waspmote::{NodeKeys, PeerWord};
use crate::operator::{Folder, node_folder};
use crate::output::{Output, answer};

/// Arguments of `fivefold device key-messages`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct KeyMessages {
    #[command(flatten)]
    folder: Folder,
    /// Its serial: 16 hex digits.
    serial: Serial,
    /// Whom its keys are for: the primary gateway of its network, or the cloud.
    #[arg(long, value_enum, default_value = "gateway")]
    peer: Holder,
    /// Size of the cloud's RSA key that it seals for. The library for sketches knows 2048.
    #[arg(long, value_name = "2048|3072", default_value = "2048", value_parser = size)]
    bits: RsaSize,
    /// What the file is: a C header for its sketch, or TOML for `fivefold node waspmote`.
    #[arg(long, value_enum, default_value = "c")]
    form: Form,
    /// Where it goes, readable by you alone; otherwise nodes/SERIAL/key-messages.h, or key-messages-cloud.h, in the operator's
    /// folder.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Take no key messages of it any more. The keys that it has stay.
    #[arg(long, conflicts_with_all = ["bits", "form", "out"])]
    off: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    C,
    Toml,
}

fn size(text: &str) -> Result<RsaSize, String> {
    match text {
        "2048" => Ok(RsaSize::Rsa2048),
        "3072" => Ok(RsaSize::Rsa3072),
        "1024" => Err("RSA-1024 is refused by this version (AR-12): write 2048 or 3072".into()),
        _ => Err("expected 2048 or 3072".into()),
    }
}

/// Lets it send them, or ends that.
pub(super) fn run(args: &KeyMessages, output: Output) -> anyhow::Result<()> {
    let mut operator = args.folder.open()?;
    let (level, word, whom) = match args.peer {
        Holder::Cloud => (KeyLevel::E3, PeerWord::Cloud, "the cloud"),
        Holder::Gateway => (KeyLevel::E2, PeerWord::Gateway, "the primary gateway of its network"),
    };
    if args.off {
        let device = operator.registry.end_key_messages(args.serial, level)?;
        answer(output, &json_of(&device), || {
            format!("No key message of classic device {} for {whom} is taken any more (E5-08).", device.serial)
        });
        return Ok(());
    }
    let name = match (args.peer, args.form) {
        (Holder::Gateway, Form::C) => "key-messages.h",
        (Holder::Cloud, Form::C) => "key-messages-cloud.h",
        (Holder::Gateway, Form::Toml) => "key-messages.toml",
        (Holder::Cloud, Form::Toml) => "key-messages-cloud.toml",
    };
    let file = args.out.clone().unwrap_or_else(|| node_folder(&operator.dir, &args.serial.to_string()).join(name));
    let (book, vault, now) = (&mut operator.registry, &operator.vault, clock::now()?);
    let (device, enrolment) = book.enrol_for_messages(vault, args.serial, (level, args.bits), now)?;
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        files::create_folder(folder)?;
    }
    let text = match args.form {
        Form::C => header(args.serial, word, &enrolment)?,
        Form::Toml => NodeKeys::of(args.serial, word, &enrolment).to_text()?,
    };
    files::write(&file, Readers::Owner, text.as_bytes())?;
    let mut value = json_of(&device);
    if let Some(object) = value.as_object_mut() {
        object.insert("file".into(), json!(file));
        object.insert("server".into(), json!(enrolment.server.kid.to_string()));
        object.insert("kr1_auth".into(), json!("mac"));
    }
    answer(output, &value, || {
        format!(
            "Classic device {} renews its key for {whom} by itself from now on. What its sketch needs is in {}: flash it, and \
             delete the file.\nOnly its hardened frames are readings from now on. It proves its messages by a MAC \
             (kr1_auth = mac): to the cloud, and to nobody else.",
            device.serial,
            file.display(),
        )
    });
    Ok(())
}

fn header(serial: Serial, word: PeerWord, enrolment: &NodeEnrolment) -> anyhow::Result<Zeroizing<String>> {
    let bytes = |bytes: &[u8]| Zeroizing::new(bytes.iter().map(|byte| format!("0x{byte:02x},")).collect::<String>());
    let server = PublicRsaKey::from_spki(&enrolment.server.spki)?;
    let (word, modulus) = (word.as_str(), server.modulus());
    Ok(Zeroizing::new(format!(
        "/* Key messages of node {serial}, for ff_offer (FF_{upper}). Flash it once, then delete this file. */\n\
         #include <stdint.h>\n\
         /* The cloud's RSA key: its name (srv_kid), and its modulus; the exponent is 65537. */\n\
         static const uint8_t ff_{word}_server[4] = {{{kid}}};\n\
         static const uint8_t ff_{word}_modulus[{len}] = {{{modulus}}};\n\
         /* Shared with the cloud, and with nobody else. */\n\
         static const uint8_t ff_{word}_enrolment_key[32] = {{{key}}};\n",
        upper = word.to_uppercase(),
        kid = bytes(&enrolment.server.kid.0).as_str(),
        len = modulus.len(),
        modulus = bytes(modulus).as_str(),
        key = bytes(enrolment.key.as_slice()).as_str(),
    )))
}
