//! What a walk through a dump meets, and where it stands between two of them.

/// A value in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// No value.
    Null,
    /// A number, as it was written.
    Number(String),
    /// Text or bytes; which, only the reader knows.
    Text(Vec<u8>),
    /// So many bytes, which is more than what is kept.
    Long(u64),
    /// An expression, which nobody computes here.
    Expression,
}

/// Why something was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// A row has more or fewer values than its table has columns.
    Columns,
    /// The file ends in the middle of it.
    Cut,
    /// It is no row as `mysqldump` writes one.
    Malformed,
    /// No columns are named, and the table was not created before.
    NoColumns,
    /// It inserts something else than values.
    NotValues,
}

impl Skipped {
    /// One word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Columns => "column-count",
            Self::Cut => "cut",
            Self::Malformed => "malformed",
            Self::NoColumns => "columns-unknown",
            Self::NotValues => "no-values",
        }
    }
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Event<'d> {
    /// A row.
    Row(Row<'d>),
    /// Something that was meant to be one or more rows.
    Skipped {
        /// Why it is none.
        why: Skipped,
        /// Its table, as far as it is known.
        table: &'d str,
        /// The line where it begins.
        line: u64,
    },
    /// The end.
    End,
}

/// A row of a table.
#[derive(Debug)]
pub(crate) struct Row<'d> {
    /// The database that is in use there; empty if none was named.
    pub(crate) database: &'d str,
    /// The table.
    pub(crate) table: &'d str,
    /// Names of the columns, as many as there are values.
    pub(crate) columns: &'d [String],
    /// The values.
    pub(crate) values: &'d [Value],
    /// The line where it begins.
    pub(crate) line: u64,
    /// The character set that it is in (`SET NAMES`); empty if the dump does not say.
    pub(crate) names: &'d str,
    /// The time zone that its times are in (`SET TIME_ZONE`); empty if the dump does not say.
    pub(crate) time_zone: &'d str,
}

impl Row<'_> {
    /// What stands in a column; `None` where there is no such column. MySQL tells no case in their names.
    pub(crate) fn value(&self, column: &str) -> Option<&Value> {
        let at = self.columns.iter().position(|c| c.eq_ignore_ascii_case(column))?;
        self.values.get(at)
    }
}

/// An INSERT that is being read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Insert {
    /// The database that its table was named with.
    pub(crate) database: Option<String>,
    /// The table.
    pub(crate) table: String,
    /// Its columns, if they are known.
    pub(crate) columns: Option<Vec<String>>,
}

/// Where a walk stands: enough to go on there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Offset of the next byte.
    pub(crate) offset: u64,
    /// Its line.
    pub(crate) line: u64,
    /// What ends a statement.
    pub(crate) delimiter: Vec<u8>,
    /// Whether it stands in `/*! ... */`.
    pub(crate) conditional: bool,
    /// Whether a backslash escapes.
    pub(crate) backslash: bool,
    /// The database in use.
    pub(crate) database: String,
    /// Columns of the tables that were created so far.
    pub(crate) tables: Vec<(String, Vec<String>)>,
    /// The INSERT in the middle of which it stands.
    pub(crate) insert: Option<Insert>,
    /// See [`Row::names`].
    pub(crate) names: String,
    /// See [`Row::time_zone`].
    pub(crate) time_zone: String,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            offset: 0,
            line: 1,
            delimiter: b";".to_vec(),
            conditional: false,
            backslash: true,
            database: String::new(),
            tables: Vec::new(),
            insert: None,
            names: String::new(),
            time_zone: String::new(),
        }
    }
}
