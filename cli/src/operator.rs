//! The operator's folder: CA, vault, registry, and the shares handed out of it (D6).

pub mod deeds;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_keep::acts;
use fivefold_keep::ca::Authority;
use fivefold_keep::files;
pub use fivefold_keep::registry::REGISTRY_FILE;
use fivefold_keep::registry::{By, Registry, Word};
use fivefold_keep::share::CA_FILE;
use fivefold_keep::sign::SigningKey;
use fivefold_keep::vault::{VAULT_FILE, Vault};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// File name of the sealed key of the CA.
pub const CA_KEY_FILE: &str = "ca-key.sealed";
/// File name of what the folder says of itself.
pub const OPERATOR_FILE: &str = "operator.toml";
/// Its first line.
pub const OPERATOR_HEADING: &str = "An operator's folder of Fivefold. Keep `passphrase` apart.";

/// Which folder a command works on.
#[derive(Clone, Debug, clap::Args)]
pub struct Folder {
    /// The operator's folder, made by `fivefold init`.
    #[arg(long, env = "FIVEFOLD_DIR", default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
    /// Its passphrase file, where it does not lie where vault.toml says.
    #[arg(long, env = "FIVEFOLD_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// `operator.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of the deployment.
    pub name: String,
    /// Where gateways find the cloud.
    pub cloud: String,
    /// Where people find the cloud's API.
    pub api: String,
}

impl Settings {
    /// Where the cloud is, on these ports of a host or address.
    pub fn urls(host: &str, ingest: u16, api: u16) -> (String, String) {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        (format!("https://{host}:{ingest}"), format!("https://{host}:{api}"))
    }

    /// Says that the cloud is at another host, on the ports that it has.
    ///
    /// # Errors
    /// They do not say their ports.
    pub fn move_to(&mut self, host: &str) -> anyhow::Result<()> {
        let port = |url: &str| url.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        let ports = port(&self.cloud).zip(port(&self.api));
        let (ingest, api) =
            ports.with_context(|| format!("write cloud and api as https://HOST:PORT in {OPERATOR_FILE}"))?;
        (self.cloud, self.api) = Self::urls(host, ingest, api);
        Ok(())
    }
}

/// The folder, opened.
#[derive(Debug)]
pub struct Operator {
    /// Where it is.
    pub dir: PathBuf,
    /// What it says of itself.
    pub settings: Settings,
    /// Its book.
    pub registry: Registry,
    /// What its secrets are sealed under.
    pub vault: Vault,
}

impl Folder {
    /// Opens book and vault.
    ///
    /// # Errors
    /// The folder is none, or its vault does not open.
    pub fn open(&self) -> anyhow::Result<Operator> {
        let (settings, registry) = self.open_book()?;
        let vault = Vault::open_folder_with(&self.dir, self.passphrase_file.as_deref())?;
        Ok(Operator { dir: self.dir.clone(), settings, registry, vault })
    }

    fn ensure(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            is_operators(&self.dir),
            "{} is no operator's folder; make one with: fivefold init DIR, then add --dir DIR to this command",
            self.dir.display()
        );
        Ok(())
    }

    /// Opens the book alone: enough to list and to revoke.
    ///
    /// # Errors
    /// The folder is none.
    pub fn open_book(&self) -> anyhow::Result<(Settings, Registry)> {
        self.ensure()?;
        let settings = fivefold_keep::share::read_config(&self.dir.join(OPERATOR_FILE))?;
        Ok((settings, Registry::open(&self.dir.join(REGISTRY_FILE), acting(crate::clock::now()?))?))
    }
}

impl Operator {
    /// The CA, with its key.
    ///
    /// # Errors
    /// Its files are damaged or missing.
    pub fn authority(&self) -> anyhow::Result<Authority> {
        let certificate = files::read_text(&self.dir.join(CA_FILE))?;
        Authority::load(&certificate, &self.authority_key()?).context("the operator's CA does not load")
    }

    /// The CA's key, as what signs the answers of devices.
    ///
    /// # Errors
    /// Its file is damaged or missing.
    pub fn signer(&self) -> anyhow::Result<SigningKey> {
        SigningKey::from_pkcs8(&self.authority_key()?).context("the key of the operator's CA does not load")
    }

    fn authority_key(&self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        anyhow::ensure!(
            self.dir.join(CA_KEY_FILE).exists(),
            "the key of the CA is not here: put {CA_KEY_FILE} back into {} for as long as this command runs",
            self.dir.display()
        );
        Ok(self.vault.open_file(&self.dir.join(CA_KEY_FILE))?)
    }

    /// Folder of a gateway's share.
    pub fn gateway_folder(&self, name: &str) -> PathBuf {
        gateway_folder(&self.dir, name)
    }
}

/// Whether a folder has what `fivefold init` makes.
pub fn is_operators(dir: &Path) -> bool {
    dir.join(VAULT_FILE).exists() && dir.join(REGISTRY_FILE).exists()
}

/// By whose word this command acts, for the history: the operator, as the account that the system runs it under, behind the one that
/// somebody logged in with, if that is another. Variables say what whoever typed the command likes, and outlive `runuser`: only root's
/// `SUDO_USER` is asked, where the system keeps no login.
pub fn who() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid =
        status.lines().find_map(|l| l.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
    let login = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|id| id.trim().parse().ok());
    let sudo = std::env::var("SUDO_USER").ok().filter(|_| uid == Some(0));
    called(&std::fs::read_to_string("/etc/passwd").unwrap_or_default(), uid, login.filter(|id| *id != u32::MAX), sudo)
}

fn called(accounts: &str, uid: Option<u32>, login: Option<u32>, sudo: Option<String>) -> String {
    let plain = |name: &str| name.chars().filter(char::is_ascii_graphic).take(20).collect::<String>();
    let name = |id: u32| {
        let of = |line: &&str| line.split(':').nth(2).is_some_and(|n| n.parse() == Ok(id));
        accounts.lines().find(of).and_then(|l| l.split(':').next()).map_or_else(|| id.to_string(), plain)
    };
    let account = uid.map(name);
    let person =
        login.map(name).or_else(|| sudo.as_deref().map(plain)).filter(|p| !p.is_empty() && Some(p) != account.as_ref());
    match (person, account) {
        (Some(person), Some(account)) => format!("operator {person} as {account}"),
        (Some(one), None) | (None, Some(one)) => format!("operator {one}"),
        (None, None) => "operator".into(),
    }
}

/// The words of the command that runs in this thread, without its arguments.
pub(crate) mod command {
    use std::cell::RefCell;

    thread_local! {
        static WORDS: RefCell<String> = const { RefCell::new(String::new()) };
    }

    pub(crate) fn begins(matches: &clap::ArgMatches) {
        let mut words = Vec::new();
        let mut at = matches;
        while let Some((verb, below)) = at.subcommand() {
            words.push(verb);
            at = below;
        }
        WORDS.set(words.join(" "));
    }

    pub(super) fn words() -> String {
        WORDS.with_borrow(Clone::clone)
    }
}

/// Who opens a book for changes, from where, and with which command, for the operator's log: the account as it calls itself
/// and as the system numbers it; the address that it came from by SSH, or else its terminal.
pub fn acting(at: u64) -> By {
    let uid = std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m));
    let who = uid.map_or_else(|_| who(), |uid| format!("{} (uid {uid})", who()));
    let ssh = std::env::var("SSH_CONNECTION").ok();
    let peer = ssh.as_deref().and_then(|s| s.split(' ').next()).filter(|s| s.parse::<std::net::IpAddr>().is_ok());
    let terminal =
        std::fs::read_link("/proc/self/fd/0").ok().and_then(|t| t.strip_prefix("/dev").ok().map(PathBuf::from));
    let terminal = terminal.filter(|t| t.as_os_str() != "null");
    let place = match (peer, terminal) {
        (Some(peer), _) => format!("ssh {peer}"),
        (None, Some(terminal)) => terminal.display().to_string(),
        (None, None) => "no terminal".into(),
    };
    By::new(who, place, command::words(), at)
}

/// Leaves a line in a gateway's folder of what was done to it.
///
/// # Errors
/// It cannot be written.
pub(crate) fn acted(folder: &Path, done: &str, about: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(acts::enter(folder, &acting(crate::clock::now()?), done, about)?)
}

/// The same as a word in the book.
pub const fn by(who: &str, at: u64) -> Word<'_> {
    Word { who, at }
}

/// Folder of a gateway's share.
pub fn gateway_folder(dir: &Path, name: &str) -> PathBuf {
    dir.join("gateways").join(name)
}

/// Folder of a node's share.
pub fn node_folder(dir: &Path, did: &str) -> PathBuf {
    dir.join("nodes").join(did)
}

/// Names become folders: letters, digits, dot, dash and underscore, not starting with a dot.
///
/// # Errors
/// One sentence.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    anyhow::ensure!(
        !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.chars().all(good),
        "the name `{name}` cannot be used; take letters, digits, - _ + and dots, at most 64"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::called;

    #[test]
    fn a_line_names_who_logged_in_and_the_account_and_no_variable_of_theirs() {
        let accounts =
            "root:x:0:0::/root:/bin/sh\nanna:x:1000:1000::/:/bin/sh\nfivefold-cloud:x:998:998::/:/bin/false\n";
        let said = |uid, login, sudo: Option<&str>| called(accounts, Some(uid), login, sudo.map(str::to_owned));
        assert_eq!(said(998, Some(1000), None), "operator anna as fivefold-cloud");
        assert_eq!(said(998, None, None), "operator fivefold-cloud");
        assert_eq!(said(1000, Some(1000), None), "operator anna");
        assert_eq!(said(0, Some(1000), Some("eve")), "operator anna as root");
        assert_eq!(said(0, None, Some("anna")), "operator anna as root");
        assert_eq!(said(4242, None, None), "operator 4242");
        assert_eq!(called("", None, None, None), "operator");
    }
}
