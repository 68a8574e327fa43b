//! `backhaul-impersonates`: plays the cloud with a homemade certificate, and calls the cloud as a gateway with another and
//! with none.

use crate::attack::door::Door;
use crate::attack::impersonate::{Identity, PLAY, Part, as_cloud, as_gateway, bind_of};
use crate::attack::plan::Plan;
use crate::attack::thief::cloud_of;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "backhaul-impersonates",
    level: Level::E4,
    property: "gateway and cloud know each other",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let door = Door::of(plan)?;
    let (cloud, name) = cloud_of(&plan.cloud)?;
    let uri = format!("urn:gw:{}:00000001", plan.net);
    let bind = bind_of(plan)?;
    let homemade = Identity::homemade(&Part::Cloud(vec![name.clone(), "127.0.0.1".into()]))?;
    let playing = std::thread::spawn(move || as_cloud(bind, homemade, PLAY));
    let mut calls = Report::default();
    for who in [None, Some(Identity::homemade(&Part::Gateway(uri))?)] {
        let call = as_gateway(&door, cloud, &name, who, b"")?;
        calls.attempts += call.attempts;
        calls.read += call.read;
    }
    let played = playing.join().map_err(|_| anyhow::anyhow!("the impostor fell over"))??;
    let note = format!("{}; {} calls to the cloud as a gateway, {} taken", played.note, calls.attempts, calls.read);
    Ok(Report { attempts: played.attempts + calls.attempts, read: played.read + calls.read, note, ..Report::default() })
}
