//! Tests of the walk through a dump.

use std::io::Read;

use super::dump::{Dump, Event, LONGEST_VALUE, Place, Value};

const EARLY: &str = "-- MySQL dump 10.11\n--\n-- Host: localhost    Database: MeshliumDB\n\
/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;\n/*!40101 SET NAMES utf8 */;\n\
/*!40103 SET @OLD_TIME_ZONE=@@TIME_ZONE */;\n/*!40103 SET TIME_ZONE='+00:00' */;\n\
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n\
CREATE DATABASE /*!32312 IF NOT EXISTS*/ `MeshliumDB` /*!40100 DEFAULT CHARACTER SET latin1 */;\n\nUSE `MeshliumDB`;\n\
DROP TABLE IF EXISTS `sensorParser`;\nSET @saved_cs_client     = @@character_set_client;\nSET character_set_client = utf8;\n\
CREATE TABLE `sensorParser` (\n  `id` int(11) NOT NULL auto_increment,\n  `id_wasp` VARCHAR(10) NOT NULL,\n\
  `id_secret` text character set utf8 collate utf8_unicode_ci,\n  `value` enum('a,b)','c') default NULL,\n\
  `timestamp` timestamp NOT NULL default CURRENT_TIMESTAMP,\n  PRIMARY KEY  (`id`),\n  KEY `w` (`id_wasp`,`id`)\n\
) ENGINE=MyISAM AUTO_INCREMENT=78053 DEFAULT CHARSET=latin1;\nLOCK TABLES `sensorParser` WRITE;\n\
/*!40000 ALTER TABLE `sensorParser` DISABLE KEYS */;\n\
INSERT INTO `sensorParser` VALUES (1,'node_1',NULL,'it''s \\'so\\'; \\\\','2014-06-16 07:23:40'),(2,'n\\n',_utf8'0x',-3.5e2,0x4D4e);\n\
/*!40000 ALTER TABLE `sensorParser` ENABLE KEYS */;\nUNLOCK TABLES;\n\
/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;\n\n-- Dump completed on 2014-06-16\n";

/// Everything that comes, in words.
fn walk(place: Place, reader: impl Read) -> Vec<String> {
    let mut dump = Dump::at(place, reader);
    std::iter::from_fn(|| one(&mut dump)).collect()
}

fn one<R: Read>(dump: &mut Dump<R>) -> Option<String> {
    Some(match dump.next().unwrap() {
        Event::End => return None,
        Event::Skipped { why, table, line } => format!("{line}: {table}: {}", why.as_str()),
        Event::Row(row) => {
            let values: Vec<String> =
                row.columns.iter().zip(row.values).map(|(c, v)| format!("{c}={}", word(v))).collect();
            format!("{}: {}.{} {}", row.line, row.database, row.table, values.join(" "))
        }
    })
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Number(n) => n.clone(),
        Value::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        Value::Long(n) => format!("long {n}"),
        Value::Expression => "expression".into(),
    }
}

fn rows(text: &str) -> Vec<String> {
    walk(Place::default(), text.as_bytes())
}

/// Gives a few bytes at a time.
struct Drip<'b>(&'b [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.1.min(out.len()).min(self.0.len());
        out[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

#[test]
fn an_early_dump_without_column_lists_is_read_by_its_create_table() {
    let expected = [
        r#"26: MeshliumDB.sensorParser id=1 id_wasp="node_1" id_secret=NULL value="it's 'so'; \\" timestamp="2014-06-16 07:23:40""#,
        r#"26: MeshliumDB.sensorParser id=2 id_wasp="n\n" id_secret="0x" value=-3.5e2 timestamp="MN""#,
    ];
    assert_eq!(rows(EARLY), expected);
    let mut dump = Dump::at(Place::default(), EARLY.as_bytes());
    while one(&mut dump).is_some() {}
    let place = dump.place();
    assert_eq!((&*place.names, &*place.time_zone, dump.completed()), ("utf8", "+00:00", true));
    let windows = rows(&EARLY.replace('\n', "\r\n"));
    assert_eq!(windows, expected, "with line ends of Windows");
}

#[test]
fn column_lists_and_other_spellings_of_an_insert_are_read() {
    let expected = |c: &str| [format!("1: .t {c}=1"), format!("1: .t {c}=2")];
    assert_eq!(rows("INSERT INTO t (a) VALUES (1),(2);"), expected("a"));
    assert_eq!(rows("insert ignore into \"t\" (`a`) values (1) , (2);"), expected("a"));
    assert_eq!(rows("REPLACE INTO `t`(`a``b`)VALUE(1),(2) ON DUPLICATE KEY UPDATE a='(3)';"), expected("a`b"));
    assert_eq!(rows("INSERT DELAYED t (a) VALUES (1)/* , (9) */,(2) -- , (9)\n;"), expected("a"));
    assert_eq!(
        rows("INSERT INTO d.t (a) VALUES (1)"),
        ["1: d.t a=1", "1: t: cut"],
        "no delimiter: more may be missing"
    );
    let others =
        "INSERT INTO t (a,b,c,d,e) VALUES (x'4d', 'a' 'b', now(1,2), TRUE, X''), (b'01001101', n'x', -1, +.5, ());";
    assert_eq!(
        rows(others),
        [r#"1: .t a="M" b="ab" c=expression d=1 e="""#, r#"1: .t a="M" b="x" c=-1 d=.5 e=expression"#]
    );
}

#[test]
fn a_text_that_looks_like_sql_stays_a_text() {
    let evil = r"INSERT INTO t (a) VALUES ('\'); INSERT INTO encryptionData (k) VALUES (\'x\'); -- '),('/*'),('*/ DELIMITER //');";
    assert_eq!(
        rows(evil),
        [
            r#"1: .t a="'); INSERT INTO encryptionData (k) VALUES ('x'); -- ""#,
            r#"1: .t a="/*""#,
            r#"1: .t a="*/ DELIMITER //""#
        ]
    );
    // Where the dump says that a backslash is nothing special, it is not.
    let plain = r"SET SQL_MODE='NO_BACKSLASH_ESCAPES'; INSERT INTO t (a) VALUES ('c:\'),('d');";
    assert_eq!(rows(plain), [r#"1: .t a="c:\\""#, r#"1: .t a="d""#]);
}

#[test]
fn bodies_of_triggers_are_no_rows() {
    let dump = "DELIMITER ;;\n/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ /*!50003 TRIGGER t BEFORE INSERT ON s\n\
                FOR EACH ROW BEGIN INSERT INTO t (a) VALUES (1); SET NEW.b = ';;'; END */;;\nDELIMITER ;\n\
                INSERT INTO t (a) VALUES (2);\n/*M!999999\\- enable the sandbox mode; INSERT INTO t (a) VALUES (3); */\n";
    assert_eq!(rows(dump), ["5: .t a=2"]);
}

#[test]
fn what_is_no_row_is_named_and_the_walk_goes_on() {
    let dump = "INSERT INTO u VALUES (1);\nINSERT INTO t (a,b) VALUES (1),(1,2),(3,4,5);\nINSERT INTO t SELECT * FROM u;\n\
                INSERT INTO t (a) VALUES (1;\nINSERT INTO t (a) VALUES (0x1),(x'1'),(1);\nINSERT;\nINSERT INTO t;\nx'\n;' ; INSERT \
                INTO t (a) VALUES ('end";
    assert_eq!(
        rows(dump),
        [
            "1: u: columns-unknown",
            "2: t: column-count",
            "2: .t a=1 b=2",
            "2: t: column-count",
            "3: t: no-values",
            "4: t: malformed",
            r#"5: .t a="\u{1}""#,
            "5: t: malformed",
            "6: : malformed",
            "7: t: no-values",
            "9: t: cut"
        ]
    );
}

#[test]
fn of_a_value_of_any_length_a_bounded_part_is_kept() {
    let long = "x".repeat(LONGEST_VALUE + 1);
    let line = format!("INSERT INTO t (a,b) VALUES ('{long}',0x{}),('{}','b');", "41".repeat(100_000), &long[1..]);
    let found = rows(&line);
    assert_eq!(found[0], format!("1: .t a=long {} b=long 100000", LONGEST_VALUE + 1));
    assert!(found[1].len() > LONGEST_VALUE);
    // A row of many long values, and one of more values than are kept.
    let wide: Vec<String> = (0..100).map(|i| format!("c{i}")).collect();
    let values = vec![format!("'{}'", &long[1..]); 100].join(",");
    let line = format!(
        "INSERT INTO t ({}) VALUES ({values});INSERT INTO t (a) VALUES ({});",
        wide.join(","),
        "1,".repeat(9_999) + "1"
    );
    let found = rows(&line);
    assert_eq!((found[0].matches("long ").count(), found[1].as_str()), (36, "1: t: column-count"));
}

#[test]
fn it_makes_no_difference_how_the_bytes_come_or_where_the_walk_was_left() {
    let dump = [
        EARLY,
        "INSERT INTO t (a) VALUES ('\\'',1),(0x4),('ä');\nDELIMITER //\nx;y//INSERT INTO sensorParser VALUES (1,2,3,4,5),\n(1,2,3,4,6)//",
        "\nDELIMITER ;\n/*!50000 INSERT INTO t (a) VALUES (1) */;INSERT INTO t (a) VALUES ((1)",
    ]
    .concat();
    let whole = rows(&dump);
    assert_eq!(whole.len(), 9, "{whole:#?}");
    for size in [1, 2, 3, 7, 64] {
        assert_eq!(walk(Place::default(), Drip(dump.as_bytes(), size)), whole, "{size} at a time");
    }
    let mut first = Dump::at(Place::default(), dump.as_bytes());
    for n in 0..=whole.len() {
        let place = first.place();
        let rest = dump.as_bytes().get(place.offset as usize..).unwrap();
        assert_eq!(walk(place, rest), whole[n..], "left after {n}");
        let _ = one(&mut first);
    }
}

#[test]
fn a_dump_that_was_cut_anywhere_gives_the_rows_before_that() {
    let whole = rows(EARLY);
    for end in 0..EARLY.len() {
        let found = rows(&EARLY[..end]);
        let whole_rows = found.iter().filter(|r| whole.contains(r)).count();
        assert!(found.len() - whole_rows <= 1, "{end}: {found:?}");
        assert_eq!(found[..whole_rows], whole[..whole_rows]);
    }
}
