#!/usr/bin/env python3
"""Writes what a binary is made of: THIRD_PARTY_NOTICES.txt (licence texts) and sbom.cdx.json (CycloneDX 1.6).

    deploy/supply/notices.py edge out/        # or chat, embedding, content-safety, standalone

Reads `cargo metadata` and the sources that cargo has fetched already; the same lock file gives the same bytes. What is linked
counts, not what only tests or build scripts use.
"""

import json
import platform
import re
import subprocess
import sys
import uuid
from pathlib import Path

# What this machine builds for.
PLATFORM = f"{platform.machine()}-unknown-linux-gnu"
ROOT = Path(__file__).resolve().parents[2]
NAMES = ("license", "licence", "copying", "notice", "unlicense")
# Namespace of the document's serial number, which is made of its content.
NAMESPACE = uuid.UUID("5f2c1f0e-4a6e-5f3b-9a55-6b2f6f0c9d11")


def metadata():
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", PLATFORM]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)


def linked(meta, service):
    """The packages of `service`'s binary, itself first, then by name and version."""
    packages = {package["id"]: package for package in meta["packages"]}
    nodes = {node["id"]: node for node in meta["resolve"]["nodes"]}
    own = next(p["id"] for p in meta["packages"] if p["name"] == service and p["id"] in meta["workspace_members"])
    found, todo = set(), [own]
    while todo:
        current = todo.pop()
        if current in found:
            continue
        found.add(current)
        for dependency in nodes[current]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                todo.append(dependency["pkg"])
    others = sorted((packages[i] for i in found - {own}), key=lambda p: (p["name"], p["version"]))
    return packages[own], others


def is_licence(file):
    return file.is_file() and file.name.lower().startswith(NAMES) and file.suffix in ("", ".txt", ".md")


def texts(package):
    """Licence files of a package and of the C and C++ that it brings along (llama.cpp), by path."""
    home = Path(package["manifest_path"]).parent
    files = [file for file in home.iterdir() if is_licence(file)]
    for folder in ("llama.cpp", "vendor", "oniguruma"):
        files += [file for file in (home / folder).rglob("*") if is_licence(file)] if (home / folder).is_dir() else []
    return [(str(file.relative_to(home)), file.read_text(errors="replace").strip()) for file in sorted(files)]


def notices(own, others):
    """Each licence text once, under the packages that come with it."""
    holders, bare = {}, []
    foreign = [package for package in others if package["source"]]
    for package in foreign:
        found = texts(package)
        label = f"{package['name']} {package['version']} ({package['license'] or 'see its licence file'})"
        if not found:
            bare.append(f"{label}, {package['repository'] or 'crates.io'}")
        for path, text in found:
            holders.setdefault(text, []).append(f"{label}: {path}")
    lines = [f"{own['name']} {own['version']} contains the following software of others.", ""]
    lines += ["Packages that come without a licence file; their licence is the one named:", *(f"  {b}" for b in bare), ""] * bool(bare)
    for text, who in holders.items():
        lines += ["=" * 100, *who, "=" * 100, text, ""]
    return "\n".join(lines) + "\n"


def component(package):
    entry = {
        "type": "library" if package["source"] else "application",
        "bom-ref": f"pkg:cargo/{package['name']}@{package['version']}",
        "name": package["name"],
        "version": package["version"],
        "purl": f"pkg:cargo/{package['name']}@{package['version']}",
    }
    if package["license"]:
        entry["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    return entry


def sbom(own, others):
    components = [component(package) for package in others]
    body = json.dumps(components, sort_keys=True)
    return json.dumps({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, own['name'] + own['version'] + body)}",
        "version": 1,
        "metadata": {"component": component(own) | {"type": "application"}},
        "components": components,
    }, indent=1) + "\n"


def write(service, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    own, others = linked(metadata(), service)
    (folder / "THIRD_PARTY_NOTICES.txt").write_text(notices(own, others))
    (folder / "sbom.cdx.json").write_text(sbom(own, others))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    write(*sys.argv[1:])
