//! Classic frames in the store: beside the ledger's row, what Meshlium's tables show of it.

use fivefold_core::e4_channel::Origin;
use fivefold_core::error::Code;
use fivefold_core::id::{BootContext, Did, GatewayId, Net};
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Report;
use fivefold_waspmote::hardened::{Peer, Sealed};
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::write::int;
use super::{Reader, StoreError};
use crate::accepted::{ContextId, flag};
use crate::classic::history::{FRAMES, Glimpse};
use crate::classic::{ClassicFrame, UNKNOWN, UnknownFrame, ValueRow};

/// What was read of a classic frame, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicRow {
    /// `classic` or `classic-hardened`.
    pub suite: String,
    /// Serial, as text.
    pub serial: String,
    /// Node id.
    pub node_id: String,
    /// Type byte as it came; none for tiny frames.
    pub outer: Option<u8>,
    /// Type byte of what could be read.
    pub kind: u8,
    /// Its sequence, if it could be read.
    pub sequence: Option<u8>,
    /// Blocks of ciphertext that an earlier frame of it has too.
    pub equal: u8,
    /// What is against it, or to be known of it: codes with a space between.
    pub codes: String,
    /// Fields and rest, JSON.
    pub content: String,
}

/// Columns of [`ClassicRow`] where `classic` is joined as `k`.
pub(super) const COLUMNS: &str =
    "k.suite, k.serial, k.node_id, k.outer, k.type, k.sequence, k.equal, k.codes, k.content";

/// Reads [`COLUMNS`] from column `at` on; `None` where no classic frame was joined.
pub(super) fn classic(r: &Row<'_>, at: usize) -> rusqlite::Result<Option<ClassicRow>> {
    let Some(suite) = r.get::<_, Option<String>>(at)? else { return Ok(None) };
    let byte = |n: i64| u8::try_from(n).ok();
    Ok(Some(ClassicRow {
        suite,
        serial: r.get(at + 1)?,
        node_id: r.get(at + 2)?,
        outer: byte(r.get(at + 3)?),
        kind: r.get(at + 4)?,
        sequence: r.get(at + 5)?,
        equal: r.get(at + 6)?,
        codes: r.get(at + 7)?,
        content: r.get(at + 8)?,
    }))
}

/// A stranger that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownRow {
    /// Network.
    pub net: Net,
    /// Serial or DevEUI.
    pub serial: String,
    /// The gateway that heard it last.
    pub gateway: GatewayId,
    /// How it came.
    pub carrier: String,
    /// The first time.
    pub first: Millis,
    /// The last time.
    pub last: Millis,
    /// How often gateways reported it.
    pub reports: u64,
    /// Its last frame.
    pub frame: Vec<u8>,
}

/// Something that was kept and is no reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedRow {
    /// The first code that is against it.
    pub code: Code,
    /// Network.
    pub net: Net,
    /// Device.
    pub did: Did,
    /// The gateway that brought it.
    pub gateway: GatewayId,
    /// Its number: the sender's, or of classic frames the envelope's.
    pub number: u64,
    /// When it came here.
    pub at: Millis,
    /// What was inside.
    pub payload: Vec<u8>,
    /// What could be read, if it is a classic frame.
    pub classic: Option<ClassicRow>,
}

/// A value that a broker has not acknowledged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedRow {
    /// The row: in this order they are published.
    pub id: i64,
    /// Node id.
    pub id_wasp: String,
    /// Serial, as `sensorParser` has it.
    pub id_secret: String,
    /// Tag.
    pub sensor: String,
    /// Value.
    pub value: String,
    /// When a gateway received it.
    pub received: Millis,
    /// How it was proven.
    pub proven: Origin,
}

/// How far a broker has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The last row of values.
    pub value: i64,
    /// The last label that was raised after its values were published.
    pub raised: i64,
}

/// Writes what stands beside the ledger's row `reading`.
pub(super) fn put(tx: &Transaction<'_>, reading: i64, frame: &ClassicFrame) -> rusqlite::Result<()> {
    let row = frame.accepted.row();
    let is_reading = row.flags & (flag::QUARANTINED | flag::REFUSED) == 0;
    let is_held = is_reading && row.flags & flag::HELD != 0;
    let content = if is_held { put_by(frame) } else { frame.content.clone() };
    let codes: Vec<_> = frame.codes.iter().map(|c| c.as_str()).collect();
    tx.prepare_cached("INSERT INTO classic VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
        reading,
        frame.suite.as_str(),
        frame.serial,
        frame.node_id,
        frame.outer.map_or(-1, i64::from),
        frame.kind,
        frame.sequence,
        frame.equal,
        codes.join(" "),
        content
    ])?;
    if !is_reading || is_held {
        return Ok(());
    }
    let at = Shown { reading, did: frame.did, node_id: &frame.node_id, received: row.way.received };
    show(tx, &at, &frame.values, frame.for_cloud.as_deref())?;
    if let Some((number, glimpse)) = &frame.glimpse {
        tx.prepare_cached(
            "INSERT INTO classic_history VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (did, slot) DO UPDATE SET number = ?3, frame = ?4 WHERE ?3 > number",
        )?
        .execute(params![frame.did.0, int(number % FRAMES as u64), int(*number), glimpse.to_bytes()])?;
    }
    Ok(())
}

/// Whose values are shown, and of when.
struct Shown<'f> {
    reading: i64,
    did: Did,
    node_id: &'f str,
    received: Millis,
}

/// Shows what a reading says in people's own tables.
fn show(tx: &Transaction<'_>, at: &Shown<'_>, values: &[ValueRow], raw: Option<&[u8]>) -> rusqlite::Result<()> {
    let &Shown { reading, did, node_id, received } = at;
    let seconds = int(received.0 / 1000);
    let mut value = tx.prepare_cached(
        "INSERT INTO classic_value (reading, position, tag, value, timestamp) VALUES (?, ?, ?, ?, datetime(?, 'unixepoch'))",
    )?;
    let mut last = tx.prepare_cached(
        "INSERT INTO classic_last VALUES (?1, ?2, ?3, ?4, datetime(?5, 'unixepoch'))
         ON CONFLICT (did, tag) DO UPDATE SET node_id = excluded.node_id, value = excluded.value,
         timestamp = excluded.timestamp WHERE excluded.timestamp >= timestamp",
    )?;
    for (position, v) in (0i64..).zip(values) {
        value.execute(params![reading, position, v.tag, v.value, seconds])?;
        last.execute(params![did.0, v.tag, node_id, v.value, seconds])?;
    }
    if let Some(raw) = raw {
        tx.prepare_cached(
            "INSERT INTO classic_cloud (reading, timestamp, raw) VALUES (?, datetime(?, 'unixepoch'), ?)",
        )?
        .execute(params![reading, seconds, raw])?;
    }
    Ok(())
}

/// The content of a frame that is held (docs/protocol.md 8.4): what it would say, until [`release`] says it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBy {
    content: String,
    values: Vec<(String, String)>,
}

fn put_by(frame: &ClassicFrame) -> String {
    let values = frame.values.iter().map(|v| (v.tag.clone(), v.value.clone())).collect();
    serde_json::to_string(&PutBy { content: frame.content.clone(), values }).unwrap_or_default()
}

/// A frame that was held is a reading from now on, under the id `reading`.
pub(super) fn release(tx: &Transaction<'_>, reading: i64) -> rusqlite::Result<()> {
    let sql = "SELECT k.content, k.node_id, c.did, r.received, r.payload
               FROM classic k JOIN reading r ON r.id = k.reading JOIN context c ON c.id = r.ctx WHERE k.reading = ?";
    let mut query = tx.prepare_cached(sql)?;
    let row = |r: &Row<'_>| {
        Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, Did(r.get(2)?), r.get(3)?, r.get::<_, Vec<u8>>(4)?))
    };
    let Some((content, node_id, did, received, payload)) = query.query_row([reading], row).optional()? else {
        return Ok(());
    };
    let Ok(PutBy { content, values }) = serde_json::from_str(&content) else {
        return Err(rusqlite::Error::InvalidQuery);
    };
    tx.prepare_cached("UPDATE classic SET content = ?2 WHERE reading = ?1")?.execute(params![reading, content])?;
    let values: Vec<_> = values.into_iter().map(|(tag, value)| ValueRow { tag, value }).collect();
    let report = Report::parse(&payload).ok();
    let raw = report.map(|r| r.frame).filter(|frame| Sealed::parse(frame).is_ok_and(|s| s.peer == Peer::Cloud));
    let at = Shown { reading, did, node_id: &node_id, received: Millis(uint(received)) };
    show(tx, &at, &values, raw)
}

/// Takes note of a stranger.
pub(super) fn unknown(tx: &Transaction<'_>, u: &UnknownFrame) -> rusqlite::Result<()> {
    let known = tx
        .prepare_cached(
            "UPDATE classic_unknown SET gateway = ?3, carrier = ?4, last = ?5, reports = reports + 1, frame = ?6
             WHERE net = ?1 AND serial = ?2",
        )?
        .execute(params![u.net.0, u.serial, u.gateway.0, u.carrier.as_str(), int(u.at.0), u.frame])?;
    if known > 0 {
        return Ok(());
    }
    tx.prepare_cached(
        "DELETE FROM classic_unknown WHERE net = ?1 AND serial IN
         (SELECT serial FROM classic_unknown WHERE net = ?1 ORDER BY last DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute(params![u.net.0, (UNKNOWN - 1) as i64])?;
    tx.prepare_cached("INSERT INTO classic_unknown VALUES (?1, ?2, ?3, ?4, ?5, ?5, 1, ?6)")?.execute(params![
        u.net.0,
        u.serial,
        u.gateway.0,
        u.carrier.as_str(),
        int(u.at.0),
        u.frame
    ])?;
    Ok(())
}

fn uint(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// Labels whose values are published again at a time.
const RAISED: u32 = 16;

const PUBLISHED: &str = "v.id, k.node_id, upper(k.serial), v.tag, v.value, r.received, r.origin";

fn published_of(r: &Row<'_>) -> rusqlite::Result<PublishedRow> {
    let origin: u8 = r.get(6)?;
    let proven = [Origin::Legacy, Origin::Signed].into_iter().find(|o| super::read::origin_number(*o) == origin);
    Ok(PublishedRow {
        id: r.get(0)?,
        id_wasp: r.get(1)?,
        id_secret: r.get(2)?,
        sensor: r.get(3)?,
        value: r.get(4)?,
        received: Millis(uint(r.get(5)?)),
        proven: proven.unwrap_or(Origin::Plain),
    })
}

impl Reader {
    /// What is remembered of a classic device's frames, ascending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn classic_history(&self, did: Did) -> Result<Vec<(u64, Glimpse)>, StoreError> {
        let sql = "SELECT number, frame FROM classic_history WHERE did = ? ORDER BY number";
        self.all(sql, [did.0], |r| {
            let frame: Vec<u8> = r.get(1)?;
            Ok((uint(r.get(0)?), Glimpse::from_bytes(&frame).ok_or(rusqlite::Error::InvalidQuery)?))
        })
    }

    /// The row of a context for classic frames: of this device, in this run of a gateway.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn classic_context(&self, did: Did, boot: BootContext) -> Result<Option<ContextId>, StoreError> {
        let sql = "SELECT id FROM context WHERE did = ? AND level = 1 AND epoch = 0 AND bctx = ?";
        Ok(self.all(sql, params![did.0, boot.0], |r| Ok(ContextId(r.get(0)?)))?.pop())
    }

    /// Classic devices that speak and are not in the book, the latest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unknown(&self) -> Result<Vec<UnknownRow>, StoreError> {
        let sql = "SELECT net, serial, gateway, carrier, first, last, reports, frame FROM classic_unknown
                   ORDER BY last DESC, net, serial";
        self.all(sql, [], |r| {
            Ok(UnknownRow {
                net: Net(r.get(0)?),
                serial: r.get(1)?,
                gateway: GatewayId(r.get(2)?),
                carrier: r.get(3)?,
                first: Millis(uint(r.get(4)?)),
                last: Millis(uint(r.get(5)?)),
                reports: uint(r.get(6)?),
                frame: r.get(7)?,
            })
        })
    }

    /// Values after the last one that a broker has acknowledged, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn to_be_published(&self, limit: u32) -> Result<Vec<PublishedRow>, StoreError> {
        let sql = format!(
            "SELECT {PUBLISHED} FROM classic_value v JOIN classic k ON k.reading = v.reading JOIN reading r ON r.id = v.reading
             WHERE v.id > (SELECT id FROM meshlium_cursor) ORDER BY v.id LIMIT ?"
        );
        self.all(&sql, [limit], published_of)
    }

    /// Values that a broker has, of the next readings whose label was raised since; and what to write down once it has them again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn raised_to_be_published(&self) -> Result<(Vec<PublishedRow>, Published), StoreError> {
        // What is raised from now on is for the next time.
        let last = self.last_raised()?;
        let sql = format!(
            "SELECT {PUBLISHED}, a.id FROM raised a JOIN classic_value v ON v.reading = a.reading
             JOIN classic k ON k.reading = v.reading JOIN reading r ON r.id = v.reading
             WHERE v.id <= (SELECT id FROM meshlium_cursor) AND a.id IN
                 (SELECT n.id FROM raised n WHERE n.id > (SELECT raised FROM meshlium_cursor) AND n.id <= ?1
                  AND EXISTS (SELECT 1 FROM classic_value w WHERE w.reading = n.reading) ORDER BY n.id LIMIT ?2)
             ORDER BY a.id, v.id"
        );
        let rows = self.all(&sql, params![last, RAISED], |r| Ok((published_of(r)?, r.get::<_, i64>(7)?)))?;
        let newest = rows.last().map_or(last, |(_, id)| *id);
        let labels = rows.chunk_by(|(_, a), (_, b)| a == b).count();
        let raised = if labels < RAISED as usize { last } else { newest };
        Ok((rows.into_iter().map(|(row, _)| row).collect(), Published { value: 0, raised }))
    }

    /// The first reading with a value that a broker has not acknowledged.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn first_unpublished(&self) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT reading FROM classic_value WHERE id > (SELECT id FROM meshlium_cursor) ORDER BY id LIMIT 1";
        Ok(self.all(sql, [], |r| r.get(0))?.pop())
    }

    /// How far a broker has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn published(&self) -> Result<Published, StoreError> {
        let row = |r: &Row<'_>| Ok(Published { value: r.get(0)?, raised: r.get(1)? });
        Ok(self.all("SELECT id, raised FROM meshlium_cursor", [], row)?.pop().unwrap_or_default())
    }

    /// What was kept and is no reading, the latest first: classic frames, and messages of other devices.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn kept_aside(&self, limit: u32) -> Result<Vec<QuarantinedRow>, StoreError> {
        let frames = format!(
            "SELECT c.net, c.did, r.gateway, r.piv, r.ingested, r.payload, {COLUMNS}
             FROM classic k CROSS JOIN reading r ON r.id = k.reading JOIN context c ON c.id = r.ctx
             WHERE r.flags & {} <> 0 ORDER BY k.reading DESC LIMIT ?",
            flag::QUARANTINED
        );
        let row = |r: &Row<'_>, code: Code, classic| {
            Ok(QuarantinedRow {
                code,
                net: Net(r.get(0)?),
                did: Did(r.get(1)?),
                gateway: GatewayId(r.get(2)?),
                number: uint(r.get(3)?),
                at: Millis(uint(r.get(4)?)),
                payload: r.get(5)?,
                classic,
            })
        };
        let code = |text: &str| text.parse::<Code>().map_err(|_| rusqlite::Error::InvalidQuery);
        let mut all = self.all(&frames, [limit], |r| {
            let read = classic(r, 6)?.ok_or(rusqlite::Error::InvalidQuery)?;
            let first = code(read.codes.split(' ').next().unwrap_or_default())?;
            row(r, first, Some(read))
        })?;
        let messages = "SELECT c.net, c.did, q.gateway, q.piv, q.at, q.payload, q.code
                        FROM quarantine q JOIN context c ON c.id = q.ctx ORDER BY q.id DESC LIMIT ?";
        all.extend(self.all(messages, [limit], |r| row(r, code(&r.get::<_, String>(6)?)?, None))?);
        all.sort_by_key(|q| std::cmp::Reverse(q.at));
        all.truncate(limit as usize);
        Ok(all)
    }
}
