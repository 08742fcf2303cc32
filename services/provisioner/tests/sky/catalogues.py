"""SkyPilot's price catalogues with rows of ours. Files without a checksum beside them are never fetched anew."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

LAMBDA = ("us-east-1", "us-west-1")
VERDA = (("FIN-01", 0.80), ("FIN-03", 0.85), ("ICE-01", 0.95))


def write(home: Path) -> None:
    root = home / ".sky" / "catalogs" / "v8"
    head = "InstanceType AcceleratorName AcceleratorCount vCPUs MemoryGiB Price Region GpuInfo SpotPrice"
    rows: list[Sequence[object]] = [("cpu_4x_general", "", "", 4, 16, 0.2, region, "", "") for region in LAMBDA]
    rows += [("gpu_1x_h100_pcie", "H100", 1, 26, 225, 2.49, region, _gpu("H100", 1), "") for region in LAMBDA]
    rows += [("gpu_1x_a10", "A10", 1, 30, 226, 0.75, region, _gpu("A10", 1), "") for region in LAMBDA]
    _csv(root / "lambda" / "vms.csv", head.split(), rows)
    head = (
        "InstanceType UpstreamCloudId vCPUs MemoryGiB AcceleratorName AcceleratorCount GpuInfo Region Price SpotPrice"
    )
    rows = [("CPU.4V.16G", "CPU.4V.16G", 4, 16, "", "", "", region, 0.03, 0.01) for region, _ in VERDA]
    rows += [("1H100.80S.30V", "1H100", 30, 120, "H100", 1.0, _gpu("H100", 1), r, 2.19, spot) for r, spot in VERDA]
    rows += [("4H100.80S.30V", "4H100", 99, 480, "H100", 4.0, _gpu("H100", 4), r, 8.76, 3.2) for r, _ in VERDA]
    rows += [("1L40S.20V", "1L40S", 20, 60, "L40S", 1.0, _gpu("L40S", 1), "FIN-01", 0.91, 0.30)]
    _csv(root / "verda" / "vms.csv", head.split(), rows)
    names = ("H100", "A10", "L40S")
    head = "AcceleratorName AcceleratorMemory Clouds"
    _csv(root / "common" / "accelerators.csv", head.split(), [(name, "80", "['Verda','Lambda']") for name in names])


def _gpu(name: str, count: int) -> str:
    gpus = [{"Name": name, "Manufacturer": "NVIDIA", "Count": float(count), "MemoryInfo": {"SizeInMiB": 81920}}]
    return str({"Gpus": gpus, "TotalGpuMemoryInMiB": 81920 * count})


def _csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
