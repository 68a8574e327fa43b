use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rusqlite::Connection;

use super::*;
use crate::ca::Authority;
use crate::files::Readers;
use crate::share::CA_FILE;
use crate::vault::{PASSPHRASE_FILE, Rekey, Vault};

/// A folder with a vault, a database and files, and a set beside it.
struct Site {
    all: tempfile::TempDir,
    plan: Plan,
}

fn database(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.pragma_update(None, "synchronous", "OFF").unwrap();
    db.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, bytes BLOB)").unwrap();
    db
}

fn write_file(path: &Path, text: &str) {
    files::write(path, Readers::Owner, text.as_bytes()).unwrap();
}

use crate::files;

impl Site {
    fn new() -> Self {
        let site = Self::empty();
        site.grow(3_000);
        site
    }

    fn empty() -> Self {
        let all = tempfile::tempdir().unwrap();
        let site = all.path().join("site");
        fs::create_dir_all(site.join("cloud/log/own")).unwrap();
        drop(Vault::create(&site).unwrap());
        let (authority, _) = Authority::create("farm").unwrap();
        files::write(&site.join(CA_FILE), Readers::Everybody, authority.certificate().as_bytes()).unwrap();
        write_file(&site.join("cloud/cloud.toml"), "a = 1\n");
        write_file(&site.join("cloud/log/own/signed"), "head 1");
        write_file(&site.join("cloud/log/own/journal"), "entry 1");
        drop(database(&site.join("cloud/store.db")));
        let plan = Plan {
            databases: vec!["cloud/store.db".into()],
            first: Vec::new(),
            pair: Some(("cloud/log/own/signed".into(), "cloud/log/own/journal".into())),
            counts: vec![("upto", "cloud/store.db".into(), "SELECT coalesce(max(id), 0) FROM t")],
        };
        Self { all, plan }
    }

    fn at(&self, part: &str) -> PathBuf {
        self.all.path().join(part)
    }

    fn grow(&self, rows: usize) {
        let mut db = database(&self.at("site/cloud/store.db"));
        let tx = db.transaction().unwrap();
        for _ in 0..rows {
            tx.execute("INSERT INTO t (bytes) VALUES (randomblob(900))", []).unwrap();
        }
        tx.commit().unwrap();
    }

    fn rows(&self, part: &str) -> Vec<(i64, Vec<u8>)> {
        let db = Connection::open(self.at(part)).unwrap();
        let mut query = db.prepare("SELECT id, bytes FROM t ORDER BY id").unwrap();
        query.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(|row| row.unwrap()).collect()
    }

    fn job<'a>(&'a self, folder: &'a Path, to: &'a Path) -> Job<'a> {
        Job { folder, passphrase_file: None, to, recovery: None, of: "cloud", plan: &self.plan, at: 1_790_000_000 }
    }

    fn back_up(&self) -> super::Result<Written> {
        write(&self.job(&self.at("site"), &self.at("set")))
    }

    fn open(&self, upto: Option<u32>) -> super::Result<Set> {
        Set::open(&self.at("set"), upto, Opening::Folder(&self.at("site"), None))
    }

    fn checked(&self) -> super::Result<Checked> {
        self.open(None)?.check()
    }

    fn file(&self, number: u32) -> PathBuf {
        self.at(&format!("set/{number:04}.ffb"))
    }
}

/// A set of the first format (vectors/formats/backup-1), and the passphrases that open it.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/formats/backup-1");

#[test]
#[ignore = "makes the fixture of a format, once"]
fn makes_the_fixture() {
    let (site, to) = (Site::empty(), Path::new(FIXTURE));
    assert!(!to.exists(), "what a program of its time wrote is not made again by a later one");
    let db = database(&site.at("site/cloud/store.db"));
    let job = |recovery| write(&Job { recovery, ..site.job(&site.at("site"), to) }).unwrap();
    let put = |byte: u8| assert_eq!(db.execute("INSERT INTO t (bytes) VALUES (?)", [[byte; 40]]).unwrap(), 1);
    (1..4).for_each(put);
    let recovery = site.at("recovery");
    job(Some(&recovery));
    (4..6).for_each(put);
    write_file(&site.at("site/cloud/cloud.toml"), "a = 2\n");
    write_file(&site.at("site/new"), "n");
    job(Some(&recovery));
    fs::copy(site.at("site").join(PASSPHRASE_FILE), to.join("words")).unwrap();
    fs::copy(recovery, to.join("recovery")).unwrap();
}

#[test]
fn a_set_of_the_first_format_gives_back_what_it_had() {
    let all = tempfile::tempdir().unwrap();
    let at = |part: &str| all.path().join(part);
    fs::create_dir(at("set")).unwrap();
    for file in ["set/0000.ffb", "set/0001.ffb", "words", "recovery"] {
        let bytes = fs::read(Path::new(FIXTURE).join(file.trim_start_matches("set/"))).unwrap();
        files::write(&at(file), Readers::Owner, &bytes).unwrap();
    }
    let (words, recovery) = (at("words"), at("recovery"));
    for (upto, by) in [
        (Some(0), Opening::Envelope(all.path(), Some(&words))),
        (None, Opening::Envelope(all.path(), Some(&words))),
        (None, Opening::Recovery(&recovery)),
    ] {
        let set = Set::open(&at("set"), upto, by).unwrap();
        let (rows, setting, is_last) = if upto.is_some() { (3, "a = 1\n", false) } else { (5, "a = 2\n", true) };
        let head = set.head().unwrap();
        assert_eq!((head.of.as_str(), head.number, head.at), ("cloud", u32::from(is_last), 1_790_000_000));
        assert_eq!(set.check().unwrap().counts, [("upto".to_owned(), rows)]);
        let back = tempfile::tempdir().unwrap();
        let back = back.path().join("back");
        set.unpack(&back).unwrap();
        let db = Connection::open(back.join("cloud/store.db")).unwrap();
        let mut query = db.prepare("SELECT bytes FROM t ORDER BY id").unwrap();
        let found: Vec<[u8; 40]> = query.query_map([], |r| r.get(0)).unwrap().map(|row| row.unwrap()).collect();
        assert_eq!(found, (1..=rows as u8).map(|byte| [byte; 40]).collect::<Vec<_>>());
        assert_eq!((text(&back.join("cloud/cloud.toml")).as_str(), back.join("new").exists()), (setting, is_last));
        assert_eq!(text(&back.join("cloud/log/own/journal")), "entry 1");
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_set_gives_back_what_the_folder_had_at_each_of_its_files_and_increments_are_small() {
    let site = Site::new();
    // Of another party, of processes, and what opens the vault.
    fs::create_dir_all(site.at("site/gateways/north")).unwrap();
    for (path, bytes) in [
        ("gateways/north/vault.toml", "x"),
        ("gateways/north/key", "theirs"),
        ("cloud/store.db.closed", "1 2 3"),
        ("cloud/store.db.lock", ""),
    ] {
        write_file(&site.at("site").join(path), bytes);
    }
    fs::set_permissions(site.at("site/cloud/cloud.toml"), fs::Permissions::from_mode(0o640)).unwrap();
    let full = site.back_up().unwrap();
    let first = site.rows("site/cloud/store.db");
    assert_eq!((full.head.number, full.checked.counts.as_slice()), (0, &[("upto".to_owned(), 3_000)][..]));
    assert!(full.bytes > 3_000_000, "{}", full.bytes);

    site.grow(30);
    database(&site.at("site/cloud/store.db")).execute_batch("UPDATE t SET bytes = x'01' WHERE id = 7").unwrap();
    write_file(&site.at("site/cloud/cloud.toml"), "a = 2\n");
    write_file(&site.at("site/new"), "n");
    let second = site.rows("site/cloud/store.db");
    let increment = site.back_up().unwrap();
    assert_eq!((increment.head.number, increment.head.set == full.head.set), (1, true));
    assert!(increment.bytes < full.bytes / 20, "{} of {}", increment.bytes, full.bytes);

    database(&site.at("site/cloud/store.db")).execute_batch("DELETE FROM t WHERE id > 100; VACUUM").unwrap();
    fs::remove_file(site.at("site/new")).unwrap();
    let third = site.rows("site/cloud/store.db");
    site.back_up().unwrap();
    let nothing = site.back_up().unwrap();
    assert_eq!(nothing.pages, 0, "nothing has changed");

    assert_eq!(site.checked().unwrap().pages, nothing.checked.pages);
    for (upto, rows, setting, new) in
        [(0, &first, "a = 1\n", false), (1, &second, "a = 2\n", true), (3, &third, "a = 2\n", false)]
    {
        let back = site.at(&format!("back-{upto}"));
        let set = site.open(Some(upto)).unwrap();
        set.check().unwrap();
        set.unpack(&back).unwrap();
        assert_eq!(&site.rows(&format!("back-{upto}/cloud/store.db")), rows, "{upto}");
        assert_eq!(text(&back.join("cloud/cloud.toml")), setting);
        assert_eq!((back.join("new").exists(), text(&back.join("cloud/log/own/journal")).as_str()), (new, "entry 1"));
        for not in ["gateways", PASSPHRASE_FILE, "cloud/store.db.closed", "cloud/store.db.lock"] {
            assert!(!back.join(not).exists(), "{not}");
        }
        let mode = fs::metadata(back.join("cloud/log/own/signed")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        fs::copy(site.at("site").join(PASSPHRASE_FILE), back.join(PASSPHRASE_FILE)).unwrap();
        Vault::open_folder(&back).unwrap();
    }
    assert_eq!(parties_in(&site.at("site")).unwrap(), ["gateways/north"]);
    // Nothing of it can be read without the key.
    let sealed = fs::read(site.file(0)).unwrap();
    assert!(!sealed.windows(7).any(|w| w == b"entry 1") && !sealed.windows(15).any(|w| w == &pages::SQLITE[..15]));
}

#[test]
fn what_was_altered_or_cut_is_named_by_its_frame_and_nothing_is_put_back() {
    let site = Site::new();
    site.back_up().unwrap();
    site.grow(10);
    site.back_up().unwrap();
    let good = fs::read(site.file(0)).unwrap();
    let start = Head::read(&site.file(0)).unwrap().2.len();
    let frame = (1 << 20) + 16;
    let frames = (good.len() - start).div_ceil(frame);
    assert!(frames >= 3);
    let set = site.open(None).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(site.file(0), bytes).unwrap();
        let error = set.check().unwrap_err();
        fs::write(site.file(0), &good).unwrap();
        error.to_string()
    };
    for n in 0..frames {
        for at in [0, frame / 2, frame - 1].map(|at| (start + n * frame + at).min(good.len() - 1)) {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let error = refused(&bytes);
            assert!(
                error.starts_with(&format!("frame {n} of ")) && error.ends_with("0000.ffb was changed or cut"),
                "{error}"
            );
        }
    }
    // Cut behind each frame, in the middle of one, and down to the head.
    for n in 0..=frames {
        for len in [start + n * frame, start + n * frame + 9, start + n * frame + frame / 2] {
            if len < good.len() {
                let error = refused(&good[..len]);
                assert!(error.contains(" was changed or cut"), "{len}: {error}");
            }
        }
    }
    // Two frames that changed places.
    let mut bytes = good.clone();
    let (one, two) = bytes[start..].split_at_mut(frame);
    one.swap_with_slice(&mut two[..frame]);
    assert!(refused(&bytes).starts_with("frame 0 of "), "swapped");
    // The head: what it says is bound to each frame, too.
    for at in (0..start).step_by(41) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(site.file(0), &bytes).unwrap();
        assert!(site.open(None).and_then(|set| set.check()).is_err(), "byte {at} of the head");
    }
    fs::write(site.file(0), &good).unwrap();
    drop(set);
    for len in 0..start {
        fs::write(site.file(0), &good[..len]).unwrap();
        assert!(site.open(None).is_err(), "cut at {len}");
    }
    fs::write(site.file(0), &good).unwrap();
    // An increment that is broken leaves what is before it.
    let increment = fs::read(site.file(1)).unwrap();
    fs::write(site.file(1), &increment[..increment.len() - 1]).unwrap();
    let error = site.checked().unwrap_err().to_string();
    assert!(error.contains("0001.ffb was changed or cut; what was backed up before it is whole: --upto 0"), "{error}");
    site.open(Some(0)).unwrap().check().unwrap();
}

#[test]
fn a_set_with_a_gap_a_stranger_in_it_or_a_newer_format_is_refused_in_one_sentence() {
    let site = Site::empty();
    for rows in [5, 5, 5] {
        site.grow(rows);
        site.back_up().unwrap();
    }
    let says = |words: &str| {
        for error in [site.checked().unwrap_err(), site.back_up().unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains(words) && !error.contains('\n'), "{error}");
        }
    };
    let (first, second) = (fs::read(site.file(0)).unwrap(), fs::read(site.file(1)).unwrap());
    fs::remove_file(site.file(1)).unwrap();
    says(
        "lacks 0001.ffb, without which nothing after it can be restored: bring it back, or restore what is before it: --upto 0",
    );
    assert!(site.open(Some(0)).is_ok() && matches!(site.open(Some(2)), Err(BackupError::Missing { number: 1, .. })));
    fs::write(site.file(1), &second).unwrap();
    fs::remove_file(site.file(0)).unwrap();
    says("lacks 0000.ffb");
    // Of another set of the same folder.
    let other = site.at("other");
    let folder = site.at("site");
    write(&site.job(&folder, &other)).unwrap();
    fs::copy(other.join("0000.ffb"), site.file(0)).unwrap();
    says("0001.ffb does not go on from the file before it");
    fs::write(site.file(0), &first).unwrap();
    assert!(matches!(site.open(Some(9)), Err(BackupError::Upto { last: 2, asked: 9, .. })));

    let mut newer = second.clone();
    newer[5] = 2;
    fs::write(site.file(1), &newer).unwrap();
    says("0001.ffb has format 2, this program knows 1; use the newer program");
    fs::write(site.file(1), &second).unwrap();
    site.checked().unwrap();
    assert!(matches!(
        Set::open(&site.at("site"), None, Opening::Folder(&folder, None)),
        Err(BackupError::NoSet { .. })
    ));
}

#[test]
fn another_deployment_another_key_and_a_wrong_passphrase_are_told_apart() {
    let (site, other) = (Site::empty(), Site::empty());
    site.back_up().unwrap();
    let (theirs, set) = (other.at("site"), site.at("set"));
    let error = write(&other.job(&theirs, &set)).unwrap_err().to_string();
    assert!(
        error.contains("0000.ffb is a backup of cloud of the CA ") && error.ends_with("name another folder"),
        "{error}"
    );
    let error = Set::open(&set, None, Opening::Folder(&theirs, None)).unwrap().check().unwrap_err();
    assert!(matches!(error, BackupError::OtherVault { .. }), "{error}");
    let opened = site.open(None).unwrap();
    assert!(opened.check_deployment(&site.at("site")).is_ok());
    assert!(opened.check_deployment(&theirs).unwrap_err().to_string().contains("the deployment of the CA "));
    drop(opened);
    // Of one party's folder, into another's set.
    let folder = site.at("site");
    let mut job = site.job(&folder, &set);
    job.of = "gateway north";
    assert!(matches!(write(&job), Err(BackupError::Other { .. })));

    // By the envelope in the set, where the folder is gone.
    let nowhere = site.at("nowhere");
    let passphrase = site.at("site").join(PASSPHRASE_FILE);
    Set::open(&set, None, Opening::Envelope(&nowhere, Some(&passphrase))).unwrap().check().unwrap();
    let wrong = theirs.join(PASSPHRASE_FILE);
    let error = Set::open(&set, None, Opening::Envelope(&nowhere, Some(&wrong))).unwrap_err().to_string();
    assert!(error.contains("does not open"), "{error}");
    let error = Set::open(&set, None, Opening::Recovery(&passphrase)).unwrap_err().to_string();
    assert!(error.contains("was written without --recovery-file"), "{error}");

    // A recovery passphrase is drawn once, and is good for what follows.
    let recovery = site.at("recovery");
    let mut job = site.job(&folder, &set);
    job.recovery = Some(&recovery);
    write(&job).unwrap();
    site.back_up().unwrap();
    let opened = Set::open(&set, None, Opening::Recovery(&recovery)).unwrap();
    opened.check().unwrap();
    let back = site.at("back");
    opened.unpack(&back).unwrap();
    opened.put_recovery_envelope(&back).unwrap();
    fs::copy(&recovery, back.join(PASSPHRASE_FILE)).unwrap();
    let sealed = Vault::open_folder(&folder).unwrap().seal("a", b"secret").unwrap();
    assert_eq!(Vault::open_folder(&back).unwrap().open("a", &sealed).unwrap().as_slice(), b"secret");
    drop(opened);
    assert!(Set::open(&set, None, Opening::Recovery(&passphrase)).is_err(), "the other one is none");

    // While there are two data keys, nothing is written: what opens the last file would not open the first.
    drop(Rekey::begin(&folder, None).unwrap());
    for to in [&set, &site.at("new set")] {
        let error = write(&site.job(&folder, to)).unwrap_err();
        assert!(matches!(error, BackupError::Rekeying { .. }), "{error}");
        assert!(error.to_string().contains("fivefold vault rekey --dir"), "{error}");
    }
    assert!(!site.at("new set").exists() && !site.file(3).exists());
    // After another data key was drawn: the set of before is read by its own envelope, and not gone on with.
    Rekey::begin(&folder, None).unwrap().finish().unwrap();
    for error in [site.back_up().unwrap_err(), site.checked().unwrap_err()] {
        assert!(matches!(error, BackupError::OtherVault { .. }), "{error}");
    }
    Set::open(&set, None, Opening::Envelope(&nowhere, Some(&passphrase))).unwrap().check().unwrap();
}

#[test]
fn a_full_disk_leaves_the_older_set_as_it_was_and_nothing_of_the_new_file() {
    let site = Site::new();
    site.back_up().unwrap();
    site.grow(3_000);
    let part = site.at("set/0001.ffb.part");
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let error = site.back_up().unwrap_err().to_string();
    assert!(error.contains("0001.ffb.part is full; what was begun is removed"), "{error}");
    assert!(!part.is_symlink() && !site.file(1).exists());
    site.checked().unwrap();
    // And half of one that a crash left is in nobody's way.
    fs::write(&part, vec![7; 10_000_000]).unwrap();
    assert_eq!(site.back_up().unwrap().head.number, 1);
    site.checked().unwrap();
}

#[test]
fn a_set_is_written_by_one_and_not_into_what_it_is_of() {
    let site = Site::empty();
    site.back_up().unwrap();
    let reading = site.open(None).unwrap();
    assert!(matches!(site.back_up(), Err(BackupError::InUse { .. })));
    drop(reading);
    let folder = site.at("site");
    for inside in ["site", "site/cloud/backup", "site/a/b"] {
        let error = write(&site.job(&folder, &site.at(inside))).unwrap_err();
        assert!(matches!(error, BackupError::Inside { .. }), "{error}");
    }
    assert!(!site.at("site/cloud/backup").exists() && !site.at("site/a").exists());
    std::os::unix::fs::symlink(site.at("set"), site.at("site/elsewhere")).unwrap();
    assert!(matches!(site.back_up(), Err(BackupError::Unfit { .. })), "what would be missing is told");
}

#[test]
fn what_a_holder_of_the_key_wrote_wrongly_is_refused_as_well() {
    // Frames that open, around records that do not fit.
    let site = Site::empty();
    site.back_up().unwrap();
    let (head, _, bytes) = Head::read(&site.file(0)).unwrap();
    let vault = Vault::open_folder(&site.at("site")).unwrap();
    let key = || {
        let key = vault.open(&head.key_name(), &hex::decode(&head.key).unwrap()).unwrap();
        crate::vault::aes(key.as_slice().try_into().unwrap()).unwrap()
    };
    let mut opener = frames::Opener::new(&site.file(0), key()).unwrap();
    let mut stream = vec![0; opener.len() as usize];
    opener.take(&mut stream).unwrap().unwrap();
    let set = site.open(None).unwrap();
    let refused = |stream: &[u8]| {
        let mut sealer = frames::Sealer::new(Vec::new(), &bytes, key()).unwrap();
        sealer.put(stream).unwrap();
        let again = sealer.finish().unwrap();
        fs::write(site.file(0), again).unwrap();
        set.check().and_then(|_| set.unpack(&site.at("back")))
    };
    refused(&stream).unwrap();
    let tail = u64::from_be_bytes(*stream.last_chunk().unwrap()) as usize;
    // Each byte of what gives the stream its form; and cut anywhere.
    let form = (0..60).chain((tail..stream.len() - 8).step_by(5)).chain(stream.len() - 8..stream.len());
    let (mut told, mut all) = (0, 0);
    for at in form {
        let mut changed = stream.clone();
        changed[at] ^= 1;
        (told, all) = (told + usize::from(refused(&changed).is_err()), all + 1);
    }
    // Modes and counts are nothing that can be checked.
    assert!(all > 150 && told * 10 > all * 9, "{told} of {all}");
    let _ = fs::remove_dir_all(site.at("back"));
    for len in [0, 1, 7, 8, 100, tail, tail + 3, stream.len() - 1] {
        assert!(refused(&stream[..len]).is_err(), "{len}");
    }
    // A way out of the folder.
    let find = |what: &[u8]| stream.windows(what.len()).position(|w| w == what).unwrap();
    let mut out = stream.clone();
    let at = find(b"cloud/cloud.toml");
    out[at..at + 5].copy_from_slice(b"../..");
    assert!(refused(&out).unwrap_err().to_string().contains("a path leads out of the folder"));
    assert!(!site.at("back").exists());
}
