"""Other people's code against our running daemons. Run by `./ci.sh interop`; `--keep` leaves the folder for a look.

1. Stock OSCORE clients (aiocoap) behind the gateway, algorithms 10 and 11, by address and by host name, root and /r; and
   while the cloud is away.
2. Their own captures, sent to the gateway: refused, each frame under its code.
3. A software node's readings: tshark opens the E1 frames and the OSCORE messages of the gateway's capture, and aiocoap
   opens, as a server, every message that a tiny frame expanded to.
4. EDHOC with aiocoap and lakers-python, both ways, and OSCORE under what came out.
5. The TLS front end of docs/operate.md for old 4G modules, with `openssl s_client` for a module.
6. The capture that the demo writes: tshark opens every E1 frame of its four networks, and the OSCORE of algorithm 10.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
import tomllib
import traceback
from pathlib import Path

import aiocoap
import cbor2
from aiocoap import oscore
from aiocoap.message import Direction
from aiocoap.oscore_sitewrapper import OscoreSiteWrapper

import link
import pcap
import tiny
from demo import demo
from edhoc import ProfileResponder, StockDevice, our_initiator, stock_device
from old_tls import old_tls
from shark import kid_is, link_key, oscore_context, station, tshark
from village import (
    ROOT, Failed, Village, bracketed, coap_host, counters, expect, free_port, gauge, wait_until, write_private,
)

CAPTURES = ROOT / "vectors" / "captures"
# Key, PAN, EUI-64 and short address of vectors/captures/ieee802154-ccm.pcap.
KEY = bytes(range(0xC0, 0xD0))
PAN = 0x4321
NEIGHBOUR = bytes.fromhex("acde480000000001")
NEIGHBOUR_SID = 0x0002
READINGS = 12


class Deployment:
    """One network e1+e3+e4 whose radios have the key of the captures, one gateway, and five devices."""

    def __init__(self, village: Village) -> None:
        self.village = village
        farm = village.farm
        udp, tcp = socket.SOCK_DGRAM, socket.SOCK_STREAM
        self.coap_host = coap_host()
        self.coap = (self.coap_host, free_port(udp, self.coap_host))
        self.radio = ("127.0.0.1", free_port(udp))
        self.metrics = ("127.0.0.1", free_port(tcp))
        self.ingest = ("127.0.0.1", free_port(tcp))
        self.air = socket.socket(socket.AF_INET, udp)  # our own radio
        self.air.bind(("127.0.0.1", 0))
        self.air.settimeout(0.2)
        self.node_port = free_port(udp)
        self.capture = village.folder / "heard.pcapng"

        village.run(
            "init", farm, "--ingest", "127.0.0.1:%d" % self.ingest[1], "--api", "127.0.0.1:%d" % free_port(tcp)
        )
        write_private(village.folder / "key", KEY.hex())
        village.run(
            "network", "add", "--dir", farm, "dam", "--pan", f"{PAN:04x}", "--danger-adopt-key", village.folder / "key"
        )
        air = ["--air", "127.0.0.1:%d" % self.air.getsockname()[1], "--air", f"127.0.0.1:{self.node_port}"]
        gateway = village.run(
            "gateway", "add", "--dir", farm, "--net", "dam", "north", "--radio", "127.0.0.1:%d" % self.radio[1],
            "--coap", f"{bracketed(self.coap_host)}:{self.coap[1]}", *air,
        )  # fmt: skip
        self.gateway_folder = farm / "gateways" / "north"
        self.gateway = gateway
        self.stock_device = StockDevice(village, *self.coap)
        self.token = village.folder / "token"
        write_private(self.token, village.run("token", "add", "--dir", farm, "interop")["token"])
        with open(self.gateway_folder / "gateway.toml", "a") as f:
            f.write(f'\n[metrics]\nbind = "127.0.0.1:{self.metrics[1]}"\n')
            f.write(self.stock_device.known_by_address())
        # The key of other people's captures is known to everybody: a gateway starts with it by somebody's word alone.
        (self.gateway_folder / "waivers.toml").write_text(
            '[[waiver]]\nrule = "AR-04"\nsubject = "gateway north"\nfinding = "its network key under index 1"\n'
            'owner = "interop"\nreason = "captures of other stacks are under this key"\nuntil = "2999-12-31"\n'
        )

        radio = ["--bind", "127.0.0.1:%d" % free_port(udp), "--air", "127.0.0.1:%d" % self.radio[1]]
        village.run("device", "add", "--dir", farm, "--net", "dam", "--did", NEIGHBOUR.hex(), "--sid", "0002", *radio)
        self.node_context = village.folder / "node-context"
        self.node = village.run(
            "device", "add", "--dir", farm, "--net", "dam", "--alg", 10, "--aiocoap", self.node_context,
            "--bind", f"127.0.0.1:{self.node_port}", "--air", "127.0.0.1:%d" % self.radio[1],
        )  # fmt: skip
        self.clients: dict[int, Path] = {}
        for alg in (10, 11):
            self.clients[alg] = village.folder / f"client-{alg}"
            village.run(
                "device", "add", "--dir", farm, "--net", "dam", "--alg", alg, "--radio", "ip",
                "--danger-no-link", "a stock client on loopback", "--aiocoap", self.clients[alg],
                "--bind", "127.0.0.1:0", "--air", f"{bracketed(self.coap_host)}:{self.coap[1]}",
            )  # fmt: skip

    def start_cloud(self) -> None:
        self.village.start("cloud", "cloud", "run", "--dir", self.village.farm / "cloud")
        self.village.wait_for_port("cloud", self.ingest)

    def start_gateway(self) -> None:
        self.village.start("gateway", "gateway", "run", "--dir", self.gateway_folder, "--pcap", self.capture)
        self.village.wait_for_port("gateway", self.metrics)

    def refused(self) -> dict[str, int]:
        return counters(self.metrics)

    def expect_refusal(self, code: str, send, what: str) -> None:
        """`send` makes the gateway count exactly one refusal, under `code`."""
        before = self.refused()
        send()

        def changed() -> dict[str, int]:
            now = self.refused()
            return {c: n - before.get(c, 0) for c, n in now.items() if n != before.get(c, 0)}

        delta = wait_until(changed, 5, f"{what}: the gateway counted nothing, {code} expected")
        expect(delta == {code: 1}, f"{what}: counted {delta}, one {code} expected")


# Stock clients ------------------------------------------------------------------------------------------------------


class StockClient:
    """aiocoap with one OSCORE context, as its users run it."""

    def __init__(self, context: aiocoap.Context, security: oscore.FilesystemSecurityContext, port: int, host: str):
        self.context, self.port, self.host, self.sent = context, port, host, 0
        for name in ("localhost", bracketed(host)):
            context.client_credentials[f"coap://{name}:{port}/*"] = security

    async def post(self, name: str, path: str, seconds: float = 20) -> None:
        """Posts a reading and insists on the cloud's own protected 2.04."""
        self.sent += 1
        payload = cbor2.dumps([{0: "level", 1: "m", 2: 100.5 + self.sent}], canonical=True)
        uri = f"coap://{name}:{self.port}{path}"
        request = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=payload, content_format=112)
        response = await asyncio.wait_for(self.context.request(request).response, seconds)
        expect(response.code == aiocoap.CHANGED, f"POST {uri}: {response.code} {response.payload!r}, 2.04 expected")
        expect(
            type(response.remote).__name__ == "OSCOREAddress",
            f"POST {uri}: the answer was not protected ({type(response.remote).__name__})",
        )


async def stock_clients(d: Deployment) -> None:
    for alg, folder in d.clients.items():
        context = await aiocoap.Context.create_client_context()
        try:
            client = StockClient(context, oscore.FilesystemSecurityContext(str(folder)), d.coap[1], d.coap_host)
            for name in (bracketed(d.coap_host), "localhost"):
                for path in ("", "/r"):
                    await client.post(name, path)
                    print(f"    algorithm {alg}: POST coap://{name}{path or '/'}: the cloud's own 2.04")
            d.village.stop("cloud")
            away = asyncio.create_task(client.post("localhost", "/r", 90))
            await asyncio.sleep(4)
            expect(not away.done(), "something answered while the cloud was away")
            d.start_cloud()
            await away
            print(f"    algorithm {alg}: posted while the cloud was away, answered by it when it was back")
            await client.post("localhost", "")
        finally:
            await context.shutdown()


# Captures -----------------------------------------------------------------------------------------------------------


def loopback_captures(d: Deployment) -> None:
    family = socket.AF_INET6 if ":" in d.coap_host else socket.AF_INET
    for name in ("oscore-loopback", "oscore-aes256-loopback"):
        requests = [p for _, to, p in pcap.udp_payloads(CAPTURES / f"{name}.pcap") if to == 5683]
        expect(len(requests) == 3, f"{name}.pcap holds {len(requests)} requests, 3 expected")
        for n, request in enumerate(requests, 1):
            with socket.socket(family, socket.SOCK_DGRAM) as s:
                s.settimeout(0.3)
                d.expect_refusal("E3-01", lambda: s.sendto(request, d.coap), f"{name}.pcap, request {n}")
                try:
                    answer = s.recv(2000)
                except TimeoutError:
                    answer = b""
                # RFC 7252: a Con may be acknowledged or reset; code 0.00 tells nobody anything.
                expect(len(answer) <= 4, f"{name}.pcap, request {n}: the gateway answered {answer.hex()}")
        print(f"    {name}.pcap: 3 requests, 3 times E3-01")


def greet(d: Deployment) -> None:
    """Echoes the nonce of the gateway's HELLO under counter 0: from then on it knows the captures' neighbour."""
    # Who may use which short address, the gateway learns from the cloud.
    wait_until(lambda: gauge(d.metrics, "fivefold_gateway_devices") == 5, 20, "the cloud told the gateway no devices")
    # What it said before that is forgotten: an echo counts for five seconds, and for its last HELLO alone.
    d.air.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            d.air.recv(2000)
    d.air.settimeout(0.5)

    def heard() -> bytes | None:
        try:
            opened = link.open_extended(KEY, link.unzep(d.air.recv(2000)))
        except TimeoutError:
            return None
        return opened[1] if opened and opened[1][:2] == b"\x13\x01" else None

    greeting = wait_until(heard, 40, "the gateway said no HELLO")
    body = b"\x13\x02" + greeting[2:10] + os.urandom(8) + NEIGHBOUR_SID.to_bytes(2, "big") + b"\x01"
    gateway_sid = int.from_bytes(greeting[10:12], "big")
    frame = link.seal_extended(KEY, 1, PAN, gateway_sid, NEIGHBOUR, 0, body)
    d.air.sendto(link.zep(frame, 0), d.radio)
    wait_until(lambda: gauge(d.metrics, "fivefold_gateway_synced_neighbours") == 1, 5, "the gateway did not believe it")


def radio_capture(d: Deployment) -> None:
    kind, frames = pcap.packets(CAPTURES / "ieee802154-ccm.pcap")
    expect(kind == 230 and len(frames) == 8, "ieee802154-ccm.pcap is not the capture that this expects")
    codes = ["E1-03", "E1-11", "E1-03", "E1-11", "E1-03", "T-01", "E1-05", "E1-11"]
    for n, (frame, code) in enumerate(zip(frames, codes), 1):
        datagram = link.zep(frame + link.fcs(frame), n)
        d.expect_refusal(code, lambda: d.air.sendto(datagram, d.radio), f"ieee802154-ccm.pcap, frame {n}")
    print("    ieee802154-ccm.pcap: " + ", ".join(f"{n} {c}" for n, c in enumerate(codes, 1)))


# What a gateway heard -----------------------------------------------------------------------------------------------


def run_node(d: Deployment) -> None:
    done = subprocess.run(
        [str(ROOT / "target/release/fivefold"), "node", "run", "--dir", d.village.farm / "nodes" / d.node["did"],
         "--every", "0.2", "--count", str(READINGS), "--wait", "60"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    expect(done.returncode == 0, f"the node exited {done.returncode}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    print(f"    a software node sent {READINGS} readings, all confirmed by the cloud")


def station_addresses(d: Deployment) -> list[str]:
    values = tomllib.loads((d.gateway_folder / "gateway.toml").read_text())["link"]
    return [station(v["sid"], f"{PAN:04x}", v["did"]) for v in (d.node, values)]


def tshark_opens_e1(d: Deployment) -> list[bytes]:
    """The tiny frames that tshark finds under E1."""
    settings = [link_key(KEY), *station_addresses(d)]
    source = "0x" + d.node["sid"]
    rows = tshark(
        d.capture, settings, ["frame.number", "wpan.decrypt_error", "data.data"], f"wpan.src16 == {source}"
    )
    expect(len(rows) >= READINGS, f"tshark sees {len(rows)} frames of the node, at least {READINGS} expected")
    bad = [row for row in rows if row[1]]
    expect(not bad, f"tshark cannot open frames {[r[0] for r in bad]}: {bad[:1]}")
    requests = []
    for row in rows:
        expect(row[2], f"tshark shows nothing in frame {row[0]}")
        _, frame = tiny.without_mesh(bytes.fromhex(row[2].replace(":", "")))
        if tiny.layers(frame) == tiny.C3:
            requests.append(frame)
    expect(len(requests) >= READINGS, f"{len(requests)} tiny C3 requests under E1, at least {READINGS} expected")
    print(f"    tshark opened {len(rows)} E1 frames of the node, {len(requests)} of them requests to the cloud")
    return requests


def tshark_opens_oscore(d: Deployment, settings: dict) -> None:
    names = ("sender-id_hex", "recipient-id_hex", "secret_hex", "salt_hex")
    context = oscore_context(*(bytes.fromhex(settings[name]) for name in names))
    fields = ["frame.number", "coap.opt.object_security_kid", "oscore.code", "_ws.expert.message"]
    rows = tshark(d.capture, [context], fields, kid_is(d.node["sid"]))
    expect(len(rows) >= READINGS, f"tshark sees {len(rows)} requests of the node, at least {READINGS} expected")
    opened = [row for row in rows if row[2] == "2"]
    expect(len(opened) == len(rows), f"tshark opened {len(opened)} of {len(rows)}: {[r for r in rows if r[2] != '2'][:2]}")
    print(f"    tshark opened {len(opened)} OSCORE requests that tiny frames expanded to, algorithm 10")


class ServerSide(oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils):
    """The cloud's end of a device's context, made by aiocoap."""

    def __init__(self, settings: dict) -> None:
        self.alg_aead = oscore.algorithms[settings["algorithm"]]
        self.hashfun = oscore.hashfunctions["sha256"]
        self.sender_id = bytes.fromhex(settings["recipient-id_hex"])
        self.recipient_id = bytes.fromhex(settings["sender-id_hex"])
        self.id_context = None
        self.derive_keys(bytes.fromhex(settings["salt_hex"]), bytes.fromhex(settings["secret_hex"]))
        self.sender_sequence_number = 0
        self.echo_recovery = None
        self.recipient_replay_window = oscore.ReplayWindow(32, lambda: None)
        self.recipient_replay_window.initialize_empty()

    def post_seqnoincrease(self) -> None:
        pass


def aiocoap_opens(frames: list[bytes], messages: list[bytes], settings: dict) -> None:
    """aiocoap, as the server, opens each message once; and each is what the text says the tiny frame stands for."""
    kid = bytes.fromhex(settings["sender-id_hex"])
    wanted = {tiny.to_coap(frame, kid) for frame in frames}
    expect(wanted == set(messages), f"{len(wanted ^ set(messages))} messages differ from what their tiny frames say")
    server = ServerSide(settings)
    for raw in sorted(wanted, key=lambda m: m[2:4]):
        message = aiocoap.Message.decode(raw)
        message.direction = Direction.INCOMING
        request, _ = server.unprotect(message)
        expect(request.code == aiocoap.POST, f"inside {raw.hex()} is {request.code}, POST expected")
        cbor2.loads(request.payload)
    print(f"    aiocoap, as the server, opened all {len(wanted)} messages that tiny frames expanded to")


def heard(d: Deployment) -> None:
    settings = json.loads((d.node_context / "settings.json").read_text())
    frames = tshark_opens_e1(d)
    tshark_opens_oscore(d, settings)
    rows = tshark(d.capture, [], ["udp.payload"], kid_is(d.node["sid"]))
    aiocoap_opens(frames, [bytes.fromhex(row[0].replace(":", "")) for row in rows], settings)


# The order ----------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the folder with its logs and captures")
    args = parser.parse_args()
    village = Village()
    passed = failed = 0
    try:
        deployment = Deployment(village)
        deployment.start_cloud()
        deployment.start_gateway()
        wait_until(
            lambda: gauge(deployment.metrics, "fivefold_gateway_devices") >= 5, 30, "the cloud pushed no devices"
        )
        village.stop("gateway")  # so that it says HELLO again, now that it knows its devices
        deployment.start_gateway()
        steps = [
            ("the gateway proves the captures' neighbour fresh", lambda: greet(deployment)),
            ("a capture of 802.15.4, by ZEP", lambda: radio_capture(deployment)),
            ("captures of aiocoap talking to itself", lambda: loopback_captures(deployment)),
            ("aiocoap behind the gateway", lambda: asyncio.run(stock_clients(deployment))),
            ("a software node", lambda: run_node(deployment)),
            ("what the gateway heard", lambda: heard(deployment)),
            ("aiocoap and lakers-python as responder, C_R its own",
             lambda: asyncio.run(our_initiator(deployment.coap_host, OscoreSiteWrapper, "any"))),
            ("the same, with C_R as docs/protocol.md 11 says",
             lambda: asyncio.run(our_initiator(deployment.coap_host, ProfileResponder, "own"))),
            ("aiocoap and lakers-python as initiator, behind the gateway",
             lambda: stock_device(deployment.stock_device, deployment.token)),
            ("old 4G modules behind their TLS front end", lambda: old_tls(village)),
            ("the demo's capture", lambda: demo(village.folder)),
        ]
        for name, step in steps:
            print(f"  {name}", flush=True)
            try:
                step()
                passed += 1
            except Failed as e:
                failed += 1
                print(f"  FAILED: {name}: {e}", flush=True)
            except Exception:
                failed += 1
                print(f"  FAILED: {name}:", flush=True)
                traceback.print_exc()
    except Failed as e:
        failed += 1
        print(f"  FAILED: {e}")
    finally:
        if failed:
            for name in ("cloud", "gateway"):
                print(f"--- the end of {name}'s log\n{village.log(name)}")
        gc.collect()  # aiocoap's contexts write into the folder when they go
        village.end(keep=args.keep or failed > 0)
    print(f"interop: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
