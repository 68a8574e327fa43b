//! What stands beside a deployment, as `fivefold audit` is told of it.

use std::path::PathBuf;

use fivefold_audit::facts::Facts;
use fivefold_audit::foreign::System;
use fivefold_audit::gather;

use crate::meshlium;

/// Files of others, and nodes that are about to ship.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Beside {
    /// Look at a file of another system too: chirpstack, meshlium (a dump of its database), mosquitto, pg-hba, sshd or unit.
    /// Repeat for each.
    #[arg(long = "beside", value_name = "SYSTEM=FILE", value_parser = named)]
    files: Vec<(System, PathBuf)>,
    /// Look at a node's folder before it ships, or at its node.toml alone. Repeat for each.
    #[arg(long = "node", value_name = "FOLDER")]
    nodes: Vec<PathBuf>,
}

fn named(text: &str) -> Result<(System, PathBuf), String> {
    let all = System::ALL.map(System::as_str).join(", ");
    let expected = || format!("expected SYSTEM=FILE, as in sshd=/etc/ssh/sshd_config; SYSTEM is one of {all}");
    let (system, file) = text.split_once('=').filter(|(_, file)| !file.is_empty()).ok_or_else(expected)?;
    let system = System::ALL.into_iter().find(|s| s.as_str() == system).ok_or_else(expected)?;
    Ok((system, file.into()))
}

impl Beside {
    /// Whether nothing was named.
    pub(super) const fn is_empty(&self) -> bool {
        self.files.is_empty() && self.nodes.is_empty()
    }

    /// Looks at all of them. Nodes are compared with the book, so it comes first.
    pub(super) fn gather(&self, facts: &mut Facts) {
        for (system, path) in &self.files {
            match system {
                System::Meshlium => match meshlium::examine(path) {
                    Ok(notes) => gather::told(path, notes, facts),
                    Err(why) => facts.unread.push(format!("{why:#}")),
                },
                _ => gather::beside(*system, path, facts),
            }
        }
        for node in &self.nodes {
            gather::node(node, facts);
        }
    }
}
