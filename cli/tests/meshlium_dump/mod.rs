//! Dumps of a MeshliumDB that never was: from a seed, with everything in them that an import must name, and where it stands.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod farm;

use std::fmt::Write as _;

/// Which Meshlium wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// MySQL 5.0: MyISAM, latin1 tables, no column lists.
    Early,
    /// Later: more columns, named in each INSERT here.
    Late,
}

/// A dump, and what an import must find in it.
pub struct Dump {
    pub text: String,
    /// Line (0 where it is about more than one), table and reason of everything that is in the report.
    pub expected: Vec<(u64, &'static str, &'static str)>,
    /// Rows of `sensorParser` that are readings, of `sensorCloud` that are frames.
    pub readings: usize,
    pub frames: usize,
    /// Devices that are entered, and how many of them have a key.
    pub devices: usize,
    pub keys: usize,
    /// Keys among them that anybody can guess.
    pub weak_keys: usize,
}

struct Writer {
    shape: Shape,
    dump: Dump,
    line: u64,
    random: u64,
    id: u64,
}

impl Writer {
    fn draw(&mut self) -> u64 {
        // xorshift64*: the same on every machine.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn put(&mut self, line: &str) {
        self.dump.text.push_str(line);
        self.dump.text.push('\n');
        self.line += 1 + line.matches('\n').count() as u64;
    }

    fn expect(&mut self, table: &'static str, reason: &'static str) {
        self.dump.expected.push((self.line, table, reason));
    }

    fn create(&mut self, table: &str, columns: &str) {
        self.put(&format!("--\n-- Table structure for table `{table}`\n--\n\nDROP TABLE IF EXISTS `{table}`;"));
        let columns: Vec<String> =
            columns.split(' ').map(|c| format!("  `{c}` text NOT NULL COMMENT 'a, b)'")).collect();
        self.put(&format!(
            "CREATE TABLE `{table}` (\n{},\n  KEY `k` (`{}`)\n) ENGINE=MyISAM AUTO_INCREMENT=78053 DEFAULT CHARSET=latin1;",
            columns.join(",\n"),
            "id"
        ));
        self.put(&format!("LOCK TABLES `{table}` WRITE;\n/*!40000 ALTER TABLE `{table}` DISABLE KEYS */;"));
    }

    /// One INSERT in one line.
    fn insert(&mut self, table: &str, columns: &str, rows: &[String]) {
        let named = match self.shape {
            Shape::Early => String::new(),
            Shape::Late => format!(" (`{}`)", columns.replace(' ', "`, `")),
        };
        let rows: Vec<String> = rows.iter().map(|row| format!("({row})")).collect();
        self.put(&format!("INSERT INTO `{table}`{named} VALUES {};", rows.join(",")));
    }

    fn end(&mut self, table: &str) {
        self.put(&format!("/*!40000 ALTER TABLE `{table}` ENABLE KEYS */;\nUNLOCK TABLES;"));
    }

    fn columns(&self, early: &'static str, late: &'static str) -> &'static str {
        if self.shape == Shape::Early { early } else { late }
    }
}

/// A node: its serial as Meshlium shows it, and its node id.
pub fn node(n: usize) -> (String, String) {
    let bits = (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let serial = if n % 10 == 9 { format!("{}", (bits >> 33) | 1) } else { format!("{bits:016X}") };
    (serial, format!("node_{n:04}"))
}

/// Text of a reading's tuple.
fn reading(shape: Shape, id: u64, n: usize, sequence: u64, sensor: &str, value: &str, time: &str) -> String {
    let (serial, name) = node(n);
    let kind = if serial.len() == 16 { 134 } else { 128 };
    let rest = if shape == Shape::Early { "" } else { ",0,'local'" };
    format!("{id},'{name}','{serial}',{kind},{sequence},'{sensor}','{value}','{time}',0,'noraw'{rest}")
}

/// The time of a row: one each second since 2026-10-01.
pub fn time(id: u64) -> String {
    let (day, second) = (id / 86_400, id % 86_400);
    format!("2026-10-{:02} {:02}:{:02}:{:02}", day + 1, second / 3600, second / 60 % 60, second % 60)
}

const PARSER_EARLY: &str = "id id_wasp id_secret frame_type frame_number sensor value timestamp sync raw";
const PARSER_LATE: &str =
    "id id_wasp id_secret frame_type frame_number sensor value timestamp sync raw parser_type MeshliumID";

/// Makes a dump with so many nodes and readings.
pub fn make(shape: Shape, nodes: usize, rows: usize) -> Dump {
    let dump = Dump {
        text: String::new(),
        expected: Vec::new(),
        readings: 0,
        frames: 0,
        devices: nodes,
        keys: 0,
        weak_keys: 0,
    };
    let mut w = Writer { shape, dump, line: 1, random: 0x5EED, id: 0 };
    w.put(
        "-- MySQL dump 10.11\n--\n-- Host: localhost    Database: MeshliumDB\n-- Server version\t5.0.51a-24+lenny3\n",
    );
    w.put("/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;\n/*!40101 SET NAMES utf8 */;");
    w.put("/*!40103 SET TIME_ZONE='+00:00' */;\n/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;");
    keys(&mut w, nodes);
    let columns = "idusers user passwd";
    w.create("users", columns);
    w.expect("users", "account");
    w.expect("users", "account");
    w.insert("users", columns, &["1,'root','d41d8cd98f00b204e9800998ecf8427e'".into(), "2,'a','b'".into()]);
    w.end("users");
    sensors(&mut w);
    frames(&mut w);
    readings(&mut w, nodes, rows);
    w.create("wifiScan", "ID_frame MAC AP");
    w.insert("wifiScan", "ID_frame MAC AP", &["1,'00:1B:77:D5:12:23','x'".into()]);
    w.end("wifiScan");
    w.put("DELIMITER ;;\n/*!50003 CREATE*/ /*!50003 TRIGGER t BEFORE INSERT ON sensorParser FOR EACH ROW BEGIN");
    w.put("INSERT INTO `encryptionData` VALUES (1,'node_0001','triggered',NULL,NULL); END */;;\nDELIMITER ;");
    w.put("/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;\n\n-- Dump completed on 2026-11-25");
    w.dump
}

fn keys(w: &mut Writer, nodes: usize) {
    let columns = "id waspmote_id private_aes public_rsa modulus_rsa";
    w.create("encryptionData", columns);
    let mut id = 0;
    for n in (20..nodes).step_by(10) {
        id += 1;
        // Half by node id, half by serial.
        let (serial, name) = node(n);
        let key: String = (0..16).map(|_| char::from(b'A' + (w.draw() % 57) as u8).to_ascii_uppercase()).collect();
        let key: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { 'q' }).collect();
        w.insert(
            "encryptionData",
            columns,
            &[format!("{id},'{}','{key}',NULL,''", if n % 20 == 0 { name } else { serial })],
        );
        w.dump.keys += 1;
    }
    let name = |n: usize| node(n).1;
    let odd = [
        (name(1), format!("'{}',NULL,NULL", "k".repeat(40)), &["key-too-long"][..], 0),
        (name(2), "'pa7',NULL,NULL".into(), &["key-short"], 1),
        (name(3), "'libelium',NULL,NULL".into(), &["key-dictionary"], 1),
        (name(4), "'',NULL,NULL".into(), &["key-zero"], 1),
        ("nobody".into(), "'AAAAbbbbCCCCdddd',NULL,NULL".into(), &["key-unmatched"], 0),
        ("shared".into(), "'AAAAbbbbCCCCdddd',NULL,NULL".into(), &["key-ambiguous"], 0),
        (name(5), "'xAAAbbbbCCCCdddd',NULL,NULL".into(), &[], 1),
        (name(5), "'yAAAbbbbCCCCdddd',NULL,NULL".into(), &["key-twice"], 0),
        (name(6), format!("NULL,'10001','{}'", "C3".repeat(64)), &["rsa"], 0),
        (name(7), format!("'{}x',NULL,NULL", "0".repeat(16)), &["key-short"], 1),
        (name(8), "NULL,NULL,NULL".into(), &[], 0),
    ];
    for (node, values, reasons, keys) in odd {
        id += 1;
        reasons.iter().for_each(|reason| w.expect("encryptionData", reason));
        w.insert("encryptionData", columns, &[format!("{id},'{node}',{values}")]);
        w.dump.keys += keys;
        w.dump.weak_keys += keys * usize::from(!reasons.is_empty());
    }
    w.end("encryptionData");
}

fn sensors(w: &mut Writer) {
    let columns = w.columns(
        "id name description id_ascii units value",
        "id name description id_ascii units value vis fields list",
    );
    let rest = w.columns("", ",0,1,'user'");
    w.create("sensors", columns);
    w.insert("sensors", columns, &[format!("52,'Battery level','x','BAT','%',0{rest}")]);
    w.insert("sensors", columns, &[format!("22,'Snow','depth','SNOW','mm',2{rest}")]);
    w.expect("sensors", "sensor");
    w.insert("sensors", columns, &[format!("23,'Ice','x','A#B','mm',2{rest}")]);
    w.expect("sensors", "sensor");
    w.insert("sensors", columns, &[format!("24,'Ice','x','ICE','mm',9{rest}")]);
    w.end("sensors");
}

fn frames(w: &mut Writer) {
    let columns = "id timestamp MeshliumID sync id_node frame_type raw";
    w.create("sensorCloud", columns);
    let row = |id: u64, kind: u64, raw: &str| format!("{id},'{}','local',0,'{}',{kind},'{raw}'", time(id), node(0).0);
    let good = [row(1, 100, "3C3D3E64"), row(2, 101, "3C3D3E65")];
    w.insert("sensorCloud", columns, &good);
    w.dump.frames += good.len();
    w.expect("sensorCloud", "frame-type");
    w.insert("sensorCloud", columns, &[row(3, 134, "3C3D3E86")]);
    w.expect("sensorCloud", "no-frame");
    w.insert("sensorCloud", columns, &[row(4, 100, "noraw")]);
    w.end("sensorCloud");
}

fn readings(w: &mut Writer, nodes: usize, rows: usize) {
    let (shape, columns) = (w.shape, w.columns(PARSER_EARLY, PARSER_LATE));
    w.create("sensorParser", columns);
    let mut line = Vec::new();
    let mut odd = odd_rows(nodes).into_iter();
    for at in 0..rows {
        w.id += 1;
        let (id, n) = (w.id, at % nodes);
        let value = format!("{}.{:02}", w.draw() % 40, w.draw() % 100);
        let sensor = ["TCA", "BAT", "HUMA"][at / nodes % 3];
        line.push(reading(shape, id, n, (at / nodes) as u64 % 256, sensor, &value, &time(id)));
        // Lines of very different length.
        if line.len() > (w.draw() % 300) as usize {
            w.dump.readings += line.len();
            w.insert("sensorParser", columns, &std::mem::take(&mut line));
            if let Some(odd) = odd.next() {
                w.id += 1;
                let id = w.id;
                odd.reasons.iter().for_each(|reason| w.expect("sensorParser", reason));
                w.dump.readings += usize::from(odd.is_taken);
                let rest = if shape == Shape::Early { "" } else { ",0,'local'" };
                let row = odd.row.replace("ID", &id.to_string()).replace("TIME", &format!("'{}'", time(id)));
                w.insert("sensorParser", columns, &[format!("{row},0,'noraw'{rest}")]);
            }
        }
    }
    w.dump.readings += line.len();
    w.insert("sensorParser", columns, &line);
    assert!(odd.next().is_none(), "too few rows for all that must be in them");
    // The same id once more, with another value.
    w.expect("sensorParser", "id-conflict");
    let other = reading(shape, 1, 0, 0, "TCA", "another", &time(1));
    w.insert("sensorParser", columns, &[other]);
    w.expect("sensorParser", "column-count");
    w.insert("sensorParser", columns, &["1,2,3".into()]);
    w.expect("sensorParser", "malformed");
    w.put("INSERT INTO `sensorParser` VALUES (1,2,x'1');");
    w.expect("sensorParser", "no-values");
    w.put("INSERT INTO `sensorParser` SELECT * FROM `other`;");
    for reason in ["seen-too-little", "serial-two-names", "node-id-shared", "node-id", "serial-reversed"] {
        w.dump.expected.push((0, "sensorParser", reason));
    }
    // Those that share a node id, and that one whose bytes came the other way round too.
    w.dump.devices += 3;
    w.end("sensorParser");
}

/// A row that must be named.
struct Odd {
    row: String,
    reasons: &'static [&'static str],
    is_taken: bool,
}

fn odd_rows(nodes: usize) -> Vec<Odd> {
    let refused = |row: &str, reasons| Odd { row: row.to_owned(), reasons, is_taken: false };
    let taken = |row: &str, reasons| Odd { row: row.to_owned(), reasons, is_taken: true };
    let serial = node(0).0;
    let of_0 = |rest: &str| format!("ID,'node_0000','{serial}',{rest},TIME");
    let v12: u32 = node(9.min(nodes - 1)).0.parse().unwrap();
    let reversed = v12.swap_bytes();
    let mut all = vec![
        refused("ID,'n',NULL,134,1,'TCA','1',TIME", &["no-serial"]),
        refused("ID,'n','8A73',134,1,'TCA','1',TIME", &["serial"]),
        refused("ID,'n','; DROP TABLE x; --',134,1,'TCA','1',TIME", &["serial"]),
        refused("ID,'n','0000000000000000',134,1,'TCA','1',TIME", &["serial-zero"]),
        refused(&of_0("300,1,'TCA','1'"), &["frame-type"]),
        refused(&of_0("155,1,'TCA','1'"), &["frame-type"]),
        refused(&of_0("134,-1,'TCA','1'"), &["sequence"]),
        refused(&of_0("134,256,'TCA','1'"), &["sequence"]),
        refused(&of_0("134,1,'','1'"), &["sensor"]),
        refused(&of_0("134,1,'TCA',NULL"), &["no-value"]),
        refused(&of_0("134,1,'TCA',SLEEP(10)"), &["expression"]),
        refused(&of_0(&format!("134,1,'TCA','{}'", "x".repeat(5000))), &["too-long"]),
        refused(&of_0("134,1,'TCA','1'").replace("TIME", "'0000-00-00 00:00:00'"), &["time"]),
        refused(&of_0("134,1,'TCA','1'").replace("ID,", "'x',"), &["no-id"]),
        taken(&of_0(r"134,1,'STR','\'); DROP TABLE sensorParser; -- '"), &["markup"]),
        taken(&of_0("134,1,'STR','<script>alert(1)</script>'"), &["markup"]),
        taken(&of_0("134,1,'STR','\u{1b}[2Jgone'"), &["markup"]),
        taken(&of_0("134,1,'STR','22.5°C'"), &[]),
        taken(&of_0("NULL,NULL,'STR','x'"), &[]),
        // One row is not enough to be a device.
        taken("ID,'ghost','DEADBEEF00000001',134,1,'TCA','1',TIME", &[]),
    ];
    for row in [
        // A second name of node 1.
        format!("ID,'other','{}',134,1,'TCA','1',TIME", node(1).0),
        // Two nodes with one name, and one whose name is none.
        "ID,'shared','AAAAAAAAAAAAAA01',134,1,'TCA','1',TIME".into(),
        "ID,'shared','AAAAAAAAAAAAAA01',134,2,'TCA','1',TIME".into(),
        "ID,'shared','AAAAAAAAAAAAAA02',134,1,'TCA','1',TIME".into(),
        "ID,'shared','AAAAAAAAAAAAAA02',134,2,'TCA','1',TIME".into(),
        format!("ID,'n\u{e9}e','{reversed}',128,1,'TCA','1',TIME"),
        format!("ID,'n\u{e9}e','{reversed}',128,2,'TCA','1',TIME"),
    ] {
        all.push(taken(&row, &[]));
    }
    all
}

/// What a report must be, sorted: `line table reason`.
pub fn report(dump: &Dump) -> Vec<String> {
    let mut lines: Vec<String> = dump.expected.iter().map(|(line, table, reason)| one(*line, table, reason)).collect();
    lines.sort();
    lines
}

/// One line of a report.
pub fn one(line: u64, table: &str, reason: &str) -> String {
    let mut text = String::new();
    let _ = write!(text, "{line:>6} {table} {reason}");
    text
}
