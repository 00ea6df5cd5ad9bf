"""The phrases by which reasoning models announce what they do next, English and Chinese.

Word sets tell thoughts about the writing from sentences of the writing. The rules that use both
are in `lines` and `prose`.
"""

from __future__ import annotations

import re

from r2w_eval.trace.cues import Head, cue, make_words

_ADVERBS = (
    "(?: (?:also|now|just|first|try to|quickly|maybe|probably|then|next|start|again|at least|go"
    " back and|simply))*"
)
_INTENT = (
    ("let", " (?:me|us)"),
    ("let's i'll", ""),
    ("i we", " (?:will|should|can|could|need to|want to|must|am going to|might)"),
    ("i'm", " going to"),
    ("time going", " to"),
    ("maybe perhaps", " (?:i|we)(?: should| could| can)?"),
)


def _intent(verbs: str) -> list[tuple[str, str]]:
    """ "Let me …", "I should …", with one of the verbs."""
    alternatives = "|".join(verbs.split())
    return [(first, rf"{rest}{_ADVERBS} (?:{alternatives})\b") for first, rest in _INTENT]


# Announces a first text; counts only where a text follows (a colon, a quotation, a new line)
DRAFT_INTRO = cue(
    [
        *_intent("write draft drafting writing sketch put jot attempt try"),
        ("first rough quick initial full", r" (?:draft|attempt|version|pass|try)\b"),
        ("draft attempt version", r"(?: (?:\d|one|a|it|now|time))?(?:\s*[:.]|\W*$)"),
        ("drafting", r"(?: it| now)?\s*[:.]"),
        ("here's here", r"(?: is| goes| we go)?\b"),
        ("something", r" like\b"),
        ("maybe perhaps", r" (?:start|open|begin|something|a line)\b"),
        ("writing", r" it out\b"),
        (
            "opening title body text poem letter story email caption toast speech haiku tweet",
            r"(?: could be| might be| would be)?\s*:",
        ),
        ("the", r" (?:opening|title|body|text|poem|first (?:line|stanza|paragraph))[^:]{0,20}:"),
        ("it", r" could (?:start|open|begin|go|read)\b"),
        ("i", r" could (?:start|open|begin) with\b"),
        ("could", r" (?:start|open|begin|go)\b"),
    ],
    "写(?![得的了着过]) 起草 草拟 试写 动笔 拟 初稿 草稿 正文 第一版 第一稿 开头[:：] 开头可以"
    " 开头写 开头是 标题[:：] 首段 首句 第一段[:：] 第一句[:：] 比如 例如 大概是 大概这样 可以这样"
    " 这样写 内容如下 暂定",
    "那 我 就 现在 下面 开始 来 先 试着 尝试 可以 不妨 直接",
)

# Announces a changed text
REVISION_INTRO = cue(
    [
        *_intent(
            "revise rewrite rework redo redraft fix tighten change rephrase replace cut trim make"
            " adjust recast restructure soften sharpen swap polish edit improve reword retry turn"
        ),
        ("let let's i'll", r"(?: me)? (?:try|do) (?:again|it again|that again|another)\b"),
        (
            "revised rewritten improved updated new second third final better tighter shorter"
            " corrected cleaner reworked polished corrected plainer simpler warmer",
            r"(?: (?:draft|version|attempt|opening|ending|line|stanza|paragraph|pass|text"
            r"|sentence|try|closing|title|couplet|verse|option|tagline|pass))?(?:\s*:|\W*$)",
        ),
        ("revision rewrite rewriting revising", r"\b"),
        ("take", r" two\b"),
        ("version draft attempt", r" (?:2|two|3|three|b)\b"),
        ("better instead rather", r"\s*[:,]"),
        ("how what", r" about\b"),
        ("change make turn replace cut swap rephrase rewrite", r" \S"),
        (
            "maybe perhaps",
            r" (?:instead|change|better|replace|cut|rephrase|rewrite|make|just|simply)\b",
        ),
    ],
    "修改 改写 重写 改成 改为 换成 修订 调整 润色 重新写 重新组织 重来 改一 改 换一个 换个 精简 删"
    " 修改后 改写后 修订后 第二版 第二稿 第三版 新版 新的开头 终稿 修改版 修订版 润色后 调整后"
    " 不如写成 不如说",
    "那 我 就 现在 下面 开始 来 可以 把 应该 需要 不如 还是 试着 最好 干脆 再 或者",
)

# Looks back and judges; never the text itself at the beginning of a line
REFLECTION_STRONG = cue(
    [
        ("rereading re", r"\b"),
        ("reading", r" (?:it|this|that|them|over|back)\b"),
        ("looking", r" (?:back|at (?:it|this|that|the|my))\b"),
        ("on", r" (?:second thought|reflection)\b"),
        ("hold", r" on\b"),
        ("hmm hm hmmm critique reflection", r""),
        ("refine refinement refining review", r"\W*$"),
        ("the", r" (?:problem|issue|trouble|weakness|weak (?:spot|point|part))\b"),
        ("one another", r" (?:problem|issue|weakness|concern|thing)\b"),
        ("something's something", r"(?: is)? (?:off|wrong|missing)\b"),
        ("my", r" (?:draft|opening|ending|first (?:line|draft))\b"),
        ("wait", r",? ?\S|$"),
        ("scratch", r" that\b"),
        ("that's", r" (?:too|not|better|a bit|weak|flat|still|generic|vague|a clich)"),
        ("that", r" is (?:too|not|better|a bit|weak|flat|still|generic|vague)\b"),
        ("too", r" \w"),
        ("is", r" (?:it|that|this|the \w+) (?:too|really|still|a bit|enough|actually)\b"),
        ("i'm", r" not (?:sure|happy|satisfied|convinced)\b"),
        ("i", r" (?:am not (?:sure|happy)|don't (?:like|think|love)|keep circling)\b"),
        ("weakness weaknesses weak", r"\b"),
    ],
    "等等 等一下 等下 不对 慢着 再读 重读 重新读 回头看 回头读 回过头 读起来 读一遍 读了 读下来"
    " 反思 仔细看 问题是 问题在于 问题出 有个问题 有一个问题 还有个问题 还有一个问题 感觉有点"
    " 感觉不 感觉还 感觉太 感觉这 我觉得这 我觉得开头 我觉得结尾 我觉得不 我觉得还 我觉得有点"
    " 我觉得太 是不是太 是不是有点 是不是不 太[^。]{1,8}了 再看 审视 转念一想 缺点 不足",
)

# Weak ones open sentences of stories too: a word of judgement must stand beside them
REFLECTION_WEAK = cue(
    [
        (
            "wait actually but however though still also that this these those it the there's"
            " there maybe perhaps does is are did do would could what why which good nice better"
            " not unfortunately one it's that's isn't again same",
            "",
        ),
        ("i", r" (?:think|feel|used|said|wrote|never|forgot|keep|repeat|also|have)\b"),
        ("i've", ""),
    ],
    "不过 但 可是 可 其实 然而 另外 而且 这 那 感觉 似乎 好像 有点 是不是 会不会 也许 或许 还是 我"
    " 它 第 最后 开头 结尾 整体 总体 只是 还有 此外 虽然 又 同样 中间 语气 用词 比喻 节奏",
)

# "The second line reads stiffly": the writing is the subject
_PARTS = (
    "(?:opening|ending|lines?|draft|stanzas?|paragraphs?|sentences?|verses?|metaphors?|similes?"
    "|rhythm|tone|title|image|dialogue|version|closing|couplet|phrase|hook|transition|middle"
    "|tense|rhymes?|pacing|piece|text|poem|story|words?|letter|email|beginning)"
)
_STATES = (
    r"(?:is|are|was|feels?|reads?|sounds?|needs?|could|should|does|doesn't|isn't|works?|lands?"
    r"|drags?|has|seems?|comes|still|tells|repeats?|says|may|might|gives|makes|just|only|lacks?)\b"
)
_SUBJECT = rf" (?:\w+ ){{0,2}}?{_PARTS}\b(?: \w+)? {_STATES}"
DEICTIC = cue(
    [
        ("the this that my these those", _SUBJECT),
        (
            "but actually however maybe wait though still also",
            rf",? (?:the|this|that|my|these|those){_SUBJECT}",
        ),
        ("it", r" (?:feels|reads|sounds|still reads|needs)\b"),
        ("i", r" (?:used|repeated|forgot|never|wrote|keep|have used|overuse)\b"),
    ],
    "开头 结尾 句 段 比喻 意象 节奏 语气 用词 措辞 标题 题目 文章 文字 全文 整体 初稿 草稿"
    " 版本 稿 首诗 描写 对话 过渡 韵脚 称呼 落款 中间",
    "不过 但 可是 可 其实 另外 还有 嗯 而且 只是 此外"
    " 这 那 第 [一二三四五六两几] 最后 个 篇 首 ， 、",
)

VERIFICATION = cue(
    [
        *_intent("double-check doublecheck check verify count confirm tally test scan ensure"),
        ("let i i'll", r"(?: me| should| need to| will)? make sure\b"),
        ("double", r"-?check"),
        ("check checking verifying verify", r"\b"),
        ("word line character syllable", r" counts?\b"),
        ("counting count", r"(?: again| it)?(?:\W| the (?:words|lines|emojis|syllables))"),
        ("rhyme meter constraint fact facts tense length spelling", r" check\b"),
        (
            "syllables length lines stanzas tense rhymes rhyme constraints requirements"
            " requirement checklist format",
            r"\s*(?:[:,\-—]|check|again|scheme:)",
        ),
        ("final quick last sanity", r" (?:check|count|look)\b"),
        (
            "does",
            r" (?:it|this|the \w+) (?:meet|have|cover|stay|fit|follow|satisfy|match|contain"
            r"|include|keep|answer|hit)\b",
        ),
        ("all", r" (?:the )?(?:requirements|constraints|conditions|points|boxes|good)\b"),
        (
            "that's it's total around about roughly approximately that",
            r"(?: is)?(?: about| around| roughly)? \d+ (?:words|lines|syllables|char|sentences)",
        ),
    ],
    "检查 核对 确认 数一下 数数 数一数 统计 验证 核查 对照 比对 自查"
    " (?:字数|行数|句数|押韵|平仄|时态|格式)(?:方面|上)?"
    "(?:大约|大概|差不多|检查|统计|是|在|符合|够|都|:|：|没|也|有)"
    " 是否符合 是否满足 有没有超 有没有跑题 看看是否 看看有没有 看看符不符合 要求都 条件都"
    " 要求[:：] 全部要求 所有要求"
    " (?:大约|大概|共|一共|总共|约)[\\s\\d一二三四五六七八九十百两]+(?:字|行|句|个字) 逐条",
    "再 最后 先 现在 来 需要 要 应该 让我 我 得",
)

_ASKER = "user prompt task question request brief assignment client reader person audience"
_WORK = (
    "piece story poem tone structure goal setting narrator plan idea ending opening letter email"
    " speech essay form format voice style"
)
PLAN = cue(
    [
        (
            "the this",
            rf" (?:{'|'.join(f'{_ASKER} {_WORK}'.split())})"
            r" (?:wants?|asks?|needs?|is|should|must|could|will|says|requires|would|expects|has)\b",
        ),
        ("they he she", r" (?:wants?|asks?|needs?|said)\b"),
        *_intent(
            "think plan outline brainstorm begin open use structure set figure consider decide"
            " keep avoid focus go have include end close describe show make pick choose come"
            " address mention aim give stick find work understand break do be remember cover"
            " organize organise add build see imagine mix balance capture explain convey create"
            " start write"
        ),
        ("plan outline structure steps step idea ideas options setting characters character", ""),
        ("tone theme audience goal format beats arc voice approach form key", ""),
        ("first firstly second secondly third next then finally", ","),
        ("then next", r" (?:a|an|the|comes|write|another|something|i|we)\b|:"),
        ("start begin open end close", " with"),
        ("for", " the"),
        ("what", " if"),
        ("who", " is"),
        ("i", " (?:need|want|should|could|might)"),
        ("i'll i'd we'll", ""),
        ("maybe perhaps", " (?:a|an|the|set|use|about|he|she|something|two|three)"),
    ],
    "(?:用户|题目|任务|要求|读者|对方|客户)(?:让|要|想|希望|需要|是|说|提到|给|可能|应该) 首先"
    " 其次 然后 接下来 接着 最后(?![一那两]) 第一步 第二步 第三步 一、 二、 三、"
    " (?:我|我们)(?:需要|应该|得|要|打算|想|可以|先|会|必须|来) 让我想 让我先 让我来 让我考虑"
    " 让我构思 让我理"
    " (?:思路|大纲|结构|计划|构思|提纲|主题|人物|背景|语气|风格|基调|立意|框架|方向|情节|题材|要点)"
    " (?:可以|不妨|最好|应该|需要|考虑)"
    "(?:从|用|写|先|以|选|设|把|加|让|围绕|注意|突出|体现|包括|分)"
    " 先想 先定 先确定 先列 先理 先考虑 先弄 先构思 (?:开头|结尾)(?:要|可以|用|从|写|先|回) 选一个"
    " 选择 这是一 这个任务 这个题 这个要求",
)

# Nothing but the way to the answer
DONE = cue(
    [
        ("good great perfect fine", r"(?:[,.!]|$)"),
        ("done ready finalize finalise finalizing output", r"\b"),
        ("that", r" works|'ll do| will do"),
        ("i", r" (?:think (?:that works|it's good|this works|it's ready|we're done))"),
        ("i'm", r" (?:done|ready|happy)\b"),
        ("love", r" it\b"),
        ("looks", r" good\b"),
        ("final", r"(?: answer\b|\W*$)"),
        ("go", r" with (?:it|this|that)\b"),
        ("writing", r" (?:the )?final\b"),
        (
            "i'll let i time going write",
            r"(?: me| will| to)?(?: now)? ?(?:finali[sz]e|output|give the final"
            r"|write (?:up |out )?the final|the final|go with (?:it|this|that)|present|deliver)\b",
        ),
    ],
    "好了 可以了 完成 就这样 就这么 没问题 就用 定了 输出 给出 可以输出 开始输出 可以交 最终 定稿",
)

META = make_words(
    "draft drafts opening ending paragraph paragraphs sentence sentences stanza stanzas verse"
    " verses line lines word words count tone reader readers user prompt title cliché clichéd"
    " clichés cliche clich generic vague metaphor metaphors simile similes imagery rhythm meter"
    " rhyme rhymes syllable syllables dialogue adjective adjectives adverb adverbs abstract phrase"
    " phrases phrasing revise revised revising revision rewrite rewriting rewritten passive voice"
    " pacing narrator showing telling wordy repetitive repetition redundant requirement"
    " requirements constraint constraints tense structure scene text version concrete specific"
    " flat sentimental purple sounds reads feels works weak weaker stronger better cut closing"
    " hook transition fluff formal casual",
    "开头 结尾 句 段 用词 措辞 语气 字数 读者 用户 草稿 初稿 比喻 意象 节奏 押韵 韵 平仄 对仗 标题"
    " 题目 修改 改 删 重复 啰嗦 空洞 俗套 老套 陈词 抽象 具体 细节 主题 描写 叙述 对话 生硬 平淡"
    " 拖沓 煽情 说教 表达 这样写 写得 风格 文字 笔 过渡 衔接 铺垫 要求 口语 书面",
)

JUDGEMENT = make_words(
    "too weak weaker flat cliché clichéd clichés cliche clich generic vague boring dull forced"
    " wordy repetitive repeat repeats repeated redundant abstract missing lack lacks lacking"
    " doesn't don't isn't aren't didn't not wrong off stiff heavy-handed sentimental awkward"
    " clunky confusing unclear overwritten purple stale tired problem issue mistake contradicts"
    " contradiction hollow preachy melodramatic predictable rushed overdone drags loses never"
    " nothing only already twice better stronger works work good nice feels reads sounds needs"
    " forgot wrote used said again circles same should could can't won't hasn't missed thin tidy"
    " plain plainer lecture lectures cold explains explain tells telling hardly barely",
    "太 不够 缺 空洞 俗 老套 平淡 生硬 啰嗦 重复 不太 不对 不好 不像 没有 没写 没提 弱 问题 抽象"
    " 拖沓 煽情 说教 矛盾 突兀 别扭 单薄 陈词 平铺 模糊 笼统 多余 不自然 不合 偏 错 漏 忘 还行"
    " 不错 更好 有力 好一些 可以更 应该更 又是 又 不准 硬 假 乱 散 直白 没必要 用力 像",
)

# Words about the writing that hardly occur in a piece of writing
META_STRONG = make_words(
    "draft drafts reader readers user prompt joke jokes label leaflet advert stanza stanzas cliché"
    " clichéd clichés cliche clich paragraph paragraphs revise revising revision rewrite rewriting"
    " rewritten metaphor metaphors simile similes imagery adjective adjectives adverbs syllable"
    " syllables dialogue wordy pacing tense version requirement requirements constraint"
    " constraints",
    "开头 结尾 字数 读者 用户 草稿 初稿 比喻 意象 押韵 平仄 对仗 措辞 用词 语气 修改 改成 改一"
    " 段落 这段 这句 这一句 这一段 节奏 笑点 笑话 前半句 后半句 两句 第[一二三四五]句"
    " 第[一二三四五]段 陈词 俗套 老套 题目 标题 衔接 过渡 文风 全文 整体",
)
_META_PHRASE = re.compile(
    r"\b(?:word count|on the nose|(?:opening|first|last|closing) (?:line|sentence|image|paragraph)"
    r"|the (?:opening|ending|title|poem|story|text|piece|email|essay|speech|rhyme|tone|rhythm))\b"
)
_META_PHRASE_WORDS = frozenset(
    {"count", "nose", "line", "sentence", "image", "opening", "ending", "title", "poem", "story"}
    | {"text", "piece", "email", "essay", "speech", "rhyme", "tone", "rhythm", "paragraph"}
)


def is_about_writing(head: Head) -> bool:
    """The sentence names parts of a text, which a piece of writing hardly does."""
    if META_STRONG.occur(head):
        return True
    return not _META_PHRASE_WORDS.isdisjoint(head.words) and bool(_META_PHRASE.search(head.text))


WORK = DRAFT_INTRO | REVISION_INTRO | REFLECTION_STRONG | VERIFICATION | PLAN | DONE
"""Any opening of deliberation; weak ones and those about parts of the text open stories too."""

# Labels of plans and critiques: what follows their colon is no text of the piece
LABELS_OF_WORK = make_words(
    "audience length tone goal goals structure style format setting constraint constraints theme"
    " voice note notes approach point points idea ideas step example problem issue question"
    " strengths weaknesses critique evaluation facts key task context purpose mood perspective"
    " check count yes no so and but understand understanding request brief that's it's this that"
    " is are because target then next first finally also second process thinking analysis topic",
    "读者 长度 字数 语气 目标 结构 风格 格式 场景 要求 主题 角度 思路 要点 材料 事实 问题 原因"
    " 注意 办法 顺序 检查 核对 基调 要素 内容是 缺点 不足 优点 理解 任务 情节 人物 以及 因为",
)

# After "good, …": the matter is not closed
RESERVATION = make_words(
    "but however though still except too not doesn't isn't", "但 不过 可是 只是 太 还"
)

# In a label: the text comes once more
AGAIN = make_words(
    "again fix instead rather replace revised new another second third final better two three 2 3"
    " b c rewrite version updated",
    "再 改 换 新 重 二 三 终 修 调整 最后 或者 还是",
)
