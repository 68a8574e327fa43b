//! A set: writing its next file, opening it, and reading it whole.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::LessSafeKey;
use aws_lc_rs::digest;

use super::frames::{Head, Opener, Sealer};
use super::pages::{SQLITE, Snapshot};
use super::tree::{self, DATABASE, Database, FILE, Index, Kept, PAGE, PART, Record};
use super::{BackupError, Result};
use crate::ca::spki_of;
use crate::files::{self, Readers};
use crate::share::CA_FILE;
use crate::vault::{self, PASSPHRASE_FILE, Pin, Source, VAULT_FILE, Vault, VaultError};

const ENDING: &str = "ffb";
/// How often a pair of files is read until it fits.
const TRIES: usize = 20;

/// In which order things are taken, by their paths in the folder; everything that is not named here comes last.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Databases: what one of them knows of another is there before.
    pub databases: Vec<String>,
    /// Files and folders that are taken before everything else that is no database.
    pub first: Vec<String>,
    /// A file, and one that fits to what the first is: they are taken when the first did not change meanwhile.
    pub pair: Option<(String, String)>,
    /// What is counted in a database: the name of it, the database, and the question.
    pub counts: Vec<(&'static str, String, &'static str)>,
}

/// A backup to be written.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// What is backed up: a folder with a vault and the CA's certificate.
    pub folder: &'a Path,
    /// The vault's passphrase file, where it does not lie where vault.toml says.
    pub passphrase_file: Option<&'a Path>,
    /// The folder of the set.
    pub to: &'a Path,
    /// The passphrase file of the recovery envelope; it is drawn where there is none.
    pub recovery: Option<&'a Path>,
    /// What it is: `cloud`, or `gateway` and its name.
    pub of: &'a str,
    /// In which order things are taken.
    pub plan: &'a Plan,
    /// Now, in Unix seconds.
    pub at: u64,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its head.
    pub head: Head,
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Pages of databases that are in it.
    pub pages: u64,
    /// What was read of it afterwards.
    pub checked: Checked,
}

/// What was read whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Bytes of the files of the set.
    pub bytes: u64,
    /// Pages that its databases have at the end.
    pub pages: u64,
    /// Files that it has at the end, without databases.
    pub files: u64,
    /// What was counted.
    pub counts: Vec<(String, u64)>,
}

/// By what a set is opened.
#[derive(Clone, Copy, Debug)]
pub enum Opening<'a> {
    /// The vault of a folder that is there.
    Folder(&'a Path, Option<&'a Path>),
    /// The envelope in the set, as if it lay in that folder; and its passphrase file, where it does not lie where it says.
    Envelope(&'a Path, Option<&'a Path>),
    /// The recovery envelope in the set, by this passphrase file.
    Recovery(&'a Path),
}

/// The key of the CA whose certificate lies in a folder: the name of its deployment.
fn deployment(folder: &Path) -> Result<String> {
    let path = folder.join(CA_FILE);
    let pem = files::read_text(&path)?;
    let spki = spki_of(&pem).map_err(|e| BackupError::reading(&path, io::Error::other(e.to_string())))?;
    Ok(hex::encode(tree::sha256(&spki)))
}

fn name(number: u32) -> String {
    format!("{number:04}.{ENDING}")
}

/// Heads of the files of a set, in order, with their paths.
///
/// # Errors
/// [`BackupError`]: one is missing, or of another set.
pub fn heads(folder: &Path) -> Result<Vec<(Head, PathBuf)>> {
    let mut numbers = Vec::new();
    let failed = |e| BackupError::reading(folder, e);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let stem = Path::new(&name).file_stem().and_then(|s| s.to_str()).filter(|s| s.len() >= 4);
        let is_ours = Path::new(&name).extension().is_some_and(|e| e == ENDING);
        numbers.extend(stem.filter(|_| is_ours).and_then(|s| s.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    let mut heads: Vec<(Head, PathBuf)> = Vec::new();
    let mut before = None;
    for (expected, number) in (0..).zip(numbers) {
        if number != expected {
            return Err(BackupError::Missing { folder: folder.to_owned(), number: expected });
        }
        let path = folder.join(name(number));
        let (head, _, bytes) = Head::read(&path)?;
        let goes_on = heads.first().is_none_or(|(first, _)| first.set == head.set)
            && (head.number, &head.before) == (number, &before);
        if !goes_on {
            return Err(BackupError::OtherSet { path, before: number.checked_sub(1) });
        }
        before = Some(hex::encode(tree::sha256(&bytes)));
        heads.push((head, path));
    }
    Ok(heads)
}

/// Locks a set, where its file system has locks.
fn lock(folder: &Path, alone: bool) -> Result<File> {
    let file = File::open(folder).map_err(|e| BackupError::reading(folder, e))?;
    let locked = if alone { file.try_lock() } else { file.try_lock_shared() };
    match locked {
        Err(TryLockError::WouldBlock) => Err(BackupError::InUse { folder: folder.to_owned() }),
        _ => Ok(file),
    }
}

fn key_of(vault: &Vault, head: &Head, path: &Path) -> Result<LessSafeKey> {
    let no = || BackupError::NotBackup { path: path.to_owned() };
    let sealed = hex::decode(&head.key).map_err(|_| no())?;
    let key = vault.open(&head.key_name(), &sealed).map_err(|e| match e {
        VaultError::OtherVault { .. } => BackupError::OtherVault { path: path.to_owned() },
        _ => no(),
    })?;
    vault::aes(key.as_slice().try_into().map_err(|_| no())?).map_err(Into::into)
}

/// Writes the next file of a set, and reads it whole afterwards. Nothing of the set that is there is touched; a file that was
/// not finished is removed.
///
/// # Errors
/// [`BackupError`].
pub fn write(job: &Job<'_>) -> Result<Written> {
    let absolute = |p: &Path| fs::canonicalize(p).map_err(|e| BackupError::reading(p, e));
    let folder = absolute(job.folder)?;
    let there = job.to.exists();
    // Not made before it is known that it may be there.
    let nearest = job.to.ancestors().find(|a| a.exists()).unwrap_or(Path::new("."));
    if absolute(nearest)?.starts_with(&folder) {
        return Err(BackupError::Inside { to: job.to.to_owned(), folder: job.folder.to_owned() });
    }
    let ours = deployment(job.folder)?;
    let vault = Vault::open_folder_with(job.folder, job.passphrase_file)?;
    if vault::describe(job.folder)?.before.is_some() {
        return Err(BackupError::Rekeying { folder: job.folder.to_owned() });
    }
    if !there {
        files::create_folder(job.to)?;
    }
    let _lock = lock(job.to, true)?;
    let heads = heads(job.to)?;
    if let Some((head, path)) = heads.last() {
        let who = |of: &str, ca: &str| format!("{of} of the CA {}", ca.get(..16).unwrap_or(ca));
        if (head.of.as_str(), &head.deployment) != (job.of, &ours) {
            let (theirs, ours) = (who(&head.of, &head.deployment), who(job.of, &ours));
            return Err(BackupError::Other { path: path.clone(), theirs, ours });
        }
    }
    let before = heads.last();
    let previous = before
        .map(|(head, path)| Ok::<_, BackupError>(Index::read(&mut Opener::new(path, key_of(&vault, head, path)?)?)?.0));
    let previous = previous.transpose()?;
    let recovery = match job.recovery {
        Some(file) => {
            if !file.exists() {
                vault::draw_passphrase(file)?;
            }
            Some(vault::recovery_envelope(job.folder, job.passphrase_file, file)?)
        }
        None => before.and_then(|(head, _)| head.recovery.clone()),
    };
    let key = vault::random::<32>()?;
    let mut head = Head {
        set: match before {
            Some((head, _)) => head.set.clone(),
            None => hex::encode(*vault::random::<8>()?),
        },
        number: heads.len() as u32,
        before: None,
        of: job.of.to_owned(),
        deployment: ours,
        at: job.at,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        vault: files::read_text(&job.folder.join(VAULT_FILE))?,
        recovery,
        key: String::new(),
    };
    if let Some((_, path)) = before {
        head.before = Some(hex::encode(tree::sha256(&Head::read(path)?.2)));
    }
    head.key = hex::encode(vault.seal(&head.key_name(), key.as_slice())?);
    let path = job.to.join(name(head.number));
    let part = path.with_extension(format!("{ENDING}.part"));
    let written = (|| {
        let file = match files::create(&part, Readers::Owner) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                File::options().write(true).truncate(true).open(&part)
            }
            made => made,
        };
        let file = file.map_err(|e| BackupError::writing(&part, e))?;
        let sealer = Sealer::new(BufWriter::new(file), &head.to_bytes(), vault::aes(&key)?);
        let mut body = Body {
            job,
            part: &part,
            to: sealer.map_err(|e| BackupError::writing(&part, e))?,
            previous: previous.as_ref(),
            known: previous.iter().flat_map(|p| &p.manifest.files).map(|k| (k.path.as_str(), k)).collect(),
            index: Index::default(),
            taken: HashSet::new(),
            written_pages: 0,
        };
        body.fill()?;
        let (index, pages) = body.finish()?;
        let mut opener = Opener::new(&part, vault::aes(&key)?)?;
        if check(&mut opener, previous.as_ref())? != index {
            return Err(BackupError::Content { path: part.clone(), reason: "it does not read as it was written" });
        }
        let bytes = fs::metadata(&part).map_err(|e| BackupError::reading(&part, e))?.len();
        fs::rename(&part, &path).map_err(|e| BackupError::writing(&path, e))?;
        File::open(job.to).and_then(|f| f.sync_all()).map_err(|e| BackupError::writing(job.to, e))?;
        Ok(Written { head, path: path.clone(), bytes, pages, checked: Checked::of(&index, bytes) })
    })();
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

/// The file that is being written.
struct Body<'a> {
    job: &'a Job<'a>,
    part: &'a Path,
    to: Sealer<BufWriter<File>>,
    previous: Option<&'a Index>,
    known: HashMap<&'a str, &'a Kept>,
    index: Index,
    taken: HashSet<String>,
    written_pages: u64,
}

impl Body<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.put(bytes).map_err(|e| BackupError::writing(self.part, e))
    }

    fn put_path(&mut self, kind: u8, path: &str) -> Result<()> {
        self.put(&[kind])?;
        self.put(&(path.len() as u16).to_be_bytes())?;
        self.put(path.as_bytes())
    }

    fn fill(&mut self) -> Result<()> {
        let Job { folder, plan, .. } = *self.job;
        let secrets = self.secrets()?;
        let is_secret = |path: &Path| fs::canonicalize(path).is_ok_and(|p| secrets.contains(&p));
        for path in &plan.databases {
            if folder.join(path).exists() {
                self.database(path, &folder.join(path))?;
            }
        }
        let all = |within: &str| {
            let files = tree::files_in(folder)?.into_iter();
            let of = move |path: &str, within: &str| {
                path == within || path.strip_prefix(within).is_some_and(|r| r.starts_with('/'))
            };
            Ok::<_, BackupError>(files.filter(|(p, _)| within.is_empty() || of(p, within)).collect::<Vec<_>>())
        };
        for within in &plan.first {
            for (path, at) in all(within)? {
                self.file(&path, &at)?;
            }
        }
        if let Some((first, second)) = &plan.pair {
            self.pair(first, second)?;
        }
        for (path, at) in all("")? {
            if !self.taken.contains(&path) && !is_secret(&at) {
                self.file(&path, &at)?;
            }
        }
        Ok(())
    }

    /// What opens the vault does not lie beside it.
    fn secrets(&self) -> Result<HashSet<PathBuf>> {
        let mut secrets = vec![self.job.folder.join(PASSPHRASE_FILE)];
        secrets.extend([self.job.passphrase_file, self.job.recovery].into_iter().flatten().map(Path::to_owned));
        match vault::describe(self.job.folder)?.source {
            Source::PassphraseFile(file) => secrets.push(file),
            Source::Pkcs11(key) => {
                if let Pin::File(file) = key.pin {
                    secrets.push(file);
                }
            }
            Source::SystemdCredential(_) => {}
        }
        Ok(secrets.iter().filter_map(|p| fs::canonicalize(p).ok()).collect())
    }

    fn database(&mut self, path: &str, at: &Path) -> Result<()> {
        let mut snapshot = Snapshot::open(at)?;
        let mode = tree::mode_of(&fs::metadata(at).map_err(|e| BackupError::reading(at, e))?);
        let (page_size, pages) = (snapshot.page_size(), snapshot.pages());
        for (name, _, sql) in self.job.plan.counts.iter().filter(|(_, of, _)| of == path) {
            let n = snapshot.number(sql).map_err(|source| BackupError::Database { path: at.to_owned(), source })?;
            self.index.manifest.counts.insert((*name).to_owned(), n);
        }
        let before = self.previous.map(|p| p.page(path, page_size));
        let (mut page, mut hashes) = (vec![0; page_size as usize], Vec::with_capacity(pages as usize));
        self.put_path(DATABASE, path)?;
        self.put(&page_size.to_be_bytes())?;
        for number in 1..=pages {
            snapshot.page(number, &mut page)?;
            let hash = tree::page_hash(&page);
            if before.as_ref().and_then(|b| b(number)) != Some(hash) {
                self.put(&[PAGE])?;
                self.put(&number.to_be_bytes())?;
                self.put(&page)?;
                self.written_pages += 1;
            }
            hashes.push(hash);
        }
        self.index.manifest.databases.push(Database { path: path.to_owned(), mode, page_size, pages });
        self.index.pages.push(hashes);
        self.taken.insert(path.to_owned());
        Ok(())
    }

    /// Takes a file, if it is still there.
    fn file(&mut self, path: &str, at: &Path) -> Result<()> {
        let reading = |e| BackupError::reading(at, e);
        let mut file = match File::open(at) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(reading(e)),
        };
        if !self.taken.insert(path.to_owned()) {
            return Ok(());
        }
        let mut begin = Vec::with_capacity(SQLITE.len());
        (&mut file).take(SQLITE.len() as u64).read_to_end(&mut begin).map_err(reading)?;
        if begin == SQLITE {
            drop(file);
            return self.database(path, at);
        }
        let meta = file.metadata().map_err(reading)?;
        let (mode, len) = (tree::mode_of(&meta), meta.len());
        let mut kept = Kept { path: path.to_owned(), mode, len, sha256: through(&mut file, at, len, |_| Ok(()))? };
        if self.known.get(path).is_none_or(|k| (k.len, &k.sha256) != (len, &kept.sha256)) {
            self.put_path(FILE, path)?;
            self.put(&len.to_be_bytes())?;
            kept.sha256 = through(&mut file, at, len, |bytes| self.put(bytes))?;
        }
        self.index.manifest.files.push(kept);
        Ok(())
    }

    /// Takes two files, of which the first did not change while the second was read.
    fn pair(&mut self, first: &str, second: &str) -> Result<()> {
        let folder = self.job.folder;
        let (at_first, at_second) = (folder.join(first), folder.join(second));
        if !at_first.exists() {
            return Ok(());
        }
        let read = |at: &Path| fs::read(at).map_err(|e| BackupError::reading(at, e));
        for _ in 0..TRIES {
            let (one, two) = (read(&at_first)?, read(&at_second)?);
            if read(&at_first)? == one {
                for (path, at, bytes) in [(first, &at_first, one), (second, &at_second, two)] {
                    let mode = tree::mode_of(&fs::metadata(at).map_err(|e| BackupError::reading(at, e))?);
                    let (len, sha256) = (bytes.len() as u64, hex::encode(tree::sha256(&bytes)));
                    let kept = Kept { path: path.to_owned(), mode, len, sha256 };
                    self.put_path(FILE, path)?;
                    self.put(&len.to_be_bytes())?;
                    self.put(&bytes)?;
                    self.index.manifest.files.push(kept);
                    self.taken.insert(path.to_owned());
                }
                return Ok(());
            }
        }
        Err(BackupError::Changed { path: at_first })
    }

    fn finish(mut self) -> Result<(Index, u64)> {
        let begins = self.to.position();
        let bytes = self.index.to_bytes();
        self.put(&bytes)?;
        self.put(&begins.to_be_bytes())?;
        let failed = |e| BackupError::writing(self.part, e);
        let mut to = self.to.finish().map_err(failed)?;
        to.flush().and_then(|()| to.get_ref().sync_all()).map_err(failed)?;
        Ok((self.index, self.written_pages))
    }
}

/// Reads a file from its beginning to this length, and returns its hash.
fn through(file: &mut File, at: &Path, len: u64, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<String> {
    let reading = |e| BackupError::reading(at, e);
    file.rewind().map_err(reading)?;
    let (mut hash, mut left) = (digest::Context::new(&digest::SHA256), len);
    let mut part = vec![0; left.min(PART as u64) as usize];
    while left > 0 {
        let room = part.get_mut(..left.min(PART as u64) as usize).unwrap_or_default();
        let n = file.read(room).map_err(reading)?;
        if n == 0 {
            return Err(BackupError::Changed { path: at.to_owned() });
        }
        let bytes = room.get(..n).unwrap_or_default();
        hash.update(bytes);
        each(bytes)?;
        left -= n as u64;
    }
    Ok(hex::encode(hash.finish()))
}

/// Reads a file of a set whole: every frame opens, what is in it is what its index says, and what is not in it is what the
/// file before it says.
pub(super) fn check(from: &mut Opener, before: Option<&Index>) -> Result<Index> {
    let (index, until) = Index::read(from)?;
    let wrong = {
        let path = from.path().to_owned();
        move |reason| BackupError::Content { path: path.clone(), reason }
    };
    // Databases whose pages were looked at up to a number; files that were read to their end.
    let mut looked = vec![0; index.pages.len()];
    let mut read = HashSet::new();
    let said: HashMap<_, _> = index.manifest.files.iter().map(|k| (k.path.as_str(), (k.len, &k.sha256))).collect();
    let mut at = None;
    let mut open: Option<(String, u64, digest::Context)> = None;
    let same_as_before = |database: usize, from: u32, to: u32| {
        let entry = index.manifest.databases.get(database)?;
        let hashes = index.pages.get(database)?;
        let old = before.map(|b| b.page(&entry.path, entry.page_size));
        (from..=to)
            .all(|n| {
                let here = hashes.get(n as usize - 1);
                here.is_some() && old.as_ref().and_then(|o| o(n)).as_ref() == here
            })
            .then_some(())
    };
    let close = |open: &mut Option<(String, u64, digest::Context)>, read: &mut HashSet<String>| {
        let Some((path, len, hash)) = open.take() else { return Ok(()) };
        let found = hex::encode(hash.finish());
        if said.get(path.as_str()) != Some(&(len, &found)) || !read.insert(path) {
            return Err(wrong("a file is another one than its index says"));
        }
        Ok(())
    };
    tree::records(from, until, &mut |record| {
        match record {
            Record::Database { path, page_size } => {
                close(&mut open, &mut read)?;
                let found =
                    index.manifest.databases.iter().position(|d| (d.path.as_str(), d.page_size) == (path, page_size));
                at = Some(found.ok_or_else(|| wrong("its index has another database"))?);
            }
            Record::Page { number, bytes } => {
                let hash = at.and_then(|at| index.pages.get(at)?.get(number as usize - 1));
                let (Some(at), true) = (at, hash == Some(&tree::page_hash(bytes))) else {
                    return Err(wrong("a page is another one than its index says"));
                };
                let done = looked.get_mut(at).filter(|done| **done < number);
                let done = done.ok_or_else(|| wrong("its pages are in no order"))?;
                same_as_before(at, *done + 1, number - 1)
                    .ok_or_else(|| wrong("a page is neither in it nor before it"))?;
                *done = number;
            }
            Record::File { path, len } => {
                close(&mut open, &mut read)?;
                open = Some((path.to_owned(), len, digest::Context::new(&digest::SHA256)));
            }
            Record::Bytes(bytes) => {
                if let Some((.., hash)) = &mut open {
                    hash.update(bytes);
                }
            }
        }
        Ok(())
    })?;
    close(&mut open, &mut read)?;
    for (at, (entry, done)) in index.manifest.databases.iter().zip(&looked).enumerate() {
        same_as_before(at, done + 1, entry.pages).ok_or_else(|| wrong("a page is neither in it nor before it"))?;
    }
    let old: HashSet<_> = before.iter().flat_map(|b| &b.manifest.files).map(|k| (&k.path, k.len, &k.sha256)).collect();
    if !index.manifest.files.iter().all(|k| read.contains(&k.path) || old.contains(&(&k.path, k.len, &k.sha256))) {
        return Err(wrong("a file is neither in it nor before it"));
    }
    Ok(index)
}

impl Checked {
    fn of(index: &Index, bytes: u64) -> Self {
        Self {
            bytes,
            pages: index.manifest.databases.iter().map(|d| u64::from(d.pages)).sum(),
            files: index.manifest.files.len() as u64,
            counts: index.manifest.counts.iter().map(|(name, n)| (name.clone(), *n)).collect(),
        }
    }
}

/// A set that is open, up to one of its files.
pub struct Set {
    pub(super) files: Vec<(Head, PathBuf)>,
    pub(super) vault: Vault,
    pub(super) folder: PathBuf,
    _lock: File,
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Set({})", self.folder.display())
    }
}

impl Set {
    /// Opens a set up to a number, or up to its last.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn open(folder: &Path, upto: Option<u32>, by: Opening<'_>) -> Result<Self> {
        let lock = lock(folder, false)?;
        let mut files = match (heads(folder), upto) {
            // What is asked for may be whole where what follows it is not.
            (Err(_), Some(upto)) => heads_upto(folder, upto)?,
            (heads, _) => heads?,
        };
        let (Some(last), Some(_)) = ((files.len() as u32).checked_sub(1), files.first()) else {
            return Err(BackupError::NoSet { folder: folder.to_owned() });
        };
        if let Some(asked) = upto {
            if asked > last {
                return Err(BackupError::Upto { folder: folder.to_owned(), last, asked });
            }
            files.truncate(asked as usize + 1);
        }
        let Some((head, path)) = files.last() else { return Err(BackupError::NoSet { folder: folder.to_owned() }) };
        let vault = match by {
            // Whoever restores keeps everybody out of that folder, and so does not hold it.
            Opening::Folder(of, passphrase) => {
                vault::open_envelope(&files::read_text(&of.join(VAULT_FILE))?, of, passphrase, folder)?
            }
            Opening::Envelope(of, passphrase) => vault::open_envelope(&head.vault, of, passphrase, folder)?,
            Opening::Recovery(file) => {
                let text = head.recovery.as_ref().ok_or_else(|| BackupError::NoRecovery { path: path.clone() })?;
                vault::open_envelope(text, folder, Some(file), folder)?
            }
        };
        Ok(Self { folder: folder.to_owned(), vault, _lock: lock, files })
    }

    /// The head of the file up to which it is open.
    pub fn head(&self) -> Option<&Head> {
        self.files.last().map(|(head, _)| head)
    }

    pub(super) fn opener(&self, (head, path): &(Head, PathBuf)) -> Result<Opener> {
        Opener::new(path, key_of(&self.vault, head, path)?)
    }

    /// Reads it whole, writing nothing.
    ///
    /// # Errors
    /// [`BackupError`] names the first file and frame that is not as it was written.
    pub fn check(&self) -> Result<Checked> {
        let (mut index, mut bytes) = (None, 0);
        for file in &self.files {
            index = Some(check(&mut self.opener(file)?, index.as_ref())?);
            bytes += fs::metadata(&file.1).map_err(|e| BackupError::reading(&file.1, e))?.len();
        }
        Ok(Checked::of(&index.unwrap_or_default(), bytes))
    }

    /// Refuses a set that is of another deployment than a folder that is there.
    ///
    /// # Errors
    /// [`BackupError::Other`].
    pub fn check_deployment(&self, folder: &Path) -> Result<()> {
        let (Some((head, path)), Ok(here)) = (self.files.last(), deployment(folder)) else { return Ok(()) };
        if head.deployment == here {
            return Ok(());
        }
        let ca = |ca: &str| format!("the deployment of the CA {}", ca.get(..16).unwrap_or(ca));
        Err(BackupError::Other { path: path.clone(), theirs: ca(&head.deployment), ours: ca(&here) })
    }
}

/// Heads up to a number, whatever stands behind it.
fn heads_upto(folder: &Path, upto: u32) -> Result<Vec<(Head, PathBuf)>> {
    let mut files: Vec<(Head, PathBuf)> = Vec::new();
    let mut before = None;
    for number in 0..=upto {
        let path = folder.join(name(number));
        if !path.exists() {
            return Err(BackupError::Missing { folder: folder.to_owned(), number });
        }
        let (head, _, bytes) = Head::read(&path)?;
        if (head.number, &head.before) != (number, &before) || files.first().is_some_and(|(f, _)| f.set != head.set) {
            return Err(BackupError::OtherSet { path, before: number.checked_sub(1) });
        }
        before = Some(hex::encode(tree::sha256(&bytes)));
        files.push((head, path));
    }
    Ok(files)
}
