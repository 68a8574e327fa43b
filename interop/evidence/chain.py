"""Certificates (docs/evidence.md 8), with the parser of `cryptography` and rules that stand here one by one."""

import warnings
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID

from forms import P256_SPKI, Wrong, der, der_all, der_one, kept, need

ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
ECDSA = {
    ECDSA_SHA256: hashes.SHA256,
    bytes.fromhex("300a06082a8648ce3d040303"): hashes.SHA384,
    bytes.fromhex("300a06082a8648ce3d040304"): hashes.SHA512,
}
RSA = {
    bytes.fromhex("300d06092a864886f70d01010b0500"): hashes.SHA256,
    bytes.fromhex("300d06092a864886f70d01010c0500"): hashes.SHA384,
    bytes.fromhex("300d06092a864886f70d01010d0500"): hashes.SHA512,
}
P384_SPKI = bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")
RSA_KEY = bytes.fromhex("300d06092a864886f70d0101010500")
NAMED = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName, x509.NameConstraints)
MOST = 8

# It warns of what later versions will not read at all: bytes from outside, which are refused here anyway.
warnings.filterwarnings("ignore", category=CryptographyDeprecationWarning)


@kept
def fields(certificate):
    """The elements of TBSCertificate without the optional version, by position: serial number, algorithm, issuer, validity,
    subject, SubjectPublicKeyInfo, …; and the whole of TBSCertificate, the outer algorithm and the signature."""
    tbs, algorithm, signature = three(certificate)
    inner = der_all(der_one(tbs, 0x30))
    if inner and inner[0][0] == 0xA0:
        inner = inner[1:]
    need(len(inner) >= 6 and inner[5][0] == 0x30, "a certificate without a key")
    return [whole for _, _, whole in inner], tbs, algorithm, signature


def three(data):
    """What is signed, by which algorithm, and the signature: of a certificate or a revocation list."""
    parts = der_all(der_one(data, 0x30))
    need([tag for tag, _, _ in parts] == [0x30, 0x30, 0x03], "no certificate")
    need(parts[2][1][:1] == b"\0", "a signature with unused bits")
    return parts[0][2], parts[1][2], parts[2][1][1:]


@kept
def spki(certificate):
    """The SubjectPublicKeyInfo, DER, by position alone: whatever else is wrong is for `parsed` to say."""
    at, whole = 0, certificate
    for _ in range(2):
        tag, start, end = der(whole, at)
        need(tag == 0x30, "no certificate")
        at, whole = start, whole[:end]
    if at < len(whole) and whole[at] == 0xA0:
        at = der(whole, at)[2]
    for _ in range(5):
        at = der(whole, at)[2]
    return whole[at:der(whole, at)[2]]


@dataclass(frozen=True)
class Rule:
    """What a certificate of the role must have: the one name of its own certificate, and extended key usages that it and those
    above it may have instead of none."""

    name: str
    usage: tuple = ()


def device(did):
    return Rule(f"urn:dev:mac:{did.hex()}")


def gateway(net, gw):
    return Rule(f"urn:gw:{net:08x}:{gw.hex()}", (ExtendedKeyUsageOID.CLIENT_AUTH,))


@kept
def parsed(der_bytes):
    try:
        certificate = x509.load_der_x509_certificate(der_bytes)
        again, version, extensions = certificate.public_bytes(Encoding.DER), certificate.version, list(certificate.extensions)
    except Exception as e:  # of a library, over bytes from outside
        raise Wrong(f"no certificate: {type(e).__name__}") from None
    need(again == der_bytes, "a certificate in another encoding than DER")
    need(version == x509.Version.v3, "a certificate of another version than 3")
    need(all(not e.critical or isinstance(e.value, NAMED) for e in extensions), "an unknown critical extension")
    return certificate


def extension(certificate, kind):
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


@kept
def issued(below, above, by=(ECDSA_SHA256,)):
    """That the key of `above`, a certificate, signed `below` by one of these algorithms; both in DER. The extensions of `above`
    are not looked at: it may be a pinned one."""
    inner, tbs, algorithm, signature = fields(below)
    need(algorithm == inner[1], "a certificate with two algorithms")
    need(inner[2] == fields(above)[0][4], "the issuer has another name")
    need(algorithm in by, "a certificate that is signed by an algorithm that is not taken here")
    key = spki(above)
    need(by != (ECDSA_SHA256,) or key.startswith(P256_SPKI + b"\4"), "the issuer's key is not on P-256")
    holds(key, algorithm, signature, tbs)


@kept
def holds(key, algorithm, signature, message):
    """That the key of this SubjectPublicKeyInfo signed the message, by one of the algorithms that occur (9)."""
    on_curve = key.startswith((P256_SPKI + b"\4", P384_SPKI + b"\4"))
    need(algorithm in ECDSA and on_curve or algorithm in RSA and der_all(der_one(key, 0x30))[0][2] == RSA_KEY,
         "an algorithm that does not belong to the key")
    try:
        public = load_der_public_key(key)
        if on_curve:
            public.verify(signature, message, ec.ECDSA(ECDSA[algorithm]()))
        else:
            need(isinstance(public, rsa.RSAPublicKey) and 2048 <= public.key_size <= 8192, "an RSA key of another size than 2048 to 8192 bits")
            public.verify(signature, message, padding.PKCS1v15(), RSA[algorithm]())
    except (InvalidSignature, ValueError):
        raise Wrong("a signature does not hold") from None


@kept
def stands(chain, rule, pinned):
    """The chain from its own certificate up to one of the pinned CAs."""
    certificates = [parsed(c) for c in chain]
    need(not set(chain) & set(pinned), "the pinned certificate is in the chain")
    _own(certificates[0], rule)
    for depth, certificate in enumerate(certificates[1:]):
        _above(certificate, depth, rule)
    for below, above in zip(chain, chain[1:]):
        issued(below, above)
    reasons = []
    for ca in pinned:
        try:
            return issued(chain[-1], ca)
        except Wrong as e:
            reasons.append(str(e))
    raise Wrong("the chain does not end at a pinned CA: " + reasons[0])


def _own(certificate, rule):
    no_authority(certificate)
    usage = extension(certificate, x509.KeyUsage)
    need(usage is not None and usage.digital_signature and not usage.key_cert_sign, "the key is not for signatures alone")
    _usage(certificate, rule)
    names = extension(certificate, x509.SubjectAlternativeName)
    need(names is not None and list(names) == [x509.UniformResourceIdentifier(rule.name)],
         f"the certificate is not that of {rule.name} alone")


def _above(certificate, depth, rule):
    authority(certificate, depth)
    _usage(certificate, rule)


def authority(certificate, depth):
    """That it may certify what stands below it: `depth` authorities and a key."""
    basic, usage = extension(certificate, x509.BasicConstraints), extension(certificate, x509.KeyUsage)
    need(basic is not None and basic.ca, "a certificate above is not that of an authority")
    need(basic.path_length is None or depth <= basic.path_length, "a chain longer than an authority allows")
    need(usage is not None and usage.key_cert_sign, "a certificate above is not for certificates")
    _unconstrained(certificate)


def no_authority(certificate):
    """That it may certify nothing, and has nothing that only an authority has."""
    basic = extension(certificate, x509.BasicConstraints)
    need(basic is None or not basic.ca, "the certificate is that of an authority")
    need(extension(certificate, x509.NameConstraints) is None, "name constraints where no authority is")


def _unconstrained(certificate):
    limits = extension(certificate, x509.NameConstraints)
    if limits is not None:
        excluded = limits.excluded_subtrees or []
        need(not limits.permitted_subtrees and all(isinstance(n, (x509.DNSName, x509.IPAddress)) for n in excluded),
             "name constraints that are not in the profile")


def _usage(certificate, rule):
    extended = extension(certificate, x509.ExtendedKeyUsage)
    if extended is not None:
        need(rule.usage and list(extended) == list(rule.usage), "an extended key usage that this role has not")


@kept
def valid_at(chain, time):
    for der_bytes in chain:
        certificate = parsed(der_bytes)
        need(certificate.not_valid_before_utc.timestamp() <= time <= certificate.not_valid_after_utc.timestamp(),
             "a certificate was not valid at that time")
