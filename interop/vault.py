"""Opens the sealed secrets of a node's or gateway's folder, as docs/operate.md describes their place: the form is written
here once more, from the outside, with other people's cryptography."""

import base64
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC


def open_secrets(folder: Path) -> bytes:
    """The plaintext of `secrets.sealed`: `FVS2`, id of the data key (8), nonce (12), ciphertext; its file name is the AAD.
    The data key stands in `vault.toml`: nonce and ciphertext under what PBKDF2 makes of the passphrase."""
    form = tomllib.loads((folder / "vault.toml").read_text())
    source, key = form["source"], form["key"]
    assert form["format"] == 2 and source["kind"] == "passphrase-file" and source["rounds"] >= 600_000, f"{folder}: {form}"
    kdf = PBKDF2HMAC(SHA256(), 32, base64.b64decode(source["salt"]), source["rounds"])
    wrapping = AESGCM(kdf.derive((folder / source["path"]).read_bytes().rstrip()))
    key_id, wrapped = bytes.fromhex(key["id"]), base64.b64decode(key["wrapped"])
    data_key = wrapping.decrypt(wrapped[:12], wrapped[12:], b"fivefold data key " + key_id)

    sealed = (folder / "secrets.sealed").read_bytes()
    assert sealed[:12] == b"FVS2" + key_id, f"{folder}/secrets.sealed is not sealed under {key['id']}"
    return AESGCM(data_key).decrypt(sealed[12:24], sealed[24:], b"secrets.sealed")


@dataclass
class NodeSecrets:
    """What a node was handed. A secret of a level that it does not have is empty."""

    key_index: int
    network_key: bytes
    root_psk: bytes
    ms3: bytes
    salt3: bytes
    e2_root: bytes
    # For renewal; of a node that does not renew, empty.
    dh_key: bytes
    # K_blind, of a node with installed contexts that may sign; of others empty.
    blind: bytes

    @classmethod
    def of(cls, folder: Path) -> "NodeSecrets":
        rest = open_secrets(folder)

        def take(length: int) -> bytes:
            nonlocal rest
            assert len(rest) >= length, f"{folder}: the secrets end early"
            taken, rest = rest[:length], rest[length:]
            return taken

        def field() -> bytes:
            return take(int.from_bytes(take(2), "big"))

        index, network_key, root_psk = take(1)[0], take(16), take(32)
        ms3 = field()
        salt3 = take(8) if ms3 else b""
        e2_root = field()
        # The shares of nodes that do not renew end before it.
        dh_key = field() if rest else b""
        assert len(dh_key) in (0, 32), f"{folder}: a key for renewal of {len(dh_key)} bytes"
        blind = field() if rest else b""
        assert len(blind) in (0, 32), f"{folder}: a K_blind of {len(blind)} bytes"
        assert not rest, f"{folder}: {len(rest)} bytes follow the secrets"
        return cls(index, network_key, root_psk, ms3, salt3, e2_root, dh_key, blind)
