"""Starts bin/kvasir on a free port for the tests and ends it by its process id."""
import os, pathlib, re, subprocess, tempfile
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def start(*flags):
    """Returns (process, base URL) of a server that is ready."""
    binary = os.environ.get("KVASIR", str(ROOT / "bin" / "kvasir"))
    p = subprocess.Popen([binary, "serve", "--addr", "127.0.0.1:0", "--data-dir", tempfile.mkdtemp(), *flags], stderr=subprocess.PIPE, text=True)
    for line in p.stderr:
        if m := re.search(r"ready in .* (http://\S+)", line):
            import threading
            threading.Thread(target=lambda: [None for _ in p.stderr], daemon=True).start()
            return p, m[1]
    raise RuntimeError(f"the server ended with {p.wait()}")


@pytest.fixture(scope="session")
def server():
    p, url = start("--cache-mem", "512MiB", "--served-model-name", "smol", "--max-queue", "8", "--max-batch", "4")
    yield url
    p.terminate()
    assert p.wait(60) == 0


@pytest.fixture(scope="session")
def launch():
    """Starts further servers with flags of the test's own."""
    started = []

    def go(*flags):
        p, url = start(*flags)
        started.append(p)
        return p, url
    yield go
    for p in started:
        if p.poll() is None:
            p.terminate()
            assert p.wait(60) == 0
