"""A deployment of real processes on loopback, made with the `fivefold` command in a temporary folder."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIVEFOLD = ROOT / "target" / "release" / "fivefold"


class Failed(Exception):
    """An expectation that did not hold, in one sentence."""


def expect(condition: object, sentence: str) -> None:
    if not condition:
        raise Failed(sentence)


def wait_until(condition, seconds: float, sentence: str):
    """What `condition` returns, as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise Failed(f"{sentence}, in {seconds:g} s")


def coap_host() -> str:
    """The address that `localhost` resolves to for aiocoap, which asks for IPv6 with mapped IPv4."""
    found = socket.getaddrinfo("localhost", 1, socket.AF_INET6, socket.SOCK_DGRAM, flags=socket.AI_V4MAPPED)
    return found[0][4][0].removeprefix("::ffff:")


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def free_port(kind: socket.SocketKind, host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as s:
        s.bind((host, 0))
        return s.getsockname()[1]


class Village:
    """The folder, its commands and its processes."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fivefold-interop-"))
        self.farm = self.folder / "farm"
        self.processes: dict[str, subprocess.Popen] = {}

    def run(self, *words: object) -> object:
        """The JSON answer of a command that must succeed."""
        line = [str(FIVEFOLD), *map(str, words), "-o", "json"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
        expect(done.returncode == 0, f"`{' '.join(line[1:])}` exited {done.returncode}: {done.stderr or done.stdout}")
        return json.loads(done.stdout)

    def start(self, name: str, *words: object) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(FIVEFOLD), *map(str, words)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(timeout=20)

    def wait_for_port(self, name: str, address: tuple[str, int]) -> None:
        def answers() -> bool:
            process = self.processes[name]
            expect(process.poll() is None, f"{name} ended with {process.poll()}: {self.log(name)}")
            with socket.socket() as s:
                s.settimeout(0.5)
                return s.connect_ex(address) == 0

        wait_until(answers, 20, f"{name} does not listen on {address[0]}:{address[1]}")

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def end(self, keep: bool) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        if keep:
            print(f"kept {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def metrics(address: tuple[str, int]) -> list[str]:
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/metrics", timeout=5) as answer:
        return answer.read().decode().splitlines()


def gauge(address: tuple[str, int], name: str) -> int:
    found = [line for line in metrics(address) if line.startswith(name + " ")]
    return int(float(found[0].split()[1])) if found else 0


def counters(address: tuple[str, int]) -> dict[str, int]:
    """What a gateway refused so far, by code, from its metrics."""
    found: dict[str, int] = {}
    for line in metrics(address):
        if 'code="' in line and not line.startswith("#"):
            code = line.split('code="', 1)[1].split('"', 1)[0]
            found[code] = found.get(code, 0) + int(float(line.rsplit(" ", 1)[1]))
    return {code: count for code, count in found.items() if count}


def write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(text)
