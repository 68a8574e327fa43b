//! One transaction over the writes of a group.

use fivefold_core::error::Code;
use fivefold_core::id::GatewayId;
use fivefold_core::time::Millis;
use fivefold_core::why::{Detail, Refusal, Value};
use fivefold_evidence::log::EntryKind;
use fivefold_keep::why;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{Committed, CountKey, ORPHANS, Place, Published, ReceiptRow, SequenceVerdict, Verdict, Write};
use crate::accepted::{Accepted, Row, flag};

/// Variants that are kept of one number by a gateway's word, at most.
const VARIANTS: u8 = 8;

/// Explanations of refusals that are kept: a week's, at most.
const REFUSALS: why::Bounds = why::Bounds { rows: 100_000, life: 7 * 24 * 3_600_000 };

type Result<T> = rusqlite::Result<T>;

pub(super) fn group<'w>(db: &mut Connection, writes: impl Iterator<Item = &'w Write>) -> Result<Vec<Committed>> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let committed = writes.map(|w| one(&tx, w)).collect::<Result<Vec<_>>>()?;
    tx.commit()?;
    Ok(committed)
}

fn one(tx: &Transaction<'_>, write: &Write) -> Result<Committed> {
    let mut counts = write.counts.clone();
    let mut refusals = write.refusals.clone();
    contexts(tx, write)?;
    let mut verdicts = Vec::with_capacity(write.accepted.len());
    // Which reading each accepted message is, or is again.
    let mut readings = Vec::with_capacity(write.accepted.len());
    let mut classic = Vec::with_capacity(write.classic.len());
    {
        let mut insert = tx.prepare_cached(
            "INSERT INTO reading (ctx, piv, variant, hash, sid, origin, gateway, seq, received, ingested, link, hops,
                                  key_index, rssi, lqi, fresh, flags, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
             ON CONFLICT (ctx, piv, variant) DO NOTHING",
        )?;
        for accepted in &write.accepted {
            let row = accepted.row();
            if put(&mut insert, row, 0)? {
                readings.push(Some(inserted_leaf(tx, row)?));
                verdicts.push(Verdict::New);
                if row.flags & flag::HELD != 0 {
                    counts.push((key(Code::CloudHeld, row), 1));
                    refusals.push(told(Code::CloudHeld, row, write.now));
                }
                continue;
            }
            let mut inserted = false;
            let (verdict, known) = classify(tx, &mut insert, accepted, &mut inserted)?;
            readings.push(if inserted { Some(inserted_leaf(tx, row)?) } else { known });
            let level2 = row.level < 3;
            let code = match verdict {
                Verdict::New => None,
                Verdict::Dup { .. } if level2 => Some(Code::GatewayDuplicate),
                Verdict::Dup { .. } => Some(Code::CloudDuplicate),
                Verdict::NonceReuse if level2 => Some(Code::GatewayNonceReuse),
                Verdict::NonceReuse => Some(Code::CloudNonceReuse),
            };
            if let Some(code) = code {
                counts.push((key(code, row), 1));
                refusals.push(told(code, row, write.now));
            }
            verdicts.push(verdict);
        }
        for frame in &write.classic {
            let row = frame.accepted.row();
            let mut inserted = put(&mut insert, row, 0)?;
            let mut verdict = Verdict::New;
            if !inserted {
                // The gateway sent its envelope again: nothing is counted twice.
                let known;
                (verdict, known) = classify(tx, &mut insert, &frame.accepted, &mut inserted)?;
                let reuse = verdict == Verdict::NonceReuse;
                let code = if reuse { Code::GatewayNonceReuse } else { Code::GatewayDuplicate };
                counts.push((key(code, row), 1));
                // Who has not the key may have told the same before who has it.
                if let (false, Some(known)) = (inserted, known)
                    && leaf(tx, known, row)?
                {
                    verdict = Verdict::New;
                }
            }
            classic.push(verdict);
            if inserted {
                let reading = tx.last_insert_rowid();
                leaf(tx, reading, row)?;
                super::classic::put(tx, reading, frame)?;
                if row.flags & flag::HELD != 0 {
                    counts.push((key(Code::CloudHeld, row), 1));
                    refusals.push(told(Code::CloudHeld, row, write.now));
                }
                counts.extend(frame.codes.iter().map(|code| (key(*code, row), 1)));
            }
        }
    }
    write.unknown.iter().try_for_each(|u| super::classic::unknown(tx, u))?;
    kept_aside(tx, write)?;
    counts.extend(super::evidence::put(tx, &write.evidence)?);
    super::log::put(tx, &write.log)?;
    let sequence = match &write.receipt {
        Some(receipt) => {
            let verdict = sequence(tx, receipt)?;
            heard(tx, write, receipt, &readings)?;
            verdict
        }
        None => SequenceVerdict::InOrder,
    };
    if let (SequenceVerdict::Gap | SequenceVerdict::Different, Some(r)) = (sequence, &write.receipt) {
        counts.push((
            CountKey {
                code: Code::ChannelSequence,
                net: Some(r.net),
                gateway: Some(r.gateway),
                sid: None,
                place: Place::Cloud,
            },
            1,
        ));
    }
    commands(tx, write)?;
    count(tx, &counts, write.now)?;
    let said: Vec<_> = write.said.iter().map(|(key, n, _)| (*key, *n)).collect();
    count(tx, &said, write.now)?;
    let unsaid = counts.iter().map(|(key, n)| (key, *n, None));
    for (key, n, severity) in unsaid.chain(write.said.iter().map(|(key, n, severity)| (key, *n, Some(*severity)))) {
        super::alarms::count(tx, key, n, severity, write.now)?;
    }
    super::alarms::write(tx, &write.alarms, write.now)?;
    write.token_uses.iter().try_for_each(|used| super::tokens::put(tx, used))?;
    super::outbox::write(tx, &write.outbox, write.now)?;
    explain(tx, counts.iter().chain(&said).map(|(key, _)| *key), refusals, write.now)?;
    if write.probe {
        tx.prepare_cached("INSERT OR REPLACE INTO probe VALUES (0, ?)")?.execute([int(write.now.0)])?;
    }
    let generation = if write.new_generation { Some(next_generation(tx, write.now)?) } else { None };
    Ok(Committed { verdicts, classic, sequence, generation })
}

/// Explains what was counted here: what nobody else explained, by its code.
fn explain(
    tx: &Transaction<'_>,
    counted: impl Iterator<Item = CountKey>,
    mut refusals: Vec<Refusal>,
    now: Millis,
) -> Result<()> {
    for key in counted.filter(|key| key.place == Place::Cloud) {
        if !refusals.iter().any(|r| r.rejected.code == key.code && r.sid == key.sid) {
            refusals.push(super::refusal(key, key.code.into(), now));
        }
    }
    why::keep(tx, &refusals, now, &REFUSALS)
}

/// What a row of the ledger is refused, or held, for: its number was used, or may have been.
fn told(code: Code, row: &Row, at: Millis) -> Refusal {
    let detail = Detail::new(Value::Unsaid, Value::Sender(row.piv));
    let CountKey { net, gateway, sid, .. } = key(code, row);
    Refusal { id: row.hash.into(), at, rejected: code.into(), detail, net, gateway, sid }
}

fn key(code: Code, row: &Row) -> CountKey {
    CountKey {
        code,
        net: Some(row.way.net),
        gateway: Some(row.way.gateway),
        sid: Some(row.way.sid),
        place: Place::Cloud,
    }
}

pub(super) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn contexts(tx: &Transaction<'_>, write: &Write) -> Result<()> {
    if !write.contexts.is_empty() {
        let mut insert = tx.prepare_cached(
            "INSERT INTO context (id, net, did, level, epoch, bctx, standing, since, sealed, failures, bound,
                                  agreed_at, m3, m4, restored_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )?;
        for c in &write.contexts {
            insert.execute(params![
                c.id.0,
                c.net.0,
                c.did.0,
                c.level,
                c.epoch.0,
                c.bctx.as_ref().map_or(&[][..], |b| &b.0),
                c.standing.number(),
                int(c.since.0),
                c.sealed,
                c.failures,
                c.bound,
                c.agreed.map(|a| int(a.at.0)),
                c.agreed.as_ref().map(|a| &a.m3[..]),
                c.agreed.as_ref().map(|a| a.m4.as_bytes()),
                c.restored_at.map(|at| int(at.0))
            ])?;
        }
    }
    for (id, standing, since) in &write.standings {
        tx.prepare_cached("UPDATE context SET standing = ?, since = ? WHERE id = ?")?.execute(params![
            standing.number(),
            int(since.0),
            id.0
        ])?;
    }
    for id in &write.forgotten {
        tx.prepare_cached("UPDATE context SET sealed = NULL WHERE id = ?")?.execute([id.0])?;
    }
    for id in &write.dropped {
        tx.prepare_cached(
            "DELETE FROM context WHERE id = ?1 AND standing = 2
                           AND NOT EXISTS (SELECT 1 FROM reading WHERE ctx = ?1)",
        )?
        .execute([id.0])?;
    }
    for (id, failures) in &write.failures {
        tx.prepare_cached("UPDATE context SET failures = max(failures, ?) WHERE id = ?")?
            .execute(params![failures, id.0])?;
    }
    for (id, bound) in &write.leases {
        tx.prepare_cached("UPDATE context SET bound = max(bound, ?) WHERE id = ?")?.execute(params![bound, id.0])?;
    }
    Ok(())
}

/// Grows by one at least, and is never below the clock: what was pushed before a copy was restored is below it too.
fn next_generation(tx: &Transaction<'_>, now: Millis) -> Result<u64> {
    let next: i64 = tx
        .prepare_cached("UPDATE generation SET value = max(value + 1, ?) RETURNING value")?
        .query_row([int(now.0 / 1000)], |r| r.get(0))?;
    Ok(u64::try_from(next).unwrap_or(0))
}

fn put(insert: &mut rusqlite::CachedStatement<'_>, row: &Row, variant: u8) -> Result<bool> {
    let way = &row.way;
    let changed = insert.execute(params![
        row.context.0,
        int(row.piv),
        variant,
        row.hash.0,
        way.sid.0,
        super::read::origin_number(row.origin),
        way.gateway.0,
        int(way.seq),
        int(way.received.0),
        int(way.ingested.0),
        way.link.wire(),
        way.hops,
        way.key_index,
        way.rssi,
        way.lqi,
        row.freshness == crate::accepted::Freshness::Fresh,
        row.flags,
        row.payload
    ])?;
    Ok(changed == 1)
}

/// Gives a row of the ledger what it needs to become a leaf. Says whether it had it not.
fn leaf(tx: &Transaction<'_>, reading: i64, row: &Row) -> Result<bool> {
    let Some(salt) = row.salt else { return Ok(false) };
    // Of what is pruned nothing is proven any more: a repeat of it must not look like news.
    let sql = "INSERT INTO leaf (reading, salt) SELECT ?1, ?2 WHERE EXISTS
               (SELECT 1 FROM reading WHERE id = ?1 AND flags & ?3 = 0) ON CONFLICT DO NOTHING";
    let is_new = tx.prepare_cached(sql)?.execute(params![reading, salt.0, flag::PRUNED])? > 0;
    if is_new {
        super::evidence::arrived(tx, row.context, row.piv)?;
    }
    Ok(is_new)
}

/// The same for the row that was inserted last. Returns which it is.
fn inserted_leaf(tx: &Transaction<'_>, row: &Row) -> Result<i64> {
    let reading = tx.last_insert_rowid();
    leaf(tx, reading, row)?;
    Ok(reading)
}

/// A row stands there under this number: is it the same message (docs/protocol.md 8.1), and which? If it is written beside
/// that one, `inserted` says so.
fn classify(
    tx: &Transaction<'_>,
    insert: &mut rusqlite::CachedStatement<'_>,
    accepted: &Accepted,
    inserted: &mut bool,
) -> Result<(Verdict, Option<i64>)> {
    let row = accepted.row();
    let at = params![row.context.0, int(row.piv)];
    let mut same = tx.prepare_cached(
        "SELECT gateway, ingested, id FROM reading WHERE ctx = ? AND piv = ? AND hash = ? ORDER BY variant LIMIT 1",
    )?;
    let found = same
        .query_row(params![row.context.0, int(row.piv), row.hash.0], |r| {
            let ingested = Millis(u64::try_from(r.get::<_, i64>(1)?).unwrap_or(0));
            Ok((Verdict::Dup { gateway: GatewayId(r.get(0)?), ingested }, Some(r.get(2)?)))
        })
        .optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    if row.level < 3 {
        // By a gateway's word alone: a gateway that invented future numbers cannot make true readings vanish.
        tx.prepare_cached("UPDATE reading SET flags = flags | ?3 WHERE ctx = ?1 AND piv = ?2")?.execute(params![
            row.context.0,
            int(row.piv),
            flag::CONFLICT
        ])?;
        let variants: u8 =
            tx.prepare_cached("SELECT count(*) FROM reading WHERE ctx = ? AND piv = ?")?.query_row(at, |r| r.get(0))?;
        if variants < VARIANTS {
            let marked = Row { flags: row.flags | flag::CONFLICT, ..row.clone() };
            *inserted = put(insert, &marked, variants)?;
        }
    } else {
        tx.prepare_cached("UPDATE reading SET flags = flags | ?3 WHERE ctx = ?1 AND piv = ?2")?.execute(params![
            row.context.0,
            int(row.piv),
            flag::QUARANTINED
        ])?;
        let known: i64 = tx
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM quarantine WHERE ctx = ? AND piv = ? AND hash = ?)")?
            .query_row(params![row.context.0, int(row.piv), row.hash.0], |r| r.get(0))?;
        if known == 0 {
            aside(tx, &quarantined(row))?;
        }
    }
    Ok((Verdict::NonceReuse, None))
}

fn quarantined(row: &Row) -> super::Quarantined {
    super::Quarantined {
        code: Code::CloudNonceReuse,
        context: row.context,
        piv: row.piv,
        hash: row.hash,
        gateway: row.way.gateway,
        at: row.way.ingested,
        payload: row.payload.clone(),
    }
}

fn aside(tx: &Transaction<'_>, q: &super::Quarantined) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO quarantine (at, code, ctx, piv, hash, gateway, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![int(q.at.0), q.code.as_str(), q.context.0, int(q.piv), q.hash.0, q.gateway.0, q.payload])?;
    Ok(())
}

fn kept_aside(tx: &Transaction<'_>, write: &Write) -> Result<()> {
    write.quarantined.iter().try_for_each(|q| aside(tx, q))?;
    for hash in &write.adopted {
        tx.prepare_cached("DELETE FROM orphan WHERE hash = ?")?.execute(params![hash.0])?;
    }
    if write.orphans.is_empty() {
        return Ok(());
    }
    super::alarms::unopened(tx, write.now)?;
    for o in &write.orphans {
        // The oldest makes room: who floods a device's name pushes out what was there, and only for that device.
        tx.prepare_cached(
            "DELETE FROM orphan WHERE id IN (SELECT id FROM orphan WHERE net = ? AND sid = ? ORDER BY id DESC
             LIMIT -1 OFFSET ?)",
        )?
        .execute(params![o.net.0, o.sid.0, (ORPHANS - 1) as i64])?;
        tx.prepare_cached(
            "INSERT INTO orphan (net, sid, at, gateway, hash, envelope) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (hash) DO NOTHING",
        )?
        .execute(params![o.net.0, o.sid.0, int(o.at.0), o.gateway.0, o.hash.0, o.envelope])?;
    }
    Ok(())
}

fn sequence(tx: &Transaction<'_>, r: &ReceiptRow) -> Result<SequenceVerdict> {
    let (gateway, boot) = (r.gateway.0, &r.boot.0);
    let next: Option<i64> = tx
        .prepare_cached("SELECT next FROM sequence WHERE gateway = ? AND boot = ?")?
        .query_row(params![gateway, boot], |row| row.get(0))
        .optional()?;
    let first = int(r.first);
    // Numbers go on over restarts of a gateway: where a run starts says nothing.
    let expected = next.unwrap_or(first);
    let verdict = match first.cmp(&expected) {
        std::cmp::Ordering::Equal => SequenceVerdict::InOrder,
        std::cmp::Ordering::Greater => SequenceVerdict::Gap,
        std::cmp::Ordering::Less => {
            let other: i64 = tx
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM receipt WHERE gateway = ? AND boot = ? AND first = ? AND count = ?
                     AND root <> ?)",
                )?
                .query_row(params![gateway, boot, first, int(r.count), r.root.0], |row| row.get(0))?;
            if other == 1 { SequenceVerdict::Different } else { SequenceVerdict::Repeat }
        }
    };
    let inserted = tx
        .prepare_cached(
            "INSERT INTO receipt (gateway, boot, first, count, root, at, cose) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![gateway, boot, first, int(r.count), r.root.0, int(r.at.0), r.cose])?;
    if inserted == 1 {
        super::log::queue(tx, EntryKind::Receipt, tx.last_insert_rowid())?;
    }
    tx.prepare_cached(
        "INSERT INTO sequence VALUES (?1, ?2, ?3) ON CONFLICT (gateway, boot) DO UPDATE SET next = max(next, ?3)",
    )?
    .execute(params![gateway, boot, first.saturating_add(int(r.count))])?;
    Ok(verdict)
}

/// Keeps what the receipt proves of single readings.
fn heard(tx: &Transaction<'_>, write: &Write, r: &ReceiptRow, readings: &[Option<i64>]) -> Result<()> {
    if write.hearing.kept.is_empty() {
        return Ok(());
    }
    match super::heard::receipt(tx, r)? {
        Some(receipt) => super::heard::put(tx, &write.hearing, readings, r.gateway, receipt),
        None => Ok(()),
    }
}

fn commands(tx: &Transaction<'_>, write: &Write) -> Result<()> {
    for c in &write.commands {
        tx.prepare_cached("INSERT INTO command (did, id, op, args, at) VALUES (?, ?, ?, ?, ?)")?.execute(params![
            c.did.0,
            int(c.id),
            int(c.op),
            c.args,
            int(c.at.0)
        ])?;
    }
    for r in &write.results {
        tx.prepare_cached(
            "UPDATE command SET done = ?, status = ?, value = ? WHERE did = ? AND id = ? AND done IS NULL",
        )?
        .execute(params![int(r.at.0), int(r.status), r.value, r.did.0, int(r.id)])?;
    }
    for (gateway, version) in &write.pushed {
        tx.prepare_cached(
            "INSERT INTO pushed VALUES (?1, ?2) ON CONFLICT (gateway) DO UPDATE SET version = max(version, ?2)",
        )?
        .execute(params![gateway.0, int(*version)])?;
    }
    if let Some(Published { value, raised }) = write.published {
        tx.prepare_cached("UPDATE meshlium_cursor SET id = max(id, ?), raised = max(raised, ?)")?
            .execute([value, raised])?;
    }
    for (did, template) in &write.unknown_rows {
        super::unknown_rows::put(tx, *did, *template, write.now)?;
    }
    for (did, control) in &write.reports {
        tx.prepare_cached(
            "INSERT INTO report VALUES (?1, ?2, ?3) ON CONFLICT (did) DO UPDATE SET at = ?2, control = ?3",
        )?
        .execute(params![did.0, int(write.now.0), control])?;
    }
    for (did, keys) in &write.link_keys {
        tx.prepare_cached(
            "INSERT INTO link_keys (did, sending, receiving, at, since) VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT (did) DO UPDATE SET at = ?4, sending = ?2, receiving = ?3,
             since = CASE WHEN sending = ?2 AND receiving IS ?3 THEN since ELSE ?4 END",
        )?
        .execute(params![did.0, keys.sending, keys.receiving, int(write.now.0)])?;
    }
    for (did, index) in &write.link_told {
        tx.prepare_cached(
            "INSERT INTO link_told VALUES (?1, ?2, ?3) ON CONFLICT (did) DO UPDATE SET idx = ?2, at = ?3",
        )?
        .execute(params![did.0, index, int(write.now.0)])?;
    }
    Ok(())
}

fn count(tx: &Transaction<'_>, counts: &[(CountKey, u64)], now: Millis) -> Result<()> {
    if counts.is_empty() {
        return Ok(());
    }
    let mut add = tx.prepare_cached(
        "INSERT INTO rejection VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
         ON CONFLICT (code, net, gateway, sid, place) DO UPDATE SET n = n + ?6, last = ?7",
    )?;
    for (k, n) in counts {
        add.execute(params![
            k.code.as_str(),
            k.net.map_or(-1, |v| i64::from(v.0)),
            k.gateway.map_or(-1, |v| i64::from(v.0)),
            k.sid.map_or(-1, |v| i64::from(v.0)),
            k.place.as_str(),
            int(*n),
            int(now.0)
        ])?;
    }
    Ok(())
}
