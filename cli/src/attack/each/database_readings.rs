//! `database-readings`: looks for readings in the copies.

use crate::attack::database::readings;
use crate::attack::{Attack, Level, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "database-readings",
    level: Level::Rest,
    property: "stored readings stand in the clear, and nothing says otherwise",
    way: Way::Process(readings),
};
