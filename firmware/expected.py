#!/usr/bin/env python3
"""Known answers for the firmware, from another AES-CCM than ours: writes src/expected.rs, or with --check compares it.

Needs the Python package `cryptography`. The contexts are those of docs/protocol.md 16.4 (V1, V4, V7); the run of EDHOC is V18,
as vectors/make.py computed it.
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

place = Path(__file__).parent / "src" / "expected.rs"
if sys.argv[1:] == ["--check"]:
    if place.read_text() != out.getvalue():
        sys.exit("expected.py: src/expected.rs is not what this computes")
    print("the known answers are what the second implementation computes")
else:
    place.write_text(out.getvalue())
