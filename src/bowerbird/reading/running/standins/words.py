"""Text for files and corpora that are not here: a few honest sentences, repeated to the length that is needed."""

ENGLISH = """The bower was built of twigs and straw, and in front of it lay what the bird had found:
a blue feather, three berries, the cap of a bottle, a shell. Every morning the bird moved them about.
"Is it done?" asked the wren. "It is never done," said the bowerbird; "today the blue is too near the door."
When the rain came the colours ran together, and the bird began again from the left, one thing at a time.
To learn is to place a thing, to look, and to place it better. So the garden grew, and the song with it.
"""

CHINESE = """园丁鸟在林中筑亭,用细枝和干草,亭前摆着它拾来的东西:
一根蓝羽,三颗浆果,一只瓶盖,一枚贝壳。每天清晨,它都要重新摆放。
“完成了吗?”鹪鹩问。“永远不会完成,”园丁鸟说,“今天蓝色离门太近了。”
春眠不觉晓,处处闻啼鸟。夜来风雨声,花落知多少。
"""


def text(length: int, *, chinese: bool = False) -> str:
    """At least so many characters of text."""
    verse = CHINESE if chinese else ENGLISH
    return verse * (length // len(verse) + 1)
