//! Classic devices, and RSA: what their schemes cannot do.

mod rsa;

use crate::facts::{Facts, Network};
use crate::rule::{Found, Rule, Severity, Sight, Subject};

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "AR-09",
        severity: Severity::High,
        title: "AES in ECB",
        why: "Equal blocks look equal, and anybody cuts frames apart and puts the blocks together anew without the key. Where \
              readings switch something, that is critical.",
        cure: "Harden the nodes (fivefold device harden SERIAL), or replace them by nodes of the modern suite.",
        source: "docs/threats.md, flaw by flaw; NIST SP 800-38A",
        sight: Sight::Book,
        check: ecb,
    },
    Rule {
        id: "AR-10",
        severity: Severity::Critical,
        title: "classic frames without a MAC",
        why: "Nothing proves who made such a frame. They are stored as legacy or plain; whatever acts on them as if they were \
              verified is open to anybody with a radio.",
        cure: "Harden the nodes (fivefold device harden SERIAL); let nothing act on readings labelled legacy or plain.",
        source: "docs/protocol.md 12.6; docs/threats.md, what each attack obtains from classic nodes",
        sight: Sight::Book,
        check: no_mac,
    },
    Rule {
        id: "AR-11",
        severity: Severity::High,
        title: "MD5 or SHA-1 for integrity",
        why: "Two texts with one hash are made for a little money: a signature over one counts for the other.",
        cure: "Have the certificate issued anew, with SHA-256 or better.",
        source: "RFC 9155; NIST SP 800-131A",
        sight: Sight::Files,
        check: broken_hash,
    },
    Rule {
        id: "AR-12",
        severity: Severity::Critical,
        title: "RSA of 1024 bits",
        why: "A modulus of 1024 bits is in reach of those with much money. Whoever factors it opens all that was ever sealed \
              for it: until a day that a waiver names, if it must be.",
        cure: "Make a key of 2048 bits or more; this version makes and takes no smaller one.",
        source: "docs/protocol.md 12; NIST SP 800-131A",
        sight: Sight::Files,
        check: rsa::small,
    },
    Rule {
        id: "AR-13",
        severity: Severity::Medium,
        title: "keys transported by RSA",
        why: "There is no forward secrecy: whoever gets the cloud's key one day opens every key message that was recorded.",
        cure: "Replace the node by one of the modern suite, which renews by EDHOC.",
        source: "docs/protocol.md 12; RFC 9325 4.1",
        sight: Sight::Book,
        check: key_transport,
    },
    Rule {
        id: "AR-14",
        severity: Severity::Critical,
        title: "a bad RSA key",
        why: "Small exponents and common factors open keys without factoring: of keys made by poor generators, one in some \
              hundreds shares a prime with another.",
        cure: "Make the key anew on a machine with a good generator, with exponent 65537.",
        source: "docs/protocol.md 12; Heninger et al., Mining Your Ps and Qs, 2012",
        sight: Sight::Files,
        check: rsa::bad,
    },
    Rule {
        id: "AR-15",
        severity: Severity::Critical,
        title: "textbook RSA",
        why: "Without padding, equal texts look equal, small ones are guessed, and ciphertexts are multiplied into others.",
        cure: "Use key messages (fivefold device key-messages), which have OAEP.",
        source: "docs/protocol.md 12; docs/threats.md",
        sight: Sight::Code("no daemon names it: only waspmote has it, to read what exists; ./ci.sh arrows"),
        check: |_, _| {},
    },
];

fn ecb(facts: &Facts, found: &mut Found) {
    for network in &facts.networks {
        let name = &network.name;
        match facts.classic().filter(|d| d.network == *name && !d.is_hardened && !d.keys.is_empty()).count() {
            0 => found.good(),
            n => found.bad(
                network.subject(),
                format!(
                    "network {name}: {n} classic device(s) use AES in ECB, which shows what repeats and lets anybody cut and \
                     paste blocks; harden them"
                ),
                "fivefold device harden SERIAL, for each of them",
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
                "fivefold device harden SERIAL, for each of them",
            ),
        }
    }
}

fn broken_hash(facts: &Facts, found: &mut Found) {
    for certificate in &facts.certificates {
        match certificate.broken {
            None => found.good(),
            Some(hash) => found.bad(
                Subject::file(&certificate.path).on(hash),
                format!("the certificate in {} is signed with {hash}", certificate.path.display()),
                "have it issued anew, with SHA-256",
            ),
        }
    }
}

fn key_transport(facts: &Facts, found: &mut Found) {
    let count = |n: &Network| facts.classic().filter(|d| d.network == n.name && d.has_key_messages).count();
    for network in &facts.networks {
        match count(network) {
            0 => found.good(),
            n => found.bad(
                network.subject(),
                format!(
                    "network {}: the keys of {n} classic device(s) come by RSA, without forward secrecy",
                    network.name
                ),
                "replace these nodes by nodes of the modern suite",
            ),
        }
    }
}
