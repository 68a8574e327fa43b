//! Every refusal has one code of docs/protocol.md 14: in code, metrics, API and docs alike.

use core::fmt;
use core::str::FromStr;

/// How loud a single occurrence is; thresholds that raise it are in docs/protocol.md 14.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Normal in operation.
    Info,
    /// Worth a look.
    Warning,
    /// Somebody should act today.
    High,
    /// Somebody should act now.
    Critical,
}

impl Severity {
    /// One word, lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What the sender of something refused did, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A key, number or credential past its life.
    Expired,
    /// A tag, signature or claim that does not hold.
    Forged,
    /// Bytes that no parser of ours takes.
    Malformed,
    /// Something that was seen before.
    Replayed,
    /// Somebody who is not known here.
    Stranger,
    /// Well formed, known, and not what the policy says.
    Unexpected,
}

macro_rules! codes {
    ($($variant:ident = $text:literal, $severity:ident, $kind:ident, $condition:literal;)*) => {
        /// A code of docs/protocol.md 14.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = concat!("`", $text, "`: ", $condition, ".")] $variant,)*
        }

        impl Code {
            /// All codes, in the order of docs/protocol.md 14.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it is written everywhere, e.g. `E1-05`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Severity of one occurrence.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// What the sender did, in one word.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// The condition, as docs/protocol.md 14 words it.
            pub const fn condition(self) -> &'static str {
                match self { $(Self::$variant => $condition,)* }
            }
        }
    };
}

codes! {
    LinkUnsecured = "E1-01", Warning, Unexpected, "unsecured frame on a secured network";
    LinkNotOurs = "E1-02", Info, Stranger, "wrong PAN / not ours";
    LinkLevelTooLow = "E1-03", High, Unexpected, "security level below minimum";
    LinkKeyUnknown = "E1-04", Warning, Expired, "unknown or retired key index";
    LinkForged = "E1-05", Warning, Forged, "MIC failure";
    LinkReplayed = "E1-06", Warning, Replayed, "counter not greater (replay)";
    LinkCounterJump = "E1-07", Warning, Replayed, "counter jump > 65536";
    LinkNeighbourUnknown = "E1-08", Info, Stranger, "unknown or unsynced neighbour, sid bound to another EUI-64";
    LinkCounterHigh = "E1-09", High, Expired, "counter > F0000000";
    LinkHopLimit = "E1-10", Info, Replayed, "hop limit / loop / repeat";
    LinkMalformed = "E1-11", Warning, Malformed, "malformed: short, bad FCS, frame type or FCF not of 4.1, empty payload, bad mesh header, unknown dispatch";
    TinyMalformed = "T-01", Warning, Malformed, "unknown RuleID, short, bad residue";
    PivNotMinimal = "T-02", Warning, Malformed, "non-minimal PIV";
    FragmentLost = "T-03", Info, Malformed, "fragment timeout / overlap";
    GatewayUnknownKid = "E2-01", Warning, Stranger, "unknown kid";
    GatewayNoContext = "E2-02", Info, Expired, "no context for epoch/bctx (kept as orphan, 24 h)";
    GatewayForged = "E2-03", High, Forged, "tag failure (FORGED)";
    GatewayReplayed = "E2-04", Warning, Replayed, "replay outside duplicate rule or window";
    GatewayDuplicate = "E2-05", Info, Replayed, "DUP";
    GatewayNonceReuse = "E2-06", Critical, Forged, "NONCE-REUSE";
    GatewayInnerMalformed = "E2-07", Warning, Malformed, "inner malformed (code, options, CBOR)";
    GatewayLevelMissing = "E2-08", Critical, Unexpected, "required level missing";
    GatewayLimitReached = "E2-09", High, Expired, "limit reached";
    CloudUnknownKid = "E3-01", Warning, Stranger, "unknown kid";
    CloudNoContext = "E3-02", Info, Expired, "no context for epoch/bctx (kept as orphan, 24 h)";
    CloudForged = "E3-03", High, Forged, "tag failure (FORGED)";
    CloudReplayed = "E3-04", Warning, Replayed, "replay outside duplicate rule or window";
    CloudDuplicate = "E3-05", Info, Replayed, "DUP";
    CloudNonceReuse = "E3-06", Critical, Forged, "NONCE-REUSE";
    CloudInnerMalformed = "E3-07", Warning, Malformed, "inner malformed (code, options, CBOR)";
    CloudLevelMissing = "E3-08", Critical, Unexpected, "required level missing";
    CloudLimitReached = "E3-09", High, Expired, "limit reached";
    CloudStale = "E3-10", Warning, Expired, "stale after drain";
    CloudPivGap = "E3-11", Warning, Unexpected, "PIV gap > 10 % per day";
    CloudSilence = "E3-12", Warning, Unexpected, "silence > 3 periods";
    CloudBootRepeats = "E3-13", Critical, Replayed, "same bctx restarts, or > 20 boots/day";
    ChannelRefused = "E4-01", High, Stranger, "TLS failure, bad/expired/revoked client certificate, refused request for one (10.1)";
    ChannelWrongNet = "E4-02", Critical, Forged, "certificate net differs from the net in an envelope's originator";
    ChannelSequence = "E4-03", High, Replayed, "sequence gap or repeat with other content";
    StoreFull = "E4-04", Warning, Unexpected, "store > 80 % / full";
    CloudUnreachable = "E4-05", Warning, Unexpected, "cloud unreachable > 15 min / 6 h";
    GatewayClockOff = "E4-06", Warning, Unexpected, "gateway clock off > 60 s";
    ChannelNotHybrid = "E4-07", High, Unexpected, "non-hybrid group where required";
    RenewalRate = "E5-01", Warning, Unexpected, "m1 rate exceeded";
    RenewalForged = "E5-02", High, Forged, "EDHOC verification failure";
    RenewalUnknownCredential = "E5-03", High, Stranger, "unknown or revoked credential";
    RenewalSuite = "E5-04", High, Unexpected, "suite/method not in policy";
    RenewalFailed = "E5-05", Warning, Unexpected, "renewal failed 3 times (reported in item 3)";
    RenewalEpochNotGreater = "E5-06", Critical, Replayed, "epoch not greater (reset or clone)";
    RenewalOverdue = "E5-07", Warning, Expired, "renewal overdue > 1.5 T_renew";
    KeyMessageRefused = "E5-08", Warning, Forged, "RSA message refused";
    RenewalLate = "E5-09", Info, Replayed, "late m3 of an abandoned run";
    EvidenceSignature = "EV-01", Critical, Forged, "batch signature invalid";
    EvidenceOverdue = "EV-02", High, Expired, "batch overdue (> 2 x limit) where signing required";
    EvidenceIncomplete = "EV-03", Warning, Malformed, "batch cannot be completed";
    EvidenceChain = "EV-04", High, Forged, "prev hash does not chain";
    EvidenceLog = "EV-05", Critical, Forged, "log inconsistency, missing witness > 24 h";
    ClassicMalformed = "CL-01", Warning, Malformed, "classic: malformed frame";
    ClassicRelabelled = "CL-02", High, Unexpected, "classic: plain or relabelled frame of a device that has a key";
    ClassicForeignInner = "CL-03", Critical, Forged, "classic: inner serial is not the outer one";
    ClassicForged = "CL-04", High, Forged, "classic: does not open under the device's key, or what it opens to is no frame";
    ClassicReplayed = "CL-05", Warning, Replayed, "classic: the same frame again";
    ClassicSpliced = "CL-06", Critical, Forged, "classic: made of blocks of earlier frames";
    ClassicUnknown = "CL-07", Warning, Stranger, "classic: unknown serial or DevEUI";
    ClassicSequence = "CL-08", Warning, Replayed, "classic: impossible sequence";
    ClassicOverTheAir = "CL-09", High, Unexpected, "classic: over-the-air command heard";
    ClassicTooMany = "CL-10", Warning, Unexpected, "classic: too many from one address or serial, or a limit of a listener";
    ClassicToken = "CL-11", Warning, Stranger, "classic: bearer token missing or wrong";
    ClassicTimeAnswered = "CL-12", Info, Unexpected, "classic: time request answered";
    ClassicWeakKey = "CL-13", Critical, Unexpected, "classic: weak key (zero, short, dictionary)";
    HardenedForged = "CL-14", High, Forged, "classic, hardened: tag failure";
    HardenedReplayed = "CL-15", Warning, Replayed, "classic, hardened: number repeated or too old";
    ClassicUnknownSensor = "CL-16", Info, Malformed, "classic: unknown sensor, the rest of the frame is kept raw";
    ConfigurationViolated = "CF-01", Critical, Unexpected, "policy violated at start (see 15)";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Code {
    type Err = UnknownCode;
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::ALL.iter().copied().find(|c| c.as_str() == text).ok_or(UnknownCode)
    }
}

/// A text that is no code of docs/protocol.md 14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCode;

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a code of docs/protocol.md 14")
    }
}

impl core::error::Error for UnknownCode {}

/// Something from outside was refused: the code that is counted, and the exact reason for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The code that is counted.
    pub code: Code,
    /// Why, in a few words; never shown to the radio.
    pub reason: &'static str,
}

impl Rejected {
    /// A refusal with its reason.
    pub const fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.code, self.reason)
    }
}

impl core::error::Error for Rejected {}

/// No number is leased: a durable write comes first (docs/protocol.md 8.2, W1), or the limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSpent;

/// Why we could not seal or encode: our own side has to do something first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The output buffer is shorter than the result.
    BufferTooSmall,
    /// A durable lease comes first, or the key is used up and must be renewed.
    LeaseSpent,
    /// A value is NaN or infinite, which no reading carries.
    NotFinite,
    /// The body is larger than this radio and combination can carry (docs/protocol.md 6.4).
    TooLong,
}

impl From<LeaseSpent> for SealError {
    fn from(LeaseSpent: LeaseSpent) -> Self {
        Self::LeaseSpent
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BufferTooSmall => "the output buffer is too small",
            Self::LeaseSpent => "no sender number is leased",
            Self::NotFinite => "a value is NaN or infinite",
            Self::TooLong => "the body is longer than this radio can carry",
        })
    }
}

impl core::error::Error for SealError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_parses_to_itself_and_is_written_once() {
        for (i, code) in Code::ALL.iter().enumerate() {
            assert_eq!(code.as_str().parse::<Code>(), Ok(*code));
            assert!(Code::ALL[..i].iter().all(|c| c.as_str() != code.as_str()));
        }
        assert_eq!("E9-99".parse::<Code>(), Err(UnknownCode));
    }
}
