//! When tokens of the API were used last: here and not in the book, which would have a new version each time.

use std::path::Path;
use std::time::Duration;

use fivefold_core::time::Millis;
use rusqlite::{Connection, OpenFlags, Row, Transaction, params};

use super::read::uint;
use super::write::int;
use super::{Reader, StoreError};

/// That a token was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// When.
    pub at: Millis,
    /// From which address.
    pub place: String,
}

const SELECT: &str = "SELECT hash, at, place FROM token_use";

fn use_of(r: &Row<'_>) -> rusqlite::Result<TokenUse> {
    Ok(TokenUse { hash: r.get(0)?, at: Millis(uint(r.get(1)?)), place: r.get(2)? })
}

pub(super) fn put(tx: &Transaction<'_>, token_use: &TokenUse) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO token_use VALUES (?1, ?2, ?3) ON CONFLICT (hash) DO UPDATE SET at = ?2, place = ?3",
    )?
    .execute(params![token_use.hash, int(token_use.at.0), token_use.place])?;
    Ok(())
}

impl Reader {
    /// When each token was used last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn token_uses(&self) -> Result<Vec<TokenUse>, StoreError> {
        self.all(SELECT, [], use_of)
    }
}

/// The same of a store that a cloud may be using; nothing of one that an earlier version made.
///
/// # Errors
/// [`StoreError`].
pub fn token_uses(path: &Path) -> Result<Vec<TokenUse>, StoreError> {
    let read = || {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        db.busy_timeout(Duration::from_secs(10))?;
        let known = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'token_use')";
        if !db.query_row(known, [], |r| r.get::<_, bool>(0))? {
            return Ok(Vec::new());
        }
        db.prepare(SELECT)?.query_map([], use_of)?.collect()
    };
    read().map_err(|e| StoreError::of(path, e))
}
