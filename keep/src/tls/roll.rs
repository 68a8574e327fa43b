//! Which certificates of gateways count: those that the operator's book has, and no other, whoever signed them.

use std::collections::HashMap;

use arc_swap::ArcSwap;
use fivefold_core::e4_channel::{GatewayName, ProvenGateway};
use fivefold_core::error::Rejected;
use fivefold_core::time::Millis;
use rustls::ServerConnection;

use super::leaf::{Leaf, ROLE, Serial};

/// What a certificate in the book counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is good as long as it is valid.
    InForce,
    /// The same; and when it has ended, a connection with it may still ask for the next one.
    Late {
        /// As long as the operator's word holds.
        until: Millis,
    },
    /// It or its gateway is revoked.
    Revoked,
}

/// The book's certificates of gateways, by serial number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    entries: HashMap<Serial, (GatewayName, Standing)>,
}

/// The roll that every handshake consults: whoever learns of a change stores a new one.
pub type LiveRoll = ArcSwap<Roll>;

impl FromIterator<(Serial, GatewayName, Standing)> for Roll {
    fn from_iter<I: IntoIterator<Item = (Serial, GatewayName, Standing)>>(entries: I) -> Self {
        Self { entries: entries.into_iter().map(|(serial, name, standing)| (serial, (name, standing))).collect() }
    }
}

/// Whom a handshake proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Which gateway.
    pub name: GatewayName,
    /// By which certificate.
    pub serial: Serial,
    /// When that ends.
    pub not_after: Millis,
    /// What it may do.
    pub may: May,
}

/// What a connection may be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum May {
    /// All that a gateway does.
    Everything(ProvenGateway),
    /// Asking for its next certificate: the one it showed has ended, and the operator allows that.
    Renew,
}

impl Roll {
    /// Whether a certificate may still be used for anything, now that it was shown once.
    pub fn is_in_force(&self, serial: &Serial) -> bool {
        self.entries.get(serial).is_some_and(|(_, standing)| *standing != Standing::Revoked)
    }

    /// Role, name and standing of a certificate whose chain holds, and what it may be used for at `now`.
    pub(super) fn judge(&self, leaf: &Leaf, now: Millis) -> Result<Proven, Rejected> {
        let name = leaf.gateway()?;
        let standing = match self.entries.get(&leaf.serial) {
            Some((of, standing)) if *of == name => *standing,
            _ => return Err(Rejected::new(ROLE, "the certificate is not in the operator's book")),
        };
        let late = match standing {
            Standing::Revoked => return Err(Rejected::new(ROLE, "the gateway or its certificate is revoked")),
            Standing::Late { until } => now < until,
            Standing::InForce => false,
        };
        let may = if now < leaf.not_before || (now >= leaf.not_after && !late) {
            return Err(Rejected::new(ROLE, "the certificate is expired, or not valid yet"));
        } else if now >= leaf.not_after {
            May::Renew
        } else {
            May::Everything(ProvenGateway::assertion(name))
        };
        Ok(Proven { name, serial: leaf.serial.clone(), not_after: leaf.not_after, may })
    }

    /// At which time the chain of a certificate is to be checked: now, or just before its end where the operator allows a
    /// late renewal.
    pub(super) fn time_for(&self, leaf: &Leaf, now: Millis) -> Millis {
        match self.entries.get(&leaf.serial) {
            Some((_, Standing::Late { until })) if now >= leaf.not_after && now < *until => {
                Millis(leaf.not_after.0.saturating_sub(1000))
            }
            _ => now,
        }
    }
}

/// What the acceptor does after every handshake, resumed or not: role, name, validity and standing of the gateway that
/// the connection belongs to.
///
/// # Errors
/// E4-01 with what is wrong.
pub fn prove_gateway(connection: &ServerConnection, roll: &Roll, now: Millis) -> Result<Proven, Rejected> {
    if connection.is_handshaking() {
        return Err(Rejected::new(ROLE, "the handshake is not over"));
    }
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    roll.judge(&Leaf::read(certificate.ok_or(Rejected::new(ROLE, "no client certificate"))?)?, now)
}
