//! Keys: guessable, shared, too old, in the wrong hands.

use std::path::Path;

use crate::facts::{Classic, Device, Facts, KeySeen, KeySince, Network, Print, Sharer, Wrap};
use crate::rule::{Found, Kind, NO_CLOCK, Rule, Severity, Sight, Subject};
use crate::rules::NO_CONFIG;

/// Names that a sentence tells, at most.
const NAMED: usize = 3;

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "AR-04",
        severity: Severity::Critical,
        title: "a network key that can be guessed",
        why: "A default of an example or a text is tried first, by programs that anybody can download. Then E1 is none.",
        cure: "Change it: fivefold key rotate --network NETWORK.",
        source: "docs/protocol.md 3; ETSI EN 303 645, 5.1-1",
        sight: Sight::Book,
        check: guessable_network_key,
    },
    Rule {
        id: "AR-05",
        severity: Severity::Critical,
        title: "a gateway that holds what only the cloud may hold",
        why: "Gateways hang on poles. One that holds a key of E3, K_e2root, K_blind, root_psk, or what opens them, gives all \
              readings away with itself.",
        cure: "Take the file away from the gateway, treat the keys in it as known, and enrol those devices again.",
        source: "docs/protocol.md 3, K1",
        sight: Sight::Files,
        check: gateway_holds_more,
    },
    Rule {
        id: "AR-07",
        severity: Severity::Critical,
        title: "one key on two devices",
        why: "Whoever takes one of these nodes is all of them. Under one key two nodes also use the same numbers, which opens \
              what they sealed.",
        cure: "Give each its own: enrol them again, and let a device make its own key.",
        source: "docs/protocol.md 3, K4; ETSI EN 303 645, 5.4-4",
        sight: Sight::Book,
        check: shared_keys,
    },
    Rule {
        id: "AR-08",
        severity: Severity::Critical,
        title: "a device key that can be guessed",
        why: "Text, repeated bytes, and what is made of a name or an id are found by trying.",
        cure: "Enrol the device again with keys that a generator drew; give a classic node another key.",
        source: "docs/protocol.md 3; NIST SP 800-133",
        sight: Sight::Book,
        check: guessable_device_keys,
    },
    Rule {
        id: "AR-18",
        severity: Severity::Medium,
        title: "an old network key",
        why: "The key is in every node. The longer it is used, the more people and lost nodes have it. After 180 days that is \
              high.",
        cure: "Change it every 90 days: fivefold key rotate --network NETWORK.",
        source: "docs/protocol.md 3, 4.3",
        sight: Sight::Book,
        check: old_network_key,
    },
    Rule {
        id: "AR-19",
        severity: Severity::Critical,
        title: "a revoked device that still has the network key",
        why: "It is refused by the cloud, and still hears, relays and forges on the link.",
        cure: "Change the key: fivefold key rotate --network NETWORK, which the revoked device is not told.",
        source: "docs/protocol.md 4.3",
        sight: Sight::Book,
        check: revoked_with_key,
    },
    Rule {
        id: "AR-36",
        severity: Severity::High,
        title: "secrets whose key lies beside them",
        why: "Whoever copies the folder, or finds a backup of it, has every key of the deployment.",
        cure: "Wrap the vault's key by a token or a systemd credential (fivefold vault rewrap), or keep the passphrase on \
               another medium.",
        source: "docs/protocol.md 3, K3; ETSI EN 303 645, 5.4-1",
        sight: Sight::Files,
        check: unwrapped,
    },
];

/// What it takes where the vault was not opened.
const NO_VAULT: &str = "the vault: run without --without-secrets, with --passphrase-file FILE if it lies elsewhere";

fn guessable_network_key(facts: &Facts, found: &mut Found) {
    let of = |found: &mut Found, subject: Subject, network: &str, keys: &[KeySeen]| {
        for key in keys {
            match &key.weak {
                None => found.good(),
                Some(weak) => found.bad(
                    subject.clone().on(&*key.what),
                    format!("{subject}: {} can be guessed, for it is {}", key.what, weak.why),
                    format!("fivefold key rotate --network {network}"),
                ),
            }
        }
    };
    let mut looked = Vec::new();
    for gateway in facts.gateways() {
        if let Some(keys) = &gateway.link_keys {
            of(found, gateway.subject(), &gateway.network, keys);
            looked.push(&gateway.network);
        }
    }
    for network in &facts.networks {
        match &network.keys {
            Some(keys) => of(found, network.subject(), &network.name, keys),
            None if looked.contains(&&network.name) => {}
            None => found.unknown(network.subject(), NO_VAULT),
        }
    }
}

fn gateway_holds_more(facts: &Facts, found: &mut Found) {
    for gateway in facts.gateways() {
        let Some(strange) = &gateway.strange else {
            found.unknown(gateway.subject(), NO_CONFIG);
            continue;
        };
        if strange.is_empty() {
            found.good();
        }
        for path in strange {
            found.bad(
                gateway.subject().on(path.file_name().unwrap_or_default().to_string_lossy()).at(path, None),
                format!("gateway {} has a file that no gateway may have: {}", gateway.name, path.display()),
                format!("shred -u {}, and enrol again whose keys it opens", path.display()),
            );
        }
    }
}

/// Whose a key is. Subjects are made for the few that a sentence names: a deployment has millions of keys.
#[derive(Clone, Copy)]
enum Owner<'f> {
    Network(&'f Network),
    Device(&'f Device),
}

impl Owner<'_> {
    fn subject(self) -> Subject {
        match self {
            Self::Network(network) => network.subject(),
            Self::Device(device) => device.subject(),
        }
    }
}

fn shared_keys(facts: &Facts, found: &mut Found) {
    for group in &facts.sharers {
        let is_live = group.iter().any(|s| !s.is_revoked);
        let Some(first) = group.iter().find(|s| !s.is_revoked).filter(|_| is_live && group.len() > 1) else { continue };
        let subject = facts.classic.iter().find(|c| c.name == first.name).map(Classic::subject);
        found.bad(
            subject.unwrap_or_else(|| Subject::network(&first.network)),
            format!(
                "classic {} have one key: whoever takes one of these nodes reads and makes the frames of all; give each its own",
                listed(group.iter().map(shown))
            ),
            "fivefold device set-keys SERIAL, with another key for each",
        );
    }
    let networks = facts.networks.iter().map(|n| (Owner::Network(n), n.keys.as_deref()));
    let devices = facts.devices().map(|d| (Owner::Device(d), d.keys.as_deref()));
    let owners = networks.chain(devices);
    let keys = owners.flat_map(|(owner, keys)| keys.unwrap_or_default().iter().map(move |key| (owner, key)));
    let mut held: Vec<(&Print, Owner<'_>, &KeySeen)> =
        keys.filter_map(|(owner, key)| Some((key.print.as_ref()?, owner, key))).collect();
    // Stable: the first of a group is the first of the book.
    held.sort_by_key(|(print, ..)| *print);
    for group in held.chunk_by(|(a, ..), (b, ..)| a == b) {
        match group {
            [] | [_] => found.good(),
            [(_, owner, key), ..] => found.bad(
                owner.subject().on(&*key.what),
                format!(
                    "{} have one key ({})",
                    listed(group.iter().map(|(_, o, _)| o.subject().to_string())),
                    key.what
                ),
                "enrol each of them again: fivefold device enrol-again",
            ),
        }
    }
    for device in facts.devices().filter(|d| d.keys.is_none()) {
        found.unknown(device.subject(), NO_VAULT);
    }
}

fn shown(sharer: &Sharer) -> String {
    let revoked = if sharer.is_revoked { " (revoked)" } else { "" };
    format!("device {}{revoked}", sharer.name)
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let (named, more) = names.split_at(names.len().min(NAMED));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    named.join(", ") + &more
}

fn guessable_device_keys(facts: &Facts, found: &mut Found) {
    let of = |found: &mut Found, subject: Subject, kind: &str, name: &str, key: &KeySeen| match &key.weak {
        None => found.good(),
        Some(weak) => found.bad_as(
            weak.severity,
            subject.on(&*key.what),
            format!("{kind} {name}: {} can be guessed: {}", key.what, weak.why),
            "give it keys that a generator drew: enrol it again",
        ),
    };
    for device in facts.devices() {
        match &device.keys {
            None => found.unknown(device.subject(), NO_VAULT),
            Some(keys) => keys.iter().for_each(|key| of(found, device.subject(), "device", &device.name, key)),
        }
    }
    for device in facts.classic() {
        device.keys.iter().for_each(|key| of(found, device.subject(), "classic device", &device.name, key));
    }
}

fn old_network_key(facts: &Facts, found: &mut Found) {
    for network in &facts.networks {
        let name = &network.name;
        let Some(since) = network.key_since else {
            found.unknown(network.subject(), "somebody who has its key: the book does not say when it was made");
            continue;
        };
        let (at, least) = match since {
            KeySince::Made(at) => (at, ""),
            KeySince::InUse(at) => (at, "at least "),
        };
        let Some(days) = facts.days_since(at) else {
            found.unknown(network.subject(), NO_CLOCK);
            continue;
        };
        let severity = match (days, since) {
            (0..=90, KeySince::Made(_)) => {
                found.good();
                continue;
            }
            (0..=90, KeySince::InUse(_)) => {
                let needs = format!("somebody who knows when its key was made: it was in use {days} days ago");
                found.unknown(network.subject(), needs);
                continue;
            }
            (91..=180, _) => Severity::Medium,
            _ => Severity::High,
        };
        found.bad_as(
            severity,
            network.subject(),
            format!("network {name} has had its key for {least}{days} days"),
            format!("fivefold key rotate --network {name}"),
        );
    }
}

fn revoked_with_key(facts: &Facts, found: &mut Found) {
    for network in &facts.networks {
        let has_key = |d: &&Device| d.network == network.name && d.policy.radio.link_class().has_network_key();
        let revoked = facts.devices.iter().filter(has_key).filter(|d| d.revoked_at.is_some());
        for device in revoked {
            if device.revoked_at.is_some_and(|at| is_shut_out(network, at)) {
                found.good();
                continue;
            }
            let (name, network) = (&device.name, &network.name);
            found.bad(
                device.subject(),
                format!("device {name} was revoked and still has a key that network {network} takes"),
                format!("fivefold key rotate --network {network}; see: fivefold key show --network {network}; the key before is taken until it is retired"),
            );
        }
    }
}

/// Whether every key that is still taken was made after that time. While a rotation drains, the key before is taken too.
fn is_shut_out(network: &Network, revoked_at: u64) -> bool {
    let rotation = network.rotation.as_ref();
    rotation.is_some_and(|r| r.started_at >= revoked_at && r.retired_at.is_some() && r.rolled_back_at.is_none())
}

fn unwrapped(facts: &Facts, found: &mut Found) {
    for vault in &facts.vaults {
        // A gateway's opens its own keys, and no key of a device's readings.
        let is_gateway = vault.subject.kind == Kind::Gateway;
        let severity = if is_gateway { Severity::Medium } else { Severity::High };
        let folder = vault.folder.display();
        let rewrap =
            format!("fivefold vault rewrap systemd-credential --dir {folder} NAME, or pkcs11 (docs/operate.md)");
        let subject = |path: &Path, part: &str| vault.subject.clone().on(part).at(path, None);
        match &vault.wrap {
            Wrap::Held(_) => found.good(),
            Wrap::Beside(path) => found.bad_as(
                severity,
                subject(path, "beside"),
                format!(
                    "the passphrase of {} lies beside what it opens: a copy of {folder} is every key in it",
                    vault.subject
                ),
                rewrap,
            ),
            Wrap::Elsewhere(path) => found.bad_as(
                Severity::Medium,
                subject(path, "elsewhere"),
                format!(
                    "the passphrase of {} is a file ({}): a copy of both is every key in it",
                    vault.subject,
                    path.display()
                ),
                rewrap,
            ),
        }
    }
    if !facts.is_searched {
        found.unknown(Subject::deployment(), "its folder, to be searched for keys that lie open");
    } else if facts.unsearched.is_empty() && facts.bare.is_empty() {
        found.good();
    }
    for (path, needs) in &facts.unsearched {
        found.unknown(Subject::file(path), *needs);
    }
    for bare in &facts.bare {
        found.bad(
            Subject::file(&bare.path).on(bare.why.as_str()),
            format!("{} {}", bare.path.display(), bare.why),
            bare.cure.clone(),
        );
    }
}
