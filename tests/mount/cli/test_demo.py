"""`ossfuse demo`, as `make demo` runs it."""

import subprocess
import sys

DEMO = [sys.executable, "-m", "csi.cli.main", "demo"]


def test_demo_shows_the_whole_way_of_a_volume_and_ends_with_ok():
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("demo: OK")
    assert "fs.jindo.fuse.pod.mem.limit" in done.stdout
    assert "imagenet/checkpoints/model.pt" in done.stdout
    assert "of 512Mi" in done.stdout


def test_demo_tells_the_reason_and_fails_when_the_volume_is_refused(tmp_path):
    example = tmp_path / "pv.yaml"
    example.write_text(
        "kind: PersistentVolume\n"
        "metadata: {name: broken}\n"
        "spec:\n"
        "  csi:\n"
        "    driver: ossfuse.csi.dev\n"
        "    volumeHandle: broken\n"
        "    volumeAttributes: {bucket: some-bucket, url: 'https://oss-cn-hangzhou.aliyuncs.com', moed: fast}\n"
    )
    done = subprocess.run([*DEMO, "--example", str(example)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "moed" in done.stderr
    assert "mode" in done.stderr
    assert "demo: OK" not in done.stdout
