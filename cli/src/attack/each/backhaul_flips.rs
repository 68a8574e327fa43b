//! `backhaul-flips`: flips bits on the wire between gateway and cloud.

use crate::attack::{Attack, Hands, Level, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "backhaul-flips",
    level: Level::E4,
    property: "no bit of the backhaul can be changed",
    way: Way::Hands(Hands::FlipsWires),
};
