//! Classic devices: what their scheme cannot do.

use crate::facts::Facts;
use crate::rule::{Found, Rule, Severity, Sight};

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "AR-09",
        severity: Severity::High,
        title: "AES in ECB",
        why: "Equal blocks look equal, and anybody cuts frames apart and puts the blocks together anew without the key. Where \
              readings switch something, that is critical.",
        cure: "Harden the nodes (fivefold device harden), or replace them by nodes of the modern suite.",
        source: "docs/threats.md, flaw by flaw; NIST SP 800-38A",
        sight: Sight::Files,
        check: ecb,
    },
    Rule {
        id: "AR-10",
        severity: Severity::Critical,
        title: "classic frames without a MAC",
        why: "Nothing proves who made such a frame. They are stored as legacy or plain; whatever acts on them as if they were \
              verified is open to anybody with a radio.",
        cure: "Harden the nodes (fivefold device harden), or let nothing act on readings that are labelled legacy or plain.",
        source: "docs/protocol.md 12.6; docs/threats.md, what each attack obtains from classic nodes",
        sight: Sight::Files,
        check: no_mac,
    },
];

fn ecb(facts: &Facts, found: &mut Found) {
    for network in &facts.networks {
        let name = &network.name;
        let sealed = facts.classic().filter(|d| d.network == *name && !d.is_hardened && !d.keys.is_empty()).count();
        match sealed {
            0 => found.good(),
            n => found.bad(
                network.subject(),
                format!("network {name}: {n} classic device(s) use AES in ECB, which shows what repeats and lets anybody cut and paste blocks"),
                "fivefold device harden SERIAL, for each of them".to_owned(),
            ),
        }
    }
}

fn no_mac(facts: &Facts, found: &mut Found) {
    for network in &facts.networks {
        let name = &network.name;
        match facts.classic().filter(|d| d.network == *name && !d.is_hardened).count() {
            0 => found.good(),
            n => found.bad(
                network.subject(),
                format!(
                    "network {name}: frames of {n} classic device(s) have no MAC, so anybody can make them; they are stored as \
                     legacy or plain, and nothing may act on them as verified"
                ),
                "fivefold device harden SERIAL, for each of them".to_owned(),
            ),
        }
    }
}
