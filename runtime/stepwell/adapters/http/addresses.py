"""Which addresses a handler may call: decided on the address that is connected to, never on a name.

Refused are this pod (its side-cars listen there), its node and the metadata services that hand out the node's
credentials. Private networks are allowed, since the services of a cluster live in them.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_REFUSED: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ip_network(network), why)
    for network, why in (
        ("0.0.0.0/8", "unspecified"),  # RFC 1122: Linux connects to itself
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),  # and the metadata service of most clouds
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("100.100.100.200/32", "metadata"),  # Alibaba Cloud
        ("168.63.129.16/32", "metadata"),  # Azure's host agent
        ("192.0.0.192/32", "metadata"),  # Oracle Cloud
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        ("fd00:ec2::254/128", "metadata"),  # AWS
        ("fd20:ce::254/128", "metadata"),  # Google Cloud
    )
)
_EMBEDDING: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("::/96"))
"""NAT64 (RFC 6052, RFC 8215) and the obsolete IPv4-compatible form: the last 32 bits are an IPv4 address."""
_NUMERIC = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)(\.(0[xX][0-9a-fA-F]*|[0-9]+)){0,3}\.?")


class AddressPolicy:
    """The rule, and what a cluster's owner allows despite it.

    ``allow`` holds networks (``127.0.0.0/8``, ``::1``) and host names (``localhost``); a name allows whatever it
    resolves to. Raises ValueError for an entry that looks like an address and is none.
    """

    def __init__(self, allow: tuple[str, ...] = ()) -> None:
        self._hosts = frozenset(_host(entry) for entry in allow if not _looks_numeric(entry))
        self._networks = tuple(ip_network(entry) for entry in allow if _looks_numeric(entry))

    def refusal(self, host: str, address: Address) -> str | None:
        """Why ``address``, to which ``host`` leads, may not be called; None if it may."""
        if _host(host) in self._hosts:
            return None
        for one in _meanings(address):
            if any(one in network for network in self._networks):
                continue
            why = next((why for network, why in _REFUSED if one in network), None)
            if why is not None:
                return f"{host} leads to {address}, a {why} address"
        return None

    def literal_refusal(self, host: str) -> str | None:
        """The same for a host that is written as an address; None for a name, which is judged once it is resolved.

        Short and octal spellings (``127.1``, ``0x7f000001``) are refused, since libraries disagree on what they mean.
        """
        try:
            address = ip_address(host.strip("[]"))
        except ValueError:
            return f"{host} is not written as four decimal numbers" if _NUMERIC.fullmatch(host) else None
        return self.refusal(host, address)


def _meanings(address: Address) -> tuple[Address, ...]:
    """The address, or the IPv4 addresses inside it: translators and the kernel take the packet there."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    inner = [address.sixtofour, *(address.teredo or ())]
    if int(address) > 1 and any(address in network for network in _EMBEDDING):
        inner.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    # Without its zone (fe80::1%eth0), which belongs to no network.
    return (IPv6Address(int(address)), *(one for one in inner if one is not None))


def _host(name: str) -> str:
    return name.lower().rstrip(".")


def _looks_numeric(entry: str) -> bool:
    return ":" in entry or "/" in entry or entry.replace(".", "").isdigit()
