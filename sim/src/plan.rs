//! What a run is made of: who lives in the village, what the weather is, what breaks, and who is hostile.

use fivefold_core::profile::{Mode, Profile};
use fivefold_core::suite::Alg;
use fivefold_core::wire::tiny::KidLength;
use fivefold_device::evidence::Downlink;

use crate::dice::Dice;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

/// What carries a node's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// 802.15.4 frames, under E1.
    Air,
    /// CoAP over UDP, without E1.
    Ip,
}

/// To whom a node gives its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Any gateway in reach.
    Gateway,
    /// Another node, by its place in the list.
    Node(usize),
}

/// How a node signs its readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignPlan {
    /// Readings in a batch, at most.
    pub batch: u8,
    /// Whether it hears what becomes of its batches.
    pub downlink: Downlink,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// Combination of levels.
    pub profile: Profile,
    /// Persistence.
    pub mode: Mode,
    /// Algorithm of its contexts.
    pub alg: Alg,
    /// Whether its tiny frames name it.
    pub kid_length: KidLength,
    /// An answer is wanted every so many messages.
    pub ack_every: u8,
    /// Its link.
    pub carrier: Carrier,
    /// Next hops, the preferred one first.
    pub parents: Vec<Parent>,
    /// Milliseconds between two readings.
    pub every: u64,
    /// Whether it signs them.
    pub signs: Option<SignPlan>,
}

impl NodePlan {
    /// A node in reach of the gateways that speaks every ten seconds.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            mode: Mode::Persistent,
            alg: Alg::AesCcm16_64_256,
            kid_length: KidLength::None,
            ack_every: 1,
            carrier: Carrier::Air,
            parents: vec![Parent::Gateway],
            every: 10 * SECOND,
            signs: None,
        }
    }
}

/// What happens to messages on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Of a thousand, so many are lost.
    pub loss: u64,
    /// So many come twice.
    pub double: u64,
    /// They are late by up to so many milliseconds, and so overtake each other.
    pub delay: u64,
}

/// What a hostile gateway does with what it should hand on. It holds the gateway's keys, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hostility {
    /// Of a thousand envelopes so many are dropped, while the device is told that they are stored.
    pub drop: u64,
    /// So many are held back and handed on later, in another order.
    pub withhold: u64,
    /// So many are handed on again later.
    pub replay: u64,
    /// So many are handed on altered as well.
    pub alter: u64,
    /// So many are handed on under another device's name as well.
    pub splice: u64,
    /// Every message whose number is a multiple of this is dropped, however often it comes; 0 for none.
    pub censor: u64,
}

impl Hostility {
    /// Whether it does anything at all.
    pub fn is_hostile(&self) -> bool {
        *self != Self::default()
    }
}

/// How often something breaks: once in so many milliseconds on average; 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakage {
    /// The power of a node is cut between any two outputs, or in the middle of a write.
    pub node: u64,
    /// A gateway's process dies between any two outputs.
    pub gateway: u64,
    /// The cloud's process dies between any two steps of a request.
    pub cloud: u64,
    /// The cloud cannot be reached for a while.
    pub away: u64,
    /// For how long, at most.
    pub away_for: u64,
    /// Somebody without keys sends something: replays, flipped bits, unsecured frames.
    pub stranger: u64,
    /// Somebody who holds the network key replays what he recorded.
    pub insider: u64,
    /// The operator sends a command.
    pub command: u64,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything that is left to chance comes from it.
    pub seed: u64,
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// Gateways of the group, 1 or 2; the first one is the primary.
    pub gateways: usize,
    /// On the radio and between IP devices and the gateway.
    pub weather: Weather,
    /// Of a thousand exchanges between gateway and cloud, so many break: half of them after the cloud has done its part.
    pub uplink_loss: u64,
    /// What breaks.
    pub breakage: Breakage,
    /// The first gateway's manners, until the world heals.
    pub hostility: Hostility,
    /// For how long things break, in milliseconds.
    pub storm: u64,
    /// After that nothing breaks any more, and everything that is held must arrive within so many milliseconds.
    pub calm: u64,
}

impl Plan {
    /// Nothing breaks and nobody is hostile.
    pub fn quiet(seed: u64, nodes: Vec<NodePlan>) -> Self {
        Self {
            seed,
            nodes,
            gateways: 1,
            weather: Weather::default(),
            uplink_loss: 0,
            breakage: Breakage::default(),
            hostility: Hostility::default(),
            storm: 10 * MINUTE,
            calm: 90 * MINUTE,
        }
    }

    /// What this seed makes.
    pub fn random(seed: u64) -> Self {
        let mut dice = Dice::of(seed ^ 0x706c_616e);
        let count = dice.between(1, 5) as usize;
        // Most villages declare one combination, as a network does; some are mixed.
        let common = profile(&mut dice);
        let mixed = dice.permille(300);
        let mut nodes = Vec::new();
        for place in 0..count {
            let mut node = NodePlan::new(if mixed { profile(&mut dice) } else { common });
            let secured = node.profile != Profile::DangerLinkOnly;
            if secured && dice.permille(300) {
                node.mode = Mode::Random;
            }
            if dice.permille(300) {
                node.alg = Alg::AesCcm16_64_128;
            }
            if dice.permille(300) {
                node.kid_length = KidLength::Two;
            }
            if dice.permille(200) {
                node.ack_every = dice.between(2, 8) as u8;
            }
            if secured && dice.permille(150) {
                node.carrier = Carrier::Ip;
            } else {
                node.parents = parents(&mut dice, &nodes, place);
            }
            node.every = dice.between(5, 60) * SECOND;
            nodes.push(node);
        }
        let mut plan = Self::quiet(seed, nodes);
        plan.gateways = if dice.permille(300) { 2 } else { 1 };
        plan.storm = dice.between(10, 40) * MINUTE;
        if dice.permille(800) {
            plan.weather = Weather { loss: dice.below(300), double: dice.below(200), delay: dice.below(1_500) };
        }
        if dice.permille(600) {
            plan.uplink_loss = dice.below(400);
        }
        let b = &mut plan.breakage;
        let storm = plan.storm;
        let often = |dice: &mut Dice, permille, low: u64, high: u64| {
            if dice.permille(permille) { dice.between(low, high) * MINUTE } else { 0 }
        };
        b.node = often(&mut dice, 700, 2, 20);
        b.gateway = often(&mut dice, 600, 3, 20);
        b.cloud = often(&mut dice, 500, 3, 20);
        b.away = often(&mut dice, 400, 5, 30);
        b.away_for = if dice.permille(200) { 4 * 60 * MINUTE } else { storm / 2 };
        b.stranger = often(&mut dice, 500, 1, 3) / 6;
        b.insider = often(&mut dice, 400, 1, 5) / 4;
        b.command = often(&mut dice, 400, 2, 10);
        if dice.permille(350) {
            let some = |dice: &mut Dice| if dice.permille(500) { dice.below(400) } else { 0 };
            plan.hostility = Hostility {
                drop: some(&mut dice),
                withhold: some(&mut dice),
                replay: some(&mut dice),
                alter: some(&mut dice),
                splice: some(&mut dice),
                censor: if dice.permille(200) { dice.between(2, 5) } else { 0 },
            };
        }
        plan
    }

    /// The village of this seed, in which all or some of those sign who seal for the cloud. Drawn for itself, so that it is
    /// otherwise what it is without.
    pub fn signing(seed: u64) -> Self {
        let mut plan = Self::random(seed);
        let mut dice = Dice::of(seed ^ 0x7369_676e);
        let often = dice.one_of(&[500, 1000]).unwrap_or(1000);
        for node in &mut plan.nodes {
            let signs = dice.permille(often) && node.profile.has_e3() && node.mode == Mode::Persistent;
            let downlink = if dice.permille(250) { Downlink::None } else { Downlink::Heard };
            let batch = match downlink {
                Downlink::None => dice.between(1, 8),
                Downlink::Heard => dice.between(1, 32),
            };
            node.signs = signs.then_some(SignPlan { batch: batch as u8, downlink });
        }
        plan
    }
}

fn profile(dice: &mut Dice) -> Profile {
    match dice.below(10) {
        0..=3 => Profile::ToCloud,
        4..=6 => Profile::ToBoth,
        7..=8 => Profile::ToGateway,
        _ => Profile::DangerLinkOnly,
    }
}

/// A way to the gateway, at most four hops long; sometimes two.
fn parents(dice: &mut Dice, before: &[NodePlan], place: usize) -> Vec<Parent> {
    let depth = |mut at: usize| {
        let mut hops = 1;
        while let Some(Parent::Node(up)) = before.get(at).and_then(|n| n.parents.first()) {
            (at, hops) = (*up, hops + 1);
        }
        hops
    };
    let may: Vec<usize> =
        (0..place).filter(|p| before.get(*p).is_some_and(|n| n.carrier == Carrier::Air) && depth(*p) < 4).collect();
    let Some(first) = dice.one_of(&may).filter(|_| dice.permille(600)) else { return vec![Parent::Gateway] };
    let mut parents = vec![Parent::Node(first)];
    if dice.permille(300)
        && let Some(second) = dice.one_of(&may)
        && second != first
    {
        parents.push(Parent::Node(second));
    }
    parents
}
