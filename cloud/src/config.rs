//! Configuration: [`CloudSettings`] is exactly the file, [`Config`] is checked and ready.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::note::VKey;
use fivefold_keep::ca::{Authority, CaError};
use fivefold_keep::files::{self, FileError};
use fivefold_keep::share::{
    CA_FILE, CERTIFICATE_FILE, CLOUD_FILE, CloudSettings, CloudWitness, HEAD_EVERY_S, ShareError, read_config,
};
use fivefold_keep::tls::{Anchor, Groups, Identity, TlsError};
use fivefold_keep::vault::{Vault, VaultError};

use crate::alarm;
use crate::cloud::RenewalSettings;
use crate::limits::Policy;
use crate::log::{Serving, WitnessConfig};
use crate::log_key::{self, LOG_FOLDER, LogKeyError};
use crate::meshlium::MeshliumMqtt;

/// File name of the sealed key of the cloud's certificate.
pub const KEY_FILE: &str = "key.sealed";

/// File names of the issuing key's certificate, and of the sealed key.
pub const ISSUER_FILE: &str = "issuer.pem";
/// See [`ISSUER_FILE`].
pub const ISSUER_KEY_FILE: &str = "issuer-key.sealed";
/// File name of the deployment's trust file, written by `fivefold evidence trust`, if the cloud is to have one.
pub const TRUST_FILE: &str = "trust.toml";

/// Why a configuration cannot be used. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The folder has no config.
    #[error("{folder} has no {CLOUD_FILE}; name the cloud's folder, made by: fivefold init DIR (it is DIR/cloud)", folder = folder.display())]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The file is wrong.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// Ingest and API cannot have one address.
    #[error("{file}: ingest.bind and api.bind are both {bind}; give them different ports", file = file.display())]
    SameAddress {
        /// The file.
        file: PathBuf,
        /// The address.
        bind: SocketAddr,
    },
    /// Something the config names is not there.
    #[error("{file}: `{key}` names {path}, which is not there", file = file.display(), path = path.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// The key in it.
        key: &'static str,
        /// What it names.
        path: PathBuf,
    },
    /// A word in the file is wrong.
    #[error("{file}: `{key}`: {reason}", file = file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// The key in it.
        key: &'static str,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The vault's source or a sealed file is wrong.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The issuing key cannot be used.
    #[error("{path}: {source}; make another: fivefold cloud renew-issuer", path = path.display())]
    Issuer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CaError,
    },
    /// The log's key cannot be used.
    #[error(transparent)]
    LogKey(#[from] LogKeyError),
    /// The certificate cannot be used.
    #[error("{path}: {source}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TlsError,
    },
}

impl ConfigError {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::NoFolder { .. }
            | Self::SameAddress { .. }
            | Self::Wrong { .. }
            | Self::Issuer { .. }
            | Self::Tls { .. } => true,
            // It may lie on a medium that is about to come.
            Self::Missing { .. } => false,
            Self::Share(e) => e.is_lasting(),
            Self::File(e) => e.is_lasting(),
            Self::Vault(e) => e.is_lasting(),
            Self::LogKey(e) => e.is_lasting(),
        }
    }
}

/// A configuration that was checked: paths are resolved, and name files that exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The operator's book.
    pub registry: PathBuf,
    /// Folder of the vault.
    pub vault: PathBuf,
    /// The vault's passphrase, where it does not lie where the vault says.
    pub passphrase_file: Option<PathBuf>,
    /// Where readings are stored.
    pub store: PathBuf,
    /// Where gateways connect.
    pub ingest: SocketAddr,
    /// Which key exchange they may use.
    pub groups: Groups,
    /// Where people and programs read.
    pub api: SocketAddr,
    /// The cloud's certificate.
    pub certificate: PathBuf,
    /// Its key, sealed.
    pub key: PathBuf,
    /// The operator's CA.
    pub ca: PathBuf,
    /// When devices are told to renew.
    pub renewals: RenewalSettings,
    /// Where values of classic frames are published, if anywhere.
    pub meshlium_mqtt: Option<MeshliumMqtt>,
    /// Certificate of the key that issues gateways' certificates, if the operator gave the cloud one.
    pub issuer: PathBuf,
    /// That key, sealed.
    pub issuer_key: PathBuf,
    /// Folder of the cloud, with the sealed key of the log.
    pub folder: PathBuf,
    /// Where the log lies.
    pub log: PathBuf,
    /// Whether the API serves the log's files.
    pub log_serving: Serving,
    /// Time between two heads of it.
    pub head_every: Duration,
    /// Who cosigns its heads.
    pub witnesses: Vec<WitnessConfig>,
    /// Who is told of alarms.
    pub alarm_sinks: Vec<alarm::Sink>,
    /// How long what is kept, and how much of it.
    pub limits: Policy,
    /// Where readings go.
    pub outbox: Vec<fivefold_sinks::Settings>,
    /// Whom the page for evidence believes if it is told nobody else; it need not be there.
    pub trust: PathBuf,
}

impl Config {
    /// Reads and checks `cloud.toml` of a folder.
    ///
    /// # Errors
    /// [`ConfigError`]: the first mistake.
    pub fn load(folder: &Path) -> Result<Self, ConfigError> {
        let file = folder.join(CLOUD_FILE);
        if !file.exists() {
            return Err(ConfigError::NoFolder { folder: folder.to_owned() });
        }
        let s: CloudSettings = read_config(&file)?;
        if s.ingest.bind == s.api.bind && s.api.bind.port() != 0 {
            return Err(ConfigError::SameAddress { file, bind: s.api.bind });
        }
        let meshlium_mqtt = s.meshlium_mqtt.as_ref().map(|words| MeshliumMqtt::check(words, folder)).transpose();
        let meshlium_mqtt = meshlium_mqtt.map_err(|wrong| ConfigError::Wrong {
            file: file.clone(),
            key: wrong.key,
            reason: wrong.reason,
        })?;
        let wrong = |key, reason| ConfigError::Wrong { file: file.clone(), key, reason };
        let witness = |w| witness(w, folder, |reason| wrong("log.witnesses", reason));
        let witnesses = s.log.witnesses.iter().map(witness).collect::<Result<_, _>>()?;
        if !(1..=HEAD_EVERY_S).contains(&s.log.head_every_s) {
            return Err(wrong("log.head_every_s", format!("expected 1 to {HEAD_EVERY_S} seconds")));
        }
        let alarm_sinks = alarm::check(&s.alarm.sink, folder).map_err(|e| wrong("alarm.sink", e.to_string()))?;
        let limits = Policy::check(&s.limits).map_err(|nonsense| wrong(nonsense.key, nonsense.reason))?;
        let outbox = fivefold_sinks::check(&s.outbox, folder).map_err(|e| wrong("outbox", e.to_string()))?;
        let outbox: Vec<_> = outbox.into_iter().map(|sink| sink.leaving(limits.keep_free)).collect();
        if let Some(sink) = outbox.iter().find(|sink| limits.disk.is_some() && lies_in(sink.folder(), folder)) {
            let reason = format!(
                "the folder of \"{}\" lies in the cloud's own: it counts against limits.disk_max_mib, and nothing there is pruned; \
                 name one elsewhere",
                sink.name
            );
            return Err(wrong("outbox", reason));
        }
        let config = Self {
            limits,
            alarm_sinks,
            outbox,
            folder: folder.to_owned(),
            log: folder.join(LOG_FOLDER),
            log_serving: if s.log.serve { Serving::ToEverybody } else { Serving::ToNobody },
            head_every: Duration::from_secs(s.log.head_every_s.into()),
            witnesses,
            meshlium_mqtt,
            registry: folder.join(s.registry),
            vault: folder.join(s.vault),
            passphrase_file: s.passphrase_file.map(|p| folder.join(p)),
            store: folder.join(s.store),
            ingest: s.ingest.bind,
            groups: if s.ingest.insecure_allow_x25519 { Groups::DangerAllowX25519 } else { Groups::HybridOnly },
            api: s.api.bind,
            certificate: folder.join(CERTIFICATE_FILE),
            key: folder.join(KEY_FILE),
            ca: folder.join(CA_FILE),
            renewals: RenewalSettings { installed_after: s.renewal.installed_after_s.saturating_mul(1000) },
            issuer: folder.join(ISSUER_FILE),
            issuer_key: folder.join(ISSUER_KEY_FILE),
            trust: folder.join(TRUST_FILE),
        };
        let named: [(&'static str, Option<&Path>); 4] = [
            ("registry", Some(&config.registry)),
            ("vault", Some(&config.vault)),
            ("passphrase_file", config.passphrase_file.as_deref()),
            ("store", Some(files::folder_of(&config.store))),
        ];
        for (key, path) in named.into_iter().filter_map(|(key, path)| Some((key, path?))) {
            if !path.exists() {
                return Err(ConfigError::Missing { file, key, path: path.to_owned() });
            }
        }
        Ok(config)
    }

    /// Opens the vault. Takes some tenths of a second.
    ///
    /// # Errors
    /// [`ConfigError::Vault`].
    pub fn open_vault(&self) -> Result<Vault, ConfigError> {
        Ok(Vault::open_folder_with(&self.vault, self.passphrase_file.as_deref())?)
    }

    /// The cloud's certificate with its key.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn identity(&self, vault: &Vault) -> Result<Identity, ConfigError> {
        let tls = |source| ConfigError::Tls { path: self.certificate.clone(), source };
        let chain = files::read_text(&self.certificate)?;
        let key = vault.open_file(&self.key)?;
        let identity = Identity::from_pkcs8(chain.as_bytes(), &key).map_err(tls)?;
        identity.require_cloud().map_err(tls)?;
        Ok(identity)
    }

    /// The operator's CA.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn anchor(&self) -> Result<Anchor, ConfigError> {
        Anchor::from_pem(self.ca_pem()?.as_bytes()).map_err(|source| ConfigError::Tls { path: self.ca.clone(), source })
    }

    /// The same as it stands in the file.
    ///
    /// # Errors
    /// [`ConfigError::File`].
    pub fn ca_pem(&self) -> Result<String, ConfigError> {
        Ok(files::read_text(&self.ca)?)
    }

    /// The key that issues gateways' certificates. Without its file the cloud issues none.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn issuing(&self, vault: &Vault) -> Result<Option<Authority>, ConfigError> {
        if !self.issuer.exists() {
            return Ok(None);
        }
        let (certificate, key) = (files::read_text(&self.issuer)?, vault.open_file(&self.issuer_key)?);
        let issuing = Authority::load(&certificate, &key)
            .map_err(|source| ConfigError::Issuer { path: self.issuer.clone(), source })?;
        Ok(Some(issuing))
    }

    /// The log's key; it is made where there is none yet, in folders of versions without a log.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn log_key(&self, vault: &Vault) -> Result<LogKey, ConfigError> {
        Ok(log_key::open_or_make(&self.folder, vault, &self.ca_pem()?)?)
    }

    /// As it was resolved, one setting a line.
    pub fn describe(&self) -> String {
        let Self {
            registry, vault, passphrase_file, store, ingest, groups, api, certificate, key, ca, renewals, ..
        } = self;
        let passphrase_file =
            passphrase_file.as_ref().map(|p| format!("passphrase_file = {}\n", p.display())).unwrap_or_default();
        let witnesses: String = self.witnesses.iter().map(|w| format!("\nlog.witness = {}", w.url)).collect();
        let sinks: String = self.alarm_sinks.iter().map(|sink| format!("\nalarm.sink = {sink}")).collect();
        let outbox: String = self.outbox.iter().map(|sink| format!("\noutbox = {sink}")).collect();
        let mqtt = self.meshlium_mqtt.as_ref().map(|m| format!("\nmeshlium_mqtt = {m}")).unwrap_or_default();
        format!(
            "registry = {}\nvault = {}\n{passphrase_file}store = {}\ningest.bind = {ingest}\n\
             ingest.groups = {}\napi.bind = {api}\ncertificate = {}\nkey = {}\nca = {}\n\
             renewal.installed_after_s = {}\nlog = {}\nlog.serve = {}\nlog.head_every_s = {}{witnesses}{mqtt}{sinks}{outbox}\n{}",
            registry.display(),
            vault.display(),
            store.display(),
            match groups {
                Groups::HybridOnly => "X25519MLKEM768",
                Groups::DangerAllowX25519 => "X25519MLKEM768, X25519 (insecure_allow_x25519)",
            },
            certificate.display(),
            key.display(),
            ca.display(),
            renewals.installed_after / 1000,
            self.log.display(),
            self.log_serving == Serving::ToEverybody,
            self.head_every.as_secs(),
            self.limits.describe()
        )
    }
}

/// Whether a folder that a sink writes to is below this one, wherever links lead.
fn lies_in(sink: Option<&Path>, folder: &Path) -> bool {
    // What is not there yet is where its folder is.
    let real = |path: &Path| path.canonicalize().or_else(|_| files::folder_of(path).canonicalize());
    sink.is_some_and(|sink| real(sink).and_then(|sink| Ok(sink.starts_with(real(folder)?))).unwrap_or(false))
}

/// A witness as the file names it.
fn witness(
    words: &CloudWitness,
    folder: &Path,
    wrong: impl Fn(String) -> ConfigError,
) -> Result<WitnessConfig, ConfigError> {
    let keys = words.vkey.as_slice().iter().map(|key| key.parse::<VKey>());
    let keys = keys.collect::<Result<Vec<_>, _>>().map_err(|e| wrong(format!("the vkey of {}: {e}", words.url)))?;
    if keys.is_empty() {
        return Err(wrong(format!("{} has no vkey; the witness prints it", words.url)));
    }
    let ca = words.ca.as_ref().map(|path| files::read_text(&folder.join(path))).transpose()?;
    Ok(WitnessConfig { url: words.url.clone(), keys, ca })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lake_in_the_clouds_own_folder_is_refused_where_that_has_a_budget() {
        let at = tempfile::tempdir().unwrap();
        let folder = at.path().join("cloud");
        std::fs::create_dir_all(folder.join("inside")).unwrap();
        std::fs::write(folder.join("registry.db"), b"").unwrap();
        std::os::unix::fs::symlink(folder.join("inside"), at.path().join("link")).unwrap();
        let load = |lake: &str, budget: &str| {
            let text = format!(
                "registry = \"registry.db\"\nvault = \".\"\nstore = \"readings.db\"\n[ingest]\nbind = \"127.0.0.1:1\"\n\
                 [api]\nbind = \"127.0.0.1:2\"\n{budget}[[outbox]]\nname = \"lake\"\nparquet = \"{lake}\"\n"
            );
            std::fs::write(folder.join(CLOUD_FILE), text).unwrap();
            Config::load(&folder)
        };
        let budget = "[limits]\ndisk_max_mib = 1024\n";
        for inside in ["inside", "not-yet-there", "../link"] {
            let error = load(inside, budget).unwrap_err().to_string();
            assert!(error.contains("`outbox`: the folder of \"lake\"") && error.contains("disk_max_mib"), "{error}");
            load(inside, "").unwrap();
        }
        load("../elsewhere", budget).unwrap();
    }
}
