#!/usr/bin/env python3
"""A second verifier of evidence, written from docs/evidence.md and nothing else.

    verify.py FILE... --trust TRUST

Prints one JSON object for each reading, one a line. Exits 0 when all are proven, 1 when one is refused, 2 when one cannot be
read (or the trust file cannot).
"""

import argparse
import json
import sys
from dataclasses import dataclass, field

import cbor2

import chain
import note
import oscore
import timestamp
from forms import (
    PS256, Wrong, included, is_bytes, is_list, is_uint, item, items, kept, kid8, leaf_hash, need, sha, sign1, signed,
    well_formed,
)

STEPS = ("decode", "leaf", "path", "statement", "signature", "chain", "enrolment", "policy", "log", "witnesses", "revocation",
         "receipts", "timestamps")


class Refused(Exception):
    def __init__(self, step, reason):
        super().__init__(f"{step}: {reason}")
        self.step, self.reason = step, reason


def at(step, check, *arguments):
    try:
        return check(*arguments)
    except Wrong as e:
        raise Refused(step, str(e)) from None
    except Exception as e:  # what a library throws over bytes from outside is no proof either
        raise Refused(step, f"{type(e).__name__}: {e}") from e


# --- decode (5) -------------------------------------------------------------------------------------------------------


MOST = 16


def maps(data):
    """The bundles of a file, their shape checked."""
    need(0 < len(data) <= 64 << 20, "an empty file, or one of more than 64 MiB")
    found = items(data, 1 << 20)
    for bundle in found:
        _shape(bundle)
    return found


def _shape(b):
    need(type(b) is dict and all(type(k) is int for k in b) and list(b) == list(range(1, 13)), "not a map with the keys 1 to 12")
    need(b[1] == "evb1", "not of version evb1")
    need(is_list(b[2], 2) and is_bytes(b[2][0]) and is_bytes(b[2][1], 16), "item 2 is not [tbs, salt]")
    need(is_list(b[3], 3), "item 3 is not [index, size, hashes]")
    _path(b[3], "item 3")
    need(is_bytes(b[4]), "item 4 is no byte string")
    _certificates(b[5], "item 5")
    for key in (6, 10, 11):
        need(is_list(b[key], 2) and is_bytes(b[key][0]) and type(b[key][1]) is str, f"item {key} is not [record, tlog-proof]")
    need(type(b[7]) is str, "item 7 is no text")
    need(b[8] is None or is_list(b[8], 2) and is_uint(b[8][0]) and is_bytes(b[8][1]), "item 8 is not null or [id, definition]")
    need(is_list(b[9]) and len(b[9]) <= MOST, "item 9 is no list, or too long")
    for r in b[9]:
        need(is_list(r, 7) and is_bytes(r[0]) and is_bytes(r[1]) and type(r[5]) is str, "a receipt of another form")
        _path(r[2:5], "a receipt")
        _certificates(r[6], "a receipt")
    need(is_list(b[12]) and len(b[12]) <= MOST, "item 12 is no list, or too long")
    for t in b[12]:
        need(is_list(t, 3) and is_bytes(t[0]) and is_list(t[2]) and len(t[2]) <= 8 and all(map(is_bytes, t[2])),
             "a timestamp is not [token, certificates, revocation lists]")
        _certificates(t[1], "a timestamp")


def _path(parts, where):
    index, size, hashes = parts
    need(is_uint(index) and is_uint(size) and is_list(hashes) and len(hashes) <= 65 and all(is_bytes(h, 32) for h in hashes),
         f"{where}: no path")


def _certificates(found, where):
    need(is_list(found) and 1 <= len(found) <= chain.MOST and all(map(is_bytes, found)), f"{where}: no certificates")


# --- what devices and gateways sign (2, 3) ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    subject: tuple  # level, did, epoch, bctx
    piv: int
    payload: bytes


def _subject(level, did, epoch, bctx):
    need(type(level) is int and level in (2, 3), "a level other than 2 and 3")
    need(is_bytes(did, 8) and is_uint(epoch, 1 << 16) and is_bytes(bctx, 0, 8), "did, epoch or bctx of another form")
    return level, did, epoch, bctx


@kept
def reading(tbs):
    parts = item(tbs)
    need(is_list(parts, 7) and parts[0] == "r1", "not an r1")
    need(is_uint(parts[5]) and is_bytes(parts[6]), "PIV or payload of another form")
    return Reading(_subject(*parts[1:5]), parts[5], parts[6])


@dataclass(frozen=True)
class Statement:
    subject: tuple
    batch: int
    first: int
    bitmap: int
    bits: int
    root: bytes


@kept
def statement(cose):
    parts = item(sign1(cose)[2])
    need(is_list(parts, 10) and parts[0] == "b1", "not a b1")
    need(is_uint(parts[5]) and is_uint(parts[6]), "batch_no or first_piv of another form")
    need(is_bytes(parts[7]) and 1 <= len(parts[7]) <= 8, "a bitmap of other than 1 to 8 bytes")
    need(is_bytes(parts[8], 32) and is_bytes(parts[9], 32), "root or prev of another form")
    return Statement(_subject(*parts[1:5]), parts[5], parts[6], int.from_bytes(parts[7], "little"), 8 * len(parts[7]), parts[8])


def agrees(r, s, index, size):
    need(r.subject == s.subject, "reading and statement name another level, device, epoch or boot")
    bit = r.piv - s.first
    need(0 <= bit < s.bits and s.bitmap >> bit & 1, "the batch does not have this number")
    need(size == s.bitmap.bit_count(), "the batch has another size")
    need(index == (s.bitmap & ((1 << bit) - 1)).bit_count(), "the reading has another place in the batch")


@kept
def receipt(cose):
    parts = item(sign1(cose)[2])
    need(is_list(parts, 8) and parts[0] == "g1", "not a g1")
    need(is_bytes(parts[1], 4) and is_bytes(parts[2], 8) and is_bytes(parts[5], 32), "gw, boot or root of another form")
    need(all(is_uint(parts[i]) for i in (3, 4, 6, 7)), "numbers or times of another form")
    return parts


@kept
def envelope(data):
    e = item(data)
    need(type(e) is dict and all(type(k) is int for k in e) and {1, 2, 3, 4, 5, 9} <= set(e) <= set(range(1, 12)),
         "an envelope with other keys")
    need(is_uint(e[1]) and is_uint(e[2]) and is_uint(e[3], 8) and e[3] and is_bytes(e[4]), "items 1 to 4 of an envelope")
    need(is_bytes(e[5], 6) or type(e[5]) is str, "an envelope without an originator")
    need(6 not in e or type(e[6]) is int and -(1 << 15) <= e[6] < 1 << 15, "item 6 of an envelope")
    need(all(is_uint(e[k], limit) for k, limit in ((7, 256), (9, 6), (10, 256), (11, 255)) if k in e) and e.get(11, 1),
         "items 7, 9, 10 or 11 of an envelope")
    need(8 in e or e[3] not in (2, 7), "kinds 2 and 7 have item 8")
    if 8 in e:
        o = e[8]
        need(type(o) is dict and all(type(k) is int for k in o) and {1, 2, 4} <= set(o) <= {1, 2, 3, 4}, "item 8 of an envelope")
        need(is_bytes(o[1], 2) and is_uint(o[2]) and is_bytes(o.get(3, bytes(8)), 8) and is_uint(o[4], 1 << 16),
             "item 8 of an envelope")
        need(e[3] != 7 or 3 not in o and o[4] == 0, "item 8 of an envelope of kind 7")
    return e


# --- records (4) ------------------------------------------------------------------------------------------------------


@kept
def enrolment(record):
    e = item(record)
    need(is_list(e, 6) and e[0] == "en" and is_bytes(e[1], 8) and is_uint(e[2], 1 << 32) and is_uint(e[3], 1 << 16)
         and is_bytes(e[4]) and is_uint(e[5], 4), "not an enrolment")
    return e


@kept
def revocations(record):
    e = item(record)
    need(is_list(e, 3) and e[0] == "rv" and is_uint(e[1]) and is_list(e[2]), "not a list of revocations")
    need(all(is_list(r, 2) and is_bytes(r[0], 8) and is_uint(r[1]) for r in e[2]), "not a list of revocations")
    _ascending([r[0] for r in e[2]])
    return {kid: when for kid, when in e[2]}


@kept
def settings(record):
    e = item(record)
    need(is_list(e, 4) and e[0] == "cf" and is_bytes(e[1], 8) and is_bytes(e[2]) and is_list(e[3]), "not a policy record")
    need(all(is_list(t, 2) and is_uint(t[0]) and is_bytes(t[1], 32) for t in e[3]), "not a policy record")
    _ascending([t[0] for t in e[3]])
    return e


def _ascending(keys):
    need(all(a < b for a, b in zip(keys, keys[1:])), "a list that is not in order")


def uses(payload, template):
    """That an item of the payload is an array whose first element is this id."""
    begin, found = 0, False
    for end in well_formed(payload):
        head = payload[begin]
        if head >> 5 == 4 and head != 0x80:
            width = {24: 1, 25: 2, 26: 4, 27: 8}.get(head & 31, 0)
            first = payload[begin + 1 + width:end]
            if first and first[0] >> 5 == 0:
                width = {24: 1, 25: 2, 26: 4, 27: 8}.get(first[0] & 31, 0)
                found |= (int.from_bytes(first[1:1 + width], "big") if width else first[0] & 31) == template
        begin = end
    need(found, "the payload does not use this template")


def values(payload, shown):
    """What the rows of the template in item 8 say, with names and units; nothing where its definition is none, or fits no row.
    Values that are missing are left out."""
    try:
        template, *columns = item(shown[1])
    except (Wrong, TypeError, ValueError):
        return []
    if not all(is_list(c, 2) and type(c[0]) is str and type(c[1]) in (str, type(None)) for c in columns):
        return []
    found, begin = [], 0
    for end in well_formed(payload):
        try:
            row = cbor2.loads(payload[begin:end])
        except Exception:  # of a library, over bytes from outside
            row = None
        begin = end
        if is_list(row, 1 + len(columns)) and is_uint(row[0]) and row[0] == template:
            found += [{"name": name, "unit": unit, "value": v.hex() if is_bytes(v) else v}
                      for (name, unit), v in zip(columns, row[1:]) if v is not None]
    return found


# --- the steps (7) ----------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    verdict: str
    step: str | None = None
    reason: str | None = None
    device: str | None = None
    level: int | None = None
    epoch: int | None = None
    piv: int | None = None
    batch: int | None = None
    order: int | None = None
    payload: str | None = None
    values: list = field(default_factory=list)
    existed_before: int | None = None
    witnesses: list = field(default_factory=list)
    heard: list = field(default_factory=list)
    timestamps: list = field(default_factory=list)
    revoked_later: int | None = None
    ignored: list = field(default_factory=list)
    not_proven: list = field(default_factory=list)


NOT_PROVEN = (
    "where the sensor was, what it was attached to, and whether it was calibrated",
    "any time before which the reading did not exist",
    "whether a witness stands outside the operator's control",
    "that there is no newer list of revoked keys: only the log itself can tell",
    "that a gateway's clock was right, nor that a message sealed for the cloud, which shows its boot and number alone, held this "
    "reading: what it heard is its own claim",
)
KEY_NOT_PROVEN = (
    "that the key was only ever in the sensor: how it was made is not known",
    "that the key was only ever in the sensor: it was made on the device, and not in a secure element",
    "that the key is in a secure element, but by the operator's word at enrolment",
    "that the key was only ever in the sensor: it was made elsewhere",
)


def verify(bundle, trusted):
    """The answer about one bundle of `maps`."""
    answer = Answer(verdict="proven", not_proven=list(NOT_PROVEN))
    try:
        _steps(bundle, trusted, answer)
        return answer
    except Refused as e:
        return Answer(verdict="refused", step=e.step, reason=e.reason)


def _steps(b, trusted, answer):
    tbs, salt = b[2]
    r = at("leaf", reading, tbs)
    answer.level, did, answer.epoch, bctx = r.subject
    answer.device, answer.piv, answer.payload = did.hex(), r.piv, r.payload.hex()

    index, size, hashes = b[3]
    s = at("statement", statement, b[4])
    at("path", included, leaf_hash(salt, tbs), index, size, hashes, s.root)
    at("statement", agrees, r, s, index, size)
    answer.batch, answer.order = s.batch, index

    certificates = tuple(b[5])
    spki = at("chain", chain.spki, certificates[0])
    at("signature", _classic, b[4], r.payload, did)
    at("signature", signed, b[4], spki, b"iotsec-batch-v1")
    at("chain", chain.stands, certificates, chain.device(did), trusted.ca)

    en = at("enrolment", enrolment, b[6][0])
    at("enrolment", need, en[1] == did, "the enrolment is that of another device")
    at("enrolment", need, en[4] == spki, "the enrolment is that of another key")
    at("enrolment", note.proven, b[6][1], b"en", b[6][0], trusted)
    answer.not_proven.insert(0, KEY_NOT_PROVEN[en[5]])

    at("policy", _policy, b, did, r.payload, trusted)
    answer.values = values(r.payload, b[8]) if b[8] is not None else []

    point = at("log", note.logged, b[7], b"b1", b[4], trusted)
    seen = at("witnesses", note.witnessed, point, trusted)

    revoked = at("revocation", revocations, b[10][0])
    later, _ = at("revocation", note.proven, b[10][1], b"rv", b[10][0], trusted)
    at("revocation", need, later.size >= point.size, "the list of revocations is older than the batch")
    when = revoked.get(kid8(spki))
    at("revocation", need, when is None or when > seen.time, "the key was revoked before a witness saw the batch")
    at("revocation", chain.valid_at, certificates, seen.time)

    heard = [at("receipts", _heard, e, r, en, revoked, trusted) for e in b[9]]
    stamps = [at("timestamps", timestamp.verified, t[0], tuple(t[1]), tuple(t[2]), sha(note.tlog_proof(b[7])[2].encode()),
                 trusted.timestamps) for t in b[12]] if trusted.timestamps else []

    answer.existed_before, answer.revoked_later = seen.time, when
    answer.witnesses = [{"name": name, "time": time} for name, time in seen.witnesses]
    answer.heard, answer.timestamps, answer.ignored = heard, stamps, list(seen.ignored)
    if b[12] and not trusted.timestamps:
        answer.not_proven.append("what the timestamps say: no authority for them is pinned")


def _classic(cose, payload, did):
    """By RSA classic nodes alone sign, and what they sign are their binary frames."""
    if sign1(cose)[0] == PS256:
        need(len(payload) >= 13 and payload[:3] == b"<=>" and 1 <= payload[3] <= 8 and len(payload) == payload[4] + 5
             and payload[5:13] == did, "RSA is for classic nodes, and the reading is no frame of this one")


def _policy(b, did, payload, trusted):
    record = settings(b[11][0])
    need(record[1] == did, "the policy is that of another device")
    note.proven(b[11][1], b"cf", b[11][0], trusted)
    if b[8] is not None:
        template, definition = b[8]
        need([template, sha(definition)] in record[3], "a template that the device was not set to")
        uses(payload, template)


def _heard(element, r, en, revoked, trusted):
    cose, data, index, size, hashes, proof, certificates = element
    g, e = receipt(cose), envelope(data)
    need(size == g[4], "the receipt is over another number of envelopes")
    included(leaf_hash(data), index, size, hashes, g[5])
    spki = chain.spki(certificates[0])
    need(sign1(cose)[0] != PS256, "a gateway's key is no RSA key")
    signed(cose, spki, b"iotsec-receipt-v1")
    chain.stands(tuple(certificates), chain.gateway(en[2], g[1]), trusted.ca)
    sid = en[3].to_bytes(2, "big")
    need(e[5] == en[2].to_bytes(4, "big") + sid, "the envelope is of another originator")
    _, seen = note.proven(proof, b"g1", cose, trusted)
    chain.valid_at(tuple(certificates), seen.time)
    when = revoked.get(kid8(spki))
    need(when is None or when > seen.time, "the gateway's key was revoked before a witness saw the receipt")
    level, _, epoch, bctx = r.subject
    if level == 3:
        need(e[3] in (1, 6), "the envelope holds another kind of message")
        need(oscore.names(e[4], e[3] == 6) == (sid, r.piv, bctx), "the envelope holds another message")
    else:
        need(e[3] == 2, "the envelope holds another kind of message")
        o = e[8]
        need((o[1], o[2], o[4], o.get(3, b"")) == (sid, r.piv, epoch, bctx) and e[4] == b"\x02\xff" + r.payload,
             "the envelope holds another message")
    return {"gateway": g[1].hex(), "net": f"{en[2]:08x}", "at_ms": e[2]}


# --- files ------------------------------------------------------------------------------------------------------------


def verify_file(data, trusted):
    """The answers about the bundles of a file."""
    try:
        bundles = maps(data)
    except Wrong as e:
        return [Answer(verdict="unreadable", step="decode", reason=str(e))]
    return [verify(b, trusted) for b in bundles]


EXIT = {"proven": 0, "refused": 1, "unreadable": 2}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE", nargs="+")
    parser.add_argument("--trust", required=True)
    options = parser.parse_args()
    code = 0
    try:
        trusted = note.trust(options.trust)
        for path in options.files:
            with open(path, "rb") as f:
                for answer in verify_file(f.read(), trusted):
                    print(json.dumps(vars(answer), ensure_ascii=False))
                    code = max(code, EXIT[answer.verdict])
    except (Wrong, OSError) as e:
        print(f"verify.py: {e}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
