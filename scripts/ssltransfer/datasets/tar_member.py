"""Headers of tar files, of a bounded size."""

import tarfile

MAX_HEADER = 2**20
"""Bytes of a header of tar that stands for a member, as long names do: it is read as a whole."""
_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


class TarMember(tarfile.TarInfo):
    """Header of a member of a tar file, of a size that can be read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "TarMember":
        """Parse a header; ReadError if it stands for one that is too large."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in _HEADERS and member.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header has {member.size} bytes")
        return member
