"""The strict forms of docs/evidence.md 1: CBOR, base64, decimals, DER, Merkle proofs, COSE_Sign1. What has another form
raises `Wrong` with the reason, whatever it holds."""

import base64
import binascii
import functools
import hashlib
import io
import re

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

# Results are kept by their arguments, so that thousands of bundles that differ in a byte do not repeat every signature.
kept = functools.lru_cache(maxsize=1 << 14)


class Wrong(Exception):
    """What was checked is not as it should be."""


def need(holds, reason):
    if not holds:
        raise Wrong(reason)


def sha(*parts):
    h = hashlib.sha256()
    for part in parts:
        h.update(part)
    return h.digest()


# --- CBOR (1) ---------------------------------------------------------------------------------------------------------


def items(data, most=1 << 62):
    """The items of a CBOR sequence: decoded by cbor2, accepted if their one deterministic encoding is what stands there."""
    found, at, stream = [], 0, io.BytesIO(data)
    while at < len(data):
        stream.seek(at)
        try:
            value = cbor2.CBORDecoder(stream).decode()
            again = cbor2.dumps(value, canonical=True)
        except Exception as e:  # of a library, over bytes from outside
            raise Wrong(f"no CBOR of the profile: {type(e).__name__}") from None
        need(data.startswith(again, at), "CBOR that is not deterministic")
        need(len(again) <= most, "an item that is too long")
        found.append(value)
        at += len(again)
    return found


def item(data):
    """The one item of `data`."""
    found = items(data)
    need(len(found) == 1, "more or less than one CBOR item")
    return found[0]


def is_uint(value, limit=1 << 64):
    return type(value) is int and 0 <= value < limit


def is_bytes(value, *lengths):
    return type(value) is bytes and (not lengths or len(value) in lengths)


def is_list(value, n=None):
    return type(value) is list and (n is None or len(value) == n)


def well_formed(data):
    """The ends of the items of a sequence that may hold anything (docs/evidence.md 7, `policy`): heads are the shortest and
    lengths definite, floats and simple values are free."""
    ends, at = [], 0
    while at < len(data):
        left = 1
        while left:
            left -= 1
            major, argument, at = _head(data, at)
            if major in (2, 3):
                need(at + argument <= len(data), "CBOR ends early")
                if major == 3:
                    try:
                        data[at:at + argument].decode()
                    except UnicodeDecodeError:
                        raise Wrong("text that is not UTF-8") from None
                at += argument
            left += {4: argument, 5: 2 * argument, 6: 1}.get(major, 0)
            need(left <= len(data) - at, "CBOR ends early")
        ends.append(at)
    return ends


def _head(data, at):
    need(at < len(data), "CBOR ends early")
    major, short = data[at] >> 5, data[at] & 31
    at += 1
    if short < 24:
        return major, short, at
    need(short < 28, "CBOR of indefinite length, or a reserved head")
    size = 1 << (short - 24)
    need(at + size <= len(data), "CBOR ends early")
    argument = int.from_bytes(data[at:at + size], "big")
    least = {24: 32 if major == 7 else 24, 25: 0 if major == 7 else 1 << 8, 26: 0 if major == 7 else 1 << 16,
             27: 0 if major == 7 else 1 << 32}[short]
    need(argument >= least, "a CBOR head that is not the shortest")
    return major, argument, at + size


# --- texts (1) --------------------------------------------------------------------------------------------------------


def unbase64(text):
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Wrong("not base64") from None
    need(base64.b64encode(data).decode() == text, "base64 that is not canonical")
    return data


def decimal(text):
    need(re.fullmatch("0|[1-9][0-9]{0,18}", text, re.ASCII), "not a decimal number")
    number = int(text)
    need(number < 1 << 63, "a number beyond 2^63 - 1")
    return number


# --- DER (1) ----------------------------------------------------------------------------------------------------------


def der(data, at=0):
    """Tag, beginning of the contents and end of the element at `at`; tags of one byte, lengths in their shortest form."""
    need(at + 2 <= len(data), "DER ends early")
    tag, length, start = data[at], data[at + 1], at + 2
    need(tag & 31 != 31, "a DER tag of several bytes")
    if length >= 128:
        n = length & 127
        need(1 <= n <= 4 and start + n <= len(data), "a DER length that is not definite, or ends early")
        length = int.from_bytes(data[start:start + n], "big")
        need(length >= 128 and length >> 8 * (n - 1), "a DER length that is not the shortest")
        start += n
    need(start + length <= len(data), "DER ends early")
    return tag, start, start + length


def der_one(data, tag):
    """The contents of the one element of `data`, which has this tag."""
    found, start, end = der(data)
    need(found == tag and end == len(data), "a DER element of another kind, or something behind it")
    return data[start:end]


def der_all(data):
    """The elements in `data`: (tag, contents, the whole)."""
    found, at = [], 0
    while at < len(data):
        tag, start, end = der(data, at)
        found.append((tag, data[start:end], data[at:end]))
        at = end
    return found


# --- Merkle trees (1.1) -----------------------------------------------------------------------------------------------


def leaf_hash(*data):
    return sha(b"\0", *data)


def node_hash(left, right):
    return sha(b"\1", left, right)


def included(leaf, index, size, proof, root):
    """RFC 9162 2.1.3.2."""
    need(index < size, "the tree has no such leaf")
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        need(sn, "the proof is too long for this tree")
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    need(not sn, "the proof is too short for this tree")
    need(r == root, "the proof leads to another root")


def consistent(first, first_root, second, second_root, proof):
    """RFC 9162 2.1.4.2, and that a tree is the beginning of itself."""
    need(0 < first <= second, "there are no proofs between trees of these sizes")
    if first == second:
        need(not proof, "the proof is too long for these trees")
        need(first_root == second_root, "two roots for one size")
        return
    need(proof, "the proof is empty")
    if first & (first - 1) == 0:
        proof = [first_root, *proof]
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = proof[0]
    for c in proof[1:]:
        need(sn, "the proof is too long for these trees")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    need(not sn, "the proof is too short for these trees")
    need(fr == first_root and sr == second_root, "the proof leads to other roots")


# --- keys and COSE_Sign1 (1.2) ----------------------------------------------------------------------------------------

ESP256, ED25519, PS256 = -9, -19, -37
SIGNATURES = {ESP256: (64,), ED25519: (64,), PS256: (256, 384, 512)}
P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


ED25519_PRIME = 2**255 - 19
# y of the eight points of small order.
ED25519_SMALL = {0, 1, ED25519_PRIME - 1} | {int.from_bytes(bytes.fromhex(y), "little") for y in (
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")}
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def ed25519_point(data):
    """That these bytes may be a key, or the R of a signature."""
    y = int.from_bytes(data, "little") & (1 << 255) - 1
    need(y < ED25519_PRIME and y not in ED25519_SMALL, "a point of small order, or in another form than its only one")


def kid8(spki):
    return sha(spki)[:8]


@kept
def sign1(data):
    """(alg, kid8, payload, signature, protected) of a COSE_Sign1 in the one form; nothing is believed yet."""
    tagged = item(data)
    need(type(tagged) is cbor2.CBORTag and tagged.tag == 18, "COSE_Sign1 without its tag 18")
    parts = tagged.value
    need(is_list(parts, 4), "COSE_Sign1 of other than four parts")
    protected, unprotected, payload, signature = parts
    need(is_bytes(protected), "COSE_Sign1: the protected header is no byte string")
    header = item(protected)
    need(type(header) is dict and list(header) == [1, 4] and all(type(k) is int for k in header),
         "COSE_Sign1: the protected header is not {1: alg, 4: kid}")
    need(type(header[1]) is int and header[1] in SIGNATURES, "COSE_Sign1: an algorithm that is not in the profile")
    need(is_bytes(header[4], 8), "COSE_Sign1: a kid that has not 8 bytes")
    need(type(unprotected) is dict and not unprotected, "COSE_Sign1: something in the unprotected header")
    need(is_bytes(payload) and is_bytes(signature, *SIGNATURES[header[1]]), "COSE_Sign1: payload or signature of another form")
    return header[1], header[4], payload, signature, protected


def rsa_spki(n, k):
    """The one form of an RSA key with a modulus of k bytes and the exponent 65537."""
    long = lambda tag, length: bytes([tag, 0x82]) + length.to_bytes(2, "big")
    return (long(0x30, k + 34) + bytes.fromhex("300d06092a864886f70d0101010500") + long(3, k + 15) + b"\0" + long(0x30, k + 10)
            + long(2, k + 1) + b"\0" + n + bytes.fromhex("0203010001"))


def rsa_key(spki):
    k = len(spki) - 38
    need(k in SIGNATURES[PS256], "the algorithm does not belong to the key")
    n = spki[33:33 + k]
    need(n[0] & 0x80 and n[-1] & 1 and spki == rsa_spki(n, k), "the algorithm does not belong to the key")
    return rsa.RSAPublicNumbers(65537, int.from_bytes(n, "big")).public_key(), k


@kept
def signed(data, spki, context):
    """That the COSE_Sign1 was signed by the key of this SubjectPublicKeyInfo."""
    alg, kid, payload, signature, protected = sign1(data)
    need(kid == kid8(spki), "signed by another key")
    message = cbor2.dumps(["Signature1", protected, context, payload], canonical=True)
    try:
        if alg == ESP256:
            need(spki.startswith(P256_SPKI) and len(spki) == 91, "the algorithm does not belong to the key")
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), spki[26:])
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            need(0 < r < P256_ORDER and 0 < s < P256_ORDER, "the signature does not hold")
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        elif alg == PS256:
            key, k = rsa_key(spki)
            need(len(signature) == k, "the signature does not hold")
            key.verify(signature, message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        else:
            need(spki.startswith(ED25519_SPKI) and len(spki) == 44, "the algorithm does not belong to the key")
            ed25519_point(spki[12:])
            ed25519_point(signature[:32])
            need(int.from_bytes(signature[32:], "little") < ED25519_ORDER, "S is not below the order of the group")
            ed25519.Ed25519PublicKey.from_public_bytes(spki[12:]).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Wrong("the signature does not hold") from None
