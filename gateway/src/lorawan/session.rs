//! Keeps a session with the broker of a network server: events go to the engine, commands to the broker.
//!
//! A delivery is acknowledged when its frame is durable, or refused for good. Where the gateway could not keep it, the connection
//! is ended and made anew after a pause: the broker delivers again what was not acknowledged.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::Did;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::broker::{Broker, Dial, Lost, Mqtt, Said};
use super::command::{self, Downlink};
use super::config::{Config, Unprepared};
use super::{NetworkServer, Uplink, event};
use crate::daemon::Event;
use crate::gateway::{Activation, ClassicDone};
use crate::uplink::jittered;

/// Pauses between connections.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Deliveries that wait for the engine, at most; more stay at the broker.
const WINDOW: usize = 64;
/// How long a full engine is given before the next attempt.
const ENGINE_BUSY: Duration = Duration::from_millis(20);
/// Devices whose names at the network server are remembered.
const NAMES: usize = 1 << 16;

/// What a device sent, for the engine.
#[derive(Debug)]
pub struct Heard {
    /// As the network server tells it.
    pub uplink: Uplink,
    /// How the device came into its LoRaWAN network, by the operator's word.
    pub activation: Activation,
    /// Hears when it is durable, or refused. Dropped: it is not safe.
    pub done: oneshot::Sender<ClassicDone>,
}

/// Starts the session that the configuration names, as a task that never ends by itself.
///
/// # Errors
/// A file that the configuration names cannot be used.
pub(crate) fn start(
    config: &crate::config::Config,
    engine: &SyncSender<Event>,
    commands: mpsc::Receiver<Downlink>,
) -> Result<Option<JoinHandle<()>>, Unprepared> {
    let Some(config) = &config.lorawan else { return Ok(None) };
    let dial = Mqtt::new(config, config.broker.tls()?, config.broker.login()?);
    let session = Session { config: config.clone(), dial, engine: engine.clone() };
    Ok(Some(tokio::spawn(session.run(commands))))
}

/// A session with one broker.
pub(crate) struct Session<D> {
    pub(crate) config: Config,
    pub(crate) dial: D,
    pub(crate) engine: SyncSender<Event>,
}

/// Why a connection was ended.
#[derive(Debug)]
enum Ended {
    /// The engine is gone.
    Engine,
    /// By the broker, or on the way.
    Lost(Lost),
    /// The gateway could not keep what was delivered.
    NotKept,
}

impl From<Lost> for Ended {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// A delivery whose frame is with the engine.
struct Pending<R> {
    receipt: Option<R>,
    done: oneshot::Receiver<ClassicDone>,
    /// Device and FPort, where an answer to a classic frame goes.
    back: Option<(Did, u8)>,
}

const RETAINED: Rejected =
    Rejected::new(Code::TinyMalformed, "LoRaWAN event: kept by the broker for whoever comes, not heard now");

impl<D: Dial> Session<D> {
    /// Runs until the engine is gone.
    pub(crate) async fn run(self, mut commands: mpsc::Receiver<Downlink>) {
        let (mut pause, mut names) = (FIRST_PAUSE, HashMap::new());
        loop {
            let mut connection = self.dial.dial();
            let why = match self.converse(&mut connection, &mut commands, &mut names, &mut pause).await {
                Ended::Engine => return,
                Ended::Lost(why) => why.to_string(),
                Ended::NotKept => "the gateway cannot store what it brings; it keeps that".to_owned(),
            };
            drop(connection);
            tracing::warn!("the LoRaWAN broker is away: {why}");
            let waited = tokio::time::sleep(jittered(pause));
            tokio::pin!(waited);
            loop {
                tokio::select! {
                    () = &mut waited => break,
                    // An answer that is late is of no use: the device asks again.
                    command = commands.recv() => if command.is_none() { return },
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn converse<B: Broker>(
        &self,
        broker: &mut B,
        commands: &mut mpsc::Receiver<Downlink>,
        names: &mut HashMap<Did, Box<str>>,
        pause: &mut Duration,
    ) -> Ended {
        let mut pending = VecDeque::new();
        loop {
            let step = tokio::select! {
                done = first(&mut pending) => self.settle(broker, &mut pending, done, names),
                said = broker.next(), if pending.len() < WINDOW => match said {
                    Ok(said) => self.listen(broker, said, &mut pending, names, pause).await,
                    Err(lost) => Err(lost.into()),
                },
                command = commands.recv() => match command {
                    Some(command) => self.send(broker, &command, names),
                    None => Err(Ended::Engine),
                },
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    async fn listen<B: Broker>(
        &self,
        broker: &mut B,
        said: Said<B::Receipt>,
        pending: &mut VecDeque<Pending<B::Receipt>>,
        names: &mut HashMap<Did, Box<str>>,
        pause: &mut Duration,
    ) -> Result<(), Ended> {
        let Config { server, application, .. } = &self.config;
        match said {
            Said::Connected => Ok(broker.subscribe(&event::filter(*server, application))?),
            Said::Subscribed { at_least_once } => {
                *pause = FIRST_PAUSE;
                tracing::info!("the LoRaWAN broker is there: {}", self.config);
                if !at_least_once {
                    tracing::info!("it delivers at most once: what comes while this gateway is away is lost");
                }
                Ok(())
            }
            Said::Delivered { topic, payload, receipt, retained } => {
                let read = if retained { Err(RETAINED) } else { event::read(*server, application, &topic, &payload) };
                let (done, answer) = oneshot::channel();
                let back = read.as_ref().ok().map(|uplink| (uplink.dev_eui, uplink.f_port));
                let event = match read {
                    Ok(uplink) => {
                        if names.len() >= NAMES {
                            names.clear();
                        }
                        names.insert(uplink.dev_eui, uplink.device.clone());
                        let activation = self.config.activation(uplink.dev_eui);
                        Event::Lorawan(Heard { uplink, activation, done })
                    }
                    Err(rejected) => {
                        let _ = done.send(ClassicDone::Refused(rejected));
                        Event::Refused(rejected)
                    }
                };
                pending.push_back(Pending { receipt, done: answer, back });
                self.hand_in(event).await
            }
        }
    }

    async fn hand_in(&self, mut event: Event) -> Result<(), Ended> {
        loop {
            match self.engine.try_send(event) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(Ended::Engine),
                Err(TrySendError::Full(back)) => event = back,
            }
            tokio::time::sleep(ENGINE_BUSY).await;
        }
    }

    fn settle<B: Broker>(
        &self,
        broker: &mut B,
        pending: &mut VecDeque<Pending<B::Receipt>>,
        done: Option<ClassicDone>,
        names: &HashMap<Did, Box<str>>,
    ) -> Result<(), Ended> {
        let Some(Pending { receipt, back, .. }) = pending.pop_front() else { return Ok(()) };
        let kept = match (done, back) {
            (Some(ClassicDone::Answer(payload)), Some((dev_eui, f_port))) => {
                self.send(broker, &Downlink { dev_eui, f_port, payload }, names)?;
                true
            }
            (Some(ClassicDone::Refused(rejected)), _) => rejected.code != Code::StoreFull,
            (Some(ClassicDone::Answer(_) | ClassicDone::Noted | ClassicDone::Stored), _) => true,
            (None, _) => false,
        };
        match receipt {
            Some(receipt) if kept => Ok(broker.acknowledge(receipt)?),
            Some(_) => Err(Ended::NotKept),
            // Delivered at most once: it does not come again, whatever is done.
            None => Ok(()),
        }
    }

    fn send<B: Broker>(&self, broker: &mut B, command: &Downlink, names: &HashMap<Did, Box<str>>) -> Result<(), Ended> {
        let Config { server, application, .. } = &self.config;
        let own = command.dev_eui.to_string();
        let device = match (names.get(&command.dev_eui), server) {
            (Some(name), _) => name,
            (None, NetworkServer::ChirpStack) => &*own,
            // Its id is known from its next event.
            (None, NetworkServer::TheThingsStack) => return Ok(()),
        };
        if command.f_port == 0 {
            // The radio's own: what came without a port cannot be answered.
            return Ok(());
        }
        let topic = command::topic(*server, application, device);
        Ok(broker.publish(topic, command::emit(*server, command))?)
    }
}

/// What came of the delivery that waits longest: acknowledgements keep the order of deliveries (MQTT 3.1.1, 4.6).
async fn first<R>(pending: &mut VecDeque<Pending<R>>) -> Option<ClassicDone> {
    match pending.front_mut() {
        Some(pending) => (&mut pending.done).await.ok(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Receiver, sync_channel};

    use fivefold_core::e4_channel::GatewayName;
    use fivefold_core::id::{GatewayId, Net};
    use fivefold_keep::share::GatewayLorawan;

    use super::*;

    const TOPIC: &str = "application/a/device/0101010101010101/event/up";
    const EVENT: &[u8] = br#"{"deviceInfo":{"devEui":"0101010101010101"},"fCnt":7,"fPort":3,"data":"qg=="}"#;
    const FULL: Rejected = Rejected::new(Code::StoreFull, "full");
    const FORGED: Rejected = Rejected::new(Code::CloudForged, "no");

    /// What a session did to its broker.
    #[derive(Debug, PartialEq, Eq)]
    enum Deed {
        Dialed,
        Subscribed(String),
        Acknowledged(u16),
        Published(String, String),
    }

    struct Fake {
        deeds: mpsc::UnboundedSender<Deed>,
        script: std::sync::Mutex<Vec<mpsc::UnboundedReceiver<Said<u16>>>>,
    }

    struct Line {
        deeds: mpsc::UnboundedSender<Deed>,
        said: Option<mpsc::UnboundedReceiver<Said<u16>>>,
    }

    impl Dial for Fake {
        type Broker = Line;
        fn dial(&self) -> Line {
            self.deeds.send(Deed::Dialed).unwrap();
            Line { deeds: self.deeds.clone(), said: self.script.lock().unwrap().pop() }
        }
    }

    impl Broker for Line {
        type Receipt = u16;
        async fn next(&mut self) -> Result<Said<u16>, Lost> {
            match &mut self.said {
                Some(said) => said.recv().await.ok_or(Lost("cut".into())),
                None => std::future::pending().await,
            }
        }
        fn subscribe(&mut self, filter: &str) -> Result<(), Lost> {
            self.deeds.send(Deed::Subscribed(filter.into())).map_err(|e| Lost(e.to_string()))
        }
        fn acknowledge(&mut self, receipt: u16) -> Result<(), Lost> {
            self.deeds.send(Deed::Acknowledged(receipt)).map_err(|e| Lost(e.to_string()))
        }
        fn publish(&mut self, topic: String, payload: Vec<u8>) -> Result<(), Lost> {
            let payload = String::from_utf8(payload).unwrap();
            self.deeds.send(Deed::Published(topic, payload)).map_err(|e| Lost(e.to_string()))
        }
    }

    /// A session over as many connections as are asked for, the first one last.
    struct World {
        say: Vec<mpsc::UnboundedSender<Said<u16>>>,
        deeds: mpsc::UnboundedReceiver<Deed>,
        engine: Receiver<Event>,
        commands: mpsc::Sender<Downlink>,
    }

    impl World {
        fn new(server: &str, connections: usize) -> Self {
            let words = GatewayLorawan {
                kind: server.into(),
                broker: "mqtt://localhost:1883".into(),
                application: "a".into(),
                activation: "otaa".into(),
                abp: vec![],
                ca_file: None,
                username: None,
                password_file: None,
                certificate_file: None,
                key_file: None,
                insecure_mqtt: true,
            };
            let config =
                Config::check(&words, Path::new("/"), GatewayName { net: Net(7), gateway: GatewayId(1) }).unwrap();
            let (tell, deeds) = mpsc::unbounded_channel();
            let (say, script): (Vec<_>, Vec<_>) = (0..connections).map(|_| mpsc::unbounded_channel()).unzip();
            let dial = Fake { deeds: tell, script: std::sync::Mutex::new(script) };
            let (engine, events) = sync_channel(8);
            let (commands, receiver) = mpsc::channel(8);
            tokio::spawn(Session { config, dial, engine }.run(receiver));
            Self { say, deeds, engine: events, commands }
        }

        fn deliver(&self, line: usize, receipt: Option<u16>, topic: &str, payload: &[u8]) {
            let (topic, payload) = (topic.to_owned(), payload.to_vec());
            self.say[line].send(Said::Delivered { topic, payload, receipt, retained: false }).unwrap();
        }

        async fn did(&mut self) -> Deed {
            tokio::time::timeout(Duration::from_secs(60), self.deeds.recv()).await.unwrap().unwrap()
        }

        async fn event(&self) -> Event {
            for _ in 0..6_000 {
                if let Ok(event) = self.engine.try_recv() {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("the engine hears of nothing");
        }

        async fn heard(&self) -> Heard {
            match self.event().await {
                Event::Lorawan(heard) => heard,
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_delivery_is_acknowledged_when_its_frame_is_safe_and_in_the_order_of_deliveries() {
        let mut w = World::new("chirpstack", 1);
        assert_eq!(w.did().await, Deed::Dialed);
        w.say[0].send(Said::Connected).unwrap();
        assert_eq!(w.did().await, Deed::Subscribed("application/a/device/+/event/up".into()));
        w.say[0].send(Said::Subscribed { at_least_once: true }).unwrap();
        w.deliver(0, Some(1), TOPIC, EVENT);
        w.deliver(0, Some(2), TOPIC, EVENT);
        let (first, second) = (w.heard().await, w.heard().await);
        assert_eq!((first.uplink.f_cnt, &*first.uplink.bytes), (7, &[0xAA][..]));
        second.done.send(ClassicDone::Stored).unwrap();
        // Refused for good is as good as stored.
        first.done.send(ClassicDone::Refused(FORGED)).unwrap();
        assert_eq!([w.did().await, w.did().await], [Deed::Acknowledged(1), Deed::Acknowledged(2)]);
    }

    #[tokio::test]
    async fn what_could_not_be_kept_is_not_acknowledged_and_comes_with_the_next_connection() {
        for answer in [Some(ClassicDone::Refused(FULL)), None] {
            let mut w = World::new("chirpstack", 2);
            assert_eq!(w.did().await, Deed::Dialed);
            w.deliver(1, Some(1), TOPIC, EVENT);
            let heard = w.heard().await;
            match answer {
                Some(answer) => heard.done.send(answer).unwrap(),
                None => drop(heard),
            }
            assert_eq!(w.did().await, Deed::Dialed, "with no acknowledgement before");
            w.deliver(0, Some(9), TOPIC, EVENT);
            w.heard().await.done.send(ClassicDone::Stored).unwrap();
            assert_eq!(w.did().await, Deed::Acknowledged(9));
        }
    }

    #[tokio::test]
    async fn what_is_no_event_or_was_kept_for_whoever_comes_is_counted_and_acknowledged() {
        let mut w = World::new("chirpstack", 1);
        assert_eq!(w.did().await, Deed::Dialed);
        w.deliver(0, Some(1), TOPIC, b"<=>");
        let (topic, payload) = (TOPIC.to_owned(), EVENT.to_vec());
        w.say[0].send(Said::Delivered { topic, payload, receipt: Some(2), retained: true }).unwrap();
        for receipt in 1..=2 {
            let Event::Refused(rejected) = w.event().await else { panic!() };
            assert_eq!(rejected.code, Code::TinyMalformed);
            assert_eq!(w.did().await, Deed::Acknowledged(receipt));
        }
    }

    #[tokio::test]
    async fn commands_go_to_the_device_by_the_name_it_has_at_its_network_server() {
        let command = Downlink { dev_eui: Did([1; 8]), f_port: 1, payload: [0xAA].into() };
        let mut w = World::new("chirpstack", 1);
        assert_eq!(w.did().await, Deed::Dialed);
        w.commands.send(command.clone()).await.unwrap();
        let Deed::Published(topic, text) = w.did().await else { panic!() };
        assert_eq!(topic, "application/a/device/0101010101010101/command/down");
        assert!(text.contains(r#""data":"qg==""#), "{text}");

        let mut w = World::new("things-stack", 1);
        assert_eq!(w.did().await, Deed::Dialed);
        // Not known yet: nothing can be sent.
        w.commands.send(command.clone()).await.unwrap();
        let event = br#"{"end_device_ids":{"device_id":"barn-1","dev_eui":"0101010101010101"},"uplink_message":{}}"#;
        w.deliver(0, None, "v3/a/devices/barn-1/up", event);
        w.heard().await.done.send(ClassicDone::Refused(FULL)).unwrap();
        w.commands.send(command).await.unwrap();
        let Deed::Published(topic, text) = w.did().await else { panic!() };
        assert_eq!(topic, "v3/a/devices/barn-1/down/push");
        assert!(text.contains(r#""f_port":1"#), "{text}");
    }

    #[tokio::test]
    async fn an_answer_to_a_classic_frame_goes_down_by_the_port_that_it_came_by() {
        let mut w = World::new("chirpstack", 1);
        assert_eq!(w.did().await, Deed::Dialed);
        w.deliver(0, Some(1), TOPIC, EVENT);
        w.heard().await.done.send(ClassicDone::Answer([0xAA].into())).unwrap();
        let Deed::Published(topic, text) = w.did().await else { panic!() };
        assert_eq!(topic, "application/a/device/0101010101010101/command/down");
        assert!(text.contains(r#""fPort":3"#), "{text}");
        assert_eq!(w.did().await, Deed::Acknowledged(1));
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_is_made_again() {
        let mut w = World::new("chirpstack", 2);
        assert_eq!(w.did().await, Deed::Dialed);
        w.say.pop();
        assert_eq!(w.did().await, Deed::Dialed);
        w.say[0].send(Said::Connected).unwrap();
        assert!(matches!(w.did().await, Deed::Subscribed(_)));
    }
}
