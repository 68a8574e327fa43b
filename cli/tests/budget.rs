//! `fivefold budget` says what real frames carry: a node's, and those of the vectors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Command;

use fivefold::budget::{NoBudget, Numbering, budget, left_in_mesh};
use fivefold_core::e2_gateway::E2Secret;
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::id::{BootContext, Did, Epoch, Sid};
use fivefold_core::key::Key;
use fivefold_core::profile::{KidLength, Mode, Policy, Profile, Radio};
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::{MAX_FRAME, Pan};
use fivefold_device::{Entropy, Node, Output, Secrets, SendRefused, Settings};
use serde_json::Value;

const SEALED: [Profile; 3] = [Profile::ToGateway, Profile::ToCloud, Profile::ToBoth];

fn left(radio: Radio, profile: Profile, kid_length: KidLength) -> usize {
    budget(&Policy { radio, kid_length, ..Policy::new(profile) }, Numbering::TYPICAL).unwrap().left
}

fn node(policy: Policy, epoch: Epoch) -> Node<8> {
    let mut secrets = Secrets::default();
    secrets.link.push((1, Key::new([7; 16]))).unwrap();
    secrets.e2 = Some(E2Secret::new([8; 32], [8; 8]));
    secrets.e3 = Some(E3Secret::new(&[9; 32], &[9; 8]).unwrap());
    let settings = Settings::new(Did([0xac, 0xde, 0x48, 0, 0, 0, 0, 9]), Sid(0x0a17), Pan(0x4321), policy, epoch);
    let entropy = Entropy::check(core::array::from_fn(|n| u8::try_from(n * 3 % 251).unwrap())).unwrap();
    Node::boot(Millis(0), settings, &secrets, None, &entropy).unwrap()
}

/// The longest frame that the node gives to its radio within some seconds.
fn longest_frame(node: &mut Node<8>, from: u64) -> usize {
    let mut longest = 0;
    for now in (from..from + 10_000).step_by(50) {
        node.handle_timeout(Millis(now));
        while let Some(output) = node.poll() {
            if let Output::Transmit(frame) = output {
                longest = longest.max(frame.as_bytes().len());
            }
        }
    }
    longest
}

#[test]
fn the_figures_of_the_protocol_are_what_the_encoders_leave() {
    for profile in SEALED {
        let both = profile == Profile::ToBoth;
        let pair = |single, nested| if both { nested } else { single };
        assert_eq!(left(Radio::Ieee802154, profile, KidLength::None), pair(84, 75), "{profile}");
        assert_eq!(left(Radio::Xbee, profile, KidLength::Two), pair(70, 61), "{profile}");
        assert_eq!(left(Radio::Digimesh, profile, KidLength::Two), pair(47, 38), "{profile}");
        assert_eq!(left(Radio::Lorawan, profile, KidLength::None), pair(39, 30), "{profile}");
        assert_eq!(left_in_mesh(profile), Some(if both { 75 } else { 84 }));
    }
}

#[test]
fn a_node_sends_a_reading_of_that_size_in_a_full_frame_and_refuses_one_more_byte() {
    for radio in [Radio::Ieee802154, Radio::Ieee802154Mic32] {
        for profile in SEALED {
            for kid_length in [KidLength::None, KidLength::Two] {
                let policy = Policy { radio, kid_length, ..Policy::new(profile) };
                let mut node = node(policy, Epoch(1));
                longest_frame(&mut node, 0);
                // A node begins with a number of one byte.
                let room = budget(&policy, Numbering { number: 0, boot: None }).unwrap();
                assert_eq!(node.room(), room.left, "{radio} {profile} {kid_length:?}");
                let reading = [0x17; MAX_FRAME];
                let refused = node.send(Millis(10_000), &reading[..=room.left]);
                assert!(matches!(refused, Err(SendRefused::Seal(_))), "{refused:?}");
                node.send(Millis(10_000), &reading[..room.left]).unwrap();
                assert_eq!(longest_frame(&mut node, 10_000), MAX_FRAME, "{radio} {profile} {kid_length:?}");
            }
        }
    }
}

#[test]
fn the_boot_id_costs_a_node_what_the_budget_says() {
    let policy = Policy { mode: Mode::Random, ..Policy::new(Profile::ToBoth) };
    let numbering = Numbering { number: 0, boot: Some(BootContext([1; 8])) };
    assert_eq!(node(policy, Epoch(0)).room(), budget(&policy, numbering).unwrap().left);
}

#[test]
fn the_largest_messages_of_the_vectors_fill_the_budget() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/standards/oscore-own.json");
    let own: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (id, profile) in [("84 bytes, mesh limit", Profile::ToCloud), ("75 bytes nested, mesh limit", Profile::ToBoth)]
    {
        let vector = own["tiny"].as_array().unwrap().iter().find(|t| t["id"] == id).unwrap();
        let bytes = |name: &str| vector[name].as_str().unwrap().len() / 2;
        let b = budget(&Policy::new(profile), Numbering::TYPICAL).unwrap();
        assert_eq!((bytes("application"), bytes("tiny")), (b.left, b.tiny + b.e2 + b.e3 + b.left), "{id}");
        assert_eq!(bytes("tiny") + b.mesh + b.e1, MAX_FRAME, "{id}");
    }
}

#[test]
fn the_parts_of_every_budget_add_up_to_the_frame() {
    let output = Command::new(env!("CARGO_BIN_EXE_fivefold")).args(["budget", "-o", "json"]).output().unwrap();
    assert!(output.status.success());
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let budgets = told["budgets"].as_array().unwrap();
    assert_eq!(budgets.len(), 20);
    for b in budgets.iter().filter(|b| b["left"].is_u64()) {
        let parts = ["e1", "mesh", "tiny", "e2", "e3", "left"].map(|name| b[name].as_u64().unwrap());
        assert_eq!(parts.iter().sum::<u64>(), b["frame"].as_u64().unwrap(), "{b}");
        assert_eq!(b["insecure"], b["levels"] == "e1");
    }
}

#[test]
fn what_is_not_allowed_has_no_budget() {
    let policy = Policy { radio: Radio::Digimesh, ..Policy::new(Profile::DangerLinkOnly) };
    assert!(matches!(budget(&policy, Numbering::TYPICAL), Err(NoBudget::Refused(_))));
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--radio", "digimesh", "--levels", "e1"], 1, ""),
        (&["--radio", "ip"], 2, "ip: this radio has no frames of ours"),
        (&["--radio", "sigfox"], 2, "expected 802.15.4"),
        (&["--levels", "e9"], 2, "expected e1+e2+e4"),
        (&["--piv-length", "4"], 2, "4 is not in 1..=3"),
    ];
    for (args, code, sentence) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_fivefold")).arg("budget").args(args).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains(sentence), "{args:?}: {told}");
    }
}

#[test]
fn a_batch_of_32_costs_a_reading_less_than_five_bytes_on_a_mesh() {
    use fivefold::budget::signatures::cost;
    let mesh = Policy::new(Profile::ToCloud);
    let of = |policy: &Policy, readings| cost(policy, Numbering::TYPICAL, readings).unwrap().unwrap();
    // One frame each: a full one holds 84 bytes, and the control map of 32 readings has 80.
    let whole = of(&mesh, 32);
    assert_eq!((whole.messages, whole.bytes), (1, 127 - 84 + 80));
    assert!(whole.each() < 5.0 && of(&mesh, 1).each() > 64.0);
    let nested = of(&Policy::new(Profile::ToBoth), 32);
    assert_eq!(nested.messages, 2);
    let narrow = Policy { radio: Radio::Lorawan, ..Policy::new(Profile::ToBoth) };
    assert_eq!(of(&narrow, 64).messages, 5);
}
