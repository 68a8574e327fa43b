"""The capture that `fivefold demo --pcap` writes, opened by tshark with the secrets in the operator's folder."""

import io
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import cbor2
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

import pcap
import shark
import tiny
from vault import NodeSecrets
from village import FIVEFOLD, expect

# Network, combination, layers of its requests; None: with E1 alone nothing is sealed under it.
NETWORKS = [
    ("spillway", "e1+e2+e4", tiny.C2),
    ("crest", "e1+e3+e4", tiny.C3),
    ("gallery", "e1+e2+e3+e4", tiny.C2_OVER_C3),
    ("bench", "e1", None),
]
STOCK = "0104"  # in each network, the node of algorithm 10
NODES = 5
# The demo lets the cloud have at least so many readings of each node before it ends.
READINGS = 3
LINKS = {"0": "104", "1": "7"}  # Wireshark's numbers: IEEE 802.15.4 with FCS, raw IP


@dataclass
class Network:
    """What the operator's folder says of a network."""

    pan: str
    profile: str
    stock: tuple[dict, NodeSecrets] | None = None
    link_keys: set[tuple[int, bytes]] = field(default_factory=set)
    stations: list[str] = field(default_factory=list)


def networks(operator: Path) -> dict[str, Network]:
    found: dict[str, Network] = {}
    by_net = {}
    for folder in sorted(operator.glob("gateways/*")):
        values = tomllib.loads((folder / "gateway.toml").read_text())
        link = values["link"]
        network = by_net.setdefault(values["net"], Network(link["pan"], ""))
        network.stations.append(shark.station(link["sid"], link["pan"], link["did"]))
        if values["name"] in [name for name, *_ in NETWORKS]:
            found[values["name"]] = network
    for folder in sorted(operator.glob("nodes/*")):
        values, secrets = tomllib.loads((folder / "node.toml").read_text()), NodeSecrets.of(folder)
        network = by_net[values["net"]]
        network.profile = values["policy"]["profile"]
        network.stations.append(shark.station(values["sid"], values["pan"], values["did"]))
        network.link_keys.add((secrets.key_index, secrets.network_key))
        if values["sid"] == STOCK:
            expect(values["policy"]["alg"] == 10, f"node {STOCK} of PAN {network.pan} has another algorithm than 10")
            network.stock = values, secrets
    return found


# The layers ---------------------------------------------------------------------------------------------------------


@dataclass
class Context:
    """A C2 or C3 context of a device (docs/protocol.md 5), algorithm 10."""

    sid: bytes
    peer: bytes
    secret: bytes
    salt: bytes

    def setting(self) -> str:
        return shark.oscore_context(self.sid, self.peer, self.secret, self.salt)

    def derive(self, id: bytes, kind: str, length: int) -> bytes:
        info = cbor2.dumps([id, None, 10, kind, length])
        return HKDF(SHA256(), length, self.salt, info).derive(self.secret)

    def open(self, piv: bytes, ciphertext: bytes) -> bytes:
        """RFC 8613 5 for a request of the device."""
        padded = bytes([len(self.sid)]) + self.sid.rjust(7, b"\0") + piv.rjust(5, b"\0")
        nonce = bytes(a ^ b for a, b in zip(padded, self.derive(b"", "IV", 13), strict=True))
        aad = cbor2.dumps(["Encrypt0", b"", cbor2.dumps([1, [10], self.sid, piv, b""])])
        return AESCCM(self.derive(self.sid, "Key", 16), tag_length=8).decrypt(nonce, ciphertext, aad)


def epoch(values: dict) -> bytes:
    return values["epoch"].to_bytes(2, "big").lstrip(b"\0") or b"\0"


def c3(values: dict, secrets: NodeSecrets) -> Context:
    return Context(bytes.fromhex(values["sid"]), epoch(values), secrets.ms3, secrets.salt3)


def c2(values: dict, secrets: NodeSecrets) -> Context:
    group = bytes.fromhex(values["group"])
    secret = HKDFExpand(SHA256(), 32, b"e2 ms" + group).derive(secrets.e2_root)
    salt = HKDFExpand(SHA256(), 8, b"e2 salt" + group).derive(secrets.e2_root)
    return Context(bytes.fromhex(values["sid"]), b"\xe2" + epoch(values), secret, salt)


# tshark -------------------------------------------------------------------------------------------------------------


def two_interfaces(capture: Path) -> int:
    """How many frames the radio's interface holds."""
    rows = shark.tshark(capture, [], ["frame.interface_id", "frame.encap_type"], "frame")
    seen = {(number, kind) for number, kind in rows}
    expect(seen == set(LINKS.items()), f"interfaces and link types of the demo's capture: {sorted(seen)}")
    heard = shark.tshark(capture, [], ["wpan.fcs_ok", "frame.number"], "frame.interface_id == 0")
    bad = [number for ok, number in heard if ok not in ("1", "True")]
    expect(not bad, f"tshark finds no right FCS in frames {bad[:5]}")
    return len(heard)


def open_e1(capture: Path, name: str, network: Network, key: bytes) -> tuple[int, dict[str, list[bytes]]]:
    """How many frames the PAN has, all of them opened, and the requests under them by originator."""
    settings = [shark.link_key(key), *network.stations]
    fields = ["frame.number", "wpan.src16", "wpan.decrypt_error", "data.data"]
    rows = shark.tshark(capture, settings, fields, f"wpan.dst_pan == 0x{network.pan}")
    requests: dict[str, list[bytes]] = {}
    for number, source, error, data in rows:
        expect(not error and data, f"tshark cannot open frame {number} of {name}: {error or 'nothing in it'}")
        originator, frame = tiny.without_mesh(bytes.fromhex(data.replace(":", "")))
        # Under E1 alone: RuleID 0x18 and the length of the number.
        if tiny.layers(frame) is not None or 0x19 <= frame[0] <= 0x1B:
            requests.setdefault(originator or source.removeprefix("0x"), []).append(frame)
    for n in range(1, NODES + 1):
        sid = f"01{n:02x}"
        expect(len(requests.get(sid, [])) >= READINGS, f"{name}: less than {READINGS} requests of {sid} under E1")
    return len(rows), requests


def no_other_key_opens(capture: Path, network: Network, key: bytes) -> None:
    """That the field is empty means something: with another key it is not."""
    settings = [shark.link_key(key), *network.stations]
    rows = shark.tshark(capture, settings, ["wpan.decrypt_error"], f"wpan.dst_pan == 0x{network.pan}")
    expect(rows and all(row[0] for row in rows), "tshark opens frames of a network with another network's key")


def open_oscore(capture: Path, what: str, context: Context, messages: set[bytes], codes: set[str]) -> list[bytes]:
    """The payloads of exactly these messages, all on the IP interface; inside must be one of these codes."""
    fields = ["frame.number", "udp.payload", "oscore.code", "oscore.tag_check_failed", "data.data"]
    rows = shark.tshark(capture, [context.setting()], fields, f"ip && {shark.kid_is(context.sid.hex())}")
    ours = [row for row in rows if bytes.fromhex(row[1].replace(":", "")) in messages]
    missing = messages - {bytes.fromhex(row[1].replace(":", "")) for row in ours}
    expect(not missing, f"{what}: {len(missing)} tiny frames under E1 have no message on the IP interface")
    closed = [row[0] for row in ours if row[3] or row[2] not in codes]
    expect(not closed, f"{what}: tshark cannot open frames {closed[:5]}, or the code inside is none of {codes}")
    return [bytes.fromhex(row[4].split(",")[-1].replace(":", "")) for row in ours]


def expect_readings(what: str, payloads: list[bytes]) -> int:
    """Each payload is a CBOR sequence (docs/protocol.md 7); returns how many begin with a SenML pack."""
    packs = 0
    for payload in payloads:
        decoder = cbor2.CBORDecoder(io.BytesIO(payload))
        first = decoder.decode()
        if isinstance(first, dict):
            continue  # control, and no reading
        named = isinstance(first, list) and all(isinstance(r, dict) and 0 in r and 2 in r for r in first)
        expect(named, f"{what}: {payload.hex()} begins with no SenML pack")
        packs += 1
    expect(packs >= READINGS, f"{what}: {packs} SenML packs, at least {READINGS} expected")
    return packs


# The order ----------------------------------------------------------------------------------------------------------


def stock_node(capture: Path, name: str, network: Network, layers: int, requests: list[bytes]) -> None:
    values, secrets = network.stock
    what = f"{name}'s node {STOCK}"
    expect(values["policy"]["kid_length"] == 0, f"{what} writes its sid into tiny frames")
    expect(all(tiny.layers(r) == layers for r in requests), f"{what} sent something below its level")
    sid = bytes.fromhex(STOCK)
    messages = {tiny.to_coap(r, sid) for r in requests}
    if layers == tiny.C2_OVER_C3:
        # Inside C2 is no CoAP but rule 01 or 02 of 6.3, which tshark shows as a code. What that stands for, it opens from
        # a second file.
        outer = c2(values, secrets)
        inner = [tiny.unwrap(r, outer.open(*tiny.parts(r))) for r in requests]
        open_oscore(capture, what, outer, messages, {"1", "2"})
        messages = {tiny.to_coap(r, sid) for r in inner}
        capture = capture.with_name("inner.pcap")
        pcap.write_udp(capture, sorted(messages))
    context = c2(values, secrets) if layers == tiny.C2 else c3(values, secrets)
    packs = expect_readings(what, open_oscore(capture, what, context, messages, {"2"}))
    under = {tiny.C2: "under C2", tiny.C3: "under C3", tiny.C2_OVER_C3: "under C2 and then C3"}[layers]
    print(f"    tshark opened {packs} POSTs with SenML of {what}, {under}, algorithm 10")


def demo(folder: Path) -> None:
    capture, work = folder / "demo.pcapng", folder / "demo"
    line = [str(FIVEFOLD), "demo", "--no-attacks", "--no-renewal", "--pcap", str(capture), "--folder", str(work)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    expect(done.returncode == 0, f"the demo exited {done.returncode}: {done.stderr[-2000:]}")
    total = two_interfaces(capture)
    print(f"    the demo's capture has two interfaces: 802.15.4 with a right FCS in all {total} frames, and IP")
    known = networks(work / "operator")
    keys, opened = {}, 0
    for name, profile, layers in NETWORKS:
        network = known[name]
        expect(network.profile == profile, f"{name} is {network.profile}, {profile} expected")
        expect(len(network.link_keys) == 1, f"{name}'s nodes have {len(network.link_keys)} network keys, one expected")
        (index, keys[name]), = network.link_keys
        expect(index == 1, f"{name}'s network key has index {index}, 1 expected")
        frames, requests = open_e1(capture, name, network, keys[name])
        opened += frames
        print(f"    tshark opened all {frames} E1 frames of {name} ({profile})")
        if layers is None:
            for sid, sent in requests.items():
                expect_readings(f"{name}'s node {sid}", [f[1 + (f[0] & 3) :] for f in sent])
        else:
            stock_node(capture, name, network, layers, requests[STOCK])
    expect(opened == total, f"{total - opened} frames of the demo's capture are of no network")
    no_other_key_opens(capture, known["crest"], keys["spillway"])
