"""E1 in a few lines, from IEEE 802.15.4 and docs/protocol.md 4.1: what a neighbour of our gateway sends and hears."""

import struct

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

LEVEL = 6
MIC = 8


def fcs(frame: bytes) -> bytes:
    crc = 0
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x8408 if crc & 1 else crc >> 1
    return struct.pack("<H", crc)


def zep(frame: bytes, sequence: int) -> bytes:
    """A ZEP version 2 datagram around a frame that ends with its check sequence."""
    head = b"EX" + bytes([2, 1, 26]) + struct.pack(">H", 7) + bytes([1, 255]) + bytes(8) + struct.pack(">I", sequence)
    return head + bytes(10) + bytes([len(frame)]) + frame


def unzep(datagram: bytes) -> bytes:
    assert datagram[:4] == b"EX\x02\x01" and datagram[31] == len(datagram) - 32, "not a ZEP data datagram"
    return datagram[32:]


def nonce(eui64: bytes, counter: int) -> bytes:
    return eui64 + struct.pack(">IB", counter, LEVEL)


def seal_extended(key: bytes, index: int, pan: int, destination: int, eui64: bytes, counter: int, body: bytes) -> bytes:
    """A frame with a 64-bit source address, as HELLO uses, with its check sequence."""
    header = struct.pack("<HBHH", 0xD849, counter & 0xFF, pan, destination) + eui64[::-1]
    header += struct.pack("<BIB", 0x08 | LEVEL, counter, index)
    frame = header + AESCCM(key, tag_length=MIC).encrypt(nonce(eui64, counter), body, header)
    return frame + fcs(frame)


def open_extended(key: bytes, frame: bytes) -> tuple[bytes, bytes] | None:
    """(EUI-64, body) of a frame with a 64-bit source address; None for any other."""
    frame = frame[:-2]
    if len(frame) < 21 + MIC or struct.unpack_from("<H", frame)[0] != 0xD849 or frame[15] & 7 != LEVEL:
        return None
    eui64 = frame[7:15][::-1]
    counter = struct.unpack_from("<I", frame, 16)[0]
    return eui64, AESCCM(key, tag_length=MIC).decrypt(nonce(eui64, counter), frame[21:], frame[:21])
