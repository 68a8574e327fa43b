"""Classic pcap files: reads packets of LINKTYPE_IEEE802_15_4_NOFCS or of IP, and writes UDP payloads."""

import struct
from pathlib import Path


def packets(path: Path) -> tuple[int, list[bytes]]:
    """Link type and packets."""
    data = path.read_bytes()
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"}[data[:4]]
    (link,) = struct.unpack_from(order + "I", data, 20)
    found, at = [], 24
    while at < len(data):
        (length,) = struct.unpack_from(order + "I", data, at + 8)
        found.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return link, found


def udp_payloads(path: Path) -> list[tuple[int, int, bytes]]:
    """(source port, destination port, payload) of each UDP datagram in IPv6 or IPv4."""
    link, found = packets(path)
    skip = {0: 4, 1: 14, 101: 0, 113: 16, 228: 0, 229: 0, 276: 20}[link]
    out = []
    for packet in found:
        ip = packet[skip:]
        udp = ip[40:] if ip[0] >> 4 == 6 else ip[(ip[0] & 15) * 4 :]
        source, destination, length = struct.unpack_from(">HHH", udp)
        out.append((source, destination, udp[8:length]))
    return out


def write_udp(path: Path, payloads: list[bytes]) -> None:
    """CoAP messages, each from 10.0.0.1 to 10.0.0.2."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for at, payload in enumerate(payloads):
        udp = struct.pack(">HHHH", 5683, 5683, 8 + len(payload), 0) + payload
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), at, 0, 64, 17, 0, b"\x0a\0\0\x01", b"\x0a\0\0\x02")
        out += struct.pack("<IIII", at, 0, len(ip + udp), len(ip + udp)) + ip + udp
    path.write_bytes(out)
