//! Alarms go out: to webhooks, by mail, and to MQTT brokers.
//!
//! An alarm is durable in the transaction of its cause (`store/alarms.rs`). Each sink has a queue of its own, so that one that is
//! away holds up no other; what it has taken is durable before the next is sent. A sink that is back after an hour gets all of
//! that hour, each alarm once; after a crash between its yes and our note the last one comes again, under the same id.

mod mail;
mod mqtt;
mod queue;
mod settings;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use fivefold_alarm::Alarm;
use fivefold_core::error::Severity;
use fivefold_core::time::Millis;
use fivefold_keep::broker;
use fivefold_keep::tls::TlsError;
use fivefold_keep::vault::{Vault, VaultError};
use tokio::task::JoinSet;

pub use queue::{Clock, Wall, run};
pub use settings::{Sink, SinkWrong, check};

use crate::clock;
use crate::service::Service;
use crate::store::{AlarmWrite, StoreError, Write};

/// How long a sink may take for one alarm.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is seen which alarms are over.
const SWEEP: Duration = Duration::from_secs(30);

/// Why a sink cannot be prepared. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Unprepared {
    /// It has no secret.
    #[error("the alarm sink {name} has no secret ({what}); type: fivefold alarm add-secret {name}")]
    NoSecret {
        /// The sink.
        name: String,
        /// What it is for.
        what: &'static str,
    },
    /// Its secret does not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A file that it names cannot be read.
    #[error(transparent)]
    File(#[from] fivefold_keep::files::FileError),
    /// TLS cannot be set up.
    #[error("the alarm sink {name}: {source}")]
    Tls {
        /// The sink.
        name: String,
        /// Why.
        source: TlsError,
    },
    /// A broker's files cannot be used.
    #[error(transparent)]
    Mqtt(#[from] broker::Unprepared),
    /// The HTTP client cannot be made.
    #[error("the alarm sink {name}: {reason}")]
    Client {
        /// The sink.
        name: String,
        /// Why.
        reason: String,
    },
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Unprepared {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::NoSecret { .. } | Self::Tls { .. } | Self::Client { .. } => true,
            Self::Vault(e) => e.is_lasting(),
            Self::File(e) => e.is_lasting(),
            Self::Mqtt(e) => e.is_lasting(),
            Self::Store(e) => e.is_lasting(),
        }
    }
}

/// Why a sink has not taken an alarm. Another time it may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It was not reached, or does not speak as it should: it would take no other either.
    #[error("{0}")]
    Away(String),
    /// It answered, and refused this one.
    #[error("{0}")]
    Refused(String),
}

fn away(error: impl std::fmt::Display) -> NotTaken {
    NotTaken::Away(error.to_string())
}

#[derive(Debug)]
enum Transport {
    Webhook(webhook::Webhook),
    Mail(mail::Mail),
    Mqtt(mqtt::Mqtt),
}

/// A sink with its secret and its files read.
#[derive(Debug)]
pub struct Prepared {
    /// Its name.
    pub name: String,
    least: Severity,
    transport: Transport,
}

impl Prepared {
    /// Brings it an alarm. `Ok` is the sink's own yes.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub async fn deliver(&self, alarm: &Alarm, now: Millis) -> Result<(), NotTaken> {
        let told = async {
            match &self.transport {
                Transport::Webhook(webhook) => webhook.deliver(alarm, now).await,
                Transport::Mail(mail) => mail.deliver(alarm, now).await,
                Transport::Mqtt(mqtt) => mqtt.deliver(alarm).await,
            }
        };
        let silent = || Err(NotTaken::Away(format!("no answer within {} seconds", PATIENCE.as_secs())));
        tokio::time::timeout(PATIENCE, told).await.unwrap_or_else(|_| silent())
    }
}

/// Starts the queues of all sinks, and what sees which alarms are over.
///
/// # Errors
/// [`Unprepared`].
pub async fn start(
    tasks: &mut JoinSet<()>,
    service: &Arc<Service>,
    sinks: &[Sink],
    vault: &Vault,
) -> Result<(), Unprepared> {
    let sinks = sinks.iter().map(|sink| sink.prepare(vault)).collect::<Result<Vec<_>, _>>()?;
    let names = sinks.iter().map(|sink| sink.name.clone()).collect();
    let alarms = AlarmWrite { sinks: Some(names), ..AlarmWrite::default() };
    service.commit(Write { now: clock::now(), alarms, ..Write::default() }).await?;
    for sink in sinks {
        tasks.spawn(run(service.clone(), sink, Wall));
    }
    tasks.spawn(sweep(service.clone()));
    Ok(())
}

async fn sweep(service: Arc<Service>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let alarms = AlarmWrite { sweep: true, ..AlarmWrite::default() };
        if let Err(error) = service.commit(Write { now: clock::now(), alarms, ..Write::default() }).await {
            tracing::error!(%error, "it cannot be noted which alarms are over");
        }
    }
}
