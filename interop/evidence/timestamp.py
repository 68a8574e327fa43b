"""RFC 3161 timestamp tokens (docs/evidence.md 9), walked through element by element: nothing in them goes unlooked at."""

import hashlib
import re
from datetime import datetime, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from chain import extension, fields, parsed, public_key, unconstrained, valid_at
from forms import Wrong, der_all, der_one, kept, need

SEQUENCE, SET, OCTETS, OID, INTEGER, TIME, BOOLEAN = 0x30, 0x31, 0x04, 0x06, 0x02, 0x18, 0x01
SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
TST_INFO = bytes.fromhex("2a864886f70d0109100104")
CONTENT_TYPE = bytes.fromhex("2a864886f70d010903")
MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")
SIGNING_CERTIFICATE = bytes.fromhex("2a864886f70d010910020c")
SIGNING_CERTIFICATE_V2 = bytes.fromhex("2a864886f70d010910022f")
RSA = bytes.fromhex("300d06092a864886f70d0101010500")
DIGESTS = {
    bytes.fromhex("608648016503040201"): (hashes.SHA256, bytes.fromhex("300a06082a8648ce3d040302")),
    bytes.fromhex("608648016503040202"): (hashes.SHA384, bytes.fromhex("300a06082a8648ce3d040303")),
    bytes.fromhex("608648016503040203"): (hashes.SHA512, bytes.fromhex("300a06082a8648ce3d040304")),
}


def _children(data, *tags):
    """The elements in `data`, which begin with these tags."""
    found = der_all(data)
    need(len(found) >= len(tags) and all(f[0] == t for f, t in zip(found, tags)), "a token of another form")
    return found


def _exactly(data, *tags):
    found = _children(data, *tags)
    need(len(found) == len(tags), "a token with something more")
    return [content for _, content, _ in found]


def _digest(algorithm):
    """The hash of an AlgorithmIdentifier, its parameters absent or NULL."""
    parts = _children(algorithm, OID)
    need(len(parts) == 1 or [p[2] for p in parts[1:]] == [b"\5\0"], "a digest with parameters")
    need(parts[0][1] in DIGESTS, "a digest other than SHA-256, SHA-384 and SHA-512")
    return DIGESTS[parts[0][1]]


def _hash(kind, data):
    return hashlib.new(kind.name, data).digest()


@kept
def verified(token, certificates, lists, imprint, pinned):
    """What the token says: when, and by whom."""
    kind, wrapped = _exactly(der_one(token, SEQUENCE), OID, 0xA0)
    need(kind == SIGNED_DATA, "a token that is no SignedData")
    data = _children(der_one(wrapped, SEQUENCE), INTEGER, SET, SEQUENCE)
    need(data[0][1] == b"\3", "SignedData of another version than 3")
    rest = data[3:]
    inside = ()
    if rest and rest[0][0] == 0xA0:
        inside = tuple(whole for _, _, whole in der_all(rest.pop(0)[1]))
    need(len(rest) == 1 and rest[0][0] == SET, "SignedData with revocation lists, or without a signer")
    kind, content = _exactly(data[2][1], OID, 0xA0)
    need(kind == TST_INFO, "SignedData over something else than TSTInfo")
    info = der_one(content, OCTETS)
    time = _info(info, imprint)
    _signer(_exactly(rest[0][1], SEQUENCE)[0], data[1][1], info, certificates)
    need(certificates, "a token without certificates")
    need(not set(certificates) & set(pinned), "a pinned certificate is in the token's list")
    chain, authorities = [parsed(c) for c in certificates], [x509.load_der_x509_certificate(c) for c in pinned]
    _authorities(chain, authorities)
    valid_at(certificates, time)
    need(all(c in (*certificates, *pinned) for c in inside), "a certificate in the token that is not in the list")
    for data in lists:
        _revocations(data, chain, authorities, time)
    return {"at": time, "authority": chain[0].subject.rfc4514_string()}


def _info(info, imprint):
    """genTime of a TSTInfo, in Unix seconds."""
    parts = _children(der_one(info, SEQUENCE), INTEGER, OID, SEQUENCE, INTEGER, TIME)
    need(parts[0][1] == b"\1", "TSTInfo of another version than 1")
    algorithm, found = _exactly(parts[2][1], SEQUENCE, OCTETS)
    need(_digest(algorithm)[0] is hashes.SHA256 and found == imprint, "a timestamp of something else than the checkpoint in item 7")
    for tag, content, _ in parts[5:]:
        if tag == 0xA1:
            for one in der_all(content):
                parts_of_one = _children(one[1], OID)
                need(len(parts_of_one) > 1 and parts_of_one[1][0] != BOOLEAN, "a critical extension in TSTInfo")
    text = re.fullmatch(rb"([0-9]{14})(\.[0-9]*[1-9])?Z", parts[4][1])
    need(text, "genTime of another form")
    try:
        return int(datetime.strptime(text[1].decode(), "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc).timestamp())
    except ValueError:
        raise Wrong("genTime of another form") from None


def _signer(signer, digests, info, certificates):
    need(certificates, "a token without certificates")
    parts = _children(signer, INTEGER, SEQUENCE, SEQUENCE, 0xA0, SEQUENCE, OCTETS)
    need(len(parts) == 6, "a signer with unsigned attributes")
    version, name, digest, attributes, algorithm, signature = parts
    need(version[1] == b"\1", "a signer of another version than 1")
    own = fields(certificates[0])[0]
    need(name[1] == own[2] + own[0], "the signer's certificate is not the first in the list")
    need(digests == digest[2], "digestAlgorithms is not the signer's")
    kind, ecdsa = _digest(digest[1])
    _attributes(attributes[1], kind, info, certificates[0])
    signed = b"\x31" + attributes[2][1:]
    key = public_key(certificates[0])
    try:
        if isinstance(key, rsa.RSAPublicKey):
            need(algorithm[2] == RSA, "a signature algorithm that does not belong to the key")
            key.verify(signature[1], signed, padding.PKCS1v15(), kind())
        else:
            need(isinstance(key, ec.EllipticCurvePublicKey) and algorithm[2] == ecdsa, "a signature algorithm that does not belong to the key")
            key.verify(signature[1], signed, ec.ECDSA(kind()))
    except InvalidSignature:
        raise Wrong("the token's signature does not hold") from None


def _attributes(data, kind, info, certificate):
    found = {}
    for tag, content, _ in der_all(data):
        need(tag == SEQUENCE, "an attribute of another form")
        name, values = _exactly(content, OID, SET)
        need(name not in found, "an attribute that is there twice")
        found[name] = values
    need({CONTENT_TYPE, MESSAGE_DIGEST} <= set(found), "a signer without contentType or messageDigest")
    need(der_one(found[CONTENT_TYPE], OID) == TST_INFO, "contentType of something else")
    need(der_one(found[MESSAGE_DIGEST], OCTETS) == _hash(kind, info), "messageDigest of something else")
    if SIGNING_CERTIFICATE_V2 in found:
        identifier = _first(found[SIGNING_CERTIFICATE_V2])
        parts = der_all(identifier)
        hashed = hashes.SHA256
        if parts and parts[0][0] == SEQUENCE:
            hashed = _digest(parts.pop(0)[1])[0]
        need(parts and parts[0][0] == OCTETS and parts[0][1] == _hash(hashed, certificate), "signed under another certificate")
    else:
        need(SIGNING_CERTIFICATE in found, "a signer that does not name its certificate")
        parts = _children(_first(found[SIGNING_CERTIFICATE]), OCTETS)
        need(parts[0][1] == hashlib.sha1(certificate).digest(), "signed under another certificate")


def _first(values):
    """The first ESSCertID of a SigningCertificate."""
    certificates = _children(der_one(values, SEQUENCE), SEQUENCE)[0][1]
    return _children(certificates, SEQUENCE)[0][1]


def _authorities(chain, pinned):
    usage = [e for e in chain[0].extensions if isinstance(e.value, x509.ExtendedKeyUsage)]
    need(usage and usage[0].critical and list(usage[0].value) == [ExtendedKeyUsageOID.TIME_STAMPING],
         "the signer's certificate is not for timestamps alone")
    for above in chain[1:]:
        basic, usage = extension(above, x509.BasicConstraints), extension(above, x509.KeyUsage)
        need(basic is not None and basic.ca and usage is not None and usage.key_cert_sign,
             "a certificate above is not that of an authority")
        extended = list(extension(above, x509.ExtendedKeyUsage) or [ExtendedKeyUsageOID.TIME_STAMPING])
        need(ExtendedKeyUsageOID.TIME_STAMPING in extended or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in extended,
             "a certificate above is not for timestamps")
        unconstrained(above)
    for below, above in zip(chain, chain[1:]):
        need(_issued(below, above), "a certificate of the token is not by the one above it")
    need(any(_issued(chain[-1], ca) for ca in pinned), "the token's certificates do not end at a pinned authority")


def _issued(below, above):
    inner, _, algorithm, _ = fields(below.public_bytes(Encoding.DER))
    if inner[1] != algorithm:
        return False
    try:
        below.verify_directly_issued_by(above)
        return True
    except Exception:  # of a library, over bytes from outside: whatever it is, this one did not certify that one
        return False


def _revocations(data, chain, pinned, time):
    try:
        listed = x509.load_der_x509_crl(data)
        again, revoked = listed.public_bytes(Encoding.DER), {r.serial_number: r.revocation_date_utc.timestamp() for r in listed}
        list(listed.extensions)
    except Exception as e:  # of a library, over bytes from outside
        raise Wrong(f"no revocation list: {type(e).__name__}") from None
    need(again == data, "a revocation list in another encoding than DER")
    tbs, algorithm = [whole for _, _, whole in der_all(der_one(data, SEQUENCE))][:2]
    inner = [p for p in der_all(der_one(tbs, SEQUENCE)) if p[0] == SEQUENCE]
    need(inner and inner[0][2] == algorithm, "a revocation list with two algorithms")
    issuers = [c for c in (*chain[1:], *pinned) if c.subject == listed.issuer]
    try:
        need(any(listed.is_signature_valid(c.public_key()) for c in issuers), "a revocation list by nobody in the chain")
    except Wrong:
        raise
    except Exception:  # of a library, over bytes from outside
        raise Wrong("a revocation list by nobody in the chain") from None
    for certificate in chain:
        if certificate.issuer == listed.issuer:
            need(revoked.get(certificate.serial_number, time + 1) > time, "a certificate of the token was revoked")
