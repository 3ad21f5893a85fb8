"""Time of AutoAttack beside the official code: the same images, starts and flags.

    python benchmarks/auto_attack.py digits       # a small network, trained here
    python benchmarks/auto_attack.py clip --model path/to/clip --data cifar100/test.parquet --eps 1/255

Needs ``pyautoattack``, whose results are those of the official repository bit for bit, and scikit-learn for
the digits. The official code gets the network as it is loaded: the stock `CLIPModel` with its text features
cached, whose weights need gradients. Both sides take turns on each attack, one thread, CPU seconds; each goes
on with its own survivors. A saving's part is the time of an attack with it switched off, over that with all.

``ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2`` makes a newer CPU compute as
one with AVX2 does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from digits_model import digits
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_projections import projection_l2, projection_linf
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn
from transformers import AutoProcessor, CLIPModel

from hf_hierrobust import AutoAttack, ZeroShotClassifier, load_class_set, load_images
from hf_hierrobust.attacks import Attack
from hf_hierrobust.attacks.image import criteria, fab
from hf_hierrobust.data import PixelCollator, as_images, stratified_rows
from hf_hierrobust.modeling import PixelPipeline, encode_prompts, load_robust_model
from hf_hierrobust.modeling.kernels import attack_kernels
from hf_hierrobust.threat import parse_eps

RESULTS = Path(__file__).parent / "results"
ISA = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")


class Counted(nn.Module):
    """A network that counts the images that pass it, and those whose gradient is taken."""

    def __init__(self, net: Callable[[Tensor], Tensor]):
        super().__init__()
        self.net, self.forwards, self.backwards = net, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        self.backwards += len(x) * x.requires_grad
        return self.net(x)

    def take(self, images: int) -> dict:
        counts = {"forwards": self.forwards / images, "backwards": self.backwards / images}
        self.forwards = self.backwards = 0
        return {name: round(count, 1) for name, count in counts.items()}


class StockCLIP(nn.Module):
    """What a user of the official code writes around a CLIP: text features once, then the stock model."""

    def __init__(self, path: str, classifier: ZeroShotClassifier):
        super().__init__()
        self.model = CLIPModel.from_pretrained(path, dtype=torch.float32).eval()
        self.pipeline, self.text = classifier.pipeline, classifier._text

    def forward(self, pixels: Tensor) -> Tensor:
        image = self.model.get_image_features(pixel_values=self.pipeline(pixels)).pooler_output
        return nn.functional.normalize(image, dim=-1) @ self.text.T


def clip(args: argparse.Namespace):
    """Ours, the stock one, their kernels, pixels and labels."""
    model, processor = load_robust_model(args.model).eval(), AutoProcessor.from_pretrained(args.model)
    data, classes = load_images(args.data, split="test"), load_class_set(args.classes)
    states = encode_prompts(model, processor.tokenizer, classes.prompts())
    classifier = ZeroShotClassifier(model, PixelPipeline(processor.image_processor), states)
    images = as_images(data, classes)
    rows, _ = stratified_rows(images.labels, args.images)
    batch = PixelCollator(processor.image_processor, "native")([images[row] for row in rows])
    stock = StockCLIP(args.model, classifier)
    return classifier, stock, lambda: attack_kernels(model, None), batch["pixels"], batch["labels"]


def official(attack: Attack, net: nn.Module, seed: int):
    """The official attack with the constants of one of ours."""
    shared = {"eps": attack.eps, "norm": attack.norm.capitalize(), "seed": seed, "device": "cpu"}
    if attack.name == "square":
        return SquareAttack(net, **shared, n_queries=attack.num_queries, resc_schedule=False)
    shared |= {"n_iter": attack.num_steps, "n_restarts": attack.restarts}
    if attack.name == "apgd-t":
        return APGDAttack_targeted(net, **shared, n_target_classes=attack.num_targets)
    if attack.name == "fab-t":
        return FABAttack_PT(net, **shared, targeted=True, n_target_classes=attack.num_targets)
    return APGDAttack(net, **shared, loss=attack.loss)


def shortened(attack: Attack, share: float) -> Attack:
    name = "num_queries" if attack.name == "square" else "num_steps"
    return replace(attack, **{name: max(int(getattr(attack, name) * share), 1)})


def by_sorting(points: Tensor, normal: Tensor, height: Tensor, norm: str) -> Tensor:
    """The official projection, in place of ours."""
    project = projection_linf if norm == "linf" else projection_l2
    return project(points, normal, (normal * points).sum(1) - height)


def ranked_by_sorting(logits: Tensor, count: int) -> Tensor:
    return logits.sort(1, descending=True).values[:, :count]


def savings(attack: Attack, kernels: Callable) -> dict[str, tuple[Attack, list]]:
    """Name of a saving that the attack has: the attack and the surroundings without it."""
    on = [kernels]
    found = {"none": (attack, on), "kernels": (attack, [])}
    if attack.name == "square":
        return found | {"known answers": (replace(attack, skip=False), on)}
    found["early exit"] = (replace(attack, early_stop=False), on)
    if attack.name == "fab-t":
        return found | {"projection": (attack, [*on, lambda: patch.object(fab, "to_hyperplane", by_sorting)])}
    sort = lambda: patch.object(criteria, "ranked", ranked_by_sorting)  # noqa: E731
    return found | ({"top-k": (attack, [*on, sort])} if attack.name == "apgd-t" else {})


def seconds(run: Callable):
    start = time.process_time()
    found = run()
    return time.process_time() - start, found


def turns(sides: dict[str, Callable], rounds: int) -> tuple[dict, dict]:
    """CPU seconds and results of each side, in alternating order."""
    times, found = {name: [] for name in sides}, {}
    for round_ in range(rounds):
        for name in list(sides) if round_ % 2 == 0 else list(sides)[::-1]:
            spent, found[name] = seconds(sides[name])
            times[name].append(spent)
    return times, found


def compare(ours, stock, kernels, pixels, labels, attacks, args) -> list[dict]:
    """Each attack of the list on both sides."""
    with torch.no_grad():
        clean = {"official": stock(pixels).argmax(1) == labels, "ours": ours(pixels).argmax(1) == labels}
    counted, standing, rows = Counted(stock), dict(clean), []
    for attack in attacks:
        inputs = {side: flags.nonzero()[:, 0] for side, flags in standing.items()}
        if not all(map(len, inputs.values())):
            break
        theirs = official(attack, counted, args.seed)

        def run_official(attack=attack, theirs=theirs, rows=inputs["official"]):
            found = theirs.perturb(pixels[rows].clone(), labels[rows].clone())
            with torch.no_grad():
                robust = stock(found).argmax(1) == labels[rows]
            return robust, counted.take(len(rows))

        def run_ours(attack=attack, rows=inputs["ours"]):
            with kernels():
                generator = torch.Generator().manual_seed(args.seed)
                right = torch.ones_like(rows, dtype=torch.bool)
                found = attack(ours, pixels[rows], labels[rows], generator=generator, clean_correct=right)
            return found.robust_correct, {key: round(n, 1) for key, n in found.cost._asdict().items()}

        times, found = turns({"official": run_official, "ours": run_ours}, args.rounds)
        for side, (robust, _) in found.items():
            standing[side] = standing[side].index_copy(0, inputs[side], robust)
        ratios = [a / b for a, b in zip(times["ours"], times["official"])]
        rows.append(
            {
                "attack": attack.describe(),
                "images": len(inputs["ours"]),
                "standing": {side: int(flags.sum()) for side, flags in standing.items()},
                "flags_differ": int((standing["ours"] != standing["official"]).sum()),
                "cpu_seconds": {side: [round(t, 3) for t in spent] for side, spent in times.items()},
                "ratio": round(statistics.median(ratios), 4),
                "per_image": {side: cost for side, (_, cost) in found.items()},
            }
        )
        print(attack.name, {k: v for k, v in rows[-1].items() if k != "attack"}, flush=True)
    return rows


def ablation(ours, kernels, pixels, labels, attacks, args) -> dict:
    """Of each attack on the images that are right: time without one saving over the time with all of them."""
    with torch.no_grad():
        rows = (ours(pixels).argmax(1) == labels).nonzero()[: args.ablation_images, 0]
    found = {}
    for attack in attacks:
        sides = {}
        for name, (variant, around) in savings(shortened(attack, args.ablation), kernels).items():

            def run(variant=variant, around=around):
                with contextlib.ExitStack() as stack:
                    for enter in around:
                        stack.enter_context(enter())
                    generator = torch.Generator().manual_seed(args.seed)
                    return variant(ours, pixels[rows], labels[rows], generator=generator)

            sides[name] = run
        times, _ = turns(sides, args.ablation_rounds)
        found[attack.name] = {
            name: round(statistics.median(a / b for a, b in zip(spent, times["none"])), 3)
            for name, spent in times.items()
            if name != "none"
        }
        print(attack.name, "without", found[attack.name], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=["digits", "clip"])
    parser.add_argument("--model", help="folder of a CLIP")
    parser.add_argument("--data", help="labelled test images, as of load_images")
    parser.add_argument("--classes", default="cifar100", help="class set of the data")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--norm", choices=["linf", "l2"], default="linf")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps and queries")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ablation", type=float, default=0.1, help="share of the steps and queries; 0: none")
    parser.add_argument("--ablation_images", type=int, default=16)
    parser.add_argument("--ablation_rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ours, stock, kernels, pixels, labels = digits(args.images) if args.network == "digits" else clip(args)
    attacks = [shortened(a, args.share) for a in AutoAttack(eps=parse_eps(args.eps), norm=args.norm)]
    rows = compare(ours, stock, kernels, pixels, labels, attacks, args)
    sides = ("official", "ours")
    total = {side: sum(statistics.median(row["cpu_seconds"][side]) for row in rows) for side in sides}
    result = {
        "network": args.network if args.model is None else Path(args.model).name,
        "images": len(pixels),
        "threat": str(attacks[0].threat),
        "share_of_steps": args.share,
        "cpu": torch.cpu.get_capabilities().get("cpu_name"),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "limits": {name: os.environ[name] for name in ISA if name in os.environ},
        "torch": torch.__version__,
        "robust_accuracy": {side: count / len(pixels) for side, count in rows[-1]["standing"].items()},
        "cpu_seconds": {side: round(spent, 1) for side, spent in total.items()},
        "ratio": round(total["ours"] / total["official"], 4),
        "attacks": rows,
    }
    if args.ablation:
        result["without"] = ablation(ours, kernels, pixels, labels, attacks, args)
    print(json.dumps({key: result[key] for key in ("robust_accuracy", "cpu_seconds", "ratio")}))
    output = args.output or RESULTS / f"auto_attack_{args.network}.json"
    output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
