//! An operator's folder that a Meshlium's past goes into.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fivefold_keep::registry::Registry;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

/// An operator's folder with one network for classic devices.
pub struct Farm {
    pub folder: TempDir,
}

impl Farm {
    pub fn new() -> Self {
        let farm = Self::bare();
        let dir = farm.at("farm");
        farm.answer(0, &["init", &dir]);
        farm.network("yard");
        farm
    }

    /// Without anything in it.
    pub fn bare() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn network(&self, name: &str) {
        self.answer(0, &["network", "add", name]);
        let mut registry = Registry::open(
            &self.folder.path().join("farm/registry.db"),
            fivefold_keep::registry::By::new("test", "here", "test", 1),
        )
        .unwrap();
        registry.allow_classic(name).unwrap();
    }

    pub fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn dump(&self, text: impl AsRef<[u8]>) -> String {
        let path = self.at("DUMP.sql");
        fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
        command.args(["-o", "json"]).args(words).env("FIVEFOLD_DIR", self.at("farm"));
        command
    }

    #[track_caller]
    pub fn answer(&self, code: i32, words: &[&str]) -> Value {
        let done = self.command(words).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{words:?}: {said}{}", String::from_utf8_lossy(&done.stdout));
        serde_json::from_slice(if code == 2 { &done.stderr } else { &done.stdout }).unwrap()
    }

    pub fn import<'w>(&self, dump: &'w str) -> [&'w str; 5] {
        ["import", "meshlium", "--net", "yard", dump]
    }

    pub fn store(&self) -> Connection {
        let store = self.at("farm/cloud/readings.db");
        assert!(PathBuf::from(&store).exists(), "no {store}");
        Connection::open(store).unwrap()
    }

    pub fn count(&self, sql: &str) -> usize {
        self.store().query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap() as usize
    }
}
