//! A real Mosquitto, and a subscriber that it remembers.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::task::JoinHandle;

/// A broker, ended with the test.
pub struct Mosquitto(Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Mosquitto {
    /// With a memory in `folder`, so that who subscribed stays subscribed.
    pub fn start(folder: &Path, port: u16) -> Self {
        Self::with(folder, port, "")
    }

    /// The same, with more in its configuration.
    pub fn with(folder: &Path, port: u16, more: &str) -> Self {
        let file = folder.join("mosquitto.conf");
        let words = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             autosave_interval 1\nautosave_on_changes true\nuser root\n{more}",
            folder.display()
        );
        std::fs::write(&file, words).unwrap();
        let mut command = Command::new("/usr/sbin/mosquitto");
        Self(command.arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// It keeps what it knows.
    pub fn end(mut self) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.0.wait().unwrap();
    }
}

pub type Heard = Arc<Mutex<Vec<(String, serde_json::Value)>>>;

/// A subscriber that the broker remembers. Says when it is subscribed.
pub async fn subscribe(port: u16, filter: &str) -> (Heard, JoinHandle<()>) {
    let mut options = MqttOptions::new("dashboard", ("127.0.0.1", port));
    options.set_clean_session(false);
    let (client, mut events) = AsyncClient::builder(options).capacity(16).build();
    client.try_subscribe(filter, QoS::ExactlyOnce).unwrap();
    let heard = Heard::default();
    let (hears, (subscribed, is_subscribed)) = (heard.clone(), tokio::sync::oneshot::channel());
    let mut subscribed = Some(subscribed);
    let task = tokio::spawn(async move {
        let _client = client;
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::Publish(p))) => {
                    let message = serde_json::from_slice(&p.payload).unwrap();
                    hears.lock().unwrap().push((String::from_utf8(p.topic.to_vec()).unwrap(), message));
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    subscribed.take().map(|s| s.send(()));
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(60), is_subscribed).await.unwrap().unwrap();
    (heard, task)
}
