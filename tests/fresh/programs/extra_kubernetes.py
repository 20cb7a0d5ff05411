"""The promises of docs/kubernetes.md: a Job is shown without a cluster, and `doctor` says that there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dispatcher import KubernetesJobEnvironment, flow


@flow
def double(number: int) -> int:
    return 2 * number


cluster = KubernetesJobEnvironment(image="registry.example/flows:1")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("dispatcher")), *arguments], capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    done = command("render", f"{__file__}:double", "-p", "number=1", "--environment", f"{__file__}:cluster")
    shown = "kind: Job" in done.stdout and "image: registry.example/flows:1" in done.stdout
    if done.returncode or not shown:
        sys.exit(f"render printed:\n{done.stdout}{done.stderr}")
    done = command("doctor", "--backend", "kubernetes")
    [api] = [line for line in done.stdout.splitlines() if line.split()[1:2] == ["api"]]
    sys.exit(None if "there is no kubeconfig" in api else f"doctor printed:\n{done.stdout}")
