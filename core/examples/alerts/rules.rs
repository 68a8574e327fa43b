//! Rules for Prometheus: one for each step of docs/protocol.md 14 that a count can show, and a few for what no code says, above
//! all for gateways that are too far away to say anything.

use std::fmt::Write as _;

use fivefold_core::error::{At, Code, Severity, Step};
use fivefold_core::metric::{Row, cloud, gateway};

const DAY: u64 = 86_400;
/// A key of a device is as old as no policy lets it be (docs/protocol.md 17); a network's is due (AR-18).
const OLDEST: u64 = 90 * DAY;
/// Renewal is at two thirds of 90 days: whoever has less than this has failed for weeks.
const CERTIFICATE: [(Severity, u64); 2] = [(Severity::Warning, 14 * DAY), (Severity::High, 3 * DAY)];
/// As E4-05, seen from the other side.
const SILENT: [(Severity, u64); 2] = [(Severity::Warning, 15 * 60), (Severity::High, 6 * 3600)];
/// A gateway holds 72 h (docs/protocol.md 17), and sends at once what it can.
const WAITING: [(Severity, u64); 2] = [(Severity::Warning, 3600), (Severity::High, 72 * 3600)];
/// A sink that is away for longer is somebody who hears nothing.
const ALARMS: u64 = 900;
/// Readings are where people need them within an hour, or somebody looks.
const READINGS: u64 = 3600;
/// A backup is made each night; one that failed is made the next.
const BACKUP: [(Severity, u64); 2] = [(Severity::Warning, 2 * DAY), (Severity::High, 7 * DAY)];
/// Ages wait for readings at most so long, unless the clock is wrong or nothing comes.
const AGES: u64 = 2 * DAY;
/// Of 2^20 numbers of a context 49152 are used when it is renewed.
const NUMBERS: u32 = 1 << 19;
/// Frame counters before E1-09: time for a rotation without haste.
const FRAME_NUMBERS: u32 = 1 << 24;

struct Rule {
    name: String,
    severity: Severity,
    expr: String,
    /// How long that must last, in minutes.
    minutes: u64,
    summary: String,
    action: String,
}

/// The file.
pub(crate) fn text() -> String {
    let mut out = String::from(
        "# Made by `cargo run -p fivefold-core --example alerts` from the table of codes; not to be edited by hand.\n\
         # docs/metrics.md says how to use it.\ngroups:\n",
    );
    for (name, rules) in [("fivefold-codes", codes()), ("fivefold-state", states())] {
        let _ = writeln!(out, "  - name: {name}\n    rules:");
        for rule in rules {
            let Rule { name, severity, expr, minutes, summary, action } = rule;
            let lasts = if minutes == 0 { String::new() } else { format!("        for: {minutes}m\n") };
            let _ = write!(
                out,
                "      - alert: {}\n        expr: {}\n{lasts}        labels:\n          severity: {}\n        annotations:\n          \
                 summary: {}\n          action: {}\n",
                quoted(&name),
                quoted(&expr),
                severity.as_str(),
                quoted(&summary),
                quoted(&action)
            );
        }
    }
    out
}

/// A scalar of YAML in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn codes() -> Vec<Rule> {
    let mut rules = Vec::new();
    for code in Code::ALL {
        for Step { severity, at } in code.steps() {
            // What whoever counted it has to say is in no count: the cloud's alarms have it.
            let At::Times(times) = at else { continue };
            let rise = |row: Row, by: &str| {
                format!("sum by ({by}) (increase({}{{code=\"{code}\"}}[10m])) >= {times}", row.name)
            };
            let [here, there] = [rise(cloud::REJECTED.row(), "net, place"), rise(gateway::REJECTED.row(), "instance")];
            let often = if *times == 1 { String::new() } else { format!(", {times} times in ten minutes") };
            rules.push(Rule {
                name: code.to_string(),
                severity: *severity,
                expr: format!("{here} or {there}"),
                minutes: 0,
                summary: format!("{code}: {}{often}", code.condition()),
                action: "Look who it was: /v1/rejections of the cloud, /rejections of a gateway without one.".into(),
            });
        }
    }
    rules
}

fn states() -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut rule = |name: &str, severity, expr: String, summary: &str, action: &str| {
        let (summary, action) = (summary.to_owned(), action.to_owned());
        rules.push(Rule { name: name.to_owned(), severity, expr, minutes: 0, summary, action });
    };
    let [seen, held, limit, age, left, ends, own] = [
        cloud::GATEWAY_SEEN.row(),
        cloud::GATEWAY_SPOOL.row(),
        cloud::GATEWAY_SPOOL_LIMIT.row(),
        cloud::KEY_AGE.row(),
        cloud::NUMBERS_LEFT.row(),
        cloud::GATEWAY_CERTIFICATE.row(),
        cloud::CERTIFICATE.row(),
    ]
    .map(|row| row.name);
    let [spool, most, waits, away, frames, near] = [
        gateway::SPOOL.row(),
        gateway::SPOOL_LIMIT.row(),
        gateway::SPOOL_AGE.row(),
        gateway::CLOUD_AWAY.row(),
        gateway::FRAME_NUMBERS_LEFT.row(),
        gateway::NUMBERS_LEFT.row(),
    ]
    .map(|row| row.name);
    for (severity, after) in SILENT {
        rule(
            "GatewaySilent",
            severity,
            format!("time() - {seen} > {after}"),
            "Gateway {{ $labels.gateway }} has not been heard for {{ $value | humanizeDuration }}.",
            "Look at its line and its log; it keeps what it hears until its spool is full.",
        );
    }
    for (severity, after) in WAITING {
        rule(
            "SpoolWaits",
            severity,
            format!("{waits} > {after} and {away} >= 0"),
            "The oldest message in the spool of {{ $labels.instance }} has waited for {{ $value | humanizeDuration }}.",
            "Look why the cloud does not take it: fivefold gateway run says so in its log.",
        );
    }
    rule(
        "SpoolFills",
        Severity::Warning,
        format!("{held} / {limit} > 0.8 or {spool} / {most} > 0.8"),
        "A spool is full to {{ $value | humanizePercentage }}.",
        "What is new is refused when it is full (E4-04): bring the cloud back, or make the spool larger.",
    );
    let [disk, budget, refusing] =
        [cloud::DISK.row(), cloud::DISK_LIMIT.row(), cloud::REFUSING.row()].map(|row| row.name);
    rule(
        "DiskFills",
        Severity::Warning,
        format!("{disk} / {budget} > 0.8"),
        "The disk budget of {{ $labels.instance }} is used to {{ $value | humanizePercentage }}.",
        "Raise limits.disk_max_mib, or keep less: fivefold cloud limits says what takes how much.",
    );
    rule(
        "DiskFills",
        Severity::Critical,
        format!("{refusing} > 0"),
        "{{ $labels.instance }} has refused batches for want of room for {{ $value | humanizeDuration }}.",
        "Gateways keep them until their spools are full: make room now (docs/operate.md, Limits).",
    );
    for (severity, before) in CERTIFICATE {
        rule(
            "CertificateEnds",
            severity,
            format!("{ends} - time() < {before} or {own} - time() < {before}"),
            "The certificate of {{ $labels.gateway }}{{ $labels.holder }} ends in {{ $value | humanizeDuration }}.",
            "A gateway renews its own, and its log says why it did not; the cloud's is the operator's (docs/operate.md).",
        );
    }
    rule(
        "KeyOld",
        Severity::Warning,
        format!("{age}{{level=\"e1\"}} > {OLDEST}"),
        "Network {{ $labels.net }} has had its key for {{ $value | humanizeDuration }}.",
        "Rotate it: fivefold key rotate.",
    );
    rule(
        "KeyOld",
        Severity::High,
        format!("{age}{{level=~\"e2|e3\"}} > {OLDEST}"),
        "A device of network {{ $labels.net }} has had its keys of {{ $labels.level }} for {{ $value | humanizeDuration }}.",
        "Find it by /v1/devices, and why it does not renew (E5-07); one that cannot is enrolled again.",
    );
    rule(
        "NumbersRunOut",
        Severity::High,
        format!("{left} < {NUMBERS} or {near} < {NUMBERS}"),
        "A context of {{ $labels.net }}{{ $labels.instance }} has {{ $value }} numbers left, and should have been renewed long ago.",
        "fivefold device renew, or enrol the device again: without numbers nothing of it is taken (E3-09).",
    );
    rule(
        "FrameCounterRunsOut",
        Severity::Warning,
        format!("{frames} < {FRAME_NUMBERS}"),
        "{{ $labels.instance }} has {{ $value }} frame counters left under network key {{ $labels.key_index }}.",
        "Rotate the network's key: fivefold key rotate.",
    );
    rule(
        "AlarmsWait",
        Severity::High,
        format!("{} > {ALARMS}", cloud::ALARMS_WAIT.row().name),
        "An alarm has waited for sink {{ $labels.sink }} for {{ $value | humanizeDuration }}.",
        "None is lost, but nobody is told: fivefold alarm list says what goes wrong.",
    );
    for severity in [Severity::High, Severity::Critical] {
        let found = |row: Row| format!("{}{{severity=\"{}\"}} > 0", row.name, severity.as_str());
        rule(
            "AuditFinds",
            severity,
            format!("{} or {}", found(cloud::AUDIT_FINDINGS.row()), found(gateway::AUDIT_FINDINGS.row())),
            "The audit finds {{ $labels.rule }} at {{ $labels.instance }}.",
            "Mend it, or waive it with a reason and a day: fivefold audit explain {{ $labels.rule }}.",
        );
    }
    for (severity, after) in BACKUP {
        rule(
            "BackupOld",
            severity,
            format!("time() - {} > {after}", cloud::BACKUP.row().name),
            "The last backup of {{ $labels.instance }} is {{ $value | humanizeDuration }} old.",
            "Look why none was made: journalctl -u fivefold-backup, or type fivefold cloud backup.",
        );
    }
    rule(
        "AgesWait",
        Severity::Warning,
        format!("{} > {AGES}", cloud::AGES_BEHIND.row().name),
        "Nothing goes by its age at {{ $labels.instance }}: its newest readings are {{ $value | humanizeDuration }} behind its clock.",
        "Look at that machine's clock (timedatectl), and why no gateway brings readings (fivefold gateway list). Sizes are kept.",
    );
    let [up, paused, wait, dead] =
        [cloud::OUTBOX_UP.row(), cloud::OUTBOX_PAUSED.row(), cloud::OUTBOX_WAIT.row(), cloud::OUTBOX_DEAD.row()]
            .map(|row| row.name);
    rule(
        "OutboxWaits",
        Severity::High,
        format!("{wait} > {READINGS}"),
        "A reading for sink {{ $labels.sink }} is late by {{ $value | humanizeDuration }}.",
        "None is lost: fivefold outbox show says what goes wrong, or who paused it.",
    );
    rule(
        "OutboxDead",
        Severity::Warning,
        format!("{dead} > 0"),
        "Sink {{ $labels.sink }} has refused {{ $value }} readings for good.",
        "fivefold outbox dead says why: mend it, then fivefold outbox resend.",
    );
    rules.push(Rule {
        name: "OutboxAway".into(),
        severity: Severity::High,
        expr: format!("{up} == 0 unless {paused} == 1"),
        minutes: 15,
        summary: "Sink {{ $labels.sink }} takes no readings, or none of some device.".into(),
        action: "None is lost: fivefold outbox show says what goes wrong.".into(),
    });
    rules
}
