//! What became of signed batches, seen from outside: by what nodes were given to send, what they said they signed, and the rows
//! of the store.

use std::collections::BTreeMap;

use fivefold_cloud::store::{CountRow, EvidenceRow, ReadingRow};
use fivefold_core::e4_channel::Origin;
use fivefold_core::id::Sid;
use fivefold_core::proof::Sign1;
use fivefold_core::proof::merkle::{Hash, root};
use fivefold_core::proof::statement::{CONTEXT, Statement};
use fivefold_device::evidence::Downlink;
use fivefold_keep::sign::VerifyingKey;

use super::World;
use crate::cloud::ClaimRow;
use crate::watch::{Name, Signed, Watch};

/// Once the world has healed, each node that signs takes so many readings more, at most, while the cloud lacks something of a
/// batch: its answers are how it asks.
const ROUNDS: u32 = 30;
/// Pause between two of them, in milliseconds.
const PAUSE: u64 = 20_000;
/// So long after that nothing of a batch is open any more: the cloud waits 96 hours for what gateways may hold.
const BOUND: u64 = 97 * 3600 * 1000;
/// State of a claim in the store.
const OPEN: u8 = 0;
const VERIFIED: u8 = 1;

/// Batches, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// Verified by the first statement and the readings.
    pub complete: usize,
    /// Verified after the node signed again or sent its leaf hashes.
    pub recovered: usize,
    /// Given up, with EV-03.
    pub given_up: usize,
    /// Lost with the power of the node, before the cloud heard of it.
    pub lost: usize,
    /// Readings that are called signed.
    pub readings: usize,
}

impl Batches {
    /// Both together.
    pub const fn add(&mut self, other: &Self) {
        self.complete += other.complete;
        self.recovered += other.recovered;
        self.given_up += other.given_up;
        self.lost += other.lost;
        self.readings += other.readings;
    }
}

impl World {
    /// Batches come to their end: by what nodes have to say, and after [`BOUND`] without it. Then only the clock of the cloud goes
    /// on, for nobody else has anything to do.
    pub(super) fn end_batches(&mut self) -> anyhow::Result<()> {
        for _ in 0..ROUNDS {
            if self.watch.failure.is_some() || self.open_claims()? == 0 {
                return Ok(());
            }
            for n in 0..self.nodes.len() {
                if self.nodes.get(n).is_some_and(|node| node.member.signer.is_some()) {
                    self.read(n)?;
                }
            }
            self.run_until(self.now + PAUSE)?;
        }
        self.cloud.timeout(self.now + BOUND)
    }

    fn open_claims(&self) -> anyhow::Result<usize> {
        let mut open = 0;
        for member in self.members.iter().filter(|m| m.signer.is_some()) {
            open += self.cloud.claims(member.did())?.iter().filter(|c| c.state == OPEN).count();
        }
        Ok(open)
    }

    /// Promises 9 to 11.
    pub(super) fn look_at_evidence(&mut self, ledger: &[ReadingRow]) -> anyhow::Result<Batches> {
        let (counts, mut all) = (self.cloud.counts()?, Batches::default());
        for member in &self.members {
            let Some(signer) = &member.signer else { continue };
            let key = VerifyingKey::from_spki(&signer.registered.spki)?;
            let rows = self.cloud.evidence(member.did())?;
            look_at_labels(&mut self.watch, member.sid, &key, &rows, ledger);
            all.readings += rows.iter().filter(|r| r.proof.is_some()).count();
            let heard = signer.downlink == Downlink::Heard;
            let claims = self.cloud.claims(member.did())?;
            look_at_claims(&mut self.watch, (member.sid, &key, heard), &claims, &counts, &mut all);
        }
        Ok(all)
    }
}

/// Promise 9.
fn look_at_labels(watch: &mut Watch, sid: Sid, key: &VerifyingKey, rows: &[EvidenceRow], ledger: &[ReadingRow]) {
    let name_of = |row: &EvidenceRow| -> Name { (sid, row.subject.epoch, row.subject.bctx.map(|b| b.0), row.piv) };
    let proven: Vec<Name> = rows.iter().filter(|r| r.proof.is_some()).map(name_of).collect();
    let called = ledger.iter().filter(|r| r.sid == sid && r.origin == Origin::Signed);
    for row in called {
        let name = (sid, row.epoch, row.bctx.map(|b| b.0), row.piv);
        if !proven.contains(&name) {
            watch.fail(format!("9: {name:?} is called signed, and nothing proves it"));
        }
    }
    for row in rows.iter().filter(|r| r.proof.is_some()) {
        let name = name_of(row);
        if let Err(why) = watch.was_sent(&name, &row.payload) {
            watch.fail(format!("9: {name:?} is called signed, and {why}"));
        }
        if let Err(why) = holds(row, key) {
            watch.fail(format!("9: {name:?} is called signed: {why}"));
        }
    }
}

/// Verifies what proves a reading, from its bytes.
fn holds(row: &EvidenceRow, key: &VerifyingKey) -> Result<(), &'static str> {
    let proof = row.proof.as_ref().ok_or("nothing proves it")?;
    let signed = Sign1::parse(&proof.cose).map_err(|_| "what proves it is no COSE_Sign1")?;
    let payload = signed.verify(key, CONTEXT).map_err(|_| "the signature does not hold")?;
    let statement = Statement::parse(payload).map_err(|_| "no statement was signed")?;
    if statement.subject != row.subject || root(&proof.leaves) != statement.root {
        return Err("the statement is about something else");
    }
    let set = |j: u64| statement.bitmap.get(j as usize / 8).is_some_and(|byte| byte >> (j % 8) & 1 == 1);
    let place = row.piv.checked_sub(statement.first_piv).filter(|j| set(*j)).ok_or("its number is not in the batch")?;
    let index = (0..place).filter(|j| set(*j)).count();
    let leaf = row.subject.leaf(&proof.salt, row.piv, &row.payload);
    if proof.leaves.get(index) != Some(&leaf) {
        return Err("its leaf is not in the batch");
    }
    Ok(())
}

/// Promises 10 and 11, of one node.
fn look_at_claims(
    watch: &mut Watch,
    (sid, key, heard): (Sid, &VerifyingKey, bool),
    claims: &[ClaimRow],
    counts: &[CountRow],
    all: &mut Batches,
) {
    let counted = |code: &str| {
        let of = counts.iter().filter(|c| c.key.sid == Some(sid) && c.key.code.as_str() == code);
        of.map(|c| c.count).sum::<u64>()
    };
    for code in ["EV-01", "EV-04"] {
        if counted(code) > 0 {
            watch.fail(format!("11: {code} was counted of {sid}, which signed what it sent"));
        }
    }
    let mut numbers: BTreeMap<u64, Vec<&ClaimRow>> = BTreeMap::new();
    claims.iter().for_each(|claim| numbers.entry(claim.number).or_default().push(claim));
    let signed: Vec<(u64, Signed)> =
        watch.signed.range((sid, 0)..=(sid, u64::MAX)).map(|((_, number), signed)| (*number, *signed)).collect();
    let (mut given_up, gaps) = (0, claims.iter().filter(|c| is_gap(c, key)).count());
    for (number, of) in &numbers {
        if !signed.iter().any(|(n, _)| n == number) {
            watch.fail(format!("10: {sid} never signed batch {number}, which the cloud heard of"));
        }
        if of.iter().any(|c| c.state == OPEN) {
            watch.fail(format!("10: batch {number} of {sid} is neither verified nor given up"));
        }
        given_up += usize::from(of.iter().all(|c| c.state != VERIFIED));
    }
    for (number, batch) in signed {
        match numbers.get(&number).map(|of| of.iter().any(|c| c.state == VERIFIED)) {
            Some(true) if batch.statements > 1 || batch.leaves && heard => all.recovered += 1,
            Some(true) => all.complete += 1,
            Some(false) => {}
            None if batch.dark => all.lost += 1,
            None => watch.fail(format!("10: batch {number} of {sid} was signed, and the cloud never heard of it")),
        }
    }
    all.given_up += given_up;
    if counted("EV-03") != (given_up + gaps) as u64 {
        let counted = counted("EV-03");
        watch.fail(format!(
            "10: of {sid} {given_up} batches were given up and {gaps} gaps seen, and EV-03 was counted {counted} times"
        ));
    }
}

/// Whether a verified statement begins a chain anew in the middle.
fn is_gap(claim: &ClaimRow, key: &VerifyingKey) -> bool {
    let Some(cose) = &claim.cose else { return false };
    let payload = Sign1::parse(cose).ok().and_then(|signed| signed.verify(key, CONTEXT).ok());
    let statement = payload.and_then(|payload| Statement::parse(payload).ok());
    claim.state == VERIFIED && claim.number > 1 && statement.is_some_and(|s| s.previous == Hash([0; 32]))
}
