"""What a model card states, checked where it is gathered: nothing in a card is guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ..evaluation.records import RobustnessRecord
from ..licences import check_licence
from ..naming import MACHINE_PATH


@dataclass(frozen=True, kw_only=True)
class TreeFacts:
    """A class tree of a run: `levels` counts the classes of each level, leaves first; see `LabelTree`.

    `paths` are the names above each leaf, lowest first, as ``{leaf: [...]}``: a small tree is printed.
    """

    name: str
    levels: Sequence[int]
    hash: str
    source: str = ""
    licence: str = ""
    paths: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card says; nothing in it is guessed.

    Attributes:
        model_name: Title of the card and name in its `model-index`.
        base_model: Hub id or local path of the undefended model; of a path only the last part is published.
        objective: Name of the training objective, equal to that of every record.
        threat_model: The threat model trained against, in words.
        paper_id, paper_title, citation: arXiv id, title and BibTeX entry of the objective's paper.
        repo_id: Hub id that the code examples load; the model's name if it is not known yet.
        datasets: Training data, Hub ids or local paths.
        class_names: Classes of the training data; the code examples ask for the first of them.
        template: Prompt template of the training.
        hyperparameters: Training settings as they were really used; None and keys that end in "token" are
            left out.
        defaults: Settings that stand at their defaults, folded away.
        versions: What the training ran with, such as "torch" and "commit".
        trained_parameters: Number of trained scalars by parameter group.
        trees: The class trees, if the objective used any.
        visual_prompt: The defence is a visual prompt, which stock transformers does not load.
        records: Measurements of this model; its undefended base stands in their field `base`.
        figures: Paths of images, relative to the card.
        licence: Hub licence identifier, such as "mit".
        language: ISO 639 code of the class names and templates.
        tags: Further Hub tags.
        warnings: Sentences that a reader must not miss, such as images shared by training and evaluation.
        limitations: Text below the fixed statement on attacks.

    Raises:
        ValueError: An empty name, an unknown licence, a template without exactly one `{}`, a figure outside
            the card's folder, records of several models or of another objective.
    """

    model_name: str
    base_model: str
    objective: str
    threat_model: str
    paper_id: str = ""
    paper_title: str = ""
    citation: str = ""
    repo_id: str | None = None
    datasets: Sequence[str] = ()
    class_names: Sequence[str] = ("cat", "dog")
    template: str = "a photo of a {}."
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    trained_parameters: Mapping[str, int] = field(default_factory=dict)
    trees: Sequence[TreeFacts] = ()
    visual_prompt: bool = False
    records: Sequence[RobustnessRecord] = ()
    figures: Sequence[str] = ()
    licence: str | None = None
    language: str = "en"
    tags: Sequence[str] = ()
    warnings: Sequence[str] = ()
    limitations: str = ""

    def __post_init__(self) -> None:
        for name in ("model_name", "base_model", "objective", "threat_model"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; a card must name it")
        if self.licence is not None:
            check_licence(self.licence, "licence")
        if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z]+)?|code|multilingual", self.language):
            raise ValueError(f"language={self.language!r} is no ISO 639 code, such as en")
        if self.template.count("{}") != 1:
            raise ValueError(f"template={self.template!r} must contain '{{}}' exactly once")
        if not self.class_names:
            raise ValueError("class_names is empty; the card's examples ask for them")
        for figure in self.figures:
            if MACHINE_PATH.match(figure) or ".." in PurePosixPath(figure).parts:
                raise ValueError(f"figures holds {figure!r}; give paths relative to the card's folder")
        models = sorted({record.model for record in self.records})
        if len(models) > 1:
            raise ValueError(
                f"records measure several models {models}; a card shows one, with its base in record.base"
            )
        objectives = {record.objective for record in self.records} - {self.objective}
        if objectives:
            raise ValueError(
                f"records were measured for objective {sorted(objectives)}, but objective={self.objective!r}"
            )
