"""The RSA key message (docs/protocol.md 12) a second time: vectors/key-message.json, and a check of what others made.

OAEP and PSS are encoded here, from RFC 8017 and with given randomness, so that the file comes out the same each time; the
`cryptography` package then has to open and verify every message that is to be accepted. Private keys are derived from
words; they are public, never use them.
"""

import hashlib
import hmac
import json
import math
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

FILE = Path(__file__).resolve().parent / "key-message.json"

E = 65537
ALG = {1024: 1, 2048: 2, 3072: 3}
SERIAL = bytes.fromhex("0123456789abcdef")
ENROLMENT_KEY = bytes(range(0x80, 0xA0))
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def sha256(data):
    return hashlib.sha256(data).digest()


def stream(words, length):
    return hashlib.shake_256(words.encode()).digest(length)


# --- Keys -------------------------------------------------------------------------------------------------------------

SMALL = [n for n in range(3, 5000, 2) if all(n % d for d in range(3, math.isqrt(n) + 1, 2))]


def is_prime(n):
    """Miller-Rabin with 24 bases."""
    if any(n % p == 0 for p in SMALL):
        return False
    s = (n - 1 & 1 - n).bit_length() - 1
    for base in [2] + SMALL[:23]:
        x = pow(base, n - 1 >> s, n)
        if x in (1, n - 1):
            continue
        for _ in range(s - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def prime(words, bits):
    """The first prime p at or after SHAKE-256(words), its two top bits and its last set, with p - 1 coprime to e."""
    n = int.from_bytes(stream(words, bits // 8), "big") | 3 << bits - 2 | 1
    while not (math.gcd(n - 1, E) == 1 and is_prime(n)):
        n += 2
    return n


class Key:
    def __init__(self, name, bits):
        self.name, self.bits, self.k = name, bits, bits // 8
        p, q = (prime(f"fivefold test key {name} {bits} {half}", bits // 2) for half in "pq")
        p, q = max(p, q), min(p, q)
        self.n, self.d = p * q, pow(E, -1, math.lcm(p - 1, q - 1))
        public = rsa.RSAPublicNumbers(E, self.n)
        crt = (self.d % (p - 1), self.d % (q - 1), pow(q, -1, p))
        self.private = rsa.RSAPrivateNumbers(p, q, self.d, *crt, public).private_key()
        self.public = self.private.public_key()
        self.pkcs8 = self.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        self.spki = self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.kid = sha256(self.spki)[:4]

    def raw_public(self, data):
        return pow(int.from_bytes(data, "big"), E, self.n).to_bytes(self.k, "big")

    def raw_private(self, data):
        return pow(int.from_bytes(data, "big"), self.d, self.n).to_bytes(self.k, "big")


# --- RFC 8017 ---------------------------------------------------------------------------------------------------------


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def mgf1(seed, length, hash_name="sha256"):
    count = -(-length // hashlib.new(hash_name).digest_size)
    return b"".join(hashlib.new(hash_name, seed + i.to_bytes(4, "big")).digest() for i in range(count))[:length]


def oaep(k, m, label, seed, hash_name="sha256"):
    """EME-OAEP, 7.1.1 step 2."""
    size = hashlib.new(hash_name).digest_size
    seed = seed[:size]
    db = hashlib.new(hash_name, label).digest() + bytes(k - len(m) - 2 * size - 2) + b"\1" + m
    masked = xor(db, mgf1(seed, len(db), hash_name))
    return b"\0" + xor(seed, mgf1(masked, size, hash_name)) + masked


def pss(bits, message, salt):
    """EMSA-PSS, 9.1.1, of a modulus of `bits` bits."""
    length = (bits - 1 + 7) // 8
    digest = sha256(bytes(8) + sha256(message) + salt)
    db = bytes(length - len(salt) - 34) + b"\1" + salt
    masked = bytearray(xor(db, mgf1(digest, len(db))))
    masked[0] &= 0xFF >> 8 * length - (bits - 1)
    return bytes(masked) + digest + b"\xbc"


def pkcs1(k, m, filler):
    """EME-PKCS1-v1_5, 7.2.1 step 2: what nobody may accept."""
    return b"\0\2" + filler[: k - len(m) - 3].replace(b"\0", b"\1") + b"\0" + m


def pkcs1_signature(key, message):
    info = bytes.fromhex("3031300d060960864801650304020105000420") + sha256(message)
    return key.raw_private(b"\0\1" + b"\xff" * (key.k - len(info) - 3) + b"\0" + info)


# --- Section 12 -------------------------------------------------------------------------------------------------------


def header(server, auth, epoch, keylen, level=3, serial=SERIAL, kid=None):
    alg = ALG[server.bits] | {"signature": 0, "mac": 0x80}[auth]
    return b"E5R1\1" + bytes([alg]) + serial + bytes([level, keylen]) + epoch.to_bytes(4, "big") + (kid or server.kid)


def mac(hdr, c):
    return hmac.digest(ENROLMENT_KEY, b"E5R1-mac" + hdr + c, "sha256")


def answer(kr1, seed, newkey):
    hdr2 = b"E5R2" + kr1[4:15] + b"\0" + kr1[16:24]
    confirming = HKDF(hashes.SHA256(), 32, seed, b"E5R2").derive(newkey)
    return hdr2 + hmac.digest(confirming, hdr2 + sha256(kr1), "sha256")[:16]


def opened(server, device, kr1):
    """Seed and new key of a message whose S holds, by the `cryptography` package; raises if anything is wrong."""
    hdr, c, s = kr1[:24], kr1[24 : 24 + server.k], kr1[24 + server.k :]
    if hdr[5] & 0x80:
        if s != mac(hdr, c):
            raise InvalidSignature
    else:
        pss_padding = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        device.public.verify(s, b"E5R1-sig" + hdr + c, pss_padding, hashes.SHA256())
    labelled = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), hdr)
    m = server.private.decrypt(c, labelled)
    if hdr[20:24] != server.kid or len(m) != 16 + hdr[15]:
        raise ValueError("another server or length")
    return m[:16], m[16:]


class Case:
    """Ingredients of one message; each can be replaced to break one rule."""

    def __init__(self, name, title, keys, bits, auth="signature", epoch=5, keylen=32, level=3, refused=None):
        self.name, self.title, self.refused = name, title, refused
        self.server, self.device = keys["server", bits], keys["device", bits]
        self.auth, self.epoch, self.level = auth, epoch, level
        self.seed, self.newkey = stream(f"{name} seed", 16), stream(f"{name} key", keylen)
        self.hdr = header(self.server, auth, epoch, keylen, level)
        self.label, self.m = self.hdr, self.seed + self.newkey
        self.salt, self.domain = stream(f"{name} salt", 32), b"E5R1-sig"
        self.signer = self.device

    def encrypted(self):
        return self.server.raw_public(oaep(self.server.k, self.m, self.label, stream(f"{self.name} oaep", 32)))

    def proof(self, c):
        if self.auth == "mac":
            return mac(self.hdr, c)
        return self.signer.raw_private(pss(self.signer.bits, self.domain + self.hdr + c, self.salt))

    def message(self):
        c = self.encrypted()
        return self.hdr + c + self.proof(c)

    def json(self):
        kr1 = self.message()
        entry = {
            "id": self.name,
            "title": self.title,
            "server": self.server.name + str(self.server.bits),
            "device": self.device.name + str(self.device.bits),
            "kr1": kr1.hex(),
        }
        try:
            good = opened(self.server, self.device, kr1) == (self.seed, self.newkey)
        except (InvalidSignature, ValueError):
            good = False
        # Epochs, serials and policies are no matter of cryptography: such messages open all the same.
        by_rule = self.name.startswith(("epoch-", "policy-", "serial"))
        assert good == (self.refused is None or by_rule), self.name
        if self.refused:
            return entry | {"refused": self.refused}
        return entry | {
            "level": self.level,
            "epoch": self.epoch,
            "seed": self.seed.hex(),
            "newkey": self.newkey.hex(),
            "oaep_seed": stream(f"{self.name} oaep", 32).hex(),
            "kr1_sha256": sha256(kr1).hex(),
            "kr2": answer(kr1, self.seed, self.newkey).hex(),
        }


def accepted(keys):
    yield Case("signed-2048", "RSA-2048, AES-256", keys, 2048)
    yield Case("signed-2048-192", "RSA-2048, AES-192", keys, 2048, keylen=24)
    yield Case("signed-3072", "RSA-3072, AES-128", keys, 3072, keylen=16)
    yield Case("signed-3072-e2", "RSA-3072, a key for E2", keys, 3072, level=2)
    yield Case("mac-2048", "HMAC in the place of a signature, RSA-2048", keys, 2048, auth="mac")
    yield Case("mac-3072", "HMAC in the place of a signature, RSA-3072", keys, 3072, auth="mac")
    yield Case("signed-1024", "RSA-1024, for devices that are listed", keys, 1024)
    yield Case("mac-1024", "HMAC in the place of a signature, RSA-1024", keys, 1024, auth="mac")


def refused(keys):
    no_proof, no_open, no_epoch = "S does not hold", "C does not open", "the epoch is not the next one"

    def case(name, title, reason, **changes):
        made = Case(name, title, keys, 2048, refused=reason, epoch=changes.pop("epoch", 5))
        for field, value in changes.items():
            setattr(made, field, value)
        return made

    server, device, other = keys["server", 2048], keys["device", 2048], keys["other", 2048]
    taken = "another message of this epoch was taken"
    yield case("epoch-again", "the epoch of the active key", taken, epoch=4)
    yield case("epoch-before", "an epoch that is over", no_epoch, epoch=3)
    yield case("epoch-skipped", "an epoch is left out", no_epoch, epoch=6)
    yield case("epoch-far", "the greatest epoch there is", no_epoch, epoch=2**32 - 1)
    strange = header(server, "signature", 5, 32, serial=bytes.fromhex("0123456789abcdee"))
    yield case("serial", "a serial number that nobody has", "unknown serial number", hdr=strange, label=strange)
    kid = header(server, "signature", 5, 32, kid=other.kid)
    yield case("srv-kid", "the name of another key", "for a key that this server does not have (srv_kid)", hdr=kid, label=kid)
    level = header(server, "signature", 5, 32, level=2)
    policy = "a key of a level that is not agreed here"
    yield case("policy-level", "a key for E2, to a server of E3", policy, hdr=level, label=level)

    yield case("signer", "signed by another device", no_proof, signer=other)
    yield case("signed-by-server", "signed by the server's key", no_proof, signer=server)
    yield case("domain", "signed as the HMAC is", no_proof, domain=b"E5R1-mac")
    yield case("domain-none", "signed without the prefix", no_proof, domain=b"")
    yield case("salt-20", "a salt of 20 bytes", no_proof, salt=bytes(20))
    yield case("salt-none", "no salt", no_proof, salt=b"")
    v15 = case("pkcs1-signature", "an RSASSA-PKCS1-v1_5 signature", no_proof)
    v15.proof = lambda c: pkcs1_signature(device, b"E5R1-sig" + v15.hdr + c)
    yield v15
    raw = case("textbook-signature", "a hash raised to the private exponent", no_proof)
    raw.proof = lambda c: device.raw_private(sha256(b"E5R1-sig" + raw.hdr + c).rjust(device.k, b"\0"))
    yield raw
    hashed = case("mac-as-signature", "the HMAC where a signature belongs", no_proof)
    hashed.proof = lambda c: mac(hashed.hdr, c).rjust(device.k, b"\0")
    yield hashed

    yield case("label-none", "encrypted without a label", no_open, label=b"")
    earlier = header(server, "signature", 4, 32)
    yield case("label-epoch", "encrypted for another epoch", no_open, label=earlier)
    yield case("label-answer", "encrypted under hdr2", no_open, label=b"E5R2" + v15.hdr[4:])
    sha1 = case("oaep-sha1", "OAEP with SHA-1", no_open)
    sha1.encrypted = lambda: server.raw_public(oaep(server.k, sha1.m, sha1.hdr, stream("oaep-sha1", 32), "sha1"))
    yield sha1
    old = case("pkcs1-encryption", "RSAES-PKCS1-v1_5", no_open)
    old.encrypted = lambda: server.raw_public(pkcs1(server.k, old.m, stream("filler", 256)))
    yield old
    bare = case("textbook-encryption", "M raised to the public exponent", no_open)
    bare.encrypted = lambda: server.raw_public(bare.m)
    yield bare
    for name, number in (("zero", 0), ("one", 1), ("n-1", server.n - 1), ("n", server.n), ("max", 2**2048 - 1)):
        edge = case(f"c-{name}", f"C is {name}", no_open)
        edge.encrypted = lambda number=number: number.to_bytes(server.k, "big")
        yield edge
    wrong_length = "M has another length than keylen says"
    for name, m in (("short", bytes(47)), ("long", bytes(49)), ("of-128", bytes(32)), ("empty", b""), ("full", bytes(190))):
        yield case(f"m-{name}", f"M has {len(m)} bytes", wrong_length, m=m)


def all_keys():
    names = [("server", 1024), ("server", 2048), ("server", 3072)]
    names += [("device", 1024), ("device", 2048), ("device", 3072), ("other", 2048)]
    return {(name, bits): Key(name, bits) for name, bits in names}


def text():
    keys = all_keys()
    book = {
        "meta": {
            "source": "docs/protocol.md 12, made by vectors/key_message.py",
            "encoding": "lower-case hex",
            "notes": "serial 0123456789abcdef, whose key of epoch 4 is active; the keys are derived from words and public, never use them",
        },
        "enrolment_key": ENROLMENT_KEY.hex(),
        "keys": [
            {"name": key.name + str(key.bits), "pkcs8": key.pkcs8.hex(), "spki": key.spki.hex(), "kid": key.kid.hex()}
            for key in keys.values()
        ],
        "accepted": [case.json() for case in accepted(keys)],
        "refused": [case.json() for case in refused(keys)],
    }
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def check(checks):
    """The committed file is what this file computes."""
    made, committed = text(), FILE.read_text() if FILE.exists() else ""
    ours, theirs = json.loads(made), json.loads(committed or "{}")
    for part in ours:
        for index, entry in enumerate(ours[part]) if isinstance(ours[part], list) else [(None, ours[part])]:
            other = theirs.get(part)
            other = other[index] if index is not None and index < len(other or []) else other
            checks.equal(f"key-message.json {part} {index}", entry, other)
    checks.equal("vectors/key-message.json as a text", sha256(made.encode()), sha256(committed.encode()))


def check_offered(checks, file):
    """Messages that another implementation made just now, with the keys of the committed file, and its answers to them.

    One JSON object a line: server, device, seed, newkey, kr1, kr2.
    """
    keys = {key.name + str(key.bits): key for key in all_keys().values()}
    lines = [json.loads(line) for line in Path(file).read_text().splitlines()]
    kinds = set()
    for line in lines:
        server, device, kr1 = keys[line["server"]], keys[line["device"]], bytes.fromhex(line["kr1"])
        try:
            seed, newkey = opened(server, device, kr1)
        except (InvalidSignature, ValueError) as why:
            checks.equal(f"a message for {server.name}{server.bits} opens", repr(why), None)
            continue
        checks.bytes("seed", seed, line["seed"])
        checks.bytes("newkey", newkey, line["newkey"])
        checks.bytes("KR2", answer(kr1, seed, newkey), line["kr2"])
        kinds.add((kr1[5], kr1[15]))
    expected = {(alg, keylen) for alg in (2, 3, 0x82, 0x83) for keylen in (16, 24, 32)}
    checks.equal("kinds of message that were offered", kinds, expected)
