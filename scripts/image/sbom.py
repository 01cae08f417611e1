"""The bill of materials of an image, in CycloneDX 1.6 (JSON): packages, wheels, and every file.

    python -m image.sbom FOLDER     reads FOLDER/rootfs, image.lock and figures.json; prints it

It is made from the finished tree. A file belongs to the Debian package or the wheel whose own
list names it; bytecode to its source; all the rest is kmstool's. The same tree gives the same text:
its number and time come from the tree.
"""

import hashlib
import json
import re
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

OURS = "kmstool"
_BYTECODE = re.compile(r"(?P<folder>.*)__pycache__/(?P<name>[^/]+)\.cpython-\d+\.pyc")


def bill(folder: Path) -> dict[str, Any]:
    """The whole document, for the tree at `folder/rootfs`."""
    root = folder / "rootfs"
    figures = json.loads((folder / "figures.json").read_text())
    owners = {**debian_files(root), **wheel_files(root)}
    components: dict[str, list[Any]] = {OURS: []}
    components |= {name: [] for name in sorted(set(owners.values()))}
    for path in sorted(root.rglob("*"), key=lambda item: str(item.relative_to(root))):
        if path.is_file() and not path.is_symlink():
            name = str(path.relative_to(root))
            components[owner_of(name, owners)].append(file_component(name, path))
    hashes = lock_hashes(folder / "image.lock")
    parts = [component(name, root, hashes, files) for name, files in components.items()]
    when = datetime.fromtimestamp(figures["epoch"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, figures['sha256'])}",
        "version": 1,
        "metadata": {
            "timestamp": when,
            "component": {
                "type": "container",
                "bom-ref": "image",
                "name": "kmstool-enclave",
                "version": figures["sha256"],
                "hashes": [{"alg": "SHA-256", "content": figures["sha256"]}],
            },
        },
        "components": parts,
        "dependencies": [{"ref": "image", "dependsOn": sorted(part["bom-ref"] for part in parts)}],
    }


def debian_files(root: Path) -> dict[str, str]:
    """File to `deb NAME VERSION ARCHITECTURE`, from the records beside the files."""
    found = {}
    for listing in (root / "var/lib/dpkg/status.d").glob("*.md5sums"):
        record = listing.parent / listing.name.removesuffix(".md5sums")
        fields = dict(line.split(": ", 1) for line in record.read_text().splitlines() if line)
        name = f"deb {fields['Package']} {fields['Version']} {fields['Architecture']}"
        for line in listing.read_text().splitlines():
            found[line.split("  ", 1)[1]] = name
        for own in (record, listing):
            found[str(own.relative_to(root))] = name
    return found


def wheel_files(root: Path) -> dict[str, str]:
    """File to `wheel NAME VERSION`, from each RECORD that pip left."""
    found = {}
    for record in root.glob("usr/local/lib/*/dist-packages/*.dist-info/RECORD"):
        packages = record.parent.parent
        name, version = record.parent.name.removesuffix(".dist-info").split("-")
        for line in record.read_text().splitlines():
            path = packages / line.split(",")[0]
            if path.is_file():
                found[str(path.relative_to(root))] = f"wheel {name} {version}"
    return found


def owner_of(name: str, owners: dict[str, str]) -> str:
    """Whose a file is; bytecode is of its source."""
    match = _BYTECODE.fullmatch(name)
    return owners.get(f"{match['folder']}{match['name']}.py" if match else name, OURS)


def lock_hashes(path: Path) -> dict[str, str]:
    """`deb NAME VERSION ARCHITECTURE` and `wheel NAME VERSION` to the hash of the archive."""
    found = {}
    for line in path.read_text().splitlines():
        kind, *rest = line.split()
        if kind == "wheel":
            rest = [*rest[0].split("-")[:2], rest[1]]
        found[" ".join([kind, *rest[:-1]])] = rest[-1]
    return found


def component(name: str, root: Path, hashes: dict[str, str], files: list[Any]) -> dict[str, Any]:
    """A package, wheel, or kmstool itself, with its files."""
    kind, *rest = name.split()
    if kind == OURS:
        version = own_version(root)
        purl = f"pkg:pypi/{OURS}@{version}"
        part: dict[str, Any] = {"type": "application", "name": OURS, "version": version}
    else:
        version = rest[1]
        purl = f"pkg:pypi/{rest[0]}@{version}"
        if kind == "deb":
            quoted = version.replace(":", "%3A").replace("+", "%2B").replace("~", "%7E")
            purl = f"pkg:deb/debian/{rest[0]}@{quoted}?arch={rest[2]}&distro=debian-13"
        part = {"type": "library", "name": rest[0], "version": version}
        if name in hashes:
            part["hashes"] = [{"alg": "SHA-256", "content": hashes[name]}]
    return {**part, "bom-ref": purl, "purl": purl, "components": files}


def own_version(root: Path) -> str:
    """`__version__` of the kmstool in the tree."""
    (path,) = root.glob("usr/local/lib/*/dist-packages/kmstool/__init__.py")
    match = re.search(r'^__version__ = "([^"]+)"', path.read_text(), re.MULTILINE)
    if match is None:
        raise SystemExit(f"{path} names no version")
    return match[1]


def file_component(name: str, path: Path) -> dict[str, Any]:
    """One file, named from the root."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "type": "file",
        "bom-ref": f"/{name}",
        "name": f"/{name}",
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


def main(arguments: list[str]) -> int:
    """Prints the document."""
    print(json.dumps(bill(Path(arguments[0])), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
