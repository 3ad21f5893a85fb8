"""What MMCoA's text attack costs: against its image attack, and against its published shape.

    python benchmarks/text_attack.py                  # random weights of ViT-B/32's and BERT-base's size
    python benchmarks/text_attack.py --model openai/clip-vit-base-patch32 --mlm google-bert/bert-base-uncased

1. The batched text attack on 256 captions against the 10-step image attack on 256 images (PGD on the
   cross-entropy with the K class prompts encoded once, the cheaper of two ways to do it). Captions are the
   CIFAR-100 prompts of 256 random labels (each prompt is attacked once), and 256 distinct captions. "first"
   includes the masked language model; "again" is every later epoch, when its candidates are known.
2. The batched text attack against the algorithm's published shape, on the same captions and models: a loop
   over captions, in it one forward for the importance of the words and one for the candidates of each word
   tried, texts padded to the whole context. Both get their candidates from the same batched masked LM, and
   both find the same texts, which is counted.

``--bf16`` runs everything under bf16 autocast, as training on such a machine does; candidates whose scores
are then equal may make the two shapes of the algorithm choose different texts.

The sides of a ratio alternate, so that a drift of the machine's speed hits both; ratios are medians over
rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import compare, interleave
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
)

from hf_hierrobust.attacks import BertAttack, TrainingPGD, coordinate_kl
from hf_hierrobust.attacks.text.candidates import MaskedLM
from hf_hierrobust.attacks.text.sentence import Sentence
from hf_hierrobust.classifiers import frozen
from hf_hierrobust.data import load_class_set
from hf_hierrobust.demo.tiny import build_tokenizer, tiny_clip_config
from hf_hierrobust.modeling import TextEncoder
from hf_hierrobust.modeling.kernels import fast_kernels

ADJECTIVES = [
    *("small", "large", "red", "green", "young", "old"),
    *("wooden", "bright", "dirty", "quiet", "tall", "broken"),
]
NOUNS = ["dog", "cat", "horse", "child", "woman", "man", "bird", "car", "boat", "chair", "table", "bicycle"]
VERBS = ["standing", "sitting", "lying", "waiting", "resting", "moving"]
PLACES = ["beach", "street", "field", "kitchen", "bridge", "garden", "river", "station"]
RESULT = Path(__file__).parent / "results" / "text_attack.json"


def distinct_captions(count: int) -> list[str]:
    """Captions of ten words, the usual length in COCO."""
    rng, found = random.Random(0), {}
    while len(found) < count:
        (adjective,), (subject, other) = rng.sample(ADJECTIVES, 1), rng.sample(NOUNS, 2)
        text = f"A {adjective} {subject} {rng.choice(VERBS)} on a {rng.choice(PLACES)} near a {other}."
        found[text] = None
    return list(found)


def load_clip(name: str | None, texts: list[str], size: str, device: str) -> tuple[CLIPModel, TextEncoder]:
    """A checkpoint, or random weights of ViT-B/32's size with a tokenizer that knows the texts' words."""
    torch.manual_seed(0)
    if name:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = CLIPModel.from_pretrained(name, dtype=torch.float32)
    else:
        tokenizer = build_tokenizer(texts, max_length=77, max_merges=4000)
        config = CLIPConfig()  # ViT-B/32
        if size == "tiny":
            config = tiny_clip_config(tokenizer, projection_dim=64)
        model = CLIPModel(with_tokens(config, tokenizer))
    model.to(device)
    return model, TextEncoder(model, tokenizer)


def with_tokens(config: CLIPConfig, tokenizer) -> CLIPConfig:
    """The config, knowing the tokenizer's special tokens."""
    for token in ("bos", "eos", "pad"):
        setattr(config.text_config, f"{token}_token_id", getattr(tokenizer, f"{token}_token_id"))
    return config


def load_mlm(name: str | None, texts: list[str], size: str, directory: str) -> str:
    """Folder or id of a checkpoint, else of random weights of BERT-base's size whose words are the texts'."""
    if name:
        return name
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for text in texts for word in text.lower().replace(".", " ").split()})
    config = BertConfig()
    if size == "tiny":
        config = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    vocab = {token: row for row, token in enumerate([*special, ".", *words])}
    # Filled up to BERT's vocabulary, so that the output layer costs what it does there.
    vocab |= {f"word{row}": row for row in range(len(vocab), config.vocab_size)}
    torch.manual_seed(0)
    BertForMaskedLM(config).save_pretrained(directory)
    BertTokenizer(vocab=vocab).save_pretrained(directory)
    return directory


def image_attack(
    model: CLIPModel, encoder: TextEncoder, prompts: list[str], count: int
) -> Callable[[], None]:
    size, device = model.config.vision_config.image_size, model.device
    pixels = torch.rand(count, 3, size, size, device=device)
    labels = torch.randint(len(prompts), (count,), device=device)
    text = F.normalize(encoder(prompts), dim=-1)
    scale = model.logit_scale.detach().exp()
    attack = TrainingPGD(eps="1/255", num_steps=10, step_size=1 / 255)

    def loss(x):
        features = model.get_image_features(pixel_values=(x - 0.45) / 0.27).pooler_output
        return F.cross_entropy(scale * F.normalize(features, dim=-1) @ text.T, labels, reduction="none")

    def run() -> None:
        with frozen(model):
            attack.perturb(loss, pixels)

    return run


@torch.no_grad()
def published_loop(texts: list[str], encoder: TextEncoder, lm: MaskedLM) -> list[str]:
    """The algorithm as MMCoA's code runs it: caption by caption, word by word, padded to the context."""
    candidates = lm([Sentence.parse(text) for text in texts], encoder.device)

    def embed(rows: list[str]):
        batch = encoder.tokenizer(rows, padding="max_length", max_length=encoder.context, return_tensors="pt")
        return encoder.module.get_text_features(**batch.to(encoder.device)).pooler_output

    attacked = []
    anchors = embed(texts)
    for text, anchor, options in zip(texts, anchors, candidates):
        sentence, result = Sentence.parse(text), text
        masked = [sentence.replace({word: "[UNK]"}) for word in range(len(sentence.words))]
        importance = coordinate_kl(anchor.expand(len(masked), -1), embed(masked)).tolist()
        for word in sorted(range(len(masked)), key=importance.__getitem__, reverse=True):
            if options[word]:
                variants = [text, *(sentence.replace({word: option}) for option in options[word])]
                best = int(coordinate_kl(anchor.expand(len(variants), -1), embed(variants)).argmax())
                result = variants[best]
                if best:
                    break
        attacked.append(result)
    return attacked


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder or Hub id of a CLIP; absent: random weights")
    parser.add_argument("--mlm", help="folder or Hub id of a masked language model; absent: random weights")
    parser.add_argument("--size", choices=("b32", "tiny"), default="b32", help="of the random weights")
    parser.add_argument("--captions", type=int, default=256)
    parser.add_argument("--loop_captions", type=int, default=64, help="captions of the second comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bf16", action="store_true", help="run under bf16 autocast")
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"

    classes = [f"This is a photo of a {name}" for name in load_class_set("cifar100").class_names]
    rng = random.Random(0)
    sets = {
        "cifar100 prompts": [rng.choice(classes) for _ in range(args.captions)],
        "distinct captions": distinct_captions(args.captions),
    }
    every_text = [*classes, *sets["distinct captions"]]
    folders = {k: Path(v).name for k in ("model", "mlm") if (v := getattr(args, k))}
    result: dict = {
        "setting": {k: v for k, v in vars(args).items() if k != "output"} | folders,
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        model, encoder = load_clip(args.model, every_text, args.size, device)
        model.eval()
        if args.bf16:  # with the kernels of training
            stack.enter_context(torch.autocast(device, torch.bfloat16))
            stack.enter_context(fast_kernels(model, torch.bfloat16))
        mlm = load_mlm(args.mlm, every_text, args.size, directory)
        attack = BertAttack(model_name=mlm)
        attack(classes[:2], encoder)  # loads the masked language model
        lm = attack._source

        def first(texts: list[str]) -> list[str]:
            lm._cache.clear()
            return attack(texts, encoder).texts

        image = image_attack(model, encoder, classes, args.captions)
        for name, texts in sets.items():
            sides = {
                "text, first": lambda texts=texts: first(texts),
                "text, again": lambda texts=texts: attack(texts, encoder),
                "image": image,
            }
            times = interleave(sides, args.rounds, device)
            result[name] = {"seconds": {k: [round(t, 3) for t in v] for k, v in times.items()}} | {
                f"{side} / image": compare(times, side, "image") for side in ("text, first", "text, again")
            }

        texts = sets["distinct captions"][: args.loop_captions]

        def loop() -> list[str]:
            lm._cache.clear()
            return published_loop(texts, encoder, lm)

        same = sum(a == b for a, b in zip(first(texts), loop()))
        times = interleave({"batched": lambda: first(texts), "one by one": loop}, args.rounds, device)
        result["published shape"] = {
            "seconds": {k: [round(t, 3) for t in v] for k, v in times.items()},
            "one by one / batched": compare(times, "one by one", "batched"),
            "equal_texts": f"{same} of {len(texts)}",
        }
    print(json.dumps(result, indent=1))
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
