//! `database-keys`: looks for any secret of the deployment in the copies, and tries everything in them as a key.

use crate::attack::database::keys;
use crate::attack::{Attack, Level, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "database-keys",
    level: Level::Rest,
    property: "a copy of the databases holds no key",
    way: Way::Process(keys),
};
