//! # E3: device to cloud
//!
//! | | |
//! |---|---|
//! | Key held by | one device and the cloud |
//! | Hides       | the body, from every relay and gateway |
//! | Proves      | which device spoke, to the cloud, and that it is new |
//! | Binds       | algorithm, device id, peer id (epoch), boot id, number, and in answers the request |
//! | Drops as    | `E3-01` stranger, `E3-02` expired, `E3-03` forged, `E3-04`..`E3-06` replayed, `E3-07` malformed |
//! | Does not    | hide who talks to whom, or when; prove anything to third parties (that is a signature) |
//! | Spec        | docs/protocol.md 3, 5, 6 |

use crate::error::Code;
use crate::level::{Level, OscoreLevel, sealed};

/// Level E3. There are no values of it: it only names keys and contexts.
pub enum E3 {}

impl sealed::Sealed for E3 {}

impl Level for E3 {
    const LABEL: &'static [u8; 4] = b"e3cl";
}

impl OscoreLevel for E3 {
    const UNKNOWN_KID: Code = Code::CloudUnknownKid;
    const NO_CONTEXT: Code = Code::CloudNoContext;
    const FORGED: Code = Code::CloudForged;
    const REPLAYED: Code = Code::CloudReplayed;
    const DUP: Code = Code::CloudDuplicate;
    const NONCE_REUSE: Code = Code::CloudNonceReuse;
    const INNER: Code = Code::CloudInnerMalformed;
    const LEVEL_MISSING: Code = Code::CloudLevelMissing;
    const LIMIT: Code = Code::CloudLimitReached;
    const MAY_NEST: bool = false;
}
