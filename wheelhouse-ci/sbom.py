"""
Write what a folder of wheels consists of, as CycloneDX: FOLDER/flamespawn.cdx.json.

Usage: sbom.py FOLDER

The package needs nothing at run time. What is listed beside its files, with the scope "excluded",
is what they were built with.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import sys
import tomllib
import uuid
import warnings
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from build_wheels import prepare_environment
from targets import HERE, ROOT


def package(name: str, version: str, **more: object) -> Component:
    """Return a package of PyPI."""
    purl = PackageURL("pypi", name=name.lower(), version=version)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=purl,
        bom_ref=purl.to_string(),
        **more,
    )


def built_file(path: Path) -> Component:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Component(
        type=ComponentType.FILE,
        name=path.name,
        bom_ref=path.name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )


def tools() -> list[Component]:
    lines = (HERE / "requirements.txt").read_text().splitlines()
    pins = (re.match(r"([\w-]+)(?:\[.*\])?==(\S+)", line) for line in lines)
    return [package(pin[1], pin[2], scope=ComponentScope.EXCLUDED) for pin in pins if pin]


def describe(folder: Path, project: dict[str, str]) -> Bom:
    """Return what the files of a folder consist of."""
    bom = Bom()
    bom.metadata.component = package(
        project["name"], project["version"], licenses=[LicenseExpression(project["license"])]
    )
    built = [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]
    files = [built_file(path) for path in sorted(built)]
    bom.components.update(files, tools())
    bom.register_dependency(bom.metadata.component)
    # The same for the same files.
    time = int(os.environ["SOURCE_DATE_EPOCH"])
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(time, datetime.UTC)
    digests = "".join(digest.content for file in files for digest in file.hashes)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_OID, digests)
    return bom


def main() -> None:
    prepare_environment()
    folder = Path(sys.argv[1])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with warnings.catch_warnings():
        # The library wonders that the package depends on nothing, which is true.
        warnings.simplefilter("ignore", UserWarning)
        text = JsonV1Dot6(describe(folder, project)).output_as_string(indent=2)
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        raise SystemExit(str(error))
    out = folder / f"{project['name']}.cdx.json"
    out.write_text(text + "\n")
    print(out)


if __name__ == "__main__":
    main()
