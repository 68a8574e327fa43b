//! Explanations of refusals as a gateway and the cloud keep them: so many, for so long, and no payload.
//!
//! [`Refusal`] is of values that can hold none. What stands in the table is what a person reads, so that a row says the same
//! after an upgrade; what a code is about and what to do is not in it, for the program knows that.

use fivefold_core::error::Code;
use fivefold_core::id::{GatewayId, Net, Sid};
use fivefold_core::time::Millis;
use fivefold_core::why::{FrameId, Refusal};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

/// The table, made where it is missing.
pub const SCHEMA: &str = include_str!("why.sql");
/// Refusals of one code in one second that are kept: of a flood a sample.
pub const A_SECOND: u32 = 10;
/// Rows in one answer, at most.
pub const MOST: u32 = 1000;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Rows in all, about. Above that the code that has the most loses its oldest: a flood of one pushes out none of the
    /// others.
    pub rows: u32,
    /// Milliseconds.
    pub life: u64,
}

/// A refusal as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Which message, or which event: 16 hex digits.
    pub id: String,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// The code.
    pub code: String,
    /// Why, exactly.
    pub reason: String,
    /// What was expected.
    pub expected: String,
    /// What came.
    pub came: String,
    /// Network, 8 hex digits, where it is known.
    pub net: Option<String>,
    /// Gateway, where it is known.
    pub gateway: Option<String>,
    /// Short id of the sender, as far as it is known or claimed.
    pub sid: Option<String>,
}

/// Which refusals.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question {
    /// Of this message or event.
    pub id: Option<FrameId>,
    /// Under this code.
    pub code: Option<Code>,
    /// Of who has or claims this short id.
    pub sid: Option<Sid>,
    /// So many, the newest; at most [`MOST`].
    pub limit: u32,
}

/// Keeps refusals, within the bounds. Of one code in one second no more than [`A_SECOND`] stay.
///
/// # Errors
/// What SQLite says.
pub fn keep(db: &Connection, refusals: &[Refusal], now: Millis, bounds: &Bounds) -> rusqlite::Result<()> {
    if refusals.is_empty() {
        return Ok(());
    }
    // Rows are counted now and then: that takes longer the more there are.
    let step = i64::from((bounds.rows / 100).max(1));
    let mut look = false;
    {
        let mut known =
            db.prepare_cached("SELECT count(*) FROM why WHERE code = ?1 AND at >= ?2 AND at < ?2 + 1000")?;
        let mut insert = db.prepare_cached(
            "INSERT INTO why (id, at, code, reason, expected, came, net, gateway, sid)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for r in refusals {
            let second = int(r.at.0 - r.at.0 % 1000);
            let code = r.rejected.code.as_str();
            if known.query_row(params![code, second], |row| row.get::<_, u32>(0))? >= A_SECOND {
                continue;
            }
            insert.execute(params![
                r.id.0,
                int(r.at.0),
                code,
                r.rejected.reason,
                r.expected().to_string(),
                r.came().to_string(),
                r.net.map(|net| net.0),
                r.gateway.map(|gateway| gateway.0),
                r.sid.map(|sid| sid.0)
            ])?;
            look |= db.last_insert_rowid() % step == 0;
        }
    }
    db.prepare_cached("DELETE FROM why WHERE at < ?1")?.execute([int(now.0.saturating_sub(bounds.life))])?;
    while look {
        let rows: u32 = db.prepare_cached("SELECT count(*) FROM why")?.query_row([], |row| row.get(0))?;
        let over = rows.saturating_sub(bounds.rows);
        let gone = db
            .prepare_cached(
                "DELETE FROM why WHERE n IN (SELECT n FROM why WHERE code =
                     (SELECT code FROM why GROUP BY code ORDER BY count(*) DESC, code LIMIT 1) ORDER BY n LIMIT ?1)",
            )?
            .execute([over])?;
        look = gone > 0;
    }
    Ok(())
}

/// What was kept, the newest first.
///
/// # Errors
/// What SQLite says.
pub fn find(db: &Connection, question: &Question) -> rusqlite::Result<Vec<Kept>> {
    let made: bool = db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'why')")?
        .query_row([], |row| row.get(0))?;
    if !made {
        return Ok(Vec::new());
    }
    let mut query = db.prepare_cached(
        "SELECT id, at, code, reason, expected, came, net, gateway, sid FROM why
         WHERE (?1 IS NULL OR id = ?1) AND (?2 IS NULL OR code = ?2) AND (?3 IS NULL OR sid = ?3)
         ORDER BY n DESC LIMIT ?4",
    )?;
    let id = question.id.map(|id| id.0);
    let (code, sid) = (question.code.map(Code::as_str), question.sid.map(|sid| sid.0));
    query.query_map(params![id, code, sid, question.limit.min(MOST)], shown)?.collect()
}

fn shown(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let net: Option<u32> = row.get(6)?;
    let gateway: Option<u32> = row.get(7)?;
    let sid: Option<u16> = row.get(8)?;
    Ok(Kept {
        id: FrameId(row.get(0)?).to_string(),
        at_ms: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
        code: row.get(2)?,
        reason: row.get(3)?,
        expected: row.get(4)?,
        came: row.get(5)?,
        net: net.map(|net| Net(net).to_string()),
        gateway: gateway.map(|gateway| GatewayId(gateway).to_string()),
        sid: sid.map(|sid| Sid(sid).to_string()),
    })
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use fivefold_core::error::Rejected;
    use fivefold_core::why::{Detail, Value};

    use super::*;

    const BOUNDS: Bounds = Bounds { rows: 100, life: 60_000 };

    fn refusal(code: Code, n: u64, at: u64) -> Refusal {
        Refusal {
            id: FrameId(n.to_be_bytes()),
            at: Millis(at),
            rejected: Rejected::new(code, "for a test"),
            detail: Detail::new(Value::Above(41), Value::Number(n)),
            net: None,
            gateway: Some(GatewayId(3)),
            sid: Some(Sid(0x0a17)),
        }
    }

    fn table() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        db
    }

    fn all(db: &Connection, code: Code) -> Vec<Kept> {
        find(db, &Question { code: Some(code), limit: MOST, ..Question::default() }).unwrap()
    }

    #[test]
    fn a_refusal_is_found_by_its_id_its_code_and_its_sender() {
        let db = table();
        keep(&db, &[refusal(Code::LinkReplayed, 41, 5_000)], Millis(5_000), &BOUNDS).unwrap();
        let id = Some(FrameId(41u64.to_be_bytes()));
        for question in [
            Question { id, limit: 9, ..Question::default() },
            Question { code: Some(Code::LinkReplayed), limit: 9, ..Question::default() },
            Question { sid: Some(Sid(0x0a17)), limit: 9, ..Question::default() },
            Question { limit: 9, ..Question::default() },
        ] {
            let [kept] = &find(&db, &question).unwrap()[..] else { panic!("{question:?}") };
            assert_eq!((&*kept.id, &*kept.code, kept.sid.as_deref()), ("0000000000000029", "E1-06", Some("0a17")));
            assert_eq!(kept.expected, "a frame counter not used before: above 41");
            assert_eq!(kept.came, "an old one: 41");
        }
        assert!(find(&db, &Question { sid: Some(Sid(1)), limit: 9, ..Question::default() }).unwrap().is_empty());
        let before = Connection::open_in_memory().unwrap();
        assert!(find(&before, &Question { limit: 9, ..Question::default() }).unwrap().is_empty(), "an older store");
    }

    #[test]
    fn a_flood_keeps_a_sample_and_pushes_out_nothing_of_other_codes() {
        let db = table();
        keep(&db, &[refusal(Code::GatewayNonceReuse, 7, 1_000)], Millis(1_000), &BOUNDS).unwrap();
        for second in 1..30 {
            let flood: Vec<_> = (0..500).map(|n| refusal(Code::LinkForged, n, second * 1_000 + n)).collect();
            keep(&db, &flood, Millis(second * 1_000 + 999), &BOUNDS).unwrap();
        }
        let kept = all(&db, Code::LinkForged);
        assert_eq!(kept.len(), 99, "a hundred in all");
        assert!(kept.iter().all(|k| k.at_ms >= 20_000), "the newest of them");
        assert_eq!(kept.iter().filter(|k| k.at_ms / 1_000 == 29).count(), A_SECOND as usize);
        assert_eq!(all(&db, Code::GatewayNonceReuse).len(), 1);
    }

    #[test]
    fn what_is_older_than_its_time_is_gone() {
        let db = table();
        keep(&db, &[refusal(Code::LinkForged, 1, 1_000)], Millis(1_000), &BOUNDS).unwrap();
        keep(&db, &[refusal(Code::LinkReplayed, 2, 61_001)], Millis(61_001), &BOUNDS).unwrap();
        assert!(all(&db, Code::LinkForged).is_empty());
        assert_eq!(all(&db, Code::LinkReplayed).len(), 1);
    }
}
