//! Gateways, their channel to the cloud, and what else can be reached on them.

use std::collections::HashMap;
use std::net::SocketAddr;

use fivefold_core::id::Sid;

use crate::facts::{Classic, Device, Facts, Gateway};
use crate::rule::{Found, NO_BOOK, NO_CLOCK, Rule, Severity, Sight, Subject};

const DAY: u64 = 86_400;
/// Hours that a gateway must be able to keep.
const HOURS: u64 = 72;
/// What is reckoned with where nobody knows: bytes of a stored message, and messages an hour of one device.
const BYTES: u64 = 512;
const AN_HOUR: u64 = 60;
/// Messages a minute of one device, and requests a minute of one address, that are no limit any more.
const NO_LIMIT: u32 = 6_000;

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "AR-20",
        severity: Severity::Medium,
        title: "a gateway's certificate that lives too long, or ends soon",
        why: "A certificate that is stolen counts until it ends; one that has ended stops the gateway.",
        cure: "Let gateways renew by themselves, as they do; sign by hand for 90 days at most.",
        source: "docs/protocol.md 10.1",
        sight: Sight::Book,
        check: certificate_life,
    },
    Rule {
        id: "AR-28",
        severity: Severity::Critical,
        title: "two gateways that may send in one C2 context",
        why: "Two that number their answers alone use one number twice, and one number twice under one key opens both.",
        cure: "Revoke one: fivefold gateway revoke. A successor gets another gateway group.",
        source: "docs/protocol.md 3, K2",
        sight: Sight::Book,
        check: two_primaries,
    },
    Rule {
        id: "AR-30",
        severity: Severity::High,
        title: "a channel weaker than E4",
        why: "TLS below 1.3, a key exchange that a quantum computer opens, somebody else's certificates or clear text: whoever \
              sits on the way reads, now or later.",
        cure: "Take the insecure_ line out of the config; use https:// and mqtts://.",
        source: "docs/protocol.md 10; RFC 8446",
        sight: Sight::Files,
        check: weak_channel,
    },
    Rule {
        id: "AR-31",
        severity: Severity::Critical,
        title: "a gateway that strangers can manage, or ask",
        why: "What a sensor's radio, a guest's network or the Internet reaches is tried by everybody, all the time.",
        cure: "Bind it to loopback, and reach it by a tunnel.",
        source: "ETSI EN 303 645, 5.6-1; docs/threats.md",
        sight: Sight::Files,
        check: reachable,
    },
    Rule {
        id: "AR-32",
        severity: Severity::Medium,
        title: "a gateway's store that does not last three days",
        why: "When the way to the cloud is cut, readings wait at the gateway: in memory, or in too little space, they are lost.",
        cure: "Put the store on a disk, and give it room: path and max_mib under [store] of gateway.toml.",
        source: "docs/protocol.md 8.2, W8",
        sight: Sight::Book,
        check: small_store,
    },
    Rule {
        id: "AR-37",
        severity: Severity::Medium,
        title: "no limit on what strangers may ask",
        why: "Without a limit one device, or one address, takes the room and the time of all others.",
        cure: "Leave the limits of gateway.toml as they are, or set them near what your devices send.",
        source: "docs/protocol.md 5, 14",
        sight: Sight::Files,
        check: no_limits,
    },
    Rule {
        id: "AR-38",
        severity: Severity::Critical,
        title: "a short id twice, or a forbidden one",
        why: "The short id is part of every nonce and names the key: two devices with one are one to the gateway.",
        cure: "Revoke one of the two, and enrol it again without --sid.",
        source: "docs/protocol.md 1",
        sight: Sight::Book,
        check: short_ids,
    },
    Rule {
        id: "AR-39",
        severity: Severity::High,
        title: "LoRaWAN by ABP, or without frame-counter checks",
        why: "Under ABP the session keys never change and counters start again after a reset: what was recorded is taken again.",
        cure: "Let the devices join (OTAA) and check counters at the network server; then write activation = \"otaa\".",
        source: "docs/protocol.md 4.4; LoRaWAN 1.0.4, 4.3.1.5",
        sight: Sight::Files,
        check: by_abp,
    },
    Rule {
        id: "AR-44",
        severity: Severity::High,
        title: "a gateway's sshd that takes passwords, root or old ciphers",
        why: "Passwords are tried by everybody, all the time. Whoever comes in has the gateway's keys.",
        cure: "PasswordAuthentication no, PermitRootLogin no, in sshd_config; restart sshd.",
        source: "ETSI EN 303 645, 5.1; CIS Benchmarks, OpenSSH",
        sight: Sight::Given("the gateway's sshd_config: --beside sshd=FILE"),
        check: |_, _| {},
    },
];

fn certificate_life(facts: &Facts, found: &mut Found) {
    for gateway in facts.gateways() {
        let Some((begins, ends)) = gateway.certificate else {
            found.unknown(gateway.subject(), "its certificate: there is none that counts");
            continue;
        };
        if facts.days_since(begins).is_none() {
            found.unknown(gateway.subject(), NO_CLOCK);
            continue;
        }
        let name = &gateway.name;
        // Certificates begin some minutes before they are issued.
        let life = ends.saturating_sub(begins).saturating_sub(DAY / 2) / DAY;
        let left = ends.saturating_sub(facts.now) / DAY;
        if life > 90 {
            found.bad(
                gateway.subject().on("life"),
                format!("the certificate of gateway {name} lives {life} days, and 90 are the most"),
                format!("fivefold gateway renew-certificate {name}, or at the gateway: fivefold gateway join"),
            );
        }
        if left < 14 {
            found.bad(
                gateway.subject().on("end"),
                format!("the certificate of gateway {name} has {left} days left: it does not renew by itself"),
                format!("look at the gateway's log; if it has ended: fivefold gateway allow-late-renewal {name}"),
            );
        }
        if life <= 90 && left >= 14 {
            found.good();
        }
    }
}

fn two_primaries(facts: &Facts, found: &mut Found) {
    for network in &facts.networks {
        let primaries: Vec<&Gateway> = facts.gateways().filter(|g| g.network == network.name && g.is_primary).collect();
        match primaries.as_slice() {
            [] | [_] => found.good(),
            [.., one] => found.bad(
                network.subject(),
                format!("network {} has {} gateways that may send under one C2 context", network.name, primaries.len()),
                format!("fivefold gateway revoke {}", one.name),
            ),
        }
    }
}

fn weak_channel(facts: &Facts, found: &mut Found) {
    super::each_config(facts, found, |gateway, config, found| {
        let settings = &config.settings;
        let name = &gateway.name;
        let mut is_good = true;
        let mut bad = |key: &str, sentence: String, cure: &str| {
            is_good = false;
            found.bad(config.place(gateway.subject(), key), sentence, cure);
        };
        if let Some(uplink) = &settings.uplink {
            if uplink.insecure_allow_x25519 {
                let said = format!("gateway {name} takes a key exchange that a quantum computer will open");
                bad("uplink.insecure_allow_x25519", said, "take insecure_allow_x25519 out");
            }
            if !uplink.cloud.starts_with("https://") {
                let said = format!("gateway {name} goes to the cloud by {}, which is not TLS", uplink.cloud);
                bad("uplink.cloud", said, "cloud = \"https://HOST:8443\"");
            }
        }
        if settings.lorawan.as_ref().is_some_and(|l| l.insecure_mqtt) {
            let said = format!("gateway {name} talks to its LoRaWAN broker in clear text");
            bad("lorawan.insecure_mqtt", said, "take insecure_mqtt out, and write broker = \"mqtts://HOST:8883\"");
        }
        if is_good {
            found.good();
        }
    });
    let Some(cloud) = &facts.cloud else {
        found.unknown(Subject::cloud(), "its cloud.toml");
        return;
    };
    let mut bad = |key: &str, sentence: &str, cure: &str| found.bad(cloud.place(Subject::cloud(), key), sentence, cure);
    let takes_x25519 = cloud.settings.ingest.insecure_allow_x25519;
    let in_clear = cloud.settings.meshlium_mqtt.as_ref().is_some_and(|m| m.insecure_mqtt);
    if takes_x25519 {
        bad(
            "ingest.insecure_allow_x25519",
            "the cloud takes gateways with a key exchange that a quantum computer will open",
            "take insecure_allow_x25519 out",
        );
    }
    if in_clear {
        bad(
            "meshlium_mqtt.insecure_mqtt",
            "the cloud publishes values in clear text",
            "take insecure_mqtt out, and write broker = \"mqtts://HOST:8883\"",
        );
    }
    if !takes_x25519 && !in_clear {
        found.good();
    }
}

fn reachable(facts: &Facts, found: &mut Found) {
    super::each_config(facts, found, |gateway, config, found| {
        let metrics = config.settings.metrics.as_ref().map(|m| m.bind);
        let http = config.settings.insecure_http.as_ref().map(|h| h.bind);
        let is_open = |bind: &SocketAddr| !bind.ip().is_loopback();
        let (metrics, http) = (metrics.filter(is_open), http.filter(is_open));
        if let Some(bind) = metrics {
            found.bad(
                config.place(gateway.subject(), "metrics.bind"),
                format!("gateway {} shows its counters to everybody who reaches {bind}", gateway.name),
                "bind = \"127.0.0.1:9464\"",
            );
        }
        if let Some(bind) = http {
            found.bad_as(
                Severity::High,
                config.place(gateway.subject(), "insecure_http.bind"),
                format!("gateway {} takes classic frames in clear text from everybody who reaches {bind}", gateway.name),
                "bind it to the address of the sensors' network alone, behind a packet filter; or let a TLS front end take them",
            );
        }
        if metrics.is_none() && http.is_none() {
            found.good();
        }
    });
}

fn small_store(facts: &Facts, found: &mut Found) {
    super::each_config(facts, found, |gateway, config, found| {
        let store = &config.settings.store;
        let folder = config.path.parent().map(|f| f.join(&store.path)).unwrap_or_else(|| store.path.clone());
        let is_volatile = ["/tmp", "/run", "/dev/shm", "/var/run"].iter().any(|v| folder.starts_with(v));
        let devices = facts.devices().filter(|d| d.network == gateway.network).count()
            + facts.classic().filter(|d| d.network == gateway.network).count();
        let needs = (devices as u64).saturating_mul(HOURS * AN_HOUR * BYTES).div_ceil(1 << 20);
        if store.path.is_absolute() && is_volatile || store.path.as_os_str() == ":memory:" {
            found.bad(
                config.place(gateway.subject(), "store.path"),
                format!(
                    "gateway {} keeps what waits in {}, which a restart empties",
                    gateway.name,
                    store.path.display()
                ),
                "path = \"store.db\"",
            );
        } else if u64::from(store.max_mib) < needs {
            found.bad(
                config.place(gateway.subject(), "store.max_mib"),
                format!(
                    "gateway {} keeps {} MiB, less than {HOURS} hours of {devices} device(s) at one message a minute",
                    gateway.name, store.max_mib
                ),
                format!("max_mib = {needs}"),
            );
        } else if !facts.knows_devices() {
            found.unknown(gateway.subject(), NO_BOOK);
        } else {
            found.good();
        }
    });
}

fn no_limits(facts: &Facts, found: &mut Found) {
    super::each_config(facts, found, |gateway, config, found| {
        let of_devices = u32::from(config.settings.limits.messages_a_minute);
        let of_http = config.settings.insecure_http.as_ref().map(|h| h.requests_a_minute).filter(|n| *n >= NO_LIMIT);
        let name = &gateway.name;
        if of_devices >= NO_LIMIT {
            found.bad(
                config.place(gateway.subject(), "limits.messages_a_minute"),
                format!("gateway {name} passes {of_devices} messages a minute of one device on, which is no limit"),
                "messages_a_minute = 60",
            );
        }
        if let Some(of_http) = of_http {
            found.bad(
                config.place(gateway.subject(), "insecure_http.requests_a_minute"),
                format!("gateway {name} takes {of_http} requests a minute of one address, which is no limit"),
                "requests_a_minute = 600",
            );
        }
        if of_devices < NO_LIMIT && of_http.is_none() {
            found.good();
        }
    });
    found.unknown(
        Subject::deployment(),
        "whoever reads the alerts: what is done with counters and logs stands in no file here",
    );
}

fn short_ids(facts: &Facts, found: &mut Found) {
    let mut holders: HashMap<(&str, Sid), Subject> = HashMap::new();
    let modern = facts.devices.iter().map(|d| (d.network.as_str(), d.sid, Device::subject(d)));
    let classic = facts.classic.iter().map(|d| (d.network.as_str(), d.sid, Classic::subject(d)));
    // A gateway's folder alone does not say whose the other ids are.
    let gateways = facts.gateways().filter(|_| facts.knows_devices());
    let gateways = gateways.map(|g| (g.network.as_str(), g.sid, Gateway::subject(g)));
    for (network, sid, subject) in modern.chain(classic).chain(gateways) {
        let before = holders.insert((network, sid), subject.clone());
        if let Some(before) = before {
            let sentence = format!("{subject} and {before} have one short id, {sid}, in network {network}");
            found.bad(subject.on("twice"), sentence, "revoke one of the two, and add it again without --sid");
        } else if sid.is_assignable() {
            found.good();
        } else {
            let sentence = format!("{subject} has the short id {sid}, which stands for something else");
            found.bad(subject.on("forbidden"), sentence, "revoke it, and add it again without --sid");
        }
    }
}

fn by_abp(facts: &Facts, found: &mut Found) {
    super::each_config(facts, found, |gateway, config, found| {
        let Some(lorawan) = &config.settings.lorawan else {
            found.good();
            return;
        };
        let name = &gateway.name;
        if lorawan.activation != "otaa" {
            found.bad(
                config.place(gateway.subject(), "lorawan.activation"),
                format!("devices of gateway {name} came into their LoRaWAN network by {}", lorawan.activation),
                "activation = \"otaa\", when they join",
            );
        }
        if !lorawan.abp.is_empty() {
            found.bad(
                config.place(gateway.subject(), "lorawan.abp"),
                format!("{} device(s) of gateway {name} are in their LoRaWAN network by ABP", lorawan.abp.len()),
                "abp = [], when they join",
            );
        }
        if lorawan.activation == "otaa" && lorawan.abp.is_empty() {
            found.good();
        }
        let needs = "the network server: whether it checks frame counters stands there";
        found.unknown(config.place(gateway.subject(), "lorawan.kind"), needs);
    });
}
