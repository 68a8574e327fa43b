"""Which message an OSCORE message is: its option 9 (RFC 8613 6.1) in a CoAP message (RFC 7252 3)."""

from forms import need

URI_HOST, URI_PORT, OSCORE = 3, 7, 9


def options(message):
    """(number, value) of each option, and the payload."""
    need(len(message) >= 4 and message[0] >> 6 == 1, "no CoAP message")
    token = message[0] & 15
    need(token <= 8, "a CoAP token longer than 8 bytes")
    at, number, found = 4 + token, 0, []
    need(at <= len(message), "CoAP ends early")
    while at < len(message) and message[at] != 0xFF:
        delta, length = message[at] >> 4, message[at] & 15
        at += 1
        delta, at = _extended(message, at, delta)
        length, at = _extended(message, at, length)
        number += delta
        need(number < 1 << 16 and at + length <= len(message), "a CoAP option that ends early")
        found.append((number, message[at:at + length]))
        at += length
    return found, message[at + 1:]


def _extended(message, at, value):
    need(value != 15, "a reserved CoAP option")
    size, base = {13: (1, 13), 14: (2, 269)}.get(value, (0, value))
    need(at + size <= len(message), "a CoAP option that ends early")
    return base + int.from_bytes(message[at:at + size], "big"), at + size


def names(message, stock):
    """(kid, PIV, kid context) of a request; one of a stock client may have other options."""
    every, payload = options(message)
    need(message[0] >> 4 & 3 in (0, 1) and message[1] == 2 and len(payload) >= 9, "no OSCORE request")
    found = [value for number, value in every if number == OSCORE]
    need(len(found) == 1, "no OSCORE message, or one with two OSCORE options")
    free = all(n in (OSCORE, URI_HOST, URI_PORT) or not n & 1 for n, _ in every) if stock else len(every) == 1
    need(free, "an option that stands outside of an OSCORE message")
    value = found[0]
    need(value, "an OSCORE message that names nothing")
    flags, at = value[0], 1
    n = flags & 7
    need(flags >> 5 == 0 and 1 <= n <= 5 and flags & 8, "an OSCORE option without PIV and kid")
    piv, at = value[at:at + n], at + n
    context = b""
    if flags & 16:
        need(at < len(value), "an OSCORE option that ends early")
        length, at = value[at], at + 1
        context, at = value[at:at + length], at + length
        need(len(context) == length and length, "a kid context that ends early, or is empty")
    need(len(piv) == n and (n == 1 or piv[0]), "a PIV that is not the shortest")
    need(at <= len(value), "an OSCORE option that ends early")
    return value[at:], int.from_bytes(piv, "big"), context
