"""Workers: how much sooner four end a queue of jobs than one.

A job makes 200 calls of 50 ms, ten at a time. The provider is a process of its own. Each worker has
ended a job before: the first one loads the client and the sandbox.
"""

import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from rlm_integrations import RLM, Limits
from rlm_integrations.jobs import submit
from rlm_integrations.jobs.models import JobModel
from rlm_integrations.storage import DeriveJobStatus, Storage
from tests.bench.table import Row, median
from tests.standin import serve_in_process

ROOT = Path(__file__).parents[2]
JOBS = 8
SCRIPT = [
    "```repl\nreplies = llm_batch([f'prompt {n}' for n in range(200)])\n```",
    "```repl\nFINAL(len(replies))\n```",
]


def seconds(base_url: str, processes: int, parallel: int) -> float:
    """From the begin of the first job to the end of the last one, with warm workers."""
    with tempfile.TemporaryDirectory() as folder, Storage(folder + "/runs") as storage:
        command = [
            sys.executable, "-m", "rlm_integrations", "worker", "-n", str(parallel),
            "--storage", folder + "/runs", "--base-url", base_url,
        ]  # fmt: skip
        workers = [
            subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        for worker in workers:
            assert worker.stderr is not None
            worker.stderr.readline()
        rlm = RLM(JobModel("root"), storage=storage, limits=Limits(single_call_below=1))
        done, ids = 0, list[str]()
        for jobs in (processes * parallel, JOBS):
            ids = [submit(rlm, "How many?", "a document") for _ in range(jobs)]
            done += jobs
            while storage.queue.counts()[DeriveJobStatus.COMPLETED] < done:
                time.sleep(0.02)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.communicate()
        measured = [storage.queue.get(job_id) for job_id in ids]
        times: list[datetime] = [
            each for job in measured for each in (job.started_at, job.finished_at) if each
        ]
        return (max(times) - min(times)).total_seconds()


def run() -> list[Row]:
    with serve_in_process(scripts={"root": SCRIPT}, latency=0.05) as server:
        ratios: list[float] = []
        inside: list[float] = []

        def compare() -> float:
            one = seconds(server.base_url, 1, 1)
            ratios.append(one / seconds(server.base_url, 4, 1))
            inside.append(one / seconds(server.base_url, 1, 4))
            return one

        alone = median(compare)
    return [
        Row(f"one worker, {JOBS} jobs of 200 calls at 50 ms", alone, None, "s"),
        Row("four workers are faster by", sorted(ratios)[2], 3.5, "x", at_least=True),
        Row("one worker with four jobs at once is faster by", sorted(inside)[2], None, "x"),
    ]
