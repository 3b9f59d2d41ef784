"""Words: what a sentence speaks of, in concepts that English, Chinese and code have in common.

"convolutional", "卷积" and ``Conv2d`` are one concept, ``conv``.  A sentence is grounded when every concept in it is neutral
or stands in what it cites; what is left over, nobody has checked.
"""

import re
from collections.abc import Iterator

_GLOSSARY = """
generator: generator generators | 生成器 生成网络 | netg gen
discriminator: discriminator discriminators critic critics | 判别器 鉴别器 评论家 判别网络 | netd disc
encoder: encoder encoders encode encodes encoded | 编码器 编码 | enc
decoder: decoder decoders decode decodes decoded | 解码器 解码 | dec
optimizer: optimizer optimizers optimiser optimisers | 优化器 | optim opt
parameter: parameter parameters weight weights | 参数 权重 | numel params
learning_rate: learning-rate lr learning_rate | 学习率 学习速率 | lr
batch: batch batches minibatch | 批次 批量 批大小 批 | batch bs
epoch: epoch epochs | 轮次 轮数 轮 周期 | epoch epochs n_epochs
step: step steps iteration iterations | 步骤 步 迭代 | step steps iter iters
loss: loss losses objective criterion | 损失函数 损失 目标函数 | loss criterion
gradient: gradient gradients backpropagation backpropagates backward | 梯度 反向传播 回传 | backward grad autograd
conv: conv convolution convolutions convolutional convolves | 卷积层 卷积 | conv1d conv2d conv3d convtranspose2d
transpose: transposed transpose transposes | 转置 | convtranspose2d transpose permute
linear: linear dense fully-connected | 线性层 线性 全连接层 全连接 | linear
dropout: dropout dropouts | 随机失活 丢弃 | dropout dropout2d
batchnorm: batchnorm batch-norm batch-normalisation batch-normalization | 批归一化 批标准化 | batchnorm1d batchnorm2d
layernorm: layernorm layer-norm layer-normalisation layer-normalization | 层归一化 | layernorm
attention: attention attends | 注意力 自注意力 | attention multiheadattention scaled_dot_product_attention
recurrent: recurrent lstm gru rnn | 循环神经网络 循环网络 | lstm gru rnn
embedding: embedding embeddings embeds | 嵌入 词嵌入 | embedding emb
softmax: softmax | 归一化指数 | softmax log_softmax
sigmoid: sigmoid | | sigmoid
tanh: tanh | 双曲正切 | tanh
relu: relu | | relu
leaky: leaky leakyrelu leaky-relu | 带泄漏 | leakyrelu leaky_relu
bce: bce binary-cross-entropy bceloss | 二元交叉熵 二值交叉熵 二分类交叉熵 | bceloss bcewithlogitsloss binary_cross_entropy binary_cross_entropy_with_logits
cross_entropy: cross-entropy crossentropy | 交叉熵 | crossentropyloss cross_entropy nll_loss
mse: mse mean-squared-error squared-error mseloss l2 | 均方误差 | mseloss mse_loss
l1: l1 mae absolute-error | 绝对误差 | l1loss l1_loss
hinge: hinge | 合页 | hinge
wasserstein: wasserstein earth-mover wgan | 推土机 | wgan wasserstein
kl: kl kld kullback-leibler divergence | 散度 | kl kld kl_div kl_divergence
logvar: log-variance logvar | 对数方差 | logvar log_var
mean: mean average averages averaged | 均值 平均值 平均 | mean mu
variance: variance variances | 方差 | var variance
std: std standard-deviation sigma | 标准差 | std sigma
sum: sum sums summed | 求和 之和 总和 | sum
noise: noise noises gaussian normal latent latents random | 噪声 高斯 正态 隐变量 潜变量 潜在 隐 随机 | randn randn_like normal_ z noise latent
uniform: uniform uniformly | 均匀 | rand uniform uniform_
detach: detach detached detaches | 分离 截断 | detach
zero_grad: zeroes zeroed zeros clears cleared zero_grad resets | 清零 归零 清空 | zero_grad
label: label labels | 标签 目标 | labels label targets target ones zeros valid fake ones_like zeros_like
real: real genuine | 真实 真 | real real_imgs valid
fake: fake generated | 假 伪造 生成 | fake gen_imgs generator
image: image images picture pictures pixel pixels | 图像 图片 像素 | img image images imgs gen_imgs real_imgs
data: data dataset datasets dataloader loader | 数据集 数据 加载器 | dataloader dataset loader mnist
adam: adam | | adam
adamw: adamw | | adamw
sgd: sgd | 随机梯度下降 | sgd
rmsprop: rmsprop | | rmsprop
beta: beta betas | | betas beta1 beta2 b1 b2 beta
momentum: momentum | 动量 | momentum
decay: decay decays weight-decay | 衰减 | weight_decay decay
input: input inputs in takes receives accepts | 输入 接收 接受 | in_features in_channels input
output: output outputs out returns produces yields emits | 输出 返回 产生 | out_features out_channels return
channel: channel channels filter filters | 通道 | in_channels out_channels channels
kernel: kernel kernels | 卷积核 | kernel_size
stride: stride strides strided | 步幅 步长 | stride
padding: padding padded pads | 填充 | padding pad
hidden: hidden units unit neuron neurons width | 隐藏 神经元 单元 | hidden hidden_dim out_features h_dim
feature: feature features | 特征 | in_features out_features num_features
dimension: dimension dimensions dimensional dim dims sized | 维度 维 | dim latent_dim z_dim
shape: shape shapes shaped size sizes | 形状 大小 尺寸 | shape size
head: head heads | 注意力头 头数 头 | num_heads n_head nhead heads
slope: slope | 斜率 | negative_slope
seed: seed seeds seeded | 种子 | manual_seed seed
clip: clip clips clipped clamp clamps clamped clipping | 裁剪 截取 | clip clamp clamp_ clip_grad_norm_ clip_value
reparameterise: reparameterise reparameterize reparameterisation reparameterization | 重参数化 | reparameterize reparametrize rsample
reconstruction: reconstruction reconstructions reconstructs reconstructed | 重构 重建 | recon recon_x recon_batch
exponential: exp exponential exponentiates | 指数 | exp
half: | | mul
flatten: flatten flattens flattened reshape reshapes reshaped | 展平 重塑 拉平 | view flatten reshape
forward: forward | 前向传播 前向 | forward
loop: loop loops iterates iterating | 循环 | for while enumerate range
sequential: sequential | 顺序容器 | sequential
residual: residual skip | 残差 跳跃连接 | residual resnet skip
schedule: schedule scheduler schedules | 调度器 调度 | scheduler lr_scheduler
causal: causal causality | 因果 | causal is_causal tril
mask: mask masks masked | 掩码 掩膜 | mask masked_fill tril
deterministic: deterministic determinism | 确定性 | eval
eval: eval evaluation | 评估 推理 | eval
save: saves saved save | 保存 | save save_image
print: prints printed print | 打印 | print
sample: sample samples sampled sampling | 采样 样本 | sample sample_image randn
update: update updates updated updating train trains trained optimise optimises optimised optimize optimizes optimized | 更新 训练 优化 | step
before: before precede precedes preceding prior earlier first | 之前 以前 先 前 首先 先于 |
after: after follow follows following then next afterwards later finally last | 之后 以后 后 再 然后 最后 随后 |
end: end ends ending final | 结尾 末尾 |
target: target targets | 目标 |
training: training | |
zero: zero | |
trainable: trainable learnable | 可训练 可学习 | requires_grad parameters
""".strip()

_NEUTRAL = frozenset(
    """a an the this that these those it its is are was were be been being has have having had of in on at by for to
    from with as and or which where when here there also into onto per via between within through over using use
    uses used i.e. e.g. layer layers module modules block blocks network networks model models class classes
    function functions method methods program code script line lines value values number numbers named called
    name names defined defines define definition set sets equal equals holds hold given gives give contains
    contain consists consist comprises made up part parts count counts counted total altogether term terms
    object instance tensor tensors shown stated written stands stand following each statement expression call
    calls variable argument constant type kind built build builds constructs created creates computed computes
    compute applied applies apply does do s we you see maps map mapping vector vectors entry entries element
    elements subclass inherits defining sits lies inside itself one two both second third pair once twice double
    half hundred thousand million trainable exactly about approximately around roughly nearly measured observed
    run during whose their them they default goes fed feeds passed passes ran runs running mode training makes""".split()
)
_NEUTRAL_CHINESE = sorted(
    """的 了 是 在 和 与 或 为 有 个 这 那 该 其 中 里 上 下 由 从 到 被 把 将 对 用 使用 采用 通过 共有 一共 共
    总共 总 数 数量 值 等于 等 层 模块 网络 模型 类 函数 方法 程序 代码 脚本 行 第 名为 称为 叫 叫做 定义 定义了
    设置 设为 设 取 包含 含有 包括 组成 构成 部分 调用 变量 参数量 常数 类型 种 每 张量 这里 此处 处 也 并 以及
    及 映射 向量 元素 继承 约 大约 大概 运行 测得 观察 它 它们 分别 则 均 即 计算 创建 得到 应用 作为 作 成 时
    内 送入 传入 传给 喂给 经过 又 于 以 所 出 要 会 条 次 块 所示 语句 一个 两个 个数 百 千 万 零 一 二 两
    三 四 五 六 七 八 九 十 双 半 亿 点 单 分之 张 组 拥有 具有 具 属于""".split(),
    key=len,
    reverse=True,
)

NEGATION = re.compile(
    r"\b(?:not|never|no|none|nothing|without|neither|nor|lacks?|lacking|absent|cannot|isn't|doesn't|aren't|don't|didn't|won't|"
    r"hasn't|wasn't|fails? to|instead of|rather than|unlike|except)\b|n't\b|不是|不会|不包|没有|并未|并非|从未|从不|未被|未|无法|缺少|而非|不",
    re.I,
)
DEFECT = re.compile(
    r"\b(?:bugs?|buggy|defects?|defective|wrong(?:ly)?|errors?|erroneous|mistakes?|mistaken(?:ly)?|incorrect(?:ly)?|faults?|faulty|broken|"
    r"flaws?|flawed|problems?|problematic|issues?|should (?:be|have|use|not|come|call|read)|ought|must be (?:changed|fixed|replaced)|"
    r"forg[eo]t\w*|missing|needs? (?:to be )?(?:fix\w*|a fix)|fix(?:ed)? by|leak\w*|crash\w*|vulnerab\w*|fails|inverted|swapped|reversed|"
    r"unintended\w*|harmful|collapse[sd]?|diverge[sd]?|explode[sd]?|nan)\b"
    r"|错误|缺陷|漏洞|有误|写错|搞错|错了|问题|不正确|应该|应当|应为|遗漏|忘记|忘了|缺少|漏掉|颠倒|反了|修复|崩溃|泄漏|坍塌|发散",
    re.I,
)
PRAISE = re.compile(
    r"\b(?:correct(?:ly)?|right(?:ly)?|fine|sound|valid|proper(?:ly)?|bug-free|flawless|safe|perfect(?:ly)?|well)\b|正确|没问题|无误|合理|完美|妥当",
    re.I,
)

_FORMS: dict[str, str] = {}
_CHINESE_FORMS: dict[str, str] = {}
_CODE: dict[str, set[str]] = {}
for _row in _GLOSSARY.splitlines():
    _concept, _, _rest = _row.partition(":")
    _english, _chinese, _code = (part.split() for part in _rest.split("|"))
    _FORMS |= dict.fromkeys([*_english, _concept], _concept)
    _CHINESE_FORMS |= dict.fromkeys(_chinese, _concept)
    for _token in _code:
        _CODE.setdefault(_token, set()).add(_concept)

_PHRASES = sorted((form for form in _FORMS if "-" in form), key=len, reverse=True)
_PHRASE = re.compile(r"\b(?:" + "|".join(re.escape(p).replace(r"\-", r"[\s-]+") for p in _PHRASES) + r")s?\b", re.I)
_WORD = re.compile(r"[A-Za-z][A-Za-z']*(?:_[A-Za-z0-9]+)*\d*[A-Za-z]*|[\u4e00-\u9fff]+")
_CHINESE_TABLE = sorted([*_CHINESE_FORMS, *_NEUTRAL_CHINESE], key=len, reverse=True)
LAYERS = frozenset(
    "conv linear dropout batchnorm layernorm attention recurrent embedding softmax sigmoid tanh relu leaky residual adam adamw "
    "sgd rmsprop bce cross_entropy mse l1 hinge wasserstein kl schedule mask clip momentum".split()
)
"""Concepts that say of a program that it has something, so that their absence from the source refutes a claim."""


def concept_of(word: str) -> str:
    """The concept of one English word, or the word itself in its singular."""
    word = word.lower()
    if word in _FORMS:
        return _FORMS[word]
    for ending in ("s", "es", "ed", "d", "ing"):
        if word.endswith(ending) and word[: -len(ending)] in _FORMS:
            return _FORMS[word[: -len(ending)]]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def located_concepts(text: str) -> Iterator[tuple[int, int, str]]:
    """Every concept of a sentence that is not neutral, with the place where it stands."""
    masked = text
    for match in _PHRASE.finditer(text):
        key = re.sub(r"\s+", "-", match[0].lower())
        yield match.start(), match.end(), _FORMS.get(key) or _FORMS[key.rstrip("s")]
        masked = masked[: match.start()] + " " * len(match[0]) + masked[match.end() :]
    for match in _WORD.finditer(masked):
        if "\u4e00" <= match[0][0] <= "\u9fff":
            yield from _chinese(match[0], match.start())
        elif match[0].lower() not in _NEUTRAL:
            yield match.start(), match.end(), concept_of(match[0])


def _chinese(run: str, offset: int) -> Iterator[tuple[int, int, str]]:
    """Longest words first, left to right; a character that no word covers is a concept of its own."""
    i = 0
    while i < len(run):
        word = next((w for w in _CHINESE_TABLE if run.startswith(w, i)), run[i])
        if word in _CHINESE_FORMS:
            yield offset + i, offset + i + len(word), _CHINESE_FORMS[word]
        elif word not in _NEUTRAL_CHINESE:
            yield offset + i, offset + i + 1, word
        i += len(word)


def concepts(text: str) -> set[str]:
    return {concept for _, _, concept in located_concepts(text)}


def name_parts(name: str) -> list[str]:
    """``optimizer_G`` → optimizer, g;  ``LeakyReLU`` → leaky, re, lu;  ``Generator.model.0`` → generator, model."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def code_concepts(code: str) -> set[str]:
    """What code speaks of: its names, their parts, and the concepts that belong to them."""
    found: set[str] = set()
    for name in re.findall(r"[A-Za-z_]\w*", code):
        parts = [name.lower(), *name_parts(name)]
        for part in parts:
            found |= {part, concept_of(part)} | _CODE.get(part, set())
    return found


_BREAK = re.compile(
    r"(?<=[.!?;])\s+|[。；！？;\n]+|(?<!\d),(?=\s)|，|、|\s(?:and|but|while|whereas|because|so|since|although|though|which)\s|而且|但是|因为|所以|并且|而"
)


def sentences(text: str) -> list[tuple[int, int]]:
    return _spans(text, re.compile(r"(?<=[.!?;])\s+|[。；！？;\n]+"))


def clauses(text: str) -> list[tuple[int, int]]:
    """The spans that say one thing each; brackets and backticks are never cut."""
    return _spans(text, _BREAK)


def _spans(text: str, cut: re.Pattern[str]) -> list[tuple[int, int]]:
    closed = [m.span() for m in re.finditer(r"`[^`]*`|\([^()]*\)|\[[^\[\]]*\]|（[^（）]*）", text)]
    spans, start = [], 0
    for match in cut.finditer(text):
        if not any(a < match.end() and match.start() < b for a, b in closed):
            spans.append((start, match.start()))
            start = match.end()
    return [(a, b) for a, b in [*spans, (start, len(text))] if text[a:b].strip()]
