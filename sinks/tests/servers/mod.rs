//! The real servers of Debian, each with a client of few words. They are killed with the test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A server, killed with the test.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program, and waits until it listens.
pub fn start(program: &str, arguments: &[&Path], port: u16) -> Server {
    let mut command = Command::new(program);
    let server = Server(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    for _ in 0..1200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return server;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{program} does not listen");
}

/// A nats-server with JetStream, and these words more in its settings.
pub fn nats(folder: &Path, port: u16, more: &str) -> Server {
    let file = folder.join("nats.conf");
    let store = folder.join("jetstream");
    let words = format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?} }}\n{more}");
    std::fs::write(&file, words).unwrap();
    start("/usr/sbin/nats-server", &[Path::new("-c"), &file], port)
}

/// A client of JetStream.
pub struct Jetstream(BufReader<TcpStream>);

impl Jetstream {
    pub fn connect(port: u16) -> Self {
        let mut client = Self(BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap()));
        client.line();
        client.say("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB _INBOX.test 1\r\n");
        client
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// JetStream's answer to a question; it is asked again until it is ready to answer.
    pub fn ask(&mut self, what: &str, body: &Value) -> Value {
        let body = body.to_string();
        for _ in 0..200 {
            self.say(&format!("PUB $JS.API.{what} _INBOX.test {}\r\n{body}\r\n", body.len()));
            let line = loop {
                let line = self.line();
                match &line[..4] {
                    "PING" => self.say("PONG\r\n"),
                    "MSG " => break line,
                    _ => {}
                }
            };
            let mut bytes = vec![0; line.trim().rsplit_once(' ').unwrap().1.parse::<usize>().unwrap() + 2];
            self.0.read_exact(&mut bytes).unwrap();
            match serde_json::from_slice(&bytes) {
                Ok(answer) => return answer,
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        panic!("JetStream does not answer");
    }

    /// Makes the stream `FARM`, with these words more.
    pub fn stream(&mut self, more: &[(&str, Value)]) {
        let mut config = json!({ "name": "FARM", "subjects": ["fivefold.>"], "storage": "file" });
        config.as_object_mut().unwrap().extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let answer = self.ask("STREAM.CREATE.FARM", &config);
        assert!(answer["error"].is_null(), "{answer}");
    }

    /// Messages that the stream keeps.
    pub fn count(&mut self) -> u64 {
        self.ask("STREAM.INFO.FARM", &Value::Null)["state"]["messages"].as_u64().unwrap_or(0)
    }

    /// What the stream keeps from this one on, as subject, headers and message. The first is 1.
    pub fn messages(&mut self, from: u64) -> Vec<(String, String, Value)> {
        (from..=self.count())
            .map(|n| {
                let message = self.ask("STREAM.MSG.GET.FARM", &json!({ "seq": n }))["message"].take();
                let of = |key: &str| STANDARD.decode(message[key].as_str().unwrap()).unwrap();
                let headers = String::from_utf8(of("hdrs")).unwrap();
                let subject = message["subject"].as_str().unwrap().to_owned();
                (subject, headers, serde_json::from_slice(&of("data")).unwrap())
            })
            .collect()
    }
}

/// An InfluxDB, and these words more in the part `http` of its settings.
pub fn influxd(folder: &Path, port: u16, http: &str) -> Server {
    let (file, at) = (folder.join("influxdb.conf"), folder.join("influx"));
    let at = at.display();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let words = format!(
        "reporting-disabled = true\nbind-address = \"{other}\"\n[meta]\ndir = \"{at}/meta\"\n[data]\ndir = \"{at}/data\"\n\
         wal-dir = \"{at}/wal\"\n[monitor]\nstore-enabled = false\n[http]\nbind-address = \"127.0.0.1:{port}\"\n\
         log-enabled = false\n{http}"
    );
    std::fs::write(&file, words).unwrap();
    start("/usr/bin/influxd", &[Path::new("-config"), &file], port)
}

/// InfluxDB's answer to a query of the database `farm`; null where there is none.
pub fn query(port: u16, query: &str) -> Value {
    let query: String = query.bytes().map(|b| format!("%{b:02X}")).collect();
    let ask = || {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
        // By HTTP/1.0, which has no chunks.
        write!(socket, "POST /query?db=farm&epoch=ns&q={query} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    };
    ask().unwrap_or_default()
}

/// Values of the first column beside the time.
pub fn column(port: u16, text: &str) -> Vec<Value> {
    let answer = query(port, text);
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.into_iter().map(|row| row[1].clone()).collect()
}
