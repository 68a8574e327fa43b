//! `fivefold log witness`: a witness that anybody can run, in a folder of its own.
//!
//! The folder has a vault of its own (`passphrase`, `vault.toml`), the sealed seeds of both keys, the public ones in `vkeys`, and
//! under `state` what was cosigned. Without `state` a log could be rolled back: it belongs to the keys.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use fivefold_cloud::witnesses::serve::{Served, serve};
use fivefold_evidence::cosignature::CosigningKey;
use fivefold_evidence::note::{Kind, VKey};
use fivefold_evidence::witness::{Store, Witness};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::tls::{Identity, LiveIdentity, server_config_web};
use fivefold_keep::vault::{VAULT_FILE, Vault, random};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::vkey;
use crate::clock;
use crate::output::{self, Output, answer};

/// Sealed: the witness's name, and the seeds of its keys.
const NAME_FILE: &str = "name";
const ED25519_FILE: &str = "ed25519-seed.sealed";
const ML_DSA_FILE: &str = "ml-dsa-44-seed.sealed";
const VKEYS_FILE: &str = "vkeys";

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The witness's folder; it is made, with new keys, if it is not there.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Its passphrase file, where it does not lie where vault.toml says.
    #[arg(long, env = "FIVEFOLD_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Name of a new witness, which its keys carry: like witness.example.org/w1. It cannot be changed later.
    #[arg(long)]
    name: Option<String>,
    /// Key of a log to cosign for, as its operator's `fivefold log show` prints it. Repeat for more.
    #[arg(long = "log", value_name = "VKEY", value_parser = vkey)]
    logs: Vec<VKey>,
    /// Listen with HTTPS: needs --certificate and --key.
    #[arg(long, value_name = "ADDR", requires_all = ["certificate", "key"], conflicts_with = "insecure_http")]
    listen: Option<SocketAddr>,
    /// Certificate chain (PEM) for HTTPS.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Its private key (PEM, ECDSA), readable by its owner alone.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Listen with plain HTTP: behind a proxy, or on one machine. Who listens learns what is public anyway, and a changed
    /// answer is refused by its signature.
    #[arg(long, value_name = "ADDR")]
    insecure_http: Option<SocketAddr>,
}

pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let keys = open_or_make(args)?;
    let vkeys: Vec<String> = keys.iter().map(|key| key.vkey().to_string()).collect();
    let Some(address) = args.listen.or(args.insecure_http) else {
        answer(output, &json!({ "dir": args.dir, "vkeys": vkeys }), || {
            format!(
                "A witness in {}. Its keys, for whoever pins it:\n{}\nRun it: fivefold log witness --dir {} --log VKEY --listen ADDR …",
                args.dir.display(),
                vkeys.join("\n"),
                args.dir.display()
            )
        });
        return Ok(ExitCode::SUCCESS);
    };
    anyhow::ensure!(!args.logs.is_empty(), "name at least one log to cosign for: --log VKEY");
    let store = Store::open(&args.dir.join("state"))?;
    let mut engine = Witness::new(keys);
    let origins: BTreeSet<&str> = args.logs.iter().map(VKey::name).collect();
    for origin in origins {
        // A log that changes its key has two for a while.
        let keys = args.logs.iter().filter(|key| key.name() == origin).cloned().collect();
        engine
            .watch(keys, store.read(origin)?)
            .with_context(|| format!("what was cosigned for {origin} is not signed by a key that --log names"))?;
    }
    let tls = match (&args.certificate, &args.key, args.listen) {
        (Some(certificate), Some(key), Some(_)) => {
            let chain = files::read_text(certificate)?;
            let identity = Identity::from_pem(chain.as_bytes(), &files::read_private(key)?)?;
            Some(Arc::new(server_config_web(&LiveIdentity::new(identity))?))
        }
        _ => None,
    };
    clock::now()?;
    output::log(output);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.with_context(|| format!("{address} cannot be listened at"))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, tls.clone(), Arc::new(Served::new(engine, store)), stopped));
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let scheme = if tls.is_some() { "https" } else { "http" };
        match output {
            Output::Human => {
                println!("Cosigning for {} at {scheme}://{address}. Keys:\n{}", names(&args.logs), vkeys.join("\n"))
            }
            Output::Json => {
                println!("{}", json!({ "event": "ready", "url": format!("{scheme}://{address}"), "vkeys": vkeys }))
            }
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // What is being written is finished first.
        let _ = stop.send(true);
        serving.await.context("the server ended badly")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn names(logs: &[VKey]) -> String {
    logs.iter().map(VKey::name).collect::<Vec<_>>().join(", ")
}

fn open_or_make(args: &Args) -> anyhow::Result<Vec<CosigningKey>> {
    let dir = &args.dir;
    let vault = if dir.join(VAULT_FILE).exists() {
        Vault::open_folder_with(dir, args.passphrase_file.as_deref())?
    } else {
        let in_use = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
        anyhow::ensure!(!in_use, "{} is not empty and no witness's; name a new folder", dir.display());
        let name = args.name.as_deref().context("a new witness needs a name: --name witness.example.org/w1")?;
        // Whatever the name is refused for, it is before anything is made.
        CosigningKey::from_seed(name, Kind::Witness, &Zeroizing::new([0; 32]))?;
        files::create_folder(dir)?;
        let vault = Vault::create(dir)?;
        vault.seal_file(&dir.join(ED25519_FILE), &random::<32>()?[..])?;
        vault.seal_file(&dir.join(ML_DSA_FILE), &random::<32>()?[..])?;
        files::write(&dir.join(NAME_FILE), Readers::Everybody, name.as_bytes())?;
        vault
    };
    let name = files::read_text(&dir.join(NAME_FILE)).with_context(|| {
        format!("{} is no witness's folder, or was not made to the end: name a new one", dir.display())
    })?;
    if let Some(other) = args.name.as_ref().filter(|other| **other != name) {
        anyhow::bail!("the witness in {} is {name}, not {other}: a name cannot be changed", dir.display());
    }
    let key = |file: &str, kind| -> anyhow::Result<CosigningKey> {
        Ok(CosigningKey::from_seed(&name, kind, &seed(&vault, &dir.join(file))?)?)
    };
    let keys = vec![key(ED25519_FILE, Kind::Witness)?, key(ML_DSA_FILE, Kind::WitnessPq)?];
    let vkeys: String = keys.iter().map(|key| format!("{}\n", key.vkey())).collect();
    files::write(&dir.join(VKEYS_FILE), Readers::Everybody, vkeys.as_bytes())?;
    Ok(keys)
}

fn seed(vault: &Vault, path: &Path) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let opened = vault.open_file(path)?;
    let seed: &[u8; 32] =
        opened.as_slice().try_into().with_context(|| format!("{} is no seed of a key", path.display()))?;
    Ok(Zeroizing::new(*seed))
}
