//! What the columns of template rows mean (docs/protocol.md 7), by network.

use std::collections::{BTreeMap, HashMap};

use fivefold_core::id::Net;
use fivefold_core::reading::{Definition, Item, Payload, Template};
use fivefold_core::suite::sha256;
use fivefold_keep::registry::RegisteredTemplate;

/// All templates that are registered.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    by_net: HashMap<Net, BTreeMap<u64, Vec<u8>>>,
}

impl Templates {
    /// Of a registry.
    pub fn of(all: Vec<RegisteredTemplate>) -> Self {
        let mut by_net: HashMap<Net, BTreeMap<u64, Vec<u8>>> = HashMap::new();
        for RegisteredTemplate { net, id, definition, .. } in all {
            by_net.entry(net).or_default().insert(id, definition);
        }
        Self { by_net }
    }

    /// The definition that a row of this network fits.
    pub fn fits(&self, net: Net, row: &Template<'_>) -> Option<Definition<'_>> {
        let definition = Definition::parse(self.by_net.get(&net)?.get(&row.id())?).ok()?;
        definition.resolve(row).is_ok().then_some(definition)
    }

    /// The first template that a payload of this network has a fitting row of: its id, and the bytes that are registered.
    pub fn first_of(&self, net: Net, payload: &[u8]) -> Option<(u64, &[u8])> {
        rows(payload).find(|row| self.fits(net, row).is_some()).and_then(|row| {
            let definition = self.by_net.get(&net)?.get(&row.id())?;
            Some((row.id(), definition.as_slice()))
        })
    }

    /// Ids of the rows in a payload of this network that no registered template fits.
    pub fn strangers(&self, net: Net, payload: &[u8]) -> Vec<u64> {
        rows(payload).filter(|row| self.fits(net, row).is_none()).map(|row| row.id()).collect()
    }

    /// What the log says of the templates of a network: ids, ascending, and SHA-256 of the definitions.
    pub fn hashes(&self, net: Net) -> Vec<(u64, [u8; 32])> {
        let all = self.by_net.get(&net).into_iter().flatten();
        all.map(|(id, definition)| (*id, sha256(&[definition]))).collect()
    }
}

fn rows(payload: &[u8]) -> impl Iterator<Item = Template<'_>> {
    let items = match Payload::parse(payload) {
        Ok(Payload::Sequence(items)) => Some(items),
        Ok(Payload::Classic(_)) | Err(_) => None,
    };
    items.into_iter().flatten().filter_map(|item| match item {
        Item::Template(row) => Some(row),
        Item::Control(_) | Item::Senml(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_known_by_network_id_and_number_of_values() {
        // [3, ["level", "m"], ["open", null]]
        let definition = hex::decode("830382656c6576656c616d82646f70656ef6").unwrap();
        let one = RegisteredTemplate { net: Net(7), id: 3, definition: definition.clone(), added_at: 1 };
        let templates = Templates::of(vec![one]);
        // A row of it, one of another, and one with a value too few.
        let payload = hex::decode("8303182af6820401820305").unwrap();
        assert_eq!(templates.first_of(Net(7), &payload), Some((3, definition.as_slice())));
        assert_eq!(templates.strangers(Net(7), &payload), [4, 3]);
        assert_eq!(
            (templates.first_of(Net(8), &payload), templates.strangers(Net(8), &payload)),
            (None, vec![3, 4, 3])
        );
        assert_eq!(templates.hashes(Net(7)), [(3, sha256(&[&definition]))]);
        assert!(templates.strangers(Net(7), b"<=>frame").is_empty() && templates.hashes(Net(8)).is_empty());
    }
}
