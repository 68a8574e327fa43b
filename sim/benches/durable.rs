//! The gateway's durable write (W5) on its own: for each message that was opened under C2, its number with its hash and its
//! envelope, in the gateway's store, beside the same rows in a bare SQLite file with the same settings.
//!
//! `cargo bench -p fivefold-sim --bench durable -- SECONDS`: so long for each line. The gateway's daemon commits what came
//! while the last commit ran, up to 64 events at a time; alone, each message pays for a commit of its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::seconds;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::suite::CiphertextHash;
use fivefold_gateway::gateway::{ContextName, Record};
use fivefold_gateway::spool::{Spool, Wrap, WrapError};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use rusqlite::{Connection, params};
use zeroize::Zeroizing;

/// Bytes of an envelope around a message of 40 bytes.
const ENVELOPE: usize = 110;

/// No state is written here.
struct Open;

impl Wrap for Open {
    fn wrap(&self, _: &str, plain: &[u8]) -> Result<Vec<u8>, WrapError> {
        Ok(plain.to_vec())
    }

    fn unwrap(&self, _: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        Ok(Zeroizing::new(sealed.to_vec()))
    }
}

/// Messages of devices in random order, with the number that each is at.
struct Messages {
    random: ChaCha8Rng,
    numbers: Vec<u32>,
    seq: u64,
}

impl Messages {
    fn new(devices: usize) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(3), numbers: vec![0; devices], seq: 0 }
    }

    fn next(&mut self) -> (ContextName, u32, [u8; 16], u64) {
        let at = self.random.next_u32() as usize % self.numbers.len();
        self.numbers[at] += 1;
        self.seq += 1;
        let mut hash = [0; 16];
        self.random.fill_bytes(&mut hash);
        // Names are hashes: neighbours in one are not neighbours in the other.
        let name = (at as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (ContextName(name.to_be_bytes()), self.numbers[at], hash, self.seq)
    }
}

/// Messages a second, by transactions of `group`, for a while.
fn rate(duration: Duration, group: usize, mut write: impl FnMut(usize)) -> f64 {
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < duration {
        write(group);
        count += group;
    }
    count as f64 / started.elapsed().as_secs_f64()
}

fn spool(path: &Path, devices: usize, group: usize, duration: Duration) -> f64 {
    let (mut spool, _) = Spool::open(path, GatewayBoot([1; 8]), Box::new(Open)).unwrap();
    let mut messages = Messages::new(devices);
    rate(duration, group, |group| {
        for _ in 0..group {
            let (context, number, hash, seq) = messages.next();
            spool.write(&Record::Accepted { context, number, hash: CiphertextHash(hash) }).unwrap();
            spool.write(&Record::Envelope { seq, bytes: vec![0x42; ENVELOPE].into() }).unwrap();
        }
        spool.commit().unwrap();
    })
}

fn bare(path: &Path, devices: usize, group: usize, duration: Duration) -> f64 {
    let mut db = Connection::open(path).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.pragma_update(None, "synchronous", "FULL").unwrap();
    db.execute_batch(
        "CREATE TABLE spool (seq INTEGER PRIMARY KEY AUTOINCREMENT, boot BLOB NOT NULL, bytes BLOB NOT NULL);
         CREATE TABLE numbers (context BLOB NOT NULL, slot INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL,
                               PRIMARY KEY (context, slot)) WITHOUT ROWID;",
    )
    .unwrap();
    let mut messages = Messages::new(devices);
    rate(duration, group, |group| {
        let tx = db.transaction().unwrap();
        for _ in 0..group {
            let (context, number, hash, seq) = messages.next();
            tx.prepare_cached("INSERT OR REPLACE INTO numbers VALUES (?1, ?2, ?3, ?4)")
                .unwrap()
                .execute(params![context.0, number % 64, number, hash])
                .unwrap();
            tx.prepare_cached("INSERT INTO spool VALUES (?1, ?2, ?3)")
                .unwrap()
                .execute(params![seq as i64, [1u8; 8], vec![0x42u8; ENVELOPE]])
                .unwrap();
        }
        tx.commit().unwrap();
    })
}

fn main() {
    let duration = Duration::from_secs_f64(seconds(1.0));
    let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    println!("devices   messages a commit   messages/s   us each   bare messages/s   ratio");
    for devices in [1_000, 100_000] {
        for group in [1, 64] {
            let name = |what| folder.path().join(format!("{what}-{devices}-{group}.db"));
            let bare = bare(&name("bare"), devices, group, duration);
            let ours = spool(&name("spool"), devices, group, duration);
            println!(
                "{devices:>7}   {group:>17}   {ours:>10.0}   {:>7.1}   {bare:>15.0}   {:>5.2}",
                1e6 / ours,
                ours / bare
            );
        }
    }
}
