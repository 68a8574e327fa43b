//! `fivefold vault`: where the key comes from that opens a folder's secrets, another such source, and another data key.

#[cfg(test)]
mod cuts;
mod places;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fivefold_keep::files;
use fivefold_keep::registry::{REGISTRY_FILE, Registry};
use fivefold_keep::share::{CLOUD_FILE, CloudSettings, GATEWAY_FILE, read_config};
use fivefold_keep::vault::{self, Pin, Rekey, Resumed, Source, TokenKey, VAULT_FILE};
use serde_json::{Value, json};

use crate::operator::{acted, acting, is_operators};
use crate::output::{Output, answer};
use places::{Place, Resealed};

/// Arguments of `fivefold vault`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Draw another data key and seal every secret again: for when somebody may know the present one. Stop the daemon
    /// first. If it is interrupted, type it again.
    Rekey(Again),
    /// Put the data key under another source, or another passphrase. A daemon goes on and uses it at its next start.
    Rewrap(Rewrap),
    /// Show where the key comes from.
    Show(Which),
}

/// Whose vault.
#[derive(Clone, Debug, clap::Args)]
struct Which {
    #[command(flatten)]
    folder: Folder,
}

/// A folder of anybody.
#[derive(Clone, Debug, clap::Args)]
struct Folder {
    /// The folder whose vault it is: the operator's or the cloud's, which share one, a gateway's or a node's.
    #[arg(long, env = "FIVEFOLD_DIR", default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Its passphrase file, where it does not lie where vault.toml says.
    #[arg(long, env = "FIVEFOLD_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
struct Again {
    #[command(flatten)]
    which: Which,
    /// The cloud's folder, if it is not `cloud` in the operator's: its key and store are under the operator's vault.
    #[arg(long, value_name = "DIR")]
    cloud: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
struct Rewrap {
    #[command(subcommand)]
    to: To,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum To {
    /// A passphrase file. If it is not there, a passphrase of 256 random bits is drawn into it.
    PassphraseFile {
        #[command(flatten)]
        which: Which,
        /// The file.
        file: PathBuf,
    },
    /// An AES-256 key in a PKCS #11 token, which never leaves it.
    Pkcs11 {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        token: Token,
    },
    /// A credential that systemd hands to the service: LoadCredential= or LoadCredentialEncrypted= in its unit.
    SystemdCredential {
        #[command(flatten)]
        which: Which,
        /// Its ID in the unit, before the colon.
        name: String,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct Token {
    /// The token's library, e.g. /usr/lib/softhsm/libsofthsm2.so.
    #[arg(long, value_name = "FILE")]
    module: PathBuf,
    /// Label of the token.
    #[arg(long, value_name = "LABEL")]
    token: String,
    /// Label of the key.
    #[arg(long, value_name = "LABEL")]
    key: String,
    #[command(flatten)]
    pin: PinFrom,
    /// Make the key in the token first: AES-256, not extractable.
    #[arg(long)]
    generate_key: bool,
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct PinFrom {
    /// The file with the user's PIN, readable by its owner alone.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// The systemd credential with the user's PIN.
    #[arg(long, value_name = "NAME")]
    pin_credential: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The vault does not open, or cannot be written.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Rekey(args) => rekey(args, output)?,
        Verb::Rewrap(args) => rewrap(args, output)?,
        Verb::Show(which) => show(which, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(which: &Which, output: Output) -> anyhow::Result<()> {
    let place = Place::of(&which.folder.dir)?;
    let described = vault::describe(&place.vault)?;
    let file = place.vault.join(VAULT_FILE);
    let value = json!({
        "vault": file,
        "source": json_of(&described.source),
        "key": described.key.map(|k| k.to_string()),
        "before": described.before.map(|k| k.to_string()),
    });
    answer(output, &value, || {
        let key = described
            .key
            .map_or("derived from the passphrase, as before there was an envelope".into(), |k| k.to_string());
        let before = described.before.map_or(String::new(), |k| {
            format!("\n  before       {k}: not everything is sealed again; finish with: fivefold vault rekey")
        });
        format!("vault {}\n  opened by    {}\n  data key     {key}{before}", file.display(), described.source)
    });
    Ok(())
}

fn rewrap(args: &Rewrap, output: Output) -> anyhow::Result<()> {
    let (To::PassphraseFile { which, .. } | To::Pkcs11 { which, .. } | To::SystemdCredential { which, .. }) = &args.to;
    let folder = &which.folder;
    let place = Place::of(&folder.dir)?;
    let to = match &args.to {
        To::PassphraseFile { file, .. } => {
            if !file.exists() {
                vault::draw_passphrase(file)?;
            }
            Source::PassphraseFile(file.clone())
        }
        To::Pkcs11 { token, .. } => Source::Pkcs11(token.key()?),
        To::SystemdCredential { name, .. } => Source::SystemdCredential(name.clone()),
    };
    let from = vault::describe(&place.vault)?.source;
    vault::rewrap(&place.vault, folder.passphrase_file.as_deref(), &to)?;
    if is_operators(&place.vault) {
        let mut book = Registry::open(&place.vault.join(REGISTRY_FILE), acting(crate::clock::now()?))?;
        book.enter_deed("vault rewrapped", format_args!("opened by {}", word(&to)))?;
    } else if place.vault.join(GATEWAY_FILE).exists() {
        acted(&place.vault, "vault rewrapped", format_args!("opened by {}", word(&to)))?;
    }
    let next = next_after(&place, folder, &from, &to);
    let file = place.vault.join(VAULT_FILE);
    let value = json!({ "vault": file, "source": json_of(&to), "next": next });
    answer(output, &value, || {
        let steps: String = next.iter().map(|step| format!("\n- {step}")).collect();
        format!("{} is opened by {to} now.\n\nNext:{steps}", file.display())
    });
    Ok(())
}

/// What opens a vault, without where it is.
const fn word(source: &Source) -> &'static str {
    match source {
        Source::PassphraseFile(_) => "a passphrase file",
        Source::Pkcs11(_) => "a PKCS #11 token",
        Source::SystemdCredential(_) => "a credential of systemd",
    }
}

/// What is left to do after a rewrapping.
fn next_after(place: &Place, folder: &Folder, from: &Source, to: &Source) -> Vec<String> {
    let mut next = Vec::new();
    if let (Some(cloud), false) = (&place.cloud, matches!(to, Source::PassphraseFile(_))) {
        let file = cloud.join(CLOUD_FILE);
        if read_config::<CloudSettings>(&file).is_ok_and(|s| s.passphrase_file.is_some()) {
            next.push(format!("take `passphrase_file` out of {}", file.display()));
        }
    }
    let credential = match to {
        Source::SystemdCredential(name) => Some(name),
        Source::Pkcs11(TokenKey { pin: Pin::Credential(name), .. }) => Some(name),
        _ => None,
    };
    if let Some(name) = credential {
        let line = format!("LoadCredentialEncrypted={name}:/etc/credstore.encrypted/{name}");
        next.push(format!("see that the unit has, under [Service]: {line}"));
    }
    if let (Source::PassphraseFile(old), true) = (from, from != to) {
        let old = folder.passphrase_file.as_ref().unwrap_or(old).display();
        next.push(format!(
            "start the daemon once; then move {old} to a safe with a copy of the vault.toml it opened, or shred it"
        ));
    }
    next.push(
        "whoever had the old source and the old vault.toml can still open it: fivefold vault rekey ends that".into(),
    );
    next
}

fn rekey(args: &Again, output: Output) -> anyhow::Result<()> {
    let folder = &args.which.folder;
    let place = Place::of(&folder.dir)?.with_cloud(args.cloud.as_deref());
    // What is there is looked at before anything is changed.
    let parts = place.parts()?;
    let rekey = Rekey::begin(&place.vault, folder.passphrase_file.as_deref())?;
    let mut resealed = Resealed::default();
    for part in &parts {
        let mut disk = |path: &Path, readers, bytes: &[u8]| Ok(files::write(path, readers, bytes)?);
        resealed.add(part, part.reseal(rekey.vault(), &mut disk)?);
    }
    let (key, resumed) = (rekey.vault().key_id().to_string(), rekey.resumed() == Resumed::Yes);
    rekey.finish()?;
    if place.vault.join(GATEWAY_FILE).exists() {
        acted(&place.vault, "vault rekeyed", format_args!("data key {key}"))?;
    }
    let file = place.vault.join(VAULT_FILE);
    let value = json!({ "vault": file, "key": key, "resumed": resumed, "resealed": resealed.json() });
    answer(output, &value, || {
        format!(
            "{} has data key {key} now{}. Sealed again: {resealed}.\n\n\
             Next: destroy backups that were made before, for they open under the key before; and make a new one.",
            file.display(),
            if resumed { ", drawn by a run that was interrupted" } else { "" }
        )
    });
    Ok(())
}

impl Token {
    fn key(&self) -> anyhow::Result<TokenKey> {
        let pin = match (&self.pin.pin_file, &self.pin.pin_credential) {
            (Some(file), _) => Pin::File(file.clone()),
            (None, Some(name)) => Pin::Credential(name.clone()),
            (None, None) => anyhow::bail!("name the PIN's place with --pin-file or --pin-credential"),
        };
        let key = TokenKey { module: self.module.clone(), token: self.token.clone(), key: self.key.clone(), pin };
        if self.generate_key {
            key.generate()?;
        }
        Ok(key)
    }
}

fn json_of(source: &Source) -> Value {
    let kind = source.kind();
    match source {
        Source::PassphraseFile(path) => json!({ "kind": kind, "path": path }),
        Source::Pkcs11(TokenKey { module, token, key, pin }) => {
            let (file, credential) = match pin {
                Pin::Credential(name) => (None, Some(name)),
                Pin::File(path) => (Some(path), None),
            };
            json!({ "kind": kind, "module": module, "token": token, "key": key, "pin_file": file, "pin_credential": credential })
        }
        Source::SystemdCredential(name) => json!({ "kind": kind, "name": name }),
    }
}
