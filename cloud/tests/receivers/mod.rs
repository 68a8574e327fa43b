//! Sinks at real servers that keep what they were sent: InfluxDB, a folder of Parquet files, JetStream.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::sync::Mutex;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Value, json};

use crate::Receiver;
use crate::servers::{Jetstream, Server, influxd, nats, query};
use crate::sinks::free_port;

pub struct Database {
    folder: tempfile::TempDir,
    port: u16,
    running: Option<Server>,
    /// What makes it refuse long readings; nothing, once it is mended.
    limit: &'static str,
    seen: Mutex<Vec<Value>>,
}

impl Database {
    pub fn new() -> Self {
        let (folder, seen) = (tempfile::tempdir().unwrap(), Mutex::default());
        // A point of a number has fewer bytes, and one of a long text more.
        Self { folder, port: free_port(), running: None, limit: "max-body-size = 340\n", seen }
    }
}

impl Receiver for Database {
    fn words(&self) -> (String, Option<&'static [u8]>) {
        (format!("influx = \"http://127.0.0.1:{}\"\ndatabase = \"farm\"\n", self.port), None)
    }

    async fn start(&mut self) {
        self.running = Some(influxd(self.folder.path(), self.port, self.limit));
        query(self.port, "CREATE DATABASE farm");
    }

    async fn kill(&mut self) {
        self.running = None;
    }

    fn mend(&mut self) {
        self.limit = "";
    }

    /// A database has no events and no order of its own: what it has now is compared with what it had when it was looked at
    /// before, and what came in between is taken in the order of numbers. So this shows that all comes, and that nothing comes
    /// behind what was seen before it; in which order a batch is written, the database says nowhere.
    fn has(&self) -> Vec<Value> {
        let mut seen = self.seen.lock().unwrap();
        let answer = query(self.port, "SELECT id, device, proof FROM fivefold GROUP BY \"name\"");
        let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
        let mut came = Vec::new();
        for row in rows {
            let [id, device, proof] = [1, 2, 3].map(|at| row[at].as_str().unwrap());
            if !seen.iter().any(|v| v["id"] == id && v["proof"] == proof) {
                let about = if proof == "signed" { "label" } else { "reading" };
                // NET-DEVICE-LEVEL-EPOCH-BOOT-NUMBER-HASH.
                let number: u64 = id.split('-').nth(5).unwrap().parse().unwrap();
                came.push(json!({ "about": about, "id": id, "device": device, "proof": proof, "number": number }));
            }
        }
        came.sort_by_key(|v| v["number"].as_u64());
        seen.append(&mut came);
        seen.clone()
    }
}

pub struct Stream {
    folder: tempfile::TempDir,
    port: u16,
    running: Option<Server>,
    /// The same.
    limit: &'static str,
    seen: Mutex<Vec<Value>>,
}

impl Stream {
    pub fn new() -> Self {
        let (folder, seen) = (tempfile::tempdir().unwrap(), Mutex::default());
        Self { folder, port: free_port(), running: None, limit: "max_payload: 1200\n", seen }
    }
}

impl Receiver for Stream {
    fn words(&self) -> (String, Option<&'static [u8]>) {
        (format!("nats = \"nats://127.0.0.1:{}\"\nstream = \"FARM\"\n", self.port), None)
    }

    async fn start(&mut self) {
        let is_first = self.running.is_none() && self.seen.lock().unwrap().is_empty();
        self.running = Some(nats(self.folder.path(), self.port, self.limit));
        if is_first {
            Jetstream::connect(self.port).stream(&[]);
        }
    }

    async fn kill(&mut self) {
        self.running = None;
    }

    fn mend(&mut self) {
        self.limit = "";
    }

    fn has(&self) -> Vec<Value> {
        let mut seen = self.seen.lock().unwrap();
        if self.running.is_some() {
            let from = seen.len() as u64 + 1;
            seen.extend(Jetstream::connect(self.port).messages(from).into_iter().map(|(_, _, message)| message));
        }
        seen.clone()
    }
}

/// A folder that is mounted, or is not.
pub struct Lake {
    folder: tempfile::TempDir,
}

impl Lake {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("away")).unwrap();
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Receiver for Lake {
    const REFUSES: bool = false;

    fn words(&self) -> (String, Option<&'static [u8]>) {
        (format!("parquet = {:?}\nreadings = 100\nevery_s = 60\n", self.at("here")), None)
    }

    async fn start(&mut self) {
        std::fs::rename(self.at("away"), self.at("here")).unwrap();
    }

    async fn kill(&mut self) {
        std::fs::rename(self.at("here"), self.at("away")).unwrap();
    }

    fn mend(&mut self) {}

    /// All rows, in the order in which their files were written: a folder has no other.
    fn has(&self) -> Vec<Value> {
        let inside =
            |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        let days = ["here", "away"].into_iter().flat_map(|name| inside(self.at(name)));
        let is_whole = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().starts_with("part-");
        let mut files: Vec<_> = days.flat_map(inside).filter(is_whole).collect();
        files.sort_by_key(|file| file.metadata().unwrap().modified().unwrap());
        let rows = files.into_iter().flat_map(|file| {
            let reader = SerializedFileReader::new(std::fs::File::open(file).unwrap()).unwrap();
            reader.get_row_iter(None).unwrap().map(|row| value(&row.unwrap())).collect::<Vec<_>>()
        });
        rows.collect()
    }
}

fn value(row: &Row) -> Value {
    let of = |field: &Field| match field {
        Field::Str(text) => json!(text),
        Field::ULong(n) => json!(n),
        _ => Value::Null,
    };
    Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), of(field))).collect::<Map<_, _>>())
}
