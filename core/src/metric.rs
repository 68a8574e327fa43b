//! Every number that a gateway or the cloud shows to Prometheus, with its unit and labels: pages are written from this table,
//! docs/metrics.md is compared with it, and rules and dashboards name nothing else.
//!
//! No label names a device, and none can: [`Label`] has no word for one. Whose message was refused, the API says.

use core::fmt::{self, Write};

/// What a number does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It grows, and begins at 0 with the process or its store.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    /// As the text format names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// What a number is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// So many of what the name says.
    Count,
    /// Seconds.
    Seconds,
    /// A moment, Unix seconds.
    UnixSeconds,
}

impl Unit {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Seconds => "seconds",
            Self::UnixSeconds => "Unix seconds",
        }
    }

    /// How names of this unit end, `_total` of a counter apart.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Bytes => "_bytes",
            Self::Count => "",
            Self::Seconds => "_seconds",
            Self::UnixSeconds => "_timestamp_seconds",
        }
    }
}

/// What tells samples of a metric apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A code of docs/protocol.md 14.
    Code,
    /// A gateway's id, 8 hex digits.
    Gateway,
    /// Whose certificate: `cloud` or `issuer`.
    Holder,
    /// Index of a network key.
    KeyIndex,
    /// `e1` to `e5`.
    Level,
    /// A network, 8 hex digits; empty where none is known.
    Net,
    /// What has a limit of its own in cloud.toml.
    Part,
    /// Who counted: `cloud`, or `gateway` as it reported.
    Place,
    /// A rule of the audit (docs/protocol.md 15).
    Rule,
    /// How bad: of a code or, in the audit's words, of a finding.
    Severity,
    /// Who is told of alarms or gets readings, by its name in cloud.toml.
    Sink,
}

impl Label {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Code,
        Self::Gateway,
        Self::Holder,
        Self::KeyIndex,
        Self::Level,
        Self::Net,
        Self::Part,
        Self::Place,
        Self::Rule,
        Self::Severity,
        Self::Sink,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Gateway => "gateway",
            Self::Holder => "holder",
            Self::KeyIndex => "key_index",
            Self::Level => "level",
            Self::Net => "net",
            Self::Part => "part",
            Self::Place => "place",
            Self::Rule => "rule",
            Self::Severity => "severity",
            Self::Sink => "sink",
        }
    }
}

/// A metric with so many labels.
#[derive(Clone, Copy, Debug)]
pub struct Metric<const N: usize> {
    labels: &'static [Label; N],
    row: Row,
}

impl<const N: usize> Metric<N> {
    /// As a row of the table.
    pub const fn row(&self) -> Row {
        self.row
    }
}

/// A metric, however many labels it has.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name: `fivefold_gateway_…` is of the gateway's page, `fivefold_cloud_…` of the cloud's.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// What tells its samples apart.
    pub labels: &'static [Label],
    /// What it says.
    pub help: &'static str,
}

const fn count(labels: &[Label]) -> usize {
    labels.len()
}

macro_rules! page {
    ($(#[$about:meta])* $page:ident {
        $($metric:ident = $name:literal, $kind:ident, $unit:ident, [$($label:ident),*], $help:literal;)*
    }) => {
        $(#[$about])*
        pub mod $page {
            use super::{Kind, Label, Metric, Row, Unit, count};

            $(
                #[doc = $help]
                pub const $metric: Metric<{ count(&[$(Label::$label),*]) }> = Metric {
                    labels: &[$(Label::$label),*],
                    row: Row {
                        name: $name,
                        kind: Kind::$kind,
                        unit: Unit::$unit,
                        labels: &[$(Label::$label),*],
                        help: $help,
                    },
                };
            )*

            /// The whole page, in its order.
            pub const ALL: &[Row] = &[$($metric.row()),*];
        }
    };
}

page! {
    /// The page of a gateway.
    gateway {
        REJECTED = "fivefold_gateway_rejected_total", Counter, Count, [Code],
            "What was refused since the start, by code of docs/protocol.md 14; a code that never was is 0.";
        SPOOL = "fivefold_gateway_spool_bytes", Gauge, Bytes, [],
            "Envelopes that the cloud does not have yet.";
        SPOOL_LIMIT = "fivefold_gateway_spool_limit_bytes", Gauge, Bytes, [],
            "What the spool takes at most; beyond it everything new is refused (E4-04).";
        SPOOL_AGE = "fivefold_gateway_spool_age_seconds", Gauge, Seconds, [],
            "How long the oldest envelope in the spool has waited; 0 without one.";
        CLOUD_AWAY = "fivefold_gateway_cloud_away_seconds", Gauge, Seconds, [],
            "How long the cloud has been out of reach; 0 while it is there, absent at a site without a cloud.";
        DEVICES = "fivefold_gateway_devices", Gauge, Count, [],
            "Devices that are let in.";
        CLASSIC_DEVICES = "fivefold_gateway_classic_devices", Gauge, Count, [],
            "Classic devices that are known.";
        NEIGHBOURS = "fivefold_gateway_synced_neighbours", Gauge, Count, [],
            "Neighbours whose frames are accepted.";
        STATE_VERSION = "fivefold_gateway_state_version", Gauge, Count, [],
            "Version of the state that the cloud pushed; 0 before the first.";
        KEY_AGE = "fivefold_gateway_key_age_seconds", Gauge, Seconds, [Level],
            "Age of the oldest key in use that this gateway knows the age of: its certificate's (e4), those it agreed alone (e2).";
        FRAME_NUMBERS_LEFT = "fivefold_gateway_frame_numbers_left", Gauge, Count, [KeyIndex],
            "Frame counters of this gateway that are left under a network key before it must be rotated (E1-09).";
        NUMBERS_LEFT = "fivefold_gateway_numbers_left", Gauge, Count, [Level],
            "Sender numbers left before the limit, of either side, in the context that has the fewest.";
        CERTIFICATE = "fivefold_gateway_certificate_expires_timestamp_seconds", Gauge, UnixSeconds, [],
            "When the certificate ends that this gateway shows to the cloud.";
        AUDIT_GRADE = "fivefold_gateway_audit_grade", Gauge, Count, [],
            "Grade of its audit of itself, 0 for A to 4 for F; absent while nobody knows.";
        AUDIT_FINDINGS = "fivefold_gateway_audit_findings", Gauge, Count, [Rule, Severity],
            "What that audit found and nobody waived.";
    }
}

page! {
    /// The page of the cloud.
    cloud {
        REJECTED = "fivefold_cloud_rejected_total", Counter, Count, [Code, Net, Place],
            "What was refused since the store was made, by code of docs/protocol.md 14; a code that never was is 0.";
        GATEWAY_REJECTED = "fivefold_cloud_gateway_rejected_total", Counter, Count, [Net, Gateway, Severity],
            "The same by the gateway that reported or brought it, and by severity.";
        READINGS = "fivefold_cloud_readings_stored_total", Counter, Count, [],
            "Ledger rows written since the store was made.";
        UNKNOWN_ROWS = "fivefold_cloud_unknown_template_rows_total", Counter, Count, [],
            "Rows that no registered template fitted.";
        DEVICES = "fivefold_cloud_devices", Gauge, Count, [Net],
            "Devices that are served.";
        REGISTRY_VERSION = "fivefold_cloud_registry_version", Gauge, Count, [],
            "Version of the registry in use.";
        KEY_AGE = "fivefold_cloud_key_age_seconds", Gauge, Seconds, [Net, Level],
            "Age of the oldest key in use: network key (e1, at least so old), contexts (e2, e3), certificates of gateways (e4), signing keys (e5).";
        NUMBERS_LEFT = "fivefold_cloud_numbers_left", Gauge, Count, [Net, Level],
            "Sender numbers left before the limit, of either side, in the context in use that has the fewest.";
        GATEWAY_SEEN = "fivefold_cloud_gateway_last_seen_timestamp_seconds", Gauge, UnixSeconds, [Net, Gateway],
            "When a gateway was heard last; absent before the first time.";
        GATEWAY_SPOOL = "fivefold_cloud_gateway_spool_bytes", Gauge, Bytes, [Net, Gateway],
            "Envelopes in a gateway's spool, as it said last.";
        GATEWAY_SPOOL_LIMIT = "fivefold_cloud_gateway_spool_limit_bytes", Gauge, Bytes, [Net, Gateway],
            "What a gateway's spool takes at most, as it said last.";
        GATEWAY_CERTIFICATE = "fivefold_cloud_gateway_certificate_expires_timestamp_seconds", Gauge, UnixSeconds, [Net, Gateway],
            "When the last certificate of a gateway ends that is in force.";
        CERTIFICATE = "fivefold_cloud_certificate_expires_timestamp_seconds", Gauge, UnixSeconds, [Holder],
            "When a certificate ends: the one that the cloud shows, and the one that it issues with.";
        ALARMS_WAITING = "fivefold_cloud_alarms_waiting", Gauge, Count, [Sink],
            "Alarms that a sink has not taken.";
        ALARMS_WAIT = "fivefold_cloud_alarms_wait_seconds", Gauge, Seconds, [Sink],
            "How long the oldest of them has waited; 0 without one.";
        DISK = "fivefold_cloud_disk_bytes", Gauge, Bytes, [],
            "What the cloud takes of its disk: pages of the store in use, its journal at full length, the log and what else lies in its folder.";
        DISK_LIMIT = "fivefold_cloud_disk_limit_bytes", Gauge, Bytes, [],
            "What it may take (limits.disk_max_mib); from 98 hundredths on batches are refused (E4-04). Absent without a budget.";
        DISK_FREE = "fivefold_cloud_disk_free_bytes", Gauge, Bytes, [],
            "What is free on that disk.";
        REFUSING = "fivefold_cloud_refusing_seconds", Gauge, Seconds, [],
            "How long batches have been refused for want of room; 0 while they are taken.";
        AGES_BEHIND = "fivefold_cloud_ages_behind_seconds", Gauge, Seconds, [],
            "How far the time by which things are old is behind the clock, for want of newer readings: pruning by age is held. 0 while it is not.";
        KEPT_ROWS = "fivefold_cloud_kept", Gauge, Count, [Part],
            "Rows that are kept of what has a limit.";
        KEPT_BYTES = "fivefold_cloud_kept_bytes", Gauge, Bytes, [Part],
            "What they take, about.";
        KEPT_AGE = "fivefold_cloud_kept_age_seconds", Gauge, Seconds, [Part],
            "How long the oldest of them has been here; 0 without one.";
        PRUNED = "fivefold_cloud_pruned_total", Counter, Count, [Part],
            "Rows that were pruned since the store was made, for their age or the size of all.";
        OUTBOX_WAITING = "fivefold_cloud_outbox_waiting", Gauge, Count, [Sink],
            "Readings behind the place of a sink.";
        OUTBOX_WAIT = "fivefold_cloud_outbox_wait_seconds", Gauge, Seconds, [Sink],
            "How long the oldest of them has waited, beyond the time for which the sink gathers on purpose (`every_s`); 0 without one.";
        OUTBOX_DEAD = "fivefold_cloud_outbox_dead", Gauge, Count, [Sink],
            "Readings that a sink refused for good, until they are sent again.";
        OUTBOX_SENT = "fivefold_cloud_outbox_sent_total", Counter, Count, [Sink],
            "What a sink took, raised labels too.";
        OUTBOX_RETRIED = "fivefold_cloud_outbox_retried_total", Counter, Count, [Sink],
            "How often something had to be sent to it again.";
        OUTBOX_UP = "fivefold_cloud_outbox_up", Gauge, Count, [Sink],
            "1 while a sink takes what comes; 0 while it is away, does not take from some device, or is paused.";
        OUTBOX_PAUSED = "fivefold_cloud_outbox_paused", Gauge, Count, [Sink],
            "1 while somebody has paused a sink.";
        BACKUP = "fivefold_cloud_backup_timestamp_seconds", Gauge, UnixSeconds, [],
            "When the last backup was begun that was written and read back whole; absent before the first.";
        AUDIT_GRADE = "fivefold_cloud_audit_grade", Gauge, Count, [],
            "Grade of its audit of itself, 0 for A to 4 for F; absent while nobody knows.";
        AUDIT_FINDINGS = "fivefold_cloud_audit_findings", Gauge, Count, [Rule, Severity],
            "What that audit found and nobody waived.";
    }
}

/// A page in the text format 0.0.4.
#[derive(Debug)]
pub struct Page<W>(W);

impl<W: Write> Page<W> {
    /// Nothing yet.
    pub const fn new(out: W) -> Self {
        Self(out)
    }

    /// Adds a metric with all its samples.
    ///
    /// # Errors
    /// What it is written to takes no more.
    pub fn put<const N: usize, L: AsRef<str>>(
        &mut self,
        metric: &Metric<N>,
        samples: impl IntoIterator<Item = ([L; N], u64)>,
    ) -> fmt::Result {
        let Row { name, kind, help, .. } = metric.row;
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str())?;
        for (values, number) in samples {
            self.0.write_str(name)?;
            let mut before = '{';
            for (label, value) in metric.labels.iter().zip(&values) {
                write!(self.0, "{before}{}=\"", label.as_str())?;
                value.as_ref().chars().try_for_each(|c| match c {
                    '\\' => self.0.write_str("\\\\"),
                    '"' => self.0.write_str("\\\""),
                    '\n' => self.0.write_str("\\n"),
                    c => self.0.write_char(c),
                })?;
                self.0.write_char('"')?;
                before = ',';
            }
            writeln!(self.0, "{} {number}", if N == 0 { "" } else { "}" })?;
        }
        Ok(())
    }

    /// Adds a metric without labels, if there is a value.
    ///
    /// # Errors
    /// What it is written to takes no more.
    pub fn one(&mut self, metric: &Metric<0>, value: impl Into<Option<u64>>) -> fmt::Result {
        self.put::<0, &str>(metric, value.into().map(|value| ([], value)))
    }

    /// What it was written to.
    pub fn end(self) -> W {
        self.0
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::String;

    #[test]
    fn a_page_has_a_head_for_every_metric_and_a_line_for_every_sample() {
        let mut page = Page::new(String::new());
        page.one(&gateway::SPOOL, 7).unwrap();
        page.one(&gateway::SPOOL_AGE, None).unwrap();
        let odd = [(["E1-05", "a\"b", "c\\d\ne"], 3)];
        page.put(&cloud::REJECTED, odd).unwrap();
        let page = page.end();
        let lines: std::vec::Vec<_> = page.lines().collect();
        assert_eq!(lines[1..3], ["# TYPE fivefold_gateway_spool_bytes gauge", "fivefold_gateway_spool_bytes 7"]);
        assert_eq!(lines[4], "# TYPE fivefold_gateway_spool_age_seconds gauge");
        assert_eq!(lines[6], "# TYPE fivefold_cloud_rejected_total counter");
        assert_eq!(lines[7], r#"fivefold_cloud_rejected_total{code="E1-05",net="a\"b",place="c\\d\ne"} 3"#);
        assert_eq!(lines.len(), 8);
    }
}
