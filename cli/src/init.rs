//! `fivefold init DIR`: the operator's folder.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_cloud::config::{ISSUER_FILE, ISSUER_KEY_FILE};
use fivefold_cloud::log_key;
use fivefold_keep::ca::{Authority, ISSUER_DAYS, LONGEST_DAYS, Role};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::Registry;
use fivefold_keep::share::{
    self, CA_FILE, CERTIFICATE_FILE, CLOUD_FILE, CloudAlarm, CloudApi, CloudIngest, CloudLimits, CloudLog,
    CloudRenewal, CloudSettings,
};
use fivefold_keep::vault::Vault;
use serde_json::json;

use crate::operator::{self, CA_KEY_FILE, OPERATOR_FILE, OPERATOR_HEADING, REGISTRY_FILE, Settings};
use crate::output::{Output, answer};

/// File name of the sealed key of the cloud's certificate.
pub const CLOUD_KEY_FILE: &str = "key.sealed";

/// First lines of `cloud.toml`.
pub const CLOUD_HEADING: &str =
    "The Fivefold cloud. Paths are relative to this file. Run it with: fivefold cloud run --dir THIS_FOLDER";

/// Arguments of `fivefold init`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder to make; it must not exist or be empty.
    pub dir: PathBuf,
    /// Name of the deployment.
    #[arg(long, default_value = "fivefold")]
    pub name: String,
    /// Host name or address of the cloud, to stand in its certificate. Repeat for more; the first is what gateways dial.
    #[arg(long = "cloud-name", value_name = "NAME", default_values = ["localhost", "127.0.0.1"])]
    pub cloud_names: Vec<String>,
    /// Where the cloud listens for gateways (E4).
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDR")]
    pub ingest: SocketAddr,
    /// Where the cloud's API listens (HTTPS).
    #[arg(long, default_value = "127.0.0.1:8444", value_name = "ADDR")]
    pub api: SocketAddr,
}

/// Makes the folder.
///
/// # Errors
/// It exists, or something cannot be written.
pub fn create(args: &Args) -> anyhow::Result<Settings> {
    let dir = &args.dir;
    let now = crate::clock::now()?;
    let in_use = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    anyhow::ensure!(!in_use, "{} is not empty; name a new folder, for init overwrites nothing", dir.display());
    files::create_folder(dir)?;
    let vault = Vault::create(dir)?;
    let (authority, key) = Authority::create(&args.name)?;
    vault.seal_file(&dir.join(CA_KEY_FILE), &key)?;
    files::write(&dir.join(CA_FILE), Readers::Everybody, authority.certificate().as_bytes())?;
    let mut registry = Registry::create(&dir.join(REGISTRY_FILE), operator::acting(now))?;
    registry.cloud_identity(&vault)?;

    let cloud = dir.join("cloud");
    files::create_folder(&cloud)?;
    let issued = authority.issue(&Role::Cloud(args.cloud_names.clone()), now, LONGEST_DAYS)?;
    registry.enter_certificate(None, &issued.certified, operator::by(&operator::who(), now))?;
    files::write(&cloud.join(CERTIFICATE_FILE), Readers::Everybody, issued.certified.chain.as_bytes())?;
    files::write(&cloud.join(CA_FILE), Readers::Everybody, authority.certificate().as_bytes())?;
    vault.seal_file(&cloud.join(CLOUD_KEY_FILE), &issued.key)?;
    let (issuer, issuer_key) = authority.create_issuer(now, ISSUER_DAYS)?;
    vault.seal_file(&cloud.join(ISSUER_KEY_FILE), &issuer_key)?;
    files::write(&cloud.join(ISSUER_FILE), Readers::Everybody, issuer.as_bytes())?;
    log_key::open_or_make(&cloud, &vault, authority.certificate())?;
    let settings = CloudSettings {
        registry: PathBuf::from("..").join(REGISTRY_FILE),
        vault: "..".into(),
        passphrase_file: None,
        store: "readings.db".into(),
        ingest: CloudIngest { bind: args.ingest, insecure_allow_x25519: false },
        api: CloudApi { bind: args.api },
        renewal: CloudRenewal::default(),
        meshlium_mqtt: None,
        log: CloudLog::default(),
        alarm: CloudAlarm::default(),
        limits: CloudLimits::default(),
        outbox: Vec::new(),
    };
    share::write_config(&cloud.join(CLOUD_FILE), CLOUD_HEADING, &settings)?;
    let host = args.cloud_names.first().context("at least one --cloud-name is needed")?;
    let (cloud, api) = Settings::urls(host, args.ingest.port(), args.api.port());
    let settings = Settings { name: args.name.clone(), cloud, api };
    share::write_config(&dir.join(OPERATOR_FILE), OPERATOR_HEADING, &settings)?;
    Ok(settings)
}

/// Runs the command.
///
/// # Errors
/// As [`create`].
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let (dir, settings) = (&args.dir, create(args)?);
    let shown = dir.display();
    let value = json!({ "dir": dir, "name": args.name, "cloud": settings.cloud, "api": settings.api });
    answer(output, &value, || {
        format!(
            "Made {shown}: CA, registry and the cloud's share, sealed under {shown}/passphrase.\n\
             Whoever has that file and the folder has every key: keep a copy of it elsewhere.\n\n\
             Next: fivefold network add --dir {shown} NAME"
        )
    });
    Ok(ExitCode::SUCCESS)
}
