//! MQTT 5, to the real Mosquitto, and to brokers that do what they like.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{all_in_order, bring, free_port, reading, readings, sink};
use fivefold_core::e4_channel::Origin;
use fivefold_sinks::{About, Answer, Scalar, Verdict};
use rumqttc::mqttbytes::v5::{Packet, Publish};
use rumqttc::{AsyncClient, Event, MqttOptions, QoS};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A broker, ended with the test.
struct Mosquitto(Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mosquitto(folder: &Path, port: u16, more: &str) -> Mosquitto {
    let file = folder.join("mosquitto.conf");
    let words = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
         autosave_interval 1\nautosave_on_changes true\nuser root\nmax_queued_messages 0\n{more}",
        folder.display()
    );
    std::fs::write(&file, words).unwrap();
    let mut command = Command::new("/usr/sbin/mosquitto");
    Mosquitto(
        command
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("mosquitto.log")).unwrap())
            .spawn()
            .unwrap(),
    )
}

type Heard = Arc<Mutex<Vec<Publish>>>;

/// Who listens to everything, whenever there is a broker.
fn listen(port: u16) -> (Heard, JoinHandle<()>) {
    let mut options = MqttOptions::new("listener", ("127.0.0.1", port));
    options.set_clean_start(false);
    options.set_session_expiry_interval(Some(3600));
    let heard = Heard::default();
    let hears = heard.clone();
    let task = tokio::spawn(async move {
        let (client, mut events) = AsyncClient::builder(options).capacity(64).build();
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    for filter in ["fivefold/#", "application/#"] {
                        client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => hears.lock().unwrap().push(Publish::default()),
                Ok(Event::Incoming(Packet::Publish(message))) => hears.lock().unwrap().push(message),
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    (heard, task)
}

/// Messages so far. What says that somebody listens has no topic.
fn messages(heard: &Heard, part: &str) -> Vec<(String, Publish, Value)> {
    let all = heard.lock().unwrap();
    let topic = |p: &Publish| String::from_utf8(p.topic.to_vec()).unwrap();
    let of = all.iter().filter(|p| topic(p).contains(part) && !p.topic.is_empty());
    of.map(|p| (topic(p), p.clone(), serde_json::from_slice(&p.payload).unwrap())).collect()
}

async fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..600 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never {what}");
}

fn words(port: u16) -> String {
    format!(
        "name = \"plant\"\nmqtt = \"mqtt://127.0.0.1:{port}\"\ninsecure_mqtt = true\n\
         shape = [\"fivefold\", \"chirpstack\"]\napplication = \"8d3c4b60-5f2e-4f0b-9d5a-3b1f6f0c7a11\"\n"
    )
}

/// Every key of `form` is in `ours`, with a value of the same kind.
fn has_form(form: &Value, ours: &Value, at: &str) {
    match (form, ours) {
        (Value::Object(form), Value::Object(ours)) => {
            for (key, value) in form {
                has_form(
                    value,
                    ours.get(key).unwrap_or_else(|| panic!("{at}/{key} is missing")),
                    &format!("{at}/{key}"),
                );
            }
        }
        (Value::Array(form), Value::Array(ours)) => has_form(&form[0], &ours[0], at),
        _ => assert_eq!(std::mem::discriminant(form), std::mem::discriminant(ours), "{at}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_come_in_both_forms_with_proof_and_class_of_e1_for_who_reads_no_message() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let _broker = mosquitto(folder.path(), port, "");
    let (heard, _listener) = listen(port);
    until("somebody who listens", || heard.lock().unwrap().len() == 2).await;
    let mut sink = sink(folder.path(), &words(port), None);
    assert_eq!(bring(&mut *sink, &readings(3, 100)).await, []);
    let mut raised = reading(1, 1);
    (raised.about, raised.proof) = (About::Label, Origin::Signed);
    assert_eq!(sink.send(&[Arc::new(raised)]).await, Answer::Each(vec![Verdict::Done]));
    until("all messages", || heard.lock().unwrap().len() == 2 + 2 * 301).await;

    let own = messages(&heard, "/reading");
    let number =
        |m: &(String, Publish, Value)| (m.2["device"].as_str().unwrap().to_owned(), m.2["number"].as_u64().unwrap());
    all_in_order(&own.iter().map(number).collect::<Vec<_>>(), 3, 100);
    let (topic, message, event) = &own[0];
    assert_eq!(topic, "fivefold/00000007/acde480000000001/reading");
    let properties = message.properties.clone().unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    let word = |name: &str| properties.user_properties.iter().find(|(n, _)| n == name).unwrap().1.clone();
    assert_eq!([word("proof"), word("e1"), word("insecure")], ["node", "mac-ccm", "false"]);
    assert_eq!(event["id"], word("id"));
    let labels = messages(&heard, "/label");
    assert_eq!((labels.len(), &labels[0].2["id"], &labels[0].2["proof"]), (1, &event["id"], &"signed".into()));

    let theirs = messages(&heard, "/event/up");
    assert_eq!(theirs.len(), 301);
    let vectors: Value = serde_json::from_str(include_str!("../../vectors/lorawan/chirpstack-up.json")).unwrap();
    let mut form = vectors["cases"][0]["event"].clone();
    // What only a radio of LoRaWAN has, and tags of one's own.
    form.as_object_mut().unwrap().remove("txInfo");
    form["deviceInfo"]["tags"] = Value::Object(serde_json::Map::new());
    for key in ["channel", "context", "metadata"] {
        form["rxInfo"][0].as_object_mut().unwrap().remove(key);
    }
    let (topic, _, event) = &theirs[0];
    assert_eq!(topic, "application/8d3c4b60-5f2e-4f0b-9d5a-3b1f6f0c7a11/device/acde480000000001/event/up");
    has_form(&form, event, "");
    assert_eq!((&event["object"]["temperature"], &event["data"]), (&21.5.into(), &"gaA=".into()));
    assert_eq!(event["object"]["fivefold"]["proof"], "node");
    let last = &theirs[300].2;
    assert_eq!(last["deduplicationId"], event["deduplicationId"], "a label is the same uplink");
    assert_eq!(last["object"]["fivefold"]["proof"], "signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_in_the_middle_gets_all_of_it_in_order() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let mut broker = mosquitto(folder.path(), port, "");
    let (heard, _listener) = listen(port);
    until("somebody who listens", || heard.lock().unwrap().len() == 2).await;
    let mut sink = sink(folder.path(), &words(port), None);
    let all = readings(4, 60);
    let going = tokio::spawn(async move { bring(&mut *sink, &all).await });
    for part in 1..4 {
        until("a part of it", || heard.lock().unwrap().len() > part * 100).await;
        drop(broker);
        broker = mosquitto(folder.path(), port, "");
    }
    assert_eq!(going.await.unwrap(), []);
    let number =
        |m: &(String, Publish, Value)| (m.2["device"].as_str().unwrap().to_owned(), m.2["number"].as_u64().unwrap());
    let has_all = || messages(&heard, "/reading").iter().map(number).collect::<std::collections::BTreeSet<_>>();
    until("all messages", || has_all().len() == 240).await;
    all_in_order(&messages(&heard, "/reading").iter().map(number).collect::<Vec<_>>(), 4, 60);
}

/// What became of these, at a broker with `more` in its configuration.
async fn verdicts(folder: &Path, more: &str, batch: &[Arc<fivefold_sinks::Outbound>]) -> Vec<Verdict> {
    let port = free_port();
    let _broker = mosquitto(folder, port, more);
    until("a broker", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let words = format!("name = \"plant\"\nmqtt = \"mqtt://127.0.0.1:{port}\"\ninsecure_mqtt = true\n");
    match sink(folder, &words, None).send(batch).await {
        Answer::Each(verdicts) => verdicts,
        other => panic!("{other:?}: {}", std::fs::read_to_string(folder.join("mosquitto.log")).unwrap()),
    }
}

/// Topic and number of the next message.
async fn message(socket: &mut TcpStream) -> Option<(String, [u8; 2])> {
    let first = socket.read_u8().await.ok()?;
    let (mut len, mut shift) = (0, 0);
    loop {
        let byte = usize::from(socket.read_u8().await.unwrap());
        len |= (byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let mut packet = vec![0; len];
    socket.read_exact(&mut packet).await.unwrap();
    assert_eq!(first & 0xf6, 0x32, "a message with QoS 1");
    let topic = usize::from(u16::from_be_bytes([packet[0], packet[1]]));
    let number = [packet[2 + topic], packet[3 + topic]];
    Some((String::from_utf8(packet[2..2 + topic].to_vec()).unwrap(), number))
}

/// A broker that answers every message, those of one device with this reason.
async fn picky(device: &'static str, reason: u8) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 4096]).await;
        let _ = socket.write_all(&[0x20, 3, 0, 0, 0]).await;
        while let Some((topic, number)) = message(&mut socket).await {
            let reason = if topic.contains(device) { reason } else { 0 };
            socket.write_all(&[0x40, 4, number[0], number[1], reason, 0]).await.unwrap();
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_gives_no_right_to_waits_and_nothing_of_its_device_overtakes_it() {
    for (reason, word, is_dead) in
        [(0x87, "NotAuthorized", false), (0x97, "QuotaExceeded", false), (0x90, "TopicNameInvalid", true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = sink(folder.path(), &words(picky("acde480000000002", reason).await), None);
        let Answer::Each(verdicts) = sink.send(&readings(2, 3)).await else { panic!("away") };
        for taken in [0, 2, 4] {
            assert_eq!(verdicts[taken], Verdict::Done);
        }
        let said = format!("the broker answered {word}");
        let behind = Verdict::Retry("an earlier one of its device was not taken".into());
        if is_dead {
            let all: [_; 3] = std::array::from_fn(|n| verdicts[2 * n + 1].clone());
            assert_eq!(all, std::array::from_fn(|_| Verdict::Dead(said.clone())), "that holds up no other");
        } else {
            assert_eq!([&verdicts[1], &verdicts[3], &verdicts[5]], [&Verdict::Retry(said), &behind, &behind]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_device_the_next_message_goes_when_the_one_before_was_acknowledged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // It answers when nothing more comes, and remembers how many were on their way.
    let broker = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 4096]).await;
        let _ = socket.write_all(&[0x20, 3, 0, 0, 0]).await;
        let (mut open, mut most) = (BTreeMap::new(), 0);
        loop {
            match timeout(Duration::from_millis(5), socket.peek(&mut [0])).await {
                Ok(Ok(1)) => {
                    let (topic, number) = message(&mut socket).await.unwrap();
                    assert_eq!(open.insert(topic, number), None, "two of a device are on their way");
                    most = most.max(open.len());
                }
                Ok(_) => return most,
                Err(_) => {
                    for number in std::mem::take(&mut open).into_values() {
                        socket.write_all(&[0x40, 2, number[0], number[1]]).await.unwrap();
                    }
                }
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let words = format!("name = \"plant\"\nmqtt = \"mqtt://127.0.0.1:{port}\"\ninsecure_mqtt = true\n");
    let mut sink = sink(folder.path(), &words, None);
    // Many devices, and one of which there is more than of all others.
    let batch = [readings(40, 10), (11..=60).map(|n| Arc::new(reading(7, n))).collect()].concat();
    assert_eq!(sink.send(&batch).await, Answer::Each(vec![Verdict::Done; 450]));
    drop(sink);
    assert_eq!(broker.await.unwrap(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_thousands_of_few_devices_comes_once_and_in_order() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let _broker = mosquitto(folder.path(), port, "");
    let (heard, _listener) = listen(port);
    until("somebody who listens", || heard.lock().unwrap().len() == 2).await;
    let mut sink = sink(folder.path(), &words(port), None);
    assert!(sink.most().readings >= 2000);
    assert_eq!(sink.send(&readings(5, 400)).await, Answer::Each(vec![Verdict::Done; 2000]));
    until("all messages", || heard.lock().unwrap().len() == 2 + 2 * 2000).await;
    let number =
        |m: &(String, Publish, Value)| (m.2["device"].as_str().unwrap().to_owned(), m.2["number"].as_u64().unwrap());
    all_in_order(&messages(&heard, "/reading").iter().map(number).collect::<Vec<_>>(), 5, 400);
}

/// The kernel delays an acknowledgement by 40 ms, and Mosquitto holds its last answers back until it comes.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn no_batch_waits_for_a_delayed_acknowledgement() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let _broker = mosquitto(folder.path(), port, "");
    until("a broker", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let mut sink = sink(folder.path(), &words(port), None);
    let mut times = Vec::new();
    for round in 1..=40 {
        let batch: Vec<_> = (1..=5).map(|device| Arc::new(reading(device, round))).collect();
        let started = Instant::now();
        assert_eq!(sink.send(&batch).await, Answer::Each(vec![Verdict::Done; 5]));
        times.push(started.elapsed());
    }
    times.sort();
    assert!(times[20] < Duration::from_millis(35), "half of them take longer: {times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_the_broker_is_put_aside_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut large = reading(1, 2);
    large.values[3].value = Some(Scalar::Text("x".repeat(6000)));
    let batch = [Arc::new(reading(1, 1)), Arc::new(large), Arc::new(reading(1, 3))];
    let verdicts = verdicts(folder.path(), "max_packet_size 8000\n", &batch).await;
    assert_eq!((&verdicts[0], &verdicts[2]), (&Verdict::Done, &Verdict::Done));
    let Verdict::Dead(said) = &verdicts[1] else { panic!("{verdicts:?}") };
    assert!(said.contains("more than the 8000"), "{said}");
}

/// A broker that says yes to the connection, and does this with what comes behind.
async fn broker(behind: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(&[0x20, 3, 0, 0, 0]).await;
            let _ = socket.read(&mut [0; 65536]).await;
            let _ = socket.write_all(behind).await;
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_up_on_one_reading_again_and_again_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let port = broker(b"").await;
    let mut sink = sink(folder.path(), &words(port), None);
    let two = readings(2, 1);
    for _ in 0..10 {
        assert!(matches!(sink.send(&two).await, Answer::Away { .. }), "two of them are no proof against either");
    }
    for _ in 0..7 {
        assert!(matches!(sink.send(&two[..1]).await, Answer::Away { .. }));
    }
    let Answer::Refused(said) = sink.send(&two[..1]).await else { panic!("not refused") };
    assert!(said.starts_with("the broker hung up on it 8 times"), "{said}");
    assert!(matches!(sink.send(&two[1..]).await, Answer::Away { .. }), "the next one is judged by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_up_for_a_reason_of_its_own_has_nothing_against_the_reading() {
    // That it ends, somebody has our name, a quota, an administrator; then what is about the packet.
    for (behind, is_dead) in [
        (&[0xe0, 2, 0x8b, 0][..], false),
        (&[0xe0, 2, 0x8e, 0], false),
        (&[0xe0, 2, 0x97, 0], false),
        (&[0xe0, 2, 0x98, 0], false),
        (&[0xe0, 2, 0x81, 0], true),
        (&[0xe0, 2, 0x90, 0], true),
        (&[0xe0, 2, 0x95, 0], true),
        (&[0xe0, 2, 0x99, 0], true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = sink(folder.path(), &words(broker(behind).await), None);
        let one = readings(1, 1);
        let mut answers = Vec::new();
        for _ in 0..8 {
            answers.push(sink.send(&one).await);
        }
        let last = answers.pop().unwrap();
        assert!(answers.iter().all(|a| matches!(a, Answer::Away { .. })), "{behind:x?}: {answers:?}");
        assert_eq!(matches!(last, Answer::Refused(_)), is_dead, "{behind:x?}: {last:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clouds_with_sinks_of_one_name_do_not_end_each_others_connections() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let _broker = mosquitto(folder.path(), port, "");
    until("a broker", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut sinks = folders.each_ref().map(|folder| sink(folder.path(), &words(port), None));
    for round in 1..=5 {
        for sink in &mut sinks {
            let one = [Arc::new(reading(1, round))];
            assert_eq!(sink.send(&one).await, Answer::Each(vec![Verdict::Done]));
        }
    }
    let log = std::fs::read_to_string(folder.path().join("mosquitto.log")).unwrap();
    assert!(!log.contains("already connected"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_acknowledges_what_was_not_sent_or_speaks_garbage_has_nothing() {
    for behind in [&[0x40, 2, 0x30, 0x39][..], &[0xff; 64], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = sink(folder.path(), &words(broker(behind).await), None);
        let Answer::Away { said, .. } = sink.send(&readings(1, 2)).await else { panic!("it has it") };
        assert!(!said.is_empty());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(folder.path(), &words(free_port()), None);
    let Answer::Away { said, .. } = sink.send(&readings(1, 2)).await else { panic!("it has it") };
    assert!(said.contains("refused"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_does_not_answer_for_what_comes_after_it() {
    // It takes everything and says nothing; then it is real.
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 4096]).await;
        let _ = socket.write_all(&[0x20, 3, 0, 0, 0]).await;
        while socket.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {}
    });
    let mut sink = sink(folder.path(), &words(port), None);
    let all = readings(2, 2);
    assert!(tokio::time::timeout(Duration::from_millis(500), sink.send(&all)).await.is_err(), "it waits");
    silent.await.unwrap();
    let _broker = mosquitto(folder.path(), port, "");
    until("a broker", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    assert_eq!(sink.send(&all).await, Answer::Each(vec![Verdict::Done; 4]));
}
