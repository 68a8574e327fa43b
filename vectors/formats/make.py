#!/usr/bin/env python3
"""Makes the fixtures of this folder, in a clone with the whole history:

    vectors/formats/make.py deployment target/skew/461c9ba/fivefold   # deployment.json: by a program of that time
    vectors/formats/make.py stores                                    # store-N.sql: of its store, by the SQL of each commit

They are made once. What a program of its time wrote is not made again by a later one.
"""
import json, pathlib, re, socket, sqlite3, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SQL = "cloud/src/store/migrations"
# Rows of tables that the program of 461c9ba did not know: from this format on.
LATER = {19: """
    INSERT INTO token_use VALUES (x'0101010101010101010101010101010101010101010101010101010101010101', 1790000000000, '192.0.2.1');
    UPDATE part SET n = 7, bytes = 700, measured = 7, gone = 2 WHERE name IN ('readings', 'ledger');
    INSERT INTO spared VALUES (3);""",
    20: """
    INSERT INTO outbox (name, kind, reading, raised, since, sent) VALUES ('broker', 'mqtt', 5, 0, 1790000000000, 4);
    INSERT INTO dead_letter (sink, reading, label, at, tries, said) VALUES ('broker', 4, 0, 1790000000000, 3, 'no');"""}


def dump(path):
    """A database as SQL, with its format."""
    db = sqlite3.connect(path)
    (version,) = db.execute("PRAGMA user_version").fetchone()
    lines = [line for line in db.iterdump() if "sqlite_stat" not in line]
    return "\n".join(lines + [f"PRAGMA user_version = {version};"]) + "\n"


def deployment(program):
    def run(*words):
        done = subprocess.run([program, "-o", "json", *words], capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr)
        return json.loads(done.stdout)

    def free(kind):
        with socket.socket(socket.AF_INET, kind) as s:
            s.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{s.getsockname()[1]}"

    with tempfile.TemporaryDirectory() as folder:
        farm = pathlib.Path(folder) / "farm"
        ingest, api = free(socket.SOCK_STREAM), free(socket.SOCK_STREAM)
        radio, node = free(socket.SOCK_DGRAM), free(socket.SOCK_DGRAM)
        at = ["--dir", str(farm)]
        run("init", str(farm), "--ingest", ingest, "--api", api)
        run("network", "add", *at, "--levels", "e1+e2+e3+e4", "one")
        run("gateway", "add", *at, "--net", "one", "north", "--radio", radio, "--air", node)
        did = run("device", "add", *at, "--net", "one", "--bind", node, "--air", radio)["did"]
        run("token", "add", *at, "reader")
        daemons = [subprocess.Popen([program, noun, "run", "--dir", str(farm / of)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                   for noun, of in (("cloud", "cloud"), ("gateway", "gateways/north"))]
        try:
            share = ["--dir", str(farm / "nodes" / did), "--every", "0.5", "--retry", "3", "--renew-resend", "3", "--renew-pause", "1"]
            run_node = lambda count: subprocess.run([program, "node", "run", *share, "--count", str(count)], check=True, stdout=subprocess.DEVNULL)
            run_node(4)
            run("device", "renew", *at, did)
            run_node(12)
            assert run("device", "show", *at, did)["renewal"]["highest_epoch"] > 1
            run("key", "rotate", *at, "--network", "one")
            run_node(4)
            time.sleep(2)
        finally:
            for daemon in daemons:
                daemon.terminate()
                daemon.wait()
        files = {}
        for path in sorted(p for p in farm.rglob("*") if p.is_file()):
            name = str(path.relative_to(farm)).replace(did, "NODE")
            bytes = path.read_bytes()
            if path.suffix == ".db":
                files[name] = {"sql": dump(path)}
            elif path.name.endswith(("-wal", "-shm", "lock")):
                continue
            else:
                try:
                    files[name] = {"text": bytes.decode()}
                except UnicodeDecodeError:
                    files[name] = {"hex": bytes.hex()}
    out = {"made by": "461c9ba", "did": did, "files": files}
    (HERE / "deployment.json").write_text(json.dumps(out, indent=1) + "\n")


def git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def number(path):
    found = re.search(r"/(\d+)_", path)
    return int(found[1]) if found else 17


def steps():
    """The SQL that makes each format of the store, as it was in the commit that brought it."""
    for path in sorted(git("ls-files", SQL).split() + ["keep/src/why.sql"], key=number):
        # The first one was completed within the hour, before anything ran on it.
        (commit, *_) = git("log", "--format=%h", "--", path).split()
        yield number(path), commit, git("show", f"{commit}:{path}")


def stores():
    files = json.loads((HERE / "deployment.json").read_text())["files"]
    real = sqlite3.connect(":memory:")
    real.executescript(files["cloud/readings.db"]["sql"])
    (of_real,) = real.execute("PRAGMA user_version").fetchone()
    all = list(steps())
    for to, commit, _ in all:
        db = sqlite3.connect(":memory:")
        for n, _, sql in all[:to]:
            db.executescript(sql)
            db.execute(f"PRAGMA user_version = {n}")
            if n == min(to, of_real):
                fill(real, db)
            db.executescript(LATER.get(n, ""))
        target = sqlite3.connect(HERE / ".store.db")
        db.commit()
        db.backup(target)
        target.close()
        text = dump(HERE / ".store.db")
        (HERE / ".store.db").unlink()
        (HERE / f"store-{to}.sql").write_text(f"-- Format {to} of the cloud's store: {commit}.\n{text}")


def fill(real, db):
    """The rows of the real store, as far as this format has tables and columns for them."""
    names = lambda of: [r[0] for r in of.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")]
    columns = lambda of, table: [r[1] for r in of.execute(f"PRAGMA table_info({table})")]
    for table in names(db):
        if table in names(real):
            both = [c for c in columns(db, table) if c in columns(real, table)]
            db.execute(f"DELETE FROM {table}")
            for row in real.execute(f"SELECT {', '.join(both)} FROM {table}"):
                db.execute(f"INSERT INTO {table} ({', '.join(both)}) VALUES ({', '.join('?' * len(both))})", row)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["deployment", program]:
            deployment(str(pathlib.Path(program).resolve()))
        case ["stores"]:
            stores()
        case _:
            sys.exit(__doc__)
