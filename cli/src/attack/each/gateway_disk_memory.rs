//! `gateway-disk-memory`: everything on its disk and in its process.

use crate::attack::thief::disk_and_memory;
use crate::attack::{Attack, Level, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "gateway-disk-memory",
    level: Level::E3,
    property: "the gateway cannot read",
    way: Way::Process(disk_and_memory),
};
