"""What a reflection speaks of: its level, from grammar to theme, and how concrete it is.

Word lists of our own, English and Chinese; the level with most words wins, ties go to the finer
one. Levels: specification r2write, section 3.4.
"""

from __future__ import annotations

import re
from enum import StrEnum

from r2w_eval.trace.cues import lowered, words_of
from r2w_eval.trace.phrases import JUDGEMENT


class Level(StrEnum):
    """What part of the writing a reflection is about, from the smallest to the largest."""

    MECHANICS = "mechanics"
    WORDING = "wording"
    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"
    STRUCTURE = "structure"
    CONTENT = "content"
    VOICE = "voice"
    THEME = "theme"
    INSTRUCTION = "instruction"


def _pattern(english: str, chinese: str) -> re.Pattern[str]:
    words = "|".join(part.replace("_", " ") for part in english.split())
    return re.compile(rf"\b(?:{words})\b|{'|'.join(chinese.split())}")


_LEVELS = {
    Level.MECHANICS: _pattern(
        r"grammar typos? spelling punctuation commas? capital\w* tenses? apostrophes? syllables?"
        r" meter hyphen\w* plural agreement articles?",
        "语法 标点 错别字 平仄 押韵 韵脚 时态 逗号 句号",
    ),
    Level.WORDING: _pattern(
        r"words? phras\w+ clich\w+ adjectives? adverbs? metaphors? similes? wording jargon vague"
        r" generic stock repeated repetition diction verbs? nouns? expression tired",
        "用词 措辞 词 俗 套话 老套 陈词 比喻 形容词 重复 空洞 含糊 笼统 俗气",
    ),
    Level.SENTENCE: _pattern(
        r"sentences? lines? rhythm clause wordy awkward clunky long-winded flow syntax cadence"
        r" refrain",
        "句 节奏 拗口 别扭 啰嗦 语序 绕口",
    ),
    Level.PARAGRAPH: _pattern(
        r"paragraphs? stanzas? transition\w* connect\w* exposition verse passage",
        "段 段落 过渡 衔接 铺垫",
    ),
    Level.STRUCTURE: _pattern(
        r"structure order opening ending beginning middle arc pacing turn twist sequence climax"
        r" start_with first_paragraph last_paragraph close closing ends?",
        "结构 顺序 开头 结尾 转折 次序 布局 首尾 反转",
    ),
    Level.CONTENT: _pattern(
        r"facts? details? concrete specific invented missing example evidence character\w* scene"
        r" plot motive source contradict\w* unclear explain\w* information number figure",
        "事实 细节 具体 编 依据 出处 人物 情节 矛盾 缺 没写 没有写 说明 例子 数字 交代",
    ),
    Level.VOICE: _pattern(
        r"tone voice style register sentimental preachy formal casual cute dry funny joke"
        r" condescend\w* cold warm stiff personality humou?r melodramatic literary",
        "语气 口吻 风格 腔 煽情 说教 俏皮 笑点 文艺 生硬 居高临下 口语 书面",
    ),
    Level.THEME: _pattern(
        r"theme meaning message moral subtext point symbol\w* idea stakes heart lesson",
        "主题 立意 意义 寓意 象征 道理 中心",
    ),
    Level.INSTRUCTION: _pattern(
        r"user prompt brief asked requirements? constraints? word_count limit request instructions?"
        r" audience reader task over_the_limit required forbids?",
        "用户 要求 题目 字数 限制 任务 读者 评委 客户",
    ),
}

_CHANGE = _pattern(
    r"replace\w* cut change\w* add\w* remove\w* delet\w* rewrite rephrase move\w* swap merge split"
    r" shorten should could_be needs? instead must better_to make_it let's trim drop insert put",
    "改 换 删 加 补 应该 应当 可以 不如 去掉 调整 移 合并 拆 缩短 前置 需要",
)
_PRAISE = _pattern(
    r"good great nice perfect excellent love works well strong beautiful wonderful i_like fine"
    r" effective solid flawless keep",
    "好 不错 很棒 完美 精彩 满意 喜欢 漂亮 到位 成立 保留 妙",
)

# Words of judgement, but for those that are no fault by themselves
_FAULTS = JUDGEMENT.english - {
    "works", "work", "good", "nice", "better", "stronger", "feels", "reads", "sounds", "again",
    "used", "wrote", "said", "only", "same", "already", "should", "could", "twice",
}  # fmt: skip
_FAULT_ZH = re.compile(
    "太|不够|缺|空洞|俗|生硬|啰嗦|重复|不对|不像|没有|问题|矛盾|别扭|含糊|多余|但|不过|可是"
)


def level_of(reflection: str) -> Level | None:
    """The level that most words point to; None when no word does.

    >>> str(level_of("The metaphor is a cliché."))
    'wording'
    """
    text = lowered(reflection)
    counts = {level: len(pattern.findall(text)) for level, pattern in _LEVELS.items()}
    best = max(counts.values())
    return next((level for level, count in counts.items() if count == best), None) if best else None


def names_problem(reflection: str) -> bool:
    """A word says what is wrong, and not only praise."""
    return level_of(reflection) is not None and not is_praise_only(reflection)


def states_change(reflection: str) -> bool:
    """It says what to do: replace, cut, should, 改, 删 …"""
    return _CHANGE.search(lowered(reflection)) is not None


def is_praise_only(reflection: str) -> bool:
    """It praises, names no fault and asks for no change.

    >>> is_praise_only("This is beautiful, I love it."), is_praise_only("Good, but too long.")
    (True, False)
    """
    text = lowered(reflection)
    has_fault = not _FAULTS.isdisjoint(words_of(text)) or _FAULT_ZH.search(text) is not None
    return bool(_PRAISE.search(text)) and not has_fault and not states_change(reflection)
