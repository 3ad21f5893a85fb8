"""A Space: attack a picture on a base and a robust CLIP, and see where each prediction leaves the class tree.

    python examples/space/app.py

``SPACE_MODELS``, a variable of the Space, lists the models: ``name = base | robust; …`` with Hub ids or
folders. Without it the tiny CLIP of ``make demo`` is shown. ``SPACE_PICTURES`` is a folder of pictures to
pick from. What is computed is in `hf_hierrobust.runs.side_by_side`; this file only draws.
"""

from __future__ import annotations

import base64
import os
import tempfile
import traceback
from html import escape
from pathlib import Path

import gradio as gr

from hf_hierrobust.runs.attack_files import perturbation_levels, png_bytes, verdict
from hf_hierrobust.runs.attack_image import ImageAttack
from hf_hierrobust.runs.side_by_side import (
    Limits,
    Request,
    attack_side_by_side,
    demo_trees,
    embedded_pair,
    read_pairs,
)

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
NO_TREE = "no tree: the labels below"
LIMITS = Limits()
STYLE = """
#picture img {width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated}
.side h3 {margin: 0 0 .4em}
.side .pictures {display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .5em; margin: .6em 0}
.side figure {margin: 0}
.side img {width: 100%; image-rendering: pixelated; border-radius: 4px; display: block}
.side figcaption {font-size: .8em; opacity: .8; line-height: 1.25; margin-top: .25em}
.side table {width: 100%; border-collapse: collapse; font-size: .92em; table-layout: fixed}
.side th, .side td {text-align: left; padding: .35em .3em; vertical-align: top; overflow-wrap: anywhere}
.side .path, .side .path thead, .side .path tbody, .side .path tr {border: 0}
.side .path th, .side .path td {border: 0; border-top: 1px solid var(--border-color-primary)}
.side .path thead th {border: 0; font-weight: 600; opacity: .75}
.side th:first-child {width: 31%}
.side .bar {height: 5px; border-radius: 3px; margin-top: 4px; background: var(--border-color-primary)}
.side .bar i {display: block; height: 100%; border-radius: 3px}
.side .kept i {background: #00785A}
.side .changed i {background: #C04A00}
.side .changed b {color: #C04A00}
.dark .side .changed b {color: #FF9A5C}
.side .verdict {margin: .6em 0 0}
.gradio-container {overflow: clip !important}
.answers {position: sticky; top: 1em; align-self: flex-start}
footer {display: none !important}
"""


def draw(side: str, found: ImageAttack | None) -> str:
    """One model's attack as HTML: three pictures, the path from the root to the leaf, the verdict."""
    if found is None:
        return (
            '<section class="side"><h3>Robust model</h3><p>There is none here. <code>make demo</code> trains '
            "one into <code>outputs/demo</code>; <code>SPACE_MODELS</code> names others.</p></section>"
        )
    perturbation, factor = perturbation_levels(found)
    pictures = {
        "image": (found.pixels * 255).round().byte(),
        f"perturbation ×\N{NO-BREAK SPACE}{factor}": perturbation,
        "adversarial image": found.rounded.levels,
    }
    figures = "".join(
        f'<figure><img alt="{escape(said)}" src="data:image/png;base64,'
        f'{base64.b64encode(png_bytes(levels)).decode()}"><figcaption>{escape(said)}</figcaption></figure>'
        for said, levels in pictures.items()
    )
    rows = "".join(
        f'<tr data-level="{before.level}"><th scope="row">{escape(before.level_name)}</th>'
        f"{_cell(before, True)}{_cell(after, before.name == after.name)}</tr>"
        for before, after in zip(found.clean, found.attacked)
    )
    taken = " (what this model takes the clean image for)" if found.assumed else ""
    return (
        f'<section class="side"><h3>{side.capitalize()} model <small>{escape(found.model)}</small></h3>'
        f'<div class="pictures">{figures}</div><table class="path"><thead><tr><th>level</th><th>image</th>'
        f"<th>adversarial</th></tr></thead><tbody>{rows}</tbody></table>"
        f'<p class="verdict">Class: <b>{escape(found.true)}</b>{taken}. {escape(verdict(found))}</p>'
        "</section>"
    )


def _cell(one, kept: bool) -> str:
    percent, mark = 100 * one.confidence, "" if kept else "→ "
    return (
        f'<td class="{"kept" if kept else "changed"}"><b>{mark}{escape(one.name)}</b> '
        f"{percent:.0f}\N{NO-BREAK SPACE}%"
        f'<div class="bar"><i style="width: {percent:.0f}%"></i></div></td>'
    )


def refusal(message: str) -> gr.Error:
    """What the visitor is told, as text and not as HTML; the log is for faults of the Space."""
    return gr.Error(escape(message), print_exception=False)


def pictures_of(folder: str, count: int = 6) -> list[list[str]]:
    """Pictures of a folder to pick from, in the order of their names.

    Raises:
        ValueError: no such folder, or no picture in it.
    """
    found = sorted(p for p in Path(folder).expanduser().glob("*") if p.suffix.lower() in PICTURES)
    if not found:
        raise ValueError(f"SPACE_PICTURES={folder!r} is no folder with {', '.join(PICTURES)} files")
    return [[str(path)] for path in found[:count]]


def rendered_symbols(count: int = 6) -> list[list[str]]:
    """Symbols of ``count`` classes, as files; none where matplotlib is missing."""
    try:
        from hf_hierrobust.demo.glyphs import glyph_dataset

        rows = glyph_dataset("test", num_images=36, seed=42)
    except ImportError:
        return []
    folder = Path(tempfile.mkdtemp(prefix="samples-"))
    files = []
    for index in range(0, len(rows), len(rows) // count):
        name = rows.features["label"].int2str(rows[index]["label"])
        files.append([str(folder / f"{name.replace(' ', '_')}.png")])
        rows[index]["image"].save(files[-1][0])
    return files[:count]


def build(models: str = "", pictures: str = "") -> gr.Blocks:
    """The page, over the models of ``SPACE_MODELS`` and the pictures of ``SPACE_PICTURES``."""
    pairs = {pair.name: pair for pair in read_pairs(models) or [embedded_pair()]}
    trees = demo_trees(LIMITS)

    def attack(
        name,
        picture,
        tree,
        labels,
        true,
        eps,
        steps,
        progress=gr.Progress(),  # noqa: B008, Gradio looks for this default
    ):
        if not picture or not picture["path"]:
            raise refusal("Choose a picture first.")
        if name not in pairs:
            raise refusal("Choose one of the models.")
        shown = {"base": "", "robust": ""}
        yield tuple(shown.values())  # an error must not stand beside the answer to something else
        try:
            request = Request(
                Path(picture["path"]).read_bytes(),
                labels,
                None if tree == NO_TREE else tree,
                true,
                eps,
                steps,
                LIMITS,
            )
            for side, found in attack_side_by_side(
                pairs[name], request, lambda done, said: progress(done, desc=said)
            ):
                shown[side] = draw(side, found)
                yield tuple(shown.values())
        except (ValueError, KeyError, ImportError, TimeoutError) as error:
            raise refusal(str(error.args[0] if error.args else error)) from error
        except Exception as error:
            traceback.print_exception(error)
            raise refusal(
                f"the attack broke off ({type(error).__name__}): the Space's log says where"
            ) from error

    with gr.Blocks(title="Attack a picture", analytics_enabled=False) as page:
        gr.Markdown(
            "## Attack a picture\nA change that nobody sees, found by gradients (PGD) on your picture. Where "
            "does the prediction leave the class tree, with the base model and with the robust one?"
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                model = gr.Dropdown(list(pairs), value=next(iter(pairs)), label="Models", elem_id="model")
                picture = gr.Image(sources=["upload"], label="Picture", height=230, elem_id="picture")
                if pictures:
                    gr.Examples(pictures_of(pictures), picture, label="Pictures to try")
                elif not models and (files := rendered_symbols()):
                    gr.Examples(files, picture, label="Rendered symbols that the tiny CLIP knows")
                default = NO_TREE if models else "glyphs"
                tree = gr.Dropdown([NO_TREE, *trees], value=default, label="Class tree", elem_id="tree")
                labels = gr.Textbox(
                    label=f"Labels, comma-separated (at most {LIMITS.classes})", lines=2, elem_id="labels"
                )
                true = gr.Textbox(
                    label="Its class, if you know it",
                    placeholder="else: what each model says",
                    elem_id="true",
                )
                eps = gr.Slider(0.5, LIMITS.eps, 4, step=0.5, label="eps, in 1/255", elem_id="eps")
                steps = gr.Slider(
                    1, LIMITS.steps, 20, step=1, label="Steps of each of two runs", elem_id="steps"
                )
                button = gr.Button("Attack", variant="primary", elem_id="attack")
                status = gr.HTML(
                    "First the base model, then the robust one.", min_height=70, elem_id="status"
                )
            # Columns, which on a phone stand below one another.
            with gr.Column(scale=5, min_width=320, elem_classes="answers"), gr.Row():
                with gr.Column(min_width=300):
                    base = gr.HTML("The base model's answer comes here.", min_height=120, elem_id="base")
                with gr.Column(min_width=300):
                    robust = gr.HTML(
                        "The robust model's answer comes here.", min_height=120, elem_id="robust"
                    )
        # One job at a time on a CPU; others wait in the queue.
        button.click(
            attack,
            [model, picture, tree, labels, true, eps, steps],
            [base, robust],
            # Gradio would decode the picture; only the package's decoder does, with its limits and messages.
            preprocess=False,
            show_progress_on=status,
            concurrency_limit=1,
            concurrency_id="attack",
        )
    return page.queue(max_size=8)


def serve(models: str = "", pictures: str = "", **options) -> gr.Blocks:
    """Launch the page; ``options`` as of `gradio.Blocks.launch`."""
    page = build(models, pictures)
    # System fonts: the default theme fetches its own from another host.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    page.launch(theme=theme, css=STYLE, max_file_size="10mb", **options)
    return page


if __name__ == "__main__":
    serve(os.environ.get("SPACE_MODELS", ""), os.environ.get("SPACE_PICTURES", ""))
