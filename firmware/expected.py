#!/usr/bin/env python3
"""Known answers for the firmware, from another AES-CCM than ours: writes src/expected.rs, or with --check compares it.

Needs the Python package `cryptography`. The contexts are those of docs/protocol.md 16.4 (V1, V4, V7); the run of EDHOC is V18,
as vectors/make.py computed it. The signed batch is of 32 readings of 40 bytes (13.1), its nonce that of RFC 6979.
"""
import hashlib
import hmac
import io
import json
import struct
import sys
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

NET = bytes(range(0xC0, 0xD0))
DEVICE, RELAY, GATEWAY = (bytes.fromhex(h) for h in ("acde480000000001", "70b3d54990000abc", "0013a20041b2c3d4"))
PAN, DEVICE_SID, RELAY_SID, GATEWAY_SID = 0x4321, 0x0A17, 0x0B02, 0x0001
SALT = bytes.fromhex("9e7ca92223786340")
SID, PIV = bytes.fromhex("0a17"), bytes.fromhex("012c")
READING = bytes([0x42]) * 40


def expand(prk, info, n):
    out, block, i = b"", b"", 1
    while len(out) < n:
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out, i = out + block, i + 1
    return out[:n]


def cbor(b):
    return bytes([0x40 | len(b)]) + b


def derive(secret, ident, kind, n):
    prk = hmac.new(SALT, secret, hashlib.sha256).digest()
    alg = bytes([11])
    length = bytes([n]) if n < 24 else bytes([24, n])
    return expand(prk, b"\x85" + cbor(ident) + b"\xf6" + alg + bytes([0x60 | len(kind)]) + kind + length, n)


class Context:
    def __init__(self, secret, peer):
        self.sender, self.recipient = derive(secret, SID, b"Key", 32), derive(secret, peer, b"Key", 32)
        self.iv = derive(secret, b"", b"IV", 13)
        external = b"\x85\x01\x81" + bytes([11]) + cbor(SID) + cbor(PIV) + b"\x40"
        self.aad = b"\x83\x68Encrypt0\x40" + cbor(external)
        partial = bytes([len(SID)]) + SID.rjust(7, b"\0") + PIV.rjust(5, b"\0")
        self.nonce = bytes(a ^ b for a, b in zip(self.iv, partial))

    def request(self, plain):
        return AESCCM(self.sender, tag_length=8).encrypt(self.nonce, plain, self.aad)

    def answer(self, plain):
        return AESCCM(self.recipient, tag_length=8).encrypt(self.nonce, plain, self.aad)


def sequence(seed):
    return hmac.new(bytes([seed]) * 32, b"hello" + (1).to_bytes(8, "big"), hashlib.sha256).digest()[0]


def fcs(data):
    crc = 0
    for b in data:
        crc ^= b
        for _ in range(8):
            crc = crc >> 1 ^ (0x8408 if crc & 1 else 0)
    return struct.pack("<H", crc)


def frame(did, source, destination, counter, seq, plain):
    head = struct.pack("<HBHHHBIB", 0x9869, seq, PAN, destination, source, 0x0E, counter, 1)
    nonce = did + struct.pack(">IB", counter, 6)
    sealed = head + AESCCM(NET, tag_length=8).encrypt(nonce, plain, head)
    return sealed + fcs(sealed)


def mesh(hops, originator, final):
    return struct.pack(">BHH", 0xB0 | hops, originator, final)


c3 = Context(bytes(range(32)), b"\x05")
c2 = Context(bytes(range(0x20, 0x40)), b"\xe2\x05")
assert c3.sender.hex() == "016a533ca7c7c0ee89c63d932e4a9f4aee1bcbd4c5673b778b4a14f7b2c2c1d9"
assert c2.sender.hex() == "efc8a1b4c6bbc5102f1b44612003bd14a04991c3741d4f5c67606dad0c65b551"
V2 = b"\x22" + PIV + c3.request(bytes.fromhex("02ff840118d7182d1825"))
assert V2.hex() == "22012c6b2efbb9e120be077d6dc0b1d4d9f5301d38"
assert c3.answer(b"\x44").hex() == "bf7d614f50a9a7d2ad"
V7 = frame(DEVICE, DEVICE_SID, GATEWAY_SID, 5, 0x84, mesh(5, DEVICE_SID, GATEWAY_SID) + V2)
assert V7[:-2].hex().endswith("5603b2a72d5f99ab")

ct3 = c3.request(b"\x02\xff" + READING)
up = {
    "E1": b"\x1a" + PIV + READING,
    "E1_E3": b"\x22" + PIV + ct3,
    "E1_E2_E3": b"\x32" + PIV + c2.request(b"\x01" + ct3),
}
an3 = c3.answer(b"\x44")
down = {"E1": b"\x01\x2c" + an3, "E1_E3": b"\x01\x2c" + an3, "E1_E2_E3": b"\x03\x2c" + c2.answer(b"\x01" + an3)}

out = io.StringIO()
out.write("//! Known answers. Written by expected.py, from another AES-CCM than ours.\n")


def const(doc, name, value):
    out.write(f"\n/// {doc}\npub const {name}: &[u8] = &[\n")
    for at in range(0, len(value), 16):
        out.write("    " + " ".join(f"0x{b:02x}," for b in value[at : at + 16]) + "\n")
    out.write("];\n")


for name in up:
    words = name.replace("_", "+")
    sealed = frame(DEVICE, DEVICE_SID, RELAY_SID, 5, sequence(1), mesh(5, DEVICE_SID, GATEWAY_SID) + up[name])
    onward = frame(RELAY, RELAY_SID, GATEWAY_SID, 77, sequence(2), mesh(4, DEVICE_SID, GATEWAY_SID) + up[name])
    answer = frame(RELAY, RELAY_SID, DEVICE_SID, 78, 9, mesh(4, GATEWAY_SID, DEVICE_SID) + down[name])
    const(f"What the device sends to the relay: {words}.", f"{name}_SEALED", sealed)
    const(f"What the relay makes of it: {words}.", f"{name}_ONWARD", onward)
    const(f"An answer as the relay hands it to the device: {words}.", f"{name}_ANSWER", answer)

own = json.loads((Path(__file__).parent.parent / "vectors" / "own.json").read_text())
run = next(case for case in own["vectors"] if case["id"] == "V18")
for key, doc in {
    "credential_device": "CRED_I of V18; its last 32 bytes are the device's public key.",
    "credential_cloud": "CRED_R of V18; its last 32 bytes are the cloud's public key.",
    "message_1": "What the device offers in V18.",
    "message_2": "What the cloud answers.",
    "message_3": "What the device proves.",
    "message_4": "What the cloud confirms.",
    "ms3": "MS3, root_psk mixed in.",
    "e2_root": "K_e2root, root_psk mixed in.",
}.items():
    const(doc, "V18_" + key.upper(), bytes.fromhex(run[key]))

def head(major, n):
    return bytes([major << 5 | n]) if n < 24 else bytes([major << 5 | 24, n]) if n < 256 else bytes([major << 5 | 25]) + n.to_bytes(2, "big")


def uint(n):
    return head(0, n)


def bstr(b):
    return head(2, len(b)) + b


def merkle(leaves):
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + merkle(leaves[:k]) + merkle(leaves[k:])).digest()


# P-256 in integers, and the nonce of RFC 6979 3.2 with SHA-256.
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
Q = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def plus(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    if a == b:
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def times(k, point):
    out = None
    while k:
        if k & 1:
            out = plus(out, point)
        k, point = k >> 1, plus(point, point)
    return out


def ecdsa(private, message):
    def mac(key, data):
        return hmac.new(key, data, hashlib.sha256).digest()

    digest = hashlib.sha256(message).digest()
    z = int.from_bytes(digest, "big")
    seed = private.to_bytes(32, "big") + (z % Q).to_bytes(32, "big")
    v, k = b"\1" * 32, b"\0" * 32
    for mark in (b"\0", b"\1"):
        k = mac(k, v + mark + seed)
        v = mac(k, v)
    v = mac(k, v)
    nonce = int.from_bytes(v, "big")
    assert 0 < nonce < Q
    r = times(nonce, G)[0] % Q
    return r.to_bytes(32, "big") + (pow(nonce, -1, Q) * (z + r * private) % Q).to_bytes(32, "big")


K_BLIND, SIGNING = bytes(range(0x40, 0x60)), int.from_bytes(bytes(range(0xA0, 0xC0)), "big")
who = uint(3) + bstr(DEVICE) + uint(5) + bstr(b"")
leaves = []
for number in range(300, 332):
    salt = expand(K_BLIND, b"leaf" + number.to_bytes(8, "big"), 16)
    tbs = head(4, 7) + b"\x62r1" + who + uint(number) + bstr(READING)
    leaves.append(hashlib.sha256(b"\0" + salt + tbs).digest())
statement = head(4, 10) + b"\x62b1" + who + uint(1) + uint(300) + bstr(b"\xff" * 4) + bstr(merkle(leaves)) + bstr(bytes(32))
public = times(SIGNING, G)
spki = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004") + b"".join(c.to_bytes(32, "big") for c in public)
protected = b"\xa2\x01\x28\x04" + bstr(hashlib.sha256(spki).digest()[:8])
signed = b"\x84\x6aSignature1" + bstr(protected) + bstr(b"iotsec-batch-v1") + bstr(statement)
const("What a device says of 32 readings.", "SIGNED_STATEMENT", statement)
const("Its signature over that.", "SIGNED_SIGNATURE", ecdsa(SIGNING, signed))

place = Path(__file__).parent / "src" / "expected.rs"
if sys.argv[1:] == ["--check"]:
    if place.read_text() != out.getvalue():
        sys.exit("expected.py: src/expected.rs is not what this computes")
    print("the known answers are what the second implementation computes")
else:
    place.write_text(out.getvalue())
