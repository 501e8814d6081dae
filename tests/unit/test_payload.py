import json
import pickle
import zlib

import pytest
from rq.serializers import JSONSerializer

from rqscan.broker.payload import MAX_BYTES, RUN_CHUNK, JsonSerializer, decode
from rqscan.errors import RefusedPayloadError


def packed(function, *args, instance=None, **kwargs):
    return zlib.compress(json.dumps([function, instance, list(args), kwargs]).encode())


def test_decode_gives_the_call_when_it_names_run_chunk():
    assert decode(packed(RUN_CHUNK, scan_id="s"), ()) == (RUN_CHUNK, [], {"scan_id": "s"})


def test_decode_reads_uncompressed_payloads_as_rq_does():
    assert decode(zlib.decompress(packed(RUN_CHUNK)), ()).function == RUN_CHUNK


def test_decode_gives_the_call_when_the_operator_allowed_the_name():
    assert decode(packed("math.gcd", 4, 6), ["math.gcd"]).args == [4, 6]


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "subprocess.getoutput",
        "rqscan.store.database.Database.open",
        "rqscan.scan.execute.Runner",
        "rqscan.scan.execute.run_chunk.__globals__",
        " rqscan.scan.execute.run_chunk",
        "",
    ],
)
def test_decode_refuses_every_other_name(name):
    with pytest.raises(RefusedPayloadError, match="neither"):
        decode(packed(name, "id"), ["math.gcd"])


@pytest.mark.parametrize(
    "data",
    [
        zlib.compress(pickle.dumps((RUN_CHUNK, None, (), {}))),
        pickle.dumps((RUN_CHUNK, None, (), {})),
        b"",
        b"\x00\xff",
        zlib.compress(b'{"function": "rqscan.scan.execute.run_chunk"}'),
        zlib.compress(b'["rqscan.scan.execute.run_chunk", null, [], []]'),
        zlib.compress(b'["rqscan.scan.execute.run_chunk"]'),
        packed(RUN_CHUNK, instance={"a": 1}),
        packed(RUN_CHUNK)[:-6],
    ],
)
def test_decode_refuses_what_is_not_our_json(data):
    with pytest.raises(RefusedPayloadError):
        decode(data, ())


def test_decode_refuses_a_bomb():
    with pytest.raises(RefusedPayloadError, match="larger than"):
        decode(zlib.compress(b" " * (MAX_BYTES + 1)), ())


def test_the_serializer_writes_what_rqs_json_serializer_reads():
    value = ["f", None, [1, "ü"], {"a": {"b": None}}]
    assert JSONSerializer.loads(JsonSerializer.dumps(value)) == value
    assert JsonSerializer.loads(JSONSerializer.dumps(value)) == value
