"""Names and texts that try to be more than that, in whatever they are written to; none of them may make the file CANARY."""

CANARY = "canary-was-here"

# Harmless names that exporters and people write; all of them must work.
UNUSUAL = (
    "onnx::MatMul_12", "/layer/Add_output_0", "args[0]", "input.1", "past_sequence_length + sequence_length", "floor(h/2)", "a=b",
    "größe", "日本語", "שלום", "😀 é", "file", "allow_pickle", "class", "self", "None", "__debug__", "np", "on", "null", "0", "x.npy",
)  # fmt: skip

# What can be printed is a name, and must be quoted where it is written.
QUOTED = (
    '"""',
    f'"""; open("{CANARY}", "w"); """',
    "'''",
    "\\",
    'x\\"""',
    f'"), open("{CANARY}", "w"), ("',
    f"'; touch {CANARY}; '",
    f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    f"| touch {CANARY} #",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!-- ]]>",
    "{{ 7*7 }}{% raw %}",
    "${name} $name $$",
    "{feeds} {0} {",
    "%(name)s %s %n",
    "&lt;b&gt; &#60; &amp",
    "a | b | c",
    "[click](http://evil.example) ![x](y)",
    "**bold** _it_ ~~no~~ `code` # head",
    "- item",
    "1. one",
    "---",
    "=== setext",
    "@all #1 GH-1",
    "[red]x[/red] [/] [link=http://evil.example]",
    "::set-output name=x::y",
    "##[add-mask]x",
    "../../../etc/passwd",
    "C:\\windows\\..",
    "-rf --force",
    "*?~",
    "- a: {b: c} # d",
    'x" } input { name: "y',
    "key=value, other:value",
)

# What cannot be printed is refused where it is read.
REFUSED = (
    "",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\x00b",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x7f",
    "a\x0bb\x0cc",
    "a\x85b",
    "a\u2028b\u2029c",
    "admin\u202excod",
    "in\u200bvisible",
    "\ufeffbom",
    "\U000e0041tag",
    f'batch"""\n    open("{CANARY}", "w")\n    """',
    f"x\nload_models=all\n{CANARY}",
    "a\n::error file=x::owned",
    "a\r\nHost: evil.example",
    "x" * 501,
)

EVERY = (*UNUSUAL, *QUOTED, *REFUSED)


def shown(text: str) -> str:
    """Return an id for a test."""
    return ascii(text)[1:-1][:30]
