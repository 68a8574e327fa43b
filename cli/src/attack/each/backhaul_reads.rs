//! `backhaul-reads`: searches what the wire between gateway and cloud carried.

use crate::attack::{Attack, Hands, Level, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "backhaul-reads",
    level: Level::E4,
    property: "the backhaul is secret",
    way: Way::Hands(Hands::ReadsWires),
};
