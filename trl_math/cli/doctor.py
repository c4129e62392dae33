"""`trl-math doctor`: check this machine, or this machine for one recipe, and say how to mend what is wrong."""

import argparse
import dataclasses
import json
import sys


# Status -> mark, and the mark where the terminal's encoding lacks it.
MARKS = {"ok": ("✓", "ok"), "info": ("·", "--"), "warn": ("!", "!!"), "fail": ("✗", "XX")}


def run(argv: list[str]) -> int:
    """Run the command; return 1 if something fails, else 0."""
    parser = argparse.ArgumentParser(
        prog="trl-math doctor",
        description="Check this machine and say how to mend what is wrong. Nothing is downloaded.",
        epilog="Further settings (--num_processes 2, --attn_implementation sdpa, ...) override those of the recipe. "
        "Exit status: 0, or 1 if a check failed.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="RECIPE.yaml", help="check what this recipe needs (a file, or a name)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    options, flags = parser.parse_known_args(argv)

    from trl_math.doctor import examine
    from trl_math.recipes import GENERATE_ALIASES, canonical, look_at_dpo, look_at_sft, parse_flags, read_recipe

    values, given = read_recipe(options.config) if options.config else {}, parse_flags(flags)
    aliases = GENERATE_ALIASES if values.get("command") == "generate" else {}
    values = canonical(values, aliases) | canonical(given, aliases)
    if values.get("command") == "dpo":
        values = look_at_dpo(values).given
    elif values.get("command") != "generate" and values:
        values = look_at_sft(values).given
    findings = examine(values)
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    else:
        _print(findings)
    return int(any(finding.status == "fail" for finding in findings))


def _print(findings: list) -> None:
    speaks_unicode = _can_encode("".join(mark for mark, _ in MARKS.values()))
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = MARKS[finding.status][0 if speaks_unicode else 1]
        print(f"{mark} {finding.name:{width}}  {finding.detail}")
        if finding.fix:
            print(f"{' ' * len(mark)} {'':{width}}  -> {finding.fix}")
    count = {status: sum(finding.status == status for finding in findings) for status in MARKS}
    print(f"\n{count['ok']} fine, {count['info']} remarks, {count['warn']} warnings, {count['fail']} failures")


def _can_encode(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
