//! Publishes what is in `classic_value`, in the order of its rows, each at least once: the cursor is durable after the broker
//! has acknowledged a batch, and a broker that was away gets what it missed.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, PublishOptions, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::MeshliumMqtt;
use super::template::Values;
use crate::service::Service;
use crate::store::{PublishedRow, StoreError, Write};

/// Messages that are on their way at a time.
const BATCH: u32 = 64;
/// How long a broker may take to acknowledge a batch.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long is waited after a failure: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why a connection ended, in one sentence.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Broker(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the broker acknowledges nothing")]
    Silent,
}

/// Publishes until the task is dropped.
pub async fn run(service: Arc<Service>, config: MeshliumMqtt, options: MqttOptions) {
    let mut pause = FIRST_PAUSE;
    let mut complained = false;
    loop {
        let mut broker = Broker::dial(options.clone());
        let mut sent = 0;
        let Err(ended) = session(&service, &config, &mut broker, &mut sent).await;
        if sent > 0 {
            (pause, complained) = (FIRST_PAUSE, false);
        }
        if !complained {
            complained = true;
            tracing::warn!(%ended, broker = %config, "MQTT: nothing is lost, it is tried again");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One connection, until it ends.
async fn session(
    service: &Arc<Service>,
    config: &MeshliumMqtt,
    broker: &mut Broker,
    sent: &mut u64,
) -> Result<std::convert::Infallible, Ended> {
    let mut stored = service.stored();
    broker.hear(Said::Connected, 1).await?;
    tracing::info!(broker = %config, "MQTT: connected");
    loop {
        stored.borrow_and_update();
        let rows = next(service).await?;
        let Some(last) = rows.last().map(|r| r.id) else {
            tokio::select! {
                changed = stored.changed() => changed.map_err(|_| Ended::Broker("the cloud ends".into()))?,
                said = broker.said.recv() => drop(said.unwrap_or_else(|| Err(over()))?),
            }
            continue;
        };
        for row in &rows {
            let values = Values {
                meshlium: &config.name,
                id: row.id,
                id_wasp: &row.id_wasp,
                id_secret: &row.id_secret,
                sensor: &row.sensor,
                value: &row.value,
                timestamp: row.received,
                proven: row.proven.as_str(),
            };
            let (topic, message) = (config.topic.fill_topic(&values), config.message.fill_message(&values));
            let options = PublishOptions::new(QoS::AtLeastOnce);
            broker.client.try_publish(topic, message, options).map_err(|e| Ended::Broker(e.to_string()))?;
        }
        broker.hear(Said::Acknowledged, rows.len()).await?;
        service.commit(Write { published: Some(last), ..Write::default() }).await?;
        *sent += rows.len() as u64;
    }
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Connected,
    Acknowledged,
}

/// A connection. It ends when it is dropped.
struct Broker {
    client: AsyncClient,
    said: mpsc::Receiver<Result<Said, Ended>>,
    pump: JoinHandle<()>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

fn over() -> Ended {
    Ended::Broker("the connection is over".into())
}

impl Broker {
    fn dial(options: MqttOptions) -> Self {
        let (client, mut events) = AsyncClient::builder(options).capacity(BATCH as usize + 8).build();
        let (say, said) = mpsc::channel(BATCH as usize + 8);
        // Polled by itself, and never in parts: what it reads must not be lost.
        let pump = tokio::spawn(async move {
            loop {
                let event = match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => Ok(Said::Connected),
                    Ok(Event::Incoming(Packet::PubAck(_))) => Ok(Said::Acknowledged),
                    Ok(_) => continue,
                    Err(error) => Err(Ended::Broker(error.to_string())),
                };
                let ends = event.is_err();
                if say.send(event).await.is_err() || ends {
                    return;
                }
            }
        });
        Self { client, said, pump }
    }

    /// Waits until this was said so often.
    async fn hear(&mut self, what: Said, count: usize) -> Result<(), Ended> {
        let all = async {
            let mut left = count;
            while left > 0 {
                let said = self.said.recv().await.unwrap_or_else(|| Err(over()))?;
                left -= usize::from(said == what);
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, all).await.unwrap_or(Err(Ended::Silent))
    }
}

/// The rows after the cursor.
async fn next(service: &Arc<Service>) -> Result<Vec<PublishedRow>, Ended> {
    let service = service.clone();
    let read = tokio::task::spawn_blocking(move || service.cloud.memory().read(|r| r.to_be_published(BATCH)));
    Ok(read.await.map_err(|e| Ended::Broker(e.to_string()))??)
}
