//! A real Mosquitto, and its own clients in the place of a network server.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Looks until there is something, for as long as a machine that has much else to do may take.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("never {what}");
}

/// A program of Debian's packages mosquitto and mosquitto-clients.
fn program(name: &str) -> Command {
    let sbin = Path::new("/usr/sbin").join(name);
    Command::new(if sbin.exists() { sbin } else { PathBuf::from(name) })
}

/// TLS of a broker, as files: the CA, and the broker's own certificate and key.
pub struct Tls {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A broker on loopback. It remembers sessions over a restart, as one in the field does.
pub struct Mosquitto {
    folder: PathBuf,
    pub port: u16,
    clients: Vec<String>,
    child: Option<Child>,
}

impl Mosquitto {
    pub fn start(folder: &Path) -> Self {
        Self::with(folder, None, None)
    }

    /// With TLS, a user and its password, if that is wanted.
    pub fn with(folder: &Path, tls: Option<&Tls>, login: Option<(&str, &str)>) -> Self {
        let folder = folder.join("mosquitto");
        fs::create_dir_all(&folder).unwrap();
        let port = crate::deployment::free_tcp().port();
        let mut conf = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {}/\nautosave_interval 1\n\
             autosave_on_changes true\nmessage_size_limit 65536\n",
            folder.display()
        );
        let mut clients = vec!["-h".into(), "localhost".into(), "-p".into(), port.to_string()];
        if let Some(Tls { ca, certificate, key }) = tls {
            conf += &format!("certfile {}\nkeyfile {}\n", certificate.display(), key.display());
            clients.extend(["--cafile".into(), ca.display().to_string()]);
        }
        match login {
            Some((user, password)) => {
                let file = folder.join("passwords");
                let made = program("mosquitto_passwd").args(["-b", "-c"]).arg(&file).args([user, password]).status();
                assert!(made.unwrap().success());
                conf += &format!("password_file {}\n", file.display());
                clients.extend(["-u", user, "-P", password].map(str::to_owned));
            }
            None => conf += "allow_anonymous true\n",
        }
        fs::write(folder.join("mosquitto.conf"), conf).unwrap();
        let mut broker = Self { folder, port, clients, child: None };
        broker.restart();
        broker
    }

    /// Ends it as a system does that is shut down.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            child.wait().unwrap();
        }
    }

    pub fn restart(&mut self) {
        self.stop();
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let conf = self.folder.join("mosquitto.conf");
        let run = program("mosquitto").arg("-c").arg(conf).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(run.expect("Debian's package mosquitto"));
        until("a broker that listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// Publishes at least once.
    #[track_caller]
    pub fn publish(&self, topic: &str, message: &[u8]) {
        let mut client = program("mosquitto_pub");
        let how = if message.is_empty() { "-n" } else { "-s" };
        client.args(&self.clients).args(["-q", "1", "-t", topic, how]).stdin(Stdio::piped());
        let mut child = client.spawn().expect("Debian's package mosquitto-clients");
        let _ = child.stdin.take().unwrap().write_all(message);
        assert!(child.wait().unwrap().success());
    }

    /// Hears everything under a topic filter from now on.
    pub fn hear(&self, filter: &str) -> Ear {
        let mut client = program("mosquitto_sub");
        client.args(&self.clients).args(["-q", "1", "-v", "-t", filter, "-t", "ear/ready"]).stdout(Stdio::piped());
        let mut child = client.spawn().unwrap();
        let (say, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        let ear = Ear { child, lines };
        until("an ear that hears", || {
            self.publish("ear/ready", b"?");
            ear.lines.try_recv().ok()
        });
        ear
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A client that listens.
pub struct Ear {
    child: Child,
    lines: Receiver<String>,
}

impl Ear {
    /// The next message: topic and text. `log` tells what is known when none comes.
    #[track_caller]
    pub fn next(&self, log: impl Fn() -> String) -> (String, String) {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(120));
            let line = line.unwrap_or_else(|_| panic!("no message comes: {}", log()));
            let (topic, text) = line.split_once(' ').unwrap();
            if topic != "ear/ready" {
                return (topic.into(), text.into());
            }
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
