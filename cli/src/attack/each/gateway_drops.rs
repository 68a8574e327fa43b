//! `gateway-drops`: acknowledges and throws away.

use crate::attack::{Attack, Hands, Level, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "gateway-drops",
    level: Level::E3,
    property: "a node is told no lie about what is safe",
    way: Way::Hands(Hands::Drops),
};
