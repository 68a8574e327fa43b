//! A running MeshliumDB is followed, compared and left as it is: on a MariaDB of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod meshlium_dump;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fivefold_keep::registry::Registry;
use meshlium_dump::farm::Farm;
use meshlium_dump::node;
use rusqlite::params;
use serde_json::Value;

/// A database server on a socket in a folder, and a TCP port.
struct Server {
    folder: tempfile::TempDir,
    child: Child,
    port: u16,
}

/// A program of Debian's mariadb-server.
fn program(name: &str) -> PathBuf {
    let found = ["/usr/sbin", "/usr/bin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|p| p.exists());
    found.unwrap_or_else(|| panic!("{name} is not here: ./ci.sh test installs mariadb-server"))
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let user = format!(
            "--user={}",
            String::from_utf8_lossy(&Command::new("id").arg("-un").output().unwrap().stdout).trim()
        );
        // Servers that share one clear away each other's tables there.
        fs::create_dir(at("tmp")).unwrap();
        let made = Command::new(program("mariadb-install-db"))
            .env("TMPDIR", at("tmp"))
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &user])
            .arg(format!("--datadir={}", at("data")))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(program("mariadbd"))
            .env("TMPDIR", at("tmp"))
            .args(["--no-defaults", &user, "--bind-address=127.0.0.1", "--general-log=1"])
            // A small one, that asks nothing rare of the kernel.
            .args(["--innodb-buffer-pool-size=8M", "--innodb-use-native-aio=0", "--performance-schema=0"])
            .args(["--aria-pagecache-buffer-size=1M", "--key-buffer-size=1M", "--max-connections=20"])
            .arg(format!("--datadir={}", at("data")))
            .arg(format!("--socket={}", at("socket")))
            .arg(format!("--pid-file={}", at("pid")))
            .arg(format!("--port={port}"))
            .arg(format!("--log-error={}", at("error")))
            .arg(format!("--general-log-file={}", at("log")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { folder, child, port };
        let came = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            server.client("SELECT 1").is_ok()
        });
        assert!(came, "the database does not start");
        server.sql(SCHEMA);
        server
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn client(&self, sql: &str) -> Result<String, String> {
        let mut client = Command::new(program("mariadb"))
            .args(["--no-defaults", "--batch", "--skip-column-names", "--user=root", "--password=", "--socket"])
            .arg(self.at("socket"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that finds no server does not read.
        let _ = client.stdin.take().unwrap().write_all(sql.as_bytes());
        let done = client.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        self.client(sql).unwrap()
    }

    /// So many more readings.
    fn readings(&self, range: std::ops::Range<u64>) {
        let rows: Vec<String> = range.map(row).collect();
        let columns = "id, id_wasp, id_secret, frame_type, frame_number, sensor, value, timestamp";
        self.sql(&format!(
            "SET time_zone = '+00:00'; INSERT INTO MeshliumDB.sensorParser ({columns}) VALUES {};",
            rows.join(",")
        ));
    }

    /// Everything that is in it, as a number.
    fn state(&self) -> String {
        let tables = ["sensorParser", "sensorCloud", "encryptionData", "sensors", "users", "last_data"];
        self.sql(&format!("CHECKSUM TABLE {}", tables.map(|t| format!("MeshliumDB.{t}")).join(",")))
    }

    fn url(&self, login: &str) -> String {
        format!("mysql://{login}@localhost/MeshliumDB?socket={}", self.at("socket"))
    }

    fn password(&self, farm: &Farm, text: &str) -> String {
        let file = farm.at("password");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the database said:\n{}", fs::read_to_string(self.at("error")).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The tables as a Meshlium of 2021 has them (W14), and a login that may read them.
const SCHEMA: &str = "CREATE DATABASE MeshliumDB; USE MeshliumDB;
CREATE TABLE sensorParser (id int(11) NOT NULL AUTO_INCREMENT, id_wasp varchar(16), id_secret varchar(22), frame_type int(11),
 frame_number int(11), sensor varchar(16), value varchar(50), timestamp timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
 sync bigint(20) unsigned NOT NULL DEFAULT '0', raw varchar(100) NOT NULL DEFAULT 'noraw', parser_type tinyint(3) NOT NULL
 DEFAULT '0', MeshliumID varchar(150) NOT NULL DEFAULT 'local', PRIMARY KEY (id)) ENGINE=InnoDB DEFAULT CHARSET=utf8;
CREATE TABLE sensorCloud (id int(11) NOT NULL AUTO_INCREMENT, timestamp timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
 MeshliumID varchar(150) NOT NULL DEFAULT 'local', sync bigint(20) unsigned NOT NULL DEFAULT '0', id_node varchar(22),
 frame_type int(11), raw varchar(250) NOT NULL DEFAULT 'noraw', PRIMARY KEY (id)) ENGINE=InnoDB DEFAULT CHARSET=utf8;
CREATE TABLE encryptionData (id int(11) NOT NULL AUTO_INCREMENT, waspmote_id varchar(100) NOT NULL, private_aes varchar(512),
 public_rsa varchar(512), modulus_rsa varchar(512), PRIMARY KEY (id)) ENGINE=InnoDB DEFAULT CHARSET=utf8;
CREATE TABLE sensors (id int(11) NOT NULL, name varchar(45) NOT NULL, description varchar(45) NOT NULL, id_ascii varchar(45)
 NOT NULL, units varchar(45) NOT NULL, value int(11) NOT NULL, vis tinyint(1) NOT NULL DEFAULT '0', fields int(11) NOT NULL,
 list varchar(45) NOT NULL DEFAULT '', PRIMARY KEY (id, list)) ENGINE=InnoDB DEFAULT CHARSET=utf8;
CREATE TABLE users (idusers int(11) NOT NULL AUTO_INCREMENT, user varchar(45) NOT NULL, passwd varchar(45) NOT NULL,
 PRIMARY KEY (idusers)) ENGINE=InnoDB DEFAULT CHARSET=utf8;
CREATE TABLE last_data (id_wasp varchar(45) NOT NULL, sensor varchar(30) NOT NULL, value varchar(45) NOT NULL, timestamp
 timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (id_wasp, sensor)) ENGINE=InnoDB DEFAULT CHARSET=utf8;
INSERT INTO encryptionData (waspmote_id, private_aes) VALUES ('node_0001', 'AbCd0123eFgH4567');
INSERT INTO sensors VALUES (22, 'Snow', 'depth', 'SNOW', 'mm', 2, 0, 1, '');
INSERT INTO users VALUES (1, 'root', 'd41d8cd98f00b204e9800998ecf8427e');
INSERT INTO sensorCloud (id_node, frame_type, raw) VALUES ('8A7384477876150C', 100, '3C3D3E64');
CREATE USER reader@localhost IDENTIFIED BY 'only to read'; GRANT SELECT ON MeshliumDB.* TO reader@localhost;
CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'only to read'; GRANT SELECT ON MeshliumDB.* TO reader@'127.0.0.1';
FLUSH PRIVILEGES;";

fn row(n: u64) -> String {
    let (serial, name) = node(n as usize % 4);
    let time = format!("2026-11-20 {:02}:{:02}:{:02}", n / 3600, n / 60 % 60, n % 60);
    format!("({n}, '{name}', '{serial}', 134, {}, 'TCA', '{}.5', '{time}')", n % 256, n % 30)
}

/// Readings that are stored here, by their ids there.
fn stored(farm: &Farm) -> Vec<i64> {
    let store = farm.store();
    let mut select = store.prepare("SELECT row FROM imported_value ORDER BY row").unwrap();
    select.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_running_database_is_followed_and_nothing_in_it_changes() {
    let (server, farm) = (Server::start(), Farm::new());
    server.readings(1..2500);
    let before = server.state();
    let (url, password) = (server.url("reader"), server.password(&farm, "only to read\n"));
    let words = ["import", "meshlium", "--net", "yard", "--follow", &url, "--password-file", &password];
    let once = [&words[..], &["--once"]].concat();
    let said = farm.answer(0, &once);
    assert_eq!(
        (&said["stored"], &said["devices"]["added"], &said["devices"]["with_key"]),
        (&2500.into(), &4.into(), &1.into())
    );
    assert_eq!(
        (&said["sensors"][0]["tag"], &said["by_reason"]),
        (&"SNOW".into(), &serde_json::json!({ "account": 1 }))
    );
    assert_eq!(server.state(), before, "nothing was written there, `sync` neither");
    let time: String =
        farm.store().query_row("SELECT timestamp FROM imported_value WHERE row = 61", [], |r| r.get(0)).unwrap();
    assert_eq!(time, "2026-11-20 00:01:01");

    // It goes on while rows come, and after it was killed.
    let every = [&words[..], &["--every", "1"]].concat();
    let mut next = 2500;
    for _ in 0..2 {
        let mut child = farm.command(&every).stdout(Stdio::null()).spawn().unwrap();
        server.readings(next..next + 40);
        next += 40;
        let came = (0..1200).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            stored(&farm).len() as u64 == next - 1
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(came, "{} of {}", stored(&farm).len(), next - 1);
    }
    server.readings(next..next + 5);
    farm.answer(0, &once);
    assert_eq!(stored(&farm), (1..(next + 5) as i64).collect::<Vec<_>>());

    // What it asked is nothing but questions.
    let log = fs::read_to_string(server.at("log")).unwrap();
    let id_of = |head: &str| head.split_whitespace().last().map(str::to_owned);
    let (mut ours, mut asked) = (std::collections::BTreeSet::new(), 0);
    for line in log.lines() {
        if let Some((head, who)) = line.split_once(" Connect\t") {
            ours.extend(id_of(head).filter(|_| who.starts_with("reader@")));
        } else if let Some((head, sql)) = line.split_once(" Query\t")
            && id_of(head).is_some_and(|id| ours.contains(&id))
        {
            asked += 1;
            let allowed = ["SELECT ", "SHOW TABLES LIKE ", "SET time_zone = '+00:00'"];
            assert!(allowed.iter().any(|begin| sql.starts_with(begin)), "{sql}");
        }
    }
    assert!(asked > 20, "only {asked} questions were found in {log}");

    // A table that was emptied begins anew: nothing is mixed up.
    server.sql("TRUNCATE TABLE MeshliumDB.sensorParser");
    server.readings(1..3);
    let said = farm.answer(2, &once);
    assert!(said["error"].as_str().unwrap().contains("--from"), "{said}");
}

#[test]
fn a_database_is_reached_in_the_clear_only_by_the_operators_word_and_a_shipped_login_is_named() {
    let (server, farm) = (Server::start(), Farm::new());
    server.readings(1..10);
    let password = server.password(&farm, "only to read");
    let tcp = format!("mysql://reader@127.0.0.1:{}/MeshliumDB", server.port);
    let words = |url: &str| -> Vec<String> {
        let words = ["import", "meshlium", "--net", "yard", "--once", "--password-file", &password, "--follow", url];
        words.map(str::to_owned).to_vec()
    };
    let run = |words: &[String], code: i32| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = farm.command(&words).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(code), "{words:?}: {said}");
        (said, String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let (said, _) = run(&words(&tcp), 2);
    assert!(said.contains("--insecure-plain-tcp") && said.contains("ssh -L"), "{said}");
    let (said, _) = run(&[words(&tcp), vec!["--insecure-plain-tcp".into()]].concat(), 0);
    assert!(!said.contains("W16.15"), "{said}");
    for (url, says) in [
        (server.url("reader:secret-in-a-url"), "--password-file"),
        ("mysql://localhost/MeshliumDB?socket=/x".into(), "names no login"),
        ("mysql://a@localhost/x?socket=/nowhere/x".into(), "/nowhere/x"),
        ("mysql://a@localhost/x?user=b".into(), "`user`"),
        ("postgres://a@localhost/x".into(), "no URL"),
    ] {
        let (said, _) = run(&words(&url), 2);
        assert!(said.contains(says) && !said.contains("secret-in-a-url"), "{url}: {said}");
    }
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    let (said, _) = run(&words(&server.url("reader")), 2);
    assert!(said.contains(&password) && !said.contains("only to read"), "{said}");
    server.password(&farm, "wrong");
    run(&words(&server.url("reader")), 2);

    // The login that all of them were shipped with.
    let shipped = ["libelium", "2007"].concat();
    server.sql(&format!("ALTER USER root@localhost IDENTIFIED BY '{shipped}'"));
    server.password(&farm, &shipped);
    let (said, answer) = run(&words(&server.url("root")), 0);
    assert!(said.contains("W16.15"), "{said}");
    assert!(!format!("{said}{answer}").contains(&shipped), "it is named, and not said");
}

/// A reading of a classic device that came here, as the cloud puts it down.
fn came(farm: &Farm, n: u64, value: &str) {
    let (serial, name) = node(n as usize % 4);
    let serial = serial.to_lowercase();
    let time = format!("2026-11-20 {:02}:{:02}:{:02}", n / 3600, n / 60 % 60, n % 60 + 1);
    let store = farm.store();
    store.busy_timeout(Duration::from_secs(60)).unwrap();
    let registry = Registry::open(
        &farm.folder.path().join("farm/registry.db"),
        fivefold_keep::registry::By::new("test", "here", "test", 1),
    )
    .unwrap();
    let net = registry.network("yard").unwrap().net.0;
    let sql = "INSERT OR IGNORE INTO context (id, net, did, level, epoch, bctx, standing, since)
               VALUES (1, ?, x'0000000000000001', 1, 0, x'', 1, 0)";
    store.execute(sql, [net]).unwrap();
    store
        .execute(
            "INSERT INTO reading VALUES (?, 1, ?, 0, x'00', 1, 4, 1, ?, 0, 0, 0, NULL, NULL, NULL, NULL, 1, 0, x'00')",
            params![n as i64, n as i64, n as i64],
        )
        .unwrap();
    store
        .execute(
            "INSERT INTO classic (reading, suite, serial, node_id, outer, type, sequence, equal, codes, content)
             VALUES (?, 'classic', ?, ?, 134, 134, ?, 0, '', '{}')",
            params![n as i64, serial, name, (n % 256) as i64],
        )
        .unwrap();
    store
        .execute(
            "INSERT INTO classic_value (reading, position, tag, value, timestamp) VALUES (?, 0, 'TCA', ?, ?)",
            params![n as i64, value, time],
        )
        .unwrap();
}

#[test]
fn what_one_of_the_two_saw_alone_is_listed() {
    let (server, farm) = (Server::start(), Farm::new());
    server.readings(1..101);
    let (url, password) = (server.url("reader"), server.password(&farm, "only to read"));
    // What was imported is no reading of ours: the store is made by it.
    farm.answer(0, &["import", "meshlium", "--net", "yard", "--once", "--password-file", &password, "--follow", &url]);
    let live = ["compare", "meshlium", "--live", &url, "--password-file", &password];
    let said = farm.answer(1, &live);
    assert_eq!((&said["same"], &said["only_meshlium"]["count"]), (&0.into(), &100.into()));
    (1..101).for_each(|n| came(&farm, n, &format!("{}.50", n % 30)));
    let said = farm.answer(0, &live);
    assert_eq!((&said["same"], &said["only_fivefold"]["count"]), (&100.into(), &0.into()));

    // One more on either side, and one that differs.
    server.readings(101..103);
    came(&farm, 102, "99.9");
    came(&farm, 103, "13.5");
    let said = farm.answer(1, &live);
    let serials = |side: &str| -> Vec<u64> {
        said[side]["rows"].as_array().unwrap().iter().map(|r| r["sequence"].as_u64().unwrap()).collect()
    };
    assert_eq!(
        (&said["same"], serials("only_meshlium"), serials("only_fivefold")),
        (&100.into(), vec![101, 102], vec![102, 103])
    );

    // The same by a dump of it, made as an operator makes one.
    let dump = farm.at("DUMP.sql");
    let made = Command::new(program("mariadb-dump"))
        .args(["--no-defaults", "--user=root", "--password=", "--single-transaction"])
        .arg(format!("--socket={}", server.at("socket")))
        .arg(format!("--result-file={dump}"))
        .arg("MeshliumDB")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let by_dump: Value = farm.answer(1, &["compare", "meshlium", &dump]);
    assert_eq!((&by_dump["same"], &by_dump["since"]), (&said["same"], &said["since"]));
    let values = |v: &Value| -> Vec<Value> {
        v["rows"].as_array().unwrap().iter().map(|r| serde_json::json!([r["serial"], r["value"], r["time"]])).collect()
    };
    assert_eq!(values(&by_dump["only_meshlium"]), values(&said["only_meshlium"]));
    // A whole dump of MariaDB imports too, and knows what came live.
    let said = farm.answer(0, &farm.import(&dump));
    assert_eq!((&said["stored"], &said["repeated"]), (&2.into(), &101.into()));
}

/// The shell blocks of the page: lines without comments.
fn blocks() -> Vec<String> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/migrate-from-meshlium.md")).unwrap();
    let shell = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    shell.flat_map(|block| block.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn the_page_about_the_migration_is_typed_as_it_stands() {
    let server = Server::start();
    server.readings(1..60);
    let farm = Farm::bare();
    let ports: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let [ingest, api] = [0, 1].map(|n: usize| ports[n].local_addr().unwrap().to_string());
    drop(ports);
    farm.answer(0, &["init", &farm.at("farm"), "--ingest", &ingest, "--api", &api]);
    let _cloud = Ends(
        farm.command(&["cloud", "run", "--dir", &farm.at("farm/cloud")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    fs::rename(server.password(&farm, "only to read"), farm.at("meshlium.password")).unwrap();
    let socket = server.at("socket");
    let words = [
        (
            "mysqldump --user=root --password",
            format!("{} --no-defaults --user=root --password= --socket={socket}", program("mariadb-dump").display()),
        ),
        ("mysql://fivefold@", "mysql://reader@".to_owned()),
        ("/run/meshlium.sock", socket),
    ];
    let path = Path::new(env!("CARGO_BIN_EXE_fivefold")).parent().unwrap().display().to_string();
    let path = format!("{path}:{}", std::env::var("PATH").unwrap());
    let lines = blocks();
    assert!(lines.len() > 10, "{lines:#?}");
    for line in lines {
        if line.contains("compare") && line.contains("--live") {
            // Meanwhile the same came here.
            (1..60).for_each(|n| came(&farm, n, &format!("{}.5", n % 30)));
        }
        let typed = words.iter().fold(line.clone(), |typed, (page, here)| typed.replace(page, here));
        // The cloud may have to come up first.
        let tries = if line.contains("--token-file") { 100 } else { 1 };
        let done = (0..tries).find_map(|n| {
            if n > 0 {
                std::thread::sleep(Duration::from_millis(300));
            }
            let mut sh = Command::new("sh");
            sh.args(["-ec", &typed]).env("PATH", &path).current_dir(farm.folder.path()).stdin(Stdio::null());
            let done = sh.output().unwrap();
            (done.status.success() || n + 1 == tries).then_some(done)
        });
        let done = done.unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "`{line}`: {}{said}", String::from_utf8_lossy(&done.stderr));
        if line.contains("--imported") {
            assert!(said.contains("nobody INSECURE, imported") && said.contains("TCA"), "{said}");
        }
        if line.contains("device list") {
            assert!(said.contains(&node(1).0.to_lowercase()), "{said}");
        }
    }
    assert!(fs::read_to_string(farm.at("report.jsonl")).unwrap().contains("\"account\""));
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
