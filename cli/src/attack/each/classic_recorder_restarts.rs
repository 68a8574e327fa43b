//! `classic-recorder-restarts`: sends what was recorded when the counter of a node has started again.

use crate::attack::{Attack, Hands, Level, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-recorder-restarts",
    level: Level::Classic,
    property: "a restart of a node makes no old frame new",
    way: Way::Hands(Hands::Restarts),
};
