"""RFC 3161 timestamp tokens (docs/evidence.md 9), walked through element by element: nothing in them goes unlooked at."""

import hashlib
import re
from datetime import datetime, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from chain import ECDSA, RSA, RSA_KEY, authority, extension, fields, holds, issued, no_authority, parsed, spki, three, valid_at
from forms import Wrong, der_all, der_one, kept, need

SEQUENCE, SET, OCTETS, OID, INTEGER, TIME, BOOLEAN = 0x30, 0x31, 0x04, 0x06, 0x02, 0x18, 0x01
SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
TST_INFO = bytes.fromhex("2a864886f70d0109100104")
CONTENT_TYPE = bytes.fromhex("2a864886f70d010903")
MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")
SIGNING_CERTIFICATE = bytes.fromhex("2a864886f70d010910020c")
SIGNING_CERTIFICATE_V2 = bytes.fromhex("2a864886f70d010910022f")
DIGESTS = {
    bytes.fromhex("608648016503040201"): hashes.SHA256,
    bytes.fromhex("608648016503040202"): hashes.SHA384,
    bytes.fromhex("608648016503040203"): hashes.SHA512,
}
BY = (*ECDSA, *RSA)


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
    _authorities(certificates, pinned)
    valid_at(certificates, time)
    need(all(c in (*certificates, *pinned) for c in inside), "a certificate in the token that is not in the list")
    for data in lists:
        _revocations(data, certificates, pinned, time)
    return {"at": time, "authority": parsed(certificates[0]).subject.rfc4514_string()}


def _info(info, imprint):
    """genTime of a TSTInfo, in Unix seconds."""
    parts = _children(der_one(info, SEQUENCE), INTEGER, OID, SEQUENCE, INTEGER, TIME)
    need(parts[0][1] == b"\1", "TSTInfo of another version than 1")
    algorithm, found = _exactly(parts[2][1], SEQUENCE, OCTETS)
    need(_digest(algorithm) is hashes.SHA256 and found == imprint, "a timestamp of something else than the checkpoint in item 7")
    for tag, content, _ in parts[5:]:
        if tag == 0xA1:
            for one in der_all(content):
                need(one[0] == SEQUENCE, "an extension of another form")
                parts_of_one = _children(one[1], OID)
                need(len(parts_of_one) > 1 and parts_of_one[1][0] != BOOLEAN, "a critical extension in TSTInfo")
    text = re.fullmatch(rb"([0-9]{14})(\.[0-9]*[1-9])?Z", parts[4][1])
    need(text and text[1] >= b"1970", "genTime of another form")
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
    kind = _digest(digest[1])
    _attributes(attributes[1], kind, info, certificates[0])
    # One form for each kind of key: what is named here is not signed.
    key = spki(certificates[0])
    is_rsa = der_all(der_one(key, SEQUENCE))[0][2] == RSA_KEY
    by = next(a for a, hashed in (RSA if is_rsa else ECDSA).items() if hashed is kind)
    need(algorithm[2] == (RSA_KEY if is_rsa else by), "a signature algorithm that does not belong to the key")
    holds(key, by, signature[1], b"\x31" + attributes[2][1:])


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
            hashed = _digest(parts.pop(0)[1])
        need(parts and parts[0][0] == OCTETS and parts[0][1] == _hash(hashed, certificate), "signed under another certificate")
    else:
        need(SIGNING_CERTIFICATE in found, "a signer that does not name its certificate")
        parts = _children(_first(found[SIGNING_CERTIFICATE]), OCTETS)
        need(parts[0][1] == hashlib.sha1(certificate).digest(), "signed under another certificate")


def _first(values):
    """The first ESSCertID of a SigningCertificate."""
    certificates = _children(der_one(values, SEQUENCE), SEQUENCE)[0][1]
    return _children(certificates, SEQUENCE)[0][1]


def _authorities(certificates, pinned):
    own, *above = [parsed(c) for c in certificates]
    usage = [e for e in own.extensions if isinstance(e.value, x509.ExtendedKeyUsage)]
    need(usage and usage[0].critical and list(usage[0].value) == [ExtendedKeyUsageOID.TIME_STAMPING],
         "the signer's certificate is not for timestamps alone")
    no_authority(own)
    for depth, certificate in enumerate(above):
        authority(certificate, depth)
        extended = list(extension(certificate, x509.ExtendedKeyUsage) or [ExtendedKeyUsageOID.TIME_STAMPING])
        need(ExtendedKeyUsageOID.TIME_STAMPING in extended or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in extended,
             "a certificate above is not for timestamps")
    for lower, upper in zip(certificates, certificates[1:]):
        issued(lower, upper, BY)
    need(any(_issued(certificates[-1], ca) for ca in pinned), "the token's certificates do not end at a pinned authority")


def _issued(below, above):
    try:
        issued(below, above, BY)
        return True
    except Wrong:
        return False


def _revocations(data, certificates, pinned, time):
    tbs, algorithm, signature = three(data)
    inner = der_all(der_one(tbs, SEQUENCE))
    inner = inner[inner[0][0] == INTEGER:] if inner else []
    need(len(inner) > 1 and inner[0][2] == algorithm and algorithm in BY, "a revocation list with another algorithm")
    try:
        listed = x509.load_der_x509_crl(data)
        again = listed.public_bytes(Encoding.DER)
        revoked = [(r.serial_number, r.revocation_date_utc.timestamp()) for r in listed]
    except Exception as e:  # of a library, over bytes from outside
        raise Wrong(f"no revocation list: {type(e).__name__}") from None
    need(again == data, "a revocation list in another encoding than DER")
    issuer = inner[1][2]
    need(any(_signed(c, algorithm, signature, tbs) for c in (*certificates[1:], *pinned) if fields(c)[0][4] == issuer),
         "a revocation list by nobody in the chain")
    for certificate in certificates:
        if fields(certificate)[0][2] == issuer:
            serial = parsed(certificate).serial_number
            need(not any(s == serial and t <= time for s, t in revoked), "a certificate of the token was revoked")


def _signed(certificate, algorithm, signature, message):
    try:
        holds(spki(certificate), algorithm, signature, message)
        return True
    except Wrong:
        return False
