//! # E4: gateway to cloud
//!
//! | | |
//! |---|---|
//! | Key held by | TLS 1.3 on both sides; certificates of the operator's CA |
//! | Hides       | batches and downlinks, from everybody between gateway and cloud |
//! | Proves      | to the cloud which gateway of which network speaks; to the gateway that it is its cloud |
//! | Binds       | role (client or server certificate), name, and network |
//! | Drops as    | `E4-01` stranger or revoked, `E4-02` wrong network, `E4-07` no post-quantum group |
//! | Does not    | prove what a device said: that is E3, or the gateway's word |
//! | Spec        | docs/protocol.md 10 |

use core::fmt;
use core::str::FromStr;

use crate::id::{GatewayId, InvalidId, Net};

/// What a gateway's certificate says of it, in its only SAN: `urn:gw:<net>:<gw>`, 8 lower-case hex digits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayName {
    /// The one network that it may speak for.
    pub net: Net,
    /// Which gateway it is.
    pub gateway: GatewayId,
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "urn:gw:{}:{}", self.net, self.gateway)
    }
}

impl FromStr for GatewayName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const INVALID: InvalidId = InvalidId { expected: "urn:gw:<net>:<gw>, 8 lower-case hex digits each" };
        let (net, gateway) = text.strip_prefix("urn:gw:").and_then(|t| t.split_once(':')).ok_or(INVALID)?;
        let digits = |t: &str| t.len() == 8 && t.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        if !digits(net) || !digits(gateway) {
            return Err(INVALID);
        }
        Ok(Self { net: net.parse().map_err(|_| INVALID)?, gateway: gateway.parse().map_err(|_| INVALID)? })
    }
}

/// A gateway whose certificate a TLS handshake proved, with role, name and revocation checked.
///
/// The only way to have one is [`ProvenGateway::assertion`], which the TLS acceptor calls:
/// ```compile_fail,E0451
/// use fivefold_core::{e4_channel::{GatewayName, ProvenGateway}, id::{GatewayId, Net}};
/// let _ = ProvenGateway { name: GatewayName { net: Net(1), gateway: GatewayId(2) } };
/// ```
/// ```
/// use fivefold_core::{e4_channel::{GatewayName, ProvenGateway}, id::{GatewayId, Net}};
/// let _ = ProvenGateway::assertion(GatewayName { net: Net(1), gateway: GatewayId(2) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProvenGateway {
    name: GatewayName,
}

impl ProvenGateway {
    /// The caller asserts that a handshake of docs/protocol.md 10 ended well and that `name` stands in the peer's
    /// certificate. For the TLS acceptor, and nobody else.
    pub const fn assertion(name: GatewayName) -> Self {
        Self { name }
    }

    /// What its certificate says.
    pub const fn name(&self) -> GatewayName {
        self.name
    }

    /// The network that it may speak for.
    pub const fn net(&self) -> Net {
        self.name.net
    }

    /// Which gateway it is.
    pub const fn gateway(&self) -> GatewayId {
        self.name.gateway
    }
}

/// How a reading was proven, for as long as it exists: nothing raises it later but a verified signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// E2: the gateway's word.
    Gateway(GatewayId),
    /// A classic frame that was encrypted.
    Legacy,
    /// E3: the node's own seal.
    Node,
    /// Nothing but the link: a classic frame in clear, or a device with E1 alone.
    Plain,
    /// The node's signature, verified.
    Signed,
}

impl Origin {
    /// One word: `node`, `gateway`, `legacy`, `plain` or `signed`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway(_) => "gateway",
            Self::Legacy => "legacy",
            Self::Node => "node",
            Self::Plain => "plain",
            Self::Signed => "signed",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_gateway_name_prints_what_it_parses() {
        let name: GatewayName = "urn:gw:00000007:000000a1".parse().unwrap();
        assert_eq!(name, GatewayName { net: Net(7), gateway: GatewayId(0xA1) });
        assert_eq!(name.to_string(), "urn:gw:00000007:000000a1");
    }

    #[test]
    fn any_other_spelling_of_a_gateway_name_is_refused() {
        for text in [
            "urn:gw:00000007",
            "urn:gw:00000007:000000A1",
            "URN:gw:00000007:000000a1",
            "urn:gw:0000007:000000a1",
            "urn:gw:00000007:000000a1:",
            "urn:gw:00000007:000000a1 ",
            "urn:gw:0000-007:000000a1",
            "urn:cloud:00000007:000000a1",
        ] {
            assert!(text.parse::<GatewayName>().is_err(), "{text}");
        }
    }
}
