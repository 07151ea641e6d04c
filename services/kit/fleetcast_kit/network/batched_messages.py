"""The arguments of sendmmsg and recvmmsg, many datagrams a call, which Python lacks: linux/socket.h for ctypes."""

from __future__ import annotations

import ctypes


class IoVector(ctypes.Structure):
    """`struct iovec`."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class MessageHeader(ctypes.Structure):
    """`struct msghdr`."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(IoVector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class BatchedMessage(ctypes.Structure):
    """`struct mmsghdr`: a message and how many of its bytes were sent or received."""

    _fields_ = (("header", MessageHeader), ("length", ctypes.c_uint))
