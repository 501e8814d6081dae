"""A worker and a scan over rediss://."""

import shutil
import socket
import subprocess

import pytest
from msgspec.structs import replace

from rqscan.broker.queues import ScanQueue
from rqscan.config import RedisSettings
from tests.rig import Rig
from tests.servers import RedisServer, missing, wait_for


@pytest.fixture
def certificate(tmp_path):
    """Make a certificate of 127.0.0.1 that signs itself."""
    if not shutil.which("openssl"):
        missing("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=rqscan test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


def test_a_scan_runs_over_tls_with_a_password(settings, short_path, tmp_path, certificate):
    key, cert = certificate
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = short_path / "tls"
    folder.mkdir()
    server = RedisServer(
        folder, None, "--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no",
        "--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(cert),
    ).start()  # fmt: skip
    url = f"rediss://:s%40cret@127.0.0.1:{port}/0?ssl_ca_certs={cert}"
    rig = Rig(replace(settings, redis=RedisSettings(url=url)), tmp_path)
    try:
        with server.client() as client:
            client.config_set("requirepass", "s@cret")
            job = ScanQueue("default", connection=client).enqueue("math.gcd", 4, 6)
            worker = rig.worker("default", RQSCAN_ALLOW_FUNCTIONS="math.gcd")
            assert wait_for(job.latest_result, 20).return_value == 2  # a horse connects by itself
        assert rig.json("scan", "127.0.0.1", "-p", "1-50")["state"] == "finished"
        refused = rig.run("scans", RQSCAN_REDIS_URL=url.replace("s%40cret", "wrong"))
        assert refused.returncode == 0  # the store alone answers
        refused = rig.run("scan", "127.0.0.1", RQSCAN_REDIS_URL=url.replace("s%40cret", "wrong"))
        assert refused.returncode == 3
        assert "wrong" not in refused.stderr
        assert worker.stop() == 0
        assert "cret" not in worker.log.read_text()
    finally:
        rig.close()
        server.close()
