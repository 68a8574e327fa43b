#!/usr/bin/env python3
"""Carry out claims.txt: every claim holds, and in every broken variant the attack is found.

    models/run.py            all of them
    models/run.py WORD       those whose line has WORD, with the command to run each by hand

Exit status 0: as claims.txt says. 1: a verdict differs, or a line of claims.txt makes no sense. 2: nothing could be run.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
OUT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "models"
# By the clock on the wall, so that a busy machine can be slow: two minutes of one idle core are enough.
LIMIT_S = 1800
CPP = ["cpp", "-P", "-undef", "-nostdinc", "-x", "assembler-with-cpp", "-I", str(HERE)]


def claims():
    """Headings as text, claims as (tool, model, flags, verdict, words)."""
    for number, line in enumerate((HERE / "claims.txt").read_text().splitlines(), 1):
        if line.startswith("="):
            yield line[1:].strip()
        elif line and not line.startswith("#"):
            fields = [field.strip() for field in line.split("|")]
            if len(fields) != 5 or fields[0] not in TOOLS:
                sys.exit(f"claims.txt:{number}: expected TOOL | MODEL | FLAGS | VERDICT | WORDS")
            # A flag that its model does not know would leave a claim that says nothing.
            known = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", "".join((HERE / part).read_text() for part in (fields[1], "edhoc.inc"))))
            if unknown := set(fields[2].split()) - known:
                sys.exit(f"claims.txt:{number}: {fields[1]} has no {' '.join(sorted(unknown))}")
            yield tuple(fields)


def variant(model, flags):
    """The model with its flags set, written to OUT for the tool."""
    path = pathlib.Path(model)
    target = OUT / ("-".join([path.stem, *flags.lower().split()]) + path.suffix)
    source = (HERE / model).read_text()
    if path.suffix == ".dfg":
        # Comments go before the preprocessor can read words in them.
        source = re.sub(r"%.*", "", source)
    defines = [f"-D{flag}" for flag in flags.split()]
    target.write_bytes(subprocess.run([*CPP, *defines, "-"], input=source.encode(), stdout=subprocess.PIPE, check=True).stdout)
    return target


def spass(path):
    command = ["SPASS", "-PGiven=0", "-PProblem=0", f"-TimeLimit={LIMIT_S}", str(path)]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    for line, verdict in [("Completion found.", "holds"), ("Proof found.", "attack")]:
        if f"SPASS beiseite: {line}" in output:
            return command, verdict, output
    return command, "undecided", output


def verifpal(path):
    command = ["verifpal", "verify", "--quiet", "--result-code", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    return command, (done.stdout.strip().splitlines() or ["undecided"])[-1], done.stdout + done.stderr


def proverif(path):
    command = ["proverif", str(path)]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    # Lines in brackets are notes on the line before.
    results = re.findall(r"^RESULT (?!\().*(is true|is false|cannot be proved)\.", output, re.M)
    return command, "".join({"is true": "+", "is false": "-"}.get(result, "?") for result in results) or "undecided", output


TOOLS = {"spass": (spass, "SPASS"), "verifpal": (verifpal, "verifpal"), "proverif": (proverif, "proverif")}


def said(tool, flags, verdict):
    """A verdict that is as expected, in words."""
    if verdict == "reached":
        return "reached as it must"
    if "BROKEN" in flags:
        return "attack found as it must"
    return "attack found as stated" if tool == "spass" and verdict == "attack" else "holds"


def carry_out(claim):
    tool, model, flags, expected, _ = claim
    run, binary = TOOLS[tool]
    if shutil.which(binary) is None:
        return None
    started = time.monotonic()
    command, verdict, output = run(variant(model, flags))
    # That a state is reached is, to SPASS, a proof like any other.
    if expected == "reached" and verdict == "attack":
        verdict = "reached"
    return time.monotonic() - started, command, verdict, output


def main():
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [claim for claim in claims() if isinstance(claim, str) or word in " | ".join(claim)]
    if not any(isinstance(claim, tuple) for claim in chosen):
        print(f"models: no line of claims.txt has '{word}'", file=sys.stderr)
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    for binary in ("cpp", "SPASS", "verifpal"):
        if shutil.which(binary) is None:
            print(f"models: {binary} is not on PATH; ./ci.sh models installs it", file=sys.stderr)
            return 2
    started = time.monotonic()
    counts, wrong, absent = {}, [], []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [(claim, None if isinstance(claim, str) else pool.submit(carry_out, claim)) for claim in chosen]
        for index, (claim, future) in enumerate(runs):
            if future is None:
                if index + 1 < len(runs) and runs[index + 1][1] is not None:
                    print(f"\n{claim}")
                continue
            tool, model, flags, expected, words = claim
            result = future.result()
            if result is None:
                absent.append(claim)
                print(f"  {'not run':<24} {tool:<8}         {words} ({tool} is not on PATH)")
                continue
            seconds, command, verdict, output = result
            if verdict == expected:
                told = said(tool, flags, verdict)
                counts[told] = counts.get(told, 0) + 1
            else:
                told = f"WRONG: {verdict}"
                wrong.append((claim, command, verdict, output))
            broken = "broken: " if "BROKEN" in flags else ""
            print(f"  {told:<24} {tool:<8} {seconds:5.1f} s {broken}{words}", flush=True)
            if word:
                print(f"  {'':<24} {' '.join(command)}")
    print()
    for (tool, model, flags, expected, words), command, verdict, output in wrong:
        print(f"{model} {flags}: expected {expected}, {tool} says {verdict}: {words}\n  {' '.join(command)}")
        print("\n".join("  | " + line for line in output.splitlines()[-12:]))
    total = "".join(f"{number} {told}, " for told, number in counts.items())
    print(f"{total}{len(wrong)} wrong, {len(absent)} not run, {time.monotonic() - started:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
