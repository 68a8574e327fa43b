"""The hardened classic profile (docs/protocol.md, "Classic, hardened") a second time: vectors/hardened.json.

Frames are composed here from binary frames as W4 draws them, sealed by the `cryptography` package's AES-CCM, and cut as
the text says. Nothing is shared with the Rust code.
"""

import hashlib
import json
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

FILE = Path(__file__).resolve().parent / "hardened.json"
KEY_MESSAGES = Path(__file__).resolve().parent / "key-message.json"

TO = {"gateway": 0x68, "cloud": 0x69}
FROM = {"gateway": 0x6C, "cloud": 0x6D}
PART = 0x6A


def stream(words, length):
    return hashlib.shake_256(words.encode()).digest(length)


def classic(kind, serial, rest):
    """`<=>`, type, N, the serial, and whatever a type has after it."""
    return b"<=>" + bytes([kind, len(serial) + len(rest)]) + serial + rest


def seal(kind, key, serial, epoch, sequence, seed, plaintext):
    number = struct.pack(">II", epoch, sequence) + seed
    head = classic(kind, serial, number + bytes(len(plaintext) + 8))[:25]
    return head + AESCCM(key, 8).encrypt(bytes([kind]) + number, plaintext, head)


FRAMES = [
    # name, peer, type inside, node id, sequence byte, fields, epoch, sequence
    ("two floats, to the gateway", "gateway", 6, b"plant1", 0xB1, bytes.fromhex("4acdcc2c404ccdcc3e42"), 1, 0),
    ("the same to the cloud", "cloud", 6, b"plant1", 0xB1, bytes.fromhex("4acdcc2c404ccdcc3e42"), 1, 0),
    ("an alarm without a node id", "cloud", 3, b"", 0, b"\x34\x64", 2, 0x00010203),
    ("no fields", "gateway", 4, b"x", 255, b"", 1, 0xFFFFFFFF),
    ("16 bytes of node id, none of them a letter", "gateway", 6, b"\xff" * 16, 7, b"\x34\x55", 0xFFFFFFFF, 64),
    ("a serial that holds a #, and one among the fields", "cloud", 6, b"n#"[:1], 0x23, b"\x34\x23", 9, 0x23232323),
    ("the longest", "gateway", 8, b"longest", 1, bytes(212), 3, 1_000_000),
    ("a table of its own", "cloud", 7, b"xtreme", 2, b"\x00\x01\x02\x03", 3, 1_000_001),
]


def frames():
    for name, peer, kind, node, count, fields, epoch, sequence in FRAMES:
        serial, key, seed = (stream(f"{name}: {what}", n) for what, n in (("serial", 8), ("key", 32), ("seed", 4)))
        if "serial that holds" in name:
            serial = bytes.fromhex("2f4a23917823238d")
        rest = node + b"#" + bytes([count]) + fields
        answer = {"wish": len(fields) % 2, "time": 1_795_651_200 + len(fields)}
        plain = bytes([answer["wish"]]) + struct.pack(">I", answer["time"])
        yield {
            "name": name,
            "peer": peer,
            "key": key.hex(),
            "serial": serial.hex(),
            "epoch": epoch,
            "sequence": sequence,
            "seed": seed.hex(),
            "clear": classic(kind, serial, rest).hex(),
            "sealed": seal(TO[peer], key, serial, epoch, sequence, seed, bytes([kind]) + rest).hex(),
            "answer": answer | {"sealed": seal(FROM[peer], key, serial, epoch, sequence, seed, plain).hex()},
        }


def refused(good):
    """Each case is the first frame, changed; `word` is the reason."""
    key, sealed = bytes.fromhex(good["key"]), bytes.fromhex(good["sealed"])
    serial, seed = bytes.fromhex(good["serial"]), bytes.fromhex(good["seed"])

    def other(at, byte):
        return sealed[:at] + bytes([byte]) + sealed[at + 1 :]

    def inside(plaintext):
        return seal(0x68, key, serial, good["epoch"], good["sequence"], seed, plaintext)

    yield "a bit of the ciphertext", "tag", other(26, sealed[26] ^ 1)
    yield "a bit of the tag", "tag", other(len(sealed) - 1, sealed[-1] ^ 0x80)
    yield "another serial", "tag", other(5, sealed[5] ^ 1)
    yield "another epoch", "tag", other(16, sealed[16] ^ 1)
    yield "another sequence", "tag", other(20, sealed[20] ^ 1)
    yield "another seed", "tag", other(24, sealed[24] ^ 1)
    yield "relabelled for the cloud", "tag", other(3, 0x69)
    yield "relabelled as the vendor's encryption", "type", other(3, 0x60)
    yield "its own answer", "type", bytes.fromhex(good["answer"]["sealed"])
    yield "another start", "start", other(2, 0x3C)
    yield "another length", "length", other(4, sealed[4] ^ 1)
    yield "the last byte missing", "length", sealed[:-1]
    yield "a byte too many", "length", sealed + b"\0"
    yield "no ciphertext", "short", classic(0x68, serial, bytes(20))
    yield "two bytes of ciphertext", "short", classic(0x68, serial, bytes(22))
    yield "a header alone", "short", sealed[:24]
    yield "256 bytes", "long", classic(0x68, serial, bytes(243))
    yield "an ASCII frame inside", "content", inside(b"\x86\x02#7831#")
    yield "a frame of v12 hardware inside", "content", inside(b"\x00n#\x01")
    yield "an encrypted frame inside", "content", inside(b"\x60n#\x01")
    yield "no # inside", "content", inside(b"\x06" + b"n" * 17 + b"#\x01")
    yield "no sequence inside", "content", inside(b"\x06n#")


def parts():
    messages = json.loads(KEY_MESSAGES.read_text())
    serial = stream("parts: serial", 8)
    found = [("kr1", bytes.fromhex(m["kr1"])) for m in walk(messages) if len(m.get("kr1", "")) in (624, 1584)]
    chosen = {len(m): (n, m) for n, m in found}
    for length in sorted(chosen):
        name, message = chosen[length]
        for room in (255, 100, 73, 66):
            each = room - 16
            pieces = [message[at : at + each] for at in range(0, length, each)]
            if len(pieces) > 16:
                continue
            cut = [classic(PART, serial, bytes([room, n, len(pieces)]) + piece) for n, piece in enumerate(pieces)]
            yield {
                "name": f"{name} of {length} bytes in frames of {room}",
                "serial": serial.hex(),
                "id": room,
                "room": room,
                "message": message.hex(),
                "frames": [frame.hex() for frame in cut],
            }


def walk(item):
    if isinstance(item, dict):
        yield item
    for value in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from walk(value)


def text():
    good = list(frames())
    cases = [{"name": name, "word": word, "frame": frame.hex()} for name, word, frame in refused(good[0])]
    book = {
        "note": "Made by vectors/hardened.py. Keys are derived from words: they are public, never use them.",
        "frames": good,
        "refused": cases,
        "parts": list(parts()),
    }
    return json.dumps(book, indent=1) + "\n"


def check(checks):
    committed = FILE.read_text() if FILE.exists() else ""
    checks.equal("vectors/hardened.json", text() == committed, True)
    for case in json.loads(committed or '{"frames": []}')["frames"]:
        key, sealed, number = bytes.fromhex(case["key"]), bytes.fromhex(case["sealed"]), bytes.fromhex(case["sealed"])[13:25]
        plain = AESCCM(key, 8).decrypt(sealed[3:4] + number, sealed[25:], sealed[:25])
        clear = bytes.fromhex(case["clear"])
        checks.equal(case["name"], plain, clear[3:4] + clear[13:])
        checks.equal(case["name"], len(sealed), len(clear) + 21)
