//! What a [`session`](super::session) needs of an MQTT client, and the client it has.
//!
//! MQTT 3.1.1, which both network servers speak. A delivery is acknowledged by us, when what it brought is durable; what was
//! not, the broker delivers again to the next connection under the same name.

use std::future::Future;

use rumqttc::{AckMode, AsyncClient, Event, MqttOptions, Packet, Publish, PublishOptions, QoS, SubscribeReasonCode};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::NetworkServer;
use super::config::{Config, Login, Tls};

/// Bytes of an MQTT packet, at most: a longer one ends the connection. The broker's own limit should be below it.
const LONGEST: usize = 1 << 20;
/// Seconds between two signs of life.
const KEEP_ALIVE: u16 = 30;
/// Deliveries that wait for the session, and requests that wait for the client.
const QUEUE: usize = 64;
const REQUESTS: usize = 256;

/// Why a connection is over, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

/// Something that a broker says.
#[derive(Debug)]
pub enum Said<R> {
    /// The connection stands.
    Connected,
    /// A message. Without a receipt it came at most once, and nobody waits to hear of it.
    Delivered {
        /// Its topic.
        topic: String,
        /// What it says.
        payload: Vec<u8>,
        /// To be given back.
        receipt: Option<R>,
        /// Kept by the broker for whoever comes: nobody said it just now.
        retained: bool,
    },
    /// What was subscribed to comes from now on; without `at_least_once`, what comes while we are away is lost.
    Subscribed {
        /// Whether the broker repeats what was not acknowledged.
        at_least_once: bool,
    },
}

/// A connection to a broker.
pub trait Broker: Send {
    /// Names a delivery.
    type Receipt: Send;

    /// What it says next. To be dropped at any time, without a loss.
    fn next(&mut self) -> impl Future<Output = Result<Said<Self::Receipt>, Lost>> + Send;

    /// Asks for messages of a topic filter, at least once each if the broker can do that.
    ///
    /// # Errors
    /// [`Lost`].
    fn subscribe(&mut self, filter: &str) -> Result<(), Lost>;

    /// Says that a delivery is safe: it does not come again.
    ///
    /// # Errors
    /// [`Lost`].
    fn acknowledge(&mut self, receipt: Self::Receipt) -> Result<(), Lost>;

    /// Sends a message, if the connection takes it now.
    ///
    /// # Errors
    /// [`Lost`].
    fn publish(&mut self, topic: String, payload: Vec<u8>) -> Result<(), Lost>;
}

/// Makes connections to one broker.
pub trait Dial: Send {
    /// What it makes.
    type Broker: Broker;

    /// One more. It says [`Said::Connected`] when it stands.
    fn dial(&self) -> Self::Broker;
}

/// Dials a broker by TCP, in TLS unless the operator wants clear text.
pub struct Mqtt {
    options: MqttOptions,
    down: QoS,
}

impl std::fmt::Debug for Mqtt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mqtt(..)")
    }
}

impl Mqtt {
    /// By the words of the operator, and what lies in the files that they name.
    pub fn new(config: &Config, tls: Option<Tls>, login: Option<Login>) -> Self {
        let mut options = MqttOptions::new(config.client_id.clone(), (config.broker.host.clone(), config.broker.port));
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(false);
        options.set_ack_mode(AckMode::Manual);
        options.set_max_packet_size(LONGEST, LONGEST);
        if let Some(login) = login {
            options.set_credentials(login.username, login.password.to_vec());
        }
        let (host, port) = (config.broker.host.clone(), config.broker.port);
        match tls {
            Some(Tls { client, name }) => {
                let connector = TlsConnector::from(client);
                options.set_socket_connector(move |_, _| {
                    let (host, name, connector) = (host.clone(), name.clone(), connector.clone());
                    async move { connector.connect(name, TcpStream::connect((host, port)).await?).await }
                });
            }
            None => {
                options.set_socket_connector(move |_, _| {
                    let host = host.clone();
                    async move { TcpStream::connect((host, port)).await }
                });
            }
        }
        // The Things Stack has no more than that.
        let down = match config.server {
            NetworkServer::ChirpStack => QoS::AtLeastOnce,
            NetworkServer::TheThingsStack => QoS::AtMostOnce,
        };
        Self { options, down }
    }
}

impl Dial for Mqtt {
    type Broker = Connection;

    fn dial(&self) -> Connection {
        let (client, mut eventloop) = AsyncClient::builder(self.options.clone()).capacity(REQUESTS).build();
        let (say, said) = mpsc::channel(QUEUE);
        // By itself: a client that is polled by whoever also hands it requests can wait for itself.
        let pump = tokio::spawn(async move {
            loop {
                let event = match eventloop.poll().await {
                    Ok(Event::Incoming(packet)) => heard(packet),
                    Ok(Event::Outgoing(_)) => None,
                    Err(why) => Some(Err(Lost(why.to_string()))),
                };
                let Some(event) = event else { continue };
                let over = event.is_err();
                if say.send(event).await.is_err() || over {
                    return;
                }
            }
        });
        Connection { client, said, pump, down: self.down }
    }
}

fn heard(packet: Packet) -> Option<Result<Said<Publish>, Lost>> {
    Some(match packet {
        Packet::ConnAck(_) => Ok(Said::Connected),
        Packet::SubAck(ack) => match ack.return_codes.first() {
            Some(SubscribeReasonCode::Success(qos)) => Ok(Said::Subscribed { at_least_once: *qos != QoS::AtMostOnce }),
            _ => Err(Lost("the broker refuses to let us read the application's events".into())),
        },
        Packet::Publish(publish) => Ok(Said::Delivered {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.to_vec(),
            retained: publish.retain,
            receipt: (publish.qos != QoS::AtMostOnce).then_some(publish),
        }),
        _ => return None,
    })
}

/// A connection of [`Mqtt`]. It ends when it is dropped, and the broker keeps what was not acknowledged.
pub struct Connection {
    client: AsyncClient,
    said: mpsc::Receiver<Result<Said<Publish>, Lost>>,
    pump: JoinHandle<()>,
    down: QoS,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Broker for Connection {
    type Receipt = Publish;

    async fn next(&mut self) -> Result<Said<Publish>, Lost> {
        self.said.recv().await.unwrap_or_else(|| Err(Lost("the connection is over".into())))
    }

    fn subscribe(&mut self, filter: &str) -> Result<(), Lost> {
        self.client.try_subscribe(filter, QoS::AtLeastOnce).map_err(|e| Lost(e.to_string()))
    }

    fn acknowledge(&mut self, receipt: Publish) -> Result<(), Lost> {
        self.client.try_ack(&receipt).map_err(|e| Lost(e.to_string()))
    }

    fn publish(&mut self, topic: String, payload: Vec<u8>) -> Result<(), Lost> {
        let options = PublishOptions::new(self.down);
        self.client.try_publish(topic, payload, options).map_err(|e| Lost(e.to_string()))
    }
}
