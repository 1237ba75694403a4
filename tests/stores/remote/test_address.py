"""Addresses: read in one way only, shown without secrets, refused unless listed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import SceneError, UsageError
from tilemap.stores.remote.address import Address, AllowList


@pytest.mark.parametrize(
    ("text", "scheme", "site", "path", "name"),
    [
        ("https://Example.org/a/b%20c.tif", "https", "example.org", "/a/b%20c.tif", "b c.tif"),
        ("http://example.org:8080/x.tif", "http", "example.org:8080", "/x.tif", "x.tif"),
        ("https://example.org:443/x.tif", "https", "example.org", "/x.tif", "x.tif"),
        ("HTTPS://example.org./x.tif", "https", "example.org", "/x.tif", "x.tif"),
        ("http://[::1]:8000/x.tif", "http", "[::1]:8000", "/x.tif", "x.tif"),
        ("s3://some-bucket/a/b.tif", "s3", "s3://some-bucket", "a/b.tif", "b.tif"),
        ("s3://some-bucket", "s3", "s3://some-bucket", "", ""),
    ],
)
def test_parts_of_an_address(text: str, scheme: str, site: str, path: str, name: str):
    """Scheme, host and usual port are brought to one form."""
    address = Address.parse(text)
    assert (address.scheme, address.site, address.path, address.name) == (scheme, site, path, name)
    assert Address.parse(address.url) == address


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd",
        "ftp://example.org/x.tif",
        "gopher://example.org/",
        "/vsicurl/https://example.org/x.tif",
        "https:///x.tif",
        "https://exa mple.org/x.tif",
        "https://example.org\\@evil.org/x.tif",
        "https://example.org/\r\nHost: evil.org",
        "https://bücher.example/x.tif",
        "https://*.example.org/x.tif",
        "s3://B/x.tif",
        "s3://bucket-one/../x.tif",
        "s3://bucket-one/a//x.tif",
        "s3://bucket-one/a.tif?versionId=1",
        "https://example.org/" + "a" * 9000,
    ],
)
def test_odd_addresses_are_refused(text: str):
    """What two parsers could read in two ways is read in none."""
    with pytest.raises(SceneError, match=r"address|followed by|S3 key"):
        Address.parse(text)


def test_credentials_are_refused_and_not_repeated():
    """A password in an address would end in records and messages."""
    with pytest.raises(SceneError, match="must not hold a user or a password") as caught:
        Address.parse("https://me:hunter2@example.org/x.tif")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SceneError) as caught:
        Address.parse("ftp://me:hunter2@example.org/x.tif?token=hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_signature_is_sent_and_never_shown():
    """Two signed addresses of one path stay apart without telling what they are signed with."""
    one = Address.parse("https://example.org/a.tif?X-Sig=secret1&e=1")
    two = Address.parse("https://example.org/a.tif?X-Sig=secret2&e=1")
    assert one.url.endswith("?X-Sig=secret1&e=1")
    assert one.shown != two.shown
    for text in (one.shown, repr(one), str(one), one.name):
        assert "secret" not in text
    assert one.name == "a.tif"


@pytest.mark.parametrize(
    ("entry", "yes", "no"),
    [
        (
            "example.org",
            ["https://example.org/a", "http://EXAMPLE.org/a"],
            ["https://example.org:8080/a", "https://a.example.org/a", "https://notexample.org/",
             "https://example.org.evil.org/", "s3://example.org/a"],
        ),
        ("example.org:8080", ["http://example.org:8080/a"], ["http://example.org/a"]),
        (
            "*.example.org",
            ["https://a.example.org/x", "https://a.b.example.org/x"],
            ["https://example.org/x", "https://evilexample.org/x", "https://.example.org/x"],
        ),
        ("s3://bucket-one", ["s3://bucket-one/a"], ["s3://bucket-two/a", "https://bucket-one/a"]),
        ("S3://bucket-one/", ["s3://bucket-one/a"], []),
        ("[::1]:8000", ["http://[::1]:8000/"], ["http://[::1]/", "http://[::2]:8000/"]),
        ("127.0.0.1", ["http://127.0.0.1/"], ["http://2130706433/", "http://127.1/"]),
    ],
)  # fmt: skip
def test_what_an_entry_allows(entry: str, yes: list[str], no: list[str]):
    """Host and port, exact, or every host below a domain."""
    allow = AllowList.of([entry])
    for text in yes:
        allow.check(Address.parse(text))
    for text in no:
        with pytest.raises(SceneError):
            allow.check(Address.parse(text))


def test_a_refusal_names_host_and_option():
    """A person learns what to give, and nothing secret is repeated."""
    with pytest.raises(SceneError, match=r"list example\.org:81 in `allow_hosts` ") as caught:
        AllowList().check(Address.parse("http://example.org:81/a.tif?sig=hunter2"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        "*",
        "*.org",
        "https://example.org",
        "example.org/path",
        "10.0.0.1/8",
        "a b",
        "",
        "s3://",
        "x:y",
    ],
)
def test_entries_that_say_too_much_or_nothing(entry: str):
    """Not everything, not a whole top domain, not an address."""
    with pytest.raises(UsageError, match="`allow_hosts` takes"):
        AllowList.of([entry])


@pytest.mark.parametrize(
    ("base", "reference", "where"),
    [
        ("https://h.org/a/item.json?sig=x", "./b/c.tif", "https://h.org/a/b/c.tif"),
        ("https://h.org/a/item.json", "/c.tif", "https://h.org/c.tif"),
        ("https://h.org/a/item.json", "//evil.org/c.tif", "https://evil.org/c.tif"),
        ("https://h.org/a/item.json", "s3://bucket-one/c.tif", "s3://bucket-one/c.tif"),
        ("s3://bucket-one/a/item.json", "../c.tif", "s3://bucket-one/c.tif"),
        ("s3://bucket-one/a/item.json", "b/c.tif", "s3://bucket-one/a/b/c.tif"),
    ],
)
def test_references(base: str, reference: str, where: str):
    """What an item names starts where the item lies, without what signs the item."""
    assert Address.parse(base).join(reference).url == where


@pytest.mark.parametrize("reference", ["file:///etc/passwd", "//evil.org/c.tif"])
def test_references_that_leave_a_bucket(reference: str):
    """An item on S3 names objects and addresses, no files."""
    with pytest.raises(SceneError):
        Address.parse("s3://bucket-one/a/item.json").join(reference)


@given(st.text(max_size=60), st.sampled_from(["https://", "http://example.org", "s3://", ""]))
def test_any_text_is_read_or_refused(text: str, start: str):
    """No text makes anything but an address that stays itself, or one error."""
    try:
        address = Address.parse(start + text)
    except SceneError:
        return
    assert Address.parse(address.url) == address
    assert not AllowList().allows(address)


NOT_PUBLIC = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "0.0.0.0", "255.255.255.255",
    "169.254.169.254", "fe80::1%eth0", "::1", "::", "fd00:ec2::254", "fec0::1",
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.0.9", "224.0.0.1", "ff02::1",
    "::ffff:169.254.169.254", "::ffff:168.63.129.16", "::169.254.169.254",
    "64:ff9b::169.254.169.254", "64:ff9b::168.63.129.16", "64:ff9b::10.0.0.1", "64:ff9b:1::1",
    "2002:a9fe:a9fe::1", "2002:a83f:8110::", "2001:0:1::1", "2001:db8::1", "198.18.0.1",
]  # fmt: skip


@pytest.mark.parametrize("peer", NOT_PUBLIC)
def test_names_lead_to_public_addresses(peer: str):
    """Metadata services, private networks and this machine need to be listed by their address."""
    with pytest.raises(SceneError, match="which is not a public address") as caught:
        AllowList.of(["a.example.org", "*.example.org"]).check_peer("a.example.org", peer, 80)
    assert "\n" not in str(caught.value)
    plain = peer.partition("%")[0].removeprefix("::ffff:")
    listed = f"[{plain}]" if ":" in plain else plain
    for entry in (listed, f"{listed}:80", f"{plain}/{128 if ':' in plain else 32}"):
        AllowList.of(["a.example.org", entry]).check_peer("a.example.org", peer, 80)
    with pytest.raises(SceneError, match="leads to"):
        AllowList.of([f"{listed}:81", "10.0.0.0/30"]).check_peer("a.example.org", peer, 80)


@pytest.mark.parametrize(
    "peer",
    ["93.184.216.34", "2606:4700::1111", "64:ff9b::5db8:d822", "2002:5db8:d822::", "52.216.1.1"],
)
def test_public_addresses_need_no_entry(peer: str):
    """A listed name may lead to any of them, also through translation to IPv4."""
    AllowList.of(["a.example.org"]).check_peer("a.example.org", peer, 443)


def test_localhost_is_this_machine():
    """That name means loopback and nothing else."""
    AllowList.of(["localhost:80"]).check_peer("localhost", "127.0.0.1", 80)
    AllowList.of(["localhost:80"]).check_peer("localhost", "::1", 80)
    with pytest.raises(SceneError, match="leads to"):
        AllowList.of(["localhost:80"]).check_peer("localhost", "10.0.0.1", 80)


def test_networks_and_patterns_allow_no_host_by_its_number():
    """A network says where listed names may lead; a domain has no addresses below it."""
    for entry in ("10.0.0.0/8", "*.0.0.1"):
        with pytest.raises(SceneError, match="not among the hosts"):
            AllowList.of([entry]).check(Address.parse("http://10.0.0.1/a.tif"))
