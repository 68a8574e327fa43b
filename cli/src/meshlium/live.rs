//! The database of a Meshlium that runs: read only, by a cursor of our own. `sync` and everything else stays as it is.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use fivefold_core::suite::sha256;
use fivefold_keep::files;
use mysql::prelude::Queryable as _;
use mysql::{Conn, OptsBuilder};
use reqwest::Url;

use super::dump::{Row, Value};

/// Bytes of one answer of the server, at most.
const LARGEST_PACKET: usize = 4 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// SHA-256 of the password that the database's login `root` has on every unit as it was shipped (W14, W16.15). To know it again
/// it need not stand here.
const SHIPPED: &str = "ba95f6916ce09b5191b7dad15bf80209772ad3be2f3f1e9fe3956b6e82f9fd60";

/// Which live database, and how to reach it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Where {
    /// File with the password for it, which nobody but you can read.
    #[arg(long, value_name = "FILE")]
    password_file: Option<std::path::PathBuf>,
    /// Reach the database over TCP without encryption: whoever is on the way reads all of it, keys among it.
    #[arg(long)]
    insecure_plain_tcp: bool,
}

/// A connection.
pub(crate) struct Live {
    conn: Conn,
    /// Whether the login is the one that every Meshlium was shipped with.
    pub(crate) has_shipped_login: bool,
}

/// A row that was read.
pub(crate) struct Fetched {
    columns: Vec<String>,
    values: Vec<Value>,
}

impl Fetched {
    /// As a row of that table.
    pub(crate) fn row<'r>(&'r self, table: &'r str) -> Row<'r> {
        Row { database: "", table, columns: &self.columns, values: &self.values, line: 0, names: "", time_zone: "" }
    }
}

impl Live {
    /// Connects to `url`.
    ///
    /// # Errors
    /// The URL is none, the way is not allowed, or the server refuses.
    pub(crate) fn connect(url: &str, place: &Where) -> anyhow::Result<Self> {
        let (options, is_root) = options(url, place)?;
        let password = match &place.password_file {
            Some(file) => files::read_private(file)?,
            None => Default::default(),
        };
        let password =
            std::str::from_utf8(&password).context("the password is not UTF-8")?.trim_end_matches(['\r', '\n']);
        let shipped = hex::decode(SHIPPED).unwrap_or_default();
        let has_shipped_login = is_root && verify_slices_are_equal(&sha256(&[password.as_bytes()]), &shipped).is_ok();
        let options = options.pass(Some(password));
        let mut conn = Conn::new(options).map_err(|e| anyhow::anyhow!("the database of the Meshlium: {e}"))?;
        // For this connection alone: TIMESTAMP columns come in UTC, as in a dump.
        conn.query_drop("SET time_zone = '+00:00'").context("the database does not take a time zone")?;
        Ok(Self { conn, has_shipped_login })
    }

    /// Says so where the login is the one that everybody knows.
    pub(crate) fn warn(&self) {
        if self.has_shipped_login {
            eprintln!(
                "fivefold: this database is open to everybody: it takes the password that root had on every Meshlium as it \
                 was shipped (W16.15). Whoever reaches it has all keys; change it, and let the nodes have new ones."
            );
        }
    }

    /// Rows of a table with an id above `after`, in its order, at most `limit`.
    ///
    /// # Errors
    /// The server fails.
    pub(crate) fn after(&mut self, table: &'static str, after: i64, limit: usize) -> anyhow::Result<Vec<Fetched>> {
        self.select(&format!("SELECT * FROM `{table}` WHERE id > {after} ORDER BY id LIMIT {limit}"))
    }

    /// A whole table, which is small; nothing where there is no such table.
    ///
    /// # Errors
    /// The server fails.
    pub(crate) fn all(&mut self, table: &'static str, limit: usize) -> anyhow::Result<Vec<Fetched>> {
        if self.has(table)? { self.select(&format!("SELECT * FROM `{table}` LIMIT {limit}")) } else { Ok(Vec::new()) }
    }

    /// Whether there is such a table that may be read.
    ///
    /// # Errors
    /// The server fails.
    pub(crate) fn has(&mut self, table: &'static str) -> anyhow::Result<bool> {
        let found: Option<String> = self.conn.query_first(format!("SHOW TABLES LIKE '{table}'"))?;
        Ok(found.is_some())
    }

    /// The highest id of a table; `None` if it is empty.
    ///
    /// # Errors
    /// The server fails.
    pub(crate) fn highest(&mut self, table: &'static str) -> anyhow::Result<Option<i64>> {
        let highest: Option<Option<i64>> = self.conn.query_first(format!("SELECT MAX(id) FROM `{table}`"))?;
        Ok(highest.flatten())
    }

    fn select(&mut self, sql: &str) -> anyhow::Result<Vec<Fetched>> {
        let rows: Vec<mysql::Row> = self.conn.query(sql).context("the database of the Meshlium")?;
        Ok(rows.into_iter().map(fetched).collect())
    }
}

fn fetched(row: mysql::Row) -> Fetched {
    let columns = row.columns_ref().iter().map(|c| c.name_str().into_owned()).collect();
    let values = row.unwrap_raw().into_iter().map(|value| match value {
        None | Some(mysql::Value::NULL) => Value::Null,
        Some(mysql::Value::Bytes(bytes)) if bytes.len() > super::dump::LONGEST_VALUE => Value::Long(bytes.len() as u64),
        Some(mysql::Value::Bytes(bytes)) => Value::Text(bytes),
        Some(mysql::Value::Int(n)) => Value::Number(n.to_string()),
        Some(mysql::Value::UInt(n)) => Value::Number(n.to_string()),
        // In text the server sends nothing else.
        Some(_) => Value::Expression,
    });
    Fetched { values: values.collect(), columns }
}

/// How to connect, and whether as `root`.
fn options(url: &str, place: &Where) -> anyhow::Result<(OptsBuilder, bool)> {
    let example = "mysql://fivefold@localhost/MeshliumDB?socket=/run/meshlium.sock";
    let parsed = Url::parse(url).ok().filter(|u| u.scheme() == "mysql");
    let url = parsed.with_context(|| format!("this is no URL of a database; expected one such as {example}"))?;
    anyhow::ensure!(
        url.password().is_none(),
        "a password in a URL is seen by everybody on this machine: write it to a file of mode 0600, and name that with --password-file"
    );
    anyhow::ensure!(!url.username().is_empty(), "the URL names no login; expected one such as {example}");
    let mut socket = None;
    for (key, value) in url.query_pairs() {
        anyhow::ensure!(key == "socket", "`{key}` in the URL is not known; there is socket=PATH");
        socket = Some(value.into_owned());
    }
    anyhow::ensure!(
        socket.is_some() || place.insecure_plain_tcp,
        "over TCP everybody on the way reads the database; reach it by a socket ({example}, carried here by: ssh -L \
         /run/meshlium.sock:/var/run/mysqld/mysqld.sock), or say --insecure-plain-tcp"
    );
    if let Some(socket) = &socket {
        anyhow::ensure!(Path::new(socket).exists(), "there is no socket {socket}");
    }
    let database = Some(url.path().trim_matches('/')).filter(|d| !d.is_empty()).unwrap_or("MeshliumDB").to_owned();
    let user = url.username().to_owned();
    let is_root = user == "root";
    let options = OptsBuilder::new()
        .user(Some(user))
        .db_name(Some(database))
        .ip_or_hostname(url.host_str().map(str::to_owned))
        .tcp_port(url.port().unwrap_or(3306))
        .socket(socket)
        .prefer_socket(false)
        .tcp_connect_timeout(Some(PATIENCE))
        .read_timeout(Some(PATIENCE))
        .write_timeout(Some(PATIENCE))
        .max_allowed_packet(Some(LARGEST_PACKET))
        .stmt_cache_size(0);
    Ok((options, is_root))
}
