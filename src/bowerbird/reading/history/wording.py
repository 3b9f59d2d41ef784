"""The sentences of a comparison in English and Chinese, by name; numbers and names are filled in."""

from typing import Any, Literal

Language = Literal["en", "zh"]

REASONS: dict[str, tuple[str, str]] = {
    "default": (
        "The optimiser of {who} is created with {key} = {before}, then {after}.",
        "{who} 的优化器在创建时 {key} = {before}，后来是 {after}。",
    ),
    "optimizer": ("{who} is trained with {before}, then with {after}.", "{who} 原来用 {before} 训练，后来用 {after}。"),
    "rate": (
        "At step {n} the learning rate of {who} is {before} in one version and {after} in the other.",
        "第 {n} 步时，{who} 的学习率在两个版本中分别是 {before} 与 {after}。",
    ),
    "scheduler": (
        "The learning-rate schedule {who} has {key} = {before}, then {after}.",
        "学习率调度 {who} 的 {key} 由 {before} 变为 {after}。",
    ),
    "batch_size": ("Loaders give batches of {before}, then of {after}.", "每批样本数由 {before} 变为 {after}。"),
    "loader": ("The loader has {key} = {before}, then {after}.", "数据加载器的 {key} 由 {before} 变为 {after}。"),
    "data": (
        "The first batch runs from {before}, then from {after}.",
        "第一批数据的范围由 {before} 变为 {after}。",
    ),
    "tree": ("{who} is built of other layers: {before}, then {after}.", "{who} 的层由 {before} 变为 {after}。"),
    "count": (
        "{who} has {before} parameters, then {after} (PyTorch's own count).",
        "{who} 的参数个数由 {before} 变为 {after}（PyTorch 自己的计数）。",
    ),
    "init": (
        "The first weights of {who}.{key} have a root mean square of {before}, then of {after}.",
        "{who}.{key} 初始权重的均方根由 {before} 变为 {after}。",
    ),
    "table": (
        "The table {who} holds other values (first, middle, last): {before}, then {after}.",
        "表 {who} 的值（首、中、末）由 {before} 变为 {after}。",
    ),
    "loss_call": (
        "The loss is asked for as {before}, then as {after}.",
        "损失的调用由 {before} 变为 {after}。",
    ),
    "loss": (
        "With equal outputs of the networks, loss {n} is {before} in one version and {after} in the other{how}.",
        "网络输出相同时，第 {n} 个损失在两个版本中分别是 {before} 与 {after}{how}。",
    ),
    "order": (
        "The order of backward passes (B) and steps (S) is {before}, then {after}.",
        "反向传播 (B) 与更新 (S) 的次序由 {before} 变为 {after}。",
    ),
    "reach": (
        "Backward pass {n} gives gradients to {before}, then to {after}.",
        "第 {n} 次反向传播的梯度到达 {before}，后来到达 {after}。",
    ),
    "gradient": (
        "At step {n} the gradient of {who} has norm {before}, then {after}, though the losses before it agree.",
        "第 {n} 步时 {who} 的梯度范数由 {before} 变为 {after}，而此前的损失一致。",
    ),
    "step": (
        "At step {n} the weights of {who} move by {before}, then by {after}, with equal gradients and rates.",
        "第 {n} 步时，梯度与学习率相同，{who} 的权重移动量由 {before} 变为 {after}。",
    ),
    "clip": ("{who} is called with {before}, then with {after}.", "{who} 的界限由 {before} 变为 {after}。"),
    "ema": (
        "The average {who} ends elsewhere: apart by {before}, where training moved it or its model by {after}.",
        "滑动平均 {who} 的终点不同：相距 {before}，而训练使它或其模型移动了 {after}。",
    ),
    "state": (
        "The weights of {who} end apart by {before}, where training moved them by {after}.",
        "{who} 的最终权重相距 {before}，而训练使其移动了 {after}。",
    ),
    "length": (
        "The training loop has {before} rounds, then {after}.",
        "训练循环的轮数由 {before} 变为 {after}。",
    ),
    "forward": (
        "With equal weights and inputs, {who} gives {before}, then {after}.",
        "权重与输入相同时，{who} 的输出由 {before} 变为 {after}。",
    ),
    "argument": (
        "Call {n} is that of {who}: it is given the number {before}, then {after}.",
        "第 {n} 次调用（{who}）得到的数由 {before} 变为 {after}。",
    ),
    "pull": (
        "The losses have equal values, but at step {n} their gradient in {who} has norm {before}, then {after}: their "
        "terms are weighted or cut off otherwise.",
        "损失的数值相同，但第 {n} 步时它对 {who} 的梯度范数由 {before} 变为 {after}：各项的权重或截断不同。",
    ),
    "inputs": ("{who} is given {before}, then {after}.", "{who} 的输入由 {before} 变为 {after}。"),
    "mode": (
        "{who} is called in {before} mode, then in {after} mode, where no gradients are recorded.",
        "不记录梯度时，{who} 由 {before} 模式变为 {after} 模式。",
    ),
    "calls": (
        "Without gradient {who} is called {before} times, then {after} times.",
        "不记录梯度时，{who} 的调用次数由 {before} 变为 {after}。",
    ),
    "returned": (
        "{who} gives (first, middle, last) {before}, then {after}.",
        "{who} 的结果（首、中、末）由 {before} 变为 {after}。",
    ),
    "image": ("What is drawn holds {before}, then {after}.", "输出图像的取值由 {before} 变为 {after}。"),
    "steps": (
        "In the same rounds there are {before} optimiser steps, then {after}.",
        "同样轮数内优化器的步数由 {before} 变为 {after}。",
    ),
    "backwards": (
        "In the same rounds there are {before} backward passes, then {after}.",
        "同样轮数内反向传播的次数由 {before} 变为 {after}。",
    ),
    "unseen": (
        "This is inconclusive: the changed lines did not run in either version, so only their text is known to differ.",
        "无法定论：两个版本中被改动的行都没有运行，只知道文字不同。",
    ),
    "stopped": (
        "This is inconclusive: both versions stop before the changed lines ({key}), so only their text is known to "
        "differ.",
        "无法定论：两个版本都在被改动的行之前停止（{key}），只知道文字不同。",
    ),
    "not_run": (
        "This is inconclusive: the program could not be run ({key}), so only its text is known to differ.",
        "无法定论：程序无法运行（{key}），只知道文字不同。",
    ),
    "fails": (
        "One version raises at a line where the other goes on: {before}, then {after}.",
        "一个版本出错而另一个没有：{before}，后来 {after}。",
    ),
}

WHAT = {
    "architecture": "结构", "parameters": "参数个数", "dropout": "随机失活", "initialisation": "初始化",
    "optimiser": "优化器", "schedule": "调度", "data range": "数据范围", "data": "数据", "loss": "损失",
    "update order": "更新次序", "gradients": "梯度", "clipping": "裁剪", "EMA": "滑动平均",
    "training length": "训练长度", "sampling": "采样", "evaluation": "评估", "noise": "噪声", "unverified": "未能验证",
    "failure": "出错",
}  # fmt: skip
"""What can change, and its name in Chinese."""

PHASES = {"model": "模型", "data": "数据", "training": "训练", "sampling": "采样", "evaluation": "评估"}


def say(reason: str, values: dict[str, Any], lang: Language = "en") -> str:
    """A sentence in a language."""
    return REASONS[reason][lang == "zh"].format(**values)


def number(value: Any) -> str:
    """A number as people write it, four figures; lists of them in brackets."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(number, value)) + "]" if len(value) != 1 else number(value[0])
    return f"{value:,}" if isinstance(value, int) else str(value)


def range_of(summary: Any) -> str:
    """``shape 8×3, −1 … 1, mean 0.2, std 0.5`` of a summary or the first of several."""
    if isinstance(summary, list):
        return range_of(summary[0]) if summary else "nothing"
    if isinstance(summary, dict) and "shape" not in summary and summary:
        return range_of(next(iter(summary.values())))
    if not isinstance(summary, dict) or "shape" not in summary:
        return number(summary)
    shape = "×".join(map(str, summary["shape"])) or "scalar"
    if "min" not in summary:
        return shape
    low, high, mean, std = (number(float(summary[k])) for k in ("min", "max", "mean", "std"))
    return f"{low} … {high} (mean {mean}, std {std}, shape {shape})"
