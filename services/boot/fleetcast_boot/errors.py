"""What can be wrong with what a machine sends before it has a system."""


class BootError(Exception):
    """Root of the errors of this package."""


class DhcpError(BootError):
    """A datagram is not a DHCP message."""


class TftpError(BootError):
    """A datagram is not a TFTP packet, or asks for what is not served.

    `code` is the error code of RFC 1350, section 5, that the asker is told.
    """

    def __init__(self, message: str, code: int = 4) -> None:
        super().__init__(message)
        self.code = code
