"""Makes waspmote/src/sensors/tables.rs from the sensor tables of the node's own code (v15.json, v12.json).

usage: python3 waspmote/tables/make.py [--check]

With --check nothing is written: exits 1 when the committed file is not what this makes.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
OUT = HERE.parent / "src" / "sensors" / "tables.rs"
KIND = {"uint8": "U8", "float32": "Float", "string": "Text", "uint32": "U32"}


def kind(row):
    if row["type"] == "int16":
        return "I16" if row.get("signed", True) else "U16"
    return KIND[row["type"]]


def text(value):
    return json.dumps(value, ensure_ascii=False)


def table(name, doc, rows):
    # A row without a tag is a hole that the node's table fills with zeros: nothing is ever sent under its id.
    rows = sorted((r for r in rows if r["tag"] is not None), key=lambda r: r["id"])
    assert len({r["id"] for r in rows}) == len(rows), f"{name}: an id twice"
    lines = ["", f"/// {doc}", "#[rustfmt::skip]", f"pub(super) static {name}: Rows = Rows {{"]
    lines.append("    rows: &[")
    for r in rows:
        unit = r["unit"] or ""
        unit = text(unit if isinstance(unit, str) else " or ".join(unit))
        lines.append(
            f"        row({r['id']}, {text(r['tag'])}, Kind::{kind(r)}, {r['fields']}, {r['ascii_decimals']}, "
            f"{unit}, {text(r['description'] or '')}),"
        )
    lines.append("    ],")
    places = {r["id"]: n for n, r in enumerate(rows)}
    lines.append("    by_id: [")
    for start in range(0, 256, 16):
        cells = (str(places.get(i, 0xFFFF)) for i in range(start, start + 16))
        lines.append("        " + ", ".join(cells) + ",")
    lines.append("    ],")
    by_tag = sorted(range(len(rows)), key=lambda n: (rows[n]["tag"].encode(), rows[n]["id"]))
    lines.append("    by_tag: &[")
    for start in range(0, len(by_tag), 20):
        lines.append("        " + ", ".join(str(n) for n in by_tag[start : start + 20]) + ",")
    lines.append("    ],")
    lines.append("};")
    return lines


def made():
    v15 = json.loads((HERE / "v15.json").read_text())["tables"]
    v12 = json.loads((HERE / "v12.json").read_text())["sensors"]
    lines = [
        "//! Sensor tables of the nodes. Made by waspmote/tables/make.py: change that, not this.",
        "",
        "use super::{Kind, Rows, row};",
    ]
    for name, doc, rows in (
        ("DEFAULT", "v15, frames of types 1 to 6.", v15["default"]["sensors"]),
        ("AGRICULTURE", "Smart Agriculture Xtreme, type 7.", v15["agriculture_xtreme"]["sensors"]),
        ("WATER", "Smart Water Xtreme, type 8.", v15["water_xtreme"]["sensors"]),
        ("V12", "v12, types 0 to 5.", v12),
    ):
        lines += table(name, doc, rows)
    return "\n".join(lines) + "\n"


def main():
    text = made()
    if "--check" in sys.argv[1:]:
        if OUT.read_text() != text:
            print(f"{OUT} is not what waspmote/tables/make.py makes of the JSON files", file=sys.stderr)
            return 1
        print("sensor tables are as the script makes them")
        return 0
    OUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
