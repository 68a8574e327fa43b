"""EDHOC with aiocoap and lakers-python, both ways, and OSCORE under what came out (docs/protocol.md 11).

As responder aiocoap is taken as it is, with a C_R of its own choice, and with one method of it replaced, so that C_R is
the short id that EAD_1 says. As initiator it is taken as it is: it has no EAD_1 of ours, so the gateway knows it by its
address; it draws C_I from 0 to 23, so the draw is fixed here, to grow from run to run; and it must be told to wait for
message_4 (`use_combined_edhoc`).
"""

import asyncio
import logging
import tomllib
from pathlib import Path
from unittest import mock

import aiocoap
import cbor2
import lakers
from aiocoap import edhoc, resource
from aiocoap.credentials import CredentialsMap
from aiocoap.oscore_sitewrapper import OscoreSiteWrapper

from vault import NodeSecrets
from village import ROOT, bracketed, expect, free_port, write_private

INITIATOR = ROOT / "target" / "release" / "examples" / "edhoc_initiator"
SID = bytes.fromhex("0a17")
SID_LABEL = 65001
SUITE = {"suite": 2, "method": 3}


def ccs(kid: bytes, x: bytes) -> dict:
    """A credential of ours: no subject, no y."""
    return {14: {8: {1: {1: 2, 2: kid, -1: 1, -2: x}}}}


def public_x(key: edhoc.CoseKeyForEdhoc) -> bytes:
    return key.as_ccs(None, None)[14][8][1][-2]


# aiocoap as the responder -------------------------------------------------------------------------------------------


class Readings(resource.Resource):
    """Takes what is posted under OSCORE, and answers with it turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[str, bytes]] = []

    async def render_post(self, request: aiocoap.Message) -> aiocoap.Message:
        self.taken.append((type(request.remote).__name__, request.payload))
        return aiocoap.Message(code=aiocoap.CHANGED, payload=request.payload[::-1])


class ProfileResponder(OscoreSiteWrapper):
    """aiocoap's server with C_R as docs/protocol.md 11 has it. Its own refuses the critical item that says the short id."""

    def _process_edhoc_msg12(self, pipe) -> None:
        own = self._get_edhoc_identity(pipe.request.get_request_uri().removesuffix("/.well-known/edhoc"))
        responder = lakers.EdhocResponder(r=own.own_key.d, cred_r=cbor2.dumps(own.own_cred[14], canonical=True))
        c_i, ead_1 = responder.process_message_1(pipe.request.payload[1:])
        expect([(e.label(), e.is_critical()) for e in ead_1] == [(SID_LABEL, True)], f"EAD_1 is {ead_1}")
        c_r = bytes(ead_1[0].value())
        message_2 = responder.prepare_message_2(own.own_cred_style.as_lakers(), c_r, None)
        context = edhoc.EdhocResponderContext(responder, c_i, c_r, self.server_credentials, self.log)
        self.server_credentials[":device"] = context
        pipe.add_response(aiocoap.Message(code=aiocoap.CHANGED, payload=message_2), is_last=True)


async def our_initiator(host: str, wrapper: type[OscoreSiteWrapper], c_r: str) -> None:
    """Our initiator runs EDHOC with an aiocoap server, and posts to it."""
    device, server = edhoc.CoseKeyForEdhoc.generate(), edhoc.CoseKeyForEdhoc.generate()
    # The server's credential is what aiocoap makes of a key, with subject and y; the device's is ours.
    own_cred = server.as_ccs(kid=b"\x0b", subject="stock") if c_r == "any" else ccs(b"\0", public_x(server))
    address = f"{bracketed(host)}:{free_port(2, host)}"
    credentials = CredentialsMap()
    credentials[f"coap://{address}/*"] = edhoc.EdhocCredentials(
        **SUITE, own_cred_style="by-key-id", own_cred=own_cred, private_key=server.secret_to_map()
    )
    credentials[":known"] = edhoc.EdhocCredentials(**SUITE, peer_cred=ccs(SID, public_x(device)))
    readings, site = Readings(), resource.Site()
    site.add_resource(["r"], readings)
    bind = (host, int(address.rsplit(":", 1)[1]))
    context = await aiocoap.Context.create_server_context(wrapper(site, credentials), bind=bind)
    try:
        process = await asyncio.create_subprocess_exec(
            INITIATOR, address, SID.hex(), "5", c_r,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        keys = f"{device.d.hex()}\n{cbor2.dumps(own_cred[14], canonical=True).hex()}\n"
        out, err = await asyncio.wait_for(process.communicate(keys.encode()), 120)
    finally:
        await context.shutdown()
    expect(process.returncode == 0, f"our initiator ended with {process.returncode}: {err.decode()[-1500:]}")
    sent = [b"first reading", b"second reading"]
    expect(
        readings.taken == [("OSCOREAddress", payload) for payload in sent], f"the server took {readings.taken}"
    )
    ids, *answers = [line.split()[1:] for line in out.decode().splitlines()]
    expect(ids[1] == "05" and (ids[0] == SID.hex()) == (c_r == "own"), f"the context is {ids}")
    expect([bytes.fromhex(a) for (a,) in answers] == [payload[::-1] for payload in sent], f"we were answered {answers}")
    print(f"    our initiator and aiocoap agree (C_R {ids[0]}, C_I {ids[1]}); two POSTs opened there, their answers here")


# aiocoap as the initiator -------------------------------------------------------------------------------------------


class StockDevice:
    """A device with IP that runs aiocoap, before it has any context."""

    def __init__(self, village, host: str, port: int) -> None:
        self.village, self.uri = village, f"coap://{bracketed(host)}:{port}"
        self.made = village.run(
            "device", "add", "--dir", village.farm, "--net", "dam", "--alg", 10, "--radio", "ip",
            "--danger-no-link", "a stock client on loopback", "--first-contexts", "agreed",
            "--bind", "127.0.0.1:0", "--air", f"{bracketed(host)}:{port}",
        )  # fmt: skip
        self.host = host

    def known_by_address(self) -> str:
        """What the gateway's configuration says of it."""
        return f'\n[[coap.devices]]\naddress = "{self.host}"\nsid = "{self.made["sid"]}"\n'

    def credentials(self) -> edhoc.EdhocCredentials:
        folder = Path(self.made["folder"])
        d = NodeSecrets.of(folder).dh_key
        key = edhoc.CoseKeyForEdhoc.from_map({1: 2, -1: 1, -4: d})
        cloud = tomllib.loads((folder / "node.toml").read_text())["cloud"]
        return edhoc.EdhocCredentials(
            **SUITE, own_cred_style="by-key-id", own_cred=ccs(bytes.fromhex(self.made["sid"]), public_x(key)),
            peer_cred=ccs(bytes.fromhex(cloud["kid"]), bytes.fromhex(cloud["x"])), private_key=key.secret_to_map(),
            use_combined_edhoc=False,
        )  # fmt: skip

    def request(self, payload: object) -> aiocoap.Message:
        payload = cbor2.dumps(payload, canonical=True)
        return aiocoap.Message(code=aiocoap.POST, uri=f"{self.uri}/r", payload=payload, content_format=112)

    async def post(self, context: aiocoap.Context, value: float) -> None:
        answer = await asyncio.wait_for(context.request(self.request([{0: "level", 1: "m", 2: value}])).response, 60)
        protected = type(answer.remote).__name__ == "OSCOREAddress"
        expect(answer.code == aiocoap.CHANGED and protected, f"{answer.code} {answer.payload!r}, protected: {protected}")

    async def run_and_post(self) -> None:
        """A reading, for which aiocoap begins a run by itself. It does so for every request (0.4.17 keeps no context)."""
        context = await aiocoap.Context.create_client_context()
        context.client_credentials[f"{self.uri}/*"] = self.credentials()
        try:
            await self.post(context, 100.5)
        finally:
            await context.shutdown()

    async def run_and_post_twice(self) -> None:
        """The same run as its own step, and two readings under what came out of it."""
        context = await aiocoap.Context.create_client_context()
        try:
            plain = self.request([])
            await context.find_remote_and_interface(plain)
            run = self.credentials().establish_context(context, plain.remote, None, None, logging.getLogger("edhoc"))
            context.client_credentials[f"{self.uri}/*"] = await asyncio.wait_for(run, 60)
            for value in (101.5, 102.5):
                await self.post(context, value)
        finally:
            await context.shutdown()

    async def refused(self) -> None:
        """A run that our cloud refuses, and says no more than that."""
        context = await aiocoap.Context.create_client_context()
        context.client_credentials[f"{self.uri}/*"] = self.credentials()
        try:
            await asyncio.wait_for(context.request(self.request([])).response, 60)
        except aiocoap.error.ResponseWrappingError as e:
            expect(e.coapmessage.code == aiocoap.BAD_REQUEST, f"the run was answered {e.coapmessage.code}")
            return
        finally:
            await context.shutdown()
        expect(False, "the run was not refused")


def with_c_i(c_i: int, step) -> None:
    """aiocoap draws C_I by itself: here it draws this one."""
    with mock.patch("aiocoap.edhoc.random.randint", return_value=c_i):
        asyncio.run(step())


def stock_device(d: StockDevice, token: Path) -> None:
    def highest() -> int:
        return d.village.run("device", "show", "--dir", d.village.farm, d.made["did"])["renewal"]["highest_epoch"]

    with_c_i(0, d.refused)
    expect(highest() == 0, "a run with C_I 0, which is no epoch, agreed on something")
    print("    C_I 0, which is no epoch: 4.00, and nothing agreed on")
    for epoch, step in ((5, d.run_and_post), (9, d.run_and_post_twice)):
        with_c_i(epoch, step)
        expect(highest() == epoch, f"the cloud's book says epoch {highest()}, {epoch} expected")
        print(f"    C_I {epoch}: agreed with the cloud through the gateway, and readings answered by the cloud itself")
    listed = d.village.run(
        "reading", "list", "--dir", d.village.farm, "--token-file", token, "--device", d.made["did"]
    )
    stored = sorted((r["epoch"], r["number"], r["proof"], r["records"][0]["value"]) for r in listed)
    wanted = [(5, 0, "node", 100.5), (9, 0, "node", 101.5), (9, 1, "node", 102.5)]
    expect(stored == wanted, f"the cloud has {stored}, {wanted} expected")
    print("    the cloud has all three, each under its epoch, proven by the device")
