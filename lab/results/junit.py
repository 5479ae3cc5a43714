"""What pytest's own JUnit file should say about the run as a whole."""

from __future__ import annotations

from lab.results.record import RunRecord


def suite_properties(record: RunRecord) -> dict[str, str]:
    """Properties for ``record_testsuite_property``.

    Args:
        record: as complete as it is when the session ends.

    Returns:
        Name to value; names begin with ``pvlab.`` and what is not known is left out.
    """
    found = {
        "run_id": record.run_id,
        "profile": record.profile,
        "guest": record.guest_label,
        "host.kernel": record.host.kernel,
        "host.os": record.host.os,
    }
    if accelerator := record.accelerator:
        found |= {
            "accelerator": accelerator.name,
            "accelerator.emulator": f"{accelerator.emulator} {accelerator.emulator_version}",
            "accelerator.why": accelerator.why,
        }
    if driver := record.driver:
        found |= {
            "driver": driver.name,
            "driver.version": driver.version,
            "driver.sha256": driver.sha256,
        }
    found |= {f"image.{name}": image.key for name, image in sorted(record.images.items())}
    found |= {f"version.{name}": version for name, version in sorted(record.versions.items())}
    if verdict := record.verdict:
        found["verdict"] = verdict.status.value
    return {f"pvlab.{name}": value for name, value in found.items()}
