"""What LoRA saves in memory: steps of full fine-tuning and of LoRA, one process each, random weights.

    python benchmarks/lora_memory.py                     # ViT-B/32 size on the CPU
    python benchmarks/lora_memory.py --batch 128 --bf16  # takes an accelerator where there is one

Peak memory is that of the whole process on the CPU (peak resident set, libraries included) and what torch
allocated at most on an accelerator, over three steps with AdamW. AGFT also keeps the original model: a second
copy in full fine-tuning, the adapters switched off with LoRA.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile

import torch
from hier_overhead import build, random_batch, sized_parser, step

from hf_hierrobust.objectives import OBJECTIVES

STEPS = 3


def measure(objective: str, lora_r: int | None, args: argparse.Namespace) -> dict:
    """Peak memory and trained parameters of one setting, in this process."""
    with tempfile.TemporaryDirectory() as directory:
        trainer = build(OBJECTIVES.get(objective)(), args, directory, lora_r=lora_r)
        batch = random_batch(args, trainer.args.device)
        for _ in range(STEPS):
            step(trainer, batch)
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"peak_mib": round(peak), "trained_parameters": sum(trainer.trained.values())}


def main() -> None:
    parser = sized_parser(__doc__)
    parser.add_argument("--lora_r", type=int, default=8)
    parser.add_argument("--objectives", nargs="*", default=["hier_robust", "agft"])
    parser.add_argument("--one", nargs=2, metavar=("OBJECTIVE", "RANK"), help="measure this setting only")
    args = parser.parse_args()
    if args.one:
        objective, rank = args.one
        print(json.dumps(measure(objective, int(rank) or None, args)))
        return
    found = {}
    for objective in args.objectives:
        for name, rank in (("full", 0), ("lora", args.lora_r)):
            # A process each: a peak does not come down again.
            command = [sys.executable, *sys.argv, "--one", objective, str(rank)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[f"{objective}, {name}"] = json.loads(done.stdout.splitlines()[-1])
            print(objective, name, found[f"{objective}, {name}"], flush=True)
    setting = {k: v for k, v in vars(args).items() if k not in ("output", "one")}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = {"setting": setting | {"device": device, "steps": STEPS}, "torch": torch.__version__} | found
    print(json.dumps(result, indent=1))
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
