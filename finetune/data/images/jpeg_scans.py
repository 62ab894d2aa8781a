"""How many scans a JPEG has: a progressive one is drawn over and over, each time a little finer."""

MOST_SCANS = 64
"""Most encoders make 1 to 10; each goes over all pixels, and a few bytes are enough for one."""

_SCAN = 0xDA
_END = 0xD9
# A byte of the picture that looks like a marker, and restarts: no length follows.
_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xD9))


def count_scans(content: bytes) -> int:
    """Count the scans of the first picture in a JPEG; roughly, where there are no more than `MOST_SCANS`.

    Those of thumbnails in its metadata do not count. Damage does not matter: segments are followed as far as
    they can be.
    """
    most = content.count(b"\xff\xda")
    if most <= MOST_SCANS:  # not looked at more closely: images are read in every epoch
        return most
    scans, place = 0, 2
    while (place := content.find(b"\xff", place)) >= 0 and place + 3 < len(content):
        marker = content[place + 1]
        if marker == _END:
            break
        if marker == 0xFF:  # fill bytes
            place += 1
        elif marker in _WITHOUT_LENGTH:
            place += 2
        else:
            scans += marker == _SCAN
            place += 2 + max(2, int.from_bytes(content[place + 2 : place + 4], "big"))
    return scans
