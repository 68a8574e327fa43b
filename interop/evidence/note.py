"""Signed notes, checkpoints, cosignatures and tlog-proofs (docs/evidence.md 1.3), and the witness rule (6)."""

import tomllib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.hazmat.primitives.serialization import Encoding

from forms import Wrong, decimal, included, kept, leaf_hash, need, sha, unbase64

ED25519, COSIGNATURE, PQ_COSIGNATURE = 1, 4, 6
KEY_BYTES = {ED25519: 32, COSIGNATURE: 32, PQ_COSIGNATURE: 1312}
LINES, LONGEST, HASHES = 64, 256 << 10, 63


def is_name(name):
    return name != "" and "+" not in name and not any(c.isspace() for c in name)


@dataclass(frozen=True, eq=False)
class Key:
    """A pinned key."""

    name: str
    id: bytes
    type: int
    public: bytes

    def __str__(self):
        return f"{self.name}+{self.id.hex()}"


@kept
def vkey(text):
    parts = text.split("+", 2)
    need(len(parts) == 3, "a vkey has three parts")
    name, key_id, rest = parts
    need(is_name(name), "a vkey with a name that is none")
    data = unbase64(rest)
    need(data and data[0] in KEY_BYTES and len(data) == 1 + KEY_BYTES[data[0]], "a vkey of an unknown type, or a wrong length")
    computed = sha(name.encode(), b"\n", data)[:4]
    need(key_id == computed.hex(), "a vkey with an id that is not its own")
    return Key(name, computed, data[0], data[1:])


@dataclass(frozen=True, eq=False)
class Trust:
    """The trust file (6); certificates in DER. It is kept by what it is and not by what it holds, as are its keys and
    checkpoints: to hash them again and again would take longer than to check them."""

    ca: tuple
    log: Key
    witnesses: tuple
    need: int
    pq_need: int
    timestamps: tuple


def trust(path):
    """Reads a trust file; raises `Wrong` when it is no good."""
    try:
        with open(path, encoding="utf-8") as f:
            return trust_text(f.read())
    except (OSError, UnicodeDecodeError) as e:
        raise Wrong(f"the trust file cannot be read: {e}") from None


@kept
def trust_text(text):
    try:
        return trust_of(tomllib.loads(text))
    except tomllib.TOMLDecodeError as e:
        raise Wrong(f"the trust file cannot be read: {e}") from None


def trust_of(file):
    form = file.get("format", 1)
    need(type(form) is int and form == 1, "the trust file has a format that is not 1")
    need(set(file) <= {"format", "operator", "log", "witnesses", "timestamps"} and {"operator", "log", "witnesses"} <= set(file),
         "the trust file has [operator], [log], [witnesses] and perhaps [timestamps]")
    for table, keys, optional in (("operator", {"ca"}, set()), ("log", {"vkey"}, set()),
                                  ("witnesses", {"need", "vkeys"}, {"pq_need"}), ("timestamps", {"ca"}, set())):
        if table in file:
            need(type(file[table]) is dict and keys <= set(file[table]) <= keys | optional, f"keys of [{table}]")
    log = vkey(_text(file["log"]["vkey"]))
    need(log.type == ED25519, "the log's vkey has another type than 01")
    vkeys = file["witnesses"]["vkeys"]
    need(type(vkeys) is list, "[witnesses] vkeys is a list")
    witnesses = tuple(vkey(_text(v)) for v in vkeys)
    need(all(w.type != ED25519 for w in witnesses), "a witness's vkey has another type than 04 or 06")
    need(len({k.public for k in (log, *witnesses)}) == 1 + len(witnesses), "a public key is there twice")
    least, pq = file["witnesses"]["need"], file["witnesses"].get("pq_need", 0)
    need(type(least) is int and type(pq) is int, "need and pq_need are numbers")
    need(1 <= least <= len({w.name for w in witnesses}), "need is 0, or more than there are witnesses")
    need(0 <= pq <= len({w.name for w in witnesses if w.type == PQ_COSIGNATURE}), "pq_need is more than there are witnesses")
    stamps = tuple(certificates(file["timestamps"]["ca"])) if "timestamps" in file else ()
    return Trust(tuple(certificates(file["operator"]["ca"])), log, witnesses, least, pq, stamps)


def _text(value):
    need(type(value) is str, "a vkey is a text")
    return value


def certificates(pems):
    need(type(pems) is list and pems and all(type(p) is str for p in pems), "ca is a list of certificates in PEM")
    found = []
    for pem in pems:
        try:
            found += [c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(pem.encode())]
            for certificate in x509.load_pem_x509_certificates(pem.encode()):
                need(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca, "a ca without cA")
        except (ValueError, x509.ExtensionNotFound):
            raise Wrong("ca has something that is no certificate of an authority in PEM") from None
    return found


# --- notes ------------------------------------------------------------------------------------------------------------


@kept
def signed_note(note):
    """(text, ((name, id, signature), …))"""
    need(len(note.encode()) <= LONGEST, "a note that is too long")
    need(not any(c < " " and c != "\n" for c in note), "a control character in a note")
    need(note.endswith("\n"), "a note that does not end with its line")
    text, found, rest = note.rpartition("\n\n")
    need(found and rest, "a note without signatures")
    lines = []
    for line in rest[:-1].split("\n"):
        need(line.startswith("— "), "a signature line begins with U+2014 and a space")
        name, space, encoded = line[2:].partition(" ")
        need(space and is_name(name), "a signature line has a name and a signature")
        data = unbase64(encoded)
        need(len(data) >= 5, "a signature shorter than a key id and a byte")
        lines.append((name, data[:4], data[4:]))
    need(len(lines) <= LINES, "a note with too many signatures")
    return text + "\n", tuple(lines)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a note of a log says; nothing is believed yet."""

    text: str
    lines: tuple
    origin: str
    size: int
    root: bytes


@kept
def checkpoint(note):
    text, lines = signed_note(note)
    rows = text[:-1].split("\n")
    need(len(rows) >= 3 and all(rows), "a checkpoint has three lines, and no empty ones")
    root = unbase64(rows[2])
    need(len(root) == 32, "a root of other than 32 bytes")
    return Checkpoint(text, lines, rows[0], decimal(rows[1]), root)


def lines_of(point, key):
    return [signature for name, key_id, signature in point.lines if (name, key_id) == (key.name, key.id)]


@kept
def by_log(point, key):
    """That the log signed the checkpoint."""
    need(point.origin == key.name, "a checkpoint of another log")
    found = lines_of(point, key)
    need(found, "the log did not sign the checkpoint")
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key.public).verify(found[0], point.text.encode())
    except InvalidSignature:
        raise Wrong("the log's signature does not hold") from None


@kept
def cosigned(point, key):
    """When this key cosigned the checkpoint: None if it did not."""
    found = lines_of(point, key)
    if not found:
        return None
    stamp, signature = found[0][:8], found[0][8:]
    time = int.from_bytes(stamp, "big")
    refused = Wrong(f"the cosignature of {key} does not hold")
    if len(stamp) < 8 or time >= 1 << 63:
        raise refused
    try:
        if key.type == COSIGNATURE:
            message = f"cosignature/v1\ntime {time}\n{point.text}".encode()
            ed25519.Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
        else:
            name, origin = key.name.encode(), point.origin.encode()
            need(len(name) < 256 and len(origin) < 256, "a name longer than a cosignature can bind")
            message = (b"subtree/v1\n\0" + bytes([len(name)]) + name + stamp + bytes([len(origin)]) + origin
                       + bytes(8) + point.size.to_bytes(8, "big") + point.root)
            mldsa.MLDSA44PublicKey.from_public_bytes(key.public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise refused from None
    return time


@dataclass(frozen=True)
class Seen:
    """What the witnesses of a checkpoint say."""

    time: int
    witnesses: tuple
    ignored: tuple


@kept
def witnessed(point, trusted):
    """The witness rule for a checkpoint that the log signed (6)."""
    times, pq = {}, set()
    for key in trusted.witnesses:
        time = cosigned(point, key)
        if time:
            times[key.name] = min(time, times.get(key.name, time))
            if key.type == PQ_COSIGNATURE:
                pq.add(key.name)
    need(len(times) >= trusted.need, f"{len(times)} witnesses cosigned, {trusted.need} are needed")
    need(len(pq) >= trusted.pq_need, f"{len(pq)} witnesses cosigned by ML-DSA-44, {trusted.pq_need} are needed")
    known = {(k.name, k.id) for k in (trusted.log, *trusted.witnesses)}
    ignored = tuple(name for name, key_id, _ in point.lines if (name, key_id) not in known)
    return Seen(sorted(times.values())[trusted.need - 1], tuple(sorted(times.items(), key=lambda t: (t[1], t[0]))), ignored)


# --- proofs -----------------------------------------------------------------------------------------------------------


@kept
def tlog_proof(text):
    """(index, hashes, note)"""
    head, empty, note = text.partition("\n\n")
    rows = head.split("\n")
    need(empty and rows[0] == "c2sp.org/tlog-proof@v1", "not a tlog-proof")
    need(len(rows) >= 2 and rows[1].startswith("index "), "a tlog-proof without its index, or with something extra")
    hashes = tuple(unbase64(row) for row in rows[2:])
    need(len(hashes) <= HASHES and all(len(h) == 32 for h in hashes), "a hash of other than 32 bytes, or too many of them")
    return decimal(rows[1][6:]), hashes, note


@kept
def logged(text, kind, record, trusted):
    """The checkpoint under which the entry of a record is proven: signed by the log, its witnesses not yet looked at."""
    index, hashes, note = tlog_proof(text)
    point = checkpoint(note)
    by_log(point, trusted.log)
    for key in (trusted.log, *trusted.witnesses):
        need(len(lines_of(point, key)) <= 1, f"two signatures of {key}")
    included(leaf_hash(kind, sha(record)), index, point.size, hashes, point.root)
    return point


@kept
def proven(text, kind, record, trusted):
    """The same, and seen by the witnesses."""
    point = logged(text, kind, record, trusted)
    return point, witnessed(point, trusted)
