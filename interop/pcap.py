"""Reads the packets of a classic pcap file with LINKTYPE_IEEE802_15_4_NOFCS or with IP, for UDP payloads."""

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
