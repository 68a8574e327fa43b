//! `recorder-replays-restart`: node, relay, gateway and cloud start again in turn, and the recording is played to them after each.

use crate::attack::{Attack, Hands, Level, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "recorder-replays-restart",
    level: Level::E1,
    property: "a restart forgets no counter",
    way: Way::Hands(Hands::Restarts),
};
