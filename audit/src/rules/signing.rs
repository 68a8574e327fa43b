//! Signatures of devices, the log, and what is evidence.

use fivefold_core::profile::Sign;
use fivefold_keep::registry::KeyOrigin;
use fivefold_keep::share::CloudSettings;

use crate::facts::{Config, Facts, Live};
use crate::rule::{Found, NO_BOOK, Rule, Severity, Sight, Subject};

/// Witnesses that a log needs.
const WITNESSES: usize = 2;
/// Seconds that a cosigned head is good for.
const HEAD: u64 = 86_400;

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "AR-25",
        severity: Severity::High,
        title: "a device that must sign and does not",
        why: "Its readings are stored, and prove nothing to anybody later.",
        cure: "Certify its key: fivefold device certify DID --request FILE.",
        source: "docs/protocol.md 13.1",
        sight: Sight::Live("the running cloud, for when the last batch of each device came; keys were looked at"),
        check: no_signing_key,
    },
    Rule {
        id: "AR-26",
        severity: Severity::Medium,
        title: "a signing key that somebody else may have",
        why: "What a key signs that was made elsewhere, or that has another use too, may be signed by somebody else.",
        cure: "Let the device make one (fivefold node signing-request --new), and certify that with --replace.",
        source: "docs/protocol.md 3, 13.1",
        sight: Sight::Book,
        check: signing_key_of_others,
    },
    Rule {
        id: "AR-27",
        severity: Severity::High,
        title: "a log with fewer than two witnesses",
        why: "A log that nobody else saw can be rewritten by whoever has its key: the operator, or a thief.",
        cure: "Add [[log.witnesses]] to cloud.toml, of people who do not depend on you.",
        source: "docs/protocol.md 13.2; C2SP tlog-witness",
        sight: Sight::Live("the running cloud, for the age of the last cosigned head; the config was looked at"),
        check: few_witnesses,
    },
    Rule {
        id: "AR-34",
        severity: Severity::Medium,
        title: "a device's clock as evidence of time",
        why: "Whoever has the device sets its clock.",
        cure: "Take the time from the log's cosignatures or a timestamp (RFC 3161).",
        source: "docs/protocol.md 13; docs/evidence.md 7",
        sight: Sight::Code("the verifier takes time from witnesses and timestamps alone; evidence/tests/verdicts.rs"),
        check: |_, _| {},
    },
    Rule {
        id: "AR-40",
        severity: Severity::Critical,
        title: "a backup that was put back as if nothing had happened",
        why: "It does not know what was said since it was made: answers would be numbered twice under one key.",
        cure: "Stop the cloud, type fivefold cloud restored --dir DIR, and start it again.",
        source: "docs/protocol.md 8.4",
        sight: Sight::Live("the running cloud, and its log's last entries: no file says that it is a copy"),
        check: put_back,
    },
];

fn no_signing_key(facts: &Facts, found: &mut Found) {
    for device in facts.devices().filter(|d| d.policy.sign == Sign::Batch) {
        let did = &device.name;
        if let Some(since) = device.reported.as_ref().and_then(|r| r.unsigned) {
            let hours = facts.now.saturating_sub(since) / 3600;
            found.bad(
                device.subject().on("overdue"),
                format!("readings of device {did} wait since {hours} hours for its signature"),
                "look at the device: it sends, and does not sign",
            );
            continue;
        }
        if device.signer.is_some() {
            found.good();
            continue;
        }
        found.bad(
            device.subject(),
            format!(
                "device {did} must sign its readings (sign = batch) and has no signing key: certify one with fivefold device \
                 certify {did}"
            ),
            format!("fivefold device certify {did} --request FILE"),
        );
    }
}

fn signing_key_of_others(facts: &Facts, found: &mut Found) {
    classic_signing_key_of_others(facts, found);
    for device in facts.devices() {
        let Some(signer) = device.signer else { continue };
        let did = &device.name;
        if signer.is_dh_key {
            found.bad(
                device.subject().on("dh-key"),
                format!("the signing key of device {did} is its DH key: a key has one use"),
                format!(
                    "fivefold node signing-request --new, then: fivefold device certify {did} --request FILE --replace"
                ),
            );
        } else if signer.origin.is_none() {
            found.unknown(device.subject(), NO_BOOK);
        } else if signer.origin == Some(KeyOrigin::Elsewhere) {
            found.bad(
                device.subject().on("made-elsewhere"),
                format!(
                    "the signing key of device {did} was made elsewhere, so whoever made it may sign in its name: let the \
                     device make one, and certify that with --replace"
                ),
                format!("fivefold node signing-request --new, then: fivefold device certify {did} --request FILE --replace"),
            );
        } else {
            found.good();
        }
    }
}

/// A classic node cannot make a key: the computer that flashes it does.
fn classic_signing_key_of_others(facts: &Facts, found: &mut Found) {
    for device in facts.classic() {
        let Some(signer) = device.signer else { continue };
        if signer.origin != Some(KeyOrigin::Elsewhere) {
            found.good();
            continue;
        }
        found.bad(
            device.subject().on("made-elsewhere"),
            format!(
                "the signing key of classic device {} was made by the computer that flashed it, so whoever has a copy signs in \
                 its name",
                device.name
            ),
            "delete the file on that computer, and let evidence of this device be worth so much",
        );
    }
}

fn few_witnesses(facts: &Facts, found: &mut Found) {
    let Some(cloud) = &facts.cloud else {
        found.unknown(Subject::cloud(), "its cloud.toml");
        return;
    };
    let witnesses = cloud.settings.log.witnesses.len();
    let Some(least) = witnesses.checked_sub(WITNESSES) else {
        return too_few(facts, witnesses, cloud, found);
    };
    let Some(live) = &facts.live else { return found.good() };
    // Each may have said so before this process started, and nobody here knows.
    let mut last: Vec<u64> = live.cosigned.iter().map(|at| at.unwrap_or(live.started)).collect();
    last.sort_unstable();
    match last.get(least) {
        Some(at) if facts.now > at.saturating_add(HEAD) => found.bad(
            Subject::cloud().on("head"),
            format!("for more than a day fewer than {WITNESSES} witnesses have cosigned a head of the log"),
            "fivefold log show says what went wrong with each",
        ),
        Some(_) if live.cosigned.iter().flatten().count() >= WITNESSES => found.good(),
        _ => found.unknown(Subject::cloud(), "two witnesses that cosigned since the cloud started"),
    }
}

fn too_few(facts: &Facts, witnesses: usize, cloud: &Config<CloudSettings>, found: &mut Found) {
    // Where no device signs, the log proves nothing that is worth a lie.
    let is_used = facts.devices().any(|d| d.policy.sign == Sign::Batch) || facts.classic().any(|d| d.signer.is_some());
    let severity = if is_used { Severity::High } else { Severity::Low };
    found.bad_as(
        severity,
        cloud.place(Subject::cloud(), "log.witnesses"),
        format!("the log has {witnesses} witness(es): who has its key can rewrite it"),
        "add two [[log.witnesses]] to cloud.toml (docs/operate.md, The log, its witnesses and monitors)",
    );
}

fn put_back(facts: &Facts, found: &mut Found) {
    match &facts.live {
        None => {}
        Some(Live { strays: 0, .. } | Live { is_restored: true, .. }) => found.good(),
        Some(Live { strays, .. }) => found.bad(
            Subject::cloud(),
            format!("the log has {strays} entries that the store never knew of: the store is an older copy"),
            "stop the cloud, type fivefold cloud restored --dir DIR, and start it again",
        ),
    }
}
