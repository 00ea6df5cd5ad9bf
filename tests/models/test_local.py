"""Checkpoints through lm-eval's HFLM, with a tiny random Llama that the test makes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support import CHAT, save_tiny_llama

pytest.importorskip("lm_eval", reason="local checkpoints need pip install 'r2w-eval[hf]'")
torch = pytest.importorskip("torch")

from r2w_eval.config import RunConfig  # noqa: E402
from r2w_eval.errors import EndpointDown, UsageError  # noqa: E402
from r2w_eval.fakeserver.server import FakeServer  # noqa: E402
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, Reply  # noqa: E402
from r2w_eval.models.chat_template import ChatTemplate  # noqa: E402
from r2w_eval.models.fingerprint import describe_arguments, fingerprint  # noqa: E402
from r2w_eval.models.hf_engine import HfEngine  # noqa: E402
from r2w_eval.models.local import Generated, Job, LocalModel, open_local  # noqa: E402
from r2w_eval.run.job import evaluate  # noqa: E402
from r2w_eval.store import iter_jsonl  # noqa: E402
from r2w_eval.types import Decoding, Message, Scale  # noqa: E402

# third parties, at import and load: not ours to mend
pytestmark = pytest.mark.filterwarnings("ignore")
SCALE = Scale(lead="score ", labels={str(k): float(k) for k in range(1, 11)}, end=",")


def save_letters(folder: Path, n_positions: int) -> Path:
    """A tiny random Llama over the letters of ASCII."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {chr(i): i - 29 for i in range(32, 127)}
    vocabulary |= {"<eos>": 0, "<think>": 1, "</think>": 2}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return save_tiny_llama(folder, tokenizer, n_positions)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_letters(tmp_path_factory.mktemp("checkpoint"), 128)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Iterator[LocalModel]:
    yield open_local("hf", str(checkpoint), "batch_size=3")


def request(text: str, **decoding: float) -> ChatRequest:
    return ChatRequest((Message("user", text),), Decoding(**{"max_tokens": 8, **decoding}))  # type: ignore[arg-type]


def complete(model: LocalModel, *requests: ChatRequest) -> list[Reply]:
    async def job() -> list[Reply]:
        return list(await asyncio.gather(*(model.complete(r) for r in requests)))

    return asyncio.run(job())


def test_a_batch_gives_what_single_requests_give(model: LocalModel) -> None:
    requests = [request("x" * n) for n in (3, 30, 11, 7)]
    together = [reply.text for reply in complete(model, *requests)]
    alone = [complete(model, r)[0].text for r in requests]
    assert together == alone and all(together)


def test_a_long_prompt_beside_a_short_one_does_not_cut_its_answer(model: LocalModel) -> None:
    room = 127 - len("[user][assistant]")
    requests = [request("x" * n, max_tokens=40) for n in (room, 6, room - 20)]
    together = complete(model, *requests)
    counts = [(reply.usage.completion_tokens, reply.finish_reason) for reply in together]
    assert counts == [(1, "length"), (40, "length"), (21, "length")]
    assert [reply.text for reply in together] == [complete(model, r)[0].text for r in requests]


def test_counts_and_reasons_are_kept(model: LocalModel) -> None:
    (reply,) = complete(model, request("abc"))
    assert reply.finish_reason == "length"
    assert reply.usage.completion_tokens == 8
    assert reply.usage.prompt_tokens == len("[user]abc[assistant]")


def test_special_tokens_stay_in_the_text(model: LocalModel) -> None:
    engine = model._engine
    assert isinstance(engine, HfEngine)
    made = engine._finish([1, 40, 2, 41, 0, 0], 5, ())
    assert made.text.replace(" ", "") == f"<think>{chr(69)}</think>{chr(70)}"
    assert made.finish_reason == "stop" and made.n_new == 4


def test_a_prompt_that_does_not_fit_is_an_error_and_loses_nothing(model: LocalModel) -> None:
    with pytest.raises(CallFailed) as caught:
        complete(model, request("x" * 200))
    assert caught.value.status is CallStatus.CONTEXT
    assert complete(model, request("ok"))[0].text


class Breaking:
    """An engine that breaks as real ones do: on one prompt of a batch, and for want of memory."""

    batch_size = 2

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def render(self, messages: Sequence[Message]) -> str:
        return messages[-1].content

    def describe(self) -> dict[str, object]:
        return {}

    def generate(self, jobs: Sequence[Job]) -> list[Generated]:
        self.batches.append([job.prompt for job in jobs])
        if any(job.prompt == "bad" for job in jobs):
            raise IndexError("index out of range in self")
        return [Generated(job.prompt.upper(), "stop", 1, 1) for job in jobs]

    def label_probabilities(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        raise RuntimeError("CUDA out of memory")


def test_an_exception_of_an_engine_fails_only_its_own_request() -> None:
    engine = Breaking()

    async def job() -> list[Reply | BaseException]:
        asked = LocalModel("m", engine)
        calls = (asked.complete(request(text)) for text in ("bad", "x", "longer", "yy"))
        labels = asked.read_labels((Message("user", "Rate."),), SCALE)
        gathered = asyncio.gather(*calls, labels, return_exceptions=True)
        return await asyncio.wait_for(gathered, 5)  # type: ignore[return-value]

    bad, *good, labels = asyncio.run(job())
    assert [reply.text for reply in good if isinstance(reply, Reply)] == ["X", "LONGER", "YY"]
    for failure, message in ((bad, "IndexError: index out"), (labels, "RuntimeError: CUDA out")):
        assert isinstance(failure, CallFailed) and message in str(failure)
        assert failure.status is CallStatus.BAD_REQUEST
    # a batch at a time, of prompts about as long: an interrupt waits for one and loses one
    assert engine.batches == [["longer", "bad"], ["longer"], ["bad"], ["yy", "x"]]


def test_label_probabilities_equal_brute_force(model: LocalModel) -> None:
    engine = model._engine
    assert isinstance(engine, HfEngine)
    read = asyncio.run(model.read_labels((Message("user", "Rate."),), SCALE))
    prompt = engine.render([Message("user", "Rate.")]) + SCALE.lead
    for label, probability in read.probabilities.items():
        ids = engine._lm.tok_encode(prompt + label + ",", add_special_tokens=False)
        start = len(engine._lm.tok_encode(prompt, add_special_tokens=False))
        with torch.no_grad():
            logprobs = torch.log_softmax(engine._lm.model(torch.tensor([ids])).logits[0], -1)
        brute = math.exp(sum(float(logprobs[i - 1, ids[i]]) for i in range(start, len(ids))))
        assert probability == pytest.approx(brute, rel=1e-4)


def test_the_identity_has_what_changes_answers_and_nothing_else(
    checkpoint: Path, model: LocalModel
) -> None:
    facts = model.describe()
    assert facts["backend"] == "hf" and facts["dtype"] == "torch.float32"
    assert set(facts) == {"backend", "weights", "dtype", "chat_template"}
    assert open_local("hf", str(checkpoint)).describe() == facts
    told = open_local("hf", str(checkpoint), "max_length=64,enable_thinking=False").describe()
    added = {"model_args": {"max_length": 64}, "template_arguments": {"enable_thinking": False}}
    assert told == {**facts, **added}


def test_an_adapter_is_in_the_identity_by_its_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_bytes(name.encode())
    one, two = (describe_arguments({"peft": str(tmp_path / name)}) for name in ("one", "two"))
    assert one != two and one == describe_arguments({"peft": str(tmp_path / "one")})


def test_a_fingerprint_reads_every_byte_once_and_what_makes_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R2W_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    weights = folder / "model.safetensors"
    found = []

    def change(file: Path, content: bytes) -> None:
        file.write_bytes(content)
        found.append(fingerprint(str(folder)))

    for place in (0, 700_001, 1_499_999):
        changed = bytearray(1_500_000)
        changed[place] = 1
        change(weights, bytes(changed))
    for name in ("config.json", "generation_config.json", "tokenizer.json", "adapter_config.json"):
        change(folder / name, name.encode())
    assert len(set(found)) == len(found)
    change(folder / "training_args.bin", b"x")
    assert found[-1] == found[-2]
    read: list[Path] = []
    monkeypatch.setattr("r2w_eval.models.fingerprint.file_hash", read.append)
    fingerprint(str(folder))
    assert weights not in read and len(read) == 4


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
)


@pytest.mark.parametrize(
    "template", [NO_SYSTEM, CHAT.replace("%}[{{", "if m.role != 'system' %}[{{")]
)
def test_a_template_without_a_system_turn_loses_nothing_of_it(
    checkpoint: Path, template: str
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    turns = [Message("system", "Rhyme."), Message("user", "Hi")]
    own = ChatTemplate(tokenizer, "m")
    assert own.render(turns) == "[system]Rhyme.[user]Hi[assistant]"
    assert "system_turn" not in own.describe()
    tokenizer.chat_template = template
    folded = ChatTemplate(tokenizer, "m")
    assert folded.render(turns) == "[user]Rhyme.\n\nHi[assistant]"
    assert folded.describe()["system_turn"]


def test_a_turn_that_a_template_refuses_is_named(checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.chat_template = NO_SYSTEM.replace("'system'", "'tool'")
    with pytest.raises(UsageError, match="'m': its chat template refuses turns of user, tool"):
        ChatTemplate(tokenizer, "m").render([Message("user", "a"), Message("tool", "b")])


def test_unclosed_thinking_opened_by_the_template_is_not_an_answer(
    tmp_path: Path, server: FakeServer
) -> None:
    folder = save_letters(tmp_path / "opening", 2048)
    (folder / "chat_template.jinja").write_text(f"{CHAT}<think>\n")
    config = RunConfig(
        model=f"hf:{folder}",
        judge=(f"{server.base_url}#judge-0",),
        gen_kwargs="max_tokens=8",
        limit=1,
        out=str(tmp_path / "run"),
        cache=False,
    )
    outcome = asyncio.run(evaluate(config))
    (row,) = iter_jsonl(outcome.folder.path / "responses.jsonl")
    assert (row["status"], row["answer"], row["finish_reason"]) == ("unclosed_think", "", "length")
    assert outcome.manifest["identity"]["think_opened"] is True


@pytest.mark.parametrize("path", ["./no model", "/no/model", "runs/no/model"])
def test_a_path_that_is_not_a_hub_id_is_reported_as_a_missing_folder(path: str) -> None:
    config = RunConfig(model=path, judge=("none",), limit=1)
    with pytest.raises(UsageError, match=f"'{path}': no such folder.*Try: ls {Path(path).parent}"):
        asyncio.run(evaluate(config))


def test_a_folder_without_a_checkpoint_is_reported_with_its_contents(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"no config.json.*notes.txt"):
        open_local("hf", str(tmp_path))


def test_weights_that_write_freely_refuse_a_schema_with_what_to_do(model: LocalModel) -> None:
    held = ChatRequest((Message("user", "hello"),), Decoding(response_format="{}"))
    with pytest.raises(EndpointDown, match="--omit response_format"):
        complete(model, held)
