#!/usr/bin/env python3
"""A second implementation of docs/protocol.md, in Python, that shares nothing with the first but the text.

    make.py            compute own.json, key-message.json and hardened.json of this folder again and compare them with the
                       committed files byte by byte, look up each value of own.json in docs/protocol.md 16.4, and compute
                       every value of standards/*.json that follows from inputs given there
    make.py --write    write own.json, key-message.json and hardened.json anew (then read the difference before committing it)
    make.py --key-messages FILE
                       open the RSA key messages of FILE, which another implementation made, and compute their answers

Primitives come from `cryptography`, CBOR from `cbor2`. Exits 0 when everything agrees, 1 when anything differs.
"""

import base64
import hashlib
import hmac
import json
import re
import sys
from pathlib import Path

import cbor2
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import hardened
import key_message

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / "docs" / "protocol.md"
OWN = HERE / "own.json"

h = bytes.fromhex


def cbor(value):
    return cbor2.dumps(value, canonical=True)


def sha256(data):
    return hashlib.sha256(data).digest()


def expand(key, info, length):
    return HKDFExpand(hashes.SHA256(), length, info).derive(key)


# --- OSCORE (RFC 8613) ------------------------------------------------------------------------------------------------


class Context:
    """One endpoint's view: it sends as `sender`."""

    def __init__(self, secret, salt, sender, recipient, alg=11, id_context=None):
        self.alg, self.sender, self.recipient, self.id_context = alg, sender, recipient, id_context
        length = {10: 16, 11: 32}[alg]

        def derive(name, kind, size):
            info = cbor([name, id_context, alg, kind, size])
            return HKDF(hashes.SHA256(), size, salt, info).derive(secret)

        self.sender_key = derive(sender, "Key", length)
        self.recipient_key = derive(recipient, "Key", length)
        self.common_iv = derive(b"", "IV", 13)

    def nonce(self, kid, piv):
        plain = bytes([len(kid)]) + kid.rjust(7, b"\0") + piv.rjust(5, b"\0")
        return bytes(a ^ b for a, b in zip(plain, self.common_iv))

    def aad(self, kid, piv):
        return cbor(["Encrypt0", b"", cbor([1, [self.alg], kid, piv, b""])])

    def seal(self, plaintext, request_kid, request_piv, piv=None, kid=None):
        """`piv` None: an answer that takes the request's number."""
        nonce = self.nonce(request_kid, request_piv) if piv is None else self.nonce(kid or self.sender, piv)
        return AESCCM(self.sender_key, 8).encrypt(nonce, plaintext, self.aad(request_kid, request_piv))


def piv_bytes(number):
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def oscore_option(piv=b"", kid=None, id_context=None):
    flags = len(piv) | (0x08 if kid is not None else 0) | (0x10 if id_context is not None else 0)
    if not flags:
        return b""
    scope = bytes([len(id_context)]) + id_context if id_context is not None else b""
    return bytes([flags]) + piv + scope + (kid or b"")


def coap(kind, code, mid, token, option, ciphertext):
    head = bytes([0x40 | {"CON": 0, "NON": 1}[kind] << 4 | len(token), code]) + mid.to_bytes(2, "big") + token
    length = bytes([0x90 | len(option)]) if len(option) < 13 else bytes([0x9D, len(option) - 13])
    return head + length + option + b"\xff" + ciphertext


def tiny_request(layers, answer, piv, ciphertext, kid=b"", bctx=None):
    n = 0 if bctx else len(piv)
    head = bytes([0x20 | layers << 3 | answer << 2 | n])
    return head + (bytes([len(piv)]) + piv + bctx if bctx else piv) + kid + ciphertext


def expand_tiny(tiny, link_kid, kid_length):
    """The exact RFC 8613 message that a tiny frame stands for (docs/protocol.md 6)."""
    rule, rest = tiny[0], tiny[1:]
    if 0x20 <= rule < 0x40:
        answer, n = rule >> 2 & 1, rule & 3
        bctx = None
        if n:
            piv, rest = rest[:n], rest[n:]
        else:
            n = rest[0]
            piv, bctx, rest = rest[1 : 1 + n], rest[1 + n : 9 + n], rest[9 + n :]
        kid, rest = (rest[:2], rest[2:]) if kid_length == 2 else (link_kid, rest)
        number = int.from_bytes(piv, "big")
        token = bytes([number % 256]) if answer else b""
        return coap("CON" if answer else "NON", 2, number % 65536, token, oscore_option(piv, kid, bctx), rest)
    token, rest = rest[:1], rest[1:]
    piv = b""
    if rule in (5, 6, 7, 9, 10, 11):
        piv, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    if rule in (9, 10, 11):
        return coap("NON", 2, int.from_bytes(piv, "big") % 65536, token, oscore_option(piv, link_kid), rest)
    return coap("NON", 0x44, 0, token, oscore_option(piv), rest)


# --- 802.15.4 CCM* ----------------------------------------------------------------------------------------------------


def ccm_star(key, eui64, counter, level, aad, plaintext):
    nonce = eui64 + counter.to_bytes(4, "big") + bytes([level])
    return AESCCM(key, {5: 4, 6: 8, 7: 16}[level]).encrypt(nonce, plaintext, aad)


def fcs(frame):
    crc = 0
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x8408 if crc & 1 else crc >> 1
    return crc.to_bytes(2, "little")


# --- Merkle trees (RFC 9162 2.1), by the recursive definitions ---------------------------------------------------------


def leaf_hash(data):
    return sha256(b"\0" + data)


def split(n):
    return 1 << (n - 1).bit_length() - 1


def tree_hash(leaves):
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return sha256(b"\1" + tree_hash(leaves[:k]) + tree_hash(leaves[k:]))


def path(m, leaves):
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return path(m, leaves[:k]) + [tree_hash(leaves[k:])]
    return path(m - k, leaves[k:]) + [tree_hash(leaves[:k])]


def subproof(m, leaves, whole=True):
    if m == len(leaves):
        return [] if whole else [tree_hash(leaves)]
    k = split(len(leaves))
    if m <= k:
        return subproof(m, leaves[:k], whole) + [tree_hash(leaves[k:])]
    return subproof(m - k, leaves[k:], False) + [tree_hash(leaves[:k])]


# --- COSE_Sign1 (RFC 9052) --------------------------------------------------------------------------------------------


def to_be_signed(protected, context, payload):
    return cbor(["Signature1", protected, context, payload])


def sign1(key, context, payload):
    """Deterministic: RFC 6979 for P-256, and Ed25519 as it is."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    alg = -19 if isinstance(key, ed25519.Ed25519PrivateKey) else -9
    protected = cbor({1: alg, 4: sha256(spki)[:8]})
    message = to_be_signed(protected, context, payload)
    if alg == -19:
        signature = key.sign(message)
    else:
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return message, cbor(cbor2.CBORTag(18, [protected, {}, payload, signature]))


def private_key(scalar):
    return ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())


def base45(before, data):
    """RFC 9285, behind what stands before it."""
    alphabet = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
    out = bytearray(before)
    for at in range(0, len(data), 2):
        pair = data[at : at + 2]
        value = int.from_bytes(pair, "big")
        out += bytes(alphabet[value // 45**n % 45] for n in range(len(pair) + 1))
    return bytes(out)


# --- EDHOC (RFC 9528), method 3, cipher suite 2 -----------------------------------------------------------------------


def identifier(value):
    """C_x, or ID_CRED_x that is a kid: one byte where that can be read as an integer of one byte."""
    short = len(value) == 1 and (value[0] <= 0x17 or 0x20 <= value[0] <= 0x37)
    return value if short else cbor(value)


def public_x(scalar):
    return private_key(scalar).public_key().public_numbers().x.to_bytes(32, "big")


def agree(scalar, x):
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x02" + x)
    return private_key(scalar).exchange(ec.ECDH(), point)


def credential(kid, x):
    return cbor({8: {1: {1: 2, 2: kid, -1: 1, -2: x}}})


def edhoc_kdf(prk, label, context, length):
    return expand(prk, cbor(label) + cbor(context) + cbor(length), length)


def encrypt0(prk, key_label, iv_label, th, plaintext):
    key, iv = edhoc_kdf(prk, key_label, th, 16), edhoc_kdf(prk, iv_label, th, 13)
    return key, iv, AESCCM(key, 8).encrypt(iv, plaintext, cbor(["Encrypt0", b"", th]))


def edhoc(x, y, i, r, c_i, c_r, kid_i, kid_r, cred_i, cred_r, suites=2):
    """Every value of a run, under the names of RFC 9528 and RFC 9529. x, y, i, r are private keys."""
    v = {"G_X": public_x(x), "G_Y": public_x(y)}
    v["message_1"] = cbor(3) + cbor(suites) + cbor(v["G_X"]) + identifier(c_i)
    v["H_message_1"] = sha256(v["message_1"])
    v["TH_2"] = sha256(cbor(v["G_Y"]) + cbor(v["H_message_1"]))
    v["G_XY"] = agree(x, v["G_Y"])
    v["PRK_2e"] = hmac.digest(v["TH_2"], v["G_XY"], "sha256")
    v["SALT_3e2m"] = edhoc_kdf(v["PRK_2e"], 1, v["TH_2"], 32)
    v["G_RX"] = agree(r, v["G_X"])
    v["PRK_3e2m"] = hmac.digest(v["SALT_3e2m"], v["G_RX"], "sha256")
    v["context_2"] = identifier(c_r) + cbor({4: kid_r}) + cbor(v["TH_2"]) + cred_r
    v["MAC_2"] = edhoc_kdf(v["PRK_3e2m"], 2, v["context_2"], 8)
    v["PLAINTEXT_2"] = identifier(c_r) + identifier(kid_r) + cbor(v["MAC_2"])
    v["KEYSTREAM_2"] = edhoc_kdf(v["PRK_2e"], 0, v["TH_2"], len(v["PLAINTEXT_2"]))
    v["CIPHERTEXT_2"] = bytes(a ^ b for a, b in zip(v["PLAINTEXT_2"], v["KEYSTREAM_2"]))
    v["message_2"] = cbor(v["G_Y"] + v["CIPHERTEXT_2"])
    v["TH_3"] = sha256(cbor(v["TH_2"]) + v["PLAINTEXT_2"] + cred_r)
    v["SALT_4e3m"] = edhoc_kdf(v["PRK_3e2m"], 5, v["TH_3"], 32)
    v["G_IY"] = agree(i, v["G_Y"])
    v["PRK_4e3m"] = hmac.digest(v["SALT_4e3m"], v["G_IY"], "sha256")
    v["context_3"] = cbor({4: kid_i}) + cbor(v["TH_3"]) + cred_i
    v["MAC_3"] = edhoc_kdf(v["PRK_4e3m"], 6, v["context_3"], 8)
    v["PLAINTEXT_3"] = identifier(kid_i) + cbor(v["MAC_3"])
    v["K_3"], v["IV_3"], v["CIPHERTEXT_3"] = encrypt0(v["PRK_3e2m"], 3, 4, v["TH_3"], v["PLAINTEXT_3"])
    v["message_3"] = cbor(v["CIPHERTEXT_3"])
    v["TH_4"] = sha256(cbor(v["TH_3"]) + v["PLAINTEXT_3"] + cred_i)
    v["K_4"], v["IV_4"], v["CIPHERTEXT_4"] = encrypt0(v["PRK_4e3m"], 8, 9, v["TH_4"], b"")
    v["message_4"] = cbor(v["CIPHERTEXT_4"])
    v["PRK_out"] = edhoc_kdf(v["PRK_4e3m"], 7, v["TH_4"], 32)
    v["PRK_exporter"] = edhoc_kdf(v["PRK_out"], 10, b"", 32)
    return v


# --- Our own vectors --------------------------------------------------------------------------------------------------

MS3, MS2, SALT = bytes(range(32)), bytes(range(32, 64)), h("9e7ca92223786340")
SID, EPOCH, DID, PAYLOAD = h("0a17"), h("05"), h("acde480000000001"), h("840118d7182d1825")
PIV = piv_bytes(300)
NET, GROUP = h("00000007"), h("00000001")
LINK_KEY = bytes(range(0xC0, 0xD0))
SIGNING_KEY = private_key(h("894e92be8e8da52c698ceaa248a1aeb49181f5694e321bfda97a41233ba31a64"))


def own_vectors():
    c3 = Context(MS3, SALT, SID, EPOCH)
    plaintext = b"\x02\xff" + PAYLOAD
    ct3 = c3.seal(plaintext, SID, PIV, PIV)
    oscore = coap("NON", 2, 300, b"", oscore_option(PIV, SID), ct3)
    yield "V1", "C3: keys, nonce, aad, and a request", {
        "sender_key": c3.sender_key,
        "recipient_key": c3.recipient_key,
        "common_iv": c3.common_iv,
        "nonce": c3.nonce(SID, PIV),
        "aad": c3.aad(SID, PIV),
        "oscore": oscore,
    }

    v2 = tiny_request(0, 0, PIV, ct3)
    v3 = tiny_request(0, 1, PIV, ct3, SID)
    assert expand_tiny(v2, SID, 0) == oscore
    yield "V2", "the same as a tiny frame, K = 0, A = 0", {"tiny": v2}
    yield "V3", "the same as a tiny frame, K = 2, A = 1", {"tiny": v3, "decompressed": expand_tiny(v3, SID, 2)}

    c2 = Context(MS2, SALT, SID, b"\xe2" + EPOCH)
    ct2 = c2.seal(b"\x01" + ct3, SID, PIV, PIV)
    yield "V4", "C2 around C3", {"sender_key": c2.sender_key, "tiny": tiny_request(2, 0, PIV, ct2)}

    peer = Context(MS3, SALT, EPOCH, SID)
    yield "V5", "answer 2.04 to V3, without PIV", {"tiny": b"\x01\x2c" + peer.seal(b"\x44", SID, PIV)}

    bctx = h("a1a2a3a4a5a6a7a8")
    booted = Context(MS3, SALT, SID, EPOCH, id_context=bctx)
    yield "V6", "mode R", {"tiny": tiny_request(0, 0, b"\0", booted.seal(plaintext, SID, b"\0", b"\0"), bctx=bctx)}

    header = h("6998842143010017 0a0e0500000001")
    yield "V7", "E1 frame without FCS", {
        "frame": header + ccm_star(LINK_KEY, DID, 5, 6, header, b"\xb5" + SID + h("0001") + v2)
    }
    prefix = h("1f0e0500000001")
    kid_tiny = tiny_request(0, 0, PIV, ct3, SID)
    yield "V8", "E1S, MIC-64", {"frame": prefix + ccm_star(LINK_KEY, DID, 5, 6, prefix, kid_tiny)}

    blind = bytes(range(0x40, 0x60))

    def salt(piv):
        return expand(blind, b"leaf" + piv.to_bytes(8, "big"), 16)

    def tbs(piv):
        return cbor(["r1", 3, DID, 5, b"", piv, PAYLOAD])

    leaves = {piv: leaf_hash(salt(piv) + tbs(piv)) for piv in (300, 301, 303)}
    yield "V9", "a leaf", {"salt": salt(300), "tbs": tbs(300), "leaf": leaves[300]}
    root = tree_hash(list(leaves.values()))
    statement = cbor(["b1", 3, DID, 5, b"", 1, 300, b"\x0b", root, bytes(32)])
    yield "V10", "a batch of PIV 300, 301, 303", {"root": root, "statement": statement}
    psk_key = expand(bytes(range(0x60, 0x80)), b"e5-pqmix-v1" + DID, 32)
    yield "V11", "pq_mix", {"mix": hmac.digest(psk_key, bytes(range(32)), "sha256")}

    yield "V12", "E1 alone, K = 0 and K = 2", {
        "tiny": bytes([0x18 | len(PIV)]) + PIV + PAYLOAD,
        "tiny_with_kid": bytes([0x18 | len(PIV)]) + PIV + SID + PAYLOAD,
    }

    record = {1: 15, 2: 11, 3: 0, 4: 0, 5: 1, 6: 0, 7: 32, 8: True, 9: 1, 10: 30}
    yield "V13", "a policy record, and its digest with key indexes [1, null]", {
        "record": cbor(record),
        "digest": sha256(cbor(record) + cbor([1, None]))[:8],
    }

    node = NET + SID
    sealed = cbor({1: 5, 2: 1790000000123, 3: 1, 4: oscore, 5: node, 6: -71, 7: 200, 9: 1, 10: 3, 11: 1})
    opened = {1: SID, 2: 300, 4: 0}
    plain = cbor({1: 6, 2: 1790000000456, 3: 7, 4: PAYLOAD, 5: node, 8: opened, 9: 1, 11: 1})
    yield "V14", "envelopes of kind 1 and kind 7", {"cloud": sealed, "plain": plain}

    receipt_root = tree_hash([leaf_hash(sealed), leaf_hash(plain)])
    receipt = cbor(
        ["g1", h("000000a1"), h("0102030405060708"), 5, 2, receipt_root, 1790000000123, 1790000000456]
    )
    message, signed = sign1(SIGNING_KEY, b"iotsec-receipt-v1", receipt)
    yield "V15", "the receipt over V14, signed by the test key of cose-sign1.json (RFC 6979)", {
        "root": receipt_root,
        "receipt": receipt,
        "to_be_signed": message,
        "cose_sign1": signed,
    }

    device = [SID, DID, record, 0]
    primary = [SID, 5, 11, 1, 1, MS2, SALT, None]
    secondary = [SID, 6, 11, 2, 2, c2.sender_key, c2.common_iv, None]
    yield "V16", "a gateway's state", {
        "state": cbor(
            {
                1: 12,
                2: NET,
                3: GROUP,
                4: [0, 1],
                5: [device],
                6: [primary, secondary],
                7: [[1, LINK_KEY, 2]],
                8: [h("acde480000000002")],
                9: [b"\x4a" * 16],
            }
        )
    }
    answer = expand_tiny(b"\x01\x2c" + peer.seal(b"\x44", SID, PIV), SID, 0)
    yield "V17", "a reply to the batch of V14, with the answer V5", {
        "reply": cbor({1: 6, 2: [[6, "E3-08"]], 3: [{1: 1, 2: node, 3: answer, 4: 5, 5: 1790000247000}]})
    }

    i, r, x, y = (bytes(range(start, start + 32)) for start in (0x80, 0xA0, 0xC0, 0xE0))
    cred_i, cred_r = credential(SID, public_x(i)), credential(b"\0", public_x(r))
    run = edhoc(x, y, i, r, EPOCH, SID, SID, b"\0", cred_i, cred_r)

    def export(label, length):
        return edhoc_kdf(run["PRK_exporter"], label, b"", length)

    def mixed(label):
        return hmac.digest(psk_key, export(label, 32), "sha256")

    yield "V18", "EDHOC with the cloud, payloads as RFC 9528 A.2, and what it gives", {
        "credential_device": cred_i,
        "credential_cloud": cred_r,
        "message_1": b"\xf5" + run["message_1"],
        "message_2": run["message_2"],
        "message_3": identifier(SID) + run["message_3"],
        "message_4": run["message_4"],
        "ms3": mixed(32771),
        "salt3": export(32772, 8),
        "e2_root": mixed(32769),
        "blind": mixed(32770),
        "ms3_alg_10": export(0, 16),
        "salt3_alg_10": export(1, 8),
        "local": export(0, 32),
        "local_blind": export(32770, 32),
    }

    x = public_x(i)
    asked = {1: 1, 2: DID, 3: x, 4: 1790000000, 5: sha256(DID + x)[:8]}
    grant = cbor({1: NET, 2: SID, 3: 0x4321, 4: GROUP, 5: 1, 6: record, 7: 0, 8: [0, public_x(r)], 9: [1, LINK_KEY],
                  10: bytes(range(0x60, 0x80))})
    bound = DID + x
    _, signed = sign1(SIGNING_KEY, b"fivefold-enrol-v1" + bound, grant)
    point = SIGNING_KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
    keys = HKDF(hashes.SHA256(), 45, bound, b"fivefold enrol v1" + public_x(y)).derive(agree(y, x))
    sealed = AESCCM(keys[:32], 8).encrypt(keys[32:], b"\x82" + cbor(point) + signed, bound)
    answer = cbor({1: 2, 2: DID, 3: public_x(y), 4: sealed})
    yield "V19", "enrolment: request, what is granted, the answer, and the request as text", {
        "request": cbor(asked),
        "grant": grant,
        "answer": answer,
        "text": base45(b"FV1:", cbor(asked)),
    }

    local = {**record, 1: 11, 8: False}
    yield "V20", "a gateway's state where it agrees keys alone: the device of V18", {
        "state": cbor(
            {
                1: 3,
                2: NET,
                3: GROUP,
                4: [0, 1],
                5: [[SID, DID, local, 0]],
                6: [],
                7: [[1, LINK_KEY, 2]],
                8: [],
                9: [],
                10: [[SID, public_x(i)]],
            }
        )
    }

    # The DH key of V19 and a signing key of its own.
    signer = private_key(bytes(range(0x21, 0x41)))
    own = signer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]

    def proof(dh):
        der = signer.sign(b"fivefold-signing-key-v1" + DID + dh + own, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        return b"".join(n.to_bytes(32, "big") for n in decode_dss_signature(der))

    yield "V21", "a signing key: asked for at enrolment, and by devices that are enrolled, with and without a DH key", {
        "enrols": cbor({**asked, 5: sha256(DID + x + own)[:8], 6: [own, proof(x)]}),
        "enrolled": cbor({1: 3, 2: DID, 3: x, 4: 1790000000, 5: sha256(DID + x + own)[:8], 6: [own, proof(x)]}),
        "bare": cbor({1: 3, 2: DID, 5: sha256(DID + own)[:8], 6: [own, proof(bytes(32))]}),
    }


def own_text():
    cases = [
        {"id": name, "title": title, **{key: value.hex() for key, value in values.items()}}
        for name, title, values in own_vectors()
    ]
    meta = {
        "source": "docs/protocol.md 16.4, made by vectors/make.py",
        "encoding": "lower-case hex",
        "notes": "inputs are those of 16.4; V7 and V8 reuse a nonce only because they are vectors; the test key is public, never use it",
    }
    return json.dumps({"meta": meta, "vectors": cases}, indent=1, ensure_ascii=False) + "\n"


# --- Checks -----------------------------------------------------------------------------------------------------------


class Checks:
    def __init__(self):
        self.passed, self.failed = 0, []

    def equal(self, what, computed, committed):
        if computed == committed:
            self.passed += 1
        else:
            show = lambda value: value.hex() if isinstance(value, bytes) else value
            self.failed.append(f"{what}\n  computed  {show(computed)}\n  committed {show(committed)}")

    def bytes(self, what, computed, committed):
        self.equal(what, computed, h(committed))


def read(name):
    return json.loads((HERE / "standards" / name).read_text())


def check_own(checks):
    text = own_text()
    checks.equal("vectors/own.json differs from what make.py computes", text, OWN.read_text() if OWN.exists() else "")
    block = DOCUMENT.read_text().split("16.4 Own vectors", 1)[1].split("```")[1]
    parts = re.split(r"(?m)^(V\d+) ", block)[1:]
    shown = {name: re.sub(r"\s+", " ", part) for name, part in zip(parts[::2], parts[1::2])}
    for case in json.loads(text)["vectors"]:
        for key, value in case.items():
            if key in ("id", "title"):
                continue
            if value.endswith("00" * 32):
                value = value[:-64]
            held = value in shown.get(case["id"], "")
            checks.equal(f"docs/protocol.md 16.4 {case['id']} does not show {key} = {value}", held, True)


def check_oscore(checks):
    book = read("oscore-own.json")
    contexts = {}
    for c in book["contexts"]:
        id_context = h(c["id_context"]) if c["id_context"] is not None else None
        args = (h(c["master_secret"]), h(c["master_salt"]))
        device = Context(*args, h(c["device_id"]), h(c["peer_id"]), c["alg"], id_context)
        peer = Context(*args, h(c["peer_id"]), h(c["device_id"]), c["alg"], id_context)
        contexts[c["id"]] = {"device": device, "peer": peer}
        checks.bytes(c["id"], device.sender_key, c["device_sender_key"])
        checks.bytes(c["id"], device.recipient_key, c["device_recipient_key"])
        checks.bytes(c["id"], device.common_iv, c["common_iv"])
    for m in book["messages"]:
        own = contexts[m["context"]][m["from"]]
        kid, request_piv = h(m["request_kid"]), h(m["request_piv"])
        piv = None if m["partial_iv"] is None else h(m["partial_iv"])
        ciphertext = own.seal(h(m["plaintext"]), kid, request_piv, piv)
        checks.bytes(f"{m['id']}: ciphertext", ciphertext, m["ciphertext"])
        checks.bytes(f"{m['id']}: aad", own.aad(kid, request_piv), m["aad"])
        scope = own.id_context if m["kid_context_sent"] else None
        option = oscore_option(piv or b"", own.sender if m["kind"] == "request" else None, scope)
        checks.bytes(f"{m['id']}: option", option, m["oscore_option"])
        code = 2 if m["kind"] == "request" else 0x44
        message = coap(m["type"], code, m["message_id"], h(m["token"]), option, ciphertext)
        checks.bytes(f"{m['id']}: message", message, m["protected_coap"])
    for t in book["tiny"]:
        layers = t["layers"]
        link = h(layers[0]["request_kid"]) if t["direction"] == "downlink-request" else h(t.get("link_kid", "0a17"))
        checks.bytes(f"tiny {t['id']}", expand_tiny(h(t["tiny"]), link, t.get("K", 0)), t["decompressed"])
        side = "device" if t["direction"] in ("uplink", "device-answer") else "peer"
        for layer in layers:
            own = contexts[layer["context"]][side]
            piv = None if layer["partial_iv"] is None else h(layer["partial_iv"])
            sealed = own.seal(h(layer["plaintext"]), h(layer["request_kid"]), h(layer["request_piv"]), piv)
            checks.bytes(f"tiny {t['id']}: {layer['context']}", sealed, layer["ciphertext"])


def check_rfc8613(checks):
    for c in read("rfc8613-oscore.json")["derivations"]:
        id_context = h(c["id_context"]) if c["id_context"] is not None else None
        own = Context(
            h(c["master_secret"]), h(c["master_salt"] or ""), h(c["sender_id"]), h(c["recipient_id"]), c["aead_alg"], id_context
        )
        checks.bytes(c["section"], own.sender_key, c["sender_key"])
        checks.bytes(c["section"], own.recipient_key, c["recipient_key"])
        checks.bytes(c["section"], own.common_iv, c["common_iv"])


def check_edhoc(checks):
    case = next(t for t in read("rfc9529-edhoc.json")["traces"] if t["method"] == 3)
    given = {name: h(value) for part in case.values() if isinstance(part, dict) for name, value in part.items() if isinstance(value, str)}
    run = edhoc(
        *(given[name] for name in ("X", "Y", "SK_I", "SK_R", "C_I", "C_R")),
        *(given[name][-1:] for name in ("ID_CRED_I", "ID_CRED_R")),
        *(given[name] for name in ("CRED_I_cbor", "CRED_R_cbor")),
        case["suites_initiator"],
    )
    for name, value in run.items():
        checks.equal(f"RFC 9529 3: {name}", value, given[name])
    secret, salt = (edhoc_kdf(run["PRK_exporter"], label, b"", length) for label, length in ((0, 16), (1, 8)))
    checks.equal("RFC 9529 3: OSCORE", (secret, salt), (given["OSCORE_Master_Secret"], given["OSCORE_Master_Salt"]))


def check_link(checks):
    book = read("ieee802154-ccm.json")
    for f in book["frames"] + book["frames_2015"] + book["e1s"]:
        sealed = ccm_star(h(f["key"]), h(f["source_eui64"]), f["frame_counter"], f["security_level"], h(f["aad"]), h(f["plaintext"]))
        checks.bytes(f["id"], sealed, f["ciphertext"] + f["mic"])
        checks.bytes(f["id"], h(f["aad"]) + sealed, f["frame"])
        if "fcs" in f:
            checks.bytes(f["id"], fcs(h(f["frame"])), f["fcs"])
    for c in read("nist-cavp-ccm.json")["cases"]:
        cipher = AESCCM(h(c["key"]), c["tag_bytes"])
        try:
            opened = cipher.decrypt(h(c["nonce"]), h(c["ciphertext_and_tag"]), h(c["aad"])).hex()
        except InvalidTag:
            opened = None
        checks.equal("NIST CAVP", opened, c["plaintext"] if c["valid"] else None)


def check_merkle(checks):
    book = read("merkle-rfc9162.json")
    seven = book["seven_leaf_example"]
    trees = [([leaf_hash(h(leaf)) for leaf in seven["leaves"]], seven["hash"], seven)]
    own = [leaf_hash(h(leaf)) for leaf in book["own_leaves"]]
    trees += [(own[: case["tree_size"]], case["root"], case) for case in book["own"]]
    for leaves, root, case in trees:
        checks.bytes("root", tree_hash(leaves), root)
        for proof in case["inclusion"]:
            checks.equal("inclusion", [x.hex() for x in path(proof["leaf_index"], leaves)], proof["proof"])
        for proof in case["consistency"]:
            checks.equal("consistency", [x.hex() for x in subproof(proof["size1"], leaves)], proof["proof"])


def check_cose(checks):
    for case in read("cose-sign1.json")["own"]:
        secret = h(case["key"]["d"])
        is_ed25519 = case["key"]["kty"] == "OKP"
        key = ed25519.Ed25519PrivateKey.from_private_bytes(secret) if is_ed25519 else private_key(secret)
        checks.equal(case["id"], strictly_verified(case, key.public_key()), case["verifies"])
        if case["verifies"]:
            message, signed = sign1(key, h(case["external_aad"]), h(case["payload"]))
            checks.bytes(case["id"], message, case["to_be_signed"])
            checks.bytes(case["id"], signed, case["cose_sign1"])


def strictly_verified(case, key):
    cose = cbor2.loads(h(case["cose_sign1"]))
    if not isinstance(cose, cbor2.CBORTag) or cose.tag != 18:
        return False
    protected, unprotected, payload, signature = cose.value
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    alg = -19 if isinstance(key, ed25519.Ed25519PublicKey) else -9
    if protected != cbor({1: alg, 4: sha256(spki)[:8]}) or unprotected or payload is None or len(signature) != 64:
        return False
    message = to_be_signed(protected, h(case["external_aad"]), payload)
    try:
        if alg == -19:
            key.verify(signature, message)
        else:
            r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


LABELS = {"bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6, "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "vd": 8}
LABELS |= {"s": 5, "t": 6, "ut": 7}


def check_senml(checks):
    book = read("senml-rfc8428.json")

    def value(label, item):
        if label == "vd":
            return base64.urlsafe_b64decode(item + "=" * (-len(item) % 4))
        return int(item) if isinstance(item, float) and item.is_integer() else item

    for case in book["cases"] + book["own"]:
        pack = [{LABELS[label]: value(label, item) for label, item in record.items()} for record in case["json"]]
        checks.bytes(case["name"], cbor(pack), case["cbor_deterministic"])


CHECKS = {
    "own": check_own,
    "key messages": key_message.check,
    "hardened": hardened.check,
    "oscore": check_oscore,
    "rfc 8613": check_rfc8613,
    "edhoc": check_edhoc,
    "link": check_link,
    "merkle": check_merkle,
    "cose": check_cose,
    "senml": check_senml,
}


def main():
    args, checks = sys.argv[1:], Checks()
    if args == ["--write"]:
        for file, text in ((OWN, own_text()), (key_message.FILE, key_message.text()), (hardened.FILE, hardened.text())):
            file.write_text(text)
            print(f"wrote {file}")
        return 0
    if args[:1] == ["--key-messages"] and len(args) == 2:
        key_message.check_offered(checks, args[1])
    elif args:
        print(__doc__, file=sys.stderr)
        return 2
    else:
        for name, check in CHECKS.items():
            before = checks.passed
            check(checks)
            print(f"{name:14} {checks.passed - before:5} values agree")
    for failure in checks.failed:
        print(failure, file=sys.stderr)
    print(f"{checks.passed} values agree, {len(checks.failed)} differ")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
