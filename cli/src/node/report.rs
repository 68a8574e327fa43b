//! What a software node says, line by line: for a person, or as JSON.

use std::io::Write as _;
use std::path::Path;

use fivefold_core::error::{Code, Rejected};
use fivefold_core::profile::Profile;
use fivefold_core::reading::{Item, Payload};
use fivefold_device::node::{Command, Why, status};
use fivefold_device::{Event, Node, SendRefused, Tally};
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

    pub(super) fn started<const N: usize>(&self, node: &Node<N>) {
        let s = node.settings();
        let insecure = if self.insecure { " (INSECURE: nothing is protected beyond the radio)" } else { "" };
        let text = format!("node {} ({}) runs {}{insecure}", s.sid, s.did, s.policy.profile);
        let fields = json!({"sid": s.sid.to_string(), "did": s.did.to_string(), "profile": s.policy.profile.as_str(),
            "epoch": s.epoch.0, "insecure": self.insecure});
        self.say("started", fields, &text);
    }

    pub(super) fn taken(&self, number: u32, reading: &[u8]) {
        let text = format!("reading {number}: {}", words(reading));
        self.say("reading", json!({"number": number, "payload": hex::encode(reading)}), &text);
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
                self.say("delivered", json!({"number": number, "after_ms": after}), &text);
            }
            Event::Sent { number, attempt } => {
                let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
                let insecure = if insecure { " in the clear for the network" } else { "" };
                self.say(
                    "sent",
                    json!({"number": number, "attempt": attempt}),
                    &format!("sent {number}{again}{insecure}"),
                );
            }
            Event::Custody(number) => {
                let text = format!("stored at the gateway {number}; kept here until the cloud has it");
                self.say("custody", json!({"number": number}), &text);
            }
            Event::Parked(number) => {
                self.say("parked", json!({"number": number}), &format!("no answer to {number}; tried again later"));
            }
            Event::GivenUp(number) => {
                self.say(
                    "given_up",
                    json!({"number": number}),
                    &format!("lost {number}: too old for the gateway's window"),
                );
            }
            Event::Refused { number, code } => {
                let code = format!("{}.{:02}", code >> 5, code & 0x1F);
                self.say(
                    "answer",
                    json!({"number": number, "code": code}),
                    &format!("{number} was refused with {code}"),
                );
            }
            Event::RenewalNeeded(why) => {
                let reason = match why {
                    Why::Failures => "too many answers failed to verify".into(),
                    Why::Number => "the sender number passed 49152".into(),
                    Why::Ordered(reason) => format!("the operator orders it (reason {reason})"),
                    Why::Refused => "4.01: the keys are of no use any more".into(),
                    Why::Spent => "the sender number reached 2^20".into(),
                };
                let text = format!("keys must be renewed: {reason}; enrol the node again");
                self.say("renewal_needed", json!({"reason": reason}), &text);
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
            Event::LinkKeys => self.say("link_keys", json!({}), "the network keys changed"),
            _ => {}
        }
    }

    pub(super) fn stopped(&self, taken: u64, waiting: &[u32], tally: &Tally) {
        let refused: Map<String, Value> = tally.iter().map(|(code, n)| (code.as_str().into(), json!(n))).collect();
        let text = format!(
            "stopped: {taken} readings, {} messages confirmed, {} not confirmed{}",
            self.delivered,
            waiting.len(),
            tally.iter().map(|(code, n)| format!(", {n} refused {code}")).collect::<String>()
        );
        let fields = json!({"readings": taken, "confirmed": self.delivered, "waiting": waiting, "refused": refused});
        self.say("stopped", fields, &text);
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

/// A payload in words.
fn words(payload: &[u8]) -> String {
    let Ok(Payload::Sequence(items)) = Payload::parse(payload) else { return hex::encode(payload) };
    let mut words = Vec::new();
    for item in items {
        if let Item::Senml(pack) = item {
            for r in pack.fields() {
                let (name, unit) = (r.name.unwrap_or_default(), r.unit.unwrap_or_default());
                words.push(
                    format!("{name} {} {unit}", r.value.map(|v| v.to_string()).unwrap_or_default()).trim().to_owned(),
                );
            }
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
        "ack_every": p.ack_every, "bind": share.link.bind, "air": share.link.air, "parents": share.link.parents,
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
