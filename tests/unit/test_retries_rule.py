import signal
import threading
import time

import pytest

from rqscan.broker.payload import chunk_of, job_id
from rqscan.errors import FailedError, OutOfScopeError, RefusedPayloadError, UsageError
from rqscan.fleet.stable import retries
from rqscan.fleet.stable.soft_limit import SoftTimeout, soft_limit
from rqscan.fleet.stable.wire import Assignment, Terms


def assignment(**fields):
    defaults = {"retries": 3, "retry_backoff_s": 5, "retry_backoff_max_s": 3600}
    return Assignment(
        queue="q", job_id="j", token="t", attempt=1, data=b"", worker="w", clock_offset_s=0,
        timeout_s=1, result_ttl_s=1, failure_ttl_s=1, **defaults | fields,
    )  # fmt: skip


def test_the_delay_doubles_with_jitter_up_to_the_cap():
    for failures, around in ((0, 5), (1, 10), (4, 80)):
        delays = {retries.delay_s(assignment(failures=failures)) for _ in range(50)}
        assert len(delays) > 1
        assert 0.8 * around <= min(delays) <= max(delays) <= 1.2 * around
    assert retries.delay_s(assignment(failures=20)) == 3600
    assert retries.delay_s(assignment(failures=10**9)) == 3600
    assert retries.delay_s(assignment(retry_backoff_s=0)) == 0


@pytest.mark.parametrize("error", [UsageError, OutOfScopeError, RefusedPayloadError])
def test_what_cannot_succeed_is_not_tried_again(error):
    assert not retries.will_retry(assignment(), error("no"))


def test_a_job_is_tried_again_until_its_retries_are_used_up_and_its_kind_has_the_last_word():
    for error in (OSError("x"), FailedError("x"), SoftTimeout()):
        assert retries.will_retry(assignment(failures=2), error)
        assert not retries.will_retry(assignment(failures=3), error)
    more = Terms(retries=4).apply(assignment(failures=3))
    assert retries.will_retry(more, OSError("x"))
    assert not retries.will_retry(Terms(retries=0).apply(assignment()), OSError("x"))
    assert retries.will_retry(Terms(stall_timeout_s=9).apply(assignment()), OSError("x"))


def test_a_job_id_tells_its_chunk():
    assert chunk_of(job_id("a-1-2", 3, 4)) == ("a-1-2", 3, 4)
    for other in ("3f2b", "a-b-c", "-1-1", "7b0e5a5e-6c1e-4d7b-9f7e-0c8a3d4e5f60"):
        assert chunk_of(other) is None


def test_the_soft_limit_raises_in_its_block_and_never_after_it():
    with pytest.raises(SoftTimeout, match=r"soft limit of 0\.01 s"), soft_limit(0.01):
        threading.Event().wait(30)
    with soft_limit(0):
        pass
    with soft_limit(60):
        handler = signal.getsignal(signal.SIGALRM)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    handler(signal.SIGALRM, None)  # one that came in the block, and is handled after it


def test_a_soft_limit_that_ends_with_its_block_is_raised_inside_or_not_at_all():
    raised = 0
    for step in range(400):
        try:
            with soft_limit(0.0005):
                until = time.monotonic() + step * 2.5e-6
                while time.monotonic() < until:
                    pass
        except SoftTimeout:
            raised += 1
        signal.raise_signal(signal.SIGALRM)
    assert raised < 400
