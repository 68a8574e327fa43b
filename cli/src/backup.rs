//! `fivefold cloud backup|restore` and `fivefold gateway backup|restore`: a copy of a folder while its daemon runs, and a
//! folder out of such a copy, which is safe to start (docs/protocol.md 8.4).

mod moves;
mod places;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_cloud::log_key::LOG_FOLDER;
use fivefold_keep::backup::{self, BackupError, Checked, Head, Job, Opening, Set};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::vault::{self, Pin, Source, TokenKey, VAULT_FILE};
use serde_json::{Value, json};

use crate::clock;
use crate::output::{Output, answer, table};
use moves::{Mark, Names};
pub(crate) use places::Of;

/// Arguments of `backup`.
#[derive(Clone, Debug, clap::Args)]
pub struct Backup {
    /// The folder to back up: the operator's, with the cloud's in it; or the gateway's.
    #[arg(long, env = "FIVEFOLD_DIR", default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// The passphrase file of its vault, where it does not lie where vault.toml says.
    #[arg(long, env = "FIVEFOLD_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The folder of the set. An empty one gets all of it, one with a set what has changed since.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Let the passphrase in this file open it too, from now on in this set. If it is not there, one of 256 random bits is drawn
    /// into it: keep it elsewhere. For vaults whose own source may be lost with the machine.
    #[arg(long, value_name = "FILE")]
    recovery_file: Option<PathBuf>,
    /// Write nothing: read the whole set, and say whether all of it is as it was written.
    #[arg(long, conflicts_with = "list")]
    verify: bool,
    /// Write nothing: list the set. No key is needed.
    #[arg(long)]
    list: bool,
}

/// Arguments of `restore`.
#[derive(Clone, Debug, clap::Args)]
pub struct Restore {
    /// The folder of the set.
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
    /// The folder to make: the operator's, or the gateway's.
    #[arg(long, env = "FIVEFOLD_DIR", value_name = "DIR")]
    dir: PathBuf,
    /// Move the folder that is there aside, to DIR.before-TIME. Folders of gateways and nodes in it stay in use.
    #[arg(long)]
    replace: bool,
    /// Go back to this number of the set, not to its last.
    #[arg(long, value_name = "NUMBER")]
    upto: Option<u32>,
    /// The passphrase file of its vault as it was then, where the vault that is there does not open the set, or is lost.
    #[arg(long, env = "FIVEFOLD_PASSPHRASE_FILE", value_name = "FILE", conflicts_with = "recovery_file")]
    passphrase_file: Option<PathBuf>,
    /// The recovery passphrase: it opens the vault that is put back, too.
    #[arg(long, value_name = "FILE")]
    recovery_file: Option<PathBuf>,
    /// The log's folder, if it survived: it is taken in place of the one in the set, so that witnesses see it go on.
    #[arg(long, value_name = "FOLDER")]
    log: Option<PathBuf>,
}

/// Backs a folder up, or looks at a set.
///
/// # Errors
/// One sentence; nothing of the set that was there is changed.
pub(crate) fn backup(args: &Backup, of: Of, output: Output) -> anyhow::Result<ExitCode> {
    if args.list {
        return list(&args.to, output);
    }
    if args.verify {
        return verify(args, output);
    }
    let now = clock::now()?;
    anyhow::ensure!(
        Mark::of(&args.dir)?.is_none(),
        "{} was not put back to its end; type the command again that was to restore it",
        args.dir.display()
    );
    let (name, plan) = (of.name(&args.dir)?, of.plan(&args.dir)?);
    let written = backup::write(&Job {
        folder: &args.dir,
        passphrase_file: args.passphrase_file.as_deref(),
        to: &args.to,
        recovery: args.recovery_file.as_deref(),
        of: &name,
        plan: &plan,
        at: now,
    })?;
    let head = &written.head;
    of.note_backup(&args.dir, head)?;
    let needs = match (&head.recovery, vault::describe(&args.dir)?.source) {
        (Some(_), source) => format!("It opens by {source}, or by the recovery passphrase."),
        (None, source @ Source::PassphraseFile(_)) => {
            format!("It opens by {source} alone: keep a copy of that elsewhere.")
        }
        (None, source) => {
            format!("It opens by {source} alone: if that may be lost with this machine, add --recovery-file.")
        }
    };
    let more = json!({ "bytes": written.bytes, "pages": written.pages, "holds": holds(&written.checked) });
    let value = with(json_of(head, &written.path), more);
    answer(output, &value, || {
        let what = if head.number == 0 { "everything".into() } else { format!("increment {}", head.number) };
        format!(
            "Wrote {what} of set {} to {} ({}; {} pages of databases), read it back, and it is whole. It holds {}.\n{needs}",
            head.set,
            written.path.display(),
            size(written.bytes),
            written.pages,
            words(&written.checked)
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn list(folder: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let heads = backup::heads(folder)?;
    if heads.is_empty() {
        return Err(BackupError::NoSet { folder: folder.to_owned() }.into());
    }
    let value = heads.iter().map(|(head, path)| json_of(head, path)).collect();
    answer(output, &Value::Array(value), || {
        let mut t = table(&["NUMBER", "AT", "OF", "SIZE", "PROGRAM", "RECOVERY"]);
        for (head, path) in &heads {
            let recovery = if head.recovery.is_some() { "yes" } else { "no" };
            let len = fs::metadata(path).map_or("?".into(), |m| size(m.len()));
            t.add_row([&head.number.to_string(), &clock::text(head.at), &head.of, &len, &head.program, recovery]);
        }
        t.trim_fmt()
    });
    Ok(ExitCode::SUCCESS)
}

fn verify(args: &Backup, output: Output) -> anyhow::Result<ExitCode> {
    let by = match &args.recovery_file {
        Some(file) => Opening::Recovery(file),
        None if args.dir.join(VAULT_FILE).exists() => Opening::Folder(&args.dir, args.passphrase_file.as_deref()),
        None => Opening::Envelope(&args.dir, args.passphrase_file.as_deref()),
    };
    let read = Set::open(&args.to, None, by).and_then(|set| Ok((set.head().map(|h| h.number), set.check()?)));
    match read {
        Ok((last, checked)) => {
            let value = json!({ "whole": true, "upto": last, "bytes": checked.bytes, "holds": holds(&checked) });
            answer(output, &value, || {
                format!(
                    "{} is whole up to number {}: {} were read. It holds {}.",
                    args.to.display(),
                    last.unwrap_or(0),
                    size(checked.bytes),
                    words(&checked)
                )
            });
            Ok(ExitCode::SUCCESS)
        }
        Err(
            error @ (BackupError::Content { .. }
            | BackupError::Frame { .. }
            | BackupError::Missing { .. }
            | BackupError::NotBackup { .. }
            | BackupError::OtherSet { .. }),
        ) => {
            let why = error.to_string();
            answer(output, &json!({ "whole": false, "why": why }), || format!("Not whole: {why}."));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts a folder back.
///
/// # Errors
/// One sentence; then what was there is as it was.
pub(crate) fn restore(args: &Restore, of: Of, output: Output) -> anyhow::Result<ExitCode> {
    let (now, dir) = (clock::now()?, &args.dir);
    let names = Names::of(dir, now)?;
    let aside = names.left_aside()?;
    let (there, unfinished) = (dir.exists(), Mark::of(dir)?);
    // Where what was there lies now.
    let old = aside.as_deref().unwrap_or(dir);
    let args = &args.found_in(old);
    let may_replace = || {
        anyhow::ensure!(
            !there || args.replace,
            "{} is there; add --replace, which moves it aside, or name another folder with --dir",
            dir.display()
        );
        Ok(())
    };
    if unfinished.is_none() {
        may_replace()?;
    }
    let has_vault = old.join(VAULT_FILE).exists();
    let set = open(args, old, has_vault)?;
    let head = set.head().context("the set is empty")?.clone();
    of.check(&head, old)?;
    set.check_deployment(old)?;
    // Nobody has the folder open from here on.
    let _alone = old.exists().then(|| vault::lock_out(old)).transpose()?;
    if let Some(mark) = unfinished {
        mark.done(dir)?;
        if mark.is_of(&head) {
            let value =
                with(json_of(&head, &args.from), json!({ "dir": dir, "resumed": true, "before": mark.before() }));
            answer(output, &value, || format!("Finished what had been interrupted: {} is restored.", dir.display()));
            return Ok(ExitCode::SUCCESS);
        }
        may_replace()?;
    }
    if there {
        moves::check_movable(dir)?;
    }
    let checked = set.check()?;
    names.keep_mark()?;
    set.unpack(&names.restoring)?;
    let done = complete(args, of, &set, &head, &names.restoring, old, now).and_then(|done| {
        // It is whose folder it replaces; else it is whose folder it is in.
        let model = if old.exists() { old } else { files::folder_of(&names.restoring) };
        files::give_as(&names.restoring, model)?;
        Ok(done)
    });
    let put_back = match done {
        Ok(put_back) => put_back,
        Err(error) => {
            let _ = fs::remove_dir_all(&names.restoring);
            return Err(if is_full(&error) { BackupError::Full { path: names.restoring }.into() } else { error });
        }
    };
    let moved = names.take_place(&head, aside.clone())?;
    let more = json!({ "dir": dir, "holds": holds(&checked), "before": moved, "restored": put_back.value });
    let value = with(json_of(&head, &args.from), more);
    answer(output, &value, || {
        let aside = moved.map_or(String::new(), |at| format!("\nWhat was there is {}.", at.display()));
        format!(
            "Restored {} from set {} as of {}, number {}. It holds {}.\n{}{aside}",
            dir.display(),
            head.set,
            clock::text(head.at),
            head.number,
            words(&checked),
            put_back.text
        )
    });
    Ok(ExitCode::SUCCESS)
}

impl Restore {
    /// With the files that are named in its folder where they lie, if what was there was moved to `old`.
    fn found_in(&self, old: &Path) -> Self {
        let found = |path: &PathBuf| match path.strip_prefix(&self.dir) {
            Ok(inside) if !path.exists() => old.join(inside),
            _ => path.clone(),
        };
        Self {
            passphrase_file: self.passphrase_file.as_ref().map(found),
            recovery_file: self.recovery_file.as_ref().map(found),
            log: self.log.as_ref().map(found),
            ..self.clone()
        }
    }
}

/// Opens the set by the vault in `old`, or by what is named.
fn open(args: &Restore, old: &Path, has_vault: bool) -> anyhow::Result<Set> {
    let by = match (&args.recovery_file, &args.passphrase_file) {
        (Some(file), _) => Opening::Recovery(file),
        (None, Some(file)) => Opening::Envelope(old, Some(file)),
        (None, None) if has_vault => Opening::Folder(old, None),
        (None, None) => {
            let heads = backup::heads(&args.from)?;
            let last = heads.get(args.upto.map_or(heads.len().saturating_sub(1), |n| n as usize));
            if let Some((head, _)) = last {
                let or =
                    if head.recovery.is_some() { ", or name the recovery passphrase with --recovery-file" } else { "" };
                match vault::source_in(&head.vault, old)? {
                    Source::PassphraseFile(file) => anyhow::ensure!(
                        file.exists(),
                        "name the passphrase file of the vault with --passphrase-file{or}"
                    ),
                    Source::Pkcs11(TokenKey { pin: Pin::File(file), token, .. }) => anyhow::ensure!(
                        file.exists(),
                        "put the file with the PIN of token `{token}` where its vault looks for it, {}, and add --replace{or}",
                        file.display()
                    ),
                    Source::Pkcs11(_) | Source::SystemdCredential(_) => {}
                }
            }
            Opening::Envelope(old, None)
        }
    };
    Ok(Set::open(&args.from, args.upto, by)?)
}

/// What is left to do in a folder that was put back, before it takes its place.
fn complete(
    args: &Restore,
    of: Of,
    set: &Set,
    head: &Head,
    at: &Path,
    old: &Path,
    now: u64,
) -> anyhow::Result<places::PutBack> {
    if args.recovery_file.is_some() {
        set.put_recovery_envelope(at)?;
    } else if args.passphrase_file.is_none() && old.join(VAULT_FILE).exists() {
        // The vault that is there opened it: by another source than then, perhaps.
        let text = files::read_text(&old.join(VAULT_FILE))?;
        files::write(&at.join(VAULT_FILE), Readers::Everybody, text.as_bytes())?;
    }
    let missing = bring_key(args, of, at, old)?;
    if let Some(log) = &args.log {
        anyhow::ensure!(matches!(of, Of::Cloud), "a gateway has no log; leave --log out");
        let to = at.join("cloud").join(LOG_FOLDER);
        let failed = || format!("cannot take the log in {}", log.display());
        anyhow::ensure!(log.join("own/signed").exists(), "{} is no log: it has no own/signed", log.display());
        fs::remove_dir_all(&to)
            .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
            .with_context(failed)?;
        copy(log, &to).with_context(failed)?;
    }
    let mut put_back = of.put_back(at, head, now)?;
    for (what, file) in &missing {
        put_back.text.push_str(&format!("\nBefore it starts, put {what} into {} (mode 600).", file.display()));
    }
    let to_put: Vec<&PathBuf> = missing.iter().map(|(_, file)| file).collect();
    put_back.value = with(put_back.value, json!({ "to_put": to_put }));
    Ok(put_back)
}

/// Puts what opens the vault where the vault looks for it, and the cloud, if that is in the folder. Returns what is not there,
/// and where it is looked for.
fn bring_key(args: &Restore, of: Of, at: &Path, old: &Path) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let passphrase = args.recovery_file.as_ref().or(args.passphrase_file.as_ref());
    let (what, wanted, given) = match vault::describe(at)?.source {
        Source::PassphraseFile(file) => {
            ("its passphrase", [Some(file), of.passphrase_file(at)?].into_iter().flatten().collect(), passphrase)
        }
        Source::Pkcs11(TokenKey { pin: Pin::File(file), .. }) => ("the PIN of its token", vec![file], None),
        Source::Pkcs11(_) | Source::SystemdCredential(_) => ("", Vec::new(), None),
    };
    let mut missing = Vec::new();
    for file in wanted.into_iter().filter(|file: &PathBuf| !file.exists()) {
        let inside = file.strip_prefix(at).ok().filter(|inside| places::stays(inside, 0));
        let there = inside.map(|inside| old.join(inside)).filter(|p| p.exists());
        match given.or(there.as_ref()).filter(|_| inside.is_some()) {
            Some(from) => {
                let folder = files::folder_of(&file);
                if !folder.exists() {
                    files::create_folder(folder)?;
                }
                files::write(&file, Readers::Owner, &files::read_private(from)?)?;
            }
            // Where it lies when the folder is in its place.
            None => missing.push((what, inside.map(|inside| args.dir.join(inside)).unwrap_or(file))),
        }
    }
    Ok(missing)
}

/// Whether there was no room, whoever met that.
fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let system = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let database = cause.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
        matches!(system, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge))
            || database == Some(rusqlite::ErrorCode::DiskFull)
    })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
            File::open(&to)?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()
}

fn json_of(head: &Head, path: &Path) -> Value {
    json!({
        "set": head.set, "number": head.number, "of": head.of, "at": head.at, "program": head.program,
        "deployment": head.deployment, "recovery": head.recovery.is_some(), "path": path,
    })
}

fn holds(checked: &Checked) -> Value {
    let counts = checked.counts.iter().map(|(name, n)| (name.clone(), json!(n)));
    with(json!({ "pages": checked.pages, "files": checked.files }), Value::Object(counts.collect()))
}

/// One object with what both have.
fn with(mut value: Value, more: Value) -> Value {
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

fn words(checked: &Checked) -> String {
    let counts: String = checked.counts.iter().map(|(name, n)| format!(", {n} {name}")).collect();
    format!("{} pages of databases, {} files{counts}", checked.pages, checked.files)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
