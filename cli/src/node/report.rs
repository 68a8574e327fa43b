//! What a software node says, line by line: for a person, or as JSON.

use std::io::Write as _;
use std::path::Path;

use fivefold_core::error::{Code, Rejected};
use fivefold_core::profile::Profile;
use fivefold_core::reading::{Item, Payload};
use fivefold_core::suite::agreement::Agree;
use fivefold_device::evidence::Evidence;
use fivefold_device::node::{Command, status};
use fivefold_device::renewal::{Failed, Why};
use fivefold_device::{Event, Node, Number, SendRefused, Tally};
use fivefold_keep::share::NodeShare;
use serde_json::{Map, Value, json};

use crate::output::Output as Form;

/// Says everything on standard output, one line each.
pub(super) struct Report {
    form: Form,
    insecure: bool,
    delivered: u64,
}

impl Report {
    pub(super) fn new(form: Form, share: &NodeShare) -> Self {
        Self { form, insecure: share.policy.profile == Profile::DangerLinkOnly, delivered: 0 }
    }

    pub(super) fn started<const N: usize, A: Agree, E: Evidence>(&self, node: &Node<N, A, E>) {
        let s = node.settings();
        let insecure = if self.insecure { " (INSECURE: nothing is protected beyond the radio)" } else { "" };
        let text = format!("node {} ({}) runs {}{insecure}", s.sid, s.did, s.policy.profile);
        let fields = json!({"sid": s.sid.to_string(), "did": s.did.to_string(), "profile": s.policy.profile.as_str(),
            "epoch": node.epoch().0, "renews": node.renews(), "insecure": self.insecure});
        self.say("started", fields, &text);
    }

    pub(super) fn relays(&self, share: &NodeShare) {
        let (sid, did) = (share.sid.to_string(), share.did.to_string());
        let text = format!("relay {sid} ({did})");
        self.say("started", json!({"sid": sid, "did": did, "relay": true}), &text);
    }

    /// Its policy wants signatures, and it runs without.
    pub(super) fn unsigned(&self, reason: &str) {
        self.say("unsigned", json!({"reason": reason}), &format!("readings are not signed: {reason}"));
    }

    pub(super) fn taken(&self, number: Number, reading: &[u8]) {
        let text = format!("reading {number}: {}", words(reading));
        self.about(number, "reading", json!({"payload": hex::encode(reading)}), &text);
    }

    pub(super) fn not_taken(&mut self, refused: SendRefused) {
        self.say("not_taken", json!({"reason": refused.to_string()}), &format!("reading not taken: {refused}"));
    }

    pub(super) fn dropped(&self, rejected: Rejected) {
        // A radio overhears what is for others all the time: counted, not told.
        if rejected.code == Code::LinkNotOurs {
            return;
        }
        let fields = json!({"code": rejected.code.as_str(), "reason": rejected.reason});
        self.say("refused", fields, &format!("refused {rejected}"));
    }

    /// A command; the status of its result. A software node has nothing to move.
    pub(super) fn execute(&self, command: &Command) -> u8 {
        let fields = json!({"id": command.id, "op": command.op, "arguments": hex::encode(&command.arguments)});
        self.say("command", fields, &format!("command {}: operation {}", command.id, command.op));
        status::DONE
    }

    pub(super) fn event(&mut self, event: Event) {
        let insecure = self.insecure;
        match event {
            Event::Delivered { number, after } => {
                self.delivered += 1;
                let text = format!("delivered {number} after {after} ms");
                self.about(number, "delivered", json!({"after_ms": after}), &text);
            }
            Event::Sent { number, attempt } => {
                let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
                let insecure = if insecure { " in the clear for the network" } else { "" };
                self.about(number, "sent", json!({"attempt": attempt}), &format!("sent {number}{again}{insecure}"));
            }
            Event::Custody(number) => {
                let text = format!("stored at the gateway {number}; kept here until the cloud has it");
                self.about(number, "custody", json!({}), &text);
            }
            Event::Parked(number) => {
                self.about(number, "parked", json!({}), &format!("no answer to {number}; tried again later"));
            }
            Event::GivenUp(number) => {
                let text = format!("lost {number}: too old for the gateway's window, or of keys that are over");
                self.about(number, "given_up", json!({}), &text);
            }
            Event::Refused { number, code } => {
                let code = format!("{}.{:02}", code >> 5, code & 0x1F);
                self.about(number, "answer", json!({"code": code}), &format!("{number} was refused with {code}"));
            }
            Event::RenewalNeeded(why) => {
                let (reason, words) = reason(why);
                let text = format!("keys must be renewed: {words}; enrol the node again");
                self.say("renewal_needed", json!({"reason": reason}), &text);
            }
            Event::RenewalStarted { epoch, why } => {
                let (reason, words) = reason(why);
                let text = format!("renewing the keys, for epoch {epoch}: {words}");
                self.say("renewal_started", json!({"epoch": epoch.0, "reason": reason}), &text);
            }
            Event::RenewalAgreed(epoch) => {
                self.say("renewed", json!({"epoch": epoch.0}), &format!("keys renewed: epoch {epoch}"));
            }
            Event::RenewalConfirmed(epoch) => {
                let text = format!("the other side uses the keys of epoch {epoch}; older ones are wiped");
                self.say("renewal_confirmed", json!({"epoch": epoch.0}), &text);
            }
            Event::RenewalFailed { epoch, failed, pause } => {
                let words = match failed {
                    Failed::Exhausted => "no epoch is left; the device must be made anew",
                    Failed::Randomness => "the random generator gives no key",
                    Failed::Refused => "eight messages did not verify",
                    Failed::Unanswered => "no answer, three times",
                };
                let again = if failed == Failed::Exhausted {
                    String::new()
                } else {
                    format!(", tried again in {}", span(pause))
                };
                let text = format!("keys not renewed: {words}; the old ones stay{again}");
                let failed =
                    json!({"epoch": epoch.0, "failed": format!("{failed:?}").to_lowercase(), "pause_ms": pause});
                self.say("renewal_failed", failed, &text);
            }
            Event::SlowDown(ms) => {
                self.say("slow_down", json!({"ms": ms}), &format!("told to slow down: silent for {} s", ms / 1000));
            }
            Event::Synced(did, sid) => {
                let fields = json!({"did": did.to_string(), "sid": sid.to_string()});
                self.say("synced", fields, &format!("neighbour {sid} proved itself"));
            }
            Event::Time { unix_s, accuracy_s } => {
                let fields = json!({"unix_s": unix_s, "accuracy_s": accuracy_s});
                self.say("time", fields, &format!("the cloud says it is {unix_s} (± {accuracy_s} s)"));
            }
            Event::CommandRefused(id) => {
                self.say(
                    "command_refused",
                    json!({"id": id}),
                    &format!("command {id} refused: not possible on this node"),
                );
            }
            Event::ConfigIgnored => self.say("config_ignored", json!({}), "a piece of configuration was ignored"),
            Event::GroupChanged => {
                self.say("group_changed", json!({}), "another gateway group was named: install the node's new share");
            }
            Event::BatchSigned { number, readings } => {
                let text = format!("signed batch {number}: {readings} readings");
                self.say("batch_signed", json!({"batch": number, "readings": readings}), &text);
            }
            Event::BatchComplete(number) => {
                self.say("batch_complete", json!({"batch": number}), &format!("the cloud verified batch {number}"));
            }
            Event::BatchLost(number) => {
                let text =
                    format!("batch {number} cannot be completed: what the cloud lacks is not known here any more");
                self.say("batch_lost", json!({"batch": number}), &text);
            }
            Event::SignerFailed => {
                self.say("signer_failed", json!({}), "the signing key gave no signature; tried again")
            }
            Event::LinkKeys => self.say("link_keys", json!({}), "the network keys changed"),
            _ => {}
        }
    }

    pub(super) fn stopped(&self, taken: u64, waiting: &[Number], tally: &Tally) {
        let refused: Map<String, Value> = tally.iter().map(|(code, n)| (code.as_str().into(), json!(n))).collect();
        let text = format!(
            "stopped: {taken} readings, {} messages confirmed, {} not confirmed{}",
            self.delivered,
            waiting.len(),
            tally.iter().map(|(code, n)| format!(", {n} refused {code}")).collect::<String>()
        );
        let waiting: Vec<Value> = waiting.iter().map(|n| json!({"number": n.value, "epoch": n.epoch.0})).collect();
        let fields = json!({"readings": taken, "confirmed": self.delivered, "waiting": waiting, "refused": refused});
        self.say("stopped", fields, &text);
    }

    /// Something about one message.
    fn about(&self, number: Number, event: &str, mut fields: Value, text: &str) {
        if let Some(map) = fields.as_object_mut() {
            map.extend([("number".into(), number.value.into()), ("epoch".into(), number.epoch.0.into())]);
        }
        self.say(event, fields, text);
    }

    fn say(&self, event: &str, mut fields: Value, text: &str) {
        let mut out = std::io::stdout().lock();
        // Who closed our output does not want to hear more.
        let _ = match self.form {
            Form::Human => writeln!(out, "{text}"),
            Form::Json => {
                if let Some(map) = fields.as_object_mut() {
                    map.insert("event".into(), event.into());
                }
                writeln!(out, "{fields}")
            }
        };
    }
}

/// Why keys are renewed: for a program, and for a person.
fn reason(why: Why) -> (&'static str, String) {
    match why {
        Why::Age => ("age", "they are old".into()),
        Why::Failures => ("failures", "too many answers failed to verify".into()),
        Why::NoContext => ("enrolment", "there are none yet".into()),
        Why::Number => ("number", "the sender number passed 49152".into()),
        Why::Ordered(reason) => ("ordered", format!("the operator orders it (reason {reason})")),
        Why::Refused => ("refused", "4.01: they are of no use any more".into()),
        Why::Silence => ("silence", "nobody answered for a day".into()),
        Why::Spent => ("spent", "the sender number reached 2^20".into()),
    }
}

/// A time that a person waits.
fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

/// A payload in words.
fn words(payload: &[u8]) -> String {
    let Ok(Payload::Sequence(items)) = Payload::parse(payload) else { return hex::encode(payload) };
    let mut words = Vec::new();
    for item in items {
        match item {
            Item::Senml(pack) => words.extend(pack.fields().map(|r| {
                let (name, unit) = (r.name.unwrap_or_default(), r.unit.unwrap_or_default());
                format!("{name} {} {unit}", r.value.map(|v| v.to_string()).unwrap_or_default()).trim().to_owned()
            })),
            Item::Template(row) => {
                let values = row.values().map(|v| v.map_or_else(|| "-".to_owned(), |v| v.to_string()));
                words.push(format!("template {}: {}", row.id(), values.collect::<Vec<_>>().join(" ")));
            }
            Item::Control(_) => {}
        }
    }
    if words.is_empty() { hex::encode(payload) } else { words.join(", ") }
}

/// The resolved configuration, for `--check`.
pub(super) fn resolved(share: &NodeShare, dir: &Path, form: Form) {
    let p = &share.policy;
    let fields = json!({
        "dir": dir, "did": share.did.to_string(), "sid": share.sid.to_string(), "net": share.net.to_string(),
        "pan": format!("{:04x}", share.pan), "group": share.group.to_string(), "epoch": share.epoch.0,
        "profile": p.profile.as_str(), "alg": p.alg.cose(), "mode": p.mode.as_str(), "radio": p.radio.as_str(),
        "ack_every": p.ack_every, "renews": share.cloud.is_some() || share.gateway.is_some(), "bind": share.link.bind, "air": share.link.air, "parents": share.link.parents,
    });
    let mut out = std::io::stdout().lock();
    let _ = match (form, fields.as_object()) {
        (Form::Human, Some(map)) => map.iter().try_for_each(|(key, value)| match value {
            Value::String(text) => writeln!(out, "{key} = {text}"),
            other => writeln!(out, "{key} = {other}"),
        }),
        _ => writeln!(out, "{fields}"),
    };
}
