//! What `fivefold audit` says of the demo's own deployment: the network with E1 alone is open, the best one has nothing to
//! mend, and the one node whose policy was made wrong is named.

use std::path::Path;

use anyhow::Context as _;
use fivefold_audit::Audit;
use fivefold_audit::facts::Facts;
use fivefold_audit::gather::{self, Secrets};
use fivefold_audit::grade::Grade;
use fivefold_audit::waiver::Waivers;
use fivefold_core::profile::Profile;
use fivefold_keep::share::{self, NODE_FILE, NodeSettings};
use serde::Serialize;

use super::village::{self, Village};

/// The network that is run as every network should be: nothing is left to mend.
pub const BEST: &str = "crest";
/// In the network with E1 alone, the node whose policy is made wrong: it would be told to renew more often than the book says.
pub const WRONG: usize = 2;
const RULE: &str = "AR-41";

/// A network's grade.
#[derive(Clone, Debug, Serialize)]
pub struct Graded {
    /// Its name.
    pub network: String,
    /// Its combination, or `classic`.
    pub levels: String,
    /// Its grade.
    pub grade: Option<String>,
    /// What is worst in it, in one sentence.
    pub worst: Option<String>,
}

/// What the audit came to.
#[derive(Clone, Debug, Serialize)]
pub struct Audited {
    /// Every network.
    pub networks: Vec<Graded>,
    /// The device whose policy was made wrong.
    pub wrong_policy: String,
    /// What the audit says of policies that are not those of the book.
    pub named: Vec<String>,
    /// What could not be read.
    pub unread: Vec<String>,
    /// Whether the best network is as it should be: for other people's programs it has a node with keys of 128 bits.
    #[serde(skip)]
    pub has_best: bool,
}

impl Audited {
    /// Whether the audit saw what is there: F with E1 alone, A for the best network, and that node's policy and no other's.
    pub fn is_whole(&self) -> bool {
        let grade = |of: &dyn Fn(&&Graded) -> bool| self.networks.iter().find(of).and_then(|n| n.grade.as_deref());
        let [named] = &self.named[..] else { return false };
        self.unread.is_empty()
            && grade(&|n| n.levels == village::title_of(Profile::DangerLinkOnly)) == Some("F")
            && (!self.has_best || grade(&|n| n.network == BEST) == Some("A"))
            && named.contains(&self.wrong_policy)
    }
}

/// Makes a node's policy another than that of the book.
///
/// # Errors
/// Its config cannot be written.
pub fn mistake(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(NODE_FILE);
    let mut settings: NodeSettings = share::read_config(&path)?;
    settings.policy.renew_days -= 1;
    Ok(share::write_config(&path, "A node of the demo, whose policy is not that of the book.", &settings)?)
}

/// Looks at the folders as they lie there, as the command does. With `for_others` the best network has a node whose keys are of 128
/// bits, so that programs can read its frames that know no others, and is not judged.
///
/// # Errors
/// The clock is wrong, or the village has no such node.
pub fn look(village: &Village, for_others: bool) -> anyhow::Result<impl FnOnce() -> Audited + Send + use<>> {
    let link_only = village.networks.iter().find(|n| n.profile == Profile::DangerLinkOnly);
    let wrong = link_only.and_then(|n| n.nodes.get(WRONG)).context("no node has a wrong policy")?;
    let (dir, wrong_policy, now) = (village.dir.clone(), wrong.did.to_string(), crate::clock::now()?);
    let levels: Vec<(String, &str)> =
        village.networks.iter().map(|n| (n.name.clone(), village::title_of(n.profile))).collect();
    Ok(move || {
        let mut facts = Facts::at(now);
        gather::deployment(&dir, Secrets::Open(None), &mut facts);
        Audited { has_best: !for_others, ..of(&Audit::of(&facts, &Waivers::NONE), &levels, wrong_policy) }
    })
}

fn of(audit: &Audit, levels: &[(String, &str)], wrong_policy: String) -> Audited {
    let networks = audit.grades.networks.iter().map(|graded| {
        let its = |f: &&fivefold_audit::rule::Finding| f.subject.network.as_deref() == Some(&graded.network);
        // The worst comes first; what is low mars no grade.
        let worst = audit.findings.iter().find(its).filter(|_| graded.grade != Some(Grade::A));
        Graded {
            network: graded.network.clone(),
            levels: levels.iter().find(|(n, _)| *n == graded.network).map_or("classic", |(_, l)| l).to_owned(),
            grade: graded.grade.map(|g| g.to_string()),
            worst: worst.map(|f| format!("{}, {}", f.rule.id, f.rule.title)),
        }
    });
    let named = audit.findings.iter().filter(|f| f.rule.id == RULE).map(|f| f.sentence.clone()).collect();
    Audited { networks: networks.collect(), wrong_policy, named, unread: audit.unread.clone(), has_best: true }
}

/// For people.
pub fn words(audited: &Audited) -> String {
    let line = |n: &Graded| {
        let grade = n.grade.as_deref().unwrap_or("?");
        let worst = n.worst.as_deref().map_or(String::new(), |w| format!("  {w}"));
        format!("  {grade}  {:<9} {:<13}{worst}", n.network, n.levels).trim_end().to_owned()
    };
    let networks: Vec<String> = audited.networks.iter().map(line).collect();
    let mut text = format!("What fivefold audit says of these networks:\n{}", networks.join("\n"));
    for named in &audited.named {
        text += &format!("\n  One node was given a wrong policy, and {RULE} says: {named}");
    }
    for unread in &audited.unread {
        text += &format!("\n  NOT READ: {unread}");
    }
    if !audited.is_whole() {
        text += &format!(
            "\n  NOT AS IT MUST BE: F with E1 alone, A for {BEST}, and {RULE} of device {} alone",
            audited.wrong_policy
        );
    }
    text
}
