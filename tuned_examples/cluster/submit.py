r"""Submits `train.py` to a running Ray cluster, together with the package.

This example:
    - sends the job script (`working_dir`) and the `rllib_attention` package (`py_modules`) along in
      the job's runtime environment, so that nothing needs to be installed on the nodes but
      `ray[rllib]` and `torch`.
    - follows the job's log and ends with the job's own success or failure.

How to run this script
----------------------
`python submit.py --address=http://HEAD:8265 -- --storage-path=/shared/runs --num-env-runners=8`

Needs `pip install "ray[default]"`. Everything after `--` goes to `train.py`. On a cluster that
`ray up cluster.yaml` has started, run `ray dashboard cluster.yaml` first; the address is then
`http://127.0.0.1:8265`. Submit again with the same `--name` and `--storage-path` to go
on with a run that was interrupted. Without this script, from the repository's folder:

    ray job submit --address=http://HEAD:8265 --working-dir=tuned_examples/cluster \
        --runtime-env-json='{"py_modules": ["rllib_attention"]}' \
        -- python train.py --storage-path=/shared/runs --num-env-runners=8

Results to expect
-----------------
The job's log, live, with one line per training iteration; then the job's final status.
"""

import argparse
import asyncio
import shlex
import sys
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

import rllib_attention


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--address", default="http://127.0.0.1:8265", help="the cluster's dashboard address"
    )
    parser.add_argument("--pip", nargs="*", default=[], help="packages for the job's environment")
    parser.add_argument("train_args", nargs="*", help="arguments of train.py, after `--`")
    return parser.parse_args()


async def follow(client: JobSubmissionClient, job_id: str) -> None:
    """Prints the job's log until the job ends.

    Args:
        client: The connection to the cluster.
        job_id: The job to follow.
    """
    async for lines in client.tail_job_logs(job_id):
        print(lines, end="", flush=True)


def main() -> None:
    """Submits the job and waits for it."""
    args = parse_args()
    runtime_env = {
        "working_dir": str(Path(__file__).parent),
        "py_modules": [str(Path(rllib_attention.__file__).parent)],
        "env_vars": {"PYTHONWARNINGS": "ignore"},
    }
    if args.pip:
        runtime_env["pip"] = args.pip
    client = JobSubmissionClient(args.address)
    entrypoint = shlex.join(["python", "train.py", *args.train_args])
    job_id = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env)
    print(f"job {job_id}: {entrypoint}", flush=True)
    try:
        asyncio.run(follow(client, job_id))
    except KeyboardInterrupt:
        print(f"the job goes on; stop it with: ray job stop --address={args.address} {job_id}")
        sys.exit(130)
    status = client.get_job_status(job_id)
    print(f"job {job_id}: {status}")
    if status != JobStatus.SUCCEEDED:
        sys.exit(1)


if __name__ == "__main__":
    main()
