//! Every refusal has one code of docs/protocol.md 14: in code, metrics, API and docs alike.

use core::fmt;
use core::str::FromStr;

/// How loud something is: a single occurrence, or the alarm that many are ([`Step`]).
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

/// In what time occurrences are added up for a [`Step`]: ten minutes, in milliseconds.
pub const STEP_TIME: u64 = 10 * 60 * 1000;

/// From when on occurrences of a code are an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// How loud the alarm is.
    pub severity: Severity,
    /// When.
    pub at: At,
}

/// What makes a [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// So many occurrences within [`STEP_TIME`] whose severity nobody said.
    Times(u32),
    /// One occurrence of which who saw it says that it is so severe: it lasts, or is the other of two conditions.
    Said,
}

macro_rules! at {
    (said) => {
        At::Said
    };
    ($times:literal) => {
        At::Times($times)
    };
}

macro_rules! codes {
    ($($variant:ident = $text:literal, $severity:ident, $kind:ident, [$($step:ident $at:tt),*], $condition:literal;)*) => {
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

            /// When occurrences of it are an alarm, the steps of docs/protocol.md 14; none for what is normal in operation.
            pub const fn steps(self) -> &'static [Step] {
                match self { $(Self::$variant => &[$(Step { severity: Severity::$step, at: at!($at) }),*],)* }
            }

            /// The condition, as docs/protocol.md 14 words it.
            pub const fn condition(self) -> &'static str {
                match self { $(Self::$variant => $condition,)* }
            }
        }
    };
}

codes! {
    LinkUnsecured = "E1-01", Warning, Unexpected, [Warning 10, High 100], "unsecured frame on a secured network";
    LinkNotOurs = "E1-02", Info, Stranger, [], "wrong PAN / not ours";
    LinkLevelTooLow = "E1-03", High, Unexpected, [High 1], "security level below minimum";
    LinkKeyUnknown = "E1-04", Warning, Expired, [Warning 10], "unknown or retired key index";
    LinkForged = "E1-05", Warning, Forged, [Warning 20, High 200], "MIC failure";
    LinkReplayed = "E1-06", Warning, Replayed, [Warning 5], "counter not greater (replay)";
    LinkCounterJump = "E1-07", Warning, Replayed, [Warning 1], "counter jump > 65536";
    LinkNeighbourUnknown = "E1-08", Info, Stranger, [], "unknown or unsynced neighbour, sid bound to another EUI-64";
    LinkCounterHigh = "E1-09", High, Expired, [High 1], "counter > F0000000";
    LinkHopLimit = "E1-10", Info, Replayed, [Warning 100], "hop limit / loop / repeat";
    LinkMalformed = "E1-11", Warning, Malformed, [Warning 20], "malformed: short, bad FCS, frame type or FCF not of 4.1, empty payload, bad mesh header, unknown dispatch";
    TinyMalformed = "T-01", Warning, Malformed, [Warning 20], "unknown RuleID, short, bad residue";
    PivNotMinimal = "T-02", Warning, Malformed, [Warning 1], "non-minimal PIV";
    FragmentLost = "T-03", Info, Malformed, [], "fragment timeout / overlap";
    GatewayUnknownKid = "E2-01", Warning, Stranger, [Warning 5], "unknown kid";
    GatewayNoContext = "E2-02", Info, Expired, [Warning said], "no context for epoch/bctx (kept as orphan, 24 h)";
    GatewayForged = "E2-03", High, Forged, [High 5], "tag failure (FORGED)";
    GatewayReplayed = "E2-04", Warning, Replayed, [Warning 5], "replay outside duplicate rule or window";
    GatewayDuplicate = "E2-05", Info, Replayed, [], "DUP";
    GatewayNonceReuse = "E2-06", Critical, Forged, [Critical 1], "NONCE-REUSE";
    GatewayInnerMalformed = "E2-07", Warning, Malformed, [Warning 1], "inner malformed (code, options, CBOR)";
    GatewayLevelMissing = "E2-08", Critical, Unexpected, [Critical 1], "required level missing";
    GatewayLimitReached = "E2-09", High, Expired, [High 1], "limit reached";
    CloudUnknownKid = "E3-01", Warning, Stranger, [Warning 5], "unknown kid";
    CloudNoContext = "E3-02", Info, Expired, [Warning said], "no context for epoch/bctx (kept as orphan, 24 h)";
    CloudForged = "E3-03", High, Forged, [High 5], "tag failure (FORGED)";
    CloudReplayed = "E3-04", Warning, Replayed, [Warning 5], "replay outside duplicate rule or window";
    CloudDuplicate = "E3-05", Info, Replayed, [], "DUP";
    CloudNonceReuse = "E3-06", Critical, Forged, [Critical 1], "NONCE-REUSE";
    CloudInnerMalformed = "E3-07", Warning, Malformed, [Warning 1], "inner malformed (code, options, CBOR)";
    CloudLevelMissing = "E3-08", Critical, Unexpected, [Critical 1], "required level missing";
    CloudLimitReached = "E3-09", High, Expired, [High 1], "limit reached";
    CloudStale = "E3-10", Warning, Expired, [Warning 1], "stale after drain";
    CloudPivGap = "E3-11", Warning, Unexpected, [Warning 1], "PIV gap > 10 % per day";
    CloudSilence = "E3-12", Warning, Unexpected, [Warning 1, High said], "silence > 3 periods";
    CloudBootRepeats = "E3-13", Critical, Replayed, [Critical 1, Warning said], "same bctx restarts, or > 20 boots/day";
    CloudHeld = "E3-14", Warning, Replayed, [Warning 5], "held: under keys of before a restore";
    ChannelRefused = "E4-01", High, Stranger, [High 3], "TLS failure, bad/expired/revoked client certificate, refused request for one (10.1)";
    ChannelWrongNet = "E4-02", Critical, Forged, [Critical 1], "certificate net differs from the net in an envelope's originator";
    ChannelSequence = "E4-03", High, Replayed, [High 1], "sequence gap or repeat with other content";
    StoreFull = "E4-04", Warning, Unexpected, [Warning 1, Critical said], "store > 80 % / full";
    CloudUnreachable = "E4-05", Warning, Unexpected, [Warning 1, High said], "cloud unreachable > 15 min / 6 h";
    GatewayClockOff = "E4-06", Warning, Unexpected, [Warning 1], "gateway clock off > 60 s";
    ChannelNotHybrid = "E4-07", High, Unexpected, [High 1], "non-hybrid group where required";
    RenewalRate = "E5-01", Warning, Unexpected, [Warning 1], "m1 rate exceeded";
    RenewalForged = "E5-02", High, Forged, [High 3], "EDHOC verification failure";
    RenewalUnknownCredential = "E5-03", High, Stranger, [High 1], "unknown or revoked credential";
    RenewalSuite = "E5-04", High, Unexpected, [High 1], "suite/method not in policy";
    RenewalFailed = "E5-05", Warning, Unexpected, [Warning 1], "renewal failed 3 times (reported in item 3)";
    RenewalEpochNotGreater = "E5-06", Critical, Replayed, [Critical 1], "epoch not greater (reset or clone)";
    RenewalOverdue = "E5-07", Warning, Expired, [Warning 1, High said], "renewal overdue > 1.5 T_renew";
    KeyMessageRefused = "E5-08", Warning, Forged, [Warning 3], "RSA message refused";
    RenewalLate = "E5-09", Info, Replayed, [], "late m3 of an abandoned run";
    EvidenceSignature = "EV-01", Critical, Forged, [Critical 1], "batch signature invalid";
    EvidenceOverdue = "EV-02", High, Expired, [High 1], "batch overdue (> 2 x limit) where signing required";
    EvidenceIncomplete = "EV-03", Warning, Malformed, [Warning 1], "batch cannot be completed";
    EvidenceChain = "EV-04", High, Forged, [High 1], "prev hash does not chain";
    EvidenceLog = "EV-05", Critical, Forged, [Critical 1, Warning said], "log inconsistency, missing witness > 24 h";
    ClassicMalformed = "CL-01", Warning, Malformed, [Warning 20], "classic: malformed frame";
    ClassicRelabelled = "CL-02", High, Unexpected, [High 1], "classic: plain or relabelled frame of a device that has a key";
    ClassicForeignInner = "CL-03", Critical, Forged, [Critical 1], "classic: inner serial is not the outer one";
    ClassicForged = "CL-04", High, Forged, [High 1], "classic: does not open under the device's key, or what it opens to is no frame";
    ClassicReplayed = "CL-05", Warning, Replayed, [Warning 5], "classic: the same frame again";
    ClassicSpliced = "CL-06", Critical, Forged, [Critical 1], "classic: made of blocks of earlier frames";
    ClassicUnknown = "CL-07", Warning, Stranger, [Warning 5], "classic: unknown serial or DevEUI";
    ClassicSequence = "CL-08", Warning, Replayed, [Warning 5], "classic: impossible sequence";
    ClassicOverTheAir = "CL-09", High, Unexpected, [High 1], "classic: over-the-air command heard";
    ClassicTooMany = "CL-10", Warning, Unexpected, [Warning 20], "classic: too many from one address or serial, or a limit of a listener";
    ClassicToken = "CL-11", Warning, Stranger, [Warning 5], "classic: bearer token missing or wrong";
    ClassicTimeAnswered = "CL-12", Info, Unexpected, [], "classic: time request answered";
    ClassicWeakKey = "CL-13", Critical, Unexpected, [Critical 1], "classic: weak key (zero, short, dictionary)";
    HardenedForged = "CL-14", High, Forged, [High 5], "classic, hardened: tag failure";
    HardenedReplayed = "CL-15", Warning, Replayed, [Warning 5], "classic, hardened: number repeated or too old";
    ClassicUnknownSensor = "CL-16", Info, Malformed, [], "classic: unknown sensor, the rest of the frame is kept raw";
    ConfigurationViolated = "CF-01", Critical, Unexpected, [Critical 1, High said, Warning said], "policy violated at start (see 15)";
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

impl From<Code> for Rejected {
    /// Where the condition of the code is the whole reason.
    fn from(code: Code) -> Self {
        Self::new(code, code.condition())
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
