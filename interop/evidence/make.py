"""Makes bundles of evidence from docs/evidence.md: a second source beside our own code. Everything follows from a seed, but
signatures by ML-DSA-44, which are hedged."""

import base64
import json
import math
import random
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from forms import leaf_hash, node_hash, sha

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "vectors"))
import key_message  # noqa: E402

NOW = 1_790_000_000


def cbor(value):
    return cbor2.dumps(value, canonical=True)


def b64(data):
    return base64.b64encode(data).decode()


# --- keys -------------------------------------------------------------------------------------------------------------


def p256(seed):
    return ec.derive_private_key(int.from_bytes(sha(seed.encode()), "big") >> 1 | 1, ec.SECP256R1())


@lru_cache
def node_rsa(seed, bits=2048):
    return key_message.Key(seed, bits).private


def coprime(e, phi):
    return math.gcd(e, phi) == 1


def rsa_of(p, q, e):
    """The key of these primes with another exponent."""
    d = pow(e, -1, math.lcm(p - 1, q - 1))
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(e, p * q)).private_key()


def ed(seed):
    return ed25519.Ed25519PrivateKey.from_private_bytes(sha(seed.encode()))


def spki(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def raw(key):
    return key.public_key().public_bytes_raw()


PKCS1 = padding.PKCS1v15()
ECDSA = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


def rsa_raw(key, encoded):
    numbers = key.private_numbers()
    return pow(int.from_bytes(encoded, "big"), numbers.d, numbers.public_numbers.n).to_bytes(key.key_size // 8, "big")


def pss(key, message, salt):
    return rsa_raw(key, key_message.pss(key.key_size, message, salt))


def cose(key, context, payload, alg=None, sign=None):
    own = {ed25519.Ed25519PrivateKey: -19, rsa.RSAPrivateKey: -37}
    alg = alg or next((a for kind, a in own.items() if isinstance(key, kind)), -9)
    protected = cbor({1: alg, 4: sha(spki(key))[:8]})
    message = cbor(["Signature1", protected, context, payload])
    if sign:
        signature = sign(message)
    elif alg == -37:
        signature = pss(key, message, sha(message))
    elif alg == -19:
        signature = key.sign(message)
    else:
        r, s = decode_dss_signature(key.sign(message, ECDSA))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return cbor(cbor2.CBORTag(18, [protected, {}, payload, signature]))


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(**on):
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
             "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{u: on.get(u, False) for u in every})


def certify(subject, public, issuer, key, *extensions, begin=NOW - 86_400, days=1800):
    start = datetime.fromtimestamp(begin, timezone.utc)
    issuer = name(issuer) if isinstance(issuer, str) else issuer
    builder = (x509.CertificateBuilder().subject_name(name(subject)).issuer_name(issuer).public_key(public)
               .serial_number(int.from_bytes(sha(subject.encode())[:15], "big") | 1)
               .not_valid_before(start).not_valid_after(start + timedelta(days=days)))
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)


AUTHORITY = ((x509.BasicConstraints(True, 1), True), (usage(key_cert_sign=True, crl_sign=True), True))
CLIENT = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)


def end(uri, *more):
    return ((x509.SubjectAlternativeName([x509.UniformResourceIdentifier(u) for u in uri.split()]), False),
            (usage(digital_signature=True), True), (x509.BasicConstraints(False, None), True), *more)


def der(certificate):
    return certificate.public_bytes(Encoding.DER)


# --- the log and its witnesses ----------------------------------------------------------------------------------------


def tree(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else sha(b"")
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(tree(leaves[:k]), tree(leaves[k:]))


def path(leaves, index):
    if len(leaves) < 2:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if index < k:
        return path(leaves[:k], index) + [tree(leaves[k:])]
    return path(leaves[k:], index - k) + [tree(leaves[:k])]


class Signer:
    """A key of signed notes."""

    def __init__(self, called, kind, seed):
        self.name, self.type = called, kind
        self.key = mldsa.MLDSA44PrivateKey.from_seed_bytes(sha(seed.encode())) if kind == 6 else ed(seed)
        self.public = self.key.public_key().public_bytes_raw()
        self.id = sha(called.encode(), b"\n", bytes([kind]), self.public)[:4]

    def vkey(self):
        return f"{self.name}+{self.id.hex()}+{b64(bytes([self.type]) + self.public)}"

    def line(self, text, time=0):
        stamp = b"" if self.type == 1 else time.to_bytes(8, "big")
        if self.type == 6:
            origin, size, root = text.split("\n")[:3]
            message = (b"subtree/v1\n\0" + bytes([len(self.name)]) + self.name.encode() + stamp + bytes([len(origin)])
                       + origin.encode() + bytes(8) + int(size).to_bytes(8, "big") + base64.b64decode(root))
        else:
            message = ("" if self.type == 1 else f"cosignature/v1\ntime {time}\n").encode() + text.encode()
        return f"— {self.name} {b64(self.id + stamp + self.key.sign(message))}\n"


class Log:
    def __init__(self, signer):
        self.signer, self.leaves, self.index = signer, [], {}

    def append(self, kind, record):
        self.index[kind + record] = len(self.leaves)
        self.leaves.append(leaf_hash(kind, sha(record)))

    def checkpoint(self, cosigners, times, size=None):
        size = len(self.leaves) if size is None else size
        text = f"{self.signer.name}\n{size}\n{b64(tree(self.leaves[:size]))}\n"
        return text + "\n" + self.signer.line(text) + "".join(w.line(text, t) for w, t in zip(cosigners, times))

    def prove(self, kind, record, note):
        size = int(note.split("\n")[1])
        index = self.index[kind + record]
        hashed = "".join(b64(h) + "\n" for h in path(self.leaves[:size], index))
        return f"c2sp.org/tlog-proof@v1\nindex {index}\n{hashed}\n{note}"


# --- timestamps -------------------------------------------------------------------------------------------------------


def tlv(tag, *parts):
    content = b"".join(parts)
    n = len(content)
    head = bytes([n]) if n < 128 else bytes([128 + (n.bit_length() + 7) // 8]) + n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes([tag]) + head + content


def oid(text):
    return tlv(6, bytes.fromhex(text))


SHA256 = tlv(0x30, oid("608648016503040201"))
ECDSA_SHA256 = tlv(0x30, oid("2a8648ce3d040302"))
RSA = tlv(0x30, oid("2a864886f70d010101"), tlv(5))


def token(key, certificate, imprint, time, inside=()):
    """An RFC 3161 token over SHA-256 of something."""
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    stamp = datetime.fromtimestamp(time, timezone.utc).strftime("%Y%m%d%H%M%SZ").encode()
    info = tlv(0x30, tlv(2, b"\1"), oid("2a0304"), tlv(0x30, SHA256, tlv(4, imprint)), tlv(2, b"\7"), tlv(0x18, stamp))
    ess = tlv(0x30, tlv(0x30, tlv(0x30, tlv(4, sha(certificate)))))

    def attribute(kind, value):
        return tlv(0x30, oid(kind), tlv(0x31, value))

    attributes = b"".join(sorted((
        attribute("2a864886f70d010903", oid("2a864886f70d0109100104")),
        attribute("2a864886f70d010904", tlv(4, sha(info))),
        attribute("2a864886f70d010910022f", ess),
    )))
    own = x509.load_der_x509_certificate(certificate)
    serial = own.serial_number.to_bytes(own.serial_number.bit_length() // 8 + 1, "big")
    message = tlv(0x31, attributes)
    signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256()) if is_rsa else key.sign(message, ECDSA)
    signer = tlv(0x30, tlv(2, b"\1"), tlv(0x30, own.issuer.public_bytes(), tlv(2, serial)), SHA256, tlv(0xA0, attributes),
                 RSA if is_rsa else ECDSA_SHA256, tlv(4, signature))
    content = tlv(0x30, oid("2a864886f70d0109100104"), tlv(0xA0, tlv(4, info)))
    certificates = tlv(0xA0, *inside) if inside else b""
    data = tlv(0x30, tlv(2, b"\3"), tlv(0x31, SHA256), content, certificates, tlv(0x31, signer))
    return tlv(0x30, oid("2a864886f70d010702"), tlv(0xA0, data))


TSA_CA_KEY = p256("tsa ca")
TSA_CA = certify("Example TSA CA", TSA_CA_KEY.public_key(), "Example TSA CA", TSA_CA_KEY, *AUTHORITY)
STAMPING = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), True)
SIGNING = (usage(digital_signature=True), True)


def stamp(note, key=None, extensions=(STAMPING, SIGNING), above=(), listed=(), **more):
    """An element of item 12 over this note, as an authority under `TSA_CA` makes it. `above` are the authorities between, from the
    signer's upwards: a key and extensions each; `listed` are serial numbers and times in its revocation list."""
    key = key or p256("tsa")
    issuer, issuer_key, chain = "Example TSA CA", TSA_CA_KEY, []
    for number, (its_key, its_extensions) in reversed(list(enumerate(above))):
        called = f"Example TSA CA {number}"
        chain.insert(0, der(certify(called, its_key.public_key(), issuer, issuer_key, *its_extensions)))
        issuer, issuer_key = called, its_key
    own = der(certify("Example TSA", key.public_key(), more.pop("issuer", issuer), more.pop("issuer_key", issuer_key), *extensions, **more))
    return [token(key, own, sha(note.encode()), NOW + 60, (own,)), [own, *chain], [revocations(listed)]]


def revocations(listed=(), key=TSA_CA_KEY):
    """The list of `TSA_CA`."""
    builder = (x509.CertificateRevocationListBuilder().issuer_name(name("Example TSA CA"))
               .last_update(datetime.fromtimestamp(NOW, timezone.utc)).next_update(datetime.fromtimestamp(NOW + 86_400, timezone.utc)))
    for serial, time in listed:
        row = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(datetime.fromtimestamp(time, timezone.utc))
        builder = builder.add_revoked_certificate(row.build())
    return der(builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True))


# --- a deployment, and bundles of its readings ------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """How a deployment differs from the plainest one."""

    level: int = 3
    kind: int = 1  # of the envelopes at level 3
    bctx: bytes = b""
    device_alg: int = -9
    key_origin: int = 1
    template: bool = True
    receipts: int = 1
    stamps: int = 0
    witnesses: tuple = (4, 4)
    need: int = 2
    pq_need: int = 0
    one_name: bool = False  # all witnesses' keys under one name
    stranger: bool = False  # somebody unknown signs the checkpoint too
    revoked: int | None = None  # seconds after the witness time, of the device's key
    revoked_gateway: int | None = None
    later: bool = False  # the revocation list stands in a later checkpoint
    certificate: str = "good"
    gateway_certificate: str = "good"
    times: tuple = (7, 9, 11, 13)  # of the witnesses, seconds after NOW


def classic_frame(did, number, kind=6):
    """A binary frame of a classic node: battery."""
    rest = did + b"n#" + bytes([number, 52, 35])
    return b"<=>" + bytes([kind, len(rest)]) + rest


@dataclass
class World:
    options: Options
    seed: int
    trust: dict = field(default_factory=dict)
    bundles: list = field(default_factory=list)
    device: object = None  # its key, if that is another than the algorithm's
    frame: object = None  # makes the frame of a classic node: (did, number) to bytes

    def __post_init__(self):
        o, rng = self.options, random.Random(f"{self.seed} {self.options}")
        ca_key, gw_key = p256("ca"), p256("gateway")
        ca = certify("Example CA", ca_key.public_key(), "Example CA", ca_key, *AUTHORITY)
        key = self.device or {-9: p256, -19: ed, -37: node_rsa}[o.device_alg]("device")
        did, net, sid, gw = bytes.fromhex("acde480000000001"), 7, 0x0A17, bytes.fromhex("000000a1")
        self.certificates = self._device(o.certificate, did, key, ca_key)
        gateway_certificates = self._gateway(o.gateway_certificate, net, gw, gw_key, ca_key)

        fingerprint = sha(spki(ca_key)).hex()[:8]
        log = self.log = Log(Signer(f"fivefold.{fingerprint}/log", 1, "log"))
        cosigners = [Signer("witness.example/w" if o.one_name else f"witness.example/w{i}", kind, f"w{i} {kind}")
                     for i, kind in enumerate(o.witnesses, 1)]
        times = [NOW + t for t in o.times]
        kid, gateway_kid = sha(spki(key))[:8], sha(spki(gw_key))[:8]
        when = sorted(times[:len(cosigners)])[o.need - 1]

        log.append(b"rv", cbor(["rv", 0, []]))
        definition = b'{"1":["TCA","Cel"]}'
        en = cbor(["en", did, net, sid, spki(key), o.key_origin])
        cf = cbor(["cf", did, bytes.fromhex("aa01"), [[24, sha(definition)]] if o.template else []])
        log.append(b"en", en)
        log.append(b"cf", cf)
        for i in range(rng.randrange(4)):
            log.append(b"en", cbor(["en", rng.randbytes(8), net, 1 + i, rng.randbytes(91), 0]))

        epoch, first = rng.randrange(1, 600), rng.randrange(1 << 20)
        pivs = [first + i for i in range(rng.randrange(2, 24)) if i == 0 or rng.random() < 0.8]
        blind = rng.randbytes(32)
        payloads = [cbor([24, rng.randrange(-50, 60), None]) if o.template else cbor([{0: "t", 2: rng.randrange(60)}]) for _ in pivs]
        if o.device_alg == -37:
            payloads = [(self.frame or classic_frame)(did, n) for n in range(len(pivs))]
        subject = [o.level, did, epoch, o.bctx]
        readings = []
        for piv, payload in zip(pivs, payloads):
            salt = HKDFExpand(hashes.SHA256(), 16, b"leaf" + piv.to_bytes(8, "big")).derive(blind)
            readings.append((cbor(["r1", *subject, piv, payload]), salt))
        leaves = [leaf_hash(salt, tbs) for tbs, salt in readings]
        bits = sum(1 << piv - first for piv in pivs)
        bitmap = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        batch = cose(key, b"iotsec-batch-v1",
                     cbor(["b1", *subject, 1, first, bitmap, tree(leaves), rng.randbytes(32) if rng.random() < 0.5 else bytes(32)]))
        log.append(b"b1", batch)

        envelopes = [self._envelope(o, n, net, sid, piv, epoch, payload) for n, (piv, payload) in enumerate(zip(pivs, payloads))]
        hashed = [leaf_hash(e) for e in envelopes]
        receipts = []
        for n in range(o.receipts):
            receipts.append(cose(gw_key, b"iotsec-receipt-v1", cbor(["g1", gw, rng.randbytes(8), n, len(envelopes), tree(hashed),
                                                                     NOW * 1000, NOW * 1000 + 999])))
            log.append(b"g1", receipts[-1])
        rows = [(kid, o.revoked), (gateway_kid, o.revoked_gateway)]
        rv = cbor(["rv", 1, sorted([k, when + t] for k, t in rows if t is not None)])
        log.append(b"rv", rv)
        size = len(log.leaves)
        note = self.note = self._note(log, cosigners, times, size)
        newer = note
        if o.later:
            log.append(b"rs", cbor(["rs", NOW, "store"]))
            newer = self._note(log, cosigners, [t + 600 for t in times], size + 1)

        stamps = [stamp(note) for _ in range(o.stamps)]

        self.trust = {"operator": {"ca": [ca.public_bytes(Encoding.PEM).decode()]}, "log": {"vkey": log.signer.vkey()},
                      "witnesses": {"need": o.need, "vkeys": [w.vkey() for w in cosigners]}}
        if o.pq_need:
            self.trust["witnesses"]["pq_need"] = o.pq_need
        if o.stamps:
            self.trust["timestamps"] = {"ca": [TSA_CA.public_bytes(Encoding.PEM).decode()]}

        for i, (tbs, salt) in enumerate(readings):
            heard = [[r, envelopes[i], i, len(envelopes), path(hashed, i), log.prove(b"g1", r, note),
                      gateway_certificates] for r in receipts]
            self.bundles.append({
                1: "evb1", 2: [tbs, salt], 3: [i, len(leaves), path(leaves, i)], 4: batch, 5: self.certificates,
                6: [en, log.prove(b"en", en, note)], 7: log.prove(b"b1", batch, note),
                8: [24, definition] if o.template else None, 9: heard, 10: [rv, log.prove(b"rv", rv, newer)],
                11: [cf, log.prove(b"cf", cf, note)], 12: stamps,
            })
        self.key, self.gw_key, self.ca_key, self.cosigners, self.times = key, gw_key, ca_key, cosigners, times

    def _note(self, log, cosigners, times, size):
        note = log.checkpoint(cosigners, times, size)
        if self.options.stranger:
            note += Signer("witness.example/stranger", 4, "stranger").line(note.partition("\n\n")[0] + "\n", NOW)
        return note

    @staticmethod
    def _device(kind, did, key, ca_key):
        uri, public = f"urn:dev:mac:{did.hex()}", key.public_key()
        device = {
            "good": lambda: certify("device", public, "Example CA", ca_key, *end(uri)),
            "other did": lambda: certify("device", public, "Example CA", ca_key, *end("urn:dev:mac:acde480000000002")),
            "upper case": lambda: certify("device", public, "Example CA", ca_key, *end(uri.replace("acde", "ACDE"))),
            "two names": lambda: certify("device", public, "Example CA", ca_key, *end(f"{uri} urn:gw:00000007:000000a1")),
            "clientAuth": lambda: certify("device", public, "Example CA", ca_key, *end(uri, CLIENT)),
            "an authority": lambda: certify("device", public, "Example CA", ca_key, *end(uri)[:1], *AUTHORITY),
            "another authority": lambda: certify("device", public, "Example CA", p256("thief"), *end(uri)),
            "another issuer": lambda: certify("device", public, "Example CB", ca_key, *end(uri)),
            "ended": lambda: certify("device", public, "Example CA", ca_key, *end(uri), begin=NOW - 86_400 * 30, days=29),
            "not yet": lambda: certify("device", public, "Example CA", ca_key, *end(uri), begin=NOW + 86_400),
            "unknown critical": lambda: certify("device", public, "Example CA", ca_key, *end(
                uri, (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True))),
            "no key usage": lambda: certify("device", public, "Example CA", ca_key, end(uri)[0], end(uri)[2]),
        }
        if kind in ("issuer for gateways", "issuer for devices", "issuer without cA"):
            key = p256(kind)
            more = (CLIENT,) if kind == "issuer for gateways" else ()
            issuer = certify("Issuer", key.public_key(), "Example CA", ca_key, (x509.BasicConstraints(
                kind != "issuer without cA", 0 if kind != "issuer without cA" else None), True), (usage(key_cert_sign=True), True), *more)
            return [der(certify("device", public, "Issuer", key, *end(uri))), der(issuer)]
        return [der(device[kind]())]

    @staticmethod
    def _gateway(kind, net, gw, key, ca_key):
        uri = f"urn:gw:{net:08x}:{gw.hex()}"
        if kind == "by an issuer":
            issuer_key = p256("issuer")
            issuer = certify("Issuer", issuer_key.public_key(), "Example CA", ca_key, (x509.BasicConstraints(True, 0), True),
                             (usage(key_cert_sign=True), True), CLIENT,
                             (x509.NameConstraints(None, [x509.DNSName("")]), True))
            return [der(certify("gateway", key.public_key(), "Issuer", issuer_key, *end(uri))), der(issuer)]
        if kind == "other network":
            uri = uri.replace("00000007", "00000008")
        if kind == "other gateway":
            uri = uri.replace("000000a1", "000000a2")
        more = {"clientAuth": (CLIENT,), "serverAuth": ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),)}
        begin = NOW - 86_400 * 91 if kind == "ended" else NOW - 86_400
        return [der(certify("gateway", key.public_key(), "Example CA", ca_key, *end(uri, *more.get(kind, ())), begin=begin, days=90))]

    @staticmethod
    def _envelope(o, n, net, sid, piv, epoch, payload):
        short = sid.to_bytes(2, "big")
        number = piv.to_bytes(max(1, (piv.bit_length() + 7) // 8), "big")
        e = {1: n, 2: NOW * 1000 + n, 3: 1, 5: net.to_bytes(4, "big") + short, 6: -70, 9: 1}
        if o.level == 3:
            context = bytes([len(o.bctx)]) + o.bctx if o.bctx else b""
            option = bytes([8 | len(number) | (16 if o.bctx else 0)]) + number + context + short
            host = b"\x32gw" if o.kind == 6 else b""  # Uri-Host, number 3
            delta = 9 - 3 * (o.kind == 6)
            length = bytes([delta << 4 | len(option)]) if len(option) < 13 else bytes([delta << 4 | 13, len(option) - 13])
            e[3], e[4] = o.kind, bytes.fromhex("4002012c") + host + length + option + b"\xff" + sha(payload)[:20]
        else:
            e[3], e[4] = 2, b"\x02\xff" + payload
            e[8] = {1: short, 2: piv, 4: epoch, **({3: o.bctx} if o.bctx else {})}
        return cbor(e)


def toml(trust):
    lines = []
    for table, values in trust.items():
        lines.append(f"[{table}]")
        lines += [f"{k} = {json.dumps(v)}" for k, v in values.items()]
    return "\n".join(lines) + "\n"
