//! Tokens for the cloud's API: who has one, what it is for, and until when.

use std::fmt;
use std::str::FromStr;

use fivefold_core::suite::sha256;
use rusqlite::{Connection, params};
use zeroize::Zeroizing;

use super::deeds::Done;
use super::{Registry, RegistryError, Result, hidden};
use crate::files::FileError;
use crate::vault::{VaultError, random};

/// Columns that books of before do not have. A token of before could do all that there was, and had no end: it goes on so.
const ADDED: [(&str, &str); 2] = [("scope", "TEXT NOT NULL DEFAULT 'operate'"), ("ends_at", "INTEGER")];

pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    for (column, kind) in ADDED {
        if !has_column(db, column)? {
            db.execute_batch(&format!("ALTER TABLE tokens ADD COLUMN {column} {kind}"))?;
        }
    }
    Ok(())
}

fn has_column(db: &Connection, column: &str) -> rusqlite::Result<bool> {
    let known = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('tokens') WHERE name = ?)";
    db.query_row(known, [column], |r| r.get(0))
}

/// What a token is for. Each does what those before it do, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Readings, devices, gateways, and what was refused how often.
    Read,
    /// And evidence, explanations, what is weak, and who has tokens.
    Audit,
    /// And what changes something: commands for devices, say.
    Operate,
    /// And who may do all this.
    Admin,
}

impl Scope {
    /// All, the least first.
    pub const ALL: [Self; 4] = [Self::Read, Self::Audit, Self::Operate, Self::Admin];

    /// In a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Audit => "audit",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    /// Whether a token of this scope does what needs `needed`.
    pub fn allows(self, needed: Self) -> bool {
        self >= needed
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is one of: read, audit, operate, admin")]
pub struct NoScope;

impl FromStr for Scope {
    type Err = NoScope;

    fn from_str(word: &str) -> std::result::Result<Self, NoScope> {
        Self::ALL.into_iter().find(|s| s.as_str() == word).ok_or(NoScope)
    }
}

/// A token, without what opens anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name.
    pub name: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// What it is for.
    pub scope: Scope,
    /// When it was made, Unix seconds.
    pub created_at: u64,
    /// From when on it is refused, Unix seconds; `None`: tokens of before there were ends.
    pub ends_at: Option<u64>,
    /// When it was revoked, Unix seconds.
    pub revoked_at: Option<u64>,
}

impl Token {
    /// Whether its end has come.
    pub fn has_ended(&self, now_unix_s: u64) -> bool {
        self.ends_at.is_some_and(|end| end <= now_unix_s)
    }
}

impl Registry {
    /// Makes a token for the API and returns it; only its hash is kept.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when the name is taken, or the end is past.
    pub fn add_token(&mut self, name: &str, scope: Scope, ends_at: u64, now_unix_s: u64) -> Result<Zeroizing<String>> {
        self.add_token_kept(name, scope, ends_at, now_unix_s, |_| Ok(()))
    }

    /// The same; `keep` puts it where it is to be first, for nobody can do so later.
    ///
    /// # Errors
    /// As there, and those of `keep`: then there is no such token.
    pub fn add_token_kept(
        &mut self,
        name: &str,
        scope: Scope,
        ends_at: u64,
        now_unix_s: u64,
        keep: impl FnOnce(&str) -> std::result::Result<(), FileError>,
    ) -> Result<Zeroizing<String>> {
        if ends_at <= now_unix_s {
            return Err(RegistryError::Refused("the end of the token is past; give a day to come".into()));
        }
        if self.tokens()?.iter().any(|t| t.name == name) {
            return Err(RegistryError::Refused(format!("a token called {name} exists already; choose another name")));
        }
        let token = Zeroizing::new(format!("ff_{}", hex::encode(random::<32>()?.as_slice())));
        keep(&token).map_err(VaultError::from)?;
        let hash = sha256(&[token.as_bytes()]);
        self.change(Done::new("token added", format_args!("token {name}, scope {scope}, ends at {ends_at}")), |tx| {
            tx.execute(
                "INSERT INTO tokens (name, hash, created_at, scope, ends_at) VALUES (?, ?, ?, ?, ?)",
                params![name, hash, now_unix_s as i64, scope.as_str(), ends_at as i64],
            )
        })?;
        Ok(token)
    }

    /// All tokens, by name.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn tokens(&self) -> Result<Vec<Token>> {
        let sql = "SELECT name, hash, created_at, revoked_at, scope, ends_at FROM tokens ORDER BY name";
        self.all(sql, |r| {
            let scope: String = r.get(4)?;
            Ok(Token {
                name: r.get(0)?,
                hash: r.get(1)?,
                created_at: hidden(r.get(2)?),
                revoked_at: r.get::<_, Option<i64>>(3)?.map(hidden),
                scope: scope.parse().map_err(|_| rusqlite::Error::InvalidQuery)?,
                ends_at: r.get::<_, Option<i64>>(5)?.map(hidden),
            })
        })
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn revoke_token(&mut self, name: &str, now_unix_s: u64) -> Result<()> {
        let sql = "UPDATE tokens SET revoked_at = coalesce(revoked_at, ?) WHERE name = ?";
        match self.change(Done::new("token revoked", format_args!("token {name}")), |tx| {
            tx.execute(sql, params![now_unix_s as i64, name])
        })? {
            0 => Err(RegistryError::Unknown { what: "token", name: name.to_owned() }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::By;
    use super::*;

    struct Book {
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Book {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("registry.db");
            Registry::create(&path, by()).unwrap();
            Self { path, _folder: folder }
        }

        fn open(&self) -> Registry {
            Registry::open(&self.path, by()).unwrap()
        }
    }

    fn by() -> By {
        By::new("anna", "pts/1", "token add", 1)
    }

    #[test]
    fn a_scope_does_what_those_before_it_do() {
        for (n, scope) in Scope::ALL.into_iter().enumerate() {
            let allowed = Scope::ALL.into_iter().filter(|needed| scope.allows(*needed)).count();
            assert_eq!((allowed, scope.as_str().parse()), (n + 1, Ok(scope)));
        }
        for none in ["", "Read", "all", "read "] {
            assert_eq!(none.parse::<Scope>(), Err(NoScope), "{none:?}");
        }
    }

    #[test]
    fn a_token_has_a_scope_and_an_end_and_the_operators_log_says_so() {
        let book = Book::new();
        let mut opened = book.open();
        let secret = opened.add_token("shop", Scope::Audit, 100, 8).unwrap();
        let token = opened.tokens().unwrap().remove(0);
        assert_eq!((token.scope, token.ends_at, token.revoked_at), (Scope::Audit, Some(100), None));
        assert_eq!([99, 100].map(|now| token.has_ended(now)), [false, true]);
        let line = opened.deeds(0, 9).unwrap().pop().unwrap();
        assert_eq!(line.about, "token shop, scope audit, ends at 100");
        assert!(!line.about.contains(secret.as_str()));
        for (name, ends_at, says) in [("shop", 100, "exists already"), ("late", 8, "is past")] {
            let refused = opened.add_token(name, Scope::Read, ends_at, 8).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
        assert_eq!(opened.tokens().unwrap().len(), 1);
    }

    #[test]
    fn tokens_of_a_book_of_before_go_on_without_an_end_whether_it_is_opened_for_changes_or_not() {
        let book = Book::new();
        let older = Connection::open(&book.path).unwrap();
        let sql =
            "ALTER TABLE tokens DROP COLUMN scope; ALTER TABLE tokens DROP COLUMN ends_at; PRAGMA user_version = 2;";
        older.execute_batch(sql).unwrap();
        older.execute("INSERT INTO tokens VALUES ('old', ?, 3, NULL)", [[7; 32]]).unwrap();
        drop(older);
        let expected = Token {
            name: "old".into(),
            hash: [7; 32],
            scope: Scope::Operate,
            created_at: 3,
            ends_at: None,
            revoked_at: None,
        };
        let read_only = Registry::open_read_only(&book.path).unwrap();
        assert_eq!(read_only.tokens().unwrap(), std::slice::from_ref(&expected));
        let mut opened = book.open();
        assert_eq!(opened.tokens().unwrap(), [expected]);
        opened.add_token("new", Scope::Read, 100, 8).unwrap();
        assert_eq!(book.open().tokens().unwrap().len(), 2);
    }
}
