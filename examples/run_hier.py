"""Hierarchical adversarial fine-tuning of CLIP (HierRobust, 2604.18867), from data to a sharable model.

    accelerate launch examples/run_hier.py --config examples/configs/cifar100_small.yaml \\
        --model_name_or_path path/to/clip --train_file train.parquet --eval_file test.parquet --tree cifar100

Options come from flags, or from ``--config file.yaml`` with flags winning; ``--help`` lists them. The run
evaluates the base model, trains, evaluates the result on the same images and writes to ``output_dir``:
a checkpoint that stock transformers loads, ``results.json``, figures and a model card.
"""

from hf_hierrobust.cli.train import main

if __name__ == "__main__":
    main(objective="hier_robust")
