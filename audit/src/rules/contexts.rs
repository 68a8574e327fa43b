//! Contexts: their age, their numbers, their windows.

use crate::facts::{Context, Facts};
use crate::rule::{Found, NO_BOOK, NO_CLOCK, Rule, Severity, Sight, Subject};

/// Days that a context is good for at most.
const LIMIT: u64 = 90;
/// Days that an installed context is good for.
const INSTALLED: u64 = 7;

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "AR-17",
        severity: Severity::Medium,
        title: "an old context",
        why: "Whoever takes a node today reads all that its keys of today sealed. After 90 days that is high.",
        cure: "Let it renew: fivefold device renew. A device that cannot is enrolled again.",
        source: "docs/protocol.md 3, 11",
        sight: Sight::Book,
        check: old_context,
    },
    Rule {
        id: "AR-21",
        severity: Severity::High,
        title: "a replay window that lets old messages in",
        why: "A recorded message that counts twice is a forged reading. A neighbour whose counter is believed without proof may \
              be one that somebody recorded.",
        cure: "Take [[link.danger_synced]] out of gateway.toml. The windows themselves no setting changes.",
        source: "docs/protocol.md 8.1",
        sight: Sight::Files,
        check: believed_counters,
    },
    Rule {
        id: "AR-22",
        severity: Severity::Medium,
        title: "contexts that drain too long",
        why: "Keys that were replaced still open what comes late.",
        cure: "Use the cloud as it is: 96 hours are no setting.",
        source: "docs/protocol.md 8.1",
        sight: Sight::Code("cloud: DRAIN is 96 h; cloud/tests"),
        check: |_, _| {},
    },
    Rule {
        id: "AR-23",
        severity: Severity::Critical,
        title: "numbers that are not durable",
        why: "A device that forgets its number uses one twice, and one number twice under one key opens what was sealed.",
        cure: "Let the device lease its numbers durably (mode P), or enrol it in mode R.",
        source: "docs/protocol.md 8.2, W1",
        sight: Sight::Code(
            "device: a number is leased in blocks of 64 before it is used; the kill test records every nonce",
        ),
        check: |_, _| {},
    },
    Rule {
        id: "AR-42",
        severity: Severity::Critical,
        title: "a nonce of a HELLO or an ephemeral key that comes again",
        why: "The device's generator of random numbers repeats itself: its keys can be guessed.",
        cure: "Take the device out of use, and find out what is wrong with its generator.",
        source: "docs/protocol.md 4.1, 11",
        sight: Sight::Live("somebody who remembers nonces and ephemeral keys of each device: no daemon does yet"),
        check: repeats,
    },
    Rule {
        id: "AR-43",
        severity: Severity::Medium,
        title: "an installed context that was never renewed",
        why: "Its keys lay in a file, and whoever had the file has them. The first renewal ends that.",
        cure: "Let it renew: fivefold device renew.",
        source: "docs/protocol.md 3",
        sight: Sight::Book,
        check: never_renewed,
    },
];

fn old_context(facts: &Facts, found: &mut Found) {
    for device in facts.devices() {
        let since = match device.context {
            Context::Agreed(at) | Context::Installed(at) => at,
            Context::AtGateway => {
                found.unknown(device.subject(), "its gateway, which agreed its keys: fivefold gateway local there");
                continue;
            }
            Context::Unseen => {
                found.unknown(device.subject(), NO_BOOK);
                continue;
            }
            Context::Awaited | Context::Boot | Context::None => continue,
        };
        let Some(days) = facts.days_since(since) else {
            found.unknown(device.subject(), NO_CLOCK);
            continue;
        };
        let renews = u64::from(device.policy.renew_days);
        if days <= renews && days <= LIMIT {
            found.good();
            continue;
        }
        let severity = if days > LIMIT { Severity::High } else { Severity::Medium };
        found.bad_as(
            severity,
            device.subject(),
            format!("the keys of device {} are {days} days old; it should renew every {renews}", device.name),
            format!("fivefold device renew {}", device.name),
        );
    }
}

fn believed_counters(facts: &Facts, found: &mut Found) {
    super::each_config(facts, found, |gateway, config, found| match config.settings.link.danger_synced.len() {
        0 => found.good(),
        n => found.bad(
            config.place(gateway.subject(), "link.danger_synced"),
            format!("gateway {} believes the frame counters of {n} neighbour(s) without proof", gateway.name),
            "take [[link.danger_synced]] out",
        ),
    });
}

/// No process keeps what it takes to know, and so none says that it is good.
fn repeats(facts: &Facts, found: &mut Found) {
    if facts.live.is_some()
        && let Sight::Live(needs) = found.rule().sight
    {
        found.unknown(Subject::deployment(), needs);
    }
}

fn never_renewed(facts: &Facts, found: &mut Found) {
    for device in facts.devices() {
        match device.context {
            Context::Installed(at) if facts.days_since(at).is_none() => found.unknown(device.subject(), NO_CLOCK),
            Context::Installed(at) if facts.days_since(at).is_some_and(|days| days > INSTALLED) => {
                found.bad(
                    device.subject(),
                    format!("device {} still uses the keys that lay in its file", device.name),
                    format!("fivefold device renew {}", device.name),
                );
            }
            Context::AtGateway => {
                found.unknown(device.subject(), "its gateway, which agreed its keys: fivefold gateway local there")
            }
            Context::Unseen => found.unknown(device.subject(), NO_BOOK),
            Context::Agreed(_) | Context::Installed(_) => found.good(),
            Context::Awaited | Context::Boot | Context::None => {}
        }
    }
}
