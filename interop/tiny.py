"""Tiny frames, from the text of docs/protocol.md 6."""

C3, C2, C2_OVER_C3 = 0, 1, 2


def without_mesh(plaintext: bytes) -> tuple[str | None, bytes]:
    """(originator of a mesh header, if there is one; what follows it)."""
    if plaintext[0] >> 4 == 0xB:
        return plaintext[1:3].hex(), plaintext[5:]
    return None, plaintext


def layers(frame: bytes) -> int | None:
    """L of an OSCORE request (6.1); None for any other frame."""
    return frame[0] >> 3 & 3 if frame[0] >> 5 == 1 else None


def parts(frame: bytes) -> tuple[bytes, bytes]:
    """(PIV, ciphertext) of a request without boot id."""
    n = frame[0] & 3
    assert n, f"{frame.hex()} has a boot id"
    return frame[1 : 1 + n], frame[1 + n :]


def to_coap(frame: bytes, kid: bytes) -> bytes:
    """6.1 for a request without boot id: the CoAP message that it stands for."""
    piv, ciphertext = parts(frame)
    answer = frame[0] >> 2 & 1
    option = bytes([0x08 | len(piv)]) + piv + kid
    head = bytes([0x41 if answer else 0x50, 0x02]) + (int.from_bytes(piv, "big") & 0xFFFF).to_bytes(2, "big")
    return head + (piv[-1:] if answer else b"") + bytes([0x90 | len(option)]) + option + b"\xff" + ciphertext


def unwrap(frame: bytes, inner: bytes) -> bytes:
    """6.3: the C3 request, as a tiny frame of its own, in the opened C2 of `frame`."""
    flags = 0x20 | frame[0] & 4
    if inner[0] == 1:
        piv, rest = parts(frame)[0], inner[1:]
    else:
        assert inner[0] == 2, f"{inner.hex()} is no C3 request"
        piv, rest = inner[2 : 2 + inner[1]], inner[2 + inner[1] :]
    return bytes([flags | len(piv)]) + piv + rest
