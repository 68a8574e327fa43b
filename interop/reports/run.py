"""Reports of `fivefold audit`, read by programs that are not ours: SARIF by its JSON Schema, JUnit by junitparser. What the three
forms say of one audit is the same, and a report that is broken on purpose is refused."""

import argparse
import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError
from junitparser import Error, Failure, JUnitXml, Skipped

HERE = Path(__file__).parent
FIXTURES = HERE.parent.parent / "audit" / "tests" / "fixtures"
# The JSON Schema of SARIF 2.1.0 (OASIS), in a crate that ships it; it is looked at where cargo puts it, never copied.
CRATE, VERSION, SCHEMA = "serde-sarif", "0.8.0", "src/schema.json"
SCHEMA_DIGEST = "af47e7b67f24efe74076621fd3a5fbe7398add9e84fe820c971219a385895cea"
# Nothing that a file says may become markup, or a part of a path: a folder with all that has a meaning somewhere.
NASTY = "a b<&>\"'%41é]]>--"
DUMP = """CREATE TABLE `encryptionData` (
 `id` int,
 `waspmote_id` text,
 `private_aes` text
);
INSERT INTO `encryptionData` VALUES (1,'node_<01>&"','libeliumlibelium'),(2,'\x01\x1b[2J','kX7!pQz2#Lw9vTb4');
CREATE TABLE `users` (
 `id` int,
 `user` text,
 `passwd` text
);
INSERT INTO `users` VALUES (1,'admin','libelium2007');
-- Dump completed on 2026-01-01
"""


class Failed(Exception):
    """A report is not what it has to be."""


def expect(holds, reason):
    if not holds:
        raise Failed(reason)


def schema_text():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "lib.rs").touch()
        (folder / "Cargo.toml").write_text(f"""
            [package]
            name = "schema"
            version = "0.0.0"
            edition = "2024"
            [lib]
            path = "lib.rs"
            [workspace]
            [dependencies]
            {CRATE} = "={VERSION}"
        """)
        metadata = subprocess.run(["cargo", "metadata", "--format-version", "1"], cwd=folder, capture_output=True, timeout=300)
        expect(metadata.returncode == 0, f"cargo finds no {CRATE} {VERSION}: {metadata.stderr.decode()}")
        package, = (p for p in json.loads(metadata.stdout)["packages"] if p["name"] == CRATE)
    return (Path(package["manifest_path"]).parent / SCHEMA).read_bytes()


def validator():
    text = schema_text()
    expect(hashlib.sha256(text).hexdigest() == SCHEMA_DIGEST, f"the schema of {CRATE} {VERSION} is another one than it was")
    formats = Draft7Validator.FORMAT_CHECKER
    expect("uri-reference" in formats.checkers and "uri" in formats.checkers, "nobody here knows what a URI is")
    Draft7Validator.check_schema(json.loads(text))
    return Draft7Validator(json.loads(text), format_checker=formats)


class Fivefold:
    def __init__(self, program):
        self.program = program
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("FIVEFOLD_")}

    def run(self, *arguments):
        return subprocess.run([self.program, *arguments], capture_output=True, env=self.environment, timeout=120)

    def must(self, *arguments):
        done = self.run(*arguments)
        expect(done.returncode == 0, f"{arguments}: {done.stderr.decode()}")

    def audit(self, form, *arguments, code):
        done = self.run("audit", "-o", form, *arguments)
        expect(done.returncode == code, f"{form} of {arguments} ends with {done.returncode}, not {code}: {done.stderr.decode()}")
        return done.stdout.decode()


def one_fault(sarif, schema):
    """The first thing that is wrong with a report as SARIF, or None: by the schema, and by what the standard says beside it."""
    try:
        schema.validate(sarif)
    except ValidationError as wrong:
        return f"{wrong.json_path}: {wrong.message}"
    for run in sarif["runs"]:
        rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
        if len(set(rules)) != len(rules):
            return "a rule stands twice"
        for result in run["results"]:
            if result["ruleId"] not in rules or ("ruleIndex" in result and rules[result["ruleIndex"]] != result["ruleId"]):
                return f"no rule {result['ruleId']} where it is said to be"
    return None


def names(junit):
    """What failed, was passed over, and could not be read."""
    said = {Failure: Counter(), Skipped: Counter(), Error: Counter()}
    for suite in junit:
        cases = list(suite)
        for case in cases:
            expect(len(case.result) <= 1, f"{case.name} has more than one result")
            for result in case.result:
                said[type(result)][(case.classname, case.name)] += 1
        for attribute, kind in (("failures", Failure), ("skipped", Skipped), ("errors", Error)):
            there = sum(isinstance(r, kind) for case in cases for r in case.result)
            expect(getattr(suite, attribute) == there, f"{suite.name}: {attribute} is {getattr(suite, attribute)}, not {there}")
        expect(suite.tests == len(cases), f"{suite.name}: tests is {suite.tests}, not {len(cases)}")
    for attribute, kind in (("failures", Failure), ("skipped", Skipped), ("errors", Error)):
        expect(getattr(junit, attribute) == sum(said[kind].values()), f"the whole: {attribute}")
    return said


def same(report, sarif, junit):
    """All forms say one thing."""
    results = sarif["runs"][0]["results"]
    fail = [r for r in results if r["kind"] == "fail"]
    of = lambda f: (f["rule"], f["subject"]["words"])
    as_sarif = lambda r: (r["ruleId"], r["locations"][0]["logicalLocations"][0]["fullyQualifiedName"])
    findings, waived = Counter(map(of, report["findings"])), Counter(map(of, report["waived"]))
    expect(findings == Counter(as_sarif(r) for r in fail if not r["suppressions"]), "findings differ in SARIF")
    expect(waived == Counter(as_sarif(r) for r in fail if r["suppressions"]), "what is waived differs in SARIF")
    for finding, result in zip(report["findings"], (r for r in fail if not r["suppressions"])):
        place = result["locations"][0].get("physicalLocation", {})
        expect(place.get("region", {}).get("startLine") == finding["subject"]["line"], f"the line differs: {finding}")
        expect(finding["sentence"].rstrip(".") in result["message"]["text"], f"the sentence differs: {finding}")
    unknown = {(r["rule"], u["subject"]["words"]) for r in report["rules"] for u in r["not_looked_at"]}
    expect(unknown == {as_sarif(r) for r in results if r["kind"] == "open"}, "what was not looked at differs in SARIF")
    invocation = sarif["runs"][0]["invocations"][0]
    notes = [n["message"]["text"] for n in invocation["toolExecutionNotifications"]]
    expect(notes == report["unreadable"], "what could not be read differs in SARIF")
    expect(invocation["executionSuccessful"] == (report["outcome"] != "unreadable"), "success differs in SARIF")
    said = names(junit)
    expect(set(said[Failure]) == set(findings), "failures of JUnit are not the findings")
    expect(set(said[Skipped]) == (set(waived) | unknown) - set(findings), "what JUnit skips differs")
    expect(sum(said[Error].values()) == len(report["unreadable"]), "errors of JUnit are not what could not be read")


def looked_at(fivefold, schema, code, *arguments):
    report = json.loads(fivefold.audit("json", *arguments, code=code))
    sarif = json.loads(fivefold.audit("sarif", *arguments, code=code))
    xml = fivefold.audit("junit", *arguments, code=code)
    fault = one_fault(sarif, schema)
    expect(fault is None, f"SARIF of {arguments}: {fault}")
    same(report, sarif, JUnitXml.fromstring(xml.encode()))
    return report, sarif, xml


def farm(fivefold, folder):
    """An operator's folder with a network, its gateway and two devices."""
    folder = str(folder)
    fivefold.must("init", folder)
    fivefold.must("network", "add", "--dir", folder, "dams")
    fivefold.must("gateway", "add", "--dir", folder, "--net", "dams", "north")
    fivefold.must("device", "add", "--dir", folder, "--net", "dams")
    return folder


def spoil(fivefold, folder):
    """Makes a deployment one in which much is wrong."""
    fivefold.must("network", "add", "--dir", folder, "--levels", "e1", "--danger-link-only", "a test bench", "bench")
    config = Path(folder) / "gateways" / "north" / "gateway.toml"
    config.write_text(config.read_text() + '\n[metrics]\nbind = "0.0.0.0:9464"\n\n[limits]\nmessages_a_minute = 65535\n')
    # Put together, for ./ci.sh places looks for such lines.
    key = " ".join(["-----BEGIN", "PRIVATE", "KEY-----\nAAAA\n-----END", "PRIVATE", "KEY-----\n"])
    (Path(folder) / NASTY).mkdir()
    (Path(folder) / NASTY / "old.key").write_text(key)


def waivers(report, path):
    """Waives all of a report that is grave."""
    text = ""
    for finding in report["findings"]:
        if finding["severity"] in ("critical", "high"):
            lines = {"rule": finding["rule"], "subject": finding["subject"]["words"], "finding": finding["finding"]}
            lines |= {"owner": "Ann <&>", "reason": "a test", "until": "2999-12-31", "severity": finding["severity"]}
            text += "[[waiver]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in lines.items() if v)
    path.write_text(text)
    return str(path)


def broken_sarif(sarif):
    """One report for each thing that a reader must refuse."""
    first = lambda run: next(r for r in run["results"] if "physicalLocation" in r["locations"][0])
    region = lambda run: first(run)["locations"][0]["physicalLocation"]
    changes = {
        "another version": lambda s, run: s.update(version="2.0.0"),
        "no version": lambda s, run: s.pop("version"),
        "no tool": lambda s, run: run.pop("tool"),
        "no message": lambda s, run: first(run).pop("message"),
        "a level that is none": lambda s, run: first(run).update(level="critical"),
        "a kind that is none": lambda s, run: first(run).update(kind="bad"),
        "a line 0": lambda s, run: region(run).update(region={"startLine": 0}),
        "a line in words": lambda s, run: region(run).update(region={"startLine": "7"}),
        "a path that is no URI": lambda s, run: region(run)["artifactLocation"].update(uri="file:///a b"),
        "a word that nobody knows": lambda s, run: first(run).update(severity="high"),
        "no word of success": lambda s, run: run["invocations"][0].pop("executionSuccessful"),
        "a fingerprint that is none": lambda s, run: first(run).update(partialFingerprints={"x": 1}),
        "another rule's index": lambda s, run: first(run).update(ruleIndex=first(run)["ruleIndex"] + 1),
        "a rule that is in no list": lambda s, run: first(run).update(ruleId="AR-99"),
        "a rule twice": lambda s, run: run["tool"]["driver"]["rules"].append(run["tool"]["driver"]["rules"][0]),
    }
    for what, change in changes.items():
        other = copy.deepcopy(sarif)
        change(other, other["runs"][0])
        yield what, other


def broken_junit(xml):
    """The same for JUnit."""
    yield "cut off", xml[: len(xml) // 2]
    yield "a sign that is not escaped", xml.replace("<failure type=", "<failure type=<", 1)
    yield "a suite that is not closed", xml.replace("</testsuite>", "", 1)
    yield "a control character", xml.replace("<failure ", "<failure x=\"\x01\" ", 1)
    yield "a wrong number of failures", xml.replace(" failures=\"1\"", " failures=\"2\"", 1)
    yield "a case that is missing", xml.replace(xml[xml.index("    <testcase"):].split("\n", 1)[0] + "\n", "", 1)
    yield "two results of one case", xml.replace("</failure>", "</failure><skipped/>", 1)
    yield "another subject", xml.replace("name=\"network bench\"", "name=\"network bank\"")


def refused(report, sarif, xml, schema):
    count = 0
    for what, broken in broken_sarif(sarif):
        expect(one_fault(broken, schema) is not None, f"SARIF with {what} passes")
        count += 1
    for what, broken in broken_junit(xml):
        expect(broken != xml, f"{what}: nothing is broken")
        try:
            same(report, sarif, JUnitXml.fromstring(broken.encode()))
        except Exception:  # whatever a foreign parser raises
            count += 1
            continue
        raise Failed(f"JUnit with {what} passes")
    return count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fivefold", default="target/release/fivefold")
    fivefold = Fivefold(str(Path(parser.parse_args().fivefold).resolve()))
    schema = validator()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        good = farm(fivefold, folder / "good")
        bad = farm(fivefold, folder / "bad")
        spoil(fivefold, bad)
        shutil.copytree(FIXTURES, folder / NASTY)
        dump = folder / NASTY / "dump.sql"
        dump.write_text(DUMP)
        beside = lambda names: [word for name in names for word in ("--beside", f"{name.split('/')[0]}={folder / NASTY / name}")]
        everything = beside(["chirpstack/bad.toml", "chirpstack/bad_profile.json", "mosquitto/bad.conf", "mosquitto/bad_parts.conf",
                             "mosquitto/bad_tls.conf", "pg-hba/bad.conf", "sshd/bad.conf", "unit/bad.service"])
        everything += ["--beside", f"meshlium={dump}"]
        nothing = beside(["mosquitto/good.conf", "pg-hba/good.conf", "sshd/good.conf", "unit/good.service"])
        node = ["--node", str(next((Path(good) / "nodes").iterdir()))]

        worst, sarif, xml = looked_at(fivefold, schema, 1, "--dir", bad, *everything)
        rules = {f["rule"] for f in worst["findings"]}
        expect({"AR-01", "AR-08", "AR-31", "AR-36", "AR-44", "FX-02", "FX-11", "FX-21", "FX-34", "FX-41"} <= rules, f"{rules}")
        fresh, *_ = looked_at(fivefold, schema, 1, "--dir", good, *nothing)
        waived = waivers(fresh, folder / "waivers.toml")
        best, *_ = looked_at(fivefold, schema, 0, "--dir", good, "--waivers", waived, *nothing, *node)
        expect(best["waived"] and not [f for f in best["findings"] if f["severity"] in ("critical", "high")], f"{best}")
        looked_at(fivefold, schema, 1, *everything)
        looked_at(fivefold, schema, 0, *nothing)
        looked_at(fivefold, schema, 0, *node)
        unread, *_ = looked_at(fivefold, schema, 2, "--dir", bad, "--beside", f"sshd={folder / NASTY / 'none'}")
        expect(len(unread["unreadable"]) == 1, f"{unread['unreadable']}")
        ended = folder / "ended.toml"
        ended.write_text(Path(waived).read_text().replace("2999-12-31", "2020-01-01"))
        over, *_ = looked_at(fivefold, schema, 1, "--dir", good, "--waivers", str(ended))
        expect("WAIVER" in {f["rule"] for f in over["findings"]}, f"{over['findings']}")
        count = refused(worst, sarif, xml, schema)
    print(f"8 audits in three forms: SARIF holds to its schema, JUnit opens in junitparser, and all say the same "
          f"({len(worst['findings'])} findings by {len(rules)} rules in the worst); {count} broken reports are refused")


if __name__ == "__main__":
    try:
        main()
    except Failed as wrong:
        sys.exit(f"reports: {wrong}")
