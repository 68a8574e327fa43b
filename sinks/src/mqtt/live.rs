//! A connection to a broker: what comes of it, and how it ends.

use std::io::{self, ErrorKind};

use rumqttc::mqttbytes::Error as Unread;
use rumqttc::mqttbytes::v5::{DisconnectReasonCode, Packet, PubAckReason};
use rumqttc::{AsyncClient, ConnectionError, Event, MqttOptions, Outgoing, StateError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{IN_FLIGHT, LONGEST};

/// What comes of a connection.
#[derive(Debug)]
pub(super) enum Heard {
    /// It stands; packets may have so many bytes.
    Connected(Option<u32>),
    /// A message of ours went out, under this number.
    Sent(u16),
    /// The broker has it, or says why not.
    Acknowledged(u16, PubAckReason),
    /// It is over.
    Over(End),
}

/// How a connection ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) why: String,
    /// What was sent may be why.
    pub(super) is_over_what_was_sent: bool,
}

impl From<&str> for End {
    fn from(why: &str) -> Self {
        Self { why: why.to_owned(), is_over_what_was_sent: false }
    }
}

impl End {
    /// A broker names the packet (MQTT 5 3.14.2.1), or hangs up without a word. What else it says is no fault of a reading: that it
    /// ends, is busy, or knows somebody else of our name.
    fn of(error: &ConnectionError) -> Self {
        use DisconnectReasonCode as Reason;
        let is_bare = |error: &io::Error| {
            use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        };
        let is_over_what_was_sent = match error {
            ConnectionError::Io(error) => is_bare(error),
            ConnectionError::MqttState(StateError::Io(error) | StateError::Deserialization(Unread::Io(error))) => {
                is_bare(error)
            }
            ConnectionError::MqttState(StateError::ConnectionAborted) => true,
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => matches!(
                reason_code,
                Reason::MalformedPacket
                    | Reason::PacketTooLarge
                    | Reason::PayloadFormatInvalid
                    | Reason::TopicNameInvalid
            ),
            _ => false,
        };
        Self { why: error.to_string(), is_over_what_was_sent }
    }
}

/// A connection. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) client: AsyncClient,
    heard: mpsc::Receiver<Heard>,
    pub(super) pump: JoinHandle<()>,
    pub(super) longest: usize,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Live {
    /// Dials, and waits until the broker has said yes.
    pub(super) async fn dial(options: MqttOptions) -> Result<Self, End> {
        let (client, mut events) = AsyncClient::builder(options).capacity(2 * IN_FLIGHT).build();
        let (say, heard) = mpsc::channel(4 * IN_FLIGHT);
        // Polled by itself, and never in parts: what it reads must not be lost.
        let pump = tokio::spawn(async move {
            loop {
                let event = match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(yes))) => {
                        Heard::Connected(yes.properties.and_then(|p| p.max_packet_size))
                    }
                    Ok(Event::Outgoing(Outgoing::Publish(number))) => Heard::Sent(number),
                    Ok(Event::Incoming(Packet::PubAck(ack))) => Heard::Acknowledged(ack.pkid, ack.reason),
                    Ok(_) => continue,
                    Err(error) => Heard::Over(End::of(&error)),
                };
                let ends = matches!(event, Heard::Over(_));
                if say.send(event).await.is_err() || ends {
                    return;
                }
            }
        });
        let mut live = Self { client, heard, pump, longest: LONGEST as usize };
        loop {
            match live.hear().await? {
                Heard::Connected(longest) => {
                    live.longest = longest.map_or(live.longest, |n| live.longest.min(n as usize));
                    return Ok(live);
                }
                _ => continue,
            }
        }
    }

    /// How it ended, if it did.
    pub(super) async fn end(&mut self) -> Option<End> {
        while let Some(heard) = self.heard.recv().await {
            if let Heard::Over(end) = heard {
                return Some(end);
            }
        }
        None
    }

    async fn hear(&mut self) -> Result<Heard, End> {
        match self.heard.recv().await {
            Some(Heard::Over(end)) => Err(end),
            Some(heard) => Ok(heard),
            None => Err("the connection is over".into()),
        }
    }

    /// Waits for something, and takes all that there is.
    pub(super) async fn hear_all(&mut self, heard: &mut Vec<Heard>) -> Result<(), End> {
        match self.heard.recv_many(heard, 4 * IN_FLIGHT).await {
            0 => Err("the connection is over".into()),
            _ => Ok(()),
        }
    }
}
