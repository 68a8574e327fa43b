//! Which levels there are, and how strong each is.

use fivefold_core::profile::{Mode, Profile, Radio};
use fivefold_core::suite::{Alg, MicLen};

use crate::facts::{Device, Facts};
use crate::rule::{Found, NO_BOOK, Rule, Severity, Sight};

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "AR-01",
        severity: Severity::Critical,
        title: "E1 only, or nothing",
        why: "Whoever holds the one key of the network, which is in every node of it, reads and forges all its readings.",
        cure: "Make a network with e1+e3+e4 (fivefold network add) and enrol its devices there; revoke them here.",
        source: "docs/protocol.md 1; ETSI EN 303 645, 5.5-1",
        sight: Sight::Book,
        check: e1_alone,
    },
    Rule {
        id: "AR-02",
        severity: Severity::High,
        title: "a link without integrity counted as E1",
        why: "Strangers reach the gateway in the name of a device, and drain batteries along the way: nothing stops a frame \
              before E2 or E3 is opened.",
        cure: "Use a radio with E1 (802.15.4, xbee, digimesh, lorawan, 3gpp), and enrol the device again.",
        source: "docs/protocol.md 4.4",
        sight: Sight::Book,
        check: no_link,
    },
    Rule {
        id: "AR-03",
        severity: Severity::High,
        title: "a short integrity code on the link, or none",
        why: "A MIC of 32 bits can be guessed by trying, and stands alone where neither E2 nor E3 is there; levels 4 and 0 of \
              802.15.4 have none at all.",
        cure: "Take a radio with a MIC of 64 bits; in gateway.toml write minimum_level = 6 under [link].",
        source: "docs/protocol.md 4.1; IEEE 802.15.4 9.4",
        sight: Sight::Book,
        check: short_mic,
    },
    Rule {
        id: "AR-06",
        severity: Severity::High,
        title: "fewer levels than the policy wants",
        why: "With E2 and without E3 a gateway reads and can alter every reading: a stolen gateway is enough. What the policy \
              wants has to be told (--profile), for no file of the deployment says whom the operator trusts.",
        cure: "Make a network with the levels that you want (fivefold network add --levels), and enrol its devices there.",
        source: "docs/protocol.md 1",
        sight: Sight::Book,
        check: fewer_levels,
    },
    Rule {
        id: "AR-16",
        severity: Severity::Medium,
        title: "AES-128 at E2 or E3",
        why: "Algorithm 10 is for stock clients. It promises 128 bits, 64 against a quantum computer, and takes no part in the \
              mixing that holds against one.",
        cure: "Enrol the device again with algorithm 11 (fivefold device add, without --alg).",
        source: "docs/protocol.md 2, 3; NIST IR 8547",
        sight: Sight::Book,
        check: aes_128,
    },
    Rule {
        id: "AR-24",
        severity: Severity::Low,
        title: "mode R",
        why: "A device in mode R remembers nothing over a boot: whoever resets it meets the same keys again, and nothing older \
              is refused by it. Where it switches something, that is high.",
        cure: "If its flash can be written, enrol it again in mode P. It must not switch anything.",
        source: "docs/protocol.md 8.3",
        sight: Sight::Book,
        check: mode_r,
    },
    Rule {
        id: "AR-29",
        severity: Severity::Medium,
        title: "no mixing against quantum computers",
        why: "What is recorded today can be opened when P-256 is broken, unless root_psk is mixed into the keys. It matters \
              where readings are to stay secret for more than five years; if yours need not, waive it.",
        cure: "Enrol the device again in a network whose devices agree their keys with the cloud: mixing is the default there.",
        source: "docs/protocol.md 3; NIST IR 8547",
        sight: Sight::Book,
        check: no_mixing,
    },
    Rule {
        id: "AR-33",
        severity: Severity::Critical,
        title: "commands without freshness",
        why: "A recorded command that is played again switches again what it switched.",
        cure: "Use the device SDK as it is: no setting takes the check away.",
        source: "docs/protocol.md 8.1, 9; RFC 9175",
        sight: Sight::Code(
            "device: an answer is bound to its request, a command needs Echo after a boot; device/tests",
        ),
        check: |_, _| {},
    },
    Rule {
        id: "AR-35",
        severity: Severity::High,
        title: "a radio that cannot carry the level",
        why: "Where a message does not fit into a frame with its tags, somebody will leave the tags out.",
        cure: "Take another radio, or fewer levels: fivefold budget shows what is left in a frame.",
        source: "docs/protocol.md 6.4",
        sight: Sight::Code(
            "core: the record knows no such radio (Sigfox, for one), so none can be enrolled; core/tests/budget.rs",
        ),
        check: |_, _| {},
    },
    Rule {
        id: "AR-41",
        severity: Severity::Critical,
        title: "a device whose policy is not that of the book",
        why: "Device and cloud hold one record. Where they differ, one of them takes what the other would refuse.",
        cure: "Write the record of the book into the device, or enrol it again: fivefold device enrol-again DID.",
        source: "docs/protocol.md 2, 7.1",
        sight: Sight::Live(
            "what devices report, which the running cloud has; of shares in this folder it was looked at",
        ),
        check: other_policy,
    },
];

fn e1_alone(facts: &Facts, found: &mut Found) {
    for network in &facts.networks {
        let name = &network.name;
        if network.profile == Profile::DangerLinkOnly {
            found.bad(
                network.subject(),
                format!("network {name} uses E1 alone: whoever holds its one key reads and forges its readings"),
                format!("fivefold network add --levels e1+e3+e4 {name}-sealed, and enrol its devices there"),
            );
        } else {
            found.good();
        }
    }
    let is_of_weak =
        |d: &&Device| facts.networks.iter().any(|n| n.name == d.network && n.profile == Profile::DangerLinkOnly);
    for device in facts.devices().filter(|d| !is_of_weak(d)) {
        if device.policy.profile == Profile::DangerLinkOnly {
            let name = &device.name;
            found.bad(
                device.subject(),
                format!("device {name} uses E1 alone: whoever holds the network's key reads and forges its readings"),
                format!("fivefold device revoke {name}, and enrol it in a network with E3"),
            );
        } else {
            found.good();
        }
    }
}

fn no_link(facts: &Facts, found: &mut Found) {
    for device in facts.devices() {
        let class = device.policy.radio.link_class();
        if class.is_e1() && !device.overrides.danger_no_link {
            found.good();
            continue;
        }
        let name = &device.name;
        found.bad(
            device.subject(),
            format!(
                "device {name} has no E1 (its radio is {}): strangers reach the gateway in its name",
                device.policy.radio
            ),
            format!("fivefold device revoke {name}, and enrol it again with a radio that has E1"),
        );
    }
}

fn short_mic(facts: &Facts, found: &mut Found) {
    for device in facts.devices() {
        let end_to_end = device.policy.profile.has_e2() || device.policy.profile.has_e3();
        if end_to_end || device.policy.radio.mic() != Some(MicLen::M4) {
            found.good();
            continue;
        }
        found.bad(
            device.subject(),
            format!("device {} has a MIC of 32 bits and neither E2 nor E3", device.name),
            "enrol it again with --radio 802.15.4, or in a network with E3",
        );
    }
    super::each_config(facts, found, |gateway, config, found| {
        let level = config.settings.link.minimum_level;
        match level {
            6.. => return found.good(),
            // With E2 or E3 a MIC of 32 bits does not stand alone.
            5 if !facts.knows_devices() => return found.unknown(gateway.subject(), NO_BOOK),
            5 if !facts.is_link_only(&gateway.network) => return found.good(),
            _ => {}
        }
        found.bad(
            config.place(gateway.subject(), "link.minimum_level"),
            format!("gateway {} takes frames of security level {level} of 802.15.4 on the link", gateway.name),
            "minimum_level = 6",
        );
    });
}

fn fewer_levels(facts: &Facts, found: &mut Found) {
    for network in &facts.networks {
        let name = &network.name;
        match facts.wanted {
            // E1 alone is AR-01.
            _ if network.profile == Profile::DangerLinkOnly => {}
            None if network.profile.has_e3() => found.good(),
            None => found.unknown(
                network.subject(),
                "the levels that you want: --profile e1+e3+e4, or e1+e2+e4 if you trust its gateways",
            ),
            Some(wanted) if network.profile.levels() & wanted.levels() == wanted.levels() => found.good(),
            Some(wanted) => found.bad(
                network.subject(),
                format!("network {name} has the levels {}, and {wanted} are wanted", network.profile),
                format!("fivefold network add --levels {wanted} {name}-{wanted}, and enrol its devices there"),
            ),
        }
    }
}

fn aes_128(facts: &Facts, found: &mut Found) {
    for device in facts.devices() {
        if device.policy.profile != Profile::DangerLinkOnly && device.policy.alg == Alg::AesCcm16_64_128 {
            let name = &device.name;
            found.bad(
                device.subject(),
                format!("device {name} seals with AES-128 (algorithm 10)"),
                format!("fivefold device revoke {name}, and add it again without --alg"),
            );
        } else {
            found.good();
        }
    }
}

fn mode_r(facts: &Facts, found: &mut Found) {
    for device in facts.devices() {
        if device.policy.mode == Mode::Random {
            found.bad(
                device.subject(),
                format!(
                    "device {} is in mode R: it remembers nothing over a boot, so it must not switch anything",
                    device.name
                ),
                "if its flash can be written: enrol it again, without --mode R",
            );
        } else {
            found.good();
        }
    }
}

fn no_mixing(facts: &Facts, found: &mut Found) {
    for device in facts.devices().filter(|d| d.policy.profile != Profile::DangerLinkOnly) {
        if device.policy.pq_mix {
            found.good();
        } else {
            found.bad(
                device.subject(),
                format!(
                    "device {} does not mix root_psk into its keys: what is recorded today may be opened in ten years",
                    device.name
                ),
                "enrol it in a network whose devices agree their keys with the cloud",
            );
        }
    }
}

/// Seconds without a report of the policy after which a device that is heard hides something. It comes daily.
const SILENT: u64 = 2 * 86_400;

fn other_policy(facts: &Facts, found: &mut Found) {
    for device in facts.devices() {
        let Some(reported) = &device.reported else { continue };
        let (name, said) = (&device.name, reported.policy);
        let last = said.map_or(reported.enrolled, |said| said.at);
        let cure = format!("look at the device; then: fivefold device enrol-again {name}");
        if said.is_some_and(|said| said.is_as_in_book == Some(false)) {
            let sentence = format!("device {name} says that it runs another policy than the book has");
            found.bad(device.subject().on("reported"), sentence, cure);
        } else if reported.heard.is_some_and(|heard| heard > last.saturating_add(SILENT)) {
            let sentence = format!("device {name} is heard and has not said for two days which policy it runs");
            found.bad(device.subject().on("missing"), sentence, cure);
        } else if said.is_some_and(|said| said.is_as_in_book == Some(true)) {
            found.good();
        } else {
            found.unknown(device.subject(), "its next report of its policy, which comes daily");
        }
    }
    // A revoked one has a share here only where somebody named its folder.
    for device in &facts.devices {
        let Some(share) = &device.share else { continue };
        match &share.differs {
            None => found.good(),
            Some(what) => found.bad(
                device.subject().on(what.as_str()).at(&share.path, None),
                format!("device {} has another policy in its share than in the book: {what}", device.name),
                format!("fivefold device enrol-again {}", device.name),
            ),
        }
    }
}

const _: () = assert!(Radio::ALL.len() == 8, "a new radio: does it carry the levels (AR-35)?");
