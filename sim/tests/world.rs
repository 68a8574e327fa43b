//! The village, scene by scene, and at random. `SIM_SEED=n cargo test -p fivefold-sim` runs one random village again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::profile::{Mode, Profile};
use fivefold_core::suite::set_seal_witness;
use fivefold_device::Number;
use fivefold_sim::family::{gateway_sid, node_sid};
use fivefold_sim::plan::{Breakage, Carrier, Hostility, NodePlan, Parent, Weather};
use fivefold_sim::watch::{Datagram, sealed};
use fivefold_sim::world::Station;
use fivefold_sim::{Plan, Summary, World, run};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// So seldom that it does not happen by itself.
const NEVER: u64 = 1 << 50;
const SEEDS: u64 = 60;
const SIGNING_SEEDS: u64 = 16;

const SECURED: [Profile; 3] = [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth];

/// A world that the test moves by hand: nodes say nothing of their own accord, gateways and neighbours have met.
fn scene(nodes: Vec<NodePlan>, change: impl FnOnce(&mut Plan)) -> World {
    set_seal_witness(sealed);
    let nodes = nodes.into_iter().map(|n| NodePlan { every: 0, ..n }).collect();
    let mut plan = Plan::quiet(7, nodes);
    change(&mut plan);
    let mut world = World::new(plan).unwrap();
    world.storm(10 * SECOND).unwrap();
    world
}

fn kept(plan: &Plan) -> Summary {
    set_seal_witness(sealed);
    match run(plan).unwrap() {
        Ok(summary) => {
            assert!(summary.seals_watched);
            summary
        }
        Err(broken) => panic!(
            "SIM_SEED={} broke promise {} after {} ms\n{:?}\n{}",
            broken.seed,
            broken.what,
            broken.at,
            broken.plan,
            broken.story.join("\n")
        ),
    }
}

fn ends_well(mut world: World) -> Summary {
    match world.finish().unwrap() {
        Ok(summary) => summary,
        Err(broken) => panic!("promise {} after {} ms\n{}", broken.what, broken.at, broken.story.join("\n")),
    }
}

fn delivered(world: &World, n: usize, number: Number) -> bool {
    world.watch.acknowledged.contains(&world.nodes[n].name(number))
}

/// A row of nodes, each the child of the one before.
fn row(profile: Profile, count: usize) -> Vec<NodePlan> {
    let node = |n: usize| NodePlan {
        parents: vec![n.checked_sub(1).map_or(Parent::Gateway, Parent::Node)],
        ..NodePlan::new(profile)
    };
    (0..count).map(node).collect()
}

fn told_by_gateway(world: &World) -> usize {
    world.recorded.iter().filter(|(from, _, _)| *from == gateway_sid(0)).count()
}

#[test]
fn random_villages_keep_every_promise() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        println!("{:#?}", kept(&Plan::random(seed.parse().expect("SIM_SEED is a number"))));
        return;
    }
    let all: Vec<Summary> = (1..=SEEDS).map(|seed| kept(&Plan::random(seed))).collect();
    // They are worth the name: things broke, were refused, and went on.
    assert!(all.iter().map(|s| s.reboots).sum::<u64>() > SEEDS);
    assert!(all.iter().map(|s| s.forwarded).sum::<u64>() > 1_000);
    assert!(all.iter().map(|s| s.acknowledged).sum::<usize>() > 5_000);
    for code in ["E1-01", "E1-03", "E1-05", "E1-06", "E2-04", "E2-05", "E3-01", "E3-03", "E3-05", "E3-08", "E4-03"] {
        assert!(all.iter().any(|s| s.refused.contains_key(code)), "{code} never came up");
    }
}

#[test]
fn in_villages_that_sign_every_batch_comes_to_its_end_and_nothing_is_signed_falsely() {
    let all: Vec<Summary> = (1..=SIGNING_SEEDS).map(|seed| kept(&Plan::signing(seed))).collect();
    assert!(all.iter().map(|s| s.batches.complete).sum::<usize>() > 50);
    assert!(all.iter().map(|s| s.batches.readings).sum::<usize>() > 500);
    assert!(all.iter().any(|s| s.batches.recovered + s.batches.given_up + s.batches.lost > 0));
}

#[test]
fn a_seed_makes_the_same_village_every_time() {
    for seed in [3, 20, 150, 221] {
        let plan = Plan::random(seed);
        assert_eq!(kept(&plan), kept(&plan), "SIM_SEED={seed}");
    }
}

#[test]
fn every_combination_mode_and_link_arrives_in_good_weather() {
    for (profile, mode, carrier) in [
        (Profile::DangerLinkOnly, Mode::Persistent, Carrier::Air),
        (Profile::ToCloud, Mode::Persistent, Carrier::Air),
        (Profile::ToCloud, Mode::Random, Carrier::Air),
        (Profile::ToCloud, Mode::Persistent, Carrier::Ip),
        (Profile::ToCloud, Mode::Random, Carrier::Ip),
        (Profile::ToGateway, Mode::Persistent, Carrier::Air),
        (Profile::ToGateway, Mode::Random, Carrier::Air),
        (Profile::ToGateway, Mode::Persistent, Carrier::Ip),
        (Profile::ToGateway, Mode::Random, Carrier::Ip),
        (Profile::ToBoth, Mode::Persistent, Carrier::Air),
        (Profile::ToBoth, Mode::Random, Carrier::Air),
        (Profile::ToBoth, Mode::Persistent, Carrier::Ip),
        (Profile::ToBoth, Mode::Random, Carrier::Ip),
    ] {
        let nodes = row(profile, if carrier == Carrier::Air { 3 } else { 1 });
        let nodes = nodes.into_iter().map(|n| NodePlan { mode, carrier, ..n }).collect();
        let summary = kept(&Plan::quiet(1, nodes));
        assert!(summary.sent > 50, "{profile} {mode} {carrier:?}: {summary:?}");
        // Beside the readings, each node reports once at boot.
        assert!(summary.stored >= summary.sent, "{profile} {mode} {carrier:?}: {summary:?}");
        if profile != Profile::DangerLinkOnly {
            assert!(summary.acknowledged >= summary.sent, "{profile} {mode} {carrier:?}: {summary:?}");
        }
    }
}

#[test]
fn a_gateway_that_acknowledges_and_drops_leaves_a_gap_and_the_node_still_holds_the_readings() {
    let hostility = Hostility { censor: 3, ..Hostility::default() };
    let mut world = scene(vec![NodePlan::new(Profile::ToBoth)], |p| p.hostility = hostility);
    world.cloud.count_gaps_over(10 * MINUTE);
    let mut numbers = Vec::new();
    for _ in 0..9 {
        numbers.push(world.read(0).unwrap().unwrap());
        world.storm(10 * SECOND).unwrap();
    }
    let (censored, through): (Vec<Number>, Vec<Number>) = numbers.into_iter().partition(|n| n.value % 3 == 0);
    assert_eq!(censored.len(), 3);
    assert!(through.iter().all(|n| delivered(&world, 0, *n)), "{through:?}");
    for number in &censored {
        let name = world.nodes[0].name(*number);
        assert!(world.watch.custody.contains(&name), "custody of {number} was confirmed");
        assert!(!delivered(&world, 0, *number) && world.nodes[0].waiting().contains(number), "{number} is kept");
    }
    world.storm(15 * MINUTE).unwrap();
    assert!(world.hoard.deeds.dropped > 3, "it dropped what was sent again as well");
    assert!(world.count("E3-11").unwrap() > 0, "the gap is seen");
    // Another takes its place.
    world.heal().unwrap();
    world.settle().unwrap();
    assert!(censored.iter().all(|n| delivered(&world, 0, *n)));
    ends_well(world);
}

#[test]
fn a_hostile_gateway_makes_nothing_up_and_destroys_nothing_that_is_sealed_for_the_cloud() {
    let hostility = Hostility { drop: 300, withhold: 300, replay: 500, alter: 500, splice: 500, censor: 0 };
    let mut altered = 0;
    for (seed, profile) in [(1, Profile::ToCloud), (2, Profile::ToBoth), (3, Profile::ToCloud), (4, Profile::ToBoth)] {
        let nodes = (0..3).map(|_| NodePlan::new(profile)).collect();
        let plan = Plan { hostility, ..Plan::quiet(seed, nodes) };
        let summary = kept(&plan);
        assert!(summary.acknowledged >= summary.sent, "{summary:?}");
        altered += summary.refused.get("E3-03").copied().unwrap_or(0);
        assert!(summary.refused.contains_key("E3-01"), "another's message under this name: {summary:?}");
    }
    assert!(altered > 50);
}

#[test]
fn a_retransmission_whose_answer_was_lost_gets_its_answer_through_a_gateway_without_keys() {
    let mut world = scene(vec![NodePlan::new(Profile::ToCloud)], |_| {});
    world.deaf.insert(Station::Node(0));
    let number = world.read(0).unwrap().unwrap();
    world.storm(1_500).unwrap();
    assert!(world.watch.stored.contains(&world.nodes[0].name(number)), "the cloud has it");
    assert!(!delivered(&world, 0, number));
    world.deaf.clear();
    world.storm(2 * SECOND).unwrap();
    assert!(delivered(&world, 0, number), "{:?}", world.story().collect::<Vec<_>>());
    assert!(world.count("E3-05").unwrap() > 0);
    ends_well(world);
}

#[test]
fn a_retransmission_after_both_gateway_and_cloud_died_gets_its_answer() {
    for profile in SECURED {
        let mut world = scene(vec![NodePlan::new(profile)], |_| {});
        world.deaf.insert(Station::Node(0));
        let number = world.read(0).unwrap().unwrap();
        world.storm(1_000).unwrap();
        world.restart_gateway(0).unwrap();
        world.restart_cloud().unwrap();
        world.deaf.clear();
        world.storm(2 * MINUTE).unwrap();
        assert!(delivered(&world, 0, number), "{profile}: {:?}", world.story().collect::<Vec<_>>());
        ends_well(world);
    }
}

#[test]
fn a_boot_id_recorded_two_boots_ago_is_no_reading_and_a_gateway_seals_no_answer_to_it() {
    for profile in SECURED {
        let node = NodePlan { mode: Mode::Random, ..NodePlan::new(profile) };
        let mut world = scene(vec![node], |p| p.breakage.insider = NEVER);
        world.storm(30 * SECOND).unwrap();
        // The first messages of a boot name its boot id.
        let explicit = |d: &Datagram| d.mesh.originator == node_sid(0) && d.rest[0] & 0x23 == 0x20;
        let recorded: Vec<Datagram> = world.recorded.iter().map(|(_, _, d)| d.clone()).filter(explicit).collect();
        assert!(!recorded.is_empty(), "{profile}");
        for _ in 0..2 {
            world.reboot(0).unwrap();
            world.storm(MINUTE).unwrap();
            let number = world.read(0).unwrap().unwrap();
            world.storm(30 * SECOND).unwrap();
            assert!(delivered(&world, 0, number), "{profile}");
        }
        // Until the gateway has forgotten what it passed on.
        world.storm(11 * MINUTE).unwrap();
        let stored = world.watch.stored.len();
        let replays = ["E2-04", "E3-04", "E3-05"];
        let before: u64 = replays.iter().map(|c| world.count(c).unwrap()).sum();
        let told = told_by_gateway(&world);
        for datagram in &recorded {
            world.insider_sends(gateway_sid(0), datagram);
        }
        world.storm(20 * SECOND).unwrap();
        let refused = replays.iter().map(|c| world.count(c).unwrap()).sum::<u64>() - before;
        assert!(refused >= recorded.len() as u64, "{profile}: {refused} of {} were refused", recorded.len());
        // The cloud answers a repeat, of whatever boot, under a number of its own: it may be the one that runs (8.3).
        let answers = told_by_gateway(&world) - told;
        let most = if profile.has_e2() { 0 } else { recorded.len() };
        assert!(answers <= most, "{profile}: {answers} answers were sealed");
        assert_eq!(world.watch.stored.len(), stored, "{profile}");
        ends_well(world);
    }
}

#[test]
fn a_flood_of_replayed_hellos_starves_nobody() {
    let mut world = scene(row(Profile::ToBoth, 3), |_| {});
    for _ in 0..3 {
        for n in 0..3 {
            world.reboot(n).unwrap();
            world.storm(30 * SECOND).unwrap();
        }
    }
    let hellos: Vec<Vec<u8>> = world.hellos.iter().cloned().collect();
    assert!(hellos.len() > 20);
    // A minute later the rates are fresh; from then on twenty a second.
    world.storm(2 * MINUTE).unwrap();
    let mut late = Vec::new();
    for second in 0..120 {
        for hello in hellos.iter().cycle().skip(second * 20).take(20) {
            world.stranger_sends(hello);
        }
        if second % 40 == 10 {
            world.reboot(second / 40).unwrap();
        }
        world.storm(SECOND).unwrap();
        if second % 40 == 35 {
            let n = second / 40;
            late.push((n, world.read(n).unwrap().expect("it takes a reading")));
        }
    }
    assert_eq!(late.len(), 3);
    for (n, number) in late {
        assert!(
            delivered(&world, n, number),
            "node {n}, which booted in the flood, was heard\n{}",
            world.story().cloned().collect::<Vec<_>>().join("\n")
        );
    }
    ends_well(world);
}

#[test]
fn a_retransmission_passes_relays_and_loops_die() {
    let mut world = scene(row(Profile::ToBoth, 4), |_| {});
    world.storm(MINUTE).unwrap();
    world.deaf.insert(Station::Node(3));
    let number = world.read(3).unwrap().unwrap();
    world.storm(1_500).unwrap();
    assert!(!delivered(&world, 3, number));
    world.deaf.clear();
    world.storm(3 * SECOND).unwrap();
    assert!(delivered(&world, 3, number), "{:?}", world.story().collect::<Vec<_>>());
    ends_well(world);

    // Three that send in a circle, and a fourth that trusts one of them.
    let ways = [vec![Parent::Node(1)], vec![Parent::Node(2)], vec![Parent::Node(0)], vec![Parent::Node(0)]];
    let nodes = ways.into_iter().map(|parents| NodePlan { parents, ..NodePlan::new(Profile::ToCloud) }).collect();
    let mut world = scene(nodes, |_| {});
    let before = world.watch.forwarded;
    world.read(3).unwrap().unwrap();
    world.storm(20 * SECOND).unwrap();
    let passed = world.watch.forwarded - before;
    assert!(world.refused.get("E1-10").is_some_and(|n| *n > 0), "{:?}", world.refused);
    // A report and a reading of four nodes, four times each, by three relays once around.
    assert!((3..=100).contains(&passed), "{passed} frames went round");
    assert!(world.watch.failure.is_none());
}

#[test]
fn two_gateways_of_a_group_store_once_and_one_of_them_may_die() {
    for profile in SECURED {
        let nodes: Vec<NodePlan> = (0..4).map(|_| NodePlan::new(profile)).collect();
        let breakage = Breakage { gateway: 2 * MINUTE, ..Breakage::default() };
        let plan = Plan { gateways: 2, breakage, storm: 30 * MINUTE, ..Plan::quiet(5, nodes) };
        let summary = kept(&plan);
        assert!(summary.reboots > 5, "{summary:?}");
        assert!(summary.acknowledged >= summary.sent, "{summary:?}");
    }
}

#[test]
fn a_cloud_that_is_away_for_hours_gets_everything_in_the_end() {
    for profile in SECURED {
        let mut world = scene(row(profile, 2), |_| {});
        world.cloud_leaves(5 * HOUR);
        let mut numbers = Vec::new();
        for _ in 0..4 {
            world.storm(HOUR).unwrap();
            for n in 0..2 {
                numbers.extend(world.read(n).unwrap().map(|number| (n, number)));
            }
        }
        assert_eq!(numbers.len(), 8);
        world.storm(MINUTE).unwrap();
        let early = numbers.iter().filter(|(n, number)| delivered(&world, *n, *number)).count();
        assert_eq!(early, if profile == Profile::ToGateway { 8 } else { 0 }, "{profile}");
        world.storm(3 * HOUR).unwrap();
        assert!(numbers.iter().all(|(n, number)| delivered(&world, *n, *number)), "{profile}");
        ends_well(world);
    }
}

#[test]
fn power_cuts_between_any_two_outputs_repeat_no_number() {
    for (seed, profile) in (1..).zip(SECURED) {
        let nodes = row(profile, 3);
        let breakage = Breakage { node: 20 * SECOND, command: MINUTE, ..Breakage::default() };
        let weather = Weather { loss: 50, double: 100, delay: 400 };
        let plan = Plan { breakage, weather, storm: HOUR, ..Plan::quiet(seed, nodes) };
        let summary = kept(&plan);
        assert!(summary.reboots > 50, "{summary:?}");
    }
}

#[test]
fn nobody_without_the_key_is_sent_on() {
    let breakage = Breakage { stranger: 300, ..Breakage::default() };
    let plan = Plan { breakage, storm: 20 * MINUTE, ..Plan::quiet(9, row(Profile::ToCloud, 4)) };
    let summary = kept(&plan);
    for code in ["E1-01", "E1-05", "E1-06"] {
        assert!(summary.refused.get(code).is_some_and(|n| *n > 100), "{code}: {summary:?}");
    }
    assert!(summary.acknowledged >= summary.sent);
}
