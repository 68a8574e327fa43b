//! What can be asked of the store.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fivefold_core::e4_channel::Origin;
use fivefold_core::e5_renewal::Message;
use fivefold_core::error::Code;
use fivefold_core::id::{BootContext, Did, Epoch, GatewayId, Net, Sid};
use fivefold_core::profile::{KeyIndexes, LinkClass};
use fivefold_core::time::Millis;
use fivefold_keep::why::{self, Question};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use super::classic::{COLUMNS, ClassicRow, classic};
use super::{
    AgreedBy, CommandRow, CommandState, ContextRow, CountKey, LinkReport, MIGRATIONS, Orphan, Place, Standing,
    StoreError,
};
use crate::accepted::{ContextId, Freshness, MessageHash, flag};

/// A connection for reading: sees what was committed when each question is asked.
#[derive(Debug)]
pub struct Reader {
    db: Connection,
    path: PathBuf,
}

/// What a device last said of itself: when, and the control map.
pub type Report = (Millis, Vec<u8>);

/// A reading as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadingRow {
    /// Grows with every reading stored: the cursor.
    pub id: i64,
    /// Network.
    pub net: Net,
    /// Device.
    pub did: Did,
    /// Its short id then.
    pub sid: Sid,
    /// 3, 2 or 1.
    pub level: u8,
    /// Key generation.
    pub epoch: Epoch,
    /// Boot, in mode R.
    pub bctx: Option<BootContext>,
    /// Sender number.
    pub piv: u64,
    /// How it was proven.
    pub origin: Origin,
    /// The gateway that brought it first.
    pub gateway: GatewayId,
    /// When that gateway received it, by its clock.
    pub received: Millis,
    /// When it came here.
    pub ingested: Millis,
    /// How E1 was done.
    pub link: LinkClass,
    /// Hops left on arrival.
    pub hops: Option<u8>,
    /// Index of the network key.
    pub key_index: Option<u8>,
    /// Signal strength, dBm.
    pub rssi: Option<i16>,
    /// Link quality.
    pub lqi: Option<u8>,
    /// Whether it was the newest.
    pub freshness: Freshness,
    /// See [`flag`].
    pub flags: u8,
    /// Items of docs/protocol.md 7; of a classic frame the gateway's report, with what was opened here.
    pub payload: Vec<u8>,
    /// What was read of it, if it is a classic frame.
    pub classic: Option<ClassicRow>,
}

/// Which readings.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Of one network.
    pub net: Option<Net>,
    /// Of one device.
    pub device: Option<Did>,
    /// Ingested at or after.
    pub since: Option<Millis>,
    /// Ingested before.
    pub until: Option<Millis>,
    /// Ids after this one (before it, when `order` is the newest first).
    pub cursor: Option<i64>,
    /// How many, at most.
    pub limit: u32,
    /// In which order.
    pub order: Page,
}

/// In which order readings are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// By id, growing.
    #[default]
    Oldest,
    /// By id, falling.
    Newest,
}

/// What a context last received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// The highest number, if there is any.
    pub highest: Option<u64>,
    /// Bit j: number `highest - j` was received.
    pub bitmap: u64,
    /// When the last message came.
    pub last: Millis,
}

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRow {
    /// What it counts.
    pub key: CountKey,
    /// How many.
    pub count: u64,
    /// The first.
    pub first: Millis,
    /// The last.
    pub last: Millis,
}

/// What was heard of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewaySummary {
    /// Which.
    pub gateway: GatewayId,
    /// Receipts of it.
    pub receipts: u64,
    /// Envelopes in them.
    pub envelopes: u64,
    /// When the last came.
    pub last: Millis,
}

pub(super) const fn origin_number(origin: Origin) -> u8 {
    match origin {
        Origin::Node => 1,
        Origin::Gateway(_) => 2,
        Origin::Legacy => 3,
        Origin::Plain => 4,
        Origin::Signed => 5,
    }
}

pub(super) fn uint(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn boot(bytes: &[u8]) -> Option<BootContext> {
    bytes.try_into().ok().map(BootContext)
}

pub(super) const READING: &str =
    "SELECT r.id, c.net, c.did, r.sid, c.level, c.epoch, c.bctx, r.piv, r.origin, r.gateway, r.received,
    r.ingested, r.link, r.hops, r.key_index, r.rssi, r.lqi, r.fresh, r.flags, r.payload";
pub(super) const FROM: &str =
    "FROM reading r JOIN context c ON c.id = r.ctx LEFT JOIN classic k ON k.reading = r.id WHERE ";

const CONTEXT: &str =
    "SELECT id, net, did, level, epoch, bctx, standing, since, sealed, failures, bound, agreed_at, m3, m4,
    restored_at FROM context";

fn context(r: &Row<'_>) -> rusqlite::Result<ContextRow> {
    let agreed = match r.get::<_, Option<i64>>(11)? {
        None => None,
        Some(at) => Some(AgreedBy {
            at: Millis(uint(at)),
            m3: r.get(12)?,
            m4: Message::new(&r.get::<_, Vec<u8>>(13)?).ok_or(rusqlite::Error::InvalidQuery)?,
        }),
    };
    Ok(ContextRow {
        id: ContextId(r.get(0)?),
        net: Net(r.get(1)?),
        did: Did(r.get(2)?),
        level: r.get(3)?,
        epoch: Epoch(r.get(4)?),
        bctx: boot(&r.get::<_, Vec<u8>>(5)?),
        standing: Standing::from_number(r.get(6)?).ok_or(rusqlite::Error::InvalidQuery)?,
        since: Millis(uint(r.get(7)?)),
        sealed: r.get(8)?,
        agreed,
        failures: r.get(9)?,
        bound: r.get(10)?,
        restored_at: r.get::<_, Option<i64>>(14)?.map(|at| Millis(uint(at))),
    })
}

/// A connection for reading.
pub(super) fn read_only(path: &Path) -> Result<Reader, StoreError> {
    let failed = |source| StoreError::of(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(failed)?;
    db.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
    Ok(Reader::new(db, path))
}

impl Reader {
    fn new(db: Connection, path: &Path) -> Self {
        Self { db, path: path.to_owned() }
    }

    /// Opens a store to be read, beside a cloud that runs or without one.
    ///
    /// # Errors
    /// [`StoreError`]: it is not there, or of another version of this program.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let reader = read_only(path)?;
        let failed = |source| StoreError::of(path, source);
        let found: i64 = reader.db.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(failed)?;
        let (found, known) = (usize::try_from(found).unwrap_or(usize::MAX), MIGRATIONS.len());
        match found.cmp(&known) {
            Ordering::Equal => Ok(reader),
            Ordering::Greater => Err(StoreError::newer(path, found, known)),
            Ordering::Less => Err(StoreError::TooOld { path: path.to_owned(), found, known }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, source: rusqlite::Error) -> StoreError {
        StoreError::of(&self.path, source)
    }

    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let run = || self.db.prepare_cached(sql)?.query_map(params, read)?.collect::<rusqlite::Result<Vec<T>>>();
        run().map_err(|e| self.failed(e))
    }

    /// Asks something that takes several steps.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        ask(&self.db).map_err(|e| self.failed(e))
    }

    /// Readings, without what is none (quarantined, refused or held) or is pruned.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn readings(&self, q: &Query) -> Result<Vec<ReadingRow>, StoreError> {
        // Every condition is in the text once, so that the plan is the same and nothing from outside is in it.
        let (compare, order) = match q.order {
            Page::Oldest => (">", "ASC"),
            Page::Newest => ("<", "DESC"),
        };
        let by_device =
            if q.device.is_some() { "r.ctx IN (SELECT id FROM context WHERE did = ?2)" } else { "?2 IS NULL" };
        let sql = format!(
            "{READING}, {COLUMNS} {FROM} r.flags & {hidden} = 0 AND {by_device} AND (?1 IS NULL OR c.net = ?1)
             AND (?3 IS NULL OR r.ingested >= ?3) AND (?4 IS NULL OR r.ingested < ?4)
             AND (?5 IS NULL OR r.id {compare} ?5) ORDER BY r.id {order} LIMIT ?6",
            hidden = flag::HIDDEN | flag::PRUNED,
        );
        let time = |t: Option<Millis>| t.map(|t| i64::try_from(t.0).unwrap_or(i64::MAX));
        self.all(
            &sql,
            params![q.net.map(|n| n.0), q.device.map(|d| d.0), time(q.since), time(q.until), q.cursor, q.limit],
            reading,
        )
    }

    /// Everything that was ever taken under a context, quarantined and refused ones too: for tests and audits.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn ledger(&self) -> Result<Vec<ReadingRow>, StoreError> {
        self.all(&format!("{READING}, {COLUMNS} {FROM} 1 ORDER BY r.id"), [], reading)
    }

    /// All contexts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn contexts(&self) -> Result<Vec<ContextRow>, StoreError> {
        self.all(&format!("{CONTEXT} ORDER BY id"), [], context)
    }

    /// One context.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn context(&self, id: ContextId) -> Result<Option<ContextRow>, StoreError> {
        Ok(self.all(&format!("{CONTEXT} WHERE id = ?"), [id.0], context)?.pop())
    }

    /// What gateways of a network are pushed of its contexts: the generation, and contexts of mode P. Both as they were at
    /// one moment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn pushed_contexts(&self, net: Net) -> Result<(u64, Vec<ContextRow>), StoreError> {
        let snapshot = self.db.unchecked_transaction().map_err(|e| self.failed(e))?;
        let generation = self.generation()?;
        let sql = format!("{CONTEXT} WHERE net = ? AND bctx = x'' AND level > 1 ORDER BY did, epoch");
        let rows = self.all(&sql, [net.0], context)?;
        drop(snapshot);
        Ok((generation, rows))
    }

    /// The generation of what gateways are pushed of contexts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn generation(&self) -> Result<u64, StoreError> {
        self.db.query_row("SELECT value FROM generation", [], |r| r.get(0)).map(uint).map_err(|e| self.failed(e))
    }

    /// What a context last received.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn recent(&self, context: ContextId) -> Result<Recent, StoreError> {
        let sql = "SELECT piv, ingested FROM reading WHERE ctx = ? ORDER BY piv DESC LIMIT 64";
        let rows = self.all(sql, [context.0], |r| Ok((uint(r.get(0)?), uint(r.get(1)?))))?;
        let Some(&(highest, last)) = rows.first() else { return Ok(Recent::default()) };
        let bitmap = rows
            .iter()
            .map(|(piv, _)| highest - piv)
            .filter(|back| *back < 64)
            .fold(0, |bits, back| bits | 1u64 << back);
        Ok(Recent { highest: Some(highest), bitmap, last: Millis(last) })
    }

    /// The last message of each device, and how many readings it has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_of(&self, did: Did) -> Result<Option<(Millis, u64)>, StoreError> {
        let sql = "SELECT max(ingested), count(*) FROM reading WHERE ctx IN (SELECT id FROM context WHERE did = ?) AND flags & ? = 0";
        let (last, count) = self
            .db
            .prepare_cached(sql)
            .and_then(|mut s| {
                s.query_row(params![did.0, flag::HELD], |r| Ok((r.get::<_, Option<i64>>(0)?, uint(r.get(1)?))))
            })
            .map_err(|e| self.failed(e))?;
        Ok(last.map(|at| (Millis(uint(at)), count)))
    }

    /// When a device of a network was heard last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_heard(&self, net: Net, did: Did) -> Result<Option<Millis>, StoreError> {
        // Of each context the message with the highest number: that one is found by the index.
        let sql = "SELECT max((SELECT ingested FROM reading WHERE ctx = context.id ORDER BY piv DESC LIMIT 1))
                   FROM context WHERE net = ? AND did = ?";
        self.db
            .prepare_cached(sql)
            .and_then(|mut s| s.query_row(params![net.0, did.0], |r| r.get::<_, Option<i64>>(0)))
            .map(|at| at.map(|at| Millis(uint(at))))
            .map_err(|e| self.failed(e))
    }

    /// Counters, all or of one gateway.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn counts(&self) -> Result<Vec<CountRow>, StoreError> {
        let sql = "SELECT code, net, gateway, sid, place, n, first, last FROM rejection
                   ORDER BY code, net, gateway, sid, place";
        let known = |n: i64| u32::try_from(n).ok();
        self.all(sql, [], |r| {
            let code: String = r.get(0)?;
            let place: String = r.get(4)?;
            Ok(CountRow {
                key: CountKey {
                    code: code.parse::<Code>().map_err(|_| rusqlite::Error::InvalidQuery)?,
                    net: known(r.get(1)?).map(Net),
                    gateway: known(r.get(2)?).map(GatewayId),
                    sid: known(r.get(3)?).and_then(|n| u16::try_from(n).ok()).map(Sid),
                    place: if place == "gateway" { Place::Gateway } else { Place::Cloud },
                },
                count: uint(r.get(5)?),
                first: Millis(uint(r.get(6)?)),
                last: Millis(uint(r.get(7)?)),
            })
        })
    }

    /// Why things were refused here, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn why(&self, question: &Question) -> Result<Vec<why::Kept>, StoreError> {
        why::find(&self.db, question).map_err(|e| StoreError::of(&self.path, e))
    }

    /// Orphans of a device that are not too old.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn orphans(&self, net: Net, sid: Sid, oldest: Millis) -> Result<Vec<Orphan>, StoreError> {
        let sql = "SELECT at, gateway, hash, envelope FROM orphan WHERE net = ? AND sid = ? AND at >= ? ORDER BY id";
        self.all(sql, params![net.0, sid.0, i64::try_from(oldest.0).unwrap_or(i64::MAX)], |r| {
            Ok(Orphan {
                net,
                sid,
                at: Millis(uint(r.get(0)?)),
                gateway: GatewayId(r.get(1)?),
                hash: MessageHash(r.get(2)?),
                envelope: r.get(3)?,
            })
        })
    }

    /// Commands without a result, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_commands(&self) -> Result<Vec<CommandRow>, StoreError> {
        let sql = "SELECT did, id, op, args, at FROM command WHERE done IS NULL ORDER BY did, id";
        self.all(sql, [], |r| {
            Ok(CommandRow {
                did: Did(r.get(0)?),
                id: uint(r.get(1)?),
                op: uint(r.get(2)?),
                args: r.get(3)?,
                at: Millis(uint(r.get(4)?)),
            })
        })
    }

    /// The highest command id of each device.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_commands(&self) -> Result<Vec<(Did, u64)>, StoreError> {
        self.all("SELECT did, max(id) FROM command GROUP BY did", [], |r| Ok((Did(r.get(0)?), uint(r.get(1)?))))
    }

    /// Commands of a device, the newest first, with when the result came and what it was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn commands_of(&self, did: Did) -> Result<Vec<CommandState>, StoreError> {
        let sql = "SELECT id, op, args, at, done, status FROM command WHERE did = ? ORDER BY id DESC LIMIT 100";
        self.all(sql, [did.0], |r| {
            let done: Option<i64> = r.get(4)?;
            let status: Option<i64> = r.get(5)?;
            let command = CommandRow {
                did,
                id: uint(r.get(0)?),
                op: uint(r.get(1)?),
                args: r.get(2)?,
                at: Millis(uint(r.get(3)?)),
            };
            let done = done.map(|at| (Millis(uint(at)), uint(status.unwrap_or(0))));
            Ok(CommandState { command, done })
        })
    }

    /// What a device last said of itself: when, and the control map.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn report(&self, did: Did) -> Result<Option<Report>, StoreError> {
        self.db
            .prepare_cached("SELECT at, control FROM report WHERE did = ?")
            .and_then(|mut s| s.query_row([did.0], |r| Ok((Millis(uint(r.get(0)?)), r.get(1)?))).optional())
            .map_err(|e| self.failed(e))
    }

    /// The same of all devices.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn reports(&self) -> Result<Vec<(Did, Report)>, StoreError> {
        self.all("SELECT did, at, control FROM report", [], |r| {
            Ok((Did(r.get(0)?), (Millis(uint(r.get(1)?)), r.get(2)?)))
        })
    }

    /// Which network keys devices said last that they have.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn link_keys(&self) -> Result<Vec<(Did, LinkReport)>, StoreError> {
        self.all("SELECT did, sending, receiving, since, at FROM link_keys", [], |r| {
            let keys = KeyIndexes { sending: r.get(1)?, receiving: r.get(2)? };
            let (since, at) = (Millis(uint(r.get(3)?)), Millis(uint(r.get(4)?)));
            Ok((Did(r.get(0)?), LinkReport { keys, since, at }))
        })
    }

    /// Which network key was put last into an answer to each device, and when first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn link_told(&self) -> Result<Vec<(Did, u8, Millis)>, StoreError> {
        self.all("SELECT did, idx, at FROM link_told", [], |r| Ok((Did(r.get(0)?), r.get(1)?, Millis(uint(r.get(2)?)))))
    }

    /// What was heard of gateways.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn gateways(&self) -> Result<Vec<GatewaySummary>, StoreError> {
        let sql = "SELECT gateway, count(*), sum(count), max(at) FROM receipt GROUP BY gateway";
        self.all(sql, [], |r| {
            Ok(GatewaySummary {
                gateway: GatewayId(r.get(0)?),
                receipts: uint(r.get(1)?),
                envelopes: uint(r.get(2)?),
                last: Millis(uint(r.get(3)?)),
            })
        })
    }

    /// Which version of its state each gateway was pushed last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn pushed(&self) -> Result<Vec<(GatewayId, u64)>, StoreError> {
        self.all("SELECT gateway, version FROM pushed", [], |r| Ok((GatewayId(r.get(0)?), uint(r.get(1)?))))
    }

    /// When the store was put back from a copy last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn restored(&self) -> Result<Option<Millis>, StoreError> {
        let newest = self.all("SELECT max(at) FROM restored", [], |r| r.get::<_, Option<i64>>(0))?;
        Ok(newest.into_iter().next().flatten().map(|at| Millis(uint(at))))
    }

    /// Messages in quarantine.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn quarantined(&self) -> Result<Vec<(Code, ContextId, u64)>, StoreError> {
        self.all("SELECT code, ctx, piv FROM quarantine ORDER BY id", [], |r| {
            let code: String = r.get(0)?;
            let code = code.parse::<Code>().map_err(|_| rusqlite::Error::InvalidQuery)?;
            Ok((code, ContextId(r.get(1)?), uint(r.get(2)?)))
        })
    }

    /// The highest id of any reading.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_id(&self) -> Result<i64, StoreError> {
        self.db.query_row("SELECT coalesce(max(id), 0) FROM reading", [], |r| r.get(0)).map_err(|e| self.failed(e))
    }

    /// The first of these dead letters that a sink does not have.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn missing_letter(&self, sink: &str, letters: &[i64]) -> Result<Option<i64>, StoreError> {
        self.ask(|db| {
            let mut has = db.prepare_cached("SELECT 1 FROM dead_letter WHERE id = ? AND sink = ?")?;
            for letter in letters {
                if !has.exists(params![letter, sink])? {
                    return Ok(Some(*letter));
                }
            }
            Ok(None)
        })
    }
}

pub(super) fn reading(r: &Row<'_>) -> rusqlite::Result<ReadingRow> {
    let gateway = GatewayId(r.get(9)?);
    let origin = match r.get::<_, u8>(8)? {
        1 => Origin::Node,
        2 => Origin::Gateway(gateway),
        3 => Origin::Legacy,
        4 => Origin::Plain,
        5 => Origin::Signed,
        _ => return Err(rusqlite::Error::InvalidQuery),
    };
    Ok(ReadingRow {
        id: r.get(0)?,
        net: Net(r.get(1)?),
        did: Did(r.get(2)?),
        sid: Sid(r.get(3)?),
        level: r.get(4)?,
        epoch: Epoch(r.get(5)?),
        bctx: boot(&r.get::<_, Vec<u8>>(6)?),
        piv: uint(r.get(7)?),
        origin,
        gateway,
        received: Millis(uint(r.get(10)?)),
        ingested: Millis(uint(r.get(11)?)),
        link: LinkClass::from_wire(r.get(12)?).ok_or(rusqlite::Error::InvalidQuery)?,
        hops: r.get(13)?,
        key_index: r.get(14)?,
        rssi: r.get(15)?,
        lqi: r.get(16)?,
        freshness: if r.get(17)? { Freshness::Fresh } else { Freshness::Late },
        flags: r.get(18)?,
        payload: r.get(19)?,
        classic: classic(r, 20)?,
    })
}
