"""A telemetry client that shares no code with ours: the wire from the .proto alone.

    python report.py <host:port of the manager's gRPC> <folder with the .proto>

Opens Report, says hello, defines series, sends a snapshot and deltas, breaks a rule and is told so, and prints what it was
answered as one JSON object. Values: a counter at 1.5, then 41; a histogram; a gauge that is removed.
"""

import json
import os
import pathlib
import queue
import sys
import tempfile

import grpc
from grpc_tools import protoc

PROTO = "shardmeter/telemetry/v1/telemetry.proto"


def compile_proto(folder):
    out = tempfile.mkdtemp()
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    args = ["", f"-I{folder}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}", PROTO]
    if protoc.main(args) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, out)
    from shardmeter.telemetry.v1 import telemetry_pb2, telemetry_pb2_grpc

    return telemetry_pb2, telemetry_pb2_grpc


class Stream:
    def __init__(self, stub, deadline=30):
        self.requests = queue.SimpleQueue()
        self.answers = stub.Report(iter(self.requests.get, None), timeout=deadline)

    def send(self, **message):
        self.requests.put(pb.ReportRequest(**message))

    def answer(self):
        answer = next(self.answers)
        return getattr(answer, answer.WhichOneof("message"))

    def status(self):
        try:
            list(self.answers)
        except grpc.RpcError:
            pass
        return {"code": self.answers.code().name, "details": self.answers.details()}


def hello(instance_id):
    return pb.Hello(shard_id=2, shard_count=3, instance_id=instance_id, client_name="report.py", client_version="1")


def definitions():
    label = pb.Label(name="command_name", value='say "hi"\\\n🦀')
    family = pb.FamilyDefinition
    series = pb.SeriesDefinition
    return pb.Definitions(
        families=[
            family(name="commands_executed_total", type=pb.METRIC_TYPE_COUNTER, help="Commands.",
                   series=[series(id=0, labels=[label]), series(id=1)]),
            family(name="command_execution_duration_seconds", type=pb.METRIC_TYPE_HISTOGRAM, help="Time.",
                   series=[series(id=2, bounds=[0.1, 1])]),
            family(name="guild_count", type=pb.METRIC_TYPE_GAUGE, help="Guilds.", series=[series(id=3)]),
        ]
    )


def main():
    said = {}
    with grpc.insecure_channel(sys.argv[1]) as channel:
        stub = rpc.TelemetryServiceStub(channel)
        instance_id = os.urandom(16)

        first = Stream(stub)
        first.send(hello=hello(instance_id))
        welcome = first.answer()
        said["interval"] = welcome.report_interval.ToMilliseconds()
        first.send(definitions=definitions())
        samples = pb.Samples(series=[0, 1, 2, 3], values=[1.5, 7, 1, 3, 4, 2.25, 12])
        first.send(snapshot=pb.Snapshot(sequence=1, last=True, samples=samples))
        said["acks"] = [first.answer().sequence]
        first.send(delta=pb.Delta(sequence=2, samples=pb.Samples(series=[0], values=[41])))
        said["acks"].append(first.answer().sequence)
        # The same frame again changes nothing and is acknowledged.
        first.send(delta=pb.Delta(sequence=2, samples=pb.Samples(series=[0], values=[41])))
        said["acks"].append(first.answer().sequence)
        removed = pb.Samples(series=[3], values=[12])
        first.send(delta=pb.Delta(sequence=3, removed=removed))
        said["acks"].append(first.answer().sequence)
        first.send(delta=pb.Delta(sequence=9))
        said["gap"] = first.answer().reason
        # A second Hello ends the stream.
        first.send(hello=hello(instance_id))
        said["second_hello"] = first.status()

        # The instance goes on with its sequence.
        second = Stream(stub)
        second.send(hello=hello(instance_id))
        said["last_sequence"] = second.answer().last_sequence
        second.send(definitions=definitions())
        second.send(delta=pb.Delta(sequence=4))
        said["no_snapshot"] = second.answer().reason
        second.send(snapshot=pb.Snapshot(sequence=4, last=True, samples=pb.Samples(series=[0], values=[41])))
        said["acks"].append(second.answer().sequence)
        second.send(delta=pb.Delta(sequence=5, samples=pb.Samples(series=[99], values=[1])))
        said["undefined"] = second.answer().reason
        second.requests.put(None)
        said["end"] = second.status()
    print(json.dumps(said), flush=True)


pb, rpc = compile_proto(sys.argv[2])
main()
