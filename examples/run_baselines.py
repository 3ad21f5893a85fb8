"""The baselines in the same pipeline: TeCoA, FARE, PMG-AFT, TGA-ZSR, Comp-TGA, AdvFLYP, plain and clean.

    accelerate launch examples/run_baselines.py --objective fare \\
        --config examples/configs/baseline_cifar100_small.yaml \\
        --model_name_or_path path/to/clip --train_file train.parquet --eval_file test.parquet

Options, outputs and checkpoints are those of ``run_hier.py``.
"""

from hf_hierrobust.cli.train import main

if __name__ == "__main__":
    main(objective="tecoa")
