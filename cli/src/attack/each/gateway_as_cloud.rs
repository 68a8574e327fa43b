//! `gateway-as-cloud`: plays the cloud with the stolen gateway's certificate.

use crate::attack::impersonate::{PLAY, as_cloud, bind_of};
use crate::attack::plan::Plan;
use crate::attack::thief::identity_of;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "gateway-as-cloud",
    level: Level::E4,
    property: "a gateway's certificate makes no cloud",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    as_cloud(bind_of(plan)?, identity_of(plan)?, PLAY)
}
