//! The reader of a copy of the databases, elsewhere and later: looking for keys in every form, and trying everything in the
//! copy as a key.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rusqlite::Connection;

use super::Report;
use super::plan::{Plan, found};

/// Bytes of a key that opens records or data keys.
const KEY: usize = 32;

/// `database-keys`: looks for any secret of the deployment in the copies, and tries every 32 bytes of them as the key of a
/// sealed record and of the data key itself. Attackers who share the work try a part of them each.
///
/// # Errors
/// A copy cannot be read.
pub fn keys(plan: &Plan) -> anyhow::Result<Report> {
    let secrets: Vec<Vec<u8>> = plan.oracle_secrets.iter().filter_map(|h| hex::decode(h).ok()).collect();
    let needles: Vec<Vec<u8>> = secrets.iter().flat_map(|s| forms(s)).collect();
    let copies = plan.database.iter().map(|path| {
        let copy = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.as_path(), copy))
    });
    let copies = copies.collect::<anyhow::Result<Vec<_>>>()?;
    let bytes: usize = copies.iter().map(|(_, copy)| copy.len()).sum();
    let mut read: u64 = copies.iter().map(|(_, copy)| found(copy, &needles)).sum();
    let locks = locks(&copies)?;
    let mut tried = 0;
    for (_, copy) in &copies {
        let (windows, opened) = windows::<KEY>(part(copy, plan.share), |key| locks.iter().any(|lock| lock.opens(key)));
        tried += windows;
        read += opened;
    }
    let note = format!(
        "searched {bytes} bytes for {} secrets, tried {tried} keys on {} locks; everything sealed stays sealed",
        secrets.len(),
        locks.len()
    );
    Ok(Report { attempts: needles.len() as u64 + tried, read, note, ..Report::default() })
}

/// Looks for the secrets of the plan in the copies, in every form, and tries nothing.
///
/// # Errors
/// A copy cannot be read.
pub fn copies_of_secrets(plan: &Plan) -> anyhow::Result<Report> {
    let secrets = plan.oracle_secrets.iter().filter_map(|h| hex::decode(h).ok());
    let needles: Vec<Vec<u8>> = secrets.flat_map(|s| forms(&s)).collect();
    let mut read = 0;
    for path in &plan.database {
        let copy = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        read += found(&copy, &needles);
    }
    Ok(Report {
        attempts: needles.len() as u64,
        read,
        note: format!("searched {} copies", plan.database.len()),
        ..Report::default()
    })
}

/// The part of a copy in which this attacker tries keys, with those that reach over its end.
fn part(copy: &[u8], share: Option<(usize, usize)>) -> &[u8] {
    let Some((i, n)) = share.filter(|(i, n)| i < n) else { return copy };
    let end = (copy.len() * (i + 1) / n + KEY - 1).min(copy.len());
    copy.get(copy.len() * i / n..end).unwrap_or_default()
}

/// `database-readings`: looks for readings in the copies.
///
/// # Errors
/// A copy cannot be read.
pub fn readings(plan: &Plan) -> anyhow::Result<Report> {
    let needles = plan.payloads();
    let mut read = 0;
    for file in &plan.database {
        read += found(&std::fs::read(file)?, &needles);
    }
    let note = format!("{read} of {} readings stand in the copy", needles.len());
    Ok(Report { attempts: plan.database.len() as u64, read, note, ..Report::default() })
}

/// How a secret may stand in a text or a file: as it is, in hex, and in base64 wherever it begins in what was encoded.
pub fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = hex::encode(secret);
    let mut all = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    for before in 0..3usize {
        let shifted = [&vec![0; before], secret].concat();
        // The first characters hold bits of what came before, the last ones bits of what follows.
        let (first, last) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
        for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            all.extend(text.get(first..last).map(|t| t.as_bytes().to_vec()));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Tries every `N` bytes of a copy that may be a key. Returns how many there were, and how many fit.
pub fn windows<const N: usize>(copy: &[u8], mut fits: impl FnMut(&[u8; N]) -> bool) -> (u64, u64) {
    let (mut tried, mut fitted) = (0, 0);
    for window in copy.windows(N) {
        let Ok(window) = <&[u8; N]>::try_from(window) else { continue };
        if distinct(window) < N / 2 {
            continue;
        }
        tried += 1;
        fitted += u64::from(fits(window));
    }
    (tried, fitted)
}

/// How many different bytes there are. Of 32 random ones some 30 are; that fewer than 16 are happens once in 10^15 times,
/// and of zeros and texts, of which databases are full, most are.
fn distinct(window: &[u8]) -> usize {
    let mut seen = [0u64; 4];
    for byte in window {
        if let Some(word) = seen.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }
    seen.iter().map(|word| word.count_ones() as usize).sum()
}

/// Something that the right key opens.
struct Lock {
    aad: Vec<u8>,
    nonce: [u8; 12],
    ciphertext: Vec<u8>,
}

impl Lock {
    /// Out of nonce and ciphertext.
    fn new(aad: &[u8], sealed: &[u8]) -> Option<Self> {
        let (nonce, ciphertext) = sealed.split_first_chunk()?;
        Some(Self { aad: aad.to_vec(), nonce: *nonce, ciphertext: ciphertext.to_vec() })
    }

    /// Out of a sealed record: magic and id of the key come first.
    fn of_record(name: &str, sealed: &[u8]) -> Option<Self> {
        Self::new(name.as_bytes(), sealed.strip_prefix(b"FVS2").and_then(|s| s.get(8..))?)
    }

    /// The data key in a `vault.toml`.
    fn of_vault(text: &str) -> Option<Self> {
        let form: toml::Table = toml::from_str(text).ok()?;
        let key = form.get("key")?;
        let id = hex::decode(key.get("id")?.as_str()?).ok()?;
        let wrapped = STANDARD.decode(key.get("wrapped")?.as_str()?).ok()?;
        Self::new(&[b"fivefold data key ".as_slice(), &id].concat(), &wrapped)
    }

    fn opens(&self, key: &[u8; KEY]) -> bool {
        let mut text = self.ciphertext.clone();
        let key = UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new);
        key.is_ok_and(|key| {
            key.open_in_place(Nonce::assume_unique_for_key(self.nonce), Aad::from(&self.aad), &mut text).is_ok()
        })
    }
}

/// One lock for each vault and kind: what opens one record of a vault opens them all.
fn locks(copies: &[(&Path, Vec<u8>)]) -> anyhow::Result<Vec<Lock>> {
    let mut locks = Vec::new();
    for (path, copy) in copies {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if copy.starts_with(b"SQLite format 3\0") {
            locks.extend(network_key(path)?);
        } else if copy.starts_with(b"FVS2") {
            locks.extend(Lock::of_record(&name, copy));
        } else if name.ends_with(".toml") {
            locks.extend(Lock::of_vault(&String::from_utf8_lossy(copy)));
        }
    }
    Ok(locks)
}

/// A network key in a copy of the registry; other databases have none. Looking into a database changes it, so a copy of the
/// copy is looked into.
fn network_key(path: &Path) -> anyhow::Result<Option<Lock>> {
    let named = |path: &Path, ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let look = named(path, &format!(".look-{}", std::process::id()));
    for ending in ["", "-wal"].iter().filter(|ending| named(path, ending).exists()) {
        let copied = std::fs::copy(named(path, ending), named(&look, ending));
        copied.with_context(|| format!("cannot copy {}", path.display()))?;
    }
    let row = |r: &rusqlite::Row<'_>| Ok((r.get::<_, u32>(0)?, r.get::<_, u8>(1)?, r.get::<_, Vec<u8>>(2)?));
    let found = Connection::open(&look)
        .and_then(|db| db.query_row("SELECT net, idx, sealed FROM network_keys LIMIT 1", [], row));
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(named(&look, ending));
    }
    Ok(found.ok().and_then(|(net, index, sealed)| Lock::of_record(&format!("network key {net:08x} {index}"), &sealed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form_and_at_every_place_of_base64() {
        let secret: Vec<u8> = (100..132).collect();
        let needles = forms(&secret);
        for before in 0..5 {
            let whole = [&vec![7; before], secret.as_slice(), b"and more"].concat();
            for text in [
                whole.clone(),
                hex::encode(&whole).into_bytes(),
                hex::encode_upper(&whole).into_bytes(),
                STANDARD.encode(&whole).into_bytes(),
                URL_SAFE_NO_PAD.encode(&whole).into_bytes(),
            ] {
                assert!(found(&text, &needles) > 0, "{before}: {}", String::from_utf8_lossy(&text));
            }
        }
        assert_eq!(found(&vec![0; 4096], &needles), 0);
    }

    #[test]
    fn a_key_that_lies_in_a_copy_opens_the_locks_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let [key, other] = [3u8, 4].map(|step| (0..32u8).map(|n| n.wrapping_mul(step) ^ 0x51).collect::<Vec<u8>>());
        let sealed = |name: &str, secret: &[u8]| {
            let mut body = secret.to_vec();
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
            key.seal_in_place_append_tag(Nonce::assume_unique_for_key([9; 12]), Aad::from(name.as_bytes()), &mut body)
                .unwrap();
            [b"FVS2".as_slice(), &[1; 8], &[9; 12], &body].concat()
        };
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a.sealed"), sealed("a.sealed", b"secret")).unwrap();
        for (lying, opened) in [(&other, 0), (&key, 1)] {
            std::fs::write(at("memory"), [&[0; 100], b"..".as_slice(), lying, b".."].concat()).unwrap();
            let plan = Plan { database: vec![at("a.sealed"), at("memory")], ..Plan::default() };
            assert_eq!(keys(&plan).unwrap().read, opened);
        }
    }

    #[test]
    fn who_shares_the_work_leaves_no_key_out() {
        let copy: Vec<u8> = (0..=255u8).cycle().take(1000).collect();
        let of = |bytes: &[u8]| bytes.windows(KEY).map(<[u8]>::to_vec).collect::<Vec<_>>();
        for n in 1..9 {
            let tried: Vec<_> = (0..n).flat_map(|i| of(part(&copy, Some((i, n))))).collect();
            assert_eq!(tried, of(&copy));
        }
    }

    #[test]
    fn the_locks_of_a_real_folder_are_found() {
        use fivefold_core::profile::Profile;
        use fivefold_keep::registry::Registry;
        use fivefold_keep::vault::{VAULT_FILE, Vault};

        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let path = folder.path().join("registry.db");
        Registry::create(&path, fivefold_keep::registry::By::new("test", "here", "test", 1))
            .unwrap()
            .add_network(&vault, "n", Profile::ToCloud, None)
            .unwrap();
        let lock = network_key(&path).unwrap().unwrap();
        let sealed = [b"FVS2".as_slice(), &[0; 8], &lock.nonce, &lock.ciphertext].concat();
        // The name is right: but for the id, this is what the vault sealed.
        let id = hex::decode(vault.key_id().to_string()).unwrap();
        let sealed = [b"FVS2".as_slice(), &id, &sealed[12..]].concat();
        assert!(vault.open(&String::from_utf8(lock.aad).unwrap(), &sealed).is_ok());
        assert!(Lock::of_vault(&std::fs::read_to_string(folder.path().join(VAULT_FILE)).unwrap()).is_some());
    }
}
