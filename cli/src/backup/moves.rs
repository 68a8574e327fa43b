//! How a folder that was put back takes its place, and what was there goes aside. Each step is one rename, and a restore that was
//! interrupted is gone on with by typing it again:
//!
//! | Interrupted | What lies there | What comes of it |
//! |---|---|---|
//! | before anything was moved | the old folder; `DIR.restoring` or `DIR.restored` | all is made anew, for the old one may have been in use since (docs/protocol.md 8.4) |
//! | when the old folder was aside | `DIR.restored`, whose mark names `DIR.before-TIME` | the same, and what was aside stays that; an empty DIR, which a package makes when the machine starts, is removed |
//! | when the new folder was in place | DIR with its mark | folders of gateways and nodes come back into it |
//!
//! Those lie in the old folder until the new one is in its place: whatever else is removed never holds any.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_keep::backup::{self, Head};
use fivefold_keep::files::{self, Readers};
use serde::{Deserialize, Serialize};

use crate::clock;

/// Name of the mark, in a folder that was put back and is not done.
const MARK: &str = "restored.json";

/// What a folder that was put back says of itself until all is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    set: String,
    number: u32,
    /// What was in its place.
    before: Option<PathBuf>,
}

impl Mark {
    /// The mark in a folder.
    pub(super) fn of(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(MARK);
        if !path.exists() {
            return Ok(None);
        }
        let text = files::read_text(&path)?;
        serde_json::from_str(&text).map(Some).with_context(|| format!("{} is no mark of a restore", path.display()))
    }

    /// Whether it was put back from that file of that set.
    pub(super) fn is_of(&self, head: &Head) -> bool {
        (&self.set, self.number) == (&head.set, head.number)
    }

    /// What was in its place, if that is still there.
    pub(super) fn before(&self) -> Option<&Path> {
        self.before.as_deref().filter(|before| before.exists())
    }

    /// The folder is in its place: daemons of others, which lay in the one before, go on in it.
    pub(super) fn done(&self, dir: &Path) -> anyhow::Result<()> {
        if let Some(before) = self.before() {
            for party in backup::parties_in(before)? {
                let to = dir.join(&party);
                if !to.exists() {
                    files::create_folders(files::folder_of(&to))?;
                    rename(&before.join(&party), &to)?;
                }
            }
        }
        Ok(files::remove(&dir.join(MARK))?)
    }
}

/// The names that a folder has while it is put back.
pub(super) struct Names {
    /// Its own.
    dir: PathBuf,
    /// What is being put back, until it is whole.
    pub(super) restoring: PathBuf,
    /// It is whole, and takes the place of the folder next.
    restored: PathBuf,
    /// What was there is to be.
    before: PathBuf,
}

impl Names {
    pub(super) fn of(dir: &Path, now: u64) -> anyhow::Result<Self> {
        // Without a slash at its end.
        let dir: PathBuf = std::path::absolute(dir)?.components().collect();
        // What a link leads to is moved, beside itself.
        let dir = fs::read_link(&dir).map_or_else(|_| dir.clone(), |to| files::folder_of(&dir).join(to));
        anyhow::ensure!(
            dir.file_name().is_some(),
            "{} cannot be a folder of its own; name another --dir",
            dir.display()
        );
        let beside = |end: &str| {
            let mut name = dir.clone().into_os_string();
            name.push(end);
            PathBuf::from(name)
        };
        let time = clock::text(now).replace(':', "");
        // Two restores within a second have names of their own.
        let names = (1..=u32::MAX).map(|n| if n == 1 { time.clone() } else { format!("{time}-{n}") });
        let before = names.map(|name| beside(&format!(".before-{name}"))).find(|path| !path.exists());
        Ok(Self {
            restoring: beside(".restoring"),
            restored: beside(".restored"),
            before: before.context("there is no free name for the folder that is moved aside")?,
            dir,
        })
    }

    /// What a restore that was interrupted moved aside, where nothing took its place; an empty folder is nothing, and is removed.
    pub(super) fn left_aside(&self) -> anyhow::Result<Option<PathBuf>> {
        let marks = [Mark::of(&self.restoring)?, Mark::of(&self.restored)?];
        let Some(before) = marks.iter().flatten().find_map(Mark::before) else { return Ok(None) };
        // Nothing else than an empty folder goes by this.
        let _ = fs::remove_dir(&self.dir);
        Ok((!self.dir.exists()).then(|| before.to_owned()))
    }

    /// Keeps the mark of what is whole while all is made anew: it was to take the other's name next.
    pub(super) fn keep_mark(&self) -> anyhow::Result<()> {
        if self.restoring.join(MARK).exists() {
            remove(&self.restored)?;
            rename(&self.restoring, &self.restored)?;
        }
        Ok(())
    }

    /// Lets what was put back take its place, and returns where the folder is that was there, now or before an interruption.
    ///
    /// # Errors
    /// What was there is as it was, if anything was.
    pub(super) fn take_place(&self, head: &Head, aside: Option<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
        let first = aside.is_none();
        let there = first && self.dir.exists();
        let before = if there { Some(self.before.clone()) } else { aside };
        let mark = Mark { set: head.set.clone(), number: head.number, before };
        let text = serde_json::to_string(&mark)?;
        let marked = files::write(&self.restoring.join(MARK), Readers::Owner, text.as_bytes());
        marked.inspect_err(|_| drop(remove(&self.restoring)))?;
        // One that nobody came back for.
        remove(&self.restored)?;
        rename(&self.restoring, &self.restored)?;
        let moved = if there { rename(&self.dir, &self.before) } else { Ok(()) };
        let moved = moved.and_then(|()| {
            let back = |_: &_| {
                if there {
                    drop(rename(&self.before, &self.dir))
                }
            };
            rename(&self.restored, &self.dir).inspect_err(back)
        });
        if moved.is_err() && first && (self.dir.exists() || mark.before.is_none()) {
            drop(remove(&self.restored));
        }
        moved?;
        mark.done(&self.dir)?;
        Ok(mark.before)
    }
}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot move {} to {}", from.display(), to.display());
    fs::rename(from, to).with_context(failed)?;
    let folder = std::path::absolute(to)?;
    File::open(files::folder_of(&folder)).and_then(|f| f.sync_all()).with_context(failed)
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Refuses a folder that cannot be moved as one.
///
/// A file system that is mounted on it stays where it is; one that is mounted in it would come back over what was restored, with
/// the store of before, when the machine starts again.
pub(super) fn check_movable(dir: &Path) -> anyhow::Result<()> {
    let real = fs::canonicalize(dir)?;
    // They are looked for again when nothing may go wrong any more.
    let parties = backup::parties_in(&real)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(mount) = mounted(&mounts).find(|mount| mount.starts_with(&real)) else { return Ok(()) };
    let is_of_party = parties.iter().any(|party| mount.starts_with(real.join(party)));
    let mount = mount.display();
    anyhow::ensure!(
        !is_of_party,
        "{mount} is a file system of its own, and folders of gateways and nodes are moved with that around them: unmount it, type \
         this again, then make the folder {mount} again and mount it"
    );
    anyhow::bail!(
        "{mount} is a file system of its own and cannot be moved aside: restore into a folder on it, with --dir {mount}/restored, \
         and move that into place by hand, as docs/operate.md says under \"Back from a backup\""
    )
}

/// Where file systems are mounted (proc(5), `/proc/pid/mountinfo`): the fifth word, with blanks as octal digits.
fn mounted(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    let words = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    words.map(|word| {
        let (mut path, mut rest) = (Vec::new(), word.as_bytes());
        while let [first, tail @ ..] = rest {
            let digits = tail.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
            match digits.and_then(|d| u8::from_str_radix(d, 8).ok()) {
                Some(byte) => {
                    path.push(byte);
                    rest = tail.get(3..).unwrap_or_default();
                }
                None => {
                    path.push(*first);
                    rest = tail;
                }
            }
        }
        PathBuf::from(std::ffi::OsString::from_vec(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_blanks_in_them() {
        let text = "36 35 98:0 /mnt1 /mnt/two\\040words rw,noatime master:1 - ext3 /dev/root rw\n\
                    37 35 0:5 / /proc rw - proc proc rw\nnonsense\n";
        let found: Vec<PathBuf> = mounted(text).collect();
        assert_eq!(found, [Path::new("/mnt/two words"), Path::new("/proc")]);
    }
}
