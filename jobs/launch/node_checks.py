"""The checks of doctor: pure functions of what the nodes answered (jobs/launch/node_probe.py), a verdict each."""

from collections import Counter
from typing import NamedTuple

from jobs.launch.node_probe import START
from shards.claim import STALE_AFTER_S

GIB = 1024**3


class Check(NamedTuple):
    level: str  # ok, warn or FAIL
    name: str
    text: str


def judge(answers: list[dict], nodes: int, gpus_per_node: int, device: str, stderr: str = "") -> list[Check]:
    """The checks of doctor, a line each. `answers`: those of the nodes (see jobs.launch.node_probe); `stderr`: of
    srun."""
    whole = [answer for answer in answers if "ready" in answer]
    hosts = ", ".join(answer["host"] for answer in whole)
    if len(whole) < nodes:
        who = f"{len(whole)} of {nodes} answered{f' ({hosts})' * bool(hosts)}"
        why = last(stderr) or f"the others were silent for {START:.0f} s"
        if not answers:  # for a while it says that the job waits
            why = f"{why}; if the partition is full, try in an allocation: salloc --nodes={nodes}"
        checks = [Check("FAIL", "nodes", f"{who}: {why}")]
    else:
        checks = [Check("ok", "nodes", hosts)]
    if whole:
        cuda = device == "cuda" or (device == "auto" and any(gpu_count(answer) for answer in whole))
        ranks = sum(max(gpu_count(answer), gpus_per_node, 1) for answer in whole)
        checks += [
            check_versions(whole),
            check_code(whole),
            check_horovod(whole, ranks, nccl=cuda),
            check_interface(whole),
            check_network(whole),
            check_storage(whole),
            check_permissions(whole),
            check_space(whole),
            check_gpus(whole, gpus_per_node, device),
            check_cpus(whole, gpus_per_node),
            check_clock(whole),
        ]
    return checks


def verdict(name: str, wrong: list[str], fine: str, advice: str, level: str = "FAIL") -> Check:
    """A check. `wrong`: each problem, with `advice` on what to do; `fine`: what to say where there is none."""
    return Check(level, name, f"{'; '.join(dict.fromkeys(wrong))}: {advice}") if wrong else Check("ok", name, fine)


def errors(answers: list[dict], topic: str) -> list[str]:
    """What failed on which node in this part of the probe."""
    return [f"{a['host']}: {a[topic]['error']}" for a in answers if "error" in a[topic]]


def differences(answers: list[dict], name: str) -> list[str]:
    """One entry that names every node's value, if they are not all the same."""
    values = [(answer["host"], answer["versions"][name]) for answer in answers]
    if len({value for _, value in values}) == 1:
        return []
    return [f"{name} is " + ", ".join(f"{value} on {host}" for host, value in values)]


def check_versions(answers: list[dict]) -> Check:
    names, wrong = ("python", "torch", "numpy", "cv2"), []
    for answer in answers:
        for name in names:
            if isinstance(answer["versions"][name], dict):
                wrong.append(f"{name} on {answer['host']}: {answer['versions'][name]['error']}")
    wrong = wrong or [line for name in names for line in differences(answers, name)]
    fine = ", ".join(f"{name} {answers[0]['versions'][name]}" for name in names)
    return verdict(
        "versions", wrong, fine, "run slurm/setup.sh where all nodes see it, see HTR_MODULES in slurm/site.env"
    )


def check_code(answers: list[dict]) -> Check:
    versions = [answer["versions"] for answer in answers]
    broken = [
        f"{a['host']}: {a['versions']['code']['error']}" for a in answers if isinstance(a["versions"]["code"], dict)
    ]
    wrong = broken or differences(answers, "code")
    known = [answer for answer in answers if answer["versions"]["commit"] != "unknown"]  # a node may lack git
    wrong = wrong or (differences(known, "commit") if known else [])
    return verdict(
        "code", wrong, f"commit {versions[0]['commit']}, files {versions[0]['code']}", "use one checkout for all"
    )


def check_horovod(answers: list[dict], ranks: int, nccl: bool) -> Check:
    wrong, advice = errors(answers, "horovod") or differences(answers, "horovod"), "run slurm/setup.sh"
    if not wrong:
        wrong = [f"built without gloo on {a['host']}" for a in answers if not a["horovod"]["gloo"]]
    if not wrong and nccl:
        advice = "run HOROVOD_GPU_OPERATIONS=NCCL slurm/setup.sh"
        wrong = [f"built without NCCL on {a['host']}" for a in answers if not a["horovod"]["nccl"]]
    fine = f"{answers[0]['versions']['horovod']}, imports, built with gloo" + " and NCCL" * nccl
    # one rank needs none of it
    return verdict("horovod", wrong, fine, advice, "FAIL" if ranks > 1 else "warn")


def check_interface(answers: list[dict]) -> Check:
    wrong = errors(answers, "network")
    if not wrong:
        hosts = {answer["network"]["address"]: answer["host"] for answer in answers}
        if len(hosts) < len(answers):
            wrong = [f"{a['host']} has {a['network']['address']} on {a['network']['interface']}" for a in answers]
    fine = ", ".join(f"{a['host']} {a['network'].get('interface')} {a['network'].get('address')}" for a in answers)
    return verdict("interface", wrong, fine, "set HTR_IFACE (and HTR_PORTS) in slurm/site.env")


def check_network(answers: list[dict]) -> Check:
    ways = [(a["host"], host, took) for a in answers for host, took in a.get("reached", {}).items()]
    wrong = [f"{here} cannot reach {there} ({took['error']})" for here, there, took in ways if isinstance(took, dict)]
    wrong += [f"{a['host']} did not say whom it reaches" for a in answers if not a.get("reached")]
    ports = answers[0]["network"].get("ports", "any")
    slowest = max((took for _, _, took in ways if not isinstance(took, dict)), default=0)
    fine = f"TCP connects in {1000 * slowest:.1f} ms (ports: {ports})"
    # those that lead from every node that met a closed way to every other
    lead = [set(names) for a in answers for names in a.get("other_ways", {}).values() if isinstance(names, list)]
    better = sorted(set.intersection(*lead)) if lead else []
    advice = f"open the ports ({ports}) between nodes, or set HTR_IFACE and HTR_PORTS"
    if better:
        advice = f"over {' and '.join(better)} the nodes do answer: set HTR_IFACE={better[0]} in slurm/site.env"
    return verdict("network", wrong, fine, advice)


def check_storage(answers: list[dict]) -> Check:
    wrong = errors(answers, "storage")
    for answer in answers:
        seen = answer.get("seen", {})
        wrong += [f"{answer['host']}, {host}: {t['error']}" for host, t in seen.items() if isinstance(t, dict)]
        if len(answers) > 1 and not seen:
            wrong.append(f"{answer['host']} did not say what it sees of the others")
    wrong += contested(answers)
    times = [took for answer in answers for took in answer.get("seen", {}).values() if not isinstance(took, dict)]
    fine = "write, link and rename work" + (f"; another node's file is there in {max(times):.1f} s" if times else "")
    advice = "give a --shared folder that all nodes share, where rename and link are atomic"
    return verdict("storage", wrong, fine, advice)


def contested(answers: list[dict]) -> list[str]:
    """What went wrong where nodes linked and replaced the same files at the same time."""
    found = [f"{answer['host']} read {what}" for answer in answers for what in answer["storage"].get("torn", ())]
    won = Counter(number for answer in answers for number in answer["storage"].get("won", ()))
    if twice := sum(count > 1 for count in won.values()):
        found.append(f"{twice} of {len(won)} names were linked by several nodes: link is not atomic there")
    return found


def check_permissions(answers: list[dict]) -> Check:
    modes = sorted({answer["storage"]["mode"] for answer in answers if "mode" in answer["storage"]})
    whose = "the --shared folder has mode"
    wrong = [f"{whose} {mode:04o}, others may enter" for mode in modes if mode & 0o007]
    wrong += [f"{whose} {mode:04o}, the group may write" for mode in modes if mode & 0o020]
    fine = ", ".join(f"{whose} {mode:04o}" for mode in modes) or "not known, see storage"
    return verdict("permissions", wrong, fine, "for confidential data: chmod g-w,o-rwx FOLDER", "warn")


def check_space(answers: list[dict]) -> Check:
    known = [answer["storage"] for answer in answers if "free" in answer["storage"]]
    if not known:
        return Check("warn", "space", "not known, see storage")
    free = min(facts["free"] for facts in known)
    inodes = min((facts["inodes"] for facts in known if facts["inodes"] is not None), default=None)
    text = f"{free / GIB:,.1f} GiB and {'uncounted' if inodes is None else f'{inodes:,}'} files are free"
    if free < GIB or (inodes is not None and inodes < 1000):
        return Check("FAIL", "space", f"{text}: make room or give another --shared")
    if free < 20 * GIB or (inodes is not None and inodes < 100_000):
        return Check("warn", "space", f"{text}: shards and checkpoints want more")
    return Check("ok", "space", f"{text} (a quota may be lower)")


def gpu_count(answer: dict) -> int:
    return max(answer["gpus"].get("torch", 0), answer["gpus"].get("slurm", 0))


def check_gpus(answers: list[dict], asked: int, device: str) -> Check:
    if device == "cpu":
        return Check("ok", "gpus", "not looked at (--device cpu)")
    wrong, idle = errors(answers, "gpus"), []
    for answer in () if wrong else answers:
        host, facts = answer["host"], answer["gpus"]
        torch, slurm = facts["torch"], facts["slurm"]
        want = max(slurm, asked, int(device == "cuda"))
        if torch < want or (slurm and torch != slurm):
            wrong.append(f"{host}: torch sees {torch} GPUs, " + (f"Slurm gave {slurm}" if slurm else f"{want} wanted"))
        elif torch < facts["files"] and not slurm:
            idle.append(f"{host}: torch sees {torch} of {facts['files']} GPUs")
        elif torch > slurm and facts["in_slurm"]:
            idle.append(f"{host}: torch sees {torch} GPUs, Slurm gave none")
    if idle and not wrong:
        return verdict("gpus", idle, "", "ask for them (--gpus-per-node), or mend torch's CUDA", "warn")
    seen = answers[0]["gpus"].get("torch", 0)
    fine = f"{seen} a node, all compute" if seen else "none asked for: --gpus-per-node N checks them"
    return verdict("gpus", wrong, fine, "mend the driver or torch's CUDA (slurm/setup.sh), or work with --device cpu")


def check_cpus(answers: list[dict], asked: int) -> Check:
    few = []
    for answer in answers:
        ranks = max(gpu_count(answer), asked, 1)
        if answer["cpus"] < 2 * ranks:
            few.append(f"{answer['host']} gives {answer['cpus']} CPUs for {ranks} rank{'s' * (ranks > 1)}")
    fine = ", ".join(f"{answer['cpus']} on {answer['host']}" for answer in answers)
    return verdict(
        "cpus", few, fine, "decoding wants two a rank: --cpus-per-gpu=4, --cpus-per-task=4 or --exclusive", "warn"
    )


def check_clock(answers: list[dict]) -> Check:
    times = [answer["time"] for answer in answers if "time" in answer]
    skew = max(times) - min(times) if times else 0.0
    server = max((abs(answer["storage"].get("clock", 0)) for answer in answers), default=0)
    text = f"nodes differ by {skew:.1f} s, the storage's clock by {server:.1f} s"
    if max(skew, server) > STALE_AFTER_S / 2:
        return Check(
            "FAIL", "clock", f"{text}: run NTP; runs and status take living tasks for gone, and locks are waited for"
        )
    return Check("warn" if max(skew, server) > 2 else "ok", "clock", text + ": run NTP" * (max(skew, server) > 2))


def last(stderr: str, lines: int = 3) -> str:
    """The last lines of a program's error output, joined to one."""
    return "; ".join(dict.fromkeys(line.strip() for line in stderr.splitlines()[-lines:] if line.strip()))[:400]
