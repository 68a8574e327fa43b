"""What independent programs say of the parts of a bundle: pycose of signatures, `openssl verify` of certificates, `openssl ts`
of timestamps."""

import contextlib
import hashlib
import subprocess
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pycose import headers
from pycose.algorithms import CoseAlgorithm, EdDSA, Es256
from pycose.keys import EC2Key, OKPKey
from pycose.keys.curves import P256, Ed25519
from pycose.messages import Sign1Message

import note


class Failed(Exception):
    """A peer says otherwise."""


def expect(holds, reason):
    if not holds:
        raise Failed(reason)


# pycose knows the numbers of RFC 9053 alone; these of RFC 9864 name the same signatures.
@CoseAlgorithm.register_attribute()
class Esp256(Es256):
    identifier, fullname = -9, "ESP256"


@CoseAlgorithm.register_attribute()
class Ed25519Alone(EdDSA):
    identifier, fullname = -19, "Ed25519"


def cose(data, spki, context):
    """That pycose opens a COSE_Sign1, and refuses it with another payload and under another external_aad."""
    def opened(data, context):
        message = Sign1Message.decode(data)
        message.external_aad = context
        if len(spki) == 91:
            message.key = EC2Key(crv=P256, x=spki[27:59], y=spki[59:], optional_params={})
        else:
            message.key = OKPKey(crv=Ed25519, x=spki[12:], optional_params={})
        expect(message.phdr[headers.KID] == hashlib.sha256(spki).digest()[:8], "pycose: kid")
        return message.verify_signature()

    expect(opened(data, context), "pycose does not open the COSE_Sign1")
    parts = list(cbor2.loads(data).value)
    expect(not opened(data, b"something else"), "pycose opens it under another external_aad")
    parts[2] = parts[2][:-1] + bytes([parts[2][-1] ^ 1])
    expect(not opened(cbor2.dumps(cbor2.CBORTag(18, parts), canonical=True), context), "pycose opens it with another payload")


def openssl(*arguments, folder):
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def pem(der):
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def certificates(chain, pinned, time, folder):
    """That `openssl verify` follows a chain to the pinned CA at a time, and not to another CA."""
    folder = Path(folder)
    (folder / "ca.pem").write_bytes(b"".join(pem(c) for c in pinned))
    (folder / "own.pem").write_bytes(pem(chain[0]))
    (folder / "above.pem").write_bytes(b"".join(pem(c) for c in chain[1:]))
    arguments = ["verify", "-attime", str(time), "-CAfile", "ca.pem"] + (["-untrusted", "above.pem"] if chain[1:] else [])
    code, text = openssl(*arguments, "own.pem", folder=folder)
    expect(code == 0, f"openssl verify: {text}")
    code, _ = openssl("verify", "-attime", str(time), "-CAfile", "own.pem", "own.pem", folder=folder)
    expect(code != 0, "openssl verify takes a certificate for its own authority")


CONFIGURATION = """
[tsa]
default_tsa = here
[here]
serial = ./serial
signer_cert = ./tsa.pem
certs = ./tsa-ca.pem
signer_key = ./tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
[stamps]
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
[ca]
default_ca = lists
[lists]
database = ./index
crlnumber = ./number
default_md = sha256
default_crl_days = 30
[req]
distinguished_name = dn
[dn]
"""


class Authority:
    """An authority of timestamps, made by openssl."""

    def __init__(self, folder, *key):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "tsa.cnf").write_text(CONFIGURATION)
        (self.folder / "serial").write_text("01\n")
        (self.folder / "number").write_text("01\n")
        (self.folder / "index").write_text("")
        self._run("req", "-x509", *key, "-nodes", "-keyout", "ca.key", "-out", "tsa-ca.pem", "-subj", "/CN=Example TSA CA",
                  "-days", "30", "-config", "tsa.cnf", "-extensions", "authority")
        self._run("req", *key, "-nodes", "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=Example TSA", "-config", "tsa.cnf")
        self._run("x509", "-req", "-in", "tsa.csr", "-CA", "tsa-ca.pem", "-CAkey", "ca.key", "-days", "30", "-out", "tsa.pem",
                  "-extfile", "tsa.cnf", "-extensions", "stamps", "-set_serial", "5")
        self._run("ca", "-gencrl", "-config", "tsa.cnf", "-name", "lists", "-keyfile", "ca.key", "-cert", "tsa-ca.pem", "-out", "list.pem")
        self.ca = (self.folder / "tsa-ca.pem").read_text()
        self.certificate = x509.load_pem_x509_certificate((self.folder / "tsa.pem").read_bytes()).public_bytes(Encoding.DER)
        self.list = x509.load_pem_x509_crl((self.folder / "list.pem").read_bytes()).public_bytes(Encoding.DER)

    def _run(self, *arguments):
        code, text = openssl(*arguments, folder=self.folder)
        expect(code == 0, f"openssl {arguments[0]}: {text}")

    def stamp(self, imprint, *more):
        """A token over a hash."""
        self._run("ts", "-query", "-digest", imprint.hex(), "-sha256", *more, "-out", "query.tsq")
        self._run("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query.tsq", "-token_out", "-out", "token.der")
        return (self.folder / "token.der").read_bytes()

    def verifies(self, token, imprint):
        """Whether `openssl ts -verify` takes a token for a hash."""
        (self.folder / "shown.der").write_bytes(token)
        code, _ = openssl("ts", "-verify", "-digest", imprint.hex(), "-in", "shown.der", "-token_in", "-CAfile", "tsa-ca.pem",
                          "-untrusted", "tsa.pem", folder=self.folder)
        return code == 0


def imprint(bundle):
    """What a timestamp of a bundle is over."""
    return hashlib.sha256(note.tlog_proof(bundle[7])[2].encode()).digest()


@contextlib.contextmanager
def told(what):
    """Names what failed."""
    try:
        yield
    except Failed as e:
        raise Failed(f"{what}: {e}") from None
