//! # E2: device to gateway
//!
//! | | |
//! |---|---|
//! | Key held by | one device and the gateways of one group (only the primary can send) |
//! | Hides       | the body, from every relay |
//! | Proves      | which device spoke, to its gateway, and that it is new |
//! | Binds       | algorithm, device id, peer id (epoch), boot id, number, and in answers the request |
//! | Drops as    | `E2-01` stranger, `E2-02` expired, `E2-03` forged, `E2-04`..`E2-06` replayed, `E2-07` malformed |
//! | Does not    | hide who talks to whom; prove anything to the cloud but the gateway's word |
//! | Spec        | docs/protocol.md 3, 5, 6.3 |

use crate::error::Code;
use crate::level::{Level, OscoreLevel, sealed};

/// Level E2. There are no values of it: it only names keys and contexts.
pub enum E2 {}

impl sealed::Sealed for E2 {}

impl Level for E2 {
    const LABEL: &'static [u8; 4] = b"e2gw";
}

impl OscoreLevel for E2 {
    const UNKNOWN_KID: Code = Code::GatewayUnknownKid;
    const NO_CONTEXT: Code = Code::GatewayNoContext;
    const FORGED: Code = Code::GatewayForged;
    const REPLAYED: Code = Code::GatewayReplayed;
    const DUP: Code = Code::GatewayDuplicate;
    const NONCE_REUSE: Code = Code::GatewayNonceReuse;
    const INNER: Code = Code::GatewayInnerMalformed;
    const LEVEL_MISSING: Code = Code::GatewayLevelMissing;
    const LIMIT: Code = Code::GatewayLimitReached;
    const MAY_NEST: bool = true;
}
