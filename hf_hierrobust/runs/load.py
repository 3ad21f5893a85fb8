"""The first stage of a run: model, data and trees, loaded and checked against each other."""

from __future__ import annotations

from ..modeling import load_processor, load_robust_model
from ..naming import public_name
from ..progress import say
from ..training import RobustTrainingArguments
from ..training.intake import forest_for
from .arguments import RunArguments
from .checks import check_columns, check_evaluation, check_prompts
from .data import GLYPH_TRAIN_IMAGES, cache_folder, load_data
from .run import Run


def load_run(args: RunArguments, training_args: RobustTrainingArguments, training: bool = True) -> Run:
    """Load model, data and trees, and check that they fit together.

    Args:
        training: False needs no training data, for runs that only evaluate.
    """
    trained = ("hier_head",)
    if training:
        objective = training_args.build_objective()
        check_columns(args, objective.name, objective.needs)
        trained = objective.trained_groups
    check_evaluation(
        args,
        training_args.threat,
        training_args.tree is not None,
        trains_head="hier_head" in trained,
        draws=training or args.transfer,
    )
    say(f"data: {public_name(args.eval_source)}")
    data = load_data(args, training_args, training)
    class_set = data.class_set
    path = model_path(args, training_args.seed)
    say(f"model: {public_name(path)}")
    model = load_robust_model(path)
    if args.card_base_model is not None:  # what card, records and adapter call it
        model.name_or_path = args.card_base_model
    processor = load_processor(path)
    forest = forest_for(None, training_args, class_set, model, processor.tokenizer)
    main = data.main_set(args, forest.trees[0] if forest is not None else None)
    template = args.prompt_template(training_args.template)
    check_prompts((main, *data.others), model, processor.tokenizer, template)
    return Run(
        args,
        training_args,
        model,
        processor,
        class_set,
        forest,
        data.train,
        [main, *data.others],
    )


def model_path(args: RunArguments, seed: int) -> str:
    """Folder or Hub id of a run's model; the embedded default is pretrained where it is not there yet."""
    return glyph_base(seed) if args.model_name_or_path == "glyphs" else args.model_name_or_path


def glyph_base(seed: int = 42) -> str:
    """Folder of the tiny CLIP pretrained on rendered symbols; found in the cache, else trained in minutes."""
    from ..demo.glyphs import glyph_dataset, glyph_paths
    from ..demo.pretraining import PretrainRecipe, pretrain_glyph_clip

    # Other images than those of the robust training, which come from the run's own seed.
    dataset = glyph_dataset("train", num_images=GLYPH_TRAIN_IMAGES, seed=seed + 1, cache_dir=cache_folder())
    recipe = PretrainRecipe(seed=seed)
    return str(pretrain_glyph_clip(cache_folder(), dataset=dataset, paths=glyph_paths(), recipe=recipe))
