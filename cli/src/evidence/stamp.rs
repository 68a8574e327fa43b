//! `fivefold evidence timestamp`: what an authority of RFC 3161 says of the checkpoints in bundles, added to them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use fivefold_evidence::bundle::{Bundle, Bundles, FILE_BYTES, Timestamp};
use fivefold_evidence::chain::Anchor;
use fivefold_evidence::timestamp;
use fivefold_keep::files::{self, Readers};
use serde_json::json;

use super::read_bundles;
use crate::clock;
use crate::output::{Output, answer};

/// Bytes of an authority's answer, at most.
const ANSWER: usize = 256 * 1024;
/// How long an authority may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds that an authority's clock and ours may differ by.
const CLOCKS: u64 = 300;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Stamp {
    /// The bundles (.evb). Those of one export share a checkpoint, and so a timestamp.
    file: PathBuf,
    #[command(flatten)]
    from: From,
    /// The trust file whose [timestamps] names the authority: what is added must hold by it.
    #[arg(long, value_name = "FILE", required_unless_present = "request")]
    trust: Option<PathBuf>,
    /// Certificates (PEM) that stand above the signer's, if the answer does not bring them.
    #[arg(long, value_name = "FILE")]
    chain: Option<PathBuf>,
    /// Revocation list (DER) of an issuer in that chain; once for each.
    #[arg(long = "crl", value_name = "FILE")]
    lists: Vec<PathBuf>,
    /// Where the bundles go with their timestamps; without it, they take the place of FILE.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct From {
    /// Ask this authority: http://HOST/PATH. Without TLS: what it signs is checked with the trust file, and what it is asked is
    /// a hash.
    #[arg(long, value_name = "URL")]
    tsa: Option<String>,
    /// Take its answer from this file (application/timestamp-reply), or the token alone.
    #[arg(long, value_name = "FILE")]
    response: Option<PathBuf>,
    /// Write the question (application/timestamp-query) to this file, to be carried to an authority by hand.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
}

pub(super) fn run(args: &Stamp, output: Output) -> anyhow::Result<ExitCode> {
    let bytes = read_bundles(&args.file)?;
    let bundles = Bundles::new(&bytes).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut bundles = bundles.with_context(|| format!("{} is no file of bundles", args.file.display()))?;
    let mut imprints: Vec<[u8; 32]> = Vec::new();
    for bundle in &bundles {
        let imprint = imprint(bundle)?;
        if !imprints.contains(&imprint) {
            imprints.push(imprint);
        }
    }
    if let Some(file) = &args.from.request {
        let [imprint] = &imprints[..] else {
            anyhow::bail!(
                "the bundles stand in {} checkpoints; ask for one file of one export at a time",
                imprints.len()
            )
        };
        files::write(file, Readers::Everybody, &timestamp::request(imprint))?;
        answer(output, &json!({ "request": file }), || format!("Wrote the question to {}.", file.display()));
        return Ok(ExitCode::SUCCESS);
    }

    let authorities = authorities(args.trust.as_deref().context("--trust is needed")?)?;
    let above = args.chain.as_deref().map(read_pems).transpose()?.unwrap_or_default();
    let lists = args.lists.iter().map(|f| read(f)).collect::<Result<Vec<_>, _>>()?;
    let now = clock::now()?;
    let mut answers: Vec<([u8; 32], Vec<u8>)> = Vec::new();
    match (&args.from.tsa, &args.from.response) {
        (Some(url), _) => {
            for imprint in imprints {
                answers.push((imprint, ask(url, &timestamp::request(&imprint))?));
            }
        }
        (None, Some(file)) => {
            let answer = read(file)?;
            let imprint = imprints.into_iter().find(|i| timestamp::token_over(&answer, i).is_ok());
            answers.push((imprint.context("the answer is no timestamp of a checkpoint in this file")?, answer));
        }
        (None, None) => anyhow::bail!("one of --tsa, --response and --request is needed"),
    }
    let mut stamps = Vec::new();
    for (imprint, answer) in &answers {
        let no = |why| anyhow::anyhow!("the authority's answer is not taken: {why}; nothing was written");
        let token = timestamp::token_over(answer, imprint).map_err(no)?;
        let mut chain = timestamp::chain_of(token, &above).map_err(no)?;
        // Some answers bring the pinned certificate, too, which stands in no chain.
        chain.retain(|der| authorities.iter().all(|a| a.der() != *der));
        let stamp = Timestamp { token, chain, lists: lists.iter().map(Vec::as_slice).collect() };
        let said = timestamp::check(&stamp, imprint, &authorities).map_err(no)?;
        let is_fresh = said.at <= now + CLOCKS && (args.from.tsa.is_none() || said.at + CLOCKS >= now);
        anyhow::ensure!(
            is_fresh,
            "the authority says that it is {}, and this machine's clock says {}: find out which is wrong; nothing was written",
            clock::text(said.at),
            clock::text(now)
        );
        stamps.push((*imprint, stamp, said));
    }
    let mut added = 0;
    for bundle in &mut bundles {
        let imprint = imprint(bundle)?;
        for (_, stamp, _) in stamps.iter().filter(|(of, ..)| *of == imprint) {
            bundle.timestamps.push(stamp.clone());
            added += 1;
        }
    }
    let mut stamped = Vec::new();
    for bundle in &bundles {
        let bytes = bundle.emit().context("a bundle cannot be written")?;
        Bundle::parse(&bytes).context("a bundle has no room for another timestamp")?;
        stamped.extend(bytes);
    }
    anyhow::ensure!(
        stamped.len() <= FILE_BYTES,
        "with timestamps it is more than {FILE_BYTES} bytes: export fewer readings at a time"
    );
    let out = args.out.as_ref().unwrap_or(&args.file);
    files::write(out, Readers::Everybody, &stamped)?;
    let said: Vec<_> = stamps.iter().map(|(.., said)| said).collect();
    let value = said.iter().map(|s| json!({ "authority": s.authority, "at": s.at })).collect::<Vec<_>>();
    answer(output, &json!({ "timestamps": added, "file": out, "said": value }), || {
        let by = said.iter().map(|s| format!("{} at {}", s.authority.escape_debug(), clock::text(s.at)));
        format!(
            "Added {added} timestamps in {out}, by {}. They count where the trust file names this authority, [timestamps]; where it \
             names only others, the bundles are refused. Next: fivefold evidence verify {out} --trust TRUST",
            by.collect::<Vec<_>>().join(", "),
            out = out.display()
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// The authorities of timestamps that a trust file names.
fn authorities(path: &Path) -> anyhow::Result<Vec<Anchor>> {
    let trust = super::read_trust(path)?;
    anyhow::ensure!(
        !trust.timestamps.is_empty(),
        "{} names no authority of timestamps; write it anew with: fivefold evidence trust --tsa AUTHORITY.pem",
        path.display()
    );
    Ok(trust.timestamps)
}

fn imprint(bundle: &Bundle<'_>) -> anyhow::Result<[u8; 32]> {
    timestamp::imprint_of(bundle).map_err(|why| anyhow::anyhow!("a bundle without a checkpoint: {why}"))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn read_pems(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let text = files::read_text(path)?;
    timestamp::certificates_in(&text).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))
}

/// Asks an authority, and takes no more than [`ANSWER`] bytes.
fn ask(url: &str, question: &[u8]) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(url.starts_with("http://"), "the authority's address begins with http://, not `{url}`");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = plain_client()?;
        let request = client.post(url).header("content-type", "application/timestamp-query").body(question.to_vec());
        let mut answer = request.send().await.with_context(|| format!("cannot reach {url}"))?;
        anyhow::ensure!(answer.status().is_success(), "{url} answered {}", answer.status());
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.with_context(|| format!("{url} broke off"))? {
            anyhow::ensure!(bytes.len() + part.len() <= ANSWER, "{url} answers with more than {ANSWER} bytes");
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    })
}

/// A client that speaks no TLS: it is given a configuration that believes nobody.
fn plain_client() -> anyhow::Result<reqwest::Client> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(reqwest::Client::builder().use_preconfigured_tls(tls).timeout(PATIENCE).build()?)
}
