//! `classic-database-keys`: searches the copies for the node's key, in every form.

use crate::attack::database::copies_of_secrets;
use crate::attack::{Attack, Level, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-database-keys",
    level: Level::Classic,
    property: "a copy of the databases holds no key",
    way: Way::Process(copies_of_secrets),
};
