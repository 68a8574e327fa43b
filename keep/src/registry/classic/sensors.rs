//! Sensors that a user added to the software of a network's nodes, as the operator's file has them.

use std::collections::HashMap;
use std::sync::Arc;

use fivefold_core::id::Net;
use rusqlite::params;

use super::super::deeds::Done;
use super::{Network, Registry, RegistryError, Result, refuse};
use crate::own_sensors::OwnSensors;

impl Registry {
    /// Takes the sensors of a file for the classic devices of a network, in place of those that it had; `None` takes none.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] where the network takes no classic devices, or the text names
    /// its mistakes.
    pub fn set_classic_sensors(&mut self, network: &str, text: Option<&str>) -> Result<(Network, OwnSensors)> {
        let network = self.network(network)?;
        if !self.classic_networks()?.contains(&network.net) {
            return refuse(format!(
                "network {} takes no classic devices, and no other has such sensors; allow them: fivefold network set {} \
                 --classic yes",
                network.name, network.name
            ));
        }
        let own = text.map(OwnSensors::read).transpose().or_else(|mistakes| refuse(mistakes.to_string()))?;
        self.change(Done::new("sensors of classic devices set", format_args!("network {}", network.name)), |tx| {
            match text {
                Some(text) => {
                    tx.execute("INSERT OR REPLACE INTO classic_sensors VALUES (?, ?)", params![network.net.0, text])
                }
                None => tx.execute("DELETE FROM classic_sensors WHERE net = ?", [network.net.0]),
            }
        })?;
        Ok((network, own.unwrap_or_default()))
    }

    /// The sensors of each network that has some of its own.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`] where the book has some that cannot be read.
    pub fn classic_sensors(&self) -> Result<HashMap<Net, Arc<OwnSensors>>> {
        let rows =
            self.all("SELECT net, file FROM classic_sensors", |r| Ok((Net(r.get(0)?), r.get::<_, String>(1)?)))?;
        let read = |(net, text): (Net, String)| match OwnSensors::read(&text) {
            Ok(own) => Ok((net, Arc::new(own))),
            Err(mistakes) => Err(RegistryError::Damaged {
                path: self.path.clone(),
                reason: format!("sensors of network {net}: {mistakes}"),
            }),
        };
        rows.into_iter().map(read).collect()
    }
}
