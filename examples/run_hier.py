"""Hierarchical adversarial fine-tuning of CLIP (HierRobust, 2604.18867), from data to a sharable model.

    accelerate launch examples/run_hier.py --config examples/configs/cifar100_small.yaml \\
        --model_name_or_path path/to/clip --train_file train.parquet --eval_file test.parquet --tree cifar100

Options come from flags, or from ``--config file.yaml`` with flags winning; ``--help`` lists them. The run
evaluates the base model, trains, evaluates the result on the same images and writes to ``output_dir``:
a checkpoint that stock transformers loads, ``results.json``, figures and a model card.
"""

from hf_hierrobust.cli.arguments import RunArguments
from hf_hierrobust.cli.config import parse_with_config
from hf_hierrobust.cli.stages import build_trainer, evaluate_run, load_run, report
from hf_hierrobust.evaluation import records_table
from hf_hierrobust.training import RobustTrainingArguments, prepare_output_dir


def main(argv=None):
    args, training_args = parse_with_config((RunArguments, RobustTrainingArguments), argv)
    checkpoint = prepare_output_dir(
        training_args.output_dir,
        resume=training_args.resume_from_checkpoint,
        overwrite=training_args.overwrite_output_dir,
    )
    run = load_run(args, training_args)
    # The trainer comes before any measurement, so that whatever does not fit together fails now.
    trainer = build_trainer(run)
    base = evaluate_run(run, run.model, args.model_name_or_path, "none") if args.eval_base else []
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    if trainer.is_world_process_zero():
        records = evaluate_run(run, run.model, training_args.output_dir, trainer.objective.name)
        records = report(run, trainer, base, records)
        print(records_table(records))
    if training_args.push_to_hub:
        trainer.push_to_hub()


if __name__ == "__main__":
    main()
