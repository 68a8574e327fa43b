//! A node that is about to ship: its folder, or its config alone.

use std::path::Path;

use fivefold_core::profile::Mode;
use fivefold_keep::share::{NODE_FILE, NodeSettings, SIGNING_KEY_FILE};

use super::shares;
use crate::facts::{Context, Device, Facts, Network, Seen, ShareSeen, SignerSeen};
use crate::rule::Subject;

/// What a node leaves beside its config once it runs: its counters, and the note that there are some.
const USED: [&str; 2] = ["started", "state"];
/// The rule about that.
const RULE: &str = "FX-51";

/// Looks at a node. One that is in the book, where there is a book, is compared with it; otherwise the rules about devices
/// look at what its own config says.
pub fn node(path: &Path, facts: &mut Facts) {
    let path = if path.is_dir() { path.join(NODE_FILE) } else { path.to_owned() };
    let Some(config) = shares::config::<NodeSettings>(&path, facts) else { return };
    let node = &config.settings;
    let (policy, overrides) = match node.policy.check() {
        Ok(checked) => checked,
        Err(wrong) => return facts.unread.push(format!("{}: [policy]: {wrong}", path.display())),
    };
    used(&path, facts);
    let has_book = facts.has_book;
    let is_it = |d: &&mut Device| has_book && d.name.eq_ignore_ascii_case(&node.did);
    if let Some(device) = facts.devices.iter_mut().find(is_it) {
        let revoked = device.revoked_at.map(|_| "it is revoked in the book".to_owned());
        let differs = revoked.or_else(|| shares::differs(device, node));
        device.share = Some(ShareSeen { path, differs });
        return;
    }
    let (Ok(sid), Ok(did)) = (node.sid.parse(), node.did.parse::<fivefold_core::id::Did>()) else {
        return facts.unread.push(format!("{}: did and sid are hex digits, 16 and 4", path.display()));
    };
    // A book that does not know it is worse than none.
    let share =
        has_book.then(|| ShareSeen { path: path.clone(), differs: Some("it is not in the book at all".into()) });
    let context = match policy.mode {
        _ if !policy.profile.has_e2() && !policy.profile.has_e3() => Context::None,
        Mode::Random => Context::Boot,
        Mode::Persistent if node.gateway.is_some() => Context::AtGateway,
        Mode::Persistent => Context::Awaited,
    };
    let signer = path.with_file_name(SIGNING_KEY_FILE).exists();
    let signer = signer.then_some(SignerSeen { origin: None, is_dh_key: false });
    let is_there = |n: &Network| n.name == node.net && n.profile == policy.profile;
    if !has_book && !facts.networks.iter().any(is_there) {
        facts.networks.push(Network {
            name: node.net.clone(),
            profile: policy.profile,
            keys: None,
            key_since: None,
            rotation: None,
            is_local: node.gateway.is_some(),
        });
    }
    facts.devices.push(Device {
        name: did.to_string(),
        network: node.net.clone(),
        sid,
        place: None,
        policy,
        overrides,
        revoked_at: None,
        keys: None,
        context,
        signer,
        share,
        reported: None,
    });
}

/// Says of a node that ran already that it did.
fn used(path: &Path, facts: &mut Facts) {
    facts.examined.push(RULE);
    if let Some(left) = USED.iter().map(|name| path.with_file_name(name)).find(|left| left.exists()) {
        facts.seen.push(Seen {
            rule: RULE,
            subject: Subject::file(path),
            sentence: format!("this node ran already: {} is there", left.display()),
            cure: String::new(),
            severity: None,
        });
    }
}
