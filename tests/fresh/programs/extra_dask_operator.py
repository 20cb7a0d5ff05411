"""The promises of docs/dask-operator.md: the DaskCluster is shown without a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dispatcher import DaskKubernetesEnvironment, flow


@flow
def double(number: int) -> int:
    return 2 * number


cluster = DaskKubernetesEnvironment(image="registry.example/flows:1", max_workers=3, operator=True)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("dispatcher")), *arguments], capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    done = command("render", f"{__file__}:double", "-p", "number=1", "--environment", f"{__file__}:cluster")
    if done.returncode or "kind: DaskCluster" not in done.stdout or "kind: DaskAutoscaler" not in done.stdout:
        sys.exit(f"render printed:\n{done.stdout}{done.stderr}")
    done = command("doctor", "--backend", "dask-operator")
    api = [line for line in done.stdout.splitlines() if line.split()[1:2] == ["api"]]
    sys.exit(None if "there is no kubeconfig" in "".join(api) else f"doctor printed:\n{done.stdout}{done.stderr}")
