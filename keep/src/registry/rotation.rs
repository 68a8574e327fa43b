//! Rotation of a network's key (docs/protocol.md 4.3): hand out, switch, retire, forget; and back, as long as devices still
//! have the key before.

use fivefold_core::e1_link::rotation::next_index;
use fivefold_core::id::Net;
use fivefold_core::wire::state::Phase;
use rusqlite::{Row, params};

use super::{Registry, RegistryError, Result, hidden, key_name};
use crate::vault::{Vault, random};

/// How long devices keep the key before after a switch, in seconds: then it is retired.
pub const DRAIN_S: u64 = 7 * 86_400;
/// How long gateways keep a retired key, in seconds, to take nothing but EDHOC under it: then it is deleted.
pub const RECOVERY_S: u64 = 30 * 86_400;

/// Where the rotation of a network's key stands, or how the last one ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The network.
    pub net: Net,
    /// Index of the key before.
    pub previous: u8,
    /// Index of the new key.
    pub index: u8,
    /// When it began, Unix seconds.
    pub started_at: u64,
    /// When gateways began to send under the new key.
    pub switched_at: Option<u64>,
    /// When the key before was given up (or, after a rollback, the new one).
    pub retired_at: Option<u64>,
    /// Nobody is told anything, and nothing goes on by itself.
    pub is_paused: bool,
}

impl Rotation {
    /// In a word: `handing out`, `draining` or `done`.
    pub const fn stage(&self) -> &'static str {
        match (self.switched_at, self.retired_at) {
            (_, Some(_)) => "done",
            (Some(_), None) => "draining",
            (None, None) => "handing out",
        }
    }

    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            net: Net(row.get(0)?),
            previous: row.get(1)?,
            index: row.get(2)?,
            started_at: hidden(row.get(3)?),
            switched_at: row.get::<_, Option<i64>>(4)?.map(hidden),
            retired_at: row.get::<_, Option<i64>>(5)?.map(hidden),
            is_paused: row.get(6)?,
        })
    }
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
        let sql =
            "SELECT net, previous, idx, started_at, switched_at, retired_at, is_paused FROM rotations ORDER BY net";
        self.all(sql, Rotation::of)
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
    /// [`RegistryError::Refused`] while another rotation is under way, or when no index is free.
    pub fn rotate_network_key(&mut self, vault: &Vault, net: Net, now_unix_s: u64) -> Result<Rotation> {
        if let Some(rotation) = self.rotation(net)?.filter(|r| r.retired_at.is_none()) {
            return refuse(format!(
                "the key of network {net} is being rotated already ({}); let it end, or retire or roll it back first",
                rotation.stage()
            ));
        }
        let keys = self.network_keys(vault, net)?;
        let Some(previous) = keys.iter().find(|k| k.phase == Phase::Switch).map(|k| k.index) else {
            return refuse(format!("network {net} has no key to rotate"));
        };
        let index = next_index(previous);
        if keys.iter().any(|k| k.index == index) {
            return refuse(format!(
                "key index {index} of network {net} is in recovery still; wait until it is deleted"
            ));
        }
        let key = random::<16>()?;
        let sealed = vault.seal(&key_name(net, index), key.as_slice())?;
        self.change(|tx| {
            tx.execute(
                "INSERT INTO network_keys VALUES (?, ?, ?, ?)",
                params![net.0, index, Phase::Distribute.wire(), sealed],
            )?;
            tx.execute(
                "INSERT OR REPLACE INTO rotations VALUES (?, ?, ?, ?, NULL, NULL, 0)",
                params![net.0, previous, index, now_unix_s as i64],
            )
        })?;
        self.the_rotation(net)
    }

    /// Lets gateways, and by them all nodes, send under the new key.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when no key is being handed out.
    pub fn switch_network_key(&mut self, net: Net, now_unix_s: u64) -> Result<Rotation> {
        let rotation = self.the_rotation(net)?;
        if rotation.stage() != "handing out" {
            return refuse(format!("no key of network {net} is being handed out; start with: fivefold key rotate"));
        }
        self.change(|tx| {
            set_phase(tx, net, rotation.index, Phase::Switch)?;
            set_phase(tx, net, rotation.previous, Phase::Distribute)?;
            tx.execute("UPDATE rotations SET switched_at = ? WHERE net = ?", params![now_unix_s as i64, net.0])
        })?;
        self.the_rotation(net)
    }

    /// Gives up the key before. Gateways keep it for [`RECOVERY_S`], to take EDHOC under it and nothing else.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] before the switch.
    pub fn retire_network_key(&mut self, net: Net, now_unix_s: u64) -> Result<Rotation> {
        let rotation = self.the_rotation(net)?;
        if rotation.stage() != "draining" {
            return refuse(format!("no key of network {net} is draining; see: fivefold key show"));
        }
        self.change(|tx| {
            set_phase(tx, net, rotation.previous, Phase::Retire)?;
            tx.execute("UPDATE rotations SET retired_at = ? WHERE net = ?", params![now_unix_s as i64, net.0])
        })?;
        self.the_rotation(net)
    }

    /// Goes back one step, and pauses: from draining to handing out, from handing out to the key before.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when the key before was given up.
    pub fn roll_back_network_key(&mut self, net: Net, now_unix_s: u64) -> Result<Rotation> {
        let rotation = self.the_rotation(net)?;
        match rotation.stage() {
            "draining" => self.change(|tx| {
                set_phase(tx, net, rotation.previous, Phase::Switch)?;
                set_phase(tx, net, rotation.index, Phase::Distribute)?;
                tx.execute("UPDATE rotations SET switched_at = NULL, is_paused = 1 WHERE net = ?", [net.0])
            })?,
            "handing out" => self.change(|tx| {
                set_phase(tx, net, rotation.index, Phase::Retire)?;
                let sql = "UPDATE rotations SET retired_at = ?, is_paused = 0 WHERE net = ?";
                tx.execute(sql, params![now_unix_s as i64, net.0])
            })?,
            _ => return refuse(format!("the key before was given up in network {net}; rotate again instead")),
        };
        self.the_rotation(net)
    }

    /// Pauses a rotation, or lets it go on.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when none is under way.
    pub fn set_rotation_paused(&mut self, net: Net, is_paused: bool) -> Result<Rotation> {
        if self.the_rotation(net)?.retired_at.is_some() {
            return refuse(format!("no key of network {net} is being rotated"));
        }
        self.change(|tx| tx.execute("UPDATE rotations SET is_paused = ? WHERE net = ?", params![is_paused, net.0]))?;
        self.the_rotation(net)
    }

    /// Deletes keys whose recovery is over. Returns how many.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn forget_network_keys(&mut self, now_unix_s: u64) -> Result<usize> {
        let before = now_unix_s.saturating_sub(RECOVERY_S) as i64;
        let over = "phase = 3 AND net IN (SELECT net FROM rotations WHERE retired_at < ?)";
        let sql = format!("SELECT count(*) FROM network_keys WHERE {over}");
        let n: i64 = self.db.query_row(&sql, [before], |r| r.get(0)).map_err(|e| self.failed(e))?;
        // Nothing is counted up for nothing: every version is pushed to every gateway.
        if n > 0 {
            self.change(|tx| tx.execute(&format!("DELETE FROM network_keys WHERE {over}"), [before]))?;
        }
        Ok(usize::try_from(n).unwrap_or(0))
    }

    fn the_rotation(&self, net: Net) -> Result<Rotation> {
        match self.rotation(net)? {
            Some(rotation) => Ok(rotation),
            None => refuse(format!("the key of network {net} was never rotated; start with: fivefold key rotate")),
        }
    }
}

fn set_phase(tx: &rusqlite::Transaction<'_>, net: Net, index: u8, phase: Phase) -> rusqlite::Result<usize> {
    tx.execute("UPDATE network_keys SET phase = ? WHERE net = ? AND idx = ?", params![phase.wire(), net.0, index])
}

#[cfg(test)]
mod tests {
    use fivefold_core::profile::Profile;

    use super::*;

    fn book() -> (tempfile::TempDir, Vault, Registry, Net) {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut book = Registry::create(&folder.path().join("registry.db")).unwrap();
        let net = book.add_network(&vault, "field-7", Profile::ToCloud, None).unwrap().net;
        (folder, vault, book, net)
    }

    fn phases(book: &Registry, vault: &Vault, net: Net) -> Vec<(u8, u8)> {
        book.network_keys(vault, net).unwrap().iter().map(|k| (k.index, k.phase.wire())).collect()
    }

    #[test]
    fn a_rotation_goes_from_hand_out_to_forgotten_and_every_step_has_a_version() {
        let (_folder, vault, mut book, net) = book();
        let mut version = book.version().unwrap();
        let mut newer = |book: &Registry| {
            let now = book.version().unwrap();
            assert!(std::mem::replace(&mut version, now) < now);
        };
        let rotation = book.rotate_network_key(&vault, net, 100).unwrap();
        assert_eq!((rotation.previous, rotation.index, rotation.stage()), (1, 2, "handing out"));
        assert_eq!(phases(&book, &vault, net), [(1, 2), (2, 1)]);
        newer(&book);
        assert!(book.rotate_network_key(&vault, net, 101).unwrap_err().to_string().contains("already"));
        assert_eq!(book.switch_network_key(net, 200).unwrap().switched_at, Some(200));
        assert_eq!(phases(&book, &vault, net), [(1, 1), (2, 2)]);
        newer(&book);
        assert_eq!(book.retire_network_key(net, 300).unwrap().stage(), "done");
        assert_eq!(phases(&book, &vault, net), [(1, 3), (2, 2)]);
        newer(&book);
        assert_eq!(book.forget_network_keys(300 + RECOVERY_S).unwrap(), 0);
        assert_eq!(book.forget_network_keys(301 + RECOVERY_S).unwrap(), 1);
        assert_eq!(phases(&book, &vault, net), [(2, 2)]);
        newer(&book);
        assert_eq!(book.rotate_network_key(&vault, net, 400).unwrap().index, 3);
    }

    #[test]
    fn every_key_is_another_one() {
        let (_folder, vault, mut book, net) = book();
        book.rotate_network_key(&vault, net, 100).unwrap();
        let keys = book.network_keys(&vault, net).unwrap();
        assert_ne!(keys[0].key, keys[1].key);
    }

    #[test]
    fn a_rollback_goes_back_step_by_step_and_waits_for_the_operator() {
        let (_folder, vault, mut book, net) = book();
        book.rotate_network_key(&vault, net, 100).unwrap();
        book.switch_network_key(net, 200).unwrap();
        let back = book.roll_back_network_key(net, 300).unwrap();
        assert_eq!((back.stage(), back.is_paused), ("handing out", true));
        assert_eq!(phases(&book, &vault, net), [(1, 2), (2, 1)]);
        assert!(!book.set_rotation_paused(net, false).unwrap().is_paused);
        assert_eq!(book.roll_back_network_key(net, 400).unwrap().stage(), "done");
        assert_eq!(phases(&book, &vault, net), [(1, 2), (2, 3)]);
        for refused in [book.roll_back_network_key(net, 500), book.switch_network_key(net, 500)] {
            assert!(matches!(refused, Err(RegistryError::Refused(_))));
        }
        // Its index is in recovery until it is forgotten.
        assert!(book.rotate_network_key(&vault, net, 500).unwrap_err().to_string().contains("recovery"));
    }

    #[test]
    fn steps_out_of_order_are_refused_with_what_to_type() {
        let (_folder, _, mut book, net) = book();
        for refused in
            [book.switch_network_key(net, 1), book.retire_network_key(net, 1), book.set_rotation_paused(net, true)]
        {
            assert!(refused.unwrap_err().to_string().contains("fivefold key rotate"));
        }
    }
}
