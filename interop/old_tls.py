"""Old 4G modules: the TLS front end that docs/operate.md tells of, as it stands there, before a running gateway. `openssl
s_client` plays the module, with the one key exchange and cipher that it has.

Run by itself: python interop/old_tls.py [PATH OF fivefold]
"""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import village as house
from village import ROOT, Village, expect, free_port, wait_until

MODULE = "AES128-SHA:@SECLEVEL=0"
VERSIONS = {"-tls1": "TLSv1", "-tls1_1": "TLSv1.1", "-tls1_2": "TLSv1.2"}


def recipe(listens: int, hands_to: int, pair: Path) -> str:
    """The block of docs/operate.md, with ports and a file of this run."""
    blocks = re.findall(r"```ini\n(.*?)```", (ROOT / "docs" / "operate.md").read_text(), re.DOTALL)
    found = [block for block in blocks if "[classic-4g]" in block]
    expect(len(found) == 1, "docs/operate.md has no block for stunnel")
    values = {"accept": f"127.0.0.1:{listens}", "connect": f"127.0.0.1:{hands_to}", "cert": str(pair)}
    lines = []
    for line in found[0].splitlines():
        key = line.partition("=")[0].strip()
        # Who runs a test is nobody else.
        if key not in ("setuid", "setgid"):
            lines.append(f"{key} = {values.pop(key)}" if key in values else line)
    expect(not values, f"the block for stunnel does not say {', '.join(values)}")
    return "\n".join(lines) + "\n"


def frame() -> tuple[str, str]:
    """What a 4G module posts, as the vectors have it: the request, and the frame in it."""
    cases = json.loads((ROOT / "vectors" / "waspmote" / "http.json").read_text())["cases"]
    case = next(c for c in cases if c["module"] == "4G POST")
    head = (
        f"POST {case['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {case['content_type']}\r\n"
        f"Content-Length: {len(case['body_text'])}\r\nConnection: close\r\n\r\n"
    )
    return head + case["body_text"], case["frame_hex"]


def speak(port: int, *options: str, text: str = "") -> tuple[str, str]:
    """What `openssl s_client` is answered, and what it says of the connection."""
    line = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", *options]
    done = subprocess.run(line, input=text, capture_output=True, text=True, timeout=60, errors="replace")
    return done.stdout, done.stderr


def old_tls(village: Village) -> None:
    """A gateway with the listener, the front end before it, and a module under each version."""
    farm = village.folder / "classic"
    http, tls = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_STREAM)
    radio = free_port(socket.SOCK_DGRAM)
    village.run("init", farm)
    village.run("network", "add", "--dir", farm, "classic")
    village.run("gateway", "add", "--dir", farm, "--net", "classic", "shed", "--radio", f"127.0.0.1:{radio}")
    folder = farm / "gateways" / "shed"
    config = folder / "gateway.toml"
    config.write_text(f'{config.read_text()}\n[insecure_http]\nbind = "127.0.0.1:{http}"\n')
    village.start("shed", "gateway", "run", "--dir", folder)
    village.wait_for_port("shed", ("127.0.0.1", http))

    key, certificate, pair = (village.folder / name for name in ("rsa.key", "rsa.pem", "classic-4g.pem"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=meshlium",
         "-keyout", key, "-out", certificate], check=True, capture_output=True,
    )
    house.write_private(pair, certificate.read_text() + key.read_text())
    front = village.folder / "classic-4g.conf"
    front.write_text(recipe(tls, http, pair))
    with open(village.folder / "stunnel.log", "ab") as log:
        village.processes["stunnel"] = subprocess.Popen(["stunnel4", front], stdout=log, stderr=log)
    village.wait_for_port("stunnel", ("127.0.0.1", tls))

    request, hexes = frame()
    for option, version in VERSIONS.items():
        answer, said = speak(tls, option, "-cipher", MODULE, text=request)
        expect("AES128-SHA" in answer and version in answer, f"{version} with AES128-SHA was not spoken: {said[-500:]}")
        # The gateway knows no such serial, and says so by its own code: the frame came through.
        body = answer.rpartition("\r\n\r\n")[2] if "\r\n\r\n" in answer else answer
        expect("CL-07" in body, f"the gateway did not read the frame that came by {version}: {answer[-500:]}")
    for options in (["-tls1_3"], ["-tls1_2", "-cipher", "ECDHE"]):
        answer, said = speak(tls, *options, text=request)
        expect("CL-07" not in answer, f"the front end for old modules also speaks {' '.join(options)}: {said[-500:]}")
    expect(hexes.startswith("3c3d3e"), "the vector holds no frame")
    for name in ("stunnel", "shed"):
        village.stop(name)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        house.FIVEFOLD = Path(sys.argv[1]).resolve()
    here = Village()
    try:
        old_tls(here)
        print("old TLS: passed")
    finally:
        here.end(keep=False)
