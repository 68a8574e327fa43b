"""Parquet files of the outbox, read by pyarrow: every reading is there, each value as it was, in a file of its day, with label and
E1 class. A file that was cut or overwritten is not read."""

import datetime
import json
import shutil
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

UTC = datetime.timezone.utc


class Failed(Exception):
    """A file is not what it has to be."""


def expect(holds, reason):
    if not holds:
        raise Failed(reason)


def moment(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, UTC)


def rows_of(reading):
    """What the rows of a reading must be, from its JSON."""
    same = ["id", "about", "net", "network", "device", "sid", "proof", "e1", "insecure", "conflict", "freshness", "gateway",
            "hops", "rssi", "lqi", "epoch", "boot", "number"]
    base = {key: reading[key] for key in same}
    base["received"], base["ingested"] = moment(reading["received_ms"]), moment(reading["ingested_ms"])
    base["day"] = base["ingested"].date().isoformat()
    for place, value in enumerate(reading["values"]) if reading["values"] else [(None, None)]:
        row = dict(base, place=place, payload=bytes.fromhex(reading["payload"]) if not place else None)
        row |= dict.fromkeys(["name", "unit", "value", "whole", "bool", "text", "bytes", "sum", "time"])
        if value is not None:
            row |= {key: value[key] for key in ("name", "unit", "sum", "time")}
            match value["value"]:
                case bool(b):
                    row["bool"] = b
                case int(n):
                    row |= {"whole": n, "value": float(n)}
                case float(n):
                    row["value"] = n
                case str(text):
                    row["text"] = text
                case {"bytes": digits}:
                    row["bytes"] = bytes.fromhex(digits)
        yield row


def main():
    folder = Path(sys.argv[1])
    readings = json.loads((folder / "expected.json").read_text())
    lake = folder / "lake"
    days = ds.partitioning(pa.schema([("day", pa.string())]), flavor="hive")
    table = ds.dataset(lake, format="parquet", partitioning=days).to_table()
    for name, kind in [("received", pa.timestamp("ms", "UTC")), ("number", pa.uint64()), ("insecure", pa.bool_()),
                       ("proof", pa.string()), ("value", pa.float64()), ("bytes", pa.binary())]:
        expect(table.schema.field(name).type == kind, f"{name} is {table.schema.field(name).type}")
    key = lambda row: (row["id"], row["about"], row["place"] is not None, row["place"])
    found = sorted(table.to_pylist(), key=key)
    wanted = sorted((row for reading in readings for row in rows_of(reading)), key=key)
    expect(len(found) == len(wanted), f"{len(found)} rows, and there are {len(wanted)}")
    for have, want in zip(found, wanted):
        expect(have == want, f"{have}\nis not\n{want}")
    labels = ds.dataset(lake, partitioning=days).to_table(filter=(ds.field("proof") == "signed") & (ds.field("day") == "2026-09-21"))
    expect(len(labels) == 7, f"{len(labels)} rows of the reading whose label was raised")

    file = max(lake.glob("*/part-*.parquet"), key=lambda f: f.stat().st_size)
    expect(pq.ParquetFile(file).metadata.created_by.startswith("fivefold "), "it does not say who made it")
    with tempfile.TemporaryDirectory() as beside:
        bad = Path(beside) / "bad.parquet"
        whole = file.read_bytes()
        for name, content in [("cut", whole[: len(whole) // 2]), ("overwritten", whole[:4] + bytes(30) + whole[34:])]:
            bad.write_bytes(content)
            try:
                pq.read_table(bad)
            except (OSError, pa.ArrowException):
                continue
            raise Failed(f"a file that was {name} is read")
    print(f"{len(readings)} readings in {len(found)} rows are in pyarrow what they were; what is cut or overwritten is refused")
    shutil.rmtree(lake)


try:
    main()
except Failed as reason:
    sys.exit(f"lake: {reason}")
