"""The page in a real browser: nothing fails, everything is shown, nothing sticks out."""

import json
import re
import shutil
import subprocess

import pytest
from report_toys import full

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WATCH = """<script>
window.failures = [];
window.addEventListener("error", e => failures.push(String(e.message || e.target.outerHTML).slice(0, 200)), true);
document.addEventListener("securitypolicyviolation", e => failures.push("refused: " + e.violatedDirective));
</script>"""
TELL = """<script>
window.addEventListener("load", () => {
  const pictures = [...document.images];
  const root = document.documentElement;
  const boxes = [...document.querySelectorAll("main svg")].map(svg => svg.getBoundingClientRect());
  const answer = {
    failures,
    pictures: pictures.length,
    shown: pictures.filter(picture => picture.naturalWidth > 0 && picture.getBoundingClientRect().width > 8).length,
    drawings: boxes.filter(box => box.width > 100 && box.height > 50).length,
    width: window.innerWidth,
    overflow: root.scrollWidth - root.clientWidth,
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
  };
  parent.postMessage(JSON.stringify(answer), "*");
});
</script>"""
FRAME = """<!DOCTYPE html><pre id="answer"></pre>
<script>addEventListener("message", e => document.getElementById("answer").textContent = e.data);</script>
<iframe src="page.html" width="{width}" height="1000" style="border: 0"></iframe>"""  # windows are at least 500 wide


@pytest.fixture(scope="module")
def chromium():
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found or pytest.skip(f"no browser to look with: none of {', '.join(NAMES)} is installed")


@pytest.fixture
def look(chromium, tmp_path):
    """Opens a page and returns what the browser tells about it."""

    def opened(text, width, *flags):
        allowed = text.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
        assert allowed != text
        watched = allowed.replace("<head>", f"<head>{WATCH}", 1).replace("</body>", f"{TELL}</body>")
        (tmp_path / "page.html").write_text(watched, "utf-8")
        frame = tmp_path / "frame.html"
        frame.write_text(FRAME.format(width=width), "utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += ["--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1200", *flags]
        command += ["--virtual-time-budget=10000", "--dump-dom", frame.as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return json.loads(re.search(r'<pre id="answer">(.*?)</pre>', dom, re.DOTALL)[1])

    return opened


@pytest.fixture(scope="module")
def text():
    return full(pictures=4, side=64, columns=("picture", *(f"a_long_name_of_model_{n}" for n in range(9)))).html()


@pytest.mark.parametrize("width", [390, 1280])
def test_everything_is_shown_without_an_error(look, text, width):
    answer = look(text, width)
    assert answer["failures"] == []
    assert answer["shown"] == answer["pictures"] == text.count("<img ") > 40
    assert answer["drawings"] == text.count("<svg") == 5
    assert answer["width"] == width and answer["overflow"] == 0


def test_the_dark_page_is_dark(look, text):
    light, dark = look(text, 390), look(text, 390, "--blink-settings=preferredColorScheme=0")
    assert light["paper"] == "rgb(255, 255, 255)"
    assert sum(map(int, re.findall(r"\d+", dark["paper"]))) < 100 < 600 < sum(map(int, re.findall(r"\d+", dark["ink"])))


def test_the_check_itself_sees_failures(look, text):
    pictures = '<img src="data:image/png;base64,AAAA" alt="x"><img src="http://x/y.png" alt="x">'
    broken = text.replace("<main", f"{pictures}<main")
    answer = look(broken, 390)
    assert answer["pictures"] - answer["shown"] == 2
    assert any("refused: img-src" in failure for failure in answer["failures"])
