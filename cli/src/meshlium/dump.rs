//! What `mysqldump` wrote, row by row: nothing of it is executed, and of any file no more is kept than one row, the columns of
//! its tables, and where it stands.
//!
//! Total: what is no row of a table is skipped up to the end of its statement, by name. A walk can stop after any event and go
//! on later at its [`Place`].

use std::io::{self, Read};

pub(crate) use super::event::{Event, Insert, Place, Row, Skipped, Value};
use super::lexer::{Lexer, Token};

/// Bytes of one value that are kept; a longer one is known by its length alone.
pub(crate) const LONGEST_VALUE: usize = 16 * 1024;
/// Bytes of one row that are kept, and values in it.
const LONGEST_ROW: usize = 1024 * 1024;
const MOST_VALUES: usize = 512;
/// Tables whose columns are remembered.
const MOST_TABLES: usize = 1024;

/// Walks through a dump.
pub(crate) struct Dump<R> {
    lexer: Lexer<R>,
    database: String,
    tables: Vec<(String, Vec<String>)>,
    insert: Option<Insert>,
    names: String,
    time_zone: String,
    /// What was read last.
    last: Token,
    /// Table of what was skipped last.
    skipped: String,
    // The row at hand: its values, how many it has, how many bytes of them are kept.
    values: Vec<Value>,
    count: usize,
    kept: usize,
}

/// The inner outcome, without borrows.
enum Step {
    End,
    Nothing,
    Row(u64),
    Skipped(Skipped, u64),
}

impl<R: Read> Dump<R> {
    /// Goes on at `place`, which is where `reader` stands.
    pub(crate) fn at(place: Place, reader: R) -> Self {
        let mut lexer = Lexer::new(reader, place.offset, place.line);
        lexer.delimiter = place.delimiter;
        lexer.conditional = place.conditional;
        lexer.backslash = place.backslash;
        Self {
            lexer,
            database: place.database,
            tables: place.tables,
            insert: place.insert,
            names: place.names,
            time_zone: place.time_zone,
            last: Token::Delimiter,
            skipped: String::new(),
            values: Vec::new(),
            count: 0,
            kept: 0,
        }
    }

    /// Where it stands, between two events.
    pub(crate) fn place(&self) -> Place {
        Place {
            offset: self.lexer.offset(),
            line: self.lexer.line(),
            delimiter: self.lexer.delimiter.clone(),
            conditional: self.lexer.conditional,
            backslash: self.lexer.backslash,
            database: self.database.clone(),
            tables: self.tables.clone(),
            insert: self.insert.clone(),
            names: self.names.clone(),
            time_zone: self.time_zone.clone(),
        }
    }

    /// How many bytes were read.
    pub(crate) const fn offset(&self) -> u64 {
        self.lexer.offset()
    }

    /// Whether it says that it is complete.
    pub(crate) const fn completed(&self) -> bool {
        self.lexer.completed
    }

    /// The next row, or what should have been one.
    ///
    /// # Errors
    /// Those of the reader.
    pub(crate) fn next(&mut self) -> io::Result<Event<'_>> {
        loop {
            let step = if self.insert.is_some() { self.tuple()? } else { self.statement()? };
            match step {
                Step::Nothing => {}
                Step::End => return Ok(Event::End),
                Step::Row(line) => {
                    let insert = self.insert.as_ref();
                    return Ok(Event::Row(Row {
                        database: insert.and_then(|i| i.database.as_deref()).unwrap_or(&self.database),
                        table: insert.map_or("", |i| &i.table),
                        columns: insert.and_then(|i| i.columns.as_deref()).unwrap_or_default(),
                        values: &self.values,
                        line,
                        names: &self.names,
                        time_zone: &self.time_zone,
                    }));
                }
                Step::Skipped(why, line) => {
                    self.skipped.clear();
                    if let Some(insert) = &self.insert {
                        self.skipped.clone_from(&insert.table);
                    }
                    // One row alone is wrong where its end was found.
                    if !matches!(why, Skipped::Columns | Skipped::NoColumns) {
                        self.insert = None;
                        self.rest()?;
                    }
                    return Ok(Event::Skipped { why, table: &self.skipped, line });
                }
            }
        }
    }

    fn token(&mut self) -> io::Result<Token> {
        self.lexer.keep = LONGEST_VALUE;
        self.last = self.lexer.next()?;
        Ok(self.last)
    }

    /// Skips the rest of a statement, if it was not read to its end.
    fn rest(&mut self) -> io::Result<()> {
        while !self.last.ends() {
            self.token()?;
        }
        Ok(())
    }

    /// The name that was just read, if it is one.
    fn name(&self, token: Token) -> Option<String> {
        matches!(token, Token::Name | Token::Word | Token::Text)
            .then(|| String::from_utf8_lossy(&self.lexer.text).chars().take(64).collect())
    }

    fn statement(&mut self) -> io::Result<Step> {
        match self.token()? {
            Token::End => return Ok(Step::End),
            Token::Word => {}
            _ => return self.rest().map(|()| Step::Nothing),
        }
        let line = self.lexer.line();
        if self.lexer.is("delimiter") {
            self.lexer.take_delimiter()?;
            return Ok(Step::Nothing);
        }
        if self.lexer.is("insert") || self.lexer.is("replace") {
            return Ok(match self.start_insert()? {
                None => Step::Nothing,
                Some(_) if matches!(self.last, Token::End | Token::Unclosed) => Step::Skipped(Skipped::Cut, line),
                Some(why) => Step::Skipped(why, line),
            });
        }
        if self.lexer.is("create") {
            self.create()?;
        } else if self.lexer.is("set") {
            self.set()?;
        } else if self.lexer.is("use") {
            let token = self.token()?;
            if let Some(name) = self.name(token) {
                self.database = name;
            }
        }
        self.rest()?;
        Ok(Step::Nothing)
    }

    /// A name, with a database in front of it or without.
    fn full_name(&mut self, mut token: Token) -> io::Result<Option<(Option<String>, String)>> {
        let Some(name) = self.name(token) else { return Ok(None) };
        if self.token()? != Token::Sign(b'.') {
            return Ok(Some((None, name)));
        }
        token = self.token()?;
        let full = self.name(token).map(|table| (Some(name), table));
        self.token()?;
        Ok(full)
    }

    /// `INSERT [IGNORE] [INTO] table [(columns)] VALUES`, or why it is none.
    fn start_insert(&mut self) -> io::Result<Option<Skipped>> {
        let mut token = self.token()?;
        while token == Token::Word
            && ["into", "ignore", "delayed", "low_priority", "high_priority"].iter().any(|w| self.lexer.is(w))
        {
            token = self.token()?;
        }
        let Some((database, table)) = self.full_name(token)? else { return Ok(Some(Skipped::Malformed)) };
        let mut columns = self.tables.iter().find(|(known, _)| *known == table).map(|(_, c)| c.clone());
        let mut named = Vec::new();
        if self.last == Token::Sign(b'(') {
            loop {
                token = self.token()?;
                match (token, self.name(token)) {
                    (Token::Sign(b')'), _) => break,
                    (Token::Sign(b','), _) => {}
                    (_, Some(name)) if named.len() < MOST_VALUES => named.push(name),
                    _ => {
                        self.insert = Some(Insert { database, table, columns: None });
                        return Ok(Some(Skipped::Malformed));
                    }
                }
            }
            columns = Some(named);
            self.token()?;
        }
        self.insert = Some(Insert { database, table, columns });
        let values = self.last == Token::Word && (self.lexer.is("values") || self.lexer.is("value"));
        Ok((!values).then_some(Skipped::NotValues))
    }

    /// The next tuple of an INSERT.
    fn tuple(&mut self) -> io::Result<Step> {
        let mut token = self.token()?;
        if token == Token::Sign(b',') {
            token = self.token()?;
        }
        let line = self.lexer.line();
        match token {
            Token::Sign(b'(') => {}
            Token::Delimiter => {
                self.insert = None;
                return Ok(Step::Nothing);
            }
            Token::End | Token::Unclosed => return Ok(Step::Skipped(Skipped::Cut, line)),
            // ON DUPLICATE KEY UPDATE, AS alias: no more rows.
            Token::Word => {
                self.insert = None;
                self.rest()?;
                return Ok(Step::Nothing);
            }
            _ => return Ok(Step::Skipped(Skipped::Malformed, line)),
        }
        self.values.clear();
        (self.count, self.kept) = (0, 0);
        loop {
            match self.one_value()? {
                Ok(Token::Sign(b',')) => {}
                Ok(_) => break,
                Err(why) => return Ok(Step::Skipped(why, line)),
            }
        }
        let columns = self.insert.as_ref().and_then(|i| i.columns.as_ref());
        Ok(match columns {
            None => Step::Skipped(Skipped::NoColumns, line),
            Some(columns) if columns.len() != self.count || self.values.len() != self.count => {
                Step::Skipped(Skipped::Columns, line)
            }
            Some(_) => Step::Row(line),
        })
    }

    /// One value, and what stands after it: a comma or the end of the row.
    fn one_value(&mut self) -> io::Result<Result<Token, Skipped>> {
        let mut token = self.token()?;
        if token == Token::Sign(b')') && self.count == 0 {
            return Ok(Ok(token));
        }
        let minus = token == Token::Sign(b'-');
        if minus || token == Token::Sign(b'+') {
            token = self.token()?;
            if token != Token::Number {
                return self.expression(token);
            }
        }
        // `_utf8'...'`: which character set a text is in.
        if token == Token::Word && self.lexer.text.first() == Some(&b'_') {
            token = self.token()?;
            if !matches!(token, Token::Text | Token::Hex) {
                return self.expression(token);
            }
        }
        let mut value = match token {
            Token::Word if self.lexer.is("null") => Value::Null,
            Token::Word if self.lexer.is("true") => Value::Number("1".into()),
            Token::Word if self.lexer.is("false") => Value::Number("0".into()),
            Token::Number => {
                let digits = String::from_utf8_lossy(&self.lexer.text).into_owned();
                Value::Number(if minus { format!("-{digits}") } else { digits })
            }
            Token::Text | Token::Hex if self.lexer.length > self.lexer.text.len() as u64 => {
                Value::Long(self.lexer.length)
            }
            Token::Text | Token::Hex => Value::Text(std::mem::take(&mut self.lexer.text)),
            Token::End | Token::Unclosed => return Ok(Err(Skipped::Cut)),
            Token::BadDigits | Token::Delimiter => return Ok(Err(Skipped::Malformed)),
            Token::Name | Token::Word | Token::Sign(_) => return self.expression(token),
        };
        loop {
            token = self.token()?;
            match (token, &mut value) {
                (Token::Sign(b',' | b')'), _) => break,
                // Texts beside one another are one text.
                (Token::Text, Value::Text(text)) if text.len() as u64 + self.lexer.length <= LONGEST_VALUE as u64 => {
                    text.extend_from_slice(&self.lexer.text);
                }
                (Token::Text, Value::Text(text)) => value = Value::Long(text.len() as u64 + self.lexer.length),
                (Token::Text, Value::Long(length)) => *length += self.lexer.length,
                (Token::End | Token::Unclosed, _) => return Ok(Err(Skipped::Cut)),
                (Token::Delimiter, _) => return Ok(Err(Skipped::Malformed)),
                _ => return self.expression(token),
            }
        }
        self.push(value);
        Ok(Ok(token))
    }

    /// Skips an expression, of which `token` was read.
    fn expression(&mut self, mut token: Token) -> io::Result<Result<Token, Skipped>> {
        let mut depth = 0u64;
        loop {
            match token {
                Token::Sign(b'(') => depth += 1,
                Token::Sign(b')') if depth > 0 => depth -= 1,
                Token::Sign(b',' | b')') if depth == 0 => {
                    self.push(Value::Expression);
                    return Ok(Ok(token));
                }
                Token::End | Token::Unclosed => return Ok(Err(Skipped::Cut)),
                Token::Delimiter => return Ok(Err(Skipped::Malformed)),
                _ => {}
            }
            token = self.token()?;
        }
    }

    fn push(&mut self, value: Value) {
        self.count += 1;
        let size = match &value {
            Value::Text(text) => text.len(),
            Value::Number(text) => text.len(),
            _ => 0,
        };
        let value = if self.kept + size > LONGEST_ROW { Value::Long(size as u64) } else { value };
        self.kept = (self.kept + size).min(LONGEST_ROW);
        if self.values.len() < MOST_VALUES {
            self.values.push(value);
        }
    }

    /// `CREATE TABLE name (...)`: which columns there are, in their order.
    fn create(&mut self) -> io::Result<()> {
        let mut token = self.token()?;
        while token == Token::Word && ["or", "replace", "temporary"].iter().any(|w| self.lexer.is(w)) {
            token = self.token()?;
        }
        if token != Token::Word || !self.lexer.is("table") {
            return Ok(());
        }
        token = self.token()?;
        while token == Token::Word && ["if", "not", "exists"].iter().any(|w| self.lexer.is(w)) {
            token = self.token()?;
        }
        let Some((_, table)) = self.full_name(token)? else { return Ok(()) };
        if self.last != Token::Sign(b'(') {
            return Ok(());
        }
        let (mut columns, mut depth, mut fresh) = (Vec::new(), 1u64, true);
        while depth > 0 {
            token = self.token()?;
            match token {
                Token::Sign(b'(') => depth += 1,
                Token::Sign(b')') => depth -= 1,
                Token::Sign(b',') if depth == 1 => {
                    fresh = true;
                    continue;
                }
                _ if token.ends() => return Ok(()),
                Token::Name | Token::Word | Token::Text if fresh => {
                    let clause = token == Token::Word && CLAUSES.iter().any(|w| self.lexer.is(w));
                    if let Some(name) = self.name(token).filter(|_| !clause && columns.len() < MOST_VALUES) {
                        columns.push(name);
                    }
                }
                _ => {}
            }
            fresh = false;
        }
        self.tables.retain(|(known, _)| *known != table);
        if self.tables.len() < MOST_TABLES {
            self.tables.push((table, columns));
        }
        Ok(())
    }

    /// `SET NAMES`, `SET TIME_ZONE = '..'`, `SET SQL_MODE = '..'`.
    fn set(&mut self) -> io::Result<()> {
        let mut subject = String::new();
        loop {
            let token = self.token()?;
            match token {
                _ if token.ends() => return Ok(()),
                Token::Sign(b'=' | b':') => {}
                Token::Sign(_) => subject.clear(),
                Token::Word if subject != "names" => {
                    let word = String::from_utf8_lossy(&self.lexer.text).to_ascii_lowercase();
                    subject = word.trim_start_matches("@@").to_owned();
                }
                Token::Word | Token::Text | Token::Number => {
                    let said: String = String::from_utf8_lossy(&self.lexer.text).chars().take(64).collect();
                    match subject.as_str() {
                        "names" => self.names = said.to_ascii_lowercase(),
                        "time_zone" => self.time_zone = said,
                        "sql_mode" => self.lexer.backslash = !said.to_ascii_uppercase().contains("NO_BACKSLASH"),
                        _ => {}
                    }
                    subject.clear();
                }
                _ => {}
            }
        }
    }
}

/// Words that begin something else than a column.
const CLAUSES: [&str; 10] =
    ["primary", "key", "unique", "index", "fulltext", "spatial", "constraint", "check", "foreign", "period"];
