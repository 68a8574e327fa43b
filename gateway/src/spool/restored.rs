//! A store that was put back from a copy (docs/protocol.md 8.4): what was said since the copy was made is forgotten, and
//! nothing of it is said again under the same number.
//!
//! - **Contexts.** None that there may have been at that time is answered under any more: not those of the copy, and not
//!   those that were pushed since, which the first state from the cloud has among its own. What comes after that state is new.
//!   Of a device of mode R, no boot is answered until it is enrolled again.
//! - **Frame counters.** The copy says how far they were when it was made. They go on above what the radio can have sent
//!   since, and so do those of keys that the copy does not know.
//! - **At a site without a cloud** nobody else would notice a recording: contexts that were agreed there are gone, and the
//!   windows of hardened nodes are closed, so that nothing is taken twice.

use std::path::Path;

use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::time::Millis;
use fivefold_waspmote::hardened::Window;
use rusqlite::{Connection, OptionalExtension as _, params};
use zeroize::Zeroizing;

use super::{Spool, SpoolError, VERSION, Wrap, WrapError};
use crate::gateway::ContextName;

/// Frames that a gateway sends in a second, at most: more than any of its radios can carry.
const FRAMES_A_SECOND: u64 = 1024;
/// The same for the moments around the copy, whose time is known to the second.
const MARGIN_S: u64 = 60;
/// Counters from here on are left to those that use a key until it is rotated.
const HIGHEST: u32 = 0xE000_0000;
/// Every number is taken, or below what the window remembers.
const CLOSED: [u8; Window::BYTES] = [0xff; Window::BYTES];

/// Whether somebody behind the gateway knows what was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// Nobody does.
    Alone,
    /// The cloud does.
    WithCloud,
}

/// What was done to a store that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutBack {
    /// Contexts of the copy that are not answered under any more.
    pub contexts: usize,
    /// Envelopes that wait.
    pub waiting: usize,
    /// From where on frame counters go on, under keys that the copy does not know.
    pub floor: u32,
}

/// Seals and opens nothing.
struct Nothing;

impl Wrap for Nothing {
    fn wrap(&self, name: &str, _: &[u8]) -> Result<Vec<u8>, WrapError> {
        Err(WrapError(format!("`{name}` is not sealed here")))
    }

    fn unwrap(&self, name: &str, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        Err(WrapError(format!("`{name}` is not opened here")))
    }
}

/// Marks a store as put back from a copy that was made `then`, in one transaction. A copy may be put back again.
///
/// # Errors
/// [`SpoolError::InUse`] while a gateway runs; [`SpoolError::TooOld`]: after more than forty days frame counters are used up.
pub fn restored(path: &Path, site: Site, then: Millis, now: Millis) -> Result<PutBack, SpoolError> {
    let too_old = |reason| SpoolError::TooOld { path: path.to_path_buf(), reason };
    if now < then {
        return Err(too_old("it is from the future"));
    }
    let ahead = (now.since(then) / 1000 + MARGIN_S) * FRAMES_A_SECOND;
    let used_up = || too_old("so many frame counters may have been used since that none is left");
    let ahead = u32::try_from(ahead).ok().filter(|a| *a < HIGHEST).ok_or_else(used_up)?;
    let spool = Spool::made(path, GatewayBoot([0; 8]), Box::new(Nothing))?;
    let fail = |e| spool.explain(&e);
    let tx = spool.db.unchecked_transaction().map_err(fail)?;
    let count = |sql: &str| tx.query_row(sql, [], |r| r.get::<_, i64>(0)).map(|n| n.unsigned_abs());
    let highest = count("SELECT COALESCE(MAX(bound), 0) FROM link_leases").map_err(fail)?;
    if highest + u64::from(ahead) > u64::from(HIGHEST) {
        return Err(used_up());
    }
    let floor = count("SELECT COALESCE(MAX(floor), 0) FROM put_back").map_err(fail)?;
    // A key that came since the copy may have been used from the floor of an earlier copy on.
    let floor = u32::try_from(floor + u64::from(ahead)).ok().filter(|f| *f < HIGHEST).ok_or_else(used_up)?;
    let run = |sql: &str, p: &[&dyn rusqlite::ToSql]| tx.execute(sql, p).map_err(fail);
    run("UPDATE link_leases SET bound = bound + ?1 WHERE LENGTH(name) = 8", params![ahead])?;
    run(
        "INSERT INTO contexts (context, bound) SELECT context, ?1 FROM numbers WHERE 1
         ON CONFLICT DO UPDATE SET bound = excluded.bound",
        params![NUMBER_LIMIT],
    )?;
    let contexts = run("UPDATE contexts SET bound = ?1", params![NUMBER_LIMIT])?;
    run("INSERT OR IGNORE INTO contexts (context, bound) SELECT family, ?1 FROM boots", params![NUMBER_LIMIT])?;
    if site == Site::Alone {
        run("DELETE FROM agreed", &[])?;
        run("UPDATE hardened SET window = ?1", params![CLOSED])?;
    }
    run("DELETE FROM put_back", &[])?;
    let at = i64::try_from(now.0).unwrap_or(i64::MAX);
    // Where nothing is pushed, everything is agreed anew, under other names.
    run("INSERT INTO put_back VALUES (?1, ?2, ?3)", params![at, floor, site == Site::WithCloud])?;
    let waiting = count("SELECT COUNT(*) FROM spool").map_err(fail)?;
    tx.pragma_update(None, "user_version", VERSION).map_err(fail)?;
    tx.commit().map_err(fail)?;
    Ok(PutBack { contexts, waiting: usize::try_from(waiting).unwrap_or(usize::MAX), floor })
}

/// From where on frame counters of a key go on that the store does not know.
pub(super) fn floor(db: &Connection) -> rusqlite::Result<u32> {
    let floor = db.query_row("SELECT floor FROM put_back", [], |r| r.get(0)).optional()?;
    Ok(floor.unwrap_or(0))
}

/// While it is not known what there was, what is asked for and not known counts as used up, and for ever.
pub(super) fn spend_unknown(db: &Connection, name: ContextName) -> rusqlite::Result<()> {
    let mut spend = db.prepare_cached(
        "INSERT INTO contexts (context, bound) SELECT ?1, ?2 FROM put_back WHERE is_open = 1 ON CONFLICT DO NOTHING",
    )?;
    spend.execute(params![name.0, NUMBER_LIMIT]).map(drop)
}
