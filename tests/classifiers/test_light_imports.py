"""Attacking a plain network needs torch only."""

from __future__ import annotations

import subprocess
import sys


def test_attacks_on_plain_networks_load_no_hugging_face_stack():
    code = (
        "import sys; from hf_hierrobust.attacks import PGD, TrainingPGD, SuperclassAttack; "
        "from hf_hierrobust.classifiers import Classifier, SuperclassView, frozen, roll_up; "
        "heavy = {'transformers', 'datasets', 'peft', 'accelerate'} & set(sys.modules); assert not heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
