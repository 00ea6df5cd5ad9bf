"""The steps of DiscoX's pipeline: prompts by upstream's names, labels and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GATE, FIRST, CRITIQUE = "gate", "first", "critique"
PROMPT_HASHES = {
    "instruct_sp": "2107731ff7eeda7199a8afa45ce780ff30e53a326266e464af16d0abdba8ebd7",
    "instruct_up": "0309cadcd45c65c48d12c71cd328fe2ca0ae79340b8caf040633573dca347767",
    "checkpoints_sp": "bc3adb1c6f12fefa1c8e1942c8fe63f3208edba9f9b3941aaf9210e20d3c29f2",
    "checkpoints_up": "98e0abcfb561881d0891a17a102a31335152e563bfa5793ec0a5de95901f1dbf",
    "accuracy_sp": "0d04da8c65f6b413221ba5c4ce9edeca02244022aff94ef99f2c2e3423d9f4b2",
    "up": "663f5738128fe32221f1bf30cd627bb298dd5ad127360bb82d216cd14941c7d9",
    "fluency_sp": "c13c5d4866f7b0ed5ec4f412341dbf88643a4d12c513816ca404f2bdb5025f58",
    "appropiate_sp": "79b40ce87d9a4c7ded67892d393cc43523c4fbd137ff36fbd4efce3f1b7de907",
    "self_critique_sp": "59b6fd040e7ba3c11d8e954ff25d5d9fb7a0b2384440da6e7e7ee9240cdf0e27",
    "self_critique_up": "a002a32ecd8e7cfe711cf6fa7db093ef84bfc0533d031b0ce4896db967f5822a",
    "checkpoints_final_sp": "ea18a832b89d436abe8a441eabece58055fd27ce37e48e785047f11cd9239d33",
    "checkpoints_final_up": "3d900ba8781e64397153664d3cf332d2cf435294dbe0967997371fce45ddde12",
    "accuracy_final_sp": "9ef34a25efb810eb19a8ac004bddd60d387f22a0d0200c8fe7f15d4ea9a55676",
    "accuracy_final_up": "dfdd80c5c58543bb876c009523159bff8e6acae54c435ee7cf55af7f96bf95e2",
    "fluency_final_up": "78948297832227156564f0cd6e8c57054daa28f7aaa1a38357d0acfe13b79cbc",
    "fluency_final_sp": "f0e43194c320b4856e2f83b60402b3592cf53cd3661ec5bb76d74e58be47e484",
    "appropiate_final_up": "f93a8145e28699e90ab47924e07d42ef45a6da4e4a90bb899d9c6667265c975f",
    "appropiate_final_sp": "ebbb34ce03ea8431ab616a0c9ba10644015eab1c59a215f3d7ca7d2e1bc92609",
}


@dataclass(frozen=True, slots=True)
class Aspect:
    """One of the four assessments: its prompts, where its label stands, and what a label costs.

    `points` is what it can cost at most; `unknown` is upstream's deduction for any other label.
    """

    first: str
    first_user: str
    final: str
    final_user: str
    field: str
    key: str
    costs: Mapping[str, int]
    points: int
    unknown: int = 0


SEVERITY, VERDICT = "问题严重程度", "判断结果"
SEVERITIES = {"整体无问题": 0, "普通": 5, "Major": 5, "严重": 10, "Critical": 10}
SEVERITIES |= {"非常严重": 50, "Extremely Critical": 50}
ASPECTS = {
    "accuracy": Aspect(
        "accuracy_sp",
        "up",
        "accuracy_final_sp",
        "accuracy_final_up",
        "accuracy_judge_result",
        SEVERITY,
        SEVERITIES,
        60,
        unknown=5,
    ),
    "checkpoints": Aspect(
        "checkpoints_sp",
        "checkpoints_up",
        "checkpoints_final_sp",
        "checkpoints_final_up",
        "checkpoints_judge_result",
        VERDICT,
        {"正确": 0, "错误": 5},
        60,
    ),
    "fluency": Aspect(
        "fluency_sp",
        "up",
        "fluency_final_sp",
        "fluency_final_up",
        "fluency_judge_result",
        SEVERITY,
        {"无问题": 0, "整体无问题": 0, "有问题": 2},
        20,
    ),
    "appropriateness": Aspect(
        "appropiate_sp",
        "up",
        "appropiate_final_sp",
        "appropiate_final_up",
        "style_judge_result",
        SEVERITY,
        {"无问题": 0, "整体无问题": 0, "有问题": 5},
        20,
    ),
}
