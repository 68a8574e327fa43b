//! How far the rotation of a network's key has come (docs/protocol.md 4.3): device by device where it stands, who is late,
//! and why. From what the cloud heard; it reads no clock and no store.

use std::collections::HashMap;
use std::fmt;

use fivefold_core::error::Code;
use fivefold_core::id::{Did, Net, Sid};
use fivefold_core::time::Millis;
use fivefold_keep::registry;
use fivefold_keep::rotation::{Count, Place, Rotation, Said, Stage};

use crate::book::{Book, Device, LinkRotation};
use crate::store::{CountRow, LinkReport};

/// After so many of its periods without a word a device is silent; below, it sleeps.
const PERIODS: u64 = 3;

/// What is known of devices beside the book: of those that this process did not hear, and of what gateways refused.
#[derive(Debug, Default)]
pub struct Beside {
    /// When each was heard last.
    pub heard: HashMap<Did, Millis>,
    /// What gateways refused for its key index (E1-04), by short id: how often ever, and when last.
    pub refused: HashMap<Sid, (u64, Millis)>,
}

impl Beside {
    /// What gateways of a network refused, out of all counters.
    pub fn refused(counts: &[CountRow], net: Net) -> HashMap<Sid, (u64, Millis)> {
        let mut refused: HashMap<Sid, (u64, Millis)> = HashMap::new();
        let ours = |row: &&CountRow| row.key.code == Code::LinkKeyUnknown && row.key.net == Some(net);
        for row in counts.iter().filter(ours) {
            let Some(sid) = row.key.sid else { continue };
            let (count, last) = refused.entry(sid).or_default();
            (*count, *last) = (*count + row.count, (*last).max(row.last));
        }
        refused
    }
}

/// Why a device is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was heard since the stage began, and will be told in its next answer.
    BeingTold,
    /// It was never heard.
    NeverHeard,
    /// It was heard, and asked for no answer: nobody can tell it anything.
    NoDownlink,
    /// Nobody is told anything now.
    Paused,
    /// Gateways refuse what it sends, for the index of its key (E1-04): it comes back under a key that was retired.
    Refused {
        /// How often.
        count: u64,
        /// When last.
        last: Millis,
    },
    /// It has not been heard, for longer than it is silent otherwise.
    Silent {
        /// When it was heard last.
        since: Millis,
    },
    /// It has not been heard since the stage began; it speaks so rarely.
    Sleeps {
        /// When it was heard last.
        since: Millis,
        /// When it should speak next.
        until: Millis,
    },
    /// It was given the key, was heard after that, and did not say that it has it: answers do not reach it.
    Unanswered {
        /// When the key was given to it first.
        told: Millis,
    },
}

impl Why {
    /// A word for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeingTold => "being-told",
            Self::NeverHeard => "never-heard",
            Self::NoDownlink => "no-downlink",
            Self::Paused => "paused",
            Self::Refused { .. } => "refused",
            Self::Silent { .. } => "silent",
            Self::Sleeps { .. } => "sleeps",
            Self::Unanswered { .. } => "unanswered",
        }
    }

    /// The moment that it is about, if there is one.
    pub const fn at(self) -> Option<Millis> {
        match self {
            Self::BeingTold | Self::NeverHeard | Self::NoDownlink | Self::Paused => None,
            Self::Refused { last, .. } => Some(last),
            Self::Silent { since } | Self::Sleeps { since, .. } => Some(since),
            Self::Unanswered { told } => Some(told),
        }
    }
}

/// One device in the campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which device.
    pub did: Did,
    /// Its short id.
    pub sid: Sid,
    /// Where it stands.
    pub place: Place,
    /// Since when: when it said so first, or when the rotation began.
    pub since: Millis,
    /// Why it is late, if it is.
    pub late: Option<Why>,
}

/// Everybody in a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Campaign {
    /// The rotation.
    pub rotation: Rotation,
    /// How many stand where.
    pub count: Count,
    /// All devices that count, by short id.
    pub members: Vec<Member>,
}

/// Devices that hold a network's key: on a radio with E1 of ours, and not revoked.
fn devices(book: &Book, net: Net) -> impl Iterator<Item = &Device> {
    book.devices.values().map(|d| &**d).filter(move |d| d.net == net && d.policy.radio.link_class().has_network_key())
}

fn said(device: &Device, rotation: &LinkRotation) -> Said {
    let live = device.live();
    let report = live.link_keys;
    Said {
        keys: report.map(|r| r.keys),
        at: report.map_or(0, |r| r.at.0 / 1000),
        // What the gateway says to its own devices, it says by itself.
        may_have_it: device.level() < 3 || rotation.was_given(rotation.rotation.index, live.link_told),
    }
}

/// How many devices of a network stand where.
pub fn count(book: &Book, rotation: &LinkRotation) -> Count {
    rotation.rotation.count(devices(book, rotation.rotation.net).map(|d| said(d, rotation)))
}

impl Campaign {
    /// As it is now.
    pub fn of(book: &Book, link: &LinkRotation, beside: &Beside, now: Millis) -> Self {
        let rotation = &link.rotation;
        let mut members: Vec<Member> = devices(book, rotation.net)
            .map(|d| {
                let (report, view) = view(d, link, beside);
                let place = rotation.place(report.map(|r| r.keys));
                let began = Millis(rotation.started_at * 1000);
                let since = report.filter(|_| place != Place::Without).map_or(began, |r| r.since);
                let late = rotation.is_late(place).then(|| view.why(rotation, now));
                Member { did: d.did, sid: d.sid, place, since, late }
            })
            .collect();
        members.sort_unstable_by_key(|m| m.sid);
        Self { rotation: rotation.clone(), count: count(book, link), members }
    }

    /// Those who are late.
    pub fn late(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| m.late.is_some())
    }
}

/// What decides why a device is late. Milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    heard: Option<Millis>,
    asked: Option<Millis>,
    told: Option<Millis>,
    period: u64,
    refused: Option<(u64, Millis)>,
    /// Whether it is the cloud that answers it: of others nobody knows what they asked for.
    is_ours: bool,
}

fn view(device: &Device, link: &LinkRotation, beside: &Beside) -> (Option<LinkReport>, View) {
    let live = device.live();
    let told = live.link_told.filter(|_| link.was_given(link.rotation.index, live.link_told)).map(|(_, at)| at);
    let view = View {
        heard: live.pulse.heard.or(beside.heard.get(&device.did).copied()),
        asked: live.asked,
        told,
        period: live.pulse.period,
        refused: beside.refused.get(&device.sid).copied(),
        is_ours: device.level() == 3,
    };
    (live.link_keys, view)
}

impl View {
    fn why(self, rotation: &Rotation, now: Millis) -> Why {
        let began = Millis(rotation.since() * 1000);
        let Some(heard) = self.heard else {
            return match self.refused {
                Some((count, last)) if last >= began => Why::Refused { count, last },
                _ => Why::NeverHeard,
            };
        };
        // Refused after it was heard last: from then on it was under a key that is good for nothing here.
        if let Some((count, last)) = self.refused
            && last >= began
            && last > heard
        {
            return Why::Refused { count, last };
        }
        if heard < began {
            let until = heard.plus(self.period);
            if self.period > 0 && now.since(heard) <= PERIODS * self.period {
                return Why::Sleeps { since: heard, until };
            }
            return Why::Silent { since: heard };
        }
        if rotation.is_paused && rotation.stage() == Stage::HandingOut {
            return Why::Paused;
        }
        match self.told {
            Some(told) if heard > told => Why::Unanswered { told },
            None if self.is_ours && self.asked.is_none_or(|at| at < began) => Why::NoDownlink,
            _ => Why::BeingTold,
        }
    }
}

/// Whether a revoked device may know the key that is left after a rotation: it was revoked after that began, and the key
/// was given to it, or it said that it has it, or nobody can know. After a rollback it has the key before, like everybody.
pub fn may_know(
    device: &registry::Device,
    rotation: &Rotation,
    told: Option<(u8, Millis)>,
    report: Option<LinkReport>,
) -> bool {
    let began = Millis(rotation.started_at * 1000);
    let holds_link_key = device.policy.radio.link_class().has_network_key();
    let revoked_since = device.revoked_at.is_some_and(|at| at >= rotation.started_at);
    let was_given = told.is_some_and(|(index, at)| index == rotation.index && at >= began);
    let said = report.is_some_and(|r| r.at >= began && rotation.place(Some(r.keys)) != Place::Without);
    device.net == rotation.net
        && holds_link_key
        && revoked_since
        && (rotation.rolled_back_at.is_some() || was_given || said || !device.policy.profile.has_e3())
}

/// For people.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeingTold => f.write_str("heard; it is told in its next answer"),
            Self::NeverHeard => f.write_str("never heard"),
            Self::NoDownlink => f.write_str("heard, but it asks for no answers"),
            Self::Paused => f.write_str("the rotation is paused"),
            Self::Refused { count, .. } => write!(f, "comes under a key that gateways refuse (E1-04, {count} times)"),
            Self::Silent { .. } => f.write_str("not heard since"),
            Self::Sleeps { .. } => f.write_str("sleeps; it speaks this rarely"),
            Self::Unanswered { .. } => f.write_str("heard, but answers do not reach it; told since"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;
    const BEGAN: u64 = 100 * DAY;

    fn rotation() -> Rotation {
        Rotation::begin(Net(7), 1, 2, BEGAN / 1000)
    }

    fn why(view: View) -> Why {
        view.why(&rotation(), Millis(BEGAN + DAY))
    }

    #[test]
    fn each_reason_is_told_from_the_others() {
        let ours = View { is_ours: true, ..View::default() };
        let before = Some(Millis(BEGAN - 5_000));
        let after = |ms| Some(Millis(BEGAN + ms));
        assert_eq!(why(ours), Why::NeverHeard);
        assert_eq!(why(View { heard: before, ..ours }), Why::Silent { since: Millis(BEGAN - 5_000) });
        let rarely = View { heard: before, period: DAY, ..ours };
        let sleeps = Why::Sleeps { since: Millis(BEGAN - 5_000), until: Millis(BEGAN - 5_000 + DAY) };
        assert_eq!(why(rarely), sleeps);
        assert_eq!(why(View { period: DAY / 4, ..rarely }), Why::Silent { since: Millis(BEGAN - 5_000) });
        let refused = Some((9, Millis(BEGAN + 7_000)));
        assert_eq!(
            why(View { heard: before, refused, ..ours }),
            Why::Refused { count: 9, last: Millis(BEGAN + 7_000) }
        );
        assert_eq!(why(View { refused, ..ours }).as_str(), "refused");
        assert_eq!(why(View { heard: after(8_000), refused, ..ours }), Why::NoDownlink, "heard since");
        let old = Some((9, Millis(BEGAN - 7_000)));
        assert_eq!(why(View { heard: before, refused: old, ..ours }).as_str(), "silent");
        let asking = View { heard: after(8_000), asked: after(8_000), ..ours };
        assert_eq!(why(asking), Why::BeingTold);
        assert_eq!(why(View { told: after(8_000), ..asking }), Why::BeingTold, "that very answer");
        assert_eq!(why(View { told: after(5_000), ..asking }), Why::Unanswered { told: Millis(BEGAN + 5_000) });
        assert_eq!(why(View { heard: after(8_000), ..View::default() }), Why::BeingTold, "the gateway answers it");
        let paused = rotation().paused().unwrap();
        assert_eq!(asking.why(&paused, Millis(BEGAN + DAY)), Why::Paused);
    }

    #[test]
    fn only_a_device_that_may_have_been_given_the_key_makes_it_worthless() {
        use fivefold_core::id::{Epoch, Net};
        use fivefold_core::profile::{KeyIndexes, Overrides, Policy, Profile, Radio};

        let device = |profile, revoked_at| registry::Device {
            did: Did([1; 8]),
            sid: Sid(1),
            net: Net(7),
            policy: Policy::new(profile),
            overrides: Overrides::NONE,
            words: None,
            epoch: Epoch(1),
            enrolled_at: 1,
            revoked_at,
        };
        let (r, now) = (rotation(), Some(BEGAN / 1000));
        let given = Some((2, Millis(BEGAN)));
        let says = |sending, receiving| {
            let keys = KeyIndexes { sending, receiving: Some(receiving) };
            Some(LinkReport { keys, since: Millis(BEGAN), at: Millis(BEGAN) })
        };
        let ours = device(Profile::ToCloud, now);
        assert!(!may_know(&ours, &r, None, None));
        assert!(may_know(&ours, &r.rolled_back(BEGAN / 1000).unwrap(), None, None));
        assert!(may_know(&ours, &r, given, None));
        assert!(may_know(&ours, &r, None, says(1, 2)));
        assert!(!may_know(&ours, &r, Some((1, Millis(BEGAN))), says(1, 9)));
        assert!(!may_know(&ours, &r, Some((2, Millis(BEGAN - 1000))), None), "an index of long ago");
        assert!(may_know(&device(Profile::ToGateway, now), &r, None, None), "nobody knows what its gateway told it");
        assert!(!may_know(&device(Profile::ToGateway, Some(BEGAN / 1000 - 1)), &r, given, None), "revoked before");
        assert!(!may_know(&device(Profile::ToGateway, None), &r, given, None), "not revoked");
        let wired = registry::Device { policy: Policy { radio: Radio::Ip, ..ours.policy }, ..ours };
        assert!(!may_know(&wired, &r, given, None), "it has no network key");
    }
}
