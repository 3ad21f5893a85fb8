"""The metric as a Space: JSON of its arguments in, its values out."""

import json
from pathlib import Path

import evaluate

HERE = Path(__file__).resolve().parent
SCRIPT = next(path for path in sorted(HERE.glob("*.py")) if path.name != "app.py")
LONGEST = 200_000


def compute(arguments: str) -> dict:
    """The metric of a JSON object of its arguments; what is wrong with them comes back as ``error``."""
    if len(arguments) > LONGEST:
        return {"error": f"{len(arguments)} characters: at most {LONGEST} are taken"}
    try:
        return evaluate.load(str(SCRIPT)).compute(**json.loads(arguments))
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        return {"error": str(error).splitlines()[0] if str(error) else type(error).__name__}


def main() -> None:
    import gradio as gr

    card = (HERE / "README.md").read_text(encoding="utf-8").split("---", 2)[-1]
    example = json.dumps(json.loads((HERE / "example.json").read_text(encoding="utf-8")))
    gr.Interface(
        fn=compute,
        inputs=gr.Textbox(label="Arguments, as JSON", value=example, lines=6),
        outputs=gr.JSON(label="Values"),
        title=SCRIPT.stem.replace("_", " ").capitalize(),
        article=card,
    ).launch()


if __name__ == "__main__":
    main()
