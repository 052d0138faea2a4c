from __future__ import annotations

from ipaddress import ip_address

import pytest

from stepwell.adapters.http import AddressPolicy


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.9.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("0.0.0.0", "unspecified"),  # noqa: S104  (called, not bound to)
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("169.254.169.254", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("febf::1", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("192.0.0.192", "metadata"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
    ],
)
def test_refused(address: str, why: str) -> None:
    assert AddressPolicy().refusal("name.example", ip_address(address)) == (
        f"name.example leads to {ip_address(address)}, a {why} address"
    )


@pytest.mark.parametrize(
    "address",
    [
        "10.96.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "93.184.216.34",
        "2606:2800:220:1::1",
        "fd12:3456::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "fd00:ec2::253",
        "fec0::1",
    ],
)
def test_allowed(address: str) -> None:
    assert AddressPolicy().refusal("name.example", ip_address(address)) is None


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "0x7f.1", "0", "127.0.0.01"]
)
def test_odd_spellings_of_addresses_are_refused(host: str) -> None:
    assert AddressPolicy(("127.0.0.0/8",)).literal_refusal(host) == f"{host} is not written as four decimal numbers"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1.example.com", "1.2.3.4.5", "0xcafe.example", "shop"])
def test_names_are_judged_once_they_are_resolved(host: str) -> None:
    assert AddressPolicy().literal_refusal(host) is None


def test_what_the_owner_allows() -> None:
    policy = AddressPolicy(("127.0.0.0/8", "::1", "Metadata.Google.Internal."))
    assert policy.refusal("localhost", ip_address("127.0.0.1")) is None
    assert policy.refusal("localhost", ip_address("::1")) is None
    assert policy.literal_refusal("[::ffff:127.0.0.1]") is None
    assert policy.refusal("metadata.google.internal", ip_address("169.254.169.254")) is None
    assert policy.refusal("other.example", ip_address("169.254.169.254")) is not None
    assert policy.refusal("localhost", ip_address("fe80::1")) is not None


@pytest.mark.parametrize("entry", ["127.0.0.1/8", "300.0.0.1", "10.0.0.0/33", ":::1"])
def test_a_wrong_entry_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=entry.split("/", maxsplit=1)[0]):
        AddressPolicy((entry,))
