//! Other people's configuration: read or refused, and what is said of it is short, names lines that are there, and holds
//! nothing that a terminal obeys. The first byte says whose it is; a zero byte begins another file, which includes can name.
#![no_main]

// The parsers alone, without the crate that they stand in.
#[allow(dead_code, unused_imports, reason = "what findings are made of is the crate's")]
#[path = "../../audit/src/foreign/mod.rs"]
mod foreign;
#[allow(dead_code, reason = "the same")]
#[path = "../../audit/src/known.rs"]
mod known;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use foreign::{Files, MOST_SEEN, System, Unread, examine};
use libfuzzer_sys::fuzz_target;

/// What is said of files without a fault is the crate's, with its rules.
impl System {
    const fn rules(self) -> &'static [&'static str] {
        &[]
    }
}

const SYSTEMS: [System; 5] = [System::Chirpstack, System::Mosquitto, System::PgHba, System::Sshd, System::Unit];

/// The parts of the input as files `/0.conf`, `/1.conf` and so on; each is every folder's.
struct Parts<'b>(Vec<&'b [u8]>);

impl Files for Parts<'_> {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, Unread> {
        let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
        let at: usize = name.parse().map_err(|_| Unread::Missing)?;
        self.0.get(at).map(|part| part.to_vec()).ok_or(Unread::Missing)
    }

    fn list(&mut self, folder: &Path) -> Result<Vec<PathBuf>, Unread> {
        Ok((0..self.0.len()).map(|at| folder.join(format!("{at}.conf"))).collect())
    }

    fn mode(&mut self, _: &Path) -> Option<u32> {
        Some(0o644)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let system = SYSTEMS[usize::from(*first) % SYSTEMS.len()];
    let mut parts = Parts(rest.split(|b| *b == 0).take(16).collect());
    let lines = parts.0.iter().map(|part| part.iter().filter(|b| **b == b'\n').count() + 1).max().unwrap_or(1);
    match examine(system, Path::new("/0.conf"), &mut parts) {
        Ok(notes) => {
            assert!(notes.left().iter().all(|left| !left.chars().any(char::is_control)), "{notes:?}");
            let mut listed = BTreeMap::<&str, usize>::new();
            for one in notes.into_vec() {
                let of_its_rule = listed.entry(one.rule).or_default();
                *of_its_rule += 1;
                assert!(*of_its_rule <= MOST_SEEN, "{one:?}");
                assert!(one.line <= lines, "{one:?}");
                assert!(!one.what.chars().any(char::is_control) && one.what.len() < 2000, "{one:?}");
            }
        }
        Err(why) => assert!(!why.to_string().chars().any(char::is_control), "{why:?}"),
    }
});
