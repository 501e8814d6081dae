"""The database goes away between a scan's plan and its rows."""

from pathlib import Path

from msgspec.structs import replace
from rq.job import Job

from rqscan.broker import keys
from rqscan.settings import DatabaseSettings
from tests.rig import Rig
from tests.servers import wait_for


def test_a_chunk_whose_rows_cannot_be_stored_is_failed_with_the_reason(
    settings, mariadb, redis_server, tmp_path
):
    url = mariadb.database_url()
    rig = Rig(replace(settings, database=DatabaseSettings(url=url)), tmp_path)
    try:
        first = rig.worker("default")
        wait_for(lambda: list(Path(settings.home).glob("store-*")))  # it knows its store from now
        assert first.stop() == 0
        planned = rig.json("scan", "127.0.0.1", "-p", "1-10", "--no-wait")
        mariadb.kill()
        worker = rig.worker("default")
        failed = worker.wait_for_event("job_failed")
        assert "cannot use" in failed["error"]
        with redis_server.client() as client:
            job = Job.fetch(f"{planned['scan_id']}-0-1", connection=client, serializer="json")
            assert job.get_status() == "failed"
            assert "StoreUnavailable" in job.latest_result().exc_string
        mariadb.start()
        assert rig.json("scan", "127.0.0.1", "-p", "1-10")["state"] == "finished"

        def recorded():
            with redis_server.client() as client:
                client.delete(keys.progress(planned["scan_id"]))  # it is the store's word
            states = {scan["scan_id"]: scan["state"] for scan in rig.json("scans")}
            return states[planned["scan_id"]] == "failed"

        wait_for(recorded, 30)
    finally:
        rig.close()
