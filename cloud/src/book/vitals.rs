//! How old the keys of each network are and how many numbers they have left: by level, and of no device in particular.

use std::collections::BTreeMap;

use fivefold_core::id::Net;
use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::time::Millis;

use super::{Book, Device, Live};

/// A network at a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vital {
    /// When the oldest key in use was made, or since when it is known.
    pub oldest: Option<Millis>,
    /// Sender numbers left before the limit, of either side, in the context in use that has the fewest.
    pub numbers_left: Option<u32>,
}

impl Vital {
    fn age(&mut self, since: Millis) {
        self.oldest = Some(self.oldest.map_or(since, |oldest| oldest.min(since)));
    }

    fn left(&mut self, left: u32) {
        self.numbers_left = Some(self.numbers_left.map_or(left, |fewest| fewest.min(left)));
    }
}

impl Book {
    /// What is known of each network and level, 1 to 5; of level 4, the gateways' certificates, nothing.
    pub fn vitals(&self) -> BTreeMap<(Net, u8), Vital> {
        let mut vitals: BTreeMap<(Net, u8), Vital> = BTreeMap::new();
        let mut enrolled: BTreeMap<Net, Millis> = BTreeMap::new();
        for device in self.devices.values() {
            let at = Millis(device.enrolled().enrolled_at.saturating_mul(1000));
            enrolled.entry(device.net).and_modify(|first| *first = at.min(*first)).or_insert(at);
            let live = device.live();
            for level in levels(device.policy.profile) {
                let vital = vitals.entry((device.net, *level)).or_default();
                vital.age(in_use_since(device, &live).unwrap_or(at));
                if *level == device.level()
                    && let Some(left) = numbers_left(&live)
                {
                    vital.left(left);
                }
            }
        }
        for network in &self.networks {
            let rotated = self.rotations.get(&network.net).and_then(|r| r.rotation.key_since());
            let since = rotated.map(|s| Millis(s.saturating_mul(1000))).or(enrolled.get(&network.net).copied());
            if let Some(since) = since {
                vitals.entry((network.net, 1)).or_default().age(since);
            }
        }
        for signer in self.signers.all().iter().map(|s| &s.registered).filter(|s| s.revoked_at.is_none()) {
            if let Some(device) = self.by_did.get(&signer.did) {
                vitals.entry((device.net, 5)).or_default().age(Millis(signer.certified_at.saturating_mul(1000)));
            }
        }
        vitals
    }
}

/// Levels whose contexts a device has, here or at its gateway: those of one run of EDHOC are of one age.
const fn levels(profile: Profile) -> &'static [u8] {
    match profile {
        Profile::ToBoth => &[2, 3],
        Profile::ToCloud => &[3],
        Profile::ToGateway => &[2],
        Profile::DangerLinkOnly => &[],
    }
}

/// Since when it uses its keys; `None` where these are those of its enrolment.
fn in_use_since(device: &Device, live: &Live) -> Option<Millis> {
    let context = live.active().filter(|_| device.policy.mode == Mode::Persistent)?;
    context.agreed.map(|agreed| agreed.at)
}

fn numbers_left(live: &Live) -> Option<u32> {
    let context = live.active()?;
    let highest = context.recent?.highest.map_or(0, |highest| highest.saturating_add(1));
    let used = highest.max(context.lease.next().into());
    Some(u32::try_from(u64::from(NUMBER_LIMIT).saturating_sub(used)).unwrap_or(0))
}
