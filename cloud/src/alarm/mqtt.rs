//! A message at a broker for each alarm, exactly once as far as MQTT goes (QoS 2).

use fivefold_alarm::Alarm;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, PublishOptions, QoS};

use super::{NotTaken, away};

/// A broker.
pub(super) struct Mqtt {
    pub(super) options: MqttOptions,
    pub(super) topic: String,
}

impl std::fmt::Debug for Mqtt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mqtt({})", self.topic)
    }
}

impl Mqtt {
    /// Taken is what the broker has completed.
    pub(super) async fn deliver(&self, alarm: &Alarm) -> Result<(), NotTaken> {
        let (client, mut events) = AsyncClient::builder(self.options.clone()).capacity(4).build();
        loop {
            match events.poll().await.map_err(away)? {
                Event::Incoming(Packet::ConnAck(_)) => {
                    let options = PublishOptions::new(QoS::ExactlyOnce);
                    client.try_publish(self.topic.clone(), alarm.json(), options).map_err(away)?;
                }
                Event::Incoming(Packet::PubComp(_)) => {
                    // It has the message; whether it hears the goodbye does not matter.
                    if client.try_disconnect().is_ok() {
                        while !matches!(
                            events.poll().await,
                            Err(_) | Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect))
                        ) {}
                    }
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}
