"""The plan's page in a headless browser: it draws, names what is hovered, and no name of a model acts as script."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hydrofoil
from tests.python.test_plan import config, run

BROWSER = next((path for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt-get install chromium-headless-shell)")
EVIL = "</script><script>window['broken'] = 1</script><img src=x onerror='window[\"broken\"] = 1'>"

# What a test does to the page stands before and behind the page's own script.
BEFORE = "<script>window.failures = []; addEventListener('error', e => failures.push(e.message));</script>"
AFTER = """<script>
const point = (target, clientX, clientY) => {
  target.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX, clientY}));
  return tip.hidden ? null : tip.innerText;
};
const tip = document.getElementById("tip"), svg = document.getElementById("timeline-svg"), area = svg.getBoundingClientRect();
const found = {failures, broken: window.broken, images: document.images.length, scripts: document.scripts.length,
  lanes: [...document.querySelectorAll(".lane")].map(lane => [lane.dataset.lane, lane.querySelectorAll(".event").length]),
  curve: document.getElementById("memory-curve").getAttribute("d"), areas: document.querySelectorAll(".area").length,
  peak: document.getElementById("peak").textContent, limit: document.getElementById("limit")?.textContent, parts: Boolean(document.getElementById("break")),
  events: [...document.querySelectorAll(".event")].map(event => point(event, 200, 200)),
  memory: point(svg, area.left + area.width / 2, area.top + 100), outside: point(svg, area.left + 2, area.top + 100),
  curves: [...document.querySelectorAll(".curve")].map(curve => curve.getAttribute("d").split("L").length),
  width: document.documentElement.scrollWidth, window: innerWidth};
const before = document.querySelectorAll(".event").length;
for (const [type, x] of [["pointerdown", 0.4], ["pointermove", 0.5], ["pointerup", 0.5]]) svg.dispatchEvent(new PointerEvent(type, {clientX: area.left + area.width * x, clientY: area.top + 100}));
found.zoomed = document.querySelectorAll(".event").length < before && !document.getElementById("whole-step").hidden;
document.getElementById("whole-step").click();
found.whole = document.querySelectorAll(".event").length === before;
document.body.innerHTML = "<pre id=found></pre>";
document.getElementById("found").textContent = JSON.stringify(found);
</script></body>"""


def browse(page: Path, width: int = 1200, probe: bool = True) -> Any:
    assert BROWSER is not None
    text = page.read_text()
    if probe:
        assert text.count("<style>") == 1 and text.count("</body>") == 1
        page = page.with_name("probed.html")
        page.write_text(text.replace("<style>", BEFORE + "<style>").replace("</body>", AFTER))
    result = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
                             f"--window-size={width},900", f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", page.as_uri()],
                            capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "CONSOLE" not in result.stderr, result.stderr
    if not probe:
        return result.stdout
    match = re.search(r'<pre id="found">(.*?)</pre>', result.stdout, re.DOTALL)
    assert match, result.stdout[-2000:]
    return json.loads(html.unescape(match[1]))


@needs_browser
@pytest.mark.parametrize("width", [1200, 400])
def test_page_draws_the_step_and_names_what_is_hovered(tmp_path: Path, width: int) -> None:
    page = tmp_path / "plan.html"
    result = run(tmp_path, "--world-size", "8", "--nodes", "2", "--memory", "20GiB", "--html", str(page), "--scaling", "--max-ranks", "64")
    assert result.returncode == 0, result.stderr
    planned = json.loads(run(tmp_path, "--world-size", "8", "--nodes", "2", "--memory", "20GiB", "--json").stdout)
    found = browse(page, width)
    assert found["failures"] == [] and found["window"] == width and found["width"] <= width
    lanes = [event["lane"] for event in planned["timeline"]["events"]]
    assert found["lanes"] == [[lane, lanes.count(lane)] for lane in ("compute", "gather", "reduce")]
    assert min(count for _, count in found["lanes"]) > 0
    assert found["curve"].count("H") == len(planned["timeline"]["memory"]) + 1 and found["areas"] == 3
    assert re.fullmatch(r"peak [0-9.]+ [MG]iB", found["peak"]) and "memory of a rank 20 GiB" in found["limit"]
    hovered = iter(found["events"])
    for lane in ("compute", "gather", "reduce"):
        for event in (e for e in planned["timeline"]["events"] if e["lane"] == lane):
            text = next(hovered)
            name = planned["units"][event["unit"]]["name"] if event["unit"] >= 0 else event["module"]
            assert f"{event['activity']} {name}\n" in text and event["phase"] in text, (text, event)
    assert "in all" in found["memory"] and "activations" in found["memory"] and found["outside"] is None
    assert found["zoomed"] and found["whole"]
    assert found["curves"] == [6, 6, 6]  # 2 to 64 ranks


@needs_browser
def test_names_of_modules_are_inert(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    model.add_module(EVIL, nn.Linear(8, 8))
    settings = config(3, gradient_accumulation_steps=4, hydrofoil={"unit_min_bytes": 0})
    plan = hydrofoil.plan(model, settings, world_size=4, num_nodes=2, step=lambda model: model(torch.ones(2, 8)).sum())
    page = tmp_path / "plan.html"
    page.write_text(plan.to_html())
    found = browse(page)
    assert found["failures"] == [] and found.get("broken") is None and found["images"] == 0
    assert found["scripts"] == 2 + 2  # the page's and the test's
    assert any(EVIL in text for text in found["events"]), "the name is shown as it is"
    assert found["parts"]  # two micro steps of four are left out
    assert "&lt;/script&gt;&lt;script&gt;" in browse(page, probe=False)


def test_page_needs_nothing_else_and_replaces_pages_only(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    for _ in range(2):
        assert run(tmp_path, "--html", str(page)).returncode == 0
    text = page.read_text()
    assert text.startswith("<!doctype html>") and not re.search(r"\b(src|href)=|https?:(?!//www.w3.org/2000/svg)|@import|url\((?!#)", text)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    other = tmp_path / "notes.html"
    other.write_text("mine")
    refused = run(tmp_path, "--html", str(other))
    assert refused.returncode == 2 and "no page of hydrofoil plan" in refused.stderr and other.read_text() == "mine"
    assert run(tmp_path, "--html", str(tmp_path / "missing" / "plan.html")).returncode == 126


def test_scaling_prints_table_and_json(tmp_path: Path) -> None:
    table = run(tmp_path, "--scaling", "--max-ranks", "16", "--link-latency", "5us", "--link-bandwidth", "25GB/s")
    assert table.returncode == 0 and "weak scaling over ring collectives" in table.stdout, table.stderr
    arguments = ["--scaling", "--link-latency", "5us", "--link-bandwidth", "25GB/s", "--json"]
    values = {kind: json.loads(run(tmp_path, *arguments, "--collectives", kind).stdout) for kind in ("ring", "recursive")}
    for kind, value in values.items():
        assert value["collectives"] == kind and value["network_latency_s"] == pytest.approx(5e-6) and value["network_bytes_per_s"] == 25e9
        assert [(p["world_size"], p["stage"]) for p in value["points"]] == [(2 ** k, stage) for k in range(1, 13) for stage in (1, 2, 3)]
    assert all(a["step_seconds"] <= b["step_seconds"] for a, b in zip(values["recursive"]["points"], values["ring"]["points"]))


@pytest.mark.parametrize("arguments, message", [
    (["--scaling", "--max-ranks", "1"], "max ranks: got 1"),
    (["--max-ranks", "8"], "--max-ranks is for --scaling"),
    (["--link-latency", "5"], '--link-latency: got "5"'),
    (["--link-bandwidth", "25GB"], '--link-bandwidth: got "25GB"'),
    (["--collectives", "tree"], '--collectives: got "tree"'),
    (["--scaling", "--world-size", "3"], "ranks a node: got 3"),
])
def test_scaling_names_wrong_use(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run(tmp_path, *arguments)
    assert result.returncode == 2 and message in result.stderr, result.stderr
