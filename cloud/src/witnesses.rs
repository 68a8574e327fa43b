//! Heads of the log, out to the world: signed, shown to witnesses, and put where everybody reads them with what those said.
//!
//! A witness is asked by C2SP `tlog-witness`. What it answers is believed by its key alone, so it does not matter who
//! carries it: plain HTTP is as good as HTTPS here, and nothing that is sent is a secret.
//!
//! [`serve`] is the other side: a witness of other people's logs.

pub mod serve;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fivefold_evidence::checkpoint::Signed;
use fivefold_evidence::log::{Log, LogError};
use fivefold_evidence::note::{LONGEST_NOTE, Line, VKey};
use fivefold_evidence::witness::Request;
use fivefold_keep::tls::{Anchor, TlsError, client_config_web};
use tokio::sync::{Notify, watch};

use crate::service::stopped;

/// How long one question to a witness may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The longest time between two heads (docs/protocol.md 13.2).
pub const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Why a witness gave no cosignature.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Its address or its keys cannot be used.
    #[error("{url}: {reason}")]
    Settings {
        /// Where it is asked.
        url: String,
        /// What to write instead.
        reason: &'static str,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It did not answer.
    #[error("no answer: {0}")]
    Away(#[from] reqwest::Error),
    /// It has seen more of this log than there is: the log was put back from an old copy (EV-05).
    #[error("EV-05: it has seen {seen} entries of this log, which has {have}: the log was put back from an old copy")]
    Ahead {
        /// What it has seen.
        seen: u64,
        /// What there is.
        have: u64,
    },
    /// It has seen another tree of this size under this name and key (EV-05).
    #[error("EV-05: it has seen another tree of {size} entries signed by this log's key")]
    Fork {
        /// Entries.
        size: u64,
    },
    /// It refuses.
    #[error("it answered {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The first words.
        body: String,
    },
    /// What it answered is no cosignature by the keys that are known.
    #[error("its answer is no cosignature by a known key of its: {0}")]
    Answer(String),
    /// The log cannot prove what it asked.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl WitnessError {
    /// Whether it says that the log is not what it was: EV-05, critical.
    pub const fn is_alarm(&self) -> bool {
        matches!(self, Self::Ahead { .. } | Self::Fork { .. })
    }
}

/// What is known of a witness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Entries of the head that it cosigned last.
    pub size: u64,
    /// When it cosigned last, by its own word: unix time, seconds.
    pub at: Option<u64>,
    /// What went wrong since.
    pub error: Option<String>,
}

/// One witness: where it is asked, and the keys by which it is believed.
#[derive(Debug)]
pub struct Witness {
    url: String,
    keys: Vec<VKey>,
    client: reqwest::Client,
    standing: Mutex<Standing>,
}

impl Witness {
    /// At the prefix `url` (`http://` or `https://`), with its keys. For HTTPS a CA is needed.
    ///
    /// # Errors
    /// [`WitnessError::Settings`], [`WitnessError::Tls`].
    pub fn new(url: &str, keys: Vec<VKey>, ca: Option<&Anchor>) -> Result<Self, WitnessError> {
        let wrong = |reason| WitnessError::Settings { url: url.into(), reason };
        if keys.is_empty() {
            return Err(wrong("a witness needs at least one key (vkey) to be believed by"));
        }
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(ANSWER_TIME)
            .connect_timeout(Duration::from_secs(5));
        let builder = match (url.starts_with("https://"), ca) {
            (true, Some(ca)) => builder.tls_backend_preconfigured(client_config_web(ca)?).https_only(true),
            (true, None) => return Err(wrong("for https:// the CA of its certificate is needed")),
            // Without TLS, but the client wants a provider of it all the same.
            (false, _) if url.starts_with("http://") => {
                builder.tls_backend_preconfigured(client_config_web(&Anchor::none())?)
            }
            (false, _) => return Err(wrong("an address begins with http:// or https://")),
        };
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { url, keys, client: builder.build()?, standing: Mutex::default() })
    }

    /// Where it is asked.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its keys.
    pub fn keys(&self) -> &[VKey] {
        &self.keys
    }

    /// What is known of it.
    pub fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks it to cosign a head of `log`; the lines that hold.
    ///
    /// # Errors
    /// [`WitnessError`] with why it has none.
    pub async fn cosign(&self, log: &Arc<Log>, signed: &Signed) -> Result<Vec<Line>, WitnessError> {
        let asked = self.ask(log, signed).await;
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        match &asked {
            Ok((_, at)) => *standing = Standing { size: signed.unverified().size, at: Some(*at), error: None },
            Err(error) => standing.error = Some(error.to_string()),
        }
        asked.map(|(lines, _)| lines)
    }

    async fn ask(&self, log: &Arc<Log>, signed: &Signed) -> Result<(Vec<Line>, u64), WitnessError> {
        let have = signed.unverified().size;
        let mut old = self.standing().size.min(have);
        // What it has seen is not always what we think: it says so, once.
        for again in [true, false] {
            let (status, body) = self.post(log, signed, old).await?;
            let refused = || WitnessError::Refused { status, body: body.chars().take(200).collect() };
            let seen = match status {
                200 => return self.believe(log, signed, &body),
                // The proof is of our own tiles: what it has of that size is no beginning of them.
                422 => return Err(WitnessError::Fork { size: old }),
                409 => body.trim_end().parse::<u64>().map_err(|_| refused())?,
                _ => return Err(refused()),
            };
            if seen > have {
                return Err(WitnessError::Ahead { seen, have });
            }
            if seen == old && old == have {
                return Err(WitnessError::Fork { size: have });
            }
            if !again || seen == old {
                return Err(refused());
            }
            old = seen;
        }
        Err(WitnessError::Answer("it changes its mind".into()))
    }

    async fn post(&self, log: &Arc<Log>, signed: &Signed, old: u64) -> Result<(u16, String), WitnessError> {
        let (log, checkpoint) = (log.clone(), signed.clone());
        let proof = tokio::task::spawn_blocking(move || log.prove_consistency(old, checkpoint.unverified().size));
        let proof = proof.await.map_err(|e| WitnessError::Answer(e.to_string()))??;
        let body = Request { old, proof, checkpoint: signed.clone() }.to_string();
        let mut answer = self.client.post(format!("{}/add-checkpoint", self.url)).body(body).send().await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LONGEST_NOTE {
                return Err(WitnessError::Answer("it is longer than any can be".into()));
            }
        }
        Ok((answer.status().as_u16(), String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Lines by its keys that hold over this head, and the earliest time in them.
    fn believe(&self, log: &Log, signed: &Signed, body: &str) -> Result<(Vec<Line>, u64), WitnessError> {
        let answer = |e: &dyn std::fmt::Display| WitnessError::Answer(e.to_string());
        let (mut lines, mut earliest) = (Vec::new(), u64::MAX);
        for line in body.lines() {
            let line: Line = line.parse().map_err(|e| answer(&e))?;
            let Some(key) = self.keys.iter().find(|key| key.wrote(&line)) else { continue };
            let mut with = Signed::parse(head_alone(log, signed).as_bytes()).map_err(|e| answer(&e))?;
            with.add(line.clone()).map_err(|e| answer(&e))?;
            let authentic = with.open(log.vkey()).map_err(|e| answer(&e))?;
            let cosigned = authentic.cosigned(std::slice::from_ref(key)).map_err(|e| answer(&e))?;
            let at = cosigned.first().ok_or_else(|| answer(&"it states no time"))?.at;
            earliest = earliest.min(at);
            lines.push(line);
        }
        if lines.is_empty() { Err(answer(&"it has none")) } else { Ok((lines, earliest)) }
    }
}

/// The head with the log's own signature and no other.
fn head_alone(log: &Log, signed: &Signed) -> String {
    let lines = signed.note().lines().iter().filter(|line| log.vkey().wrote(line));
    let mut text = format!("{}\n", signed.note().text());
    lines.for_each(|line| text.push_str(&line.to_string()));
    text
}

/// What became of a head.
#[derive(Debug)]
pub struct Published {
    /// As it is shown, with all signatures.
    pub signed: Signed,
    /// Witnesses that have not cosigned it now, and why.
    pub failed: Vec<(String, WitnessError)>,
}

/// Signs the head over all durable entries, asks all witnesses at once, and shows it with what they said. A head without
/// new entries is cosigned anew; where a witness is away, what it said before stays.
///
/// # Errors
/// [`LogError`] when the log does not go on or the disk fails; never because of a witness.
pub async fn publish(log: &Arc<Log>, witnesses: &Arc<Vec<Witness>>) -> Result<Published, LogError> {
    let done = sign_and_show(log, witnesses).await;
    tell(&done);
    done
}

async fn sign_and_show(log: &Arc<Log>, witnesses: &Arc<Vec<Witness>>) -> Result<Published, LogError> {
    let at = log.clone();
    let prepared = tokio::task::spawn_blocking(move || {
        let signed = at.sign()?;
        Ok(match at.shown()? {
            Some(shown) if shown.unverified() == signed.unverified() => shown,
            _ => signed,
        })
    });
    let mut signed = prepared.await.unwrap_or(Err(LogError::Stopped))?;
    let mut asked = tokio::task::JoinSet::new();
    for index in 0..witnesses.len() {
        let (witnesses, log, signed) = (witnesses.clone(), log.clone(), signed.clone());
        asked.spawn(async move {
            let answer = match witnesses.get(index) {
                Some(witness) => witness.cosign(&log, &signed).await,
                None => Ok(Vec::new()),
            };
            (index, answer)
        });
    }
    let mut failed = Vec::new();
    while let Some(Ok((index, answer))) = asked.join_next().await {
        match answer {
            Ok(lines) => lines.into_iter().try_for_each(|line| signed.add(line))?,
            Err(error) => failed.push((witnesses.get(index).map_or_else(String::new, |w| w.url.clone()), error)),
        }
    }
    let (at, shown) = (log.clone(), signed.clone());
    tokio::task::spawn_blocking(move || at.show(&shown)).await.unwrap_or(Err(LogError::Stopped))?;
    Ok(Published { signed, failed })
}

/// Says it in words: alone what a witness did is no reason for the caller to stop.
fn tell(done: &Result<Published, LogError>) {
    match done {
        Err(error) => tracing::error!(%error, "no head of the log could be signed and shown"),
        Ok(done) => {
            for (url, error) in &done.failed {
                if error.is_alarm() {
                    tracing::error!(code = "EV-05", witness = url, %error, "a witness contradicts the log");
                } else {
                    tracing::warn!(witness = url, %error, "a witness has not cosigned");
                }
            }
        }
    }
}

/// Calls `publish` every `every` (at most [`LONGEST_PAUSE`]) and whenever `wanted` is told, until `stop` says so.
pub async fn run<F: Future<Output = ()> + Send>(
    every: Duration,
    wanted: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
    mut publish: impl FnMut() -> F + Send,
) {
    let mut pulse = tokio::time::interval(every.min(LONGEST_PAUSE));
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = pulse.tick() => {}
            () = wanted.notified() => {}
            () = stopped(&mut stop) => return,
        }
        publish().await;
    }
}
