//! `classic-gateway-withholds`: forwards nothing for a while.

use crate::attack::{Attack, Hands, Level, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-gateway-withholds",
    level: Level::Classic,
    property: "what a gateway keeps back comes later",
    way: Way::Hands(Hands::Withholds),
};
