"""Multimodal contrastive adversarial training of CLIP (MMCoA, 2404.19287): images and captions attacked.

    accelerate launch examples/run_mmcoa.py --config examples/configs/mmcoa_cifar100_small.yaml \\
        --model_name_or_path path/to/clip --train_file train.parquet --eval_file test.parquet

Captions are the data's (``--caption_column``) or the class prompts. ``--text_attack`` chooses how they are
attacked: ``bert`` (a masked language model, ``--text_attack_args '{"model_name": …}'``), ``gradient`` or
``synonym``.
``--objective hier_mmcoa --tree …`` adds the class tree. Options, outputs and checkpoints are those of
``run_hier.py``.
"""

from hf_hierrobust.cli.train import main

if __name__ == "__main__":
    main(objective="mmcoa")
