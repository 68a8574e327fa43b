//! `classic-stolen-node-itself`: speaks as itself; then it is revoked.

use crate::attack::{Attack, Hands, Level, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-stolen-node-itself",
    level: Level::Classic,
    property: "a node that is revoked is silent",
    way: Way::Hands(Hands::Itself),
};
