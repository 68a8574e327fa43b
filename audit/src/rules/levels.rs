//! Which levels there are at all.

use fivefold_core::profile::Profile;

use crate::facts::Facts;
use crate::rule::{Found, Rule, Severity, Sight};

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "AR-01",
        severity: Severity::Critical,
        title: "E1 only, or nothing",
        why: "Whoever holds the one key of the network, which is in every node of it, reads and forges all its readings.",
        cure: "Make a network with e1+e3+e4 and enrol its devices there; revoke them here.",
        source: "docs/protocol.md 1; ETSI EN 303 645 5.5-1",
        sight: Sight::Files,
        check: e1_alone,
    },
    Rule {
        id: "AR-02",
        severity: Severity::High,
        title: "a link without integrity",
        why: "Strangers reach the gateway in the name of a device, and drain batteries along the way: nothing stops a frame \
              before E2 or E3 is opened.",
        cure: "Use a radio with E1 (802.15.4, xbee, digimesh, lorawan, 3gpp), and enrol the device again.",
        source: "docs/protocol.md 4.4",
        sight: Sight::Files,
        check: no_link,
    },
];

fn e1_alone(facts: &Facts, found: &mut Found) {
    for network in &facts.networks {
        let name = &network.name;
        if network.profile == Profile::DangerLinkOnly {
            found.bad(
                network.subject(),
                format!("network {name} uses E1 alone: whoever holds its one key reads and forges its readings"),
                format!("fivefold network add --levels e1+e3+e4 {name}-2, and enrol its devices there"),
            );
        } else {
            found.good();
        }
    }
    let weaker =
        |network: &str| facts.networks.iter().any(|n| n.name == network && n.profile == Profile::DangerLinkOnly);
    for device in facts.devices().filter(|d| !weaker(&d.network)) {
        if device.policy.profile == Profile::DangerLinkOnly {
            found.bad(
                device.subject(),
                format!(
                    "device {} uses E1 alone: whoever holds the network's key reads and forges its readings",
                    device.name
                ),
                format!("fivefold device revoke {}, and enrol it in a network with E3", device.name),
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
        found.bad(
            device.subject(),
            format!("device {} has no E1 (its link is {class}): strangers reach the gateway in its name", device.name),
            format!("fivefold device revoke {}, and enrol it again with a radio that has E1", device.name),
        );
    }
}
