//! What daemons owe whoever runs them: they start however large their store is, say when they are ready and that they live, and how they
//! ended; and strangers take nothing away from gateways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod deployment;

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use deployment::{Daemon, Deployment, fivefold, free_udp};

const READ_THROUGH: &str = "read through before anything is accepted";

/// Waits until the cloud answers, ends it by this signal, and says what it logged.
async fn until(d: &mut Deployment, signal: &str) -> String {
    d.ask("/v1/health").await;
    let mut cloud = d.cloud.take().unwrap();
    cloud.end(signal);
    let said = cloud.said();
    fs::remove_file(&cloud.log).unwrap();
    said
}

fn start(d: &mut Deployment) {
    d.cloud = Some(Daemon::start(&["cloud", "run", "--dir", &d.at("farm/cloud")], &d.path("cloud.log")));
}

#[tokio::test]
async fn a_store_is_read_through_after_a_stop_that_did_not_close_it_and_after_no_other() {
    let mut d = Deployment::new();
    let mark = d.path("farm/cloud/readings.db.closed");
    for (signal, read_before) in [("TERM", false), ("KILL", false), ("TERM", true), ("TERM", false)] {
        let said = until(&mut d, signal).await;
        assert_eq!(said.contains(READ_THROUGH), read_before, "{said}");
        assert_eq!(mark.exists(), signal == "TERM");
        start(&mut d);
    }
    until(&mut d, "TERM").await;
    // The same bytes in another file: a copy that was put back by hand.
    let (store, copy) = (d.path("farm/cloud/readings.db"), d.path("copy"));
    assert!(Command::new("cp").args(["-a".as_ref(), store.as_os_str(), copy.as_os_str()]).status().unwrap().success());
    fs::rename(&copy, &store).unwrap();
    start(&mut d);
    let said = until(&mut d, "TERM").await;
    assert!(said.contains(READ_THROUGH), "{said}");
}

/// Overwrites the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xA5);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_store_that_was_changed_since_it_was_closed_is_found_damaged() {
    let mut d = Deployment::new();
    until(&mut d, "TERM").await;
    damage(&d.path("farm/cloud/readings.db"));
    let run = ["cloud", "run", "--dir", &d.at("farm/cloud")];
    let done = deployment::command(&run).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("is damaged"), "{said}");
}

/// The exit code of a daemon that does not start.
fn start_fails(run: &[&str]) -> Option<i32> {
    let done = deployment::command(run).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.lines().last().unwrap().starts_with("{\"error\":"), "{said}");
    done.status.code()
}

#[tokio::test]
async fn a_start_that_fails_until_somebody_mends_it_has_an_exit_code_of_its_own() {
    let mut d = Deployment::new();
    let north = gateway(&d);
    until(&mut d, "TERM").await;
    let cloud = d.at("farm/cloud");
    let runs = [["cloud", "run", "--dir", &cloud], ["gateway", "run", "--dir", &north]];
    let files = |of: usize, names: [&str; 2]| Path::new(runs[of][3]).join(names[of]);
    let lasts = Some(78);
    for (i, run) in runs.iter().enumerate() {
        let code = |file: &Path, text: &[u8]| {
            let kept = fs::read(file).unwrap();
            fs::write(file, text).unwrap();
            let code = start_fails(run);
            fs::write(file, kept).unwrap();
            code
        };
        let settings = files(i, ["cloud.toml", "gateway.toml"]);
        let text = fs::read_to_string(&settings).unwrap();
        assert_eq!(code(&settings, format!("{text}colour = 1\n").as_bytes()), lasts, "{run:?}: a setting");
        let passphrase = files(i, ["../passphrase", "passphrase"]);
        assert_eq!(code(&passphrase, b"of another deployment"), lasts, "{run:?}: a passphrase");
        let away = passphrase.with_extension("away");
        fs::rename(&passphrase, &away).unwrap();
        assert_eq!(start_fails(run), Some(2), "{run:?}: a passphrase whose medium is not there yet");
        fs::rename(&away, &passphrase).unwrap();
        let store = files(i, ["readings.db", "store.db"]);
        let newer = rusqlite::Connection::open(&store).unwrap();
        let format: i64 = newer.pragma_query_value(None, "user_version", |r| r.get(0)).unwrap();
        newer.pragma_update(None, "user_version", 9_999).unwrap();
        assert_eq!(start_fails(run), lasts, "{run:?}: a later format");
        newer.pragma_update(None, "user_version", format).unwrap();
    }
    let away = "broker-ca.pem";
    let lorawan = "[lorawan]\nkind = \"chirpstack\"\nbroker = \"mqtts://localhost:1\"\nca_file = \"broker-ca.pem\"\n\
                   activation = \"otaa\"\napplication = \"8d3c4b60-5f2e-4f0b-9d5a-3b1f6f0c7a11\"\n";
    let outbox = "[[outbox]]\nname = \"w\"\nca_file = \"broker-ca.pem\"\nmqtt = \"mqtts://localhost:1\"\n";
    let alarm = "[[alarm.sink]]\nname = \"q\"\nca_file = \"broker-ca.pem\"\nmqtt = \"mqtts://localhost:1\"\n";
    for (run, file, words) in
        [(&runs[0], "cloud.toml", outbox), (&runs[0], "cloud.toml", alarm), (&runs[1], "gateway.toml", lorawan)]
    {
        let folder = Path::new(run[3]);
        let settings = folder.join(file);
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, format!("{text}\n{words}")).unwrap();
        let check = [&run[..], &["--check"]].concat();
        assert_eq!(start_fails(run), Some(2), "{words}: a file whose medium is not there yet");
        assert!(start_fails(&check).is_some_and(|code| code != 0));
        fs::write(folder.join(away), "no certificate").unwrap();
        assert_eq!(start_fails(run), lasts, "{words}: a file that is no certificate");
        assert!(start_fails(&check).is_some_and(|code| code != 0));
        fs::remove_file(folder.join(away)).unwrap();
        fs::write(&settings, text).unwrap();
    }
    let settings = Path::new(&cloud).join("cloud.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let witness = "[[log.witnesses]]\nurl = \"https://localhost:1\"\nca = \"broker-ca.pem\"\n\
                   vkey = \"witness.example/w1+59ad34d7+BJj/U1+aUWGPpTwhnVYGNTUo1KmnP4Beu+T6VcBHcm6U\"\n";
    fs::write(&settings, format!("{text}\n{witness}")).unwrap();
    assert_eq!(start_fails(&runs[0]), Some(2), "a witness's CA whose medium is not there yet");
    fs::write(&settings, text).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = taken.local_addr().unwrap().to_string();
    let settings = Path::new(&north).join("gateway.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{text}\n[metrics]\nbind = \"{metrics}\"\n")).unwrap();
    let done = deployment::command(&runs[1]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains(&metrics) && said.contains("metrics.bind") && done.status.code() == Some(2), "{said}");
    assert!(Path::new(&north).join("store.db.closed").exists(), "its store was closed well");
    fs::write(&settings, text).unwrap();
    let _taken = TcpListener::bind(d.ingest).unwrap();
    assert_eq!(start_fails(&runs[0]), Some(2), "a port that another process may leave");
    // What a gateway may not have: it finds that critical about itself.
    fs::write(Path::new(&north).join("node.toml"), "").unwrap();
    assert_eq!(start_fails(&runs[1]), lasts);
}

/// A gateway in `field-7`, which does not run: its folder.
fn gateway(d: &Deployment) -> String {
    let [radio] = free_udp();
    fivefold(&["gateway", "add", "--dir", &d.farm(), "--net", "field-7", "north", "--radio", &radio]);
    d.at("farm/gateways/north")
}

#[tokio::test]
async fn both_daemons_say_once_that_they_are_ready_and_again_and_again_that_they_live() {
    let mut d = Deployment::new();
    let north = gateway(&d);
    until(&mut d, "TERM").await;
    let cloud = d.at("farm/cloud");
    for run in [["cloud", "run", "--dir", &cloud], ["gateway", "run", "--dir", &north]] {
        let socket = d.path(run[0]);
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut command = deployment::command(&run);
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "60000000").env_remove("WATCHDOG_PID");
        let mut daemon = Daemon::of(command, &d.path("log"));
        let (mut ready, mut beats) = (0, 0);
        while ready < 1 || beats < 3 {
            let mut heard = [0; 32];
            let n = manager.recv(&mut heard).unwrap_or_else(|e| panic!("{e}: {ready} {beats} {}", daemon.said()));
            match &heard[..n] {
                b"READY=1" => ready += 1,
                b"WATCHDOG=1" => beats += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((ready, daemon.end("TERM")), (1, Some(0)), "{}", daemon.said());
    }
}

#[tokio::test]
async fn strangers_who_say_nothing_are_in_no_gateways_way_and_all_end_in_time() {
    let d = Deployment::new();
    let north = gateway(&d);
    d.ask("/v1/health").await;
    // Thrice as many as may shake hands at a time.
    let strangers = || -> Vec<TcpStream> { (0..192).map(|_| TcpStream::connect(d.ingest).unwrap()).collect() };
    let mut idle = strangers();
    let _gateway = Daemon::start(&["gateway", "run", "--dir", &north], &d.path("north.log"));
    let cloud = d.cloud.as_ref().unwrap();
    // Others come before these are cut, however long a gateway takes to start.
    for _ in 0..30 {
        if cloud.said().contains("connected") {
            break;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        idle = strangers();
    }
    cloud.says("connected").await;
    let last = idle.last().unwrap();
    last.set_nonblocking(true).unwrap();
    let waits = last.peek(&mut [0]);
    assert!(waits.is_err_and(|e| e.kind() == ErrorKind::WouldBlock), "the gateway waited for strangers");
    last.set_nonblocking(false).unwrap();
    for mut stream in idle {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // An end, or a reset.
        let ended = stream.read(&mut [0]);
        assert!(ended.as_ref().map_or_else(|e| e.kind() != ErrorKind::WouldBlock, |n| *n == 0), "{ended:?}");
    }
}
