//! Publishes what is in `classic_value`, in the order of its rows, each at least once: the cursor is durable after the broker
//! has acknowledged a batch, and a broker that was away gets what it missed. A row whose label is raised afterwards is published
//! once more where labels are published.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, PublishOptions, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::MeshliumMqtt;
use super::template::Values;
use crate::service::Service;
use crate::store::{Published, PublishedRow, StoreError, Write};

/// Messages that are on their way at a time.
const BATCH: u32 = 64;
/// Labels that are passed over before that is written down.
const SKIPPED: i64 = 1000;
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
        let (rows, published) = next(service, config.message.has_label() || config.topic.has_label()).await?;
        let Some(published) = published else {
            tokio::select! {
                changed = stored.changed() => changed.map_err(|_| Ended::Broker("the cloud ends".into()))?,
                said = broker.said.recv() => drop(said.unwrap_or_else(|| Err(over()))?),
            }
            continue;
        };
        for rows in rows.chunks(BATCH as usize) {
            publish(config, broker, rows).await?;
            *sent += rows.len() as u64;
        }
        service.commit(Write { published: Some(published), ..Write::default() }).await?;
    }
}

/// At most as many rows as there may be messages on their way.
async fn publish(config: &MeshliumMqtt, broker: &mut Broker, rows: &[PublishedRow]) -> Result<(), Ended> {
    for row in rows {
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
    broker.hear(Said::Acknowledged, rows.len()).await
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

/// The rows after the cursor, and the cursor behind them; where there are none, those whose label was raised, if labels are told.
async fn next(service: &Arc<Service>, is_label_told: bool) -> Result<(Vec<PublishedRow>, Option<Published>), Ended> {
    let service = service.clone();
    let read = tokio::task::spawn_blocking(move || {
        service.cloud.memory().read(|r| {
            let rows = r.to_be_published(BATCH)?;
            if let Some(last) = rows.last() {
                let published = Published { value: last.id, raised: 0 };
                return Ok((rows, Some(published)));
            }
            let (rows, next) = if is_label_told {
                r.raised_to_be_published()?
            } else {
                (Vec::new(), Published { value: 0, raised: r.last_raised()? })
            };
            // Most labels are of devices that are not published here: that is not written down each time.
            let is_worth_it = !rows.is_empty() || next.raised >= r.published()?.raised.saturating_add(SKIPPED);
            Ok((rows, is_worth_it.then_some(next)))
        })
    });
    read.await.map_err(|e| Ended::Broker(e.to_string()))?.map_err(Ended::Store)
}
