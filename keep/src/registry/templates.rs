//! Templates of readings in the operator's book (docs/protocol.md 7): what the columns of rows mean, by network.
//!
//! A row stays for ever, and its id never gets another definition: readings of years ago are shown by it, and the log has
//! said its hash to everybody.

use fivefold_core::id::Net;
use fivefold_core::reading::Definition;
use rusqlite::{Connection, params};

use super::deeds::Done;
use super::{Network, Registry, RegistryError, Result, hidden};
use crate::templates::Template;

/// Templates of one network, at most: the log's record of each of its devices names them all.
const MOST: usize = 64;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS templates (         -- only grows
    net          INTEGER NOT NULL REFERENCES networks,
    id           INTEGER NOT NULL,
    definition   BLOB NOT NULL,            -- [id, [name, unit or null], ..] in CBOR
    added_at     INTEGER NOT NULL,
    UNIQUE (net, id)
) STRICT;";

pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(SCHEMA)
}

/// A template of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredTemplate {
    /// Whose.
    pub net: Net,
    /// Which one rows name.
    pub id: u64,
    /// What its columns are: it parses as a [`Definition`].
    pub definition: Vec<u8>,
    /// Since when.
    pub added_at: u64,
}

impl Registry {
    /// Registers templates for the devices of a network, all or none. Those that are there already stay as they are; how many
    /// are new is said.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] where an id has another definition, or there are too many.
    pub fn add_templates(
        &mut self,
        network: &str,
        templates: &[Template],
        now_unix_s: u64,
    ) -> Result<(Network, usize)> {
        let network = self.network(network)?;
        let before: Vec<RegisteredTemplate> = self.templates()?.into_iter().filter(|t| t.net == network.net).collect();
        let mut new = Vec::new();
        for template in templates {
            match before.iter().find(|t| t.id == template.id) {
                None => new.push(template),
                Some(known) if known.definition == template.definition => {}
                Some(_) => {
                    return Err(RegistryError::Refused(format!(
                        "line {}: template {} of network {} has another definition already, and keeps it: readings were made \
                         with it; give this one another id",
                        template.line, template.id, network.name
                    )));
                }
            }
        }
        if before.len() + new.len() > MOST {
            return Err(RegistryError::Refused(format!(
                "network {} would have {} templates, and {MOST} are the most; put devices of another type into a network of \
                 their own",
                network.name,
                before.len() + new.len()
            )));
        }
        if !new.is_empty() {
            self.change(
                Done::new("templates added", format_args!("network {}, {} templates", network.name, new.len())),
                |tx| {
                    for t in &new {
                        // As the bits of a number without a sign.
                        let id = i64::from_ne_bytes(t.id.to_ne_bytes());
                        tx.execute(
                            "INSERT INTO templates VALUES (?, ?, ?, ?)",
                            params![network.net.0, id, t.definition, now_unix_s as i64],
                        )?;
                    }
                    Ok(())
                },
            )?;
        }
        Ok((network, new.len()))
    }

    /// All templates, by network and id.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`] where the book has one that cannot be read.
    pub fn templates(&self) -> Result<Vec<RegisteredTemplate>> {
        let mut all = self.all("SELECT net, id, definition, added_at FROM templates", |r| {
            let id = u64::from_ne_bytes(r.get::<_, i64>(1)?.to_ne_bytes());
            Ok(RegisteredTemplate { net: Net(r.get(0)?), id, definition: r.get(2)?, added_at: hidden(r.get(3)?) })
        })?;
        if let Some(wrong) = all.iter().find(|t| Definition::parse(&t.definition).map_or(true, |d| d.id != t.id)) {
            let reason = format!("template {} of network {} cannot be read", wrong.id, wrong.net);
            return Err(RegistryError::Damaged { path: self.path.clone(), reason });
        }
        all.sort_by_key(|t| (t.net, t.id));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use fivefold_core::profile::Profile;

    use super::*;
    use crate::templates;
    use crate::vault::Vault;

    #[test]
    fn an_id_keeps_its_definition_within_its_network() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let path = folder.path().join("registry.db");
        let mut registry = Registry::create(&path, super::super::By::new("test", "here", "test", 1)).unwrap();
        for name in ["one", "two"] {
            registry.add_network(&vault, name, Profile::ToCloud, None).unwrap();
        }
        let of = |id: u64, unit: &str| {
            templates::read(&format!("[[template]]\nid = {id}\ncolumns = [{{ name = \"x\", unit = \"{unit}\" }}]\n"))
                .unwrap()
        };
        let version = registry.version().unwrap();
        assert_eq!(registry.add_templates("one", &of(3, "m"), 7).unwrap().1, 1);
        assert!(registry.version().unwrap() > version);
        let version = registry.version().unwrap();
        assert_eq!(registry.add_templates("one", &of(3, "m"), 8).unwrap().1, 0);
        assert_eq!(registry.version().unwrap(), version, "nothing changed");
        let refused = registry.add_templates("one", &[of(4, "m"), of(3, "cm")].concat(), 8).unwrap_err().to_string();
        assert!(refused.contains("template 3 of network one has another definition"), "{refused}");
        assert_eq!(registry.add_templates("two", &of(3, "cm"), 9).unwrap().1, 1, "another network, another type");
        let registry = Registry::open_read_only(&path).unwrap();
        let all = registry.templates().unwrap();
        let mut nets: Vec<_> = registry.networks().unwrap().iter().map(|n| n.net).collect();
        nets.sort();
        assert_eq!(all.iter().map(|t| (t.net, t.id)).collect::<Vec<_>>(), [(nets[0], 3), (nets[1], 3)]);
        assert!(all.iter().any(|t| t.added_at == 7) && all.iter().any(|t| t.added_at == 9));
    }

    #[test]
    fn a_network_has_so_many_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut registry =
            Registry::create(&folder.path().join("registry.db"), super::super::By::new("test", "here", "test", 1))
                .unwrap();
        registry.add_network(&vault, "one", Profile::ToCloud, None).unwrap();
        let many = |ids: std::ops::Range<usize>| {
            let all = ids.map(|id| format!("[[template]]\nid = {id}\ncolumns = [{{ name = \"x\" }}]\n"));
            templates::read(&all.collect::<String>()).unwrap()
        };
        assert!(registry.add_templates("one", &many(0..65), 1).is_err());
        assert_eq!(registry.add_templates("one", &many(0..64), 1).unwrap().1, 64);
        assert!(registry.add_templates("one", &many(64..65), 1).is_err());
        assert!(registry.add_templates("three", &many(0..1), 1).is_err());
    }
}
