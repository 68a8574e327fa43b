//! Rotations in the operator's book: each step in one transaction, taken only where what it was made of still stands.

use fivefold_core::e1_link::rotation::next_index;
use fivefold_core::id::{Did, Net};
use fivefold_core::wire::state::Phase;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::deeds::Done;
use super::{Registry, RegistryError, Result, hidden, key_name};
use crate::rotation::{NotNow, RECOVERY_S, Rotation};
use crate::vault::{Vault, random};

/// Why a key is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is old enough.
    Planned,
    /// Somebody who has it is to be shut out: the key before goes as soon as nobody needs it.
    Revocation,
}

/// What came of a rotation that was asked for because a device was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShutOut {
    /// A rotation began; the device is told nothing of it.
    Begun(Rotation),
    /// One is under way, began after the device was revoked, and hurries now.
    Hurried(Rotation),
    /// One is under way that the device may know the key of: it hurries, and another one follows.
    Overtaken(Rotation),
}

const COLUMNS: &str = "net, previous, idx, started_at, switched_at, rolled_back_at, retired_at, is_paused, is_urgent, \
                       starts_over";

/// Columns that books of before do not have.
const ADDED: [(&str, &str, &str); 4] = [
    ("network_keys", "retired_at", "INTEGER"),
    ("rotations", "rolled_back_at", "INTEGER"),
    ("rotations", "is_urgent", "INTEGER NOT NULL DEFAULT 0"),
    ("rotations", "starts_over", "INTEGER NOT NULL DEFAULT 0"),
];

/// Brings a book of before to the present form.
pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    for (table, column, kind) in ADDED {
        let known = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?) WHERE name = ?)";
        if !db.query_row(known, [table, column], |r| r.get::<_, bool>(0))? {
            db.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
        }
    }
    Ok(())
}

fn rotation_of(row: &Row<'_>) -> rusqlite::Result<Rotation> {
    let time = |at| row.get::<_, Option<i64>>(at).map(|t| t.map(hidden));
    Ok(Rotation {
        net: Net(row.get(0)?),
        previous: row.get(1)?,
        index: row.get(2)?,
        started_at: hidden(row.get(3)?),
        switched_at: time(4)?,
        rolled_back_at: time(5)?,
        retired_at: time(6)?,
        is_paused: row.get(7)?,
        is_urgent: row.get(8)?,
        starts_over: row.get(9)?,
    })
}

fn read(tx: &Transaction<'_>, net: Net) -> rusqlite::Result<Option<Rotation>> {
    let sql = format!("SELECT {COLUMNS} FROM rotations WHERE net = ?");
    tx.query_row(&sql, [net.0], rotation_of).optional()
}

/// Writes a rotation, and what its keys are for from now on.
fn write(tx: &Transaction<'_>, r: &Rotation) -> rusqlite::Result<()> {
    let time = |t: Option<u64>| t.map(|t| t as i64);
    let sql = format!("INSERT OR REPLACE INTO rotations ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    tx.execute(
        &sql,
        params![
            r.net.0,
            r.previous,
            r.index,
            r.started_at as i64,
            time(r.switched_at),
            time(r.rolled_back_at),
            time(r.retired_at),
            r.is_paused,
            r.is_urgent,
            r.starts_over
        ],
    )?;
    for (index, phase) in r.phases() {
        let retired = time(r.retired_at).filter(|_| phase == Phase::Retire);
        let sql = "UPDATE network_keys SET phase = ?, retired_at = ? WHERE net = ? AND idx = ?";
        tx.execute(sql, params![phase.wire(), retired, r.net.0, index])?;
    }
    Ok(())
}

fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(RegistryError::Refused(text.into()))
}

impl Registry {
    /// Every network's last rotation.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn rotations(&self) -> Result<Vec<Rotation>> {
        self.all(&format!("SELECT {COLUMNS} FROM rotations ORDER BY net"), rotation_of)
    }

    /// A network's last rotation, if there ever was one.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn rotation(&self, net: Net) -> Result<Option<Rotation>> {
        Ok(self.rotations()?.into_iter().find(|r| r.net == net))
    }

    /// Draws a new key for a network; from now on it is handed out to every device that is not revoked.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] while another rotation is under way.
    pub fn rotate_network_key(&mut self, vault: &Vault, net: Net, why: Why, now_unix_s: u64) -> Result<Rotation> {
        let last = self.rotation(net)?;
        if let Some(rotation) = last.as_ref().filter(|r| r.is_under_way()) {
            return refuse(format!(
                "the key of network {net} is being rotated already ({}); let it end, or retire or roll it back first",
                rotation.stage()
            ));
        }
        self.begin_rotation(vault, net, last, why, now_unix_s)?
            .ok_or_else(|| RegistryError::Refused(format!("the key of network {net} was rotated in this moment")))
    }

    /// The same after one that is over and was to start over; `None` when it was done already.
    ///
    /// # Errors
    /// [`RegistryError::Database`]; [`RegistryError::Vault`].
    pub fn start_rotation_over(&mut self, vault: &Vault, over: &Rotation, now_unix_s: u64) -> Result<Option<Rotation>> {
        if over.is_under_way() || !over.starts_over {
            return Ok(None);
        }
        self.begin_rotation(vault, over.net, Some(over.clone()), Why::Revocation, now_unix_s)
    }

    fn begin_rotation(
        &mut self,
        vault: &Vault,
        net: Net,
        last: Option<Rotation>,
        why: Why,
        now_unix_s: u64,
    ) -> Result<Option<Rotation>> {
        let keys = self.network_keys(vault, net)?;
        let Some(previous) = keys.iter().find(|k| k.phase == Phase::Switch).map(|k| k.index) else {
            return refuse(format!("network {net} has no key to rotate"));
        };
        // An index comes again only after all others: devices that were away may have a key that was taken back.
        let mut index = next_index(last.as_ref().map_or(previous, |r| r.index));
        while keys.iter().any(|k| k.index == index) {
            index = next_index(index);
        }
        let key = random::<16>()?;
        let sealed = vault.seal(&key_name(net, index), key.as_slice())?;
        let begun = Rotation { is_urgent: why == Why::Revocation, ..Rotation::begin(net, previous, index, now_unix_s) };
        self.change_if(Done::new("network key drawn", format_args!("network {net}, key {index}")), |tx| {
            if read(tx, net)? != last {
                return Ok(None);
            }
            tx.execute(
                "INSERT INTO network_keys VALUES (?, ?, ?, ?, NULL)",
                params![net.0, index, Phase::Distribute.wire(), sealed],
            )?;
            write(tx, &begun)?;
            Ok(Some(begun))
        })
    }

    /// Puts `after` in the place of `before`, if that is what stands there; else nothing happens, and the answer is
    /// `false`: somebody else was there before.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn turn_rotation(&mut self, before: &Rotation, after: &Rotation) -> Result<bool> {
        if before.net != after.net {
            return Ok(false);
        }
        let turned = self.change_if(
            Done::new(
                "rotation went on",
                format_args!("network {}, key {}, {}", after.net, after.index, after.stage()),
            ),
            |tx| {
                if read(tx, before.net)?.as_ref() != Some(before) {
                    return Ok(None);
                }
                write(tx, after).map(Some)
            },
        )?;
        Ok(turned.is_some())
    }

    /// The operator's word: takes a step of a network's rotation as it stands now.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when it does not fit, or somebody else took one in this moment.
    pub fn step_rotation(
        &mut self,
        net: Net,
        step: impl FnOnce(&Rotation) -> std::result::Result<Rotation, NotNow>,
    ) -> Result<Rotation> {
        let Some(before) = self.rotation(net)? else {
            return refuse(format!("the key of network {net} was never rotated; start with: fivefold key rotate"));
        };
        let after = step(&before).or_else(|not| refuse(format!("network {net}: {not}")))?;
        if self.turn_rotation(&before, &after)? {
            Ok(after)
        } else {
            refuse(format!("the rotation of network {net} went on in this moment; see: fivefold key show"))
        }
    }

    /// Rotates a network's key because a device of it was revoked, also while it is being rotated.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when the device is not revoked.
    pub fn shut_out(&mut self, vault: &Vault, did: Did, now_unix_s: u64) -> Result<ShutOut> {
        let device = self.device(did)?;
        let Some(revoked_at) = device.revoked_at else { return refuse(format!("device {did} is not revoked")) };
        match self.rotation(device.net)?.filter(Rotation::is_under_way) {
            None => self.rotate_network_key(vault, device.net, Why::Revocation, now_unix_s).map(ShutOut::Begun),
            // It began with everybody else already; in the same second nobody knows what was first.
            Some(r) if r.started_at > revoked_at => {
                let hurry = |r: &Rotation| r.overtaken().map(|o| Rotation { starts_over: r.starts_over, ..o });
                self.step_rotation(device.net, hurry).map(ShutOut::Hurried)
            }
            Some(_) => self.step_rotation(device.net, Rotation::overtaken).map(ShutOut::Overtaken),
        }
    }

    /// Whether [`forget_network_keys`](Self::forget_network_keys) has something to do.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn has_expired_network_keys(&self, now_unix_s: u64) -> Result<bool> {
        let before = now_unix_s.saturating_sub(RECOVERY_S) as i64;
        let sql = "SELECT EXISTS (SELECT 1 FROM network_keys WHERE phase = 3 AND retired_at < ?)";
        self.db.query_row(sql, [before], |r| r.get(0)).map_err(|e| self.failed(e))
    }

    /// Deletes keys whose recovery is over. Returns how many.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn forget_network_keys(&mut self, now_unix_s: u64) -> Result<usize> {
        let before = now_unix_s.saturating_sub(RECOVERY_S) as i64;
        let forgotten = self.change_if(Done::new("network keys deleted", "their recovery is over"), |tx| {
            let n = tx.execute("DELETE FROM network_keys WHERE phase = 3 AND retired_at < ?", [before])?;
            // Nothing is counted up for nothing: every version is pushed to every gateway.
            Ok((n > 0).then_some(n))
        })?;
        Ok(forgotten.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use fivefold_core::profile::Profile;

    use super::*;
    use crate::registry::NewDevice;
    use fivefold_core::profile::{Overrides, Policy};

    struct Book {
        _folder: tempfile::TempDir,
        vault: Vault,
        registry: Registry,
        net: Net,
    }

    fn book() -> Book {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut registry =
            Registry::create(&folder.path().join("registry.db"), super::super::By::new("test", "here", "test", 1))
                .unwrap();
        let net = registry.add_network(&vault, "field-7", Profile::ToCloud, None).unwrap().net;
        Book { _folder: folder, vault, registry, net }
    }

    impl Book {
        fn rotate(&mut self, now: u64) -> Result<Rotation> {
            self.registry.rotate_network_key(&self.vault, self.net, Why::Planned, now)
        }

        fn step(&mut self, step: impl FnOnce(&Rotation) -> std::result::Result<Rotation, NotNow>) -> Result<Rotation> {
            self.registry.step_rotation(self.net, step)
        }

        fn phases(&self) -> Vec<(u8, u8)> {
            let keys = self.registry.network_keys(&self.vault, self.net).unwrap();
            keys.iter().map(|k| (k.index, k.phase.wire())).collect()
        }

        fn device(&mut self) -> Did {
            let new = NewDevice {
                did: None,
                sid: None,
                net: self.net,
                policy: Policy::new(Profile::ToCloud),
                overrides: Overrides::NONE,
                words: None,
                key: None,
            };
            self.registry.add_device(&self.vault, &new, 1).unwrap().0.did
        }
    }

    #[test]
    fn a_rotation_goes_from_hand_out_to_forgotten_and_every_step_has_a_version() {
        let mut b = book();
        let mut version = b.registry.version().unwrap();
        let mut newer = |b: &Book| {
            let now = b.registry.version().unwrap();
            assert_eq!(std::mem::replace(&mut version, now) + 1, now);
        };
        let rotation = b.rotate(100).unwrap();
        assert_eq!((rotation.previous, rotation.index, rotation.stage().as_str()), (1, 2, "handing out"));
        assert_eq!(b.phases(), [(1, 2), (2, 1)]);
        newer(&b);
        assert!(b.rotate(101).unwrap_err().to_string().contains("already"));
        assert!(b.step(|r| r.paused()).unwrap().is_paused);
        assert_eq!(b.phases(), [(1, 2), (2, 4)]);
        newer(&b);
        b.step(|r| r.resumed()).unwrap();
        newer(&b);
        assert_eq!(b.step(|r| r.switched(200)).unwrap().switched_at, Some(200));
        assert_eq!(b.phases(), [(1, 4), (2, 2)]);
        newer(&b);
        assert_eq!(b.step(|r| r.retired(300)).unwrap().stage().as_str(), "done");
        assert_eq!(b.phases(), [(1, 3), (2, 2)]);
        newer(&b);
        assert_eq!(b.registry.forget_network_keys(300 + RECOVERY_S).unwrap(), 0);
        assert_eq!(b.registry.version().unwrap(), version);
    }

    #[test]
    fn a_key_is_forgotten_thirty_days_after_it_retired_whatever_was_rotated_since() {
        let mut b = book();
        for at in [100, 1_000] {
            b.rotate(at).unwrap();
            b.step(|r| r.switched(at)).unwrap();
            b.step(|r| r.retired(at)).unwrap();
        }
        b.rotate(2_000).unwrap();
        assert_eq!(b.phases(), [(1, 3), (2, 3), (3, 2), (4, 1)]);
        assert!(!b.registry.has_expired_network_keys(100 + RECOVERY_S).unwrap());
        assert!(b.registry.has_expired_network_keys(101 + RECOVERY_S).unwrap());
        assert_eq!(b.registry.forget_network_keys(101 + RECOVERY_S).unwrap(), 1);
        assert_eq!(b.phases(), [(2, 3), (3, 2), (4, 1)]);
        assert_eq!(b.registry.forget_network_keys(101 + RECOVERY_S).unwrap(), 0);
    }

    #[test]
    fn a_book_of_before_is_brought_to_the_present_form_with_what_is_in_it() {
        let mut b = book();
        let path = b._folder.path().join("registry.db");
        b.rotate(100).unwrap();
        b.registry.db.pragma_update(None, "query_only", false).unwrap();
        for (table, column, _) in ADDED {
            b.registry.db.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN {column}")).unwrap();
        }
        b.registry.db.pragma_update(None, "user_version", 2).unwrap();
        let again = Registry::open(&path, super::super::By::new("test", "here", "test", 1)).unwrap();
        assert_eq!(again.rotation(b.net).unwrap(), Some(Rotation::begin(b.net, 1, 2, 100)));
        assert_eq!(again.network_keys(&b.vault, b.net).unwrap().len(), 2);
    }

    #[test]
    fn every_key_is_another_one() {
        let mut b = book();
        b.rotate(100).unwrap();
        let keys = b.registry.network_keys(&b.vault, b.net).unwrap();
        assert_ne!(keys[0].key, keys[1].key);
    }

    #[test]
    fn an_index_that_was_rolled_back_is_not_used_again() {
        let mut b = book();
        b.rotate(100).unwrap();
        b.step(|r| r.switched(200)).unwrap();
        assert_eq!(b.step(|r| r.rolled_back(300)).unwrap().stage().as_str(), "rolling back");
        assert_eq!(b.phases(), [(1, 2), (2, 4)]);
        b.step(|r| r.retired(400)).unwrap();
        assert_eq!(b.phases(), [(1, 2), (2, 3)]);
        let again = b.rotate(500).unwrap();
        assert_eq!((again.previous, again.index), (1, 3));
        assert_eq!(b.phases(), [(1, 2), (2, 3), (3, 1)]);
    }

    #[test]
    fn whoever_comes_second_or_again_changes_nothing() {
        let mut b = book();
        let before = b.rotate(100).unwrap();
        let after = before.switched(200).unwrap();
        assert!(b.registry.turn_rotation(&before, &after).unwrap());
        let version = b.registry.version().unwrap();
        for (from, to) in [(&before, &after), (&before, &before.rolled_back(210).unwrap())] {
            assert!(!b.registry.turn_rotation(from, to).unwrap());
        }
        assert_eq!(b.registry.rotation(b.net).unwrap(), Some(after.clone()));
        assert_eq!(b.registry.start_rotation_over(&b.vault, &before, 300).unwrap(), None);
        let done = after.retired(300).unwrap();
        b.registry.turn_rotation(&after, &done).unwrap();
        assert_eq!(b.registry.start_rotation_over(&b.vault, &done, 300).unwrap(), None, "nobody asked for it");
        assert_eq!(b.registry.version().unwrap(), version + 1);
        let asked = Rotation { starts_over: true, ..done.clone() };
        b.registry.turn_rotation(&done, &asked).unwrap();
        let again = b.registry.start_rotation_over(&b.vault, &asked, 400).unwrap().unwrap();
        assert!(again.is_urgent && !again.starts_over && again.started_at == 400);
        assert_eq!(b.registry.start_rotation_over(&b.vault, &asked, 400).unwrap(), None);
    }

    #[test]
    fn a_revoked_device_is_shut_out_whatever_is_under_way() {
        let mut b = book();
        let (first, second, third) = (b.device(), b.device(), b.device());
        assert!(b.registry.shut_out(&b.vault, first, 100).unwrap_err().to_string().contains("not revoked"));
        b.registry.revoke_device(first, 100).unwrap();
        let ShutOut::Begun(r) = b.registry.shut_out(&b.vault, first, 101).unwrap() else { panic!() };
        assert!(r.is_urgent && !r.starts_over);
        let ShutOut::Hurried(same) = b.registry.shut_out(&b.vault, first, 102).unwrap() else { panic!() };
        assert_eq!(same, r, "asked twice is asked once");
        b.registry.revoke_device(second, 110).unwrap();
        let ShutOut::Overtaken(r) = b.registry.shut_out(&b.vault, second, 111).unwrap() else { panic!() };
        assert!(r.is_urgent && r.starts_over);
        // What is to start over stays so.
        let ShutOut::Hurried(r) = b.registry.shut_out(&b.vault, first, 112).unwrap() else { panic!() };
        assert!(r.starts_over);
        b.step(|r| r.switched(120)).unwrap();
        let done = b.step(|r| r.retired(130)).unwrap();
        assert!(b.registry.start_rotation_over(&b.vault, &done, 131).unwrap().is_some());
        b.registry.revoke_device(third, 131).unwrap();
        let ShutOut::Overtaken(_) = b.registry.shut_out(&b.vault, third, 131).unwrap() else { panic!() };
    }

    #[test]
    fn steps_out_of_order_are_refused_with_what_to_type() {
        let mut b = book();
        for refused in [b.step(|r| r.switched(1)), b.step(|r| r.retired(1)), b.step(|r| r.paused())] {
            assert!(refused.unwrap_err().to_string().contains("fivefold key rotate"));
        }
        b.rotate(1).unwrap();
        assert!(b.step(|r| r.retired(1)).unwrap_err().to_string().contains("fivefold key show"));
    }
}
