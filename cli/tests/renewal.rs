//! Renewal against running daemons: a device with IP of its own, made of core, agrees contexts through the gateway, and the
//! operator sees it and orders the next one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fivefold_core::counter::Lease;
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::e5_renewal::{Announce, Credential, Identity, Initiator, PqMix};
use fivefold_core::id::Epoch;
use fivefold_core::oscore::{Context, OscoreOption, RequestId, judge_answer};
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::wire::coap::{self, Message, Protected, Token, Type, number};
use fivefold_core::wire::control::Downlink;
use fivefold_keep::share::NodeShare;
use fivefold_keep::sign::AgreementKey;
use serde_json::Value;
use tempfile::TempDir;

const READING: &[u8] = b"\x81\xA3\x00\x64temp\x01\x63Cel\x02\xF9\x4D\x60";

struct Farm {
    folder: TempDir,
    coap: SocketAddr,
    token: PathBuf,
    processes: Vec<Child>,
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fivefold")).args(["-o", "json"]).args(arguments).output().unwrap()
}

fn answer(arguments: &[&str]) -> Value {
    let done = run(arguments);
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

impl Farm {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tcp: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let udp: Vec<UdpSocket> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let [ingest, api] = [0, 1].map(|i| tcp[i].local_addr().unwrap().to_string());
        let [radio, coap] = [0, 1].map(|i| udp[i].local_addr().unwrap());
        let token = folder.path().join("token");
        let farm = Self { folder, coap, token, processes: Vec::new() };
        let dir = farm.path("");
        let (radio, coap) = (radio.to_string(), coap.to_string());
        answer(&["init", &dir, "--ingest", &ingest, "--api", &api]);
        answer(&["network", "add", "--dir", &dir, "one"]);
        answer(&["gateway", "add", "--dir", &dir, "--net", "one", "north", "--radio", &radio, "--coap", &coap]);
        std::fs::write(
            &farm.token,
            answer(&["token", "add", "--dir", &dir, "t", "--scope", "operate"])["token"].as_str().unwrap(),
        )
        .unwrap();
        farm
    }

    fn path(&self, part: &str) -> String {
        self.folder.path().join("farm").join(part).display().to_string()
    }

    fn start(&mut self) {
        for (noun, folder) in [("cloud", "cloud"), ("gateway", "gateways/north")] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
            command.args([noun, "run", "--dir", &self.path(folder)]);
            self.processes.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
    }

    fn device(&self, more: &[&str]) -> Device {
        let dir = self.path("");
        let add = ["device", "add", "--dir", &dir, "--net", "one", "--radio", "ip", "--danger-no-link", "for the test"];
        let made = answer(&[&add[..], more].concat());
        let share = NodeShare::read(Path::new(made["folder"].as_str().unwrap())).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.coap).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        Device {
            did: made["did"].as_str().unwrap().to_owned(),
            share,
            socket,
            message_id: 0,
            lease: Lease::resume(0, 1 << 20),
        }
    }

    fn show(&self, d: &Device) -> Value {
        answer(&["device", "show", "--dir", &self.path(""), &d.did])
    }

    fn readings(&self) -> usize {
        let (dir, token) = (self.path(""), self.token.display().to_string());
        answer(&["reading", "list", "--dir", &dir, "--token-file", &token]).as_array().unwrap().len()
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

struct Device {
    did: String,
    share: NodeShare,
    socket: UdpSocket,
    message_id: u16,
    lease: Lease,
}

impl Device {
    /// Sends a request until it is answered.
    fn ask(&mut self, message: &[u8], token: Token) -> Vec<u8> {
        let mut buffer = [0; 2048];
        for _ in 0..100 {
            // Nobody listens yet, perhaps.
            let _ = self.socket.send(message);
            std::thread::sleep(Duration::from_millis(100));
            while let Ok(n) = self.socket.recv(&mut buffer) {
                let answer = Message::parse(&buffer[..n]).unwrap();
                if answer.token == token && answer.code != 0 {
                    return buffer[..n].to_vec();
                }
            }
        }
        panic!("nobody answers");
    }

    fn edhoc(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut options = [0; 64];
        let mut at = coap::emit_option(&mut options, 0, number::URI_PATH, b".well-known").unwrap();
        at += coap::emit_option(&mut options[at..], number::URI_PATH, number::URI_PATH, b"edhoc").unwrap();
        self.message_id += 1;
        let (message_id, token) = (self.message_id, Token::from(self.message_id as u8));
        let message =
            Message { kind: Type::Con, code: coap::POST, message_id, token, options: &options[..at], payload };
        let mut out = vec![0; message.emitted_len()];
        message.emit(&mut out).unwrap();
        let answer = self.ask(&out, token);
        let answer = Message::parse(&answer).unwrap();
        assert_eq!(answer.code, coap::CHANGED);
        answer.payload.to_vec()
    }

    fn renew(&mut self, epoch: u16, ephemeral: u8) -> Context<E3> {
        let (share, cloud) = (&self.share, self.share.cloud.unwrap());
        let (did, sid, alg) = (share.did, share.sid, share.policy.alg);
        let key = AgreementKey::from_random(share.secrets.dh_key.as_ref().unwrap()).unwrap();
        let mix = share.policy.pq_mix.then(|| PqMix::new(&share.secrets.root_psk, did));
        let ephemeral = AgreementKey::from_random(&[ephemeral; 32]).unwrap();
        let (wait, m1) = Initiator::<E3, _>::offer(ephemeral, sid, Epoch(epoch), Announce::Sid).unwrap();
        let m2 = self.edhoc(m1.as_bytes());
        let own = Identity { key: &key, credential: &Credential::device(sid, key.public_x()) };
        let peer = Credential::peer(cloud.kid, cloud.x);
        let (wait, m3) = wait.handle_message_2(&m2, &own, &peer).unwrap();
        let m4 = self.edhoc(m3.as_bytes());
        let secrets = wait.handle_message_4(&m4).unwrap().secrets(alg, mix.as_ref());
        self.lease = Lease::resume(0, 1 << 20);
        secrets.e3.context_for_device(sid, Epoch(epoch), None, alg).unwrap()
    }

    /// A reading; what the cloud's protected answer says.
    fn send(&mut self, context: &Context<E3>) -> Vec<u8> {
        self.lease.extend(self.lease.bound() + 1);
        let plaintext = [&[coap::POST, 0xFF], READING].concat();
        let mut sealed = [0; 200];
        let (request, len): (RequestId, usize) =
            context.seal_request(self.lease.take().unwrap(), &plaintext, &mut sealed).unwrap();
        self.message_id += 1;
        let (kid, token) = (self.share.sid.to_bytes(), Token::from(self.message_id as u8));
        let option = OscoreOption { piv: Some(request.piv), kid_context: None, kid: Some(&kid) };
        let message = Protected {
            kind: Type::Con,
            code: coap::POST,
            message_id: self.message_id,
            token,
            option,
            ciphertext: &sealed[..len],
        };
        let mut out = vec![0; message.emitted_len()];
        let len = message.emit(&mut out).unwrap();
        let answer = self.ask(&out[..len], token);
        let answer = Protected::parse_answer(&answer).unwrap();
        let mut opened = [0; 200];
        let opened = context.open_answer(&request, answer.option.piv, answer.ciphertext, &mut opened).unwrap();
        let said = judge_answer::<E3>(opened.plaintext()).unwrap();
        assert_eq!(said.code, coap::CHANGED);
        said.payload.to_vec()
    }
}

#[test]
fn a_device_renews_through_running_daemons_and_the_operator_sees_and_orders_it() {
    let mut farm = Farm::new();
    let mut d = farm.device(&[]);
    farm.start();
    let (ms3, salt3) = d.share.secrets.e3.as_ref().unwrap();
    let (sid, alg) = (d.share.sid, d.share.policy.alg);
    let old = E3Secret::new(ms3, salt3).unwrap().context_for_device(sid, Epoch(1), None, alg).unwrap();
    d.send(&old);
    let before = farm.show(&d);
    assert_eq!((before["renewal"]["highest_epoch"].as_u64(), &before["renewal"]["agreed_at"]), (Some(1), &Value::Null));
    assert_eq!(before["renewal"]["finding"], "AR-43");
    let new = d.renew(2, 0x21);
    let shown = farm.show(&d);
    assert_eq!(shown["renewal"]["finding"], Value::Null);
    assert_eq!(shown["renewal"]["highest_epoch"], 2);
    assert!(shown["renewal"]["agreed_at"].as_u64() > Some(1_700_000_000));
    d.send(&new);
    assert_eq!(farm.readings(), 2);
    assert_eq!(answer(&["device", "renew", "--dir", &farm.path(""), &d.did])["ordered"], 1);
    let ordered = (0..40).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let said = d.send(&new);
        !said.is_empty() && Downlink::parse(&said).unwrap().renew == Some(5)
    });
    assert!(ordered, "the device was not told");
    let newer = d.renew(3, 0x22);
    d.send(&newer);
    assert_eq!(farm.show(&d)["renewal"]["highest_epoch"], 3);
    // A repair goes above what was agreed.
    let dir = farm.path("");
    let again = answer(&["device", "enrol-again", "--dir", &dir, &d.did]);
    assert_eq!((&again["epoch"], &again["renewal"]["highest_epoch"]), (&4.into(), &4.into()));
}

#[test]
fn a_device_whose_share_has_no_contexts_agrees_them_first() {
    let mut farm = Farm::new();
    let mut d = farm.device(&["--first-contexts", "agreed"]);
    assert!(d.share.secrets.e3.is_none() && d.share.secrets.e2_root.is_none());
    assert_eq!(farm.show(&d)["renewal"]["first_contexts"], "agreed");
    farm.start();
    let first = d.renew(d.share.epoch.0, 0x31);
    d.send(&first);
    assert_eq!((farm.readings(), &farm.show(&d)["renewal"]["highest_epoch"]), (1, &1.into()));
}

#[test]
fn who_cannot_renew_is_told_so() {
    let farm = Farm::new();
    let dir = farm.path("");
    let refused = |arguments: &[&str], says: &str| {
        let done = run(arguments);
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(says), "{text}");
    };
    refused(&["device", "renew", "--dir", &dir, "--all"], "fivefold device list");
    let add = ["device", "add", "--dir", &dir, "--net", "one", "--mode", "R"];
    refused(&[&add[..], &["--first-contexts", "agreed"]].concat(), "leave out --first-contexts");
    let random = answer(&add);
    let did = random["did"].as_str().unwrap();
    assert_eq!(random["renewal"], Value::Null);
    refused(&["device", "renew", "--dir", &dir, did], "its mode is R");
    refused(&["device", "renew", "--dir", &dir, "acde480000000001"], "fivefold device list");
    refused(&["device", "renew", "--dir", &dir], "--all");
    refused(&["device", "renew", "--dir", &dir, "--network", "two"], "fivefold network list");
    refused(&["device", "renew", "--dir", &dir, did, "--all"], "cannot be used");
}
