//! An alarm, and what is said of it.

use std::fmt;

use fivefold_core::error::{Code, Severity};
use fivefold_core::id::{GatewayId, Net, Sid};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use serde_json::json;

/// What names an alarm: the same one has the same id however often it comes, at every sink and after every restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlarmId(pub [u8; 16]);

impl fmt::Display for AlarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for AlarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlarmId({self})")
    }
}

/// Why there is an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A code of docs/protocol.md 14 was counted often enough.
    Code(Code),
    /// Alarms that no sink took were dropped, because there were too many.
    Dropped,
    /// An operator tries whether a sink takes one.
    Test,
}

impl Cause {
    /// The code, or one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Code(code) => code.as_str(),
            Self::Dropped => "dropped",
            Self::Test => "test",
        }
    }

    /// From [`Cause::as_str`].
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "dropped" => Some(Self::Dropped),
            "test" => Some(Self::Test),
            code => code.parse().ok().map(Self::Code),
        }
    }

    /// In a few words.
    pub const fn condition(self) -> &'static str {
        match self {
            Self::Code(code) => code.condition(),
            Self::Dropped => "alarms were dropped: there were more than are kept, and no sink had taken them",
            Self::Test => "a test: nothing is wrong",
        }
    }

    /// What an operator does now: as `fivefold why` says it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Code(code) => code.about().advice,
            Self::Dropped => "`fivefold alarm list` says which sink takes none: mend it, or take it out of cloud.toml.",
            Self::Test => "Nothing.",
        }
    }
}

/// Whom it is about, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// Network.
    pub net: Option<Net>,
    /// Gateway.
    pub gateway: Option<GatewayId>,
    /// Device, known or claimed.
    pub sid: Option<Sid>,
}

/// An alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Why.
    pub cause: Cause,
    /// How loud.
    pub severity: Severity,
    /// About whom.
    pub of: Subject,
    /// Occurrences that raised it.
    pub times: u64,
    /// When it was raised.
    pub at: Millis,
}

impl Alarm {
    /// What names it.
    pub fn id(&self) -> AlarmId {
        let number = |n: Option<u32>| n.map_or(u64::MAX, u64::from).to_be_bytes();
        let hash = sha256(&[
            b"fivefold alarm\0",
            self.cause.as_str().as_bytes(),
            b"\0",
            self.severity.as_str().as_bytes(),
            b"\0",
            &number(self.of.net.map(|n| n.0)),
            &number(self.of.gateway.map(|g| g.0)),
            &number(self.of.sid.map(|s| s.0.into())),
            &self.at.0.to_be_bytes(),
        ]);
        let mut id = [0; 16];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        AlarmId(id)
    }

    /// What is in it for a person, in one line.
    pub fn sentence(&self) -> String {
        let mut text = format!("{} ({}): {}", self.cause.as_str(), self.severity.as_str(), self.cause.condition());
        if self.times > 1 {
            text += &match self.cause {
                Cause::Code(_) => format!(", {} times within ten minutes", self.times),
                Cause::Dropped | Cause::Test => format!(", {} of them", self.times),
            };
        }
        if let Some(net) = self.of.net {
            text += &format!("; network {net}");
        }
        if let Some(gateway) = self.of.gateway {
            text += &format!("; gateway {gateway}");
        }
        if let Some(sid) = self.of.sid {
            text += &format!("; device {sid}");
        }
        text
    }

    /// For programs: what a webhook and a broker get.
    pub fn json(&self) -> String {
        json!({
            "id": self.id().to_string(),
            "at_ms": self.at.0,
            "code": self.cause.as_str(),
            "severity": self.severity.as_str(),
            "condition": self.cause.condition(),
            "times": self.times,
            "net": self.of.net.map(|n| n.to_string()),
            "gateway": self.of.gateway.map(|g| g.to_string()),
            "sid": self.of.sid.map(|s| s.to_string()),
            "text": self.sentence(),
            "advice": self.cause.advice(),
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm() -> Alarm {
        let of = Subject { net: Some(Net(0x0a0b_0c0d)), gateway: Some(GatewayId(7)), sid: Some(Sid(0x0a17)) };
        let cause = Cause::Code(Code::GatewayForged);
        Alarm { cause, severity: Severity::High, of, times: 5, at: Millis(1_790_000_000_000) }
    }

    #[test]
    fn the_id_is_of_all_that_tells_alarms_apart_and_of_nothing_else() {
        let one = alarm();
        assert_eq!(one.id(), Alarm { times: 6, ..one }.id());
        let nobody = Subject { sid: None, ..one.of };
        let others = [
            Alarm { cause: Cause::Code(Code::CloudForged), ..one },
            Alarm { severity: Severity::Critical, ..one },
            Alarm { of: nobody, ..one },
            Alarm { of: Subject { sid: Some(Sid(0xffff)), ..one.of }, ..one },
            Alarm { at: one.at.plus(1), ..one },
        ];
        others.iter().for_each(|other| assert_ne!(other.id(), one.id(), "{other:?}"));
    }

    #[test]
    fn it_is_one_sentence_for_people_and_one_object_for_programs() {
        let text = "E2-03 (high): tag failure (FORGED), 5 times within ten minutes; network 0a0b0c0d; gateway 00000007; device 0a17";
        assert_eq!(alarm().sentence(), text);
        let json: serde_json::Value = serde_json::from_str(&alarm().json()).unwrap();
        assert_eq!((json["code"].as_str(), json["severity"].as_str()), (Some("E2-03"), Some("high")));
        assert_eq!((json["id"].as_str(), json["text"].as_str()), (Some(&*alarm().id().to_string()), Some(text)));
        assert_eq!(json["advice"].as_str(), Some(Code::GatewayForged.about().advice));
    }

    #[test]
    fn causes_are_read_as_they_are_written() {
        for cause in Code::ALL.iter().copied().map(Cause::Code).chain([Cause::Dropped, Cause::Test]) {
            assert_eq!(Cause::from_word(cause.as_str()), Some(cause));
        }
        assert_eq!(Cause::from_word("E9-99"), None);
    }
}
