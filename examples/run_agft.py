"""Alignment-guided fine-tuning of CLIP (AGFT, 2603.29410): the original model's soft predictions as target.

    accelerate launch examples/run_agft.py --config examples/configs/agft_cifar100_small.yaml \\
        --model_name_or_path path/to/clip --train_file train.parquet --eval_file test.parquet

``--objective hier_agft --tree …`` aligns every level of a class tree in the same way. Options, outputs and
checkpoints are those of ``run_hier.py``.
"""

from hf_hierrobust.cli.train import main

if __name__ == "__main__":
    main(objective="agft")
