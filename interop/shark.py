"""tshark on a capture, with keys and contexts given on its command line."""

import subprocess
from pathlib import Path

from village import expect


def tshark(capture: Path, settings: list[str], fields: list[str], display: str) -> list[list[str]]:
    """A row for each packet that `display` lets through, with these fields of it; several values of one stand with commas."""
    # Lightweight Mesh guesses that some short plaintexts are its own and says nothing of them.
    line = ["tshark", "-r", str(capture), "--disable-protocol", "lwm", "-Y", display, "-T", "fields", "-E", "separator=|"]
    for setting in settings:
        line += ["-o", setting]
    for field in fields:
        line += ["-e", field]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0, f"tshark: {done.stderr}")
    return [row.split("|") for row in done.stdout.splitlines()]


def link_key(key: bytes, index: int = 1) -> str:
    return f'uat:ieee802154_keys:"{key.hex()}","{index}","No hash"'


def station(sid: str, pan: str, eui64: str) -> str:
    """Which EUI-64 a short address of a PAN stands for: the nonce needs it."""
    return f'uat:802154_addresses:"{sid}","{pan}",{eui64}'


def oscore_context(device: bytes, peer: bytes, secret: bytes, salt: bytes) -> str:
    """An OSCORE context of algorithm 10 without ID context; tshark knows no algorithm 11."""
    return (
        f'uat:oscore_contexts:"{device.hex()}","{peer.hex()}","{secret.hex()}","{salt.hex()}","",'
        '"AES-CCM-16-64-128 (CCM*)"'
    )


def kid_is(sid: str) -> str:
    """A display filter: OSCORE requests of this sender."""
    return f"coap && coap.opt.object_security_kid == {sid[:2]}:{sid[2:]}"
