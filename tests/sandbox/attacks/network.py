"""Attacks that reach beyond the process through sockets."""

from tests.sandbox.attacks.case import Attack

ATTACKS = [
    Attack(
        name="a connection that was open before",
        kind="network",
        must_not=(
            "What a package opened in the server while it was imported (here the launcher did) "
            "is used by a session."
        ),
        layer="rlimits",
        says="all refused",
        works=True,
        code="""
            import socket
            def send(descriptor):
                os.fstat(descriptor)
                return os.write(descriptor, b"DOCUMENT")
            attempt(*[lambda each=each: send(each) for each in range(3, 1024) if each != protocol_socket()])
        """,
    ),
    Attack(
        name="tcp",
        kind="network",
        must_not="A listener gets a connection.",
        layer="seccomp",
        works=True,
        code="import socket\nsocket.create_connection(('127.0.0.1', PORT), 2)\nbreach('connected')",
    ),
    Attack(
        name="udp",
        kind="network",
        must_not="A datagram is sent.",
        layer="seccomp",
        works=True,
        code=(
            "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'secret', "
            "('127.0.0.1', UDP_PORT))\nbreach('sent')"
        ),
    ),
    Attack(
        name="unix",
        kind="network",
        must_not="A service of this machine is reached through its path.",
        layer="seccomp",
        works=True,
        code="import socket\nsocket.socket(socket.AF_UNIX).connect(LISTENER)\nbreach('connected')",
    ),
    Attack(
        name="abstract",
        kind="network",
        must_not="A service of this machine is reached through an abstract name.",
        layer="seccomp",
        works=True,
        code="import socket\nsocket.socket(socket.AF_UNIX).connect(ABSTRACT)\nbreach('connected')",
    ),
    Attack(
        name="listen",
        kind="network",
        must_not="Other processes can connect to the session.",
        layer="seccomp",
        works=True,
        code="import socket\nserver = socket.create_server(('127.0.0.1', 0))\nbreach('listening')",
    ),
    Attack(
        name="asyncio",
        kind="network",
        must_not="An event loop opens a connection or a server.",
        layer="seccomp",
        works=True,
        code="""
            import asyncio
            async def connect():
                await asyncio.open_connection("127.0.0.1", PORT)
                breach("connected")
            asyncio.run(connect())
        """,
    ),
    Attack(
        name="name look-up",
        kind="network",
        must_not="A host name is sent to a name server, which is a way to send data.",
        layer="seccomp",
        says="gaierror",
        code="""
            import socket
            breach(socket.getaddrinfo("secret.example.invalid", 80))
        """,
    ),
    Attack(
        name="other families",
        kind="network",
        must_not="A socket of a rarer family or kind is made: netlink, raw packets.",
        layer="seccomp",
        works=True,
        code="""
            import socket
            attempt(*[lambda each=each: socket.socket(*each) for each in [(1, 2), (1, 5), (10, 1), (16, 3), (17, 3)]])
        """,
    ),
    Attack(
        name="datagrams from a pair",
        kind="network",
        must_not="A socket pair, which event loops need, sends to another address.",
        layer="seccomp",
        works=True,
        code="""
            import socket
            def send(kind):
                one, two = socket.socketpair(socket.AF_UNIX, kind)
                return one.sendto(b"secret", DATAGRAMS)
            attempt(lambda: send(socket.SOCK_DGRAM), lambda: send(socket.SOCK_STREAM), lambda: send(socket.SOCK_SEQPACKET))
        """,
    ),
    Attack(
        name="a socket that is there",
        kind="network",
        must_not=(
            "The protocol's own socket is connected elsewhere, listened on, or queried for its "
            "peer."
        ),
        layer="seccomp",
        works=True,
        code="""
            socket = protocol_socket()
            address = struct.pack("H", 0)
            reach(
                ("connect", socket, address, 2),
                ("bind", socket, None, 0),
                ("listen", socket, 1),
                ("accept4", socket, None, None, 0),
                ("getsockopt", socket, 1, 17, ctypes.create_string_buffer(12), struct.pack("I", 12)),
            )
        """,
    ),
    Attack(
        name="descriptors",
        kind="network",
        must_not="A descriptor is sent or taken over a socket.",
        layer="seccomp",
        works=True,
        code="""
            import socket
            one, two = socket.socketpair()
            attempt(lambda: socket.send_fds(one, [b"x"], [0]), lambda: socket.recv_fds(two, 1, 1))
        """,
    ),
    Attack(
        name="out of band",
        kind="network",
        must_not=(
            "Urgent data reach the kernel's code for them, which allowed an escape from other "
            "sandboxes (CVE-2025-38236)."
        ),
        layer="seccomp",
        works=True,
        code="""
            import socket
            one, two = socket.socketpair()
            two.setblocking(False)
            reach(
                ("sendto", one.fileno(), b"x", 1, 1, None, 0),
                ("recvfrom", two.fileno(), ctypes.create_string_buffer(1), 1, 1, None, None),
                ("recvfrom", two.fileno(), ctypes.create_string_buffer(1), 1, 0x2000, None, None),
            )
        """,
    ),
]
