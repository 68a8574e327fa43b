//! Secrets of sinks, of alarms and of readings: read or drawn, and sealed for the cloud.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_keep::files;
use fivefold_keep::registry::Registry;
use fivefold_keep::share::CloudSettings;
use fivefold_keep::vault::{Vault, random};
use zeroize::Zeroizing;

use crate::clock;
use crate::operator::acting;

/// Bytes of a secret, at most.
const LONGEST: u64 = 1024;
/// Bytes of a webhook's secret, at least: a shorter one can be guessed from what it signed.
const SHORTEST_KEY: usize = 16;

/// Which secret.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The cloud's folder, or the operator's with the cloud in it.
    #[arg(long, env = "FIVEFOLD_DIR", default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
    /// The sink's name in cloud.toml.
    pub name: String,
    /// File with the secret, which only its owner can read; without it, it is read from standard input. A line end behind it is
    /// none of it.
    #[arg(long, value_name = "FILE", conflicts_with = "draw")]
    file: Option<PathBuf>,
    /// Draw a secret for a webhook, and print it once, for its receiver.
    #[arg(long)]
    draw: bool,
}

impl Args {
    /// Reads or draws the secret and seals it into `to`, in the cloud's `folder`; `done` is what the operator's log calls it. Gives back what is to be shown once.
    ///
    /// # Errors
    /// It cannot be read, is none, or the vault does not open.
    pub fn seal(
        &self,
        folder: &Path,
        settings: &CloudSettings,
        to: &Path,
        done: &'static str,
        is_webhook: bool,
        draw: impl FnOnce(&[u8; 32]) -> String,
    ) -> anyhow::Result<Option<Zeroizing<String>>> {
        anyhow::ensure!(
            is_webhook || !self.draw,
            "--draw is for webhooks: a password is the server's, not ours to draw"
        );
        let drawn = if self.draw { Some(Zeroizing::new(draw(&*random::<32>()?))) } else { None };
        let secret = match &drawn {
            Some(drawn) => Zeroizing::new(drawn.as_bytes().to_vec()),
            None => self.read()?,
        };
        anyhow::ensure!(!secret.is_empty(), "the secret is empty; nothing was changed");
        anyhow::ensure!(
            !is_webhook || secret.len() >= SHORTEST_KEY,
            "a webhook's secret needs at least {SHORTEST_KEY} bytes; --draw makes one"
        );
        let passphrase = settings.passphrase_file.as_ref().map(|p| folder.join(p));
        let vault = Vault::open_folder_with(&folder.join(&settings.vault), passphrase.as_deref())?;
        Registry::open(&folder.join(&settings.registry), acting(clock::now()?))?
            .enter_deed(done, format_args!("sink {}", self.name))?;
        vault.seal_file(to, &secret)?;
        Ok(drawn)
    }

    fn read(&self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let mut secret = match &self.file {
            Some(file) => files::read_private(file)?,
            None => {
                let mut secret = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
                let input = std::io::stdin().lock();
                input.take(LONGEST + 1).read_to_end(&mut secret).context("cannot read standard input")?;
                secret
            }
        };
        anyhow::ensure!(secret.len() as u64 <= LONGEST, "a secret has {LONGEST} bytes at most; nothing was changed");
        while secret.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            secret.pop();
        }
        Ok(secret)
    }
}
