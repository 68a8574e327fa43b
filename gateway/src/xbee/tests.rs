//! The rim over a pseudo-terminal whose other end is the module.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use fivefold_core::e1_link::Reach;
use fivefold_waspmote::xbee::{Address16, Address64, At, Decoder, Mode, Packet};
use rustix::event::PollFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use super::kind::Addressing;
use super::module::SendRefused;
use super::*;

const DID: Did = Did([0x00, 0x13, 0xa2, 0x00, 0x4f, 0x8e, 0xc5, 0x19]);
const NODE: Did = Did([0x00, 0x13, 0xa2, 0x00, 0x27, 0xfd, 0x36, 0x29]);
const TIME: &[u8] = b"20240131235959+0000";

/// A module whose lines the test writes.
struct Fake {
    master: File,
    _slave: File,
    decoder: Decoder,
}

impl Fake {
    fn at(link: &Path) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = PathBuf::from(OsString::from_vec(ptsname(&master, Vec::new()).unwrap().into_bytes()));
        let slave = tty::open(&name, 115_200).unwrap();
        let _ = std::fs::remove_file(link);
        symlink(name, link).unwrap();
        Self { master: File::from(master), _slave: slave, decoder: Decoder::new(Mode::Escaped) }
    }

    fn say(&self, bytes: &[u8]) {
        tty::write_all(&self.master, bytes).unwrap();
    }

    fn packet(&self, packet: &Packet<'_>) {
        self.say(&packet.emit(Mode::Escaped).unwrap());
    }

    /// Waits until the host has asked who the module is: it does so first of all.
    fn asked(&mut self) {
        self.hears(|packet| matches!(packet, Packet::AtCommand { at: At::SERIAL_LOW, .. }).then_some(()));
    }

    /// The next packet of the host that `wanted` makes something of.
    fn hears<T>(&mut self, wanted: impl Fn(&Packet<'_>) -> Option<T>) -> T {
        let end = deadline();
        let mut byte = [0];
        while is_before(end) {
            if !tty::wait(&self.master, PollFlags::IN, Duration::from_millis(100)).unwrap() {
                continue;
            }
            self.master.read_exact(&mut byte).unwrap();
            if self.decoder.push(byte[0]) == Some(Ok(()))
                && let Some(found) = wanted(&Packet::parse(self.decoder.packet()).unwrap())
            {
                return found;
            }
        }
        panic!("the host never says it");
    }
}

#[expect(clippy::disallowed_methods, reason = "a test that hangs must end")]
fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[expect(clippy::disallowed_methods, reason = "a test that hangs must end")]
fn is_before(end: Instant) -> bool {
    Instant::now() < end
}

struct Bench {
    fake: Fake,
    sender: Sender,
    events: Receiver<Event>,
    stop: Arc<AtomicBool>,
    link: PathBuf,
    _folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Bench {
    /// A module on whose line the host is: what was said before, opening it would throw away.
    fn new(kind: Kind, time: Time) -> Self {
        let mut bench = Self::starting(kind, None, time);
        bench.fake.asked();
        bench
    }

    fn starting(kind: Kind, link_key: Option<LinkKey>, time: Time) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("ttyXBEE0");
        let fake = Fake::at(&link);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (engine, events) = sync_channel(1024);
        let stop = Arc::new(AtomicBool::new(false));
        let settings = Settings { port: link.clone(), baud: 115_200, kind, link_key };
        let entered = runtime.enter();
        let (sender, ..) = start(settings, (DID, time), engine, stop.clone()).unwrap();
        drop(entered);
        Self { fake, sender, events, stop, link, _folder: folder, _runtime: runtime }
    }

    /// The next event; a frame is stored at once, and a request for the time answered.
    fn next(&self) -> Event {
        let mut event = self.events.recv_timeout(Duration::from_secs(60)).unwrap();
        if let Event::Classic(classic) = &mut event {
            let done = match Frame::parse(&classic.frame) {
                Ok(Frame::TimeRequest) => ClassicDone::Answer(TIME.into()),
                _ => ClassicDone::Stored,
            };
            classic.done.take().unwrap().send(done).unwrap();
        }
        event
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/waspmote/xbee-api.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn every_frame_that_the_vendors_code_takes_comes_to_the_engine_byte_for_byte_and_nothing_else() {
    let bench = Bench::new(Kind::Us900hp, Time::Answered);
    let vectors = vectors();
    for case in vectors["rx"].as_array().unwrap() {
        bench.fake.say(&bytes(&case["uart_bytes_hex"]));
    }
    // Ends what was cut last.
    let request = bytes(&vectors["time_sync_request"]["payload_hex"]);
    let source = Address64(NODE.0);
    let asks = Packet::Receive { source, network: Address16::UNKNOWN, options: 1, payload: &request };
    bench.fake.packet(&asks);
    let mut refused = 0;
    for case in vectors["rx"].as_array().unwrap().iter().filter(|case| case["vendor_result"] == 0) {
        let heard = loop {
            match bench.next() {
                Event::Classic(heard) => break heard,
                Event::Refused(rejected) => {
                    assert_eq!(rejected.code, Code::ClassicMalformed);
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(heard.frame.to_vec(), bytes(&case["payload_hex"]));
        assert_eq!(heard.carrier, Carrier::Xbee);
        if case["frame_type"].is_string() {
            let source = case["source_mac_hex"].as_str().map(|_| NODE.0);
            assert_eq!((heard.source, heard.rssi.map(i64::from)), (source, case["rssi_dbm"].as_i64()), "{case}");
        }
    }
    assert_eq!(refused, 3, "a checksum, a frame that was cut, and one that was begun anew");
}

#[test]
fn whoever_asks_for_the_time_is_told_it_at_its_own_address_by_the_packet_of_the_module() {
    let request = bytes(&vectors()["time_sync_request"]["payload_hex"]);
    let mut bench = Bench::new(Kind::Us900hp, Time::Answered);
    let source = Address64(NODE.0);
    bench.fake.packet(&Packet::Receive { source, network: Address16::UNKNOWN, options: 1, payload: &request });
    assert!(matches!(bench.next(), Event::Classic(_)));
    let (to, said) = bench.fake.hears(|packet| match packet {
        Packet::Transmit { destination, payload, .. } => Some((*destination, payload.to_vec())),
        _ => None,
    });
    assert_eq!((to, said.as_slice()), (source, TIME));
    let mut bench = Bench::new(Kind::Ieee802154, Time::Answered);
    let source = Address16([0x6e, 0x5d]);
    bench.fake.packet(&Packet::Receive16 { source, rssi: -20, options: 0, payload: &request });
    assert!(matches!(bench.next(), Event::Classic(_)));
    let (to, said) = bench.fake.hears(|packet| match packet {
        Packet::Transmit16 { destination, payload, .. } => Some((*destination, payload.to_vec())),
        _ => None,
    });
    assert_eq!((to, said.as_slice()), (source, TIME));
}

#[test]
fn the_time_is_kept_to_itself_where_the_operator_says_so() {
    let vectors = vectors();
    let request = bytes(&vectors["time_sync_request"]["payload_hex"]);
    let bench = Bench::new(Kind::Us900hp, Time::Ignored);
    let source = Address64(NODE.0);
    bench.fake.packet(&Packet::Receive { source, network: Address16::UNKNOWN, options: 1, payload: &request });
    bench.fake.say(&bytes(&vectors["rx"][0]["uart_bytes_hex"]));
    let Event::Classic(heard) = bench.next() else { panic!() };
    assert_eq!(heard.frame.to_vec(), bytes(&vectors["rx"][0]["payload_hex"]), "the request came first");
}

#[test]
fn a_module_is_told_its_key_and_asked_for_its_address_whenever_it_starts() {
    let key = vectors()["link_key_at_frames"]["key_ascii"].as_str().unwrap().to_owned();
    let mut bench = Bench::starting(Kind::Ieee802154, Some(LinkKey::from_text(&key).unwrap()), Time::Answered);
    let wanted = [
        (At::ADDRESS_16, vec![0xFF, 0xFF]),
        (At::LINK_KEY, key.into_bytes()),
        (At::ENCRYPTION, vec![1]),
        (At::SERIAL_HIGH, vec![]),
        (At::SERIAL_LOW, vec![]),
    ];
    for round in 0..2 {
        for (at, value) in &wanted {
            let said = bench.fake.hears(|packet| match packet {
                Packet::AtCommand { at, value, .. } => Some((*at, value.to_vec())),
                _ => None,
            });
            assert_eq!((&said.0, &said.1), (at, value), "round {round}");
        }
        bench.fake.packet(&Packet::ModemStatus { status: 0 });
    }
}

#[test]
fn messages_of_ours_go_to_the_engine_and_a_line_that_went_away_comes_back() {
    let mut bench = Bench::new(Kind::Ieee802154, Time::Answered);
    let source = Address64(NODE.0);
    let message = [0x1F, 0x0E, 1, 2, 3];
    for (options, wanted) in [(0, Reach::Us), (2, Reach::Everybody), (4, Reach::Everybody)] {
        bench.fake.packet(&Packet::Receive64 { source, rssi: -70, options, payload: &message });
        let Event::Message { source, reach, rssi, bytes } = bench.next() else { panic!() };
        assert_eq!((source, reach, rssi, bytes.as_slice()), (NODE, wanted, Some(-70), &message[..]));
    }
    let short = Address16([1, 2]);
    bench.fake.packet(&Packet::Receive16 { source: short, rssi: -70, options: 0, payload: &message });
    assert!(matches!(bench.next(), Event::Refused(r) if r.code == Code::LinkMalformed), "nobody's address opens it");
    bench.fake.packet(&Packet::Receive64 { source, rssi: -70, options: 0, payload: b"hello" });
    assert!(matches!(bench.next(), Event::Refused(r) if r.code == Code::ClassicMalformed));

    bench.fake = Fake::at(&bench.link);
    // It asks who the module is as soon as it has the line again.
    bench.fake.asked();
    bench.fake.packet(&Packet::Receive64 { source, rssi: -70, options: 0, payload: &message });
    assert!(matches!(bench.next(), Event::Message { .. }));
    bench.sender.send(Peer::Everybody, message.as_slice().into()).unwrap();
    let to = bench.fake.hears(|packet| match packet {
        Packet::Transmit64 { destination, payload, .. } if *payload == message => Some(*destination),
        _ => None,
    });
    assert_eq!(to, Address64::BROADCAST);
}

#[test]
fn what_no_module_sends_at_once_is_refused_and_never_cut() {
    use Addressing::{Broadcast, Long, Short};
    use Encryption::{Off, On};
    let table = [
        (Kind::Ieee802154, [100, 98, 100, 94, 100, 95]),
        (Kind::Zigbee, [74, 66, 74, 66, 92, 84]),
        (Kind::Digimesh, [73; 6]),
        (Kind::Us900, [100, 80, 100, 80, 100, 80]),
        (Kind::Eu868, [100; 6]),
        (Kind::Eu868lp, [255; 6]),
        (Kind::Us900hp, [255; 6]),
    ];
    for (kind, wanted) in table {
        let found = [Short, Long, Broadcast].map(|a| [Off, On].map(|e| kind.longest(a, e)));
        assert_eq!(found.as_flattened(), wanted, "{kind}");
        assert_eq!(Kind::from_word(kind.as_str()), Some(kind));
    }
    let bench = Bench::new(Kind::Digimesh, Time::Answered);
    let refused = bench.sender.send(Peer::Everybody, [0; 74].into()).unwrap_err();
    assert_eq!(refused, SendRefused::TooLong { length: 74, longest: 73 });
    assert_eq!((Kind::Us900hp.longest_message(Off), Kind::Ieee802154.longest_message(On)), (127, 94));
}

#[test]
fn a_key_file_holds_sixteen_characters_or_their_hex_and_is_nobody_elses() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("link.key");
    let write = |text: &str, mode| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        read_link_key(&file).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(write("zbw8vnigkr629rdn\n", 0o600), Ok(()));
    assert_eq!(write("7a627738766e69676b7236323972646e", 0o600), Ok(()));
    for (text, mode) in [("short", 0o600), ("zz627738766e69676b7236323972646e", 0o600), ("zbw8vnigkr629rdn", 0o644)] {
        let why = write(text, mode).unwrap_err();
        assert!(why.contains("link.key") && !why.contains(text), "{why}");
    }
}
