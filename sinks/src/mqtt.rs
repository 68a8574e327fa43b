//! MQTT 5: each reading as a message at a broker, at least once, in our own form, in that of ChirpStack, or both.

mod live;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use fivefold_core::id::Did;
use fivefold_keep::broker::{Broker, Keys, Login, Words};
use fivefold_keep::share::CloudOutbox;
use rumqttc::mqttbytes::v5::{PubAckReason, PublishProperties};
use rumqttc::{MqttOptions, PublishOptions, QoS};
use tokio::time::{Instant, timeout_at};

use self::live::{End, Heard, Live};
use crate::settings::Files;
use crate::sink::{EARLIER, Pace, Until};
use crate::{Answer, Most, Outbound, Sending, Sink, Verdict, broker, chirpstack};

/// Messages on their way at a time, at most: a broker may take fewer (Receive Maximum; Mosquitto's default is 20).
const IN_FLIGHT: usize = 64;
/// Readings of a batch.
const MOST: Most = Most { readings: 4096, bytes: 8 << 20 };
/// Seconds between two signs of life.
const KEEP_ALIVE: u16 = 30;
/// Bytes of a packet, at most.
const LONGEST: u32 = 1 << 20;
/// Bytes of a packet beside topic and message, at most.
const AROUND: usize = 512;
/// A reading that a broker hangs up on so often, each time alone and for what it is or for nothing that it says, will never do.
const HANG_UPS: u32 = 8;

/// In which forms.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shapes {
    /// What our own topics begin with.
    own: Option<String>,
    /// Application of ChirpStack's.
    chirpstack: Option<String>,
}

impl Shapes {
    /// Messages of a reading.
    const fn count(&self) -> usize {
        self.own.is_some() as usize + self.chirpstack.is_some() as usize
    }
}

/// Checked words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    broker: Broker,
    username: Option<String>,
    shapes: Shapes,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broker { host, port, .. } = &self.broker;
        let own = self.shapes.own.as_ref().map(|topic| format!("{topic}/…"));
        let theirs = self.shapes.chirpstack.as_ref().map(|application| format!("application/{application}/…"));
        let topics: Vec<String> = own.into_iter().chain(theirs).collect();
        write!(f, "MQTT 5 at {host}:{port}, {}, {}", self.broker.how(), topics.join(" and "))
    }
}

impl Settings {
    pub(crate) fn check(at: &str, words: &CloudOutbox, folder: &Path) -> Result<Self, String> {
        const KEYS: Keys = Keys {
            broker: "mqtt",
            ca_file: "ca_file",
            username: "username",
            key_file: "mqtt",
            insecure_mqtt: "insecure_mqtt",
        };
        let of_broker = Words {
            broker: at,
            ca_file: words.ca_file.as_deref(),
            username: words.username.as_deref(),
            password_file: None,
            certificate_file: None,
            key_file: None,
            insecure_mqtt: words.insecure_mqtt,
        };
        let broker =
            Broker::check(&of_broker, &KEYS, folder).map_err(|wrong| format!("{}: {}", wrong.key, wrong.reason))?;
        if let Some(other) = words.shape.iter().find(|shape| !matches!(&***shape, "fivefold" | "chirpstack")) {
            return Err(format!("shape: \"{other}\": expected fivefold, chirpstack, or both"));
        }
        let has = |shape: &str| words.shape.iter().any(|s| s == shape);
        let is_part = |text: &str| !text.is_empty() && text.len() <= 200 && !text.contains(['#', '+', '\0']);
        let own = (words.shape.is_empty() || has("fivefold")).then(|| words.topic.clone());
        let own = own.map(|topic| topic.unwrap_or_else(|| "fivefold".into()));
        match &own {
            Some(topic) if !is_part(topic) => {
                return Err(format!("topic: {topic:?}: expected the beginning of a topic, without # and +"));
            }
            None if words.topic.is_some() => return Err("topic: it is for the shape fivefold; leave it out".into()),
            _ => {}
        }
        let chirpstack = match &words.application {
            Some(id) if has("chirpstack") && is_part(id) && !id.contains('/') => Some(id.clone()),
            None if !has("chirpstack") => None,
            Some(_) if !has("chirpstack") => {
                return Err("application: it is for the shape chirpstack; leave it out".into());
            }
            _ => return Err("application: write the id of the application that ChirpStack's topics name".into()),
        };
        Ok(Self { broker, username: words.username.clone(), shapes: Shapes { own, chirpstack } })
    }

    pub(crate) const fn secret_use(&self) -> Option<&'static str> {
        match &self.username {
            Some(_) => Some("the password at the broker"),
            None => None,
        }
    }

    pub(crate) fn prepare(&self, files: Files) -> Result<Mqtt, String> {
        let Files { name, secret, .. } = files;
        let login = self.username.clone().map(|username| Login { username, password: secret });
        let dial = broker::dialler(&self.broker).map_err(|e| e.to_string())?;
        // Of its own: two clouds with sinks of one name would end each other's connections.
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|e| e.to_string())?;
        let id = format!("fivefold-outbox-{name}-{}", hex::encode(random));
        let mut options = MqttOptions::new(id, (self.broker.host.clone(), self.broker.port));
        options.set_keep_alive(KEEP_ALIVE);
        // What is not acknowledged is sent again by us, from the store: the broker has nothing to keep.
        options.set_clean_start(true);
        options.set_max_packet_size(Some(LONGEST));
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT as u16);
        // What is there goes out in one write.
        options.set_max_request_batch(IN_FLIGHT);
        if let Some(login) = login {
            options.set_credentials(login.username, login.password.to_vec());
        }
        options.set_socket_connector(move |_, _| dial());
        Ok(Mqtt { options, shapes: self.shapes.clone(), live: None, hung_up: None, pace: Pace::default() })
    }
}

/// A message of a reading.
struct Message {
    topic: String,
    text: String,
}

/// A broker.
pub(crate) struct Mqtt {
    options: MqttOptions,
    shapes: Shapes,
    live: Option<Live>,
    // The reading that the broker hung up on, alone, and how often.
    hung_up: Option<(String, u32)>,
    pace: Pace,
}

/// What says how a reading is proven, for who does not read the message.
fn properties(reading: &Outbound) -> PublishProperties {
    let word = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    PublishProperties {
        payload_format_indicator: Some(1),
        content_type: Some("application/json".into()),
        user_properties: vec![
            word("id", &reading.id),
            word("proof", reading.proof.as_str()),
            word("e1", reading.e1.as_str()),
            word("insecure", if reading.insecure { "true" } else { "false" }),
        ],
        ..PublishProperties::default()
    }
}

/// What became of one of a batch so far.
#[derive(Clone, Debug, Default)]
struct Course {
    // Messages that are not acknowledged yet; none before it was published.
    open: Option<usize>,
    verdict: Option<Verdict>,
}

impl Mqtt {
    fn messages(&self, reading: &Outbound) -> Vec<Message> {
        let own = self.shapes.own.iter().map(|topic| Message {
            topic: format!("{topic}/{}/{}/{}", reading.net, reading.did, reading.about.as_str()),
            text: reading.json().to_string(),
        });
        let theirs = self.shapes.chirpstack.iter().map(|application| Message {
            topic: chirpstack::topic(application, reading),
            text: chirpstack::event(application, reading).to_string(),
        });
        own.chain(theirs).collect()
    }

    async fn deliver(&mut self, batch: &[Arc<Outbound>]) -> Answer {
        let until = self.pace.begin();
        // A connection whose last batch was given up has answers on the way that belong to nothing: `live` is empty then.
        // One that is over says nothing of what the broker takes now.
        let mut live = match self.live.take().filter(|live| !live.pump.is_finished()) {
            Some(live) => live,
            None => match Live::dial(self.options.clone()).await {
                Ok(live) => live,
                Err(end) => return Answer::away(end.why),
            },
        };
        match self.publish(&mut live, batch, until).await {
            Ok(courses) => {
                // What is not answered yet would answer for what comes next.
                self.live = courses.iter().all(|course| course.open.unwrap_or(0) == 0).then_some(live);
                if courses.iter().all(|course| course.verdict.is_none()) {
                    return Answer::away(format_args!("no answer within {} seconds", self.pace.waits.as_secs()));
                }
                self.hung_up = None;
                Answer::Each(verdicts(courses, batch))
            }
            Err(end) => self.over(end, batch),
        }
    }

    /// The broker took the connection, and ended it over this batch.
    fn over(&mut self, End { why, is_over_what_was_sent }: End, batch: &[Arc<Outbound>]) -> Answer {
        let [alone] = batch else { return Answer::away(why) };
        if !is_over_what_was_sent {
            return Answer::away(why);
        }
        let times = match self.hung_up.take() {
            Some((id, times)) if id == alone.id => times + 1,
            _ => 1,
        };
        if times >= HANG_UPS {
            return Answer::Refused(format!("the broker hung up on it {times} times: {why}"));
        }
        self.hung_up = Some((alone.id.clone(), times));
        Answer::away(why)
    }

    /// Publishes a batch, or as much of it as there is time for: of each device one at a time, so that none overtakes another,
    /// whatever the broker refuses.
    async fn publish(&self, live: &mut Live, batch: &[Arc<Outbound>], until: Until) -> Result<Vec<Course>, End> {
        let mut courses = vec![Course::default(); batch.len()];
        let (mut ready, next) = queues(batch);
        // However long it took to dial.
        let mut may_begin = true;
        let (mut going, mut flying, mut heard) = (VecDeque::new(), HashMap::new(), Vec::new());
        loop {
            while may_begin && going.len() + flying.len() + self.shapes.count() <= IN_FLIGHT {
                let Some(Reverse(at)) = ready.pop() else { break };
                let (Some(reading), Some(course)) = (batch.get(at), courses.get_mut(at)) else { continue };
                let messages = self.messages(reading);
                if let Some(long) = messages.iter().map(Message::bytes).find(|n| *n > live.longest) {
                    let said = format!("{long} bytes are more than the {} that the broker takes", live.longest);
                    course.verdict = Some(Verdict::Dead(said));
                    ready.extend(next.get(at).copied().flatten());
                    continue;
                }
                course.open = Some(messages.len());
                for Message { topic, text } in messages {
                    let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties(reading));
                    if let Err(error) = live.client.try_publish(topic, text, options) {
                        return Err(live.end().await.unwrap_or_else(|| (&*error.to_string()).into()));
                    }
                    going.push_back(at);
                }
            }
            if going.is_empty() && flying.is_empty() {
                break;
            }
            let Ok(is_live) = timeout_at(until.waits, live.hear_all(&mut heard)).await else { break };
            is_live?;
            may_begin = Instant::now() < until.begins;
            for said in heard.drain(..) {
                match said {
                    Heard::Sent(number) => {
                        let at = going.pop_front().ok_or("a message went out that is none of ours")?;
                        flying.insert(number, at);
                    }
                    Heard::Acknowledged(number, reason) => {
                        let at = flying.remove(&number).ok_or("it acknowledged what was not sent")?;
                        if courses.get_mut(at).is_some_and(|course| course.acknowledged(reason)) {
                            ready.extend(next.get(at).copied().flatten());
                        }
                    }
                    Heard::Connected(_) => {}
                    Heard::Over(end) => return Err(end),
                }
            }
        }
        Ok(courses)
    }
}

/// Places in a batch, the lowest first.
type Ready = BinaryHeap<Reverse<usize>>;

/// The first of each device, and for each of a batch the next one of its device.
fn queues(batch: &[Arc<Outbound>]) -> (Ready, Vec<Option<Reverse<usize>>>) {
    let mut first = HashMap::new();
    let back = batch.iter().enumerate().rev();
    let mut next: Vec<_> = back.map(|(at, reading)| first.insert(reading.did, Reverse(at))).collect();
    next.reverse();
    (first.into_values().collect(), next)
}

/// What is said of each. What was not taken holds up what is behind it of its device.
fn verdicts(courses: Vec<Course>, batch: &[Arc<Outbound>]) -> Vec<Verdict> {
    let mut held = BTreeSet::<Did>::new();
    let all = courses.into_iter().zip(batch).map(|(course, reading)| match course.verdict {
        Some(verdict) => {
            if matches!(verdict, Verdict::Retry(_)) {
                held.insert(reading.did);
            }
            verdict
        }
        None if held.contains(&reading.did) => Verdict::Retry(EARLIER.into()),
        None => Verdict::Later,
    });
    all.collect()
}

impl Message {
    fn bytes(&self) -> usize {
        self.topic.len() + self.text.len() + AROUND
    }
}

impl Course {
    /// One of its messages was answered. Says whether the next one of its device may go.
    fn acknowledged(&mut self, reason: PubAckReason) -> bool {
        let said = || format!("the broker answered {reason:?}");
        let left = self.open.unwrap_or(1).saturating_sub(1);
        self.open = Some(left);
        let no = match reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
            PubAckReason::TopicNameInvalid | PubAckReason::PayloadFormatInvalid => Some(Verdict::Dead(said())),
            // Rights and quotas are mended at the broker: it is no fault of the reading.
            _ => Some(Verdict::Retry(said())),
        };
        match (&self.verdict, no) {
            (Some(Verdict::Dead(_)), _) => {}
            (_, Some(no)) => self.verdict = Some(no),
            (None, None) if left == 0 => self.verdict = Some(Verdict::Done),
            _ => {}
        }
        left == 0 && !matches!(self.verdict, Some(Verdict::Retry(_)))
    }
}

impl Sink for Mqtt {
    fn most(&self) -> Most {
        MOST
    }

    fn send<'s>(&'s mut self, batch: &'s [Arc<Outbound>]) -> Sending<'s> {
        Box::pin(self.deliver(batch))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::example::readings;

    /// A broker that takes `most` messages of a connection, each after so many milliseconds, and is silent then; for a sink that
    /// waits so many seconds.
    async fn slow(each: u64, most: usize, waits: u64) -> Mqtt {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(&[0x20, 3, 0, 0, 0]).await;
                for _ in 0..most {
                    let Ok(_) = socket.read_u8().await else { break };
                    // Two bytes of length: these messages have between 128 and 16383.
                    let (low, high) = (socket.read_u8().await.unwrap(), socket.read_u8().await.unwrap());
                    let mut packet = vec![0; usize::from(low & 0x7f) + (usize::from(high) << 7)];
                    socket.read_exact(&mut packet).await.unwrap();
                    let topic = usize::from(u16::from_be_bytes([packet[0], packet[1]]));
                    tokio::time::sleep(Duration::from_millis(each)).await;
                    let _ = socket.write_all(&[0x40, 2, packet[2 + topic], packet[3 + topic]]).await;
                }
                while socket.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {}
            }
        });
        let mut options = MqttOptions::new("test", (at.ip().to_string(), at.port()));
        options.set_clean_start(true);
        let pace = Pace { begins: Duration::from_secs(3), waits: Duration::from_secs(waits) };
        let shapes = Shapes { own: Some("fivefold".into()), chirpstack: None };
        Mqtt { options, shapes, live: None, hung_up: None, pace }
    }

    fn taken(answer: Answer, of: usize) -> usize {
        let Answer::Each(verdicts) = answer else { panic!("{answer:?}") };
        let taken = verdicts.iter().take_while(|v| **v == Verdict::Done).count();
        assert_eq!(verdicts.len(), of);
        assert!(verdicts.iter().skip(taken).all(|v| *v == Verdict::Later), "{verdicts:?}");
        taken
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_a_batch_that_takes_too_long_what_was_acknowledged_counts() {
        let mut sink = slow(150, usize::MAX, 30).await;
        let batch = readings(1, 100);
        let first = taken(sink.send(&batch).await, 100);
        assert!(
            (1..60).contains(&first) && sink.live.is_some(),
            "it begins nothing more, and waits for what it began: {first}"
        );
        assert_eq!(taken(sink.send(&batch[first..=first]).await, 1), 1);
        let mut sink = slow(0, 3, 3).await;
        assert_eq!(taken(sink.send(&batch).await, 100), 3);
        assert!(sink.live.is_none(), "the fourth may be answered yet");
        let mut sink = slow(0, 0, 1).await;
        let Answer::Away { said, .. } = sink.send(&batch).await else { panic!("it has it") };
        assert!(said.starts_with("no answer"), "{said}");
    }
}
