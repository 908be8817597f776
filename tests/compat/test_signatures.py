"""Trust as stock ostree, gpg and another ed25519 implementation see it."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from p2p.errors import (
    BindingError,
    Error,
    RevokedError,
    RollbackError,
    SignatureError,
    UnsignedError,
)
from p2p.ostree.config import RemoteConfig, load_key_file, parse_remote
from p2p.ostree.objects import Checksum, Commit, checksum_of
from p2p.trust.keys import import_keys, keyring_path
from p2p.trust.policy import Clock, Head, Source, check_bindings, check_not_older
from p2p.trust.sign import (
    PublicKey,
    SecretKey,
    SignatureKind,
    add_signature,
    sign_commit,
    verify_ed25519,
)
from p2p.trust.verify import VerifiedCommit, Verifier
from tests.oracle import Ostree
from tests.require import INSTALLED_TESTS, require
from tests.servers import StartNginx
from tests.trees import small_tree
from tests.trust.gnupg import NOW, GnuPG
from tests.trust.samples import TIME, with_signatures

CLOCK = Clock(now=2e9, trusted=True)
GPG = SignatureKind.GPG
LATER = "21000102T000000!"


def commit_path(repo: Path, checksum: str) -> Path:
    return repo / "objects" / checksum[:2] / f"{checksum[2:]}.commit"


def stock_verdict(stock: Ostree, *arguments: str) -> str | None:
    """What `ostree pull` says against a commit; None if it takes it."""
    done = stock.try_run("pull", *arguments)
    return None if done.returncode == 0 else done.stderr


# -- ed25519 ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that ostree's own tests ship, signed by libsodium in 2020."""
    require("ostree-tests")
    target = tmp_path_factory.mktemp("upstream")
    with tarfile.open(INSTALLED_TESTS / "pre-signed-pull-data.tar.gz") as archive:
        archive.extractall(target, filter="data")
    return target / "repo"


UPSTREAM_KEY = PublicKey.parse("45yzbkuEok0lLabxzdAHWUDSMZgYfxU40sN+LMfYHVA=")


def test_upstreams_golden_signature_verifies_and_no_changed_bit_does(
    upstream: Path,
) -> None:
    checksum = (upstream / "refs/heads/testref").read_text().strip()
    path = commit_path(upstream, checksum)
    commit, commitmeta = path.read_bytes(), path.with_suffix(".commitmeta").read_bytes()
    assert (len(commit), len(commitmeta)) == (142, 95)
    (good,) = verify_ed25519(commit, commitmeta, trusted=[UPSTREAM_KEY])
    assert add_signature(None, good.signature) == commitmeta
    for data, other in ((commit, commitmeta), (commitmeta, commit)):
        for bit in range(len(data) * 8):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            pair = (bytes(changed), other)
            with pytest.raises(Error):
                verify_ed25519(
                    *(pair if data is commit else pair[::-1]), trusted=[UPSTREAM_KEY]
                )


@pytest.mark.parametrize("size", [0, 1, 118, 100_000])
def test_another_implementation_makes_and_accepts_the_same_signatures(
    size: int,
) -> None:
    theirs = Ed25519PrivateKey.generate()
    ours = SecretKey.from_seed(theirs.private_bytes_raw())
    assert ours.public.raw == theirs.public_key().public_bytes_raw()
    data = bytes(n % 251 for n in range(size))
    signature = sign_commit(data, ours)
    assert signature == theirs.sign(data)
    public = Ed25519PublicKey.from_public_bytes(ours.public.raw)
    public.verify(signature, data)
    with pytest.raises(InvalidSignature):
        public.verify(signature, data + b"\0")
    made = with_signatures(theirs.sign(data))
    assert verify_ed25519(data, made, trusted=[ours.public])


def test_stock_ostree_reads_the_signature_that_we_attach(tmp_path: Path) -> None:
    small_tree(tmp_path / "tree")
    stock = Ostree.init(tmp_path / "repo", "archive")
    checksum = stock.commit(
        tmp_path / "tree", "main", "--add-detached-metadata-string=note=kept"
    )
    path = commit_path(stock.repo, checksum)
    key = SecretKey.from_seed(bytes(32))
    meta = path.with_suffix(".commitmeta")
    signature = sign_commit(path.read_bytes(), key)
    meta.write_bytes(add_signature(meta.read_bytes(), signature))
    option = "--print-detached-metadata-key="
    assert stock.run("show", f"{option}note", "main") == "'kept'\n"
    shown = stock.run("show", f"{option}ostree.sign.ed25519", "main")
    assert shown == f"[[byte {', '.join(f'0x{byte:02x}' for byte in signature)}]]\n"
    stock.fsck()


# -- GPG -------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A repository with a branch for every kind of signature, and the keys."""

    gnupg: GnuPG
    source: Ostree
    keys: bytes

    def verify(self, branch: str, repo: Path) -> VerifiedCommit:
        """Our verdict on a branch, with the configuration and keys of a repository."""
        checksum = self.source.rev_parse(branch)
        path = commit_path(self.source.repo, checksum)
        meta = path.with_suffix(".commitmeta")
        return verifier(repo).verify_commit(
            path.read_bytes(),
            meta.read_bytes() if meta.exists() else None,
            checksum=Checksum(checksum),
            clock=CLOCK,
            ref=branch,
        )


def verifier(repo: Path) -> Verifier:
    return Verifier.for_remote(remote_of(repo), directories=[repo])


def remote_of(repo: Path) -> RemoteConfig:
    return parse_remote(load_key_file(repo / "config"), "os")


class Writer:
    """Commits branches and signs them with named keys."""

    def __init__(self, gnupg: GnuPG, source: Ostree, tree: Path) -> None:
        self.gnupg, self.source, self.tree = gnupg, source, tree
        self.keys: dict[str, str] = {}

    def branch(self, name: str, *signers: str, when: str = NOW) -> None:
        """A branch with a signature by each key; the word after it is an option."""
        path = self.commit(name)
        data = path.read_bytes()
        self.attach(path, *(self.sign(data, s, when=when) for s in signers))

    def commit(self, name: str) -> Path:
        checksum = self.source.commit(self.tree, name, f"--subject={name}")
        return commit_path(self.source.repo, checksum)

    def sign(self, data: bytes, signer: str, when: str = NOW) -> bytes:
        key, *options = signer.split()
        return self.gnupg.sign(data, self.keys[key], *options, when=when)

    def attach(self, path: Path, *signatures: bytes) -> None:
        """Write the detached metadata as we write it."""
        commitmeta = None
        for signature in signatures:
            commitmeta = add_signature(commitmeta, signature, GPG)
        if commitmeta is not None:
            path.with_suffix(".commitmeta").write_bytes(commitmeta)

    def attach_damaged(self, name: str, *, damaged_first: bool) -> None:
        path = self.commit(name)
        good = self.sign(path.read_bytes(), "good")
        bad = good[:-1] + bytes([good[-1] ^ 1])
        self.attach(path, *((bad, good) if damaged_first else (good, bad)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    require("ostree", "gpg", "gpgv")
    directory = tmp_path_factory.mktemp("gpg")
    small_tree(directory / "tree")
    gnupg = GnuPG(directory / "home")
    try:
        source = Ostree.init(directory / "source", "archive")
        keys = make_branches(Writer(gnupg, source, directory / "tree"))
        yield World(gnupg, source, keys)
    finally:
        gnupg.close()


def make_branches(writer: Writer) -> bytes:
    """Make every branch of the world; the public keys that a device trusts."""
    gnupg, keys = writer.gnupg, writer.keys
    for name in ("good", "second", "stranger", "revoked", "sub", "expsub", "revsub"):
        keys[name] = gnupg.make_key(name)
    keys["rsa"] = gnupg.make_key("rsa", "rsa2048")
    keys["expired"] = gnupg.make_key("expired", when="20200101T000000!", expires="1y")
    keys["future"] = gnupg.make_key("future", when="21000101T000000!")
    keys["sub.key"] = gnupg.add_subkey(keys["sub"])
    keys["expsub.key"] = gnupg.add_subkey(keys["expsub"], expires="1d")
    keys["revsub.key"] = gnupg.add_subkey(keys["revsub"])
    for name in ("good", "rsa", "stranger", "revoked"):
        writer.branch(name, name)
    writer.branch("expired", "expired", when="20200102T000000!")
    writer.branch("future-key", "future", when=LATER)
    writer.branch("future-signature", "good", when=LATER)
    writer.branch("expired-signature", "good --default-sig-expire 1d")
    writer.branch("subkey", "sub.key")
    writer.branch("expired-subkey", "expsub.key")
    writer.branch("revoked-subkey", "revsub.key")
    writer.branch("weak-digest", "rsa --digest-algo MD5 --allow-weak-digest-algos")
    writer.branch("old-digest", "rsa --digest-algo SHA1")
    writer.branch("two-good", "good", "second")
    writer.branch("armoured", "good --armor")
    for other in ("stranger", "revoked"):
        writer.branch(f"{other}-then-good", other, "good")
        writer.branch(f"good-then-{other}", "good", other)
    writer.branch("unsigned")
    writer.attach_damaged("damaged-then-good", damaged_first=True)
    writer.attach_damaged("good-then-damaged", damaged_first=False)
    path = writer.commit("damaged")
    writer.attach(path, writer.sign(b"other bytes", "good"))
    junk = writer.commit("junk-then-good")
    writer.attach(junk, b"junk", writer.sign(junk.read_bytes(), "good"))
    commit_by_ostree(writer)
    gnupg.revoke(keys["revoked"])
    gnupg.revoke_subkey(keys["revsub"])
    return gnupg.export(*(keys[n] for n in keys if n[-3:] != "key" and n != "stranger"))


def commit_by_ostree(writer: Writer) -> None:
    """The branch `by-ostree`, which stock ostree commits and signs itself."""
    options = [f"--gpg-homedir={writer.gnupg.home}"]
    options += [f"--gpg-sign={writer.keys[name]}" for name in ("second", "rsa")]
    writer.source.commit(writer.tree, "by-ostree", *options)


GOOD: dict[str, type[Error] | None] = dict.fromkeys(
    (
        "good",
        "rsa",
        "by-ostree",
        "subkey",
        "old-digest",
        "two-good",
        "armoured",
        "future-signature",
        "stranger-then-good",
        "good-then-stranger",
        "revoked-then-good",
        "good-then-revoked",
    )
)
REFUSED: dict[str, type[Error] | None] = {
    "unsigned": UnsignedError,
    "stranger": SignatureError,
    "damaged": SignatureError,
    "expired": SignatureError,
    "expired-signature": SignatureError,
    "expired-subkey": SignatureError,
    "future-key": SignatureError,
    "weak-digest": SignatureError,
    "revoked": RevokedError,
    "revoked-subkey": RevokedError,
}


@pytest.fixture(scope="module", params=["ostree", "us"])
def device(
    request: pytest.FixtureRequest,
    world: World,
    tmp_path_factory: pytest.TempPathFactory,
) -> Ostree:
    """A repository whose keyring was written by stock ostree, or by us."""
    directory = tmp_path_factory.mktemp("device")
    keys = directory / "keys"
    keys.write_bytes(world.keys)
    device = Ostree.init(directory / "repo", "archive")
    by_ostree = [f"--gpg-import={keys}"] if request.param == "ostree" else []
    device.run("remote", "add", *by_ostree, "os", f"file://{world.source.repo}")
    if request.param == "us":
        import_keys(keys, keyring_path("os", device.repo))
    return device


@pytest.mark.parametrize("branch", GOOD | REFUSED)
def test_gpg_signatures_are_judged_as_stock_ostree_judges_them(
    world: World, device: Ostree, branch: str
) -> None:
    said = stock_verdict(device, "os", branch)
    expected = (GOOD | REFUSED)[branch]
    if expected is None:
        assert said is None
        assert world.verify(branch, device.repo).signed_by
        return
    assert said is not None
    with pytest.raises(expected):
        world.verify(branch, device.repo)
    assert ("Key revoked" in said) == (expected is RevokedError)


@pytest.mark.parametrize("branch", ["damaged-then-good", "junk-then-good"])
def test_a_broken_signature_hides_a_good_one_from_stock_ostree_but_not_from_us(
    world: World, device: Ostree, branch: str
) -> None:
    assert stock_verdict(device, "os", branch) is not None
    assert world.verify(branch, device.repo).signed_by


def test_a_broken_signature_behind_a_good_one_hides_nothing(
    world: World, device: Ostree
) -> None:
    assert world.verify("good-then-damaged", device.repo).signed_by


def test_stock_ostree_lists_the_keys_that_we_imported(
    world: World, device: Ostree
) -> None:
    listed = device.run("remote", "gpg-list-keys", "os")
    verified = verifier(device.repo)
    assert verified.gpg is not None
    for certificate in verified.gpg:
        assert certificate.fingerprint in listed


def test_our_import_adds_to_a_keyring_of_stock_ostree_and_the_other_way_round(
    world: World, tmp_path: Path
) -> None:
    device = Ostree.init(tmp_path / "repo", "archive")
    sources = {}
    for name in ("good", "second", "rsa"):
        sources[name] = tmp_path / name
        sources[name].write_bytes(world.gnupg.export(name, armour=name == "rsa"))
    device.run("remote", "add", "os", f"file://{world.source.repo}")
    device.run("remote", "gpg-import", f"--keyring={sources['good']}", "os")
    import_keys(sources["rsa"], keyring_path("os", device.repo))
    device.run("remote", "gpg-import", f"--keyring={sources['second']}", "os")
    for branch in ("good", "rsa", "by-ostree"):
        assert stock_verdict(device, "os", branch) is None
        assert world.verify(branch, device.repo).signed_by


@pytest.mark.parametrize(
    "option, trusted",
    [
        ("good.asc", {"good"}),
        ("good.gpg", {"good"}),
        ("good.asc;rsa.gpg", {"good", "rsa"}),
        ("good.asc,rsa.gpg", {"good", "rsa"}),
        ("directory", {"good"}),
        ("", {"rsa"}),
    ],
)
def test_gpgkeypath_means_the_same_to_both(
    world: World, tmp_path: Path, option: str, trusted: set[str]
) -> None:
    directory = tmp_path / "directory"
    (directory / "below").mkdir(parents=True)
    for name in ("good", "rsa"):
        (tmp_path / f"{name}.gpg").write_bytes(world.gnupg.export(name))
        armoured = world.gnupg.export(name, armour=True)
        (tmp_path / f"{name}.asc").write_bytes(armoured)
    (directory / "any").write_bytes((tmp_path / "good.asc").read_bytes())
    (directory / "below/rsa.gpg").write_bytes(world.gnupg.export("rsa"))
    (directory / "link").symlink_to(tmp_path / "rsa.gpg")
    device = Ostree.init(tmp_path / "repo", "archive")
    device.run("remote", "add", "os", f"file://{world.source.repo}")
    separator = "," if "," in option else ";"
    paths = separator.join(str(tmp_path / p) for p in option.split(separator) if p)
    if paths:
        config = device.repo / "config"
        config.write_text(config.read_text() + f"gpgkeypath={paths}\n")
    else:
        keyring_path("os", device.repo).write_bytes(world.gnupg.export("rsa"))
    for branch in ("good", "rsa"):
        refused = stock_verdict(device, "os", branch)
        assert (refused is None) == (branch in trusted)
        if branch in trusted:
            assert world.verify(branch, device.repo).signed_by
        else:
            with pytest.raises(SignatureError):
                world.verify(branch, device.repo)


# -- bindings and age ------------------------------------------------------------------


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("made_in", [None, "org.example.One"])
@pytest.mark.parametrize("remote", [None, "org.example.One", "org.example.Two"])
def test_bindings_are_judged_as_stock_ostree_judges_them(
    tmp_path: Path,
    nginx: StartNginx,
    bound: bool,
    made_in: str | None,
    remote: str | None,
) -> None:
    small_tree(tmp_path / "tree")
    source = Ostree.init(tmp_path / "source", "archive", collection_id=made_in)
    options = [] if bound else ["--no-bindings"]
    checksum = source.commit(tmp_path / "tree", "main", *options)
    source.run("refs", "--create=alias", "main")
    commit = Commit.parse(commit_path(source.repo, checksum).read_bytes())
    device = Ostree.init(tmp_path / "device", "archive")
    collection = [f"--collection-id={remote}"] if remote else []
    # Not by file://, where ostree asks the source itself for its collection.
    device.remote_add("os", nginx(source.repo).url, "--no-gpg-verify", *collection)
    for ref in ("main", "alias", None):
        said = stock_verdict(device, "os", ref or checksum)
        try:
            check_bindings(commit, ref=ref, collection_id=remote, source=Source.ORIGIN)
        except BindingError:
            assert said is not None
            assert "binding" in said
        else:
            assert said is None


@pytest.mark.parametrize("difference", [-1, 0, 1])
def test_the_age_is_judged_as_stock_ostrees_timestamp_check_judges_it(
    tmp_path: Path, difference: int
) -> None:
    small_tree(tmp_path / "tree")
    source = Ostree.init(tmp_path / "source", "archive")
    first = source.commit(tmp_path / "tree", "main", timestamp=TIME)
    device = Ostree.init(tmp_path / "device", "archive")
    device.remote_add("os", f"file://{source.repo}")
    device.pull("os", "main")
    second = source.commit(
        tmp_path / "tree", "main", "--subject=2", timestamp=TIME + difference
    )
    said = stock_verdict(device, "-T", "os", "main")
    new = Head(Checksum(second), TIME + difference)
    try:
        check_not_older(new, Head(Checksum(first), TIME), Source.ORIGIN)
    except RollbackError:
        assert said is not None
        assert "chronologically older" in said
    else:
        assert said is None
    assert checksum_of(commit_path(source.repo, second).read_bytes()) == second
